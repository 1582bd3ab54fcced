"""The patient-clustered bootstrap: patients are drawn with replacement, and all samples of a patient go together.

Samples of one patient are not independent, so an interval that resamples images is too narrow (Field and Welsh 2007,
"Bootstrapping clustered data", JRSS B 69:369-390). Two kinds of intervals are built on the same resamples:

- AUROC: a Wilson score interval (1927, JASA 22:209) of as many independent cases as its bootstrap variance corresponds
  to, bounded where the variance vanishes near 0 and 1; never of zero width.
- everything else: the BCa interval (Efron 1987, JASA 82:171), percentile for more than JACKKNIFE patients.

Both use the quantiles of Student's t instead of the normal ones, as a bootstrap of few patients is too narrow
(Hesterberg 2015, The American Statistician 69:371-386).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri, stdtrit

from radprobe.metrics.options import Bootstrap

CHUNK, VALUES = 64, 2**18  # resamples that are computed at once, more of few patients: this bounds memory
LEVEL = 95  # percent
TAIL = (1 - LEVEL / 100) / 2
Z = -float(ndtri(TAIL))  # the normal quantile of an interval
FEW = 30  # patients up to which an interval is flagged
SLACK = 0.05  # the least denominator of the BCa correction: strong skew would turn it around
JACKKNIFE = 400  # patients up to which the BCa interval leaves each out once


def patients_of(patient_ids: ArrayLike) -> tuple[np.ndarray, int]:
    """Return each sample's patient as an integer [n], and how many patients there are.

    Patients are numbered in sorted order, so that equal patients get equal resamples whatever the order of samples.
    """
    names, codes = np.unique(np.asarray(patient_ids, dtype=str), return_inverse=True)
    return codes.reshape(-1), len(names)


@lru_cache(maxsize=1)  # every backbone has the same
def counts(patients: int, resamples: int, seed: int, size: int | None = None) -> np.ndarray:
    """Return how often each patient is drawn, uint16 [patients, resamples]; each column sums to `size`, or patients."""
    generator = np.random.default_rng(seed)
    drawn = np.empty((patients, resamples), np.uint16)
    for resample in range(resamples):
        drawn[:, resample] = np.bincount(generator.integers(patients, size=size or patients), minlength=patients)
    drawn.flags.writeable = False
    return drawn


def student(z: float, df: float) -> float:
    """Return the quantile of Student's t that has the tail probability of the normal quantile `z`."""
    return -float(stdtrit(df, ndtr(-z)))


@dataclass(frozen=True)
class Support:
    """How many patients limit the precision of a statistic, and the degrees of freedom of its standard error.

    most: for an AUROC, the number of independent cases that its variance corresponds to, at most.
    rarer: whether the limit is the number of patients with the rarer label.
    """

    patients: int
    df: float
    most: float | None = None
    rarer: bool = False

    @classmethod
    def of(cls, patients: int) -> Self:
        """Return the support of a statistic in which every patient counts alike."""
        return cls(patients, max(patients - 1, 1))

    @property
    def name(self) -> str:
        """What is counted."""
        return "patients with the rarer label" if self.rarer else "patients"

    def multiplier(self, z: float) -> float:
        """Return the quantile of Student's t that has the tail probability of the normal quantile `z`."""
        return student(z, self.df)


@dataclass(frozen=True)
class Resampled:
    """A statistic [...] of all patients, of every resample [resamples, ...], and without each patient [patients, ...].

    The last is known for up to JACKKNIFE patients. support: where fewer patients count than were resampled.
    """

    point: np.ndarray
    drawn: np.ndarray
    without: np.ndarray | None
    patients: int
    how: Bootstrap
    support: Support | None = None

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> Self:
        """Return `function` of the statistic, which it gets with resamples (or patients) along the first axis."""
        without = None if self.without is None else function(self.without)
        return replace(self, point=function(self.point[None])[0], drawn=function(self.drawn), without=without)

    def at(self, *where: int | np.ndarray) -> Self:
        """Return the part of the statistic at an index of its own axes: numbers, or masks that select several."""
        return self.map(lambda values: values[:, *where])

    def minus(self, other: Self) -> Self:
        """Return the difference from another statistic of the same patients in the same resamples."""
        without = None if self.without is None else self.without - other.without
        support = min(self.limit, other.limit, key=lambda limit: limit.patients)
        support = replace(support, most=None)  # a difference is no rate
        drawn = self.drawn - other.drawn
        return replace(self, point=self.point - other.point, drawn=drawn, without=without, support=support)

    @property
    def limit(self) -> Support:
        """How many patients limit the precision."""
        return self.support or Support.of(self.patients)

    @property
    def standard_error(self) -> float:
        """The standard error of a scalar statistic: its deviation over defined resamples, unbiased for few patients."""
        defined = self.drawn[~np.isnan(self.drawn)]
        if len(defined) < 2 or self.patients < 2:
            return np.nan
        return float(defined.std(ddof=1) * np.sqrt(self.patients / (self.patients - 1)))

    def interval(self, patients: int | None = None) -> tuple[float, float, str]:
        """Return low, high and a note of the 95 % interval of a scalar statistic; NaN where there is none.

        `patients` are those with a value, if not all; of them and `support`, the fewer count. There is no interval
        under `min_patients`, and none where the value is the same in every resample, which cannot show how far it
        varies. Resamples in which the value is undefined are left out, and the note counts them.
        """
        support = self.limit
        if patients is not None and patients < support.patients:
            support = Support.of(patients)
        if np.isnan(self.point):
            return np.nan, np.nan, ""
        if refused := refusal(support, self.how.min_patients):
            return np.nan, np.nan, refused
        defined = self.drawn[~np.isnan(self.drawn)]
        if not len(defined):
            return np.nan, np.nan, "no interval: undefined in every resample"
        if support.most is None and np.ptp(defined) == 0:
            return np.nan, np.nan, "no interval: the same in every resample"
        lacking = len(self.drawn) - len(defined)
        notes = [f"undefined in {lacking} of {len(self.drawn)} resamples"] if lacking else []
        if support.patients <= FEW:
            notes.append(f"few {support.name}: {support.patients}")
        if support.most is None:
            low, high = np.quantile(defined, _tails(support, float(self.point), defined, self.without))
        else:
            low, high = _wilson(support, support.most, float(self.point), self.standard_error)
        return float(low), float(high), "; ".join(notes)


