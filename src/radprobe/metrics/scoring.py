"""Predictions of one protocol and part, set against labels or truth: what `score` and `compare` take statistics of."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from radprobe.artifacts import Predictions, Truth
from radprobe.artifacts.tables import Record
from radprobe.catalog import Task
from radprobe.files import RadprobeError
from radprobe.metrics import calibration, classification, operating, segmentation
from radprobe.metrics.operating import Called
from radprobe.metrics.options import Bootstrap
from radprobe.metrics.resampling import Resampled
from radprobe.metrics.surfaces import METRICS, surfaces


@dataclass(frozen=True)
class ScoredCell:
    """The predictions of a backbone on a dataset, and by what they are scored: `truth` of label maps, `tolerance`."""

    predictions: Predictions
    truth: Truth | None
    metric: str  # the primary one
    how: Bootstrap
    tolerance: float | None = None

    def scored(self, protocol: str, part: str, without: Collection[str] = ()) -> "Classified | Segmented":
        """Return one protocol's predictions of one part, to be scored; cases in `without` are left out."""
        if self.truth:
            return Segmented(self.predictions, protocol, part, self.truth, without, self.tolerance)
        return Classified(self.predictions, protocol, part, without)


class Classified:
    """One protocol's scores of one part, ranked; cases in `without` are left out."""

    def __init__(self, predictions: Predictions, protocol: str, part: str, without: Collection[str] = ()):
        table = predictions.rows(protocol, part)
        table = _some(table[~table["sample_id"].isin(without)], protocol, part)
        self.classes, self.table = predictions.classes, table
        self.scores, self.targets = predictions.matrices(table)
        self.folds = table["fold"].to_numpy() if "fold" in table else None  # of cross-validation
        logits = [f"logit:{name}" for name in self.classes]
        has_logits = set(logits) <= set(table) and table[logits].notna().all(axis=None)
        self.logits = table[logits].to_numpy() if has_logits else self.scores
        if np.isnan(self.scores).any():
            name = table["sample_id"].iloc[int(np.isnan(self.scores).any(axis=1).argmax())]
            raise RadprobeError(f"{protocol}, {name}", "has a score that is not a number", "fit the head again")
        self.samples = table[["sample_id", "patient_id"]].rename(columns={"sample_id": "id"})

    def counted(self, how: Bootstrap) -> np.ndarray:
        """Return which classes the macro is over, bool [classes]."""
        patients = self.table["patient_id"]
        return classification.Classifier(self.scores, self.targets, patients, self.folds, how.min_patients).counted

    def rows(self, how: Bootstrap) -> list[Record]:
        """Return the rows of all metrics."""
        patients = self.table["patient_id"]
        return classification.rows(self.scores, self.logits, self.targets, self.classes, patients, how, self.folds)

    def operating(self, val: "Classified | None", facts: Record, how: Bootstrap) -> list[Record]:
        """Return the rows at the thresholds of val, which are those of the head before its refit; and calibration.

        Without val (predictions from elsewhere) what val decides is undefined.
        """
        called = operating.Operating(self.called(val, facts), self.targets, self.table["patient_id"])
        return [
            *operating.rows(called, self.classes, how),
            *self._calibration(facts, how),
            *self._recalibrated(val, facts, how),
        ]

    def called(self, val: "Classified | None", facts: Record) -> Called:
        """Return what is called positive at the thresholds of val; none has a threshold without val."""
        nothing = np.empty((0, len(self.classes)))
        scores, targets = (val.scores, val.targets) if val else (nothing, nothing)
        folds = None
        if val and val.folds is not None and self.folds is not None:
            folds = (self.folds, val.folds)
        return operating.called_by_val(self.scores, facts, scores, targets, folds)

    def temperatures(self, facts: Record) -> dict[int, float]:
        """Return the temperature of these scores, those of val, by fold; NaN if none minimises their loss."""
        return {
            fold: calibration.temperature(self.scores[rows], self.targets[rows], facts)
            for fold, rows in self._by_fold().items()
        }

    def _by_fold(self) -> dict[int, np.ndarray]:
        """Return which rows each fold has; fold 0 has all where there are no folds."""
        folds = np.zeros(len(self.table), int) if self.folds is None else self.folds
        return {int(fold): folds == fold for fold in np.unique(folds)}

    def _calibration(self, facts: Record, how: Bootstrap) -> list[Record]:
        probability = calibration.probability(self.scores, facts)
        if np.isnan(probability).all():
            return self._undefined(facts, "", calibration.NO_PROBABILITY)
        return calibration.rows(self._stated(probability, facts), self.classes, how)

    def _recalibrated(self, val: "Classified | None", facts: Record, how: Bootstrap) -> list[Record]:
        """Return the rows of calibration at the temperature of val, named `<metric>_recalibrated`."""
        suffix = calibration.RECALIBRATED
        if facts.get("scale") == "score":
            return self._undefined(facts, suffix, calibration.NO_PROBABILITY)
        if val is None:
            return self._undefined(facts, suffix, calibration.WITHOUT_VAL)
        found = val.temperatures(facts)
        if any(np.isnan(each) for each in found.values()):
            return self._undefined(facts, suffix, calibration.NO_TEMPERATURE)
        probability = np.empty_like(self.scores, dtype=float)
        for fold, rows in self._by_fold().items():
            probability[rows] = calibration.recalibrated(self.scores[rows], facts, found[fold])
        lowest, highest = f"{min(found.values()):.3g}", f"{max(found.values()):.3g}"
        said = f"temperature {lowest}" if len(found) == 1 else f"temperature of each fold ({lowest} to {highest})"
        return calibration.rows(self._stated(probability, facts), self.classes, how, suffix, f"{said}, fitted on val")

    def _undefined(self, facts: Record, suffix: str, why: str) -> list[Record]:
        return calibration.undefined_rows(self.classes, calibration.exclusive(facts), suffix, why)

    def _stated(self, probability: np.ndarray, facts: Record) -> calibration.Stated:
        exclusive = calibration.exclusive(facts)
        return calibration.Stated(probability, self.targets, self.table["patient_id"].to_numpy(), exclusive)

    def macro(self, metric: str, how: Bootstrap) -> Resampled:
        """Return macro auroc, or auroc_study, of all patients and of every resample."""
        scores = classification.sigmoid32(self.logits) if metric == "auroc_study" else self.scores
        patients = self.table["patient_id"]
        ranked = classification.Classifier(scores, self.targets, patients, self.folds, how.min_patients)
        return ranked.resampled_study(how) if metric == "auroc_study" else ranked.resampled(how)


