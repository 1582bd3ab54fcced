"""Overlap of label maps: DSC and IoU by case, and the study's pooled definitions, all from one confusion matrix a case.

A class that is absent from both truth and prediction has no overlap to measure: NaN, left out and counted. Present in
only one of them, it scores 0. (MONAI's DiceMetric with ignore_empty=True also leaves out an empty truth that was
predicted non-empty; a false alarm is then free, so it is not followed there.)
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from radprobe.metrics.classification import MACRO, macro
from radprobe.metrics.resampling import Bootstrap, Resampled, Support, patients_of, resampled

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


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    return np.divide(over, under, out=np.full(np.shape(under), np.nan), where=under > 0)


class Segmenter:
    """The confusion matrices [cases, k, k] of one protocol, for cases of patients [cases].

    distances: surface metrics [cases, classes] by name, as `surfaces` gives them for a case.
    """

    POOLED = ("dsc_pooled", "jaccard_study")

    def __init__(self, matrices: np.ndarray, patient_ids, distances: Mapping[str, np.ndarray] | None = None):
        self.matrices = np.asarray(matrices)
        self.units, self.patients = patients_of(patient_ids)
        parts = overlaps(self.matrices)
        self.cases = {"dsc": dsc(*parts), "iou": iou(*parts), **(distances or {})}  # [cases, classes]

    def estimate(self, metric: str, weights: np.ndarray) -> np.ndarray:
        """Return a metric by class and, last, its macro, [r, classes + 1], for patient weights [patients, r].

        Those of single cases (dsc, iou, hd95 ...): the mean over cases of each case's value; macro is the mean over
        cases of each case's mean over its defined classes. dsc_pooled (D07) and jaccard_study (D06, D07): all pixels of
        all cases as one, macro over the foreground classes that are there.
        """
        by_case = weights[self.units].T  # [r, cases]
        if metric in self.cases:
            values = np.concatenate([self.cases[metric], macro(self.cases[metric])[:, None]], axis=1)
            known = ~np.isnan(values)
            return _ratio(by_case @ np.where(known, values, 0), by_case @ known)
        matrices = self.matrices if metric == "dsc_pooled" else without_background(self.matrices)
        k = matrices.shape[-1]
        pooled = (by_case @ matrices.reshape(len(matrices), -1)).reshape(-1, k, k)
        values = (dsc if metric == "dsc_pooled" else iou)(*overlaps(pooled))
        return np.concatenate([values, macro(values)[:, None]], axis=1)

    def resampled(self, metric: str, how: Bootstrap) -> Resampled:
        """Return a macro metric of all patients and of every resample."""
        defined = ~np.isnan(self.cases.get(metric, self.cases["dsc"])).all(axis=1)
        found = resampled(lambda weights: self.estimate(metric, weights)[:, -1], self.patients, how)
        return replace(found, support=Support.of(len(np.unique(self.units[defined]))))


def rows(segmenter: Segmenter, classes: list[str], how: Bootstrap, unit: str = "") -> list[dict]:
    """Return one row a metric and class, and macro: those of single cases, dsc_pooled, jaccard_study.

    unit: what the notes of distances say of their unit.
    """
    found, n = [], len(segmenter.matrices)
    for metric in (*segmenter.cases, *segmenter.POOLED):
        defined = ~np.isnan(segmenter.cases.get(metric, segmenter.cases["dsc"]))  # [cases, classes]
        every = resampled(lambda weights, metric=metric: segmenter.estimate(metric, weights), segmenter.patients, how)
        n_classes = int((~np.isnan(every.point[:-1])).sum())
        for column, name in enumerate([*classes, MACRO]):
            kept = defined.any(axis=1) if name == MACRO else defined[:, column]
            patients = len(np.unique(segmenter.units[kept]))
            one = every.map(lambda values, column=column: values[:, column])
            low, high, note = one.interval(patients)
            if np.isnan(one.point):
                note = f"undefined: {ABSENCE.get(metric, NOWHERE)} in every case"
            elif not kept.all():
                gone = f"{n - kept.sum()} of {n} cases left out: {ABSENCE.get(metric, NOWHERE)}"
                note = "; ".join(filter(None, (gone, note)))
            if metric in DISTANCES:
                note = "; ".join(filter(None, (unit, note)))
            row = {"metric": metric, "class": name, "value": float(one.point), "low": low, "high": high}
            there = n_classes if name == MACRO else int(not np.isnan(one.point))
            found.append(
                {**row, "n_patients": patients, "n_samples": int(kept.sum()), "n_classes": there, "note": note}
            )
    return found


def case_rows(segmenter: Segmenter, classes: list[str], case_ids, patient_ids) -> pd.DataFrame:
    """Return the metrics of every case, by class and macro: columns case_id, patient_id, metric, class, value."""
    tables = []
    for metric, values in segmenter.cases.items():
        columns = dict(zip(classes, values.T, strict=True)) | {MACRO: macro(values)}
        for name, column in columns.items():
            table = {"case_id": case_ids, "patient_id": patient_ids, "metric": metric, "class": name, "value": column}
            tables.append(pd.DataFrame(table))
    return pd.concat(tables, ignore_index=True)