def refusal(support: Support, fewest: int) -> str:
    """Return why so few patients get no interval, "" where they are enough."""
    if support.patients >= fewest:
        return ""
    name = support.name if support.patients != 1 else support.name.replace("patients", "patient", 1)
    return f"no interval: {support.patients} {name}, fewer than {fewest}"


def average(every: Sequence[Resampled]) -> Resampled:
    """Return the mean of statistics of the same patients in the same resamples."""
    drawn = np.mean([each.drawn for each in every], axis=0)
    withouts = [each.without for each in every if each.without is not None]
    without = np.mean(withouts, axis=0) if len(withouts) == len(every) else None
    return replace(every[0], point=np.mean([each.point for each in every], axis=0), drawn=drawn, without=without)


def _wilson(support: Support, most: float, point: float, error: float) -> tuple[float, float]:
    """Return the Wilson score interval of a rate over point (1 - point) / error^2 cases, at most `most`."""
    spread = point * (1 - point)
    cases = most if error == 0 or spread == 0 else min(spread / error**2, most)
    q = support.multiplier(Z)
    middle = (point + q**2 / (2 * cases)) / (1 + q**2 / cases)
    half = q / (1 + q**2 / cases) * np.sqrt(spread / cases + q**2 / (4 * cases**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _tails(support: Support, point: float, drawn: np.ndarray, without: np.ndarray | None) -> np.ndarray:
    """Return the two quantiles of the resamples that bound the interval: BCa with the tails of Student's t."""
    widened = support.multiplier(Z) * np.sqrt(support.patients / (support.patients - 1))
    ends = np.array([-widened, widened])
    left = None if without is None else without[~np.isnan(without)]
    if left is None or len(left) < 2 or np.ptp(left) == 0:
        return np.asarray(ndtr(ends))
    share = ((drawn < point).mean() + (drawn <= point).mean()) / 2
    if not 0 < share < 1:
        return np.asarray(ndtr(ends))
    bias = ndtri(share)
    apart = left.mean() - left
    apart = np.ldexp(apart, -np.frexp(np.abs(apart).max())[1])  # no unit, exactly: cubes of small numbers would be 0
    acceleration = (apart**3).sum() / (6 * (apart**2).sum() ** 1.5)
    moved = bias + ends
    return np.asarray(ndtr(bias + moved / np.maximum(1 - acceleration * moved, SLACK)))


def resampled(statistic: Callable[[np.ndarray], np.ndarray], patients: int, how: Bootstrap) -> Resampled:
    """Return `statistic` of all patients, of every resample and, for up to JACKKNIFE patients, without each of them.

    `statistic` gets patient weights [patients, r], float64, and returns [r, ...]. It is called on a chunk of
    resamples at a time: at 2,000 resamples of 25,596 images in 14 classes the peak stays under 0.5 GB.
    """
    point = statistic(np.ones((patients, 1)))[0]
    weights = counts(patients, how.resamples, how.seed, how.size(patients))
    drawn = _chunked(statistic, weights)
    without = _chunked(statistic, 1 - np.eye(patients)) if 1 < patients <= JACKKNIFE else None
    return Resampled(np.asarray(point), drawn, without, patients, how)


def _chunked(statistic: Callable[[np.ndarray], np.ndarray], weights: np.ndarray) -> np.ndarray:
    chunk = max(CHUNK, VALUES // len(weights))
    starts = range(0, weights.shape[1], chunk)
    return np.concatenate([statistic(weights[:, start : start + chunk].astype(np.float64)) for start in starts])
