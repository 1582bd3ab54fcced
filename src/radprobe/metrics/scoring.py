"""Predictions of one protocol and part, set against labels or truth: what `score` and `compare` take statistics of."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from radprobe.artifacts import Predictions, Truth
from radprobe.files import RadprobeError
from radprobe.metrics import calibration, classification, operating, segmentation
from radprobe.metrics.resampling import Bootstrap
from radprobe.metrics.surfaces import METRICS, surfaces

NO_TEMPERATURE = "no temperature minimises the loss of val"


@dataclass(frozen=True)
class Cell:
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
        logits = [f"logit:{name}" for name in self.classes]
        has_logits = set(logits) <= set(table) and table[logits].notna().all(axis=None)
        self.logits = table[logits].to_numpy() if has_logits else self.scores
        if np.isnan(self.scores).any():
            name = table["sample_id"].iloc[int(np.isnan(self.scores).any(axis=1).argmax())]
            raise RadprobeError(f"{protocol}, {name}", "has a score that is not a number", "fit the head again")
        self.samples = table[["sample_id", "patient_id"]].rename(columns={"sample_id": "id"})

    @cached_property
    def rarer(self) -> int:
        """The patients with the rarer label, of the class that has most of them."""
        return classification.Classifier(self.scores, self.targets, self.table["patient_id"]).rarer

    def rows(self, how: Bootstrap) -> list[dict]:
        """Return the rows of all metrics."""
        return classification.rows(self.scores, self.logits, self.targets, self.classes, self.table["patient_id"], how)

    def operating(self, val: "Classified", facts: dict, how: Bootstrap) -> list[dict]:
        """Return the rows at the thresholds of val, which are those of the head before its refit; and calibration."""
        made = operating.called_by_val(self.scores, facts, val.scores, val.targets)
        called = operating.rows(operating.Operating(made, self.targets, self.table["patient_id"]), self.classes, how)
        return [*called, *self._calibration(facts, how), *self._recalibrated(val.temperature(facts), facts, how)]

    def temperature(self, facts: dict) -> float:
        """Return the temperature that these scores, those of val, ask for; NaN if none minimises their loss."""
        return calibration.temperature(self.scores, self.targets, facts)

    def _calibration(self, facts: dict, how: Bootstrap) -> list[dict]:
        return calibration.rows(self._stated(calibration.probability(self.scores, facts), facts), self.classes, how)

    def _recalibrated(self, temperature: float, facts: dict, how: Bootstrap) -> list[dict]:
        """Return the rows of calibration at a temperature of val, named `<metric>_recalibrated`."""
        if np.isnan(temperature):
            exclusive = calibration.exclusive(facts)
            return calibration.undefined_rows(self.classes, exclusive, calibration.RECALIBRATED, NO_TEMPERATURE)
        stated = self._stated(calibration.recalibrated(self.scores, facts, temperature), facts)
        note = f"temperature {temperature:.3g}, fitted on val"
        return calibration.rows(stated, self.classes, how, calibration.RECALIBRATED, note)

    def _stated(self, probability: np.ndarray, facts: dict) -> calibration.Stated:
        exclusive = calibration.exclusive(facts)
        return calibration.Stated(probability, self.targets, self.table["patient_id"].to_numpy(), exclusive)

    def macro(self, metric: str) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function of patient weights: macro auroc, or auroc_study."""
        scores = classification.sigmoid32(self.logits) if metric == "auroc_study" else self.scores
        return getattr(classification.Classifier(scores, self.targets, self.table["patient_id"]), metric)


class Segmented:
    """One protocol's label maps of one part against the truth; cases in `without` are left out.

    Surface metrics take longer than all others, and are there where a `tolerance` is given.
    """

    rarer = None  # overlap compares no two labels

    def __init__(
        self,
        predictions: Predictions,
        protocol: str,
        part: str,
        truth: Truth,
        without: Collection[str] = (),
        tolerance: float | None = None,
    ):
        maps = predictions.maps[protocol]
        table = maps.table[~maps.table["case_id"].isin(without)]
        table = _some(table[table["part"] == part], protocol, part).sort_index()
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

    def rows(self, how: Bootstrap) -> list[dict]:
        """Return the rows of all metrics; those of distances say in which unit they are where it is not mm alone."""
        return segmentation.rows(self.segmenter, self.classes, how, self._unit())

    def operating(self, val: "Segmented", facts: dict, how: Bootstrap) -> list[dict]:
        """Return no row: label maps have no threshold."""
        return []

    def temperature(self, facts: dict) -> float:
        """Return NaN: label maps state no probability."""
        return np.nan

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

    def macro(self, metric: str) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function of patient weights: a macro metric."""
        return lambda weights: self.segmenter.estimate(metric, weights)[:, -1]


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


def protocols_of(predictions: Predictions) -> list[str]:
    """Return the names of all protocols."""
    return list(predictions.facts["protocols"])
