"""Scores at a threshold: balanced accuracy and F1.

Everything is a sum over samples, so one sparse matrix by patient gives all resamples.
"""

from dataclasses import dataclass, replace

import numpy as np

from radprobe.metrics.calibration import exclusive, probability
from radprobe.metrics.classification import MACRO, macro, row, sums
from radprobe.metrics.resampling import Bootstrap, patients_of, resampled

METRICS = ("balanced_accuracy", "f1")


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

    at: the thresholds [classes], None where the likeliest class is called.
    """

    positive: np.ndarray
    probability: np.ndarray
    at: np.ndarray | None


def called(scores: np.ndarray, probability: np.ndarray, at: np.ndarray, exclusive: bool) -> Called:
    """Call classes positive at their thresholds `at`, or, if one class is true of each sample, the likeliest one."""
    if exclusive:
        return Called(np.arange(scores.shape[1]) == scores.argmax(1)[:, None], probability, None)
    return Called(scores >= at, probability, at)


def called_by_val(scores: np.ndarray, facts: dict, val_scores: np.ndarray, val_targets: np.ndarray) -> Called:
    """Call the classes of scores [n, classes] by the facts of their protocol, at the thresholds of val."""
    at = None if exclusive(facts) else thresholds(val_scores, val_targets)
    return called(scores, probability(scores, facts), at, exclusive(facts))


class Operating:
    """Sums by patient of samples [n, classes]: four counts."""

    def __init__(self, made: Called, targets: np.ndarray, patient_ids):
        self.units, self.patients = patients_of(patient_ids)
        self.known = (targets == 0) | (targets == 1)
        self.at = made.at
        true = targets == 1
        each = zip((true & self.known).T, (~true & self.known).T, strict=True)
        self.rarer = [min(len(np.unique(self.units[rows])) for rows in both) for both in each]  # patients, by class
        columns = range(targets.shape[1])
        self._counts = [self._by(c, 2 * true[:, c] + made.positive[:, c], 4) for c in columns]  # tn, fp, fn, tp

    def _by(self, column: int, rows: np.ndarray, n: int):
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
        if self.at is not None and np.isnan(self.at[column]):
            balanced, f1 = np.full_like(balanced, np.nan), np.full_like(f1, np.nan)
        return [balanced, f1]


def rows(made: Operating, classes: list[str], how: Bootstrap) -> list[dict]:
    """Return one row a metric and class, and macro."""
    every = resampled(made.values, made.patients, how)
    known = ~np.isnan(every.point)  # [classes, metrics]
    found = []
    for index, metric in enumerate(METRICS):
        for column, name in enumerate(classes):
            one = every.map(lambda values, at=(column, index): values[:, *at])
            one = replace(one, rarer=made.rarer[column])
            samples = made.known[:, column]
            sizes = _sizes(len(np.unique(made.units[samples])), samples.sum(), known[column, index])
            found.append(row(metric, name, one, sizes, "" if known[column, index] else _why(made, column)))
        gone = [name for name, there in zip(classes, known[:, index], strict=True) if not there]
        note = f"left out, undefined: {', '.join(gone)}" if gone else ""
        whole = every.map(lambda values, index=index: macro(values[..., index]))
        whole = replace(whole, rarer=max(made.rarer))
        found.append(row(metric, MACRO, whole, _sizes(made.patients, len(made.units), known[:, index].sum()), note))
    return found


def _sizes(patients: int, samples: int, classes: int) -> dict[str, int]:
    return {"n_patients": patients, "n_samples": int(samples), "n_classes": int(classes)}


def _why(made: Operating, column: int) -> str:
    no_threshold = made.at is not None and np.isnan(made.at[column])
    return "undefined: no threshold from val" if no_threshold else "undefined: no positive or no negative"
