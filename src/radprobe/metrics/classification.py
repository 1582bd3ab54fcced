"""AUROC and AUPRC, exact, with ties, for one or thousands of weightings of the same samples.

Sorting is done once. What both need is, at each distinct score that a positive has, the weight of positives there and
of everything above: sums over runs of the sorted samples, so one sparse matrix times the weights gives all resamples.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike

from radprobe.artifacts.tables import Record
from radprobe.metrics.options import Bootstrap
from radprobe.metrics.resampling import Resampled, Support, patients_of, resampled

MACRO = "macro"
PER_PAIR = 6  # the variance of an AUROC is at least that of 6 m n / (m + n) cases, see `support_of`


def support_of(counts: Sequence[tuple[int, int]]) -> Support:
    """Return the support of an AUROC, or of the mean of several, from patients (m, n) with each label, by class.

    Degrees of freedom are Satterthwaite's for two means of m and n values of equal variance, averaged over classes by
    their variance, as classes of the same patients go together. Near 1 the variance of Hanley and McNeil (1982) is
    that of 4 m n / (m + n) cases, so an AUROC is never taken for one of more than 1.5 times as many.
    """
    if not counts or any(min(pair) == 0 for pair in counts):
        return Support(0, 1, 1, rarer=True)
    m, n = np.array(counts, float).T
    spread = 1 / m + 1 / n
    df = spread**2 / (m**-2 / np.maximum(m - 1, 1) + n**-2 / np.maximum(n - 1, 1))
    rarer = len(m) / (1 / np.minimum(m, n)).sum()
    return Support(round(rarer), spread.sum() / (spread / df).sum(), PER_PAIR * len(m) ** 2 / spread.sum(), rarer=True)


class ClassRanking:
    """The samples of one class in order of score.

    scores: [n] finite or infinite, higher is more likely. targets: [n], 1 or 0; samples with any other value (NaN, -1)
    are left out.
    units: [n], the row of the weights that each sample takes (its patient), below `n_units`.
    """

    def __init__(self, scores: np.ndarray, targets: np.ndarray, units: np.ndarray, n_units: int):
        known = (targets == 0) | (targets == 1)
        scores, targets, units = scores[known], targets[known] == 1, units[known]
        self.positives, self.negatives = int(targets.sum()), int((~targets).sum())
        self.counts = len(np.unique(units[targets])), len(np.unique(units[~targets]))  # patients with each label
        # A group is a set of tied samples with a positive among them; thresholds elsewhere change neither area.
        distinct, group = np.unique(-scores, return_inverse=True)
        kept = np.flatnonzero(np.bincount(group, weights=targets, minlength=len(distinct)))
        # Run 2 i is what lies between group i - 1 and group i, run 2 i + 1 is group i, the last run is what follows.
        run = 2 * np.searchsorted(kept, group, side="left")
        run[np.isin(group, kept)] += 1
        self._runs = sums(run, units, (2 * len(kept) + 1, n_units))
        self._positive = sums(run[targets] // 2, units[targets], (len(kept), n_units))

    @property
    def defined(self) -> bool:
        """Are there both positives and negatives?"""
        return self.positives > 0 and self.negatives > 0

    def areas(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return AUROC [r] and AUPRC [r] for weights [units, r]; NaN where positives or negatives weigh nothing.

        AUROC = P(score of a positive > score of a negative) + P(tie) / 2 (Hanley and McNeil 1982). AUPRC is average
        precision, sum over thresholds of (R_i - R_(i-1)) P_i, without interpolation, as scikit-learn defines it.
        """
        return self.tallies(weights).areas()

    def tallies(self, weights: np.ndarray) -> "Tallies":
        """Return the sums that both areas are made of, for weights [units, r]."""
        positive, runs = self._positive @ weights, self._runs @ weights
        total_positive = positive.sum(0)
        total_negative = runs.sum(0) - total_positive
        tied = runs[1::2] - positive
        above = np.cumsum(runs[0:-1:2] + tied, axis=0) - tied  # negatives that are ranked above each group
        wins = (positive * (total_negative - above - tied / 2)).sum(0)
        hits = np.cumsum(positive, axis=0)
        called = hits + above + tied
        precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
        return Tallies(wins, total_positive * total_negative, (positive * precision).sum(0), total_positive)


