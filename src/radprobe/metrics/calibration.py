"""Calibration: Brier score, debiased calibration error (ECE), and one temperature fitted on val.

ECE is the debiased L2 calibration error of Kumar, Liang and Ma 2019 ("Verified uncertainty calibration", NeurIPS,
arXiv 1909.10155, section 5), in bins of equal mass. A plug-in estimate is never 0, so it calls a calibrated model
miscalibrated, the more so the fewer the samples. The debiased square is right on average; it can be negative, and what
is shown is the root of max(0, square). ECE has no interval: in resamples its bias comes back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, logit, softmax

from radprobe.artifacts.tables import Record
from radprobe.metrics.classification import MACRO, macro, row, sums
from radprobe.metrics.options import Bootstrap
from radprobe.metrics.resampling import patients_of, resampled

BINS = 15  # at most, as in Guo et al. 2017 (arXiv 1706.04599)
FEWEST = 10  # samples of a bin, at least
CLIP = 1e-3  # of a share of neighbours: 0 and 1 have no logit, and few neighbours cannot tell 1 in 1,000
COLDEST = 0.01
HOTTEST = 100.0
NO_INTERVAL = "no interval: the estimated error of a calibrated model is biased in resamples"
TOP_LABEL = "of the likeliest class"
RECALIBRATED = "_recalibrated"
NO_PROBABILITY = "its scores are no probabilities, and no logits"
NO_TEMPERATURE = "no temperature minimises the loss of val"
WITHOUT_VAL = "no predictions for val, so no temperature"


# --- stated probabilities ---------------------------------------------------------------------------------------------


def exclusive(facts: Record) -> bool:
    """Say whether one class is true of each sample, by the facts of a protocol: also where no softmax was made."""
    return bool(facts.get("exclusive", facts.get("softmax", False)))


def probability(scores: np.ndarray, facts: Record) -> np.ndarray:
    """Return the stated probability of each class, [n, classes], by the facts of a protocol.

    kNN states it itself; other scores are log softmax, or logits. NaN for scores from elsewhere that are neither.
    """
    stated: np.ndarray
    if facts.get("softmax", False):
        stated = np.exp(scores)
    elif facts.get("scale") == "score":
        stated = np.full(scores.shape, np.nan)
    else:
        stated = scores if facts.get("scale") == "probability" else expit(scores)
    return stated


def _logits(scores: np.ndarray, facts: Record) -> np.ndarray:
    """Return scores [n, classes] as logits; those of neighbours are clipped to [CLIP, 1 - CLIP] first."""
    if facts.get("scale") != "probability":
        return scores
    clipped = np.clip(scores, CLIP, 1 - CLIP)
    logits: np.ndarray = np.log(clipped) if exclusive(facts) else logit(clipped)
    return logits


def temperature(scores: np.ndarray, targets: np.ndarray, facts: Record) -> float:
    """Return the temperature T > 0 that minimises the negative log likelihood of logits / T (Guo et al. 2017).

    scores, targets: [n, classes] of val; targets other than 1 and 0 are left out. One temperature serves all classes,
    without a bias: classes with a few positives on val could not support a parameter each, and the order of samples
    stays as it is. NaN if val has no label, or if no temperature between COLDEST and HOTTEST minimises the loss (val is
    separated perfectly, or the scores do not rank it at all).
    """
    known = (targets == 0) | (targets == 1)
    logits = _logits(scores, facts)
    if exclusive(facts):
        rows = known.all(axis=1)
        logits, true = logits[rows], targets[rows] == 1
    else:
        signs = np.where(targets[known] == 1, 1, -1)
        signed = logits[known] * signs
    if not known.any() or (exclusive(facts) and not len(logits)):
        return np.nan

    def loss(log_temperature: float) -> float:
        sharpness = np.exp(-log_temperature)
        if exclusive(facts):
            return -float(log_softmax(logits * sharpness, axis=1)[true].mean())
        return -float(log_expit(signed * sharpness).mean())

    ends = np.log([COLDEST, HOTTEST])
    found = float(minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-6}).x)
    inside = ends[0] + 1e-3 < found < ends[1] - 1e-3
    return float(np.exp(found)) if inside else np.nan


def recalibrated(scores: np.ndarray, facts: Record, by: float) -> np.ndarray:
    """Return the probability of each class, [n, classes], after division of the logits by the temperature `by`."""
    logits = _logits(scores, facts) / by
    stated: np.ndarray = softmax(logits, axis=1) if exclusive(facts) else expit(logits)
    return stated


# --- the error --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reliability:
    """By bin [bins], in rising order: samples, mean probability, share that is true, and the variance of that share.

    variance: of the share as an estimate, over patients; with one sample a patient it is share (1 - share) / (n - 1).
    NaN where a bin holds one patient.
    """

    n: np.ndarray
    probability: np.ndarray
    share: np.ndarray
    variance: np.ndarray

    @property
    def square(self) -> float:
        """The debiased squared calibration error: the mean over samples of gap^2 - variance; NaN without samples."""
        if not len(self.n):
            return np.nan
        squares = (self.probability - self.share) ** 2 - self.variance
        return float((self.n * squares).sum() / self.n.sum())


def reliability(probability: np.ndarray, targets: np.ndarray, units: np.ndarray) -> Reliability:
    """Return the bins of one class: probability, targets (1, 0; others are left out), patient numbers, each [n].

    Bins have equal mass: at least n / BINS samples each, FEWEST at least, so few samples make fewer bins; equal
    probabilities are never parted. No bin is left if there are fewer than 2 samples.
    """
    known = (targets == 0) | (targets == 1)
    order = np.argsort(probability[known], kind="stable")
    said, true, units = probability[known][order], targets[known][order], units[known][order]
    bins = _bins(said)
    n = np.bincount(bins)
    share = np.bincount(bins, true) / n
    variance = [_variance(true[bins == each] - share[each], units[bins == each]) for each in range(len(n))]
    return Reliability(n, np.bincount(bins, said) / n, share, np.array(variance, float))


def _bins(ordered: np.ndarray) -> np.ndarray:
    """Return the bin of each of the probabilities [n], which are sorted; empty for fewer than 2."""
    total = len(ordered)
    if total < 2:
        return np.empty(0, int)
    size = max(-(-total // BINS), FEWEST)
    runs = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) + 1  # where a run of equal values ends
    ends: list[int] = []
    while (start := ends[-1] if ends else 0) < total:
        stop = int(runs[min(int(np.searchsorted(runs, start + size)), len(runs) - 1)])
        ends.append(total if total - stop < size else stop)
    return np.repeat(np.arange(len(ends)), np.diff([0, *ends]))


def _variance(residuals: np.ndarray, units: np.ndarray) -> float:
    """Return the variance of a mean whose residuals [n] are of patients `units` [n]; NaN of a single patient."""
    sums_by_patient = np.bincount(np.unique(units, return_inverse=True)[1], residuals)
    patients = len(sums_by_patient)
    if patients < 2:
        return np.nan
    return float((sums_by_patient**2).sum() / len(residuals) ** 2 * patients / (patients - 1))


def top_label(probability: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of the likeliest class and whether it is true (1, 0; NaN if unknown), each [n]."""
    likeliest = probability.argmax(axis=1)
    rows = np.arange(len(likeliest))
    known = ((targets == 0) | (targets == 1)).all(axis=1)
    return probability[rows, likeliest], np.where(known, targets[rows, likeliest], np.nan)


