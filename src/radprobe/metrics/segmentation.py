"""Overlap of label maps: DSC and IoU by case, and the study's pooled definitions, all from one confusion matrix a case.

A class's score is its mean over the cases in which it is defined. The macro score is the mean over classes of these
means, as nnU-Net and the challenges report it; `dsc_by_case` is the mean over cases of each case's mean over its
defined classes. The two differ if classes are absent from some cases.

A class that is absent from both truth and prediction has no overlap to measure: NaN, left out and counted. Present in
only one of them, it scores 0. (MONAI's DiceMetric with ignore_empty=True also leaves out an empty truth that was
predicted non-empty; a false alarm is then free, so it is not followed there.)
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from radprobe.artifacts.tables import Record
from radprobe.metrics.classification import MACRO, macro
from radprobe.metrics.options import Bootstrap
from radprobe.metrics.resampling import Resampled, Support, patients_of, resampled

NOWHERE = "absent from truth and prediction"
DISTANCES = ("hd95", "assd")
NO_SURFACE = "absent from truth or prediction, so no distance exists"
ABSENCE = {  # when a case has no value of a metric, if not NOWHERE
    "volume_error": "absent from truth",
    "jaccard_study": "absent from truth, or from truth and prediction",
    "hd95": NO_SURFACE,
    "assd": NO_SURFACE,
}


def confusion(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Return pixels by true (row) and predicted (column) label, int64 [k, k]; k = classes + 1, 0 is background.

    Raises ValueError when the maps differ in shape or a label is above `classes`.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth is {truth.shape}, prediction {prediction.shape}")
    k, top = classes + 1, max(truth.max(initial=0), prediction.max(initial=0))
    if top > classes:
        raise ValueError(f"label {top} where there are {classes} classes")
    pairs = truth.reshape(-1).astype(np.intp) * k + prediction.reshape(-1)
    return np.bincount(pairs, minlength=k * k).reshape(k, k)


def overlaps(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return tp, fp, fn of the foreground classes [..., classes] from confusion matrices [..., k, k]."""
    tp = np.diagonal(matrix, axis1=-2, axis2=-1)[..., 1:]
    return tp, matrix.sum(-2)[..., 1:] - tp, matrix.sum(-1)[..., 1:] - tp


