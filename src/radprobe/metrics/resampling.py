"""The patient-clustered bootstrap: patients are drawn with replacement, and all samples of a patient go together.

Samples of one patient are not independent, so an interval that resamples images is too narrow (Field and Welsh 2007,
"Bootstrapping clustered data", JRSS B 69:369-390). Intervals are percentile intervals (Efron and Tibshirani 1993,
ch. 13).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CHUNK = 64  # resamples that are computed at once, which bounds memory
LEVEL = 95  # percent


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: the number of resamples, their seed, and the fewest patients that allow an interval."""

    resamples: int
    seed: int
    min_patients: int


def patients_of(patient_ids) -> tuple[np.ndarray, int]:
    """Return each sample's patient as an integer [n], and how many patients there are.

    Patients are numbered in sorted order, so that equal patients get equal resamples whatever the order of samples.
    """
    names, codes = np.unique(np.asarray(patient_ids, dtype=str), return_inverse=True)
    return codes.reshape(-1), len(names)


def counts(patients: int, resamples: int, seed: int) -> np.ndarray:
    """Return how often each patient is drawn, uint16 [patients, resamples]; each column sums to the patients."""
    generator = np.random.default_rng(seed)
    drawn = np.empty((patients, resamples), np.uint16)
    for resample in range(resamples):
        drawn[:, resample] = np.bincount(generator.integers(patients, size=patients), minlength=patients)
    return drawn


def draws(statistic: Callable[[np.ndarray], np.ndarray], patients: int, how: Bootstrap) -> np.ndarray:
    """Return `statistic` of every resample, [resamples, ...].

    `statistic` gets patient weights [patients, r], float64, and returns [r, ...]. It is called on CHUNK resamples at a
    time: at 2,000 resamples of 25,596 images in 14 classes the peak stays under 0.5 GB.
    """
    weights = counts(patients, how.resamples, how.seed)
    starts = range(0, how.resamples, CHUNK)
    return np.concatenate([statistic(weights[:, start : start + CHUNK].astype(np.float64)) for start in starts])


def interval(values: np.ndarray, patients: int, how: Bootstrap) -> tuple[float, float, str]:
    """Return low, high and a note of the 95 % percentile interval of resampled `values` [resamples].

    NaN under `min_patients`. Resamples in which the value is undefined are left out, and the note counts them.
    """
    if patients < how.min_patients:
        return np.nan, np.nan, f"no interval: {patients} patients, fewer than {how.min_patients}"
    defined = values[~np.isnan(values)]
    if not len(defined):
        return np.nan, np.nan, "no interval: undefined in every resample"
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    gone = len(values) - len(defined)
    return float(low), float(high), f"undefined in {gone} of {len(values)} resamples" if gone else ""