def shown(square: float) -> float:
    """Return the error that is shown of a debiased square: the root of max(0, square); NaN stays."""
    return float(np.sqrt(np.maximum(square, 0)))


# --- rows of scores ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stated:
    """Probabilities and targets [n, classes] of samples of patients [n]; `exclusive`: one class is true of each."""

    probability: np.ndarray
    targets: np.ndarray
    patient_ids: Sequence[str]
    exclusive: bool


def rows(stated: Stated, classes: list[str], how: Bootstrap, suffix: str = "", note: str = "") -> list[Record]:
    """Return the rows of `brier` and `ece`, their names ended by `suffix`; `note` is added to each.

    ECE is by class and macro; if one class is true of each sample, it is of the likeliest class, and macro only.
    """
    return [*_brier(stated, classes, how, f"brier{suffix}", note), *_ece(stated, classes, f"ece{suffix}", note)]


def undefined_rows(classes: list[str], exclusive: bool, suffix: str, why: str) -> list[Record]:
    """Return the rows that `rows` gives, without a value."""
    names = [("brier", name) for name in (*classes, MACRO)]
    names += [("ece", name) for name in ((MACRO,) if exclusive else (*classes, MACRO))]
    numbers = {"value": np.nan, "low": np.nan, "high": np.nan, "n_patients": 0, "n_samples": 0, "n_classes": 0}
    return [
        {"metric": f"{metric}{suffix}", "class": name, **numbers, "note": f"undefined: {why}"} for metric, name in names
    ]


