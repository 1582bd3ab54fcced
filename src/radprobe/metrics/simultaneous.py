"""Which rows of a table differ? All pairs at once, by the largest t statistic over shared bootstrap resamples (max-T).

Every two rows are compared on the same resampled patients, so what both find hard cancels out. A difference is
significant where its t statistic exceeds what the largest of all pairs reaches in 95 % of the resamples, centred on
the observed differences: then any false claim in the whole family has a probability of at most 5 %, whatever the
number of rows and however they correlate (Westfall and Young 1993, "Resampling-based multiple testing", ch. 2; Hothorn,
Bretz and Westfall 2008, Biometrical Journal 50:346-363). Quantiles are those of Student's t, for few patients, seeds
and inits.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import chdtri, ndtri, stdtr

from radprobe.metrics.resampling import LEVEL, TAIL, Resampled, Support, Z, refusal, student

ALPHA = 1 - LEVEL / 100
POWER = 0.8


@dataclass(frozen=True)
class Chance:
    """How far a row's score varies by the chance of seeds or initial weights, with its degrees of freedom."""

    variance: float
    df: float


@dataclass(frozen=True)
class Difference:
    """One row minus another, with a simultaneous 95 % interval, a p-value for the whole family and a note.

    low, high, p and standard_error are NaN where the difference is undefined or too few patients allow no interval.
    """

    one: str
    other: str
    value: float
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
    standard_error: float = np.nan
    note: str = ""

    @property
    def sign(self) -> int:
        """1 where the first row is significantly higher, -1 where it is significantly lower, else 0."""
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