def dsc(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    """Return the Dice similarity coefficient 2 tp / (2 tp + fp + fn); NaN where nothing is there."""
    return _ratio(2 * tp, 2 * tp + fp + fn)


def iou(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    """Return the intersection over union (Jaccard) tp / (tp + fp + fn); NaN where nothing is there."""
    return _ratio(tp, tp + fp + fn)


def without_background(matrix: np.ndarray) -> np.ndarray:
    """Return confusion matrices [..., k, k] without the pixels whose truth is background, as in the study (D06)."""
    kept = matrix.copy()
    kept[..., 0, :] = 0
    return kept


def macro_over_cases(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the means over cases of each class and, last, their macro, [r, classes + 1].

    values: [cases, classes], NaN where undefined. weights: of cases, [r, cases]; each case counts once by default, r is
    then 1. A class that no case of a row of weights has is NaN, and that row's macro is over the other classes.
    """
    weights = np.ones((1, len(values))) if weights is None else weights
    known = ~np.isnan(values)
    means = _ratio(weights @ np.where(known, values, 0), weights @ known)
    return np.concatenate([means, macro(means)[:, None]], axis=1)


def macro_dsc(matrices: np.ndarray) -> float:
    """Return the macro DSC of confusion matrices [cases, k, k], one a case; NaN if there is no foreground."""
    return float(macro_over_cases(dsc(*overlaps(matrices)))[0, -1])


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    ratio: np.ndarray = np.divide(over, under, out=np.full(np.shape(under), np.nan), where=under > 0)
    return ratio


class Segmenter:
    """The confusion matrices [cases, k, k] of one protocol, for cases of patients [cases].

    distances: surface metrics [cases, classes] by name, as `surfaces` gives them for a case.
    """

    POOLED = ("dsc_pooled", "jaccard_study")
    BY_CASE = "dsc_by_case"

    def __init__(self, matrices: np.ndarray, patient_ids: ArrayLike, distances: Mapping[str, np.ndarray] | None = None):
        self.matrices = np.asarray(matrices)
        self.units, self.patients = patients_of(patient_ids)
        parts = overlaps(self.matrices)
        self.cases = {"dsc": dsc(*parts), "iou": iou(*parts), **(distances or {})}  # [cases, classes]

    def estimate(self, metric: str, weights: np.ndarray) -> np.ndarray:
        """Return a metric by class and, last, its macro, [r, classes + 1], for patient weights [patients, r].

        Those of single cases (dsc, iou, hd95 ...): see `macro_over_cases`. dsc_by_case: the same by class; macro is the
        mean over cases of each case's mean over its defined classes. dsc_pooled (D07) and jaccard_study (D06, D07): all
        pixels of all cases as one, macro over the foreground classes that are there.
        """
        by_case = weights[self.units].T  # [r, cases]
        if metric in self.cases:
            return macro_over_cases(self.cases[metric], by_case)
        if metric == self.BY_CASE:
            values = self.cases["dsc"]
            return macro_over_cases(np.column_stack([values, macro(values)]), by_case)[:, :-1]
        matrices = self.matrices if metric == "dsc_pooled" else without_background(self.matrices)
        k = matrices.shape[-1]
        pooled = (by_case @ matrices.reshape(len(matrices), -1)).reshape(-1, k, k)
        values = (dsc if metric == "dsc_pooled" else iou)(*overlaps(pooled))
        return np.concatenate([values, macro(values)[:, None]], axis=1)

    def resampled(self, metric: str, how: Bootstrap) -> Resampled:
        """Return a macro metric of all patients and of every resample."""
        found = resampled(lambda weights: self.estimate(metric, weights)[:, -1], self.patients, how)
        return replace(found, support=self.support(metric))

    def support(self, metric: str) -> Support:
        """The support of a macro metric: the patients with a value of the class that has fewest of them, but any."""
        defined = ~np.isnan(self.cases.get(metric, self.cases["dsc"]))  # [cases, classes]
        patients = [len(np.unique(self.units[rows])) for rows in defined.T]
        return Support.of(min(filter(None, patients), default=0))


def rows(segmenter: Segmenter, classes: list[str], how: Bootstrap, unit: str = "") -> list[Record]:
    """Return one row a metric and class, and macro: those of single cases, dsc_pooled, jaccard_study.

    dsc_by_case has a macro row only. unit: what the notes of distances say of their unit.
    """
    found = []
    for metric in (*segmenter.cases, *segmenter.POOLED, segmenter.BY_CASE):
        every = resampled(partial(segmenter.estimate, metric), segmenter.patients, how)
        names = [*classes, MACRO]
        first = len(classes) if metric == segmenter.BY_CASE else 0
        for column in range(first, len(names)):
            found.append(_row(segmenter, classes, metric, column, every))
            if metric in DISTANCES:
                found[-1]["note"] = _joined(unit, found[-1]["note"])
    return found


def _row(segmenter: Segmenter, classes: list[str], metric: str, column: int, every: Resampled) -> Record:
    """Return the row of a class, or of the macro, which is the last column."""
    defined = ~np.isnan(segmenter.cases.get(metric, segmenter.cases["dsc"]))  # [cases, classes]
    is_macro = column == len(classes)
    kept = defined.any(axis=1) if is_macro else defined[:, column]
    patients = len(np.unique(segmenter.units[kept]))
    one = every.at(column)
    one = replace(one, support=segmenter.support(metric)) if is_macro else one
    low, high, note = one.interval(patients)
    if np.isnan(one.point):
        note = f"undefined: {ABSENCE.get(metric, NOWHERE)} in every case"
    elif not kept.all():
        n = len(kept)
        note = _joined(f"{n - kept.sum()} of {n} cases left out: {ABSENCE.get(metric, NOWHERE)}", note)
    if is_macro and patients >= every.how.min_patients:
        note = _joined(note, _rare(segmenter, classes, defined, every.how.min_patients))
    n_classes = int((~np.isnan(every.point[:-1])).sum())
    return {
        "metric": metric,
        "class": MACRO if is_macro else classes[column],
        "value": float(one.point),
        "low": low,
        "high": high,
        "n_patients": patients,
        "n_samples": int(kept.sum()),
        "n_classes": n_classes if is_macro else int(not np.isnan(one.point)),
        "note": note,
    }


def _rare(segmenter: Segmenter, classes: list[str], defined: np.ndarray, fewest: int) -> str:
    """Name the classes that leave a macro without an interval, "" if none does.

    A class of few patients brings the same few into every resample, so an interval would be too narrow.
    """
    patients = {name: len(np.unique(segmenter.units[rows])) for name, rows in zip(classes, defined.T, strict=True)}
    few = [f"{name} ({count})" for name, count in patients.items() if 0 < count < fewest]
    return f"few patients have a value of {', '.join(few)}" if few else ""


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def case_rows(segmenter: Segmenter, classes: list[str], case_ids: ArrayLike, patient_ids: ArrayLike) -> pd.DataFrame:
    """Return the metrics of every case: columns case_id, patient_id, metric, class, value.

    `macro` is the mean over the classes that the case has a value of.
    """
    tables = []
    for metric, values in segmenter.cases.items():
        columns = dict(zip(classes, values.T, strict=True)) | {MACRO: macro(values)}
        for name, column in columns.items():
            table = {"case_id": case_ids, "patient_id": patient_ids, "metric": metric, "class": name, "value": column}
            tables.append(pd.DataFrame(table))
    return pd.concat(tables, ignore_index=True)
