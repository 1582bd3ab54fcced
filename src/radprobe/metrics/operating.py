"""Scores at a threshold: balanced accuracy and F1.

Everything is a sum over samples, so one sparse matrix by patient gives all resamples.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array

from radprobe.artifacts.tables import Record
from radprobe.metrics.calibration import exclusive, probability
from radprobe.metrics.classification import MACRO, macro, row, sums, support_of
from radprobe.metrics.options import Bootstrap
from radprobe.metrics.resampling import Support, patients_of, resampled

METRICS = ("balanced_accuracy", "f1")
NO_THRESHOLD = "no threshold from val"
WITHOUT_VAL = "no predictions for val, so no threshold"


def thresholds(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return for each class the least score [classes] that is called positive: the largest balanced accuracy.

    scores, targets: [n, classes] of val; NaN where a class has no positive or no negative there. Among equally good
    ones it is the middle of the widest gap's two scores, so that nothing hangs on a single sample.
    """
    return np.array([_threshold(*each) for each in zip(np.asarray(scores).T, np.asarray(targets).T, strict=True)])


def _threshold(scores: np.ndarray, targets: np.ndarray) -> float:
    known = (targets == 0) | (targets == 1)
    scores, positive = scores[known], targets[known] == 1
    if not positive.any() or positive.all():
        return np.nan
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], positive[order]
    rate = np.cumsum(positive) / positive.sum() - np.cumsum(~positive) / (~positive).sum()
    ends = np.flatnonzero(np.append(scores[:-1] != scores[1:], True))  # where a threshold can lie: below a run of ties
    best = ends[rate[ends] >= rate[ends].max() - 1e-12]
    below = np.append(scores, scores[-1])[best + 1]
    widest = np.argmax(scores[best] - below)
    return float((scores[best[widest]] + below[widest]) / 2)


@dataclass(frozen=True)
class Called:
    """What is called positive, and how likely it was said to be: bool and float [n, classes].

    at: the thresholds [classes], under cross-validation [folds, classes]; None where the likeliest class is called.
    why: the reason if a class has no threshold.
    """

    positive: np.ndarray
    probability: np.ndarray
    at: np.ndarray | None
    why: str = NO_THRESHOLD

    @property
    def undecided(self) -> np.ndarray:
        """Which classes have no threshold, in any fold: bool [classes]."""
        if self.at is None:
            return np.zeros(self.positive.shape[1], bool)
        undecided: np.ndarray = np.isnan(np.atleast_2d(self.at)).any(axis=0)
        return undecided


def called(scores: np.ndarray, probability: np.ndarray, at: np.ndarray | None) -> Called:
    """Call classes positive at their thresholds `at`, or, if one class is true of each sample (None), the likeliest."""
    if at is None:
        return Called(np.arange(scores.shape[1]) == scores.argmax(1)[:, None], probability, None)
    return Called(scores >= at, probability, at)


def called_by_val(
    scores: np.ndarray,
    facts: Record,
    val_scores: np.ndarray,
    val_targets: np.ndarray,
    folds: tuple[np.ndarray, np.ndarray] | None = None,
) -> Called:
    """Call the classes of scores [n, classes] by the facts of their protocol, at the thresholds of val.

    folds: under cross-validation the folds of the scores [n], and of val's; each fold is called by its own val.
    """
    if folds is not None:
        return _called_by_fold(scores, facts, val_scores, val_targets, *folds)
    at = None if exclusive(facts) else thresholds(val_scores, val_targets)
    made = called(scores, probability(scores, facts), at)
    return made if len(val_scores) else replace(made, why=WITHOUT_VAL)


def _called_by_fold(
    scores: np.ndarray,
    facts: Record,
    val_scores: np.ndarray,
    val_targets: np.ndarray,
    fold_of: np.ndarray,
    val_fold_of: np.ndarray,
) -> Called:
    """Call each fold by its own val: val samples of one fold are test samples of another."""
    numbers = np.unique(fold_of)
    called_of = []
    for fold in numbers:
        val = val_fold_of == fold
        called_of.append(called_by_val(scores[fold_of == fold], facts, val_scores[val], val_targets[val]))
    order = np.argsort(np.concatenate([np.flatnonzero(fold_of == fold) for fold in numbers]))
    positive = np.concatenate([each.positive for each in called_of])[order]
    probability = np.concatenate([each.probability for each in called_of])[order]
    at = [each.at for each in called_of if each.at is not None]
    return Called(positive, probability, np.stack(at) if at else None)