@dataclass(frozen=True)
class Winner:
    """The score of the highest row, corrected for having been chosen as the highest.

    value: less the mean optimism over resamples of choosing the highest row there (Tsamardinos et al. 2018, Machine
    Learning 107:1895-1922). low: from the largest of the candidates' standardised deviations, so it holds whichever of
    them is chosen; high: that of the row alone.
    """

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Family:
    """All rows of one task, metric and protocol, by name, on the same patients in the same resamples.

    chance: of rows whose score depends on seeds or initial weights.
    """

    rows: Mapping[str, Resampled]
    chance: Mapping[str, Chance]

    @cached_property
    def support(self) -> Support:
        """The patients that limit the precision of the differences: the least over rows."""
        return min((row.limit for row in self.rows.values()), key=lambda limit: (limit.patients, limit.df))

    @cached_property
    def _names(self) -> list[str]:
        return [name for name, row in self.rows.items() if not np.isnan(row.point)]

    @cached_property
    def _deviations(self) -> np.ndarray:
        """How far each defined row lies from its score in every resample, seeds and inits included: [resamples, rows].

        Scaled so that their standard deviation is unbiased for few patients; without resamples that leave a row
        undefined.
        """
        generator = np.random.default_rng([next(iter(self.rows.values())).how.seed, len(self._names)])
        columns = []
        for name in self._names:
            row = self.rows[name]
            column = (row.drawn - row.point) * np.sqrt(row.patients / max(row.patients - 1, 1))
            if chance := self.chance.get(name):
                column = column + np.sqrt(chance.variance) * generator.standard_normal(len(column))
            columns.append(column)
        every = np.stack(columns, axis=1)
        defined: np.ndarray = every[~np.isnan(every).any(axis=1)]
        return defined

    @cached_property
    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        return np.triu_indices(len(self._names), 1)

    @cached_property
    def _errors(self) -> np.ndarray:
        """The standard errors of the differences of all pairs."""
        one, other = self._pairs
        if len(self._deviations) < 2:
            return np.full(len(one), np.nan)
        apart = self._deviations[:, one] - self._deviations[:, other]
        errors: np.ndarray = apart.std(axis=0, ddof=1)
        return errors

    @cached_property
    def _largest(self) -> np.ndarray:
        """The largest absolute t statistic of all pairs in every resample, sorted."""
        one, other = self._pairs
        varying = self._errors > 0
        if not varying.any():
            return np.zeros(len(self._deviations))
        apart = self._deviations[:, one[varying]] - self._deviations[:, other[varying]]
        return np.sort(np.max(np.abs(apart) / self._errors[varying], axis=1))

    @cached_property
    def critical(self) -> float:
        """The normal quantile that a t statistic has to exceed: p is at most 5 % beyond it."""
        rank = int(ALPHA * (1 + len(self._largest)))  # this many of 1 + resamples may be as large
        return float(self._largest[-rank]) if rank else np.inf

    @property
    def refused(self) -> str:
        """Why no difference has an interval, "" where they have."""
        fewest = next(iter(self.rows.values())).how.min_patients if self.rows else 0
        return refusal(self.support, fewest) if self.rows else ""

    @cached_property
    def differences(self) -> list[Difference]:
        """The difference of every two rows, in the order of the rows."""
        return [self._difference(one, other) for one, other in itertools.combinations(self.rows, 2)]

    def _difference(self, one: str, other: str) -> Difference:
        value = float(self.rows[one].point - self.rows[other].point)
        if np.isnan(value):
            return Difference(one, other, value, note="undefined: a score is undefined")
        if self.refused:
            return Difference(one, other, value, note=self.refused)
        error = self._error(one, other)
        if error == 0:
            note = "equal in every resample" if value == 0 else "no interval: the same in every resample"
            return Difference(one, other, value, note=note)
        if np.isnan(error):
            return Difference(one, other, value, note="no interval: undefined in every resample")
        df = self._df(one, other, error)
        half = student(self.critical, df) * error
        return Difference(one, other, value, value - half, value + half, self._p(value / error, df), error)

    def _fixed(self, one: str, other: str) -> list[Chance]:
        """Return what more test patients would not reduce: the chance of seeds and inits of two rows."""
        return [self.chance[name] for name in (one, other) if name in self.chance]

    def _df(self, one: str, other: str, error: float) -> float:
        """Return the degrees of freedom of a standard error: of patients and chance by Welch and Satterthwaite."""
        fixed = self._fixed(one, other)
        variance = sum(each.variance for each in fixed)
        if not variance:
            return self.support.df
        of_patients = max(error**2 - variance, 0.0)
        shares = of_patients**2 / self.support.df + sum(each.variance**2 / each.df for each in fixed)
        return (of_patients + variance) ** 2 / shares

    def _error(self, one: str, other: str) -> float:
        places = sorted((self._names.index(one), self._names.index(other)))
        k, first = len(self._names), places[0]
        return float(self._errors[first * k - first * (first + 1) // 2 + places[1] - first - 1])

    def _p(self, statistic: float, df: float) -> float:
        """Return the share of resamples whose largest statistic is as large; never 0, see Davison and Hinkley 1997."""
        z = -ndtri(stdtr(df, -abs(statistic)))
        as_large = len(self._largest) - np.searchsorted(self._largest, z, side="left")
        return float((1 + as_large) / (1 + len(self._largest)))

    def beaten(self, candidates: Sequence[str]) -> set[str]:
        """Return the candidates that some candidate significantly exceeds; the others may be the best."""
        found = [each for each in self.differences if each.one in candidates and each.other in candidates]
        return {each.other if each.sign > 0 else each.one for each in found if each.sign}

    def winner(self, candidates: Sequence[str]) -> Winner | None:
        """Return the highest of the candidates, its score in [0, 1] corrected; None where none is defined."""
        defined = [name for name in candidates if name in self._names]
        if not defined:
            return None
        scores = {name: float(self.rows[name].point) for name in defined}
        best = max(defined, key=lambda name: scores[name])
        low, high, _ = self.rows[best].interval()
        beaten = self.beaten(defined)
        rivals = [name for name in defined if name not in beaten]
        deviations = self._deviations[:, [self._names.index(name) for name in rivals]]
        if len(rivals) == 1 or np.isnan(low):
            return Winner(best, scores[best], low, high)
        chosen = np.argmax(np.array([scores[name] for name in rivals]) + deviations, axis=1)
        optimism = max(float(np.mean(deviations[np.arange(len(deviations)), chosen])), 0.0)
        low = min(
            scores[best] - (scores[best] - low) * self._stretch(deviations), scores[best] - self._reach(deviations)
        )
        low = max(low, 0.0)
        return Winner(best, max(scores[best] - optimism, low), low, high)

    def _stretch(self, deviations: np.ndarray) -> float:
        """Return by how much an interval's lower arm grows where the highest of several rows was chosen."""
        errors = deviations.std(axis=0, ddof=1)
        if not (errors > 0).all():
            return 1.0
        largest = float(np.quantile(np.max(deviations / errors, axis=1), 1 - TAIL))
        return max(self.support.multiplier(largest) / self.support.multiplier(Z), 1.0)

    def _reach(self, deviations: np.ndarray) -> float:
        """Return how far above its true score the highest of several rows may lie, whichever is the highest."""
        widened = self.support.multiplier(Z) / Z
        return widened * float(np.quantile(np.max(deviations, axis=1), 1 - TAIL))

    def patients_needed(self, difference: Difference, margin: float) -> tuple[float, float, float]:
        """Return how many test patients detect a difference of `margin` at 80 % power, and the 95 % range of that.

        n SE^2 / ((margin / (c + z_0.8))^2 - v), with the critical value c of this family and the paired standard error
        SE of the n patients here, without the variance v of seeds and inits, which no patient reduces; infinite where v
        alone is too large. Never from the observed difference. The range is that of SE (chi-square).
        """
        if np.isnan(difference.standard_error):
            return np.nan, np.nan, np.nan
        fixed = sum(each.variance for each in self._fixed(difference.one, difference.other))
        of_patients = max(difference.standard_error**2 - fixed, 0.0)
        room = (margin / (self.critical + ndtri(POWER))) ** 2 - fixed
        patients = next(iter(self.rows.values())).patients
        needed = patients * of_patients / room if room > 0 else np.inf
        ends = self.support.df / chdtri(self.support.df, np.array([TAIL, 1 - TAIL]))
        return needed, needed * float(ends[0]), needed * float(ends[1])


def paired(apart: Resampled) -> Difference:
    """Return one difference of two statistics (`Resampled.minus`) with the 95 % interval of that pair alone."""
    zero = replace(apart, point=np.zeros(()), drawn=np.zeros_like(apart.drawn))
    ((difference),) = Family({"one": apart, "other": zero}, {}).differences
    return difference


def pooled(of_backbones: Sequence[Sequence[float]]) -> Chance | None:
    """Return the variance of one score over random initialisations, pooled over backbones; None where it is unknown."""
    known = [np.asarray(each, float) for each in of_backbones if len(each) > 1]
    df = sum(len(each) - 1 for each in known)
    if not df:
        return None
    return Chance(float(sum(((each - each.mean()) ** 2).sum() for each in known) / df), df)