def _brier(stated: Stated, classes: list[str], how: Bootstrap, metric: str, note: str) -> list[Record]:
    known = _known(stated)
    units, patients = patients_of(stated.patient_ids)
    errors = np.where(known, (stated.probability - np.nan_to_num(stated.targets)) ** 2, 0)
    by_patient = sums(units, np.arange(len(units)), (patients, len(units)))
    totals, numbers = by_patient @ errors, by_patient @ known.astype(float)  # [patients, classes]

    def values(weights: np.ndarray) -> np.ndarray:
        """Return the Brier score by class, [r, classes]: the mean of (probability - label)^2."""
        with np.errstate(divide="ignore", invalid="ignore"):
            brier: np.ndarray = (weights.T @ totals) / (weights.T @ numbers)
        return brier

    every = resampled(values, patients, how)
    defined = ~np.isnan(every.point)
    found = []
    for column, name in enumerate(classes):
        said = note if defined[column] else "undefined: no label is known"
        found.append(row(metric, name, every.at(column), _sizes(stated, known[:, column], int(defined[column])), said))
    sizes = _sizes(stated, np.any(known, axis=1), int(defined.sum()))
    return [*found, row(metric, MACRO, every.map(macro), sizes, _joined(note, _left_out(classes, defined)))]


def _ece(stated: Stated, classes: list[str], metric: str, note: str) -> list[Record]:
    units, _ = patients_of(stated.patient_ids)
    known = _known(stated)
    if stated.exclusive:
        said, true = top_label(stated.probability, stated.targets)
        square = reliability(said, true, units).square
        sizes = _sizes(stated, ~np.isnan(true), len(classes))
        return [_unresampled(metric, MACRO, square, sizes, _joined(note, TOP_LABEL))]
    each = zip(stated.probability.T, stated.targets.T, strict=True)
    squares = np.array([reliability(said, true, units).square for said, true in each])
    defined = ~np.isnan(squares)
    found = [
        _unresampled(metric, name, square, _sizes(stated, rows, int(there)), note)
        for name, square, rows, there in zip(classes, squares, known.T, defined, strict=True)
    ]
    sizes = _sizes(stated, np.any(known, axis=1), int(defined.sum()))
    whole = _joined(note, _left_out(classes, defined))
    return [*found, _unresampled(metric, MACRO, float(macro(squares)), sizes, whole)]


def _left_out(classes: list[str], defined: np.ndarray) -> str:
    gone = [name for name, there in zip(classes, defined, strict=True) if not there]
    return f"left out, undefined: {', '.join(gone)}" if gone else ""


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def _unresampled(metric: str, name: str, square: float, sizes: dict[str, int], note: str) -> Record:
    """Return a row of ECE, which has no interval."""
    why = "undefined: a bin holds fewer than 2 patients" if np.isnan(square) else NO_INTERVAL
    value = {"value": shown(square), "low": np.nan, "high": np.nan}
    return {"metric": metric, "class": name, **value, **sizes, "note": _joined(note, why)}


def _known(stated: Stated) -> np.ndarray:
    known: np.ndarray = (stated.targets == 0) | (stated.targets == 1)
    return known


def _sizes(stated: Stated, samples: np.ndarray, classes: int) -> dict[str, int]:
    patients = len(np.unique(np.asarray(stated.patient_ids, str)[samples]))
    return {"n_patients": patients, "n_samples": int(samples.sum()), "n_classes": classes}
