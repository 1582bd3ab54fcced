"""One dataset under one protocol: who scores what, and which differences the paired intervals resolve."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pandas as pd

from radprobe.catalog import PRIMARY_METRIC
from radprobe.names import CEILING, FLOOR, FROM_SCRATCH, PIXELS, RANDOM, SCRATCH, STANDING, frozen, mode_of
from radprobe.report.collect import Findings

# The protocols that verdicts speak of where the one of params was not scored: fixed, so that no test score chooses.
PREFERRED = ("logistic", "linear", "linear-decoder")
FEW_SHOT = "few-shot"  # how the protocols begin that have curves of their own


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; NaN where undefined, `note` says why."""

    value: float
    low: float = math.nan
    high: float = math.nan
    patients: int = 0
    note: str = ""

    @property
    def defined(self) -> bool:
        """Is there a value?"""
        return not math.isnan(self.value)

    @property
    def sign(self) -> int | None:
        """Which side of 0 the whole interval lies on: 1, -1, 0 when it holds 0, None when there is no interval."""
        if math.isnan(self.low):
            return None
        return 1 if self.low > 0 else -1 if self.high < 0 else 0

    def negated(self) -> "Estimate":
        """Return the same difference seen from the other side."""
        return Estimate(-self.value, -self.high, -self.low, self.patients, self.note)


@dataclass(frozen=True)
class Column:
    """The primary metric (macro, test) of every backbone on a dataset under one protocol."""

    dataset: str
    protocol: str
    metric: str
    scores: dict[str, Estimate]
    seconds: dict[str, float] = field(default_factory=dict)
    controls: frozenset[str] = frozenset()
    differences: dict[tuple[str, str], Estimate] = field(default_factory=dict)
    ceiling: Estimate | None = None  # what the truth scores at the stored size and back
    leads: bool = False  # is its protocol the `report.headline` of params

    def protocol_of(self, backbone: str) -> str:
        """Return what a backbone was scored with here: what was trained as a whole stands beside every protocol."""
        return FROM_SCRATCH if backbone in SCRATCH else mode_of(backbone) or self.protocol

    @property
    def is_floor(self) -> bool:
        """Was nothing to be learnt, so that no order of backbones means anything?"""
        return self.protocol == FLOOR

    @property
    def order(self) -> list[str]:
        """The backbones with a defined score, best first."""
        known = [name for name, score in self.scores.items() if score.defined]
        return sorted(known, key=lambda name: -self.scores[name].value)

    @property
    def best(self) -> str | None:
        """The highest-scoring backbone that is no control (a control only where nothing else was scored)."""
        return next((name for name in self.order if name not in self.controls), next(iter(self.order), None))

    def difference(self, backbone: str, other: str) -> Estimate | None:
        """Return score of `backbone` minus score of `other` on the same patients, None where it was not compared."""
        if (backbone, other) in self.differences:
            return self.differences[backbone, other]
        found = self.differences.get((other, backbone))
        return found.negated() if found else None

    def tied(self, backbone: str) -> bool:
        """Is `backbone`, not the best, indistinguishable from it by the paired interval?"""
        found = self.difference(self.best, backbone) if backbone != self.best else None
        return found is not None and found.sign == 0

    def unbeaten(self, backbone: str) -> list[str]:
        """Return the control rows of a backbone, its random twin and raw pixels, that it shows no advantage over."""
        if backbone in self.controls:
            return []
        found = {control: self.difference(backbone, control) for control in controls_of(backbone)}
        return [control for control, each in found.items() if each and each.sign in (0, -1)]


def columns(findings: Findings) -> list[Column]:
    """Return a Column for each dataset and protocol that has scores; few-shot curves are apart."""
    table, compared = findings.scores, findings.comparison
    controls = frozenset(name for name in findings.study.backbones if findings.family(name) == "control")
    found = []
    for dataset, entry in findings.datasets.items():
        metric = PRIMARY_METRIC.get(entry.task)
        rows = table[(table["dataset"] == dataset) & (table["metric"] == metric)]
        rows = rows[(rows["class"] == "macro") & (rows["part"] == "test")]
        rows = rows[~rows["protocol"].str.startswith(FEW_SHOT)]
        ceiling = next((estimate(row, "value") for row in _of(rows, CEILING).to_dict("records")), None)
        rows = rows[rows["protocol"] != CEILING]
        for protocol, each in _by_protocol(rows):
            pairs = compared[(compared["dataset"] == dataset) & (compared["protocol"] == protocol)]
            scores = {row["backbone"]: estimate(row, "value") for row in each.to_dict("records")}
            seconds = dict(zip(each["backbone"], each["seconds"], strict=True))
            differences = {(r["backbone"], r["other"]): estimate(r, "difference") for r in pairs.to_dict("records")}
            leads = protocol == findings.study.params.report.headline
            found.append(Column(dataset, protocol, metric, scores, seconds, controls, differences, ceiling, leads))
    return found


def _by_protocol(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the rows of each protocol of frozen features with those that stand beside them all; or these, if alone."""
    standing = rows["protocol"].isin(STANDING)
    if standing.all() and len(rows):
        yield rows["protocol"].iloc[0], rows
        return
    for protocol, each in rows[~standing].groupby("protocol", sort=False):
        yield protocol, each if protocol == FLOOR else pd.concat([each, rows[standing]])


def _of(rows: pd.DataFrame, protocol: str) -> pd.DataFrame:
    return rows[rows["protocol"] == protocol]


def headline(of_dataset: list[Column]) -> Column | None:
    """Return the column that the verdict speaks of: that of params, else of PREFERRED, the first; never the floor."""
    learnt = [column for column in of_dataset if not column.is_floor]
    order = {name: place for place, name in enumerate(PREFERRED)}
    return min(learnt, key=lambda column: (not column.leads, order.get(column.protocol, len(order))), default=None)


def headlines(columns: Iterable[Column]) -> dict[str, Column]:
    """Return the column that the verdict speaks of, by dataset; none of a dataset where nothing was to be learnt."""
    of_datasets: dict[str, list[Column]] = {}
    for column in columns:
        of_datasets.setdefault(column.dataset, []).append(column)
    return {name: head for name, each in of_datasets.items() if (head := headline(each))}


def twin(backbone: str) -> str:
    """Return the id of the random twin of a backbone; a trained one has that of itself frozen."""
    return RANDOM + frozen(backbone)


def controls_of(backbone: str) -> tuple[str, str]:
    """Return the control rows that a backbone has to beat: its random twin, and raw pixels."""
    return twin(backbone), PIXELS


def estimate(row: dict, key: str) -> Estimate:
    """Return a row of scores or of differences, whose value stands under `key`, as an Estimate."""
    numbers = [math.nan if pd.isna(row[name]) else float(row[name]) for name in (key, "low", "high")]
    return Estimate(*numbers, int(row["n_patients"]), row["note"])