class Segmented:
    """One protocol's label maps of one part against the truth; cases in `without` are left out.

    Surface metrics take longer than all others, and are there where a `tolerance` is given.
    """

    def __init__(
        self,
        predictions: Predictions,
        protocol: str,
        part: str,
        truth: Truth,
        without: Collection[str] = (),
        tolerance: float | None = None,
    ):
        maps = predictions.maps[protocol].of(part)
        table = _some(maps.table[~maps.table["case_id"].isin(without)], protocol, part).sort_index()
        self.classes, self.table = predictions.classes, table
        n, matrices, distances = len(self.classes), [], []
        for case in table["case_id"]:
            found = maps[case]
            matrices.append(_confusion(protocol, case, truth, found, n))
            if tolerance:
                distances.append(_distances(truth, case, found, n, tolerance))
        by_name = {name: np.array([each[name] for each in distances]) for name in METRICS} if tolerance else None
        self.in_pixels = sum(not truth.maps.spacing(case) for case in table["case_id"])
        self.segmenter = segmentation.Segmenter(np.reshape(matrices, (-1, n + 1, n + 1)), table["patient_id"], by_name)
        self.samples = table[["case_id", "patient_id"]].rename(columns={"case_id": "id"})

    def rows(self, how: Bootstrap) -> list[Record]:
        """Return the rows of all metrics; those of distances say in which unit they are where it is not mm alone."""
        return segmentation.rows(self.segmenter, self.classes, how, self._unit())

    def _unit(self) -> str:
        if not self.in_pixels:
            return ""
        n = len(self.table)
        which = "" if self.in_pixels == n else f" in {self.in_pixels} of {n} cases, in mm in the others"
        return f"in pixels{which}: spacing unknown"

    def cases(self) -> pd.DataFrame:
        """Return the per-case values."""
        ids = (self.table[name].to_numpy() for name in ("case_id", "patient_id"))
        return segmentation.case_rows(self.segmenter, self.classes, *ids)

    def macro(self, metric: str, how: Bootstrap) -> Resampled:
        """Return a macro metric of all patients and of every resample."""
        return self.segmenter.resampled(metric, how)


def _some(table: pd.DataFrame, protocol: str, part: str) -> pd.DataFrame:
    if table.empty:
        raise RadprobeError(f"{protocol}, {part}", "has no prediction: nothing can be scored", "choose another split")
    return table


def _confusion(protocol: str, case: str, truth: Truth, prediction: np.ndarray, classes: int) -> np.ndarray:
    if case not in truth.maps.table.index:
        raise RadprobeError(f"{protocol}, {case}", "is predicted and has no truth", "run prepare and segment again")
    try:
        return segmentation.confusion(truth.maps[case], prediction, classes)
    except ValueError as error:
        raise RadprobeError(f"{protocol}, {case}", str(error), "run prepare and segment again") from None


def _distances(truth: Truth, case: str, found: np.ndarray, n: int, tolerance: float) -> dict[str, np.ndarray]:
    """Return the surface metrics of a case; the tolerance is in mm, or in thousandths of its longer side."""
    labels, spacing = truth.maps[case], truth.maps.spacing(case)
    return surfaces(labels, found, n, spacing, tolerance if spacing else tolerance / 1000 * max(labels.shape))


def truth_of(prepared: Path, task: Task) -> Truth | None:
    """Open the truth in the folder of a `prepare`; None if the task is to classify."""
    return Truth.load(prepared) if task == "segmentation" else None
