"""Scores at a threshold, and calibration: balanced accuracy, F1, Brier score and ECE of probabilities.

Everything is a sum over samples, so one sparse matrix by patient gives all resamples.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.special import expit

from radprobe.metrics.classification import MACRO, macro, row, sums, support_of
from radprobe.metrics.resampling import Bootstrap, Support, patients_of, resampled

BINS = 15  # of the expected calibration error, of equal width (Guo et al. 2017, arXiv 1706.04599)
BY_THRESHOLD = ("balanced_accuracy", "f1")
METRICS = (*BY_THRESHOLD, "brier", "ece")
WITHOUT_VAL = "no predictions for val, so no threshold"
NO_PROBABILITY = "undefined: its scores are no probabilities, and no logits"


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


def probability(scores: np.ndarray, facts: dict) -> np.ndarray:
    """Return how likely each class is said to be, [n, classes], by the facts of a protocol.

    kNN says so itself; other scores are log softmax, or logits. NaN for scores from elsewhere that are neither.
    """
    if facts.get("softmax", False):
        return np.exp(scores)
    if facts.get("scale") == "score":
        return np.full_like(scores, np.nan, dtype=float)
    return scores if facts.get("scale") == "probability" else expit(scores)


@dataclass(frozen=True)
class Reliability:
    """Of one class, by bin of ECE [BINS]: how many samples, their mean probability, and the share that is positive.

    The last two are NaN in empty bins.
    """

    n: np.ndarray
    said: np.ndarray
    share: np.ndarray


def reliability(probability: np.ndarray, targets: np.ndarray) -> Reliability:
    """Return what a reliability diagram shows of one class: probability and targets (1, 0; others left out) [n]."""
    known = (targets == 0) | (targets == 1)
    bins = _bins(probability[known])
    n, said, true = (np.bincount(bins, each, BINS) for each in (None, probability[known], targets[known]))
    with np.errstate(invalid="ignore"):
        return Reliability(n, said / n, true / n)


def _bins(probability: np.ndarray) -> np.ndarray:
    return np.minimum((np.nan_to_num(probability) * BINS).astype(int), BINS - 1)  # without probability: no gap either


@dataclass(frozen=True)
class Called:
    """What is called positive, and how likely it was said to be: bool and float [n, classes].

    at: the thresholds [classes], under cross-validation [folds, classes]; None where the likeliest class is called.
    why: the reason if a class has no threshold.
    """

    positive: np.ndarray
    probability: np.ndarray
    at: np.ndarray | None
    why: str = "no threshold from val"

    @property
    def undecided(self) -> np.ndarray:
        """Which classes have no threshold, in any fold: bool [classes]."""
        if self.at is None:
            return np.zeros(self.positive.shape[1], bool)
        return np.isnan(np.atleast_2d(self.at)).any(axis=0)


def called(scores: np.ndarray, probability: np.ndarray, at: np.ndarray, exclusive: bool) -> Called:
    """Call classes positive at their thresholds `at`, or, if one class is true of each sample, the likeliest one."""
    if exclusive:
        return Called(np.arange(scores.shape[1]) == scores.argmax(1)[:, None], probability, None)
    return Called(scores >= at, probability, at)


def called_by_val(
    scores: np.ndarray,
    facts: dict,
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
    made = called(scores, probability(scores, facts), at, exclusive(facts))
    return made if len(val_scores) else replace(made, why=WITHOUT_VAL)


def _called_by_fold(
    scores: np.ndarray,
    facts: dict,
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
    names = [each.name for each in fields(Called) if each.name != "at"]  # those with a row a sample
    by_sample = {name: np.concatenate([getattr(each, name) for each in called_of])[order] for name in names}
    at = None if exclusive(facts) else np.stack([each.at for each in called_of])
    return Called(**by_sample, at=at)


def exclusive(facts: dict) -> bool:
    """Say whether one class is true of each sample, by the facts of a protocol: also where no softmax was made."""
    return facts.get("exclusive", facts.get("softmax", False))


class Operating:
    """Sums by patient of samples [n, classes]: four counts, squared errors, and what each bin of ECE holds."""

    def __init__(self, made: Called, targets: np.ndarray, patient_ids):
        self.units, self.patients = patients_of(patient_ids)
        self.known = (targets == 0) | (targets == 1)
        self.undecided, self.why = made.undecided, made.why
        self.is_probability = not np.isnan(made.probability).all()
        true = targets == 1
        each = zip((true & self.known).T, (~true & self.known).T, strict=True)
        self.counts = [tuple(len(np.unique(self.units[rows])) for rows in both) for both in each]  # patients, by class
        columns = range(targets.shape[1])
        self._counts = [self._by(c, 2 * true[:, c] + made.positive[:, c], 4) for c in columns]  # tn, fp, fn, tp
        self._errors = [self._by(c, np.zeros(len(true), int), 1, (made.probability - true)[:, c] ** 2) for c in columns]
        bins = _bins(made.probability)
        gaps = made.probability - true
        self._bins = [self._by(c, bins[:, c], BINS, gaps[:, c]) for c in columns]

    def _by(self, column: int, rows: np.ndarray, n: int, values: np.ndarray | None = None):
        known = self.known[:, column]
        values = None if values is None else values[known]
        return sums(rows[known], self.units[known], (n, self.patients), values)

    def values(self, weights: np.ndarray) -> np.ndarray:
        """Return METRICS by class, [r, classes, 4], for patient weights [patients, r]; NaN where undefined.

        Balanced accuracy: the mean of sensitivity and specificity. F1: 2 tp / (2 tp + fp + fn). Brier: the mean of
        (probability - label)^2. ECE: the mean over bins, by their weight, of |mean probability - share of positives|.
        """
        found = [self._of_class(c, weights) for c in range(len(self._counts))]
        return np.stack([np.stack(each, -1) for each in found], 1)

    def _of_class(self, column: int, weights: np.ndarray) -> list[np.ndarray]:
        tn, fp, fn, tp = self._counts[column] @ weights
        with np.errstate(divide="ignore", invalid="ignore"):
            n = tn + fp + fn + tp
            balanced = (tp / (tp + fn) + tn / (tn + fp)) / 2
            f1 = np.where(tp + fn > 0, 2 * tp / (2 * tp + fp + fn), np.nan)
            brier = (self._errors[column] @ weights)[0] / n
            ece = np.abs(self._bins[column] @ weights).sum(0) / n
        if self.undecided[column]:
            balanced, f1 = np.full_like(balanced, np.nan), np.full_like(f1, np.nan)
        return [balanced, f1, brier, ece]


def rows(made: Operating, classes: list[str], how: Bootstrap) -> list[dict]:
    """Return one row a metric and class, and macro."""
    every = resampled(made.values, made.patients, how)
    known = ~np.isnan(every.point)  # [classes, metrics]
    found = []
    for index, metric in enumerate(METRICS):
        for column, name in enumerate(classes):
            one = every.map(lambda values, at=(column, index): values[:, *at])
            one = replace(one, support=_support(made.counts[column : column + 1])) if metric in BY_THRESHOLD else one
            samples = made.known[:, column]
            sizes = _sizes(len(np.unique(made.units[samples])), samples.sum(), known[column, index])
            found.append(row(metric, name, one, sizes, "" if known[column, index] else _why(made, column, metric)))
        counted = known[:, index]
        if metric in BY_THRESHOLD:
            enough = counted & (np.array([min(each) for each in made.counts]) >= how.min_patients)
            counted = enough if enough.any() else counted
        left = [name for name, there in zip(classes, counted, strict=True) if not there]
        note = f"left out, undefined or few patients: {', '.join(left)}" if left else ""
        whole = every.map(lambda values, at=(counted, index): macro(values[:, *at]))
        if metric in BY_THRESHOLD:
            whole = replace(whole, support=_support([made.counts[at] for at in np.flatnonzero(counted)]))
        found.append(row(metric, MACRO, whole, _sizes(made.patients, len(made.units), counted.sum()), note))
    return found


def _support(counts: list[tuple[int, int]]) -> Support:
    return replace(support_of(counts), most=None)


def _sizes(patients: int, samples: int, classes: int) -> dict[str, int]:
    return {"n_patients": patients, "n_samples": int(samples), "n_classes": int(classes)}


def _why(made: Operating, column: int, metric: str) -> str:
    if metric not in BY_THRESHOLD and not made.is_probability and made.known[:, column].any():
        return NO_PROBABILITY
    no_threshold = metric in BY_THRESHOLD and made.undecided[column]
    return f"undefined: {made.why}" if no_threshold else "undefined: no positive or no negative"
