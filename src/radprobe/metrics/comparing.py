"""The rows of one protocol as one family: their paired differences on the same test patients, and the best of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from radprobe.artifacts.tables import Record
from radprobe.catalog import PAPER
from radprobe.metrics import delong, simultaneous
from radprobe.metrics.options import ComparedRow, VariantPair
from radprobe.metrics.resampling import Resampled, average
from radprobe.metrics.score_rows import Scored
from radprobe.metrics.scoring import ScoredCell, Segmented
from radprobe.metrics.simultaneous import Chance, Difference, Family
from radprobe.names import STANDING


@dataclass(frozen=True)
class Tested:
    """One protocol of a backbone on test: its predictions, and its macro scores on resampled patients."""

    cell: ScoredCell
    protocol: str

    @cached_property
    def scored(self) -> Scored:
        """The predictions of test."""
        return self.cell.scored(self.protocol, "test")

    @cached_property
    def samples(self) -> pd.DataFrame:
        """The samples of test and their patients."""
        return self.scored.samples

    def forget(self) -> None:
        """Free the predictions, unless other protocols have them beside them; what was made of them stays."""
        if self.protocol not in STANDING:
            self.__dict__.pop("scored", None)

    def macro(self, metric: str) -> Resampled:
        """Return a macro score of all patients and of every resample, made once."""
        if metric not in self._macros:
            self._macros[metric] = self.scored.macro(metric, self.cell.how)
        return self._macros[metric]

    @cached_property
    def _macros(self) -> dict[str, Resampled]:
        return {}

    def over_seeds(self, metric: str) -> list[float]:
        """Return the score of every fit with a seed of its own, the first one first."""
        others = self.cell.predictions.other_fits(self.protocol)
        of_others = (self.cell.scored(name, "test") for name in others)
        return [
            float(self.macro(metric).point),
            *(float(each.macro(metric, self.cell.how.alone).point) for each in of_others),
        ]


class ComparedTable:
    """All rows of one protocol as one family; the inits of a random backbone are one row, their mean.

    `tested` holds what each backbone has under the protocol; `rows` may name more backbones than these.
    """

    def __init__(self, tested: Mapping[str, Tested], metric: str, rows: Sequence[ComparedRow]):
        self.tested = tested
        self.metric = metric
        row_of = {backbone: row for row in rows for backbone in row.backbones}
        self.rows: dict[str, ComparedRow] = {}
        self.inits: dict[str, list[str]] = {}
        for name in tested:
            row = row_of[name]
            self.rows[row.name] = row
            self.inits.setdefault(row.name, []).append(name)
        statistics = {row: average([tested[name].macro(metric) for name in names]) for row, names in self.inits.items()}
        self.family = Family(statistics, self._chance())

    def _chance(self) -> dict[str, Chance]:
        """Return how far rows vary by the chance of seeds or inits, each pooled over backbones, if it is known."""
        fits = {name: each.over_seeds(self.metric) for name, each in self.tested.items() if name in self.inits}
        of_seeds = simultaneous.pooled(list(fits.values()))
        known = {name: of_seeds for name, values in fits.items() if of_seeds and len(values) > 1}
        if of_inits := simultaneous.pooled([self._points(names) for names in self.inits.values()]):
            random = {name: names for name, names in self.inits.items() if self.rows[name].is_random}
            known |= {row: Chance(of_inits.variance / len(names), of_inits.df) for row, names in random.items()}
        return known

    def _points(self, names: list[str]) -> list[float]:
        return [float(self.tested[name].macro(self.metric).point) for name in names]

    def differences(self, margin: float) -> Iterator[Record]:
        """Yield the difference of every two rows; and how many test patients would detect `margin` between them."""
        patients = self._patients
        for each in self.family.differences:
            needed, low, high = self.family.patients_needed(each, margin)
            yield {
                "backbone": each.one,
                "other": each.other,
                **_columns(each),
                "p": each.p,
                "p_delong": self._delong(each),
                "standard_error": each.standard_error,
                "needed": needed,
                "needed_low": low,
                "needed_high": high,
                "n_patients": patients,
            }

    def scores(self) -> Iterator[Record]:
        """Yield the score of every row with its own interval, and that of the best one corrected."""
        candidates = [name for name, row in self.rows.items() if not row.is_control] or list(self.inits)
        winner = self.family.winner(candidates)
        beaten = self.family.beaten(candidates)
        for row, names in self.inits.items():
            statistic = self.family.rows[row]
            low, high, note = statistic.interval()
            points = self._points(names)
            best = winner if winner is not None and winner.name == row else None
            yield {
                "backbone": row,
                "value": float(statistic.point),
                "low": low,
                "high": high,
                "corrected": best.value if best else np.nan,
                "corrected_low": best.low if best else np.nan,
                "corrected_high": best.high if best else np.nan,
                "may_be_best": row in candidates and row not in beaten and not np.isnan(statistic.point),
                "n_inits": len(names),
                "init_sd": float(np.std(points, ddof=1)) if len(names) > 1 else np.nan,
                "n_patients": self._patients,
                "note": note,
            }

    @property
    def _patients(self) -> int:
        return int(next(iter(self.tested.values())).samples["patient_id"].nunique())

    def _delong(self, pair: Difference) -> float:
        """Return DeLong's p-value of a pair; NaN for label maps, inits, folds, and several samples of a patient."""
        names = [*self.inits[pair.one], *self.inits[pair.other]]
        if len(names) > 2:
            return np.nan
        one, other = (self.tested[name].scored for name in names)
        if isinstance(one, Segmented) or isinstance(other, Segmented) or one.folds is not None:
            return np.nan
        if one.samples["patient_id"].duplicated().any():
            return np.nan
        counted = one.counted(self.family.rows[pair.one].how)
        return delong.p_value(one.scores[:, counted], other.scores[:, counted], one.targets[:, counted])


def _columns(difference: Difference) -> Record:
    return {
        "difference": difference.value,
        "low": difference.low,
        "high": difference.high,
        "note": difference.note,
    }


# --- ours and the paper's way -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoreName:
    """What a macro score is of."""

    backbone: str
    protocol: str
    metric: str


def variants(every: Mapping[ScoreName, Resampled], pair: VariantPair, metric: str) -> Iterator[Record]:
    """Yield the paired differences of the paper's way from ours, by a pair of names; `metric` is the primary one."""
    for ours, one in every.items():
        theirs = _theirs(ours, pair, metric)
        if theirs is not None and theirs in every:
            difference = simultaneous.paired(every[theirs].minus(one))
            yield {
                "backbone": ours.backbone,
                "protocol": ours.protocol,
                "metric": ours.metric,
                "other_backbone": theirs.backbone,
                "other_protocol": theirs.protocol,
                "other_metric": theirs.metric,
                **_columns(difference),
                "n_patients": one.patients,
            }


def _theirs(ours: ScoreName, pair: VariantPair, metric: str) -> ScoreName | None:
    """Return what is ours as the paper did it, by a pair; None if the pair is not about it."""
    if pair.of == "metric":
        return replace(ours, metric=pair.theirs) if ours.metric == pair.ours else None
    if ours.metric != metric:
        return None
    if pair.of == "protocol":
        return replace(ours, protocol=pair.theirs) if ours.protocol == pair.ours else None
    return replace(ours, backbone=ours.backbone + PAPER)