class Operating:
    """Sums by patient of samples [n, classes]: four counts."""

    def __init__(self, made: Called, targets: np.ndarray, patient_ids: ArrayLike):
        self.units, self.patients = patients_of(patient_ids)
        self.known = (targets == 0) | (targets == 1)
        self.undecided, self.why = made.undecided, made.why
        true = targets == 1
        each = zip((true & self.known).T, (~true & self.known).T, strict=True)
        self.counts = [(self._patients(positive), self._patients(negative)) for positive, negative in each]  # by class
        columns = range(targets.shape[1])
        self._counts = [self._by(c, 2 * true[:, c] + made.positive[:, c], 4) for c in columns]  # tn, fp, fn, tp

    def _patients(self, rows: np.ndarray) -> int:
        return len(np.unique(self.units[rows]))

    def _by(self, column: int, rows: np.ndarray, n: int) -> csr_array:
        known = self.known[:, column]
        return sums(rows[known], self.units[known], (n, self.patients))

    def values(self, weights: np.ndarray) -> np.ndarray:
        """Return METRICS by class, [r, classes, 2], for patient weights [patients, r]; NaN where undefined.

        Balanced accuracy: the mean of sensitivity and specificity. F1: 2 tp / (2 tp + fp + fn).
        """
        found = [self._of_class(c, weights) for c in range(len(self._counts))]
        return np.stack([np.stack(each, -1) for each in found], 1)

    def _of_class(self, column: int, weights: np.ndarray) -> list[np.ndarray]:
        tn, fp, fn, tp = self._counts[column] @ weights
        with np.errstate(divide="ignore", invalid="ignore"):
            balanced = (tp / (tp + fn) + tn / (tn + fp)) / 2
            f1 = np.where(tp + fn > 0, 2 * tp / (2 * tp + fp + fn), np.nan)
        if self.undecided[column]:
            balanced, f1 = np.full_like(balanced, np.nan), np.full_like(f1, np.nan)
        return [balanced, f1]


def rows(made: Operating, classes: list[str], how: Bootstrap) -> list[Record]:
    """Return one row a metric and class, and macro."""
    every = resampled(made.values, made.patients, how)
    known = ~np.isnan(every.point)  # [classes, metrics]
    found = []
    for index, metric in enumerate(METRICS):
        for column, name in enumerate(classes):
            one = replace(every.at(column, index), support=_support(made.counts[column : column + 1]))
            samples = made.known[:, column]
            sizes = _sizes(len(np.unique(made.units[samples])), samples.sum(), known[column, index])
            found.append(row(metric, name, one, sizes, "" if known[column, index] else _why(made, column)))
        enough = known[:, index] & (np.array([min(each) for each in made.counts]) >= how.min_patients)
        counted = enough if enough.any() else known[:, index]
        left = [name for name, there in zip(classes, counted, strict=True) if not there]
        note = f"left out, undefined or few patients: {', '.join(left)}" if left else ""
        whole = replace(
            every.at(counted, index).map(macro), support=_support([made.counts[at] for at in np.flatnonzero(counted)])
        )
        found.append(row(metric, MACRO, whole, _sizes(made.patients, len(made.units), counted.sum()), note))
    return found


def _sizes(patients: int, samples: int, classes: int) -> dict[str, int]:
    return {"n_patients": patients, "n_samples": int(samples), "n_classes": int(classes)}


def _why(made: Operating, column: int) -> str:
    return f"undefined: {made.why}" if made.undecided[column] else "undefined: no positive or no negative"


def _support(counts: list[tuple[int, int]]) -> Support:
    return replace(support_of(counts), most=None)