@dataclass(frozen=True)
class Tallies:
    """Sums [r] of one ranking: pairs that it orders rightly, all pairs, precision at each positive, positives."""

    wins: np.ndarray
    pairs: np.ndarray
    precision: np.ndarray
    positives: np.ndarray

    def __add__(self, other: "Tallies") -> "Tallies":
        return Tallies(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def areas(self) -> tuple[np.ndarray, np.ndarray]:
        """Return AUROC [r] and AUPRC [r], NaN without a pair."""
        defined = self.pairs > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            auroc = np.where(defined, self.wins / self.pairs, np.nan)
            auprc = np.where(defined, self.precision / self.positives, np.nan)
        return auroc, auprc

    def if_defined(self) -> "Tallies":
        """Return zeros where there is no pair: positives without a negative have no precision to speak of."""
        return Tallies(*(np.where(self.pairs > 0, getattr(self, each.name), 0) for each in fields(self)))


class FoldedRanking:
    """Out-of-fold samples of one class, ranked within their folds: no two heads have a scale of scores in common.

    Arguments are those of ClassRanking, and folds [n]. The areas count pairs of samples of one fold only: AUROC is the
    mean over folds weighted by their pairs (Airola et al. 2011, CSDA 55:1828, find pooled scores biased), AUPRC that
    weighted by their positives. Means over folds use the weights of a resample too.
    """

    def __init__(self, scores: np.ndarray, targets: np.ndarray, units: np.ndarray, n_units: int, folds: np.ndarray):
        within = [folds == fold for fold in np.unique(folds)]
        self._rankings = [ClassRanking(scores[rows], targets[rows], units[rows], n_units) for rows in within]
        whole = ClassRanking(scores, targets, units, n_units)
        self.positives = whole.positives
        self.negatives = whole.negatives
        self.counts = whole.counts

    @property
    def defined(self) -> bool:
        """Does any fold have both positives and negatives?"""
        return any(ranking.defined for ranking in self._rankings)

    def areas(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return AUROC [r] and AUPRC [r] within folds for weights [units, r]; NaN where no fold has a pair."""
        tallies = [ranking.tallies(weights).if_defined() for ranking in self._rankings]
        return reduce(operator.add, tallies).areas()


def sums(
    rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int], values: np.ndarray | None = None
) -> scipy.sparse.csr_array:
    """Return the matrix that sums `values` (or counts samples) by row, from the weights of columns."""
    values = np.ones(len(rows)) if values is None else values
    return scipy.sparse.csr_array((values, (rows, columns)), shape=shape)


class Classifier:
    """The rankings of all classes, for targets [n, classes] and scores [n, classes] of samples of patients [n].

    folds: [n] of out-of-fold scores, which are ranked within their fold; None: all scores are of one head.
    fewest: a macro score is over the classes that have so many patients with the rarer label; over all defined classes
    where none has, and then without an interval.
    """

    def __init__(
        self,
        scores: np.ndarray,
        targets: np.ndarray,
        patient_ids: ArrayLike,
        folds: np.ndarray | None = None,
        fewest: int = 0,
    ):
        self.units, self.patients = patients_of(patient_ids)
        self.fewest = fewest
        self.targets = np.asarray(targets)
        columns = zip(np.asarray(scores).T, self.targets.T, strict=True)
        self.rankings = [self._ranking(score, target, folds) for score, target in columns]

    def _ranking(
        self, scores: np.ndarray, targets: np.ndarray, folds: np.ndarray | None
    ) -> "ClassRanking | FoldedRanking":
        if folds is None:
            return ClassRanking(scores, targets, self.units, self.patients)
        return FoldedRanking(scores, targets, self.units, self.patients, np.asarray(folds))

    @property
    def defined(self) -> np.ndarray:
        """Return which classes have positives and negatives, bool [classes]."""
        return np.array([ranking.defined for ranking in self.rankings], bool)

    @property
    def counted(self) -> np.ndarray:
        """Return which classes a macro score is over, bool [classes]."""
        enough = np.array([min(ranking.counts) >= max(self.fewest, 1) for ranking in self.rankings], bool)
        return enough if enough.any() else self.defined

    @property
    def support(self) -> Support:
        """The support of the macro AUROC: of the class that has most, where no class has enough."""
        counts = [self.rankings[index].counts for index in np.flatnonzero(self.counted)]
        most = max(counts, key=min, default=(0, 0))
        return support_of(counts if min(most) >= self.fewest else [most])

    @property
    def support_of_all(self) -> Support:
        """The support of a mean over all defined classes: under `fewest` patients where any of them has too few."""
        least = min((min(ranking.counts) for ranking in self.rankings if ranking.defined), default=0)
        return self.support if least >= self.fewest else support_of([(least, least)])

    def areas(self, weights: np.ndarray) -> np.ndarray:
        """Return AUROC and AUPRC by class, [r, classes, 2], for patient weights [patients, r]."""
        return np.stack([np.stack(ranking.areas(weights), axis=-1) for ranking in self.rankings], axis=1)

    def auroc(self, weights: np.ndarray) -> np.ndarray:
        """Return the macro AUROC [r]: the mean over the classes that count and are defined in that resample."""
        return macro(self.areas(weights)[:, self.counted, 0])

    def resampled(self, how: Bootstrap) -> Resampled:
        """Return the macro AUROC of all patients and of every resample."""
        return replace(resampled(self.auroc, self.patients, how), support=self.support)

    def auroc_study(self, weights: np.ndarray) -> np.ndarray:
        """Return the study's macro AUROC [r]: an undefined class counts as 0 and is averaged in (D08)."""
        means: np.ndarray = np.nan_to_num(self.areas(weights)[..., 0], nan=0.0).mean(axis=1)
        return means

    def resampled_study(self, how: Bootstrap) -> Resampled:
        """Return the study's macro AUROC of all patients and of every resample."""
        return replace(resampled(self.auroc_study, self.patients, how), support=self.support_of_all)


def macro(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of what is defined; NaN where nothing is."""
    known = ~np.isnan(values)
    total, n = np.where(known, values, 0).sum(-1), known.sum(-1)
    means: np.ndarray = np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)
    return means


def rows(
    scores: np.ndarray,
    logits: np.ndarray,
    targets: np.ndarray,
    classes: list[str],
    patient_ids: ArrayLike,
    how: Bootstrap,
    folds: np.ndarray | None = None,
) -> list[Record]:
    """Return one row a metric and class: auroc, auprc by class and macro, and auroc_study (macro only).

    auroc_study is the study's definition, beside ours for comparison: macro AUROC over float32 sigmoids of the logits
    (D23, and D09 where one class is true: the scores are then a softmax, else the logits), in which an undefined class
    counts as 0 (D08). folds: of out-of-fold scores.
    """
    ours = Classifier(scores, targets, patient_ids, folds, how.min_patients)
    study = Classifier(sigmoid32(logits), targets, patient_ids, folds, how.min_patients)
    areas = resampled(ours.areas, ours.patients, how)  # [..., classes, 2]
    whole = {"n_patients": ours.patients, "n_samples": len(ours.units), "n_classes": int(ours.counted.sum())}
    undefined = [name for name, defined in zip(classes, ours.defined, strict=True) if not defined]
    note = "; ".join(filter(None, (_undefined_classes("left out, undefined", undefined), _uncounted(ours, classes))))
    found = []
    for column, metric in enumerate(("auroc", "auprc")):
        for index, name in enumerate(classes):
            ranking, known = ours.rankings[index], np.isin(ours.targets[:, index], (0, 1))
            sizes = {"n_patients": len(np.unique(ours.units[known])), "n_samples": int(known.sum())}
            sizes |= {"n_classes": int(ranking.defined)}
            one = replace(areas.at(index, column), support=_support(metric, support_of([ranking.counts])))
            found.append(row(metric, name, one, sizes))
            found[-1]["note"] = _undefined(ranking) or found[-1]["note"]
        every = areas.at(ours.counted, column).map(macro)
        found.append(row(metric, MACRO, replace(every, support=_support(metric, ours.support)), whole, note))
    sizes = {**whole, "n_classes": len(classes)}
    note = _undefined_classes("undefined, counted as 0", undefined)
    return [*found, row("auroc_study", MACRO, study.resampled_study(how), sizes, note)]


def _support(metric: str, support: Support) -> Support:
    """Return the support of a metric: only an AUROC has the variance that bounds it."""
    return support if metric == "auroc" else replace(support, most=None)


def _undefined_classes(what: str, names: list[str]) -> str:
    return f"{what}: {', '.join(names)}" if names else ""


def _uncounted(classifier: Classifier, classes: list[str]) -> str:
    """Say which classes a macro score leaves out since few patients have their rarer label."""
    lacking = classifier.defined & ~classifier.counted
    few = [f"{classes[at]} ({min(classifier.rankings[at].counts)})" for at in np.flatnonzero(lacking)]
    return f"left out, few patients have the rarer label: {', '.join(few)}" if few else ""


def sigmoid32(scores: np.ndarray) -> np.ndarray:
    """Return the float32 sigmoid of scores; large ones saturate to exactly 0 or 1, which makes ties (D23)."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-np.asarray(scores, np.float32)))


def row(metric: str, name: str, found: Resampled, sizes: dict[str, int], note: str = "") -> Record:
    """Return a score with its interval as a row; sizes: n_patients, n_samples, n_classes."""
    low, high, why = found.interval(sizes["n_patients"])
    note = "; ".join(filter(None, (note, why)))
    value = float(found.point)
    return {"metric": metric, "class": name, "value": value, "low": low, "high": high, **sizes, "note": note}


def _undefined(ranking: ClassRanking | FoldedRanking) -> str:
    lacking = [name for name in ("positives", "negatives") if not getattr(ranking, name)]
    return f"undefined: no {' and no '.join(lacking)}" if lacking else ""
