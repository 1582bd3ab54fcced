"""One dataset under one protocol: the score of each row, and which differences are significant."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from radprobe.artifacts.tables import Record
from radprobe.catalog import PRIMARY_METRIC
from radprobe.names import (
    CEILING,
    EXTERNAL,
    FLOOR,
    FROM_SCRATCH,
    PIXELS,
    PREFERRED,
    SCRATCH,
    STANDING,
    mode_of,
    random_init,
)
from radprobe.report.collect import Findings

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


@dataclass(frozen=True)
class Contrast(Estimate):
    """A paired difference with its simultaneous interval and p-value.

    needed: test patients that would detect `score.margin` between the two, and the 95 % range of that number.
    """

    p: float = math.nan
    needed: tuple[float, float, float] = (math.nan, math.nan, math.nan)

    def negated(self) -> "Contrast":
        """Return the same difference seen from the other side."""
        return replace(self, value=-self.value, low=-self.high, high=-self.low)


@dataclass(frozen=True)
class Column:
    """The primary metric (macro, test) of every row of a dataset under one protocol.

    A random backbone is the mean of its inits. contenders: the rows that may be the best, as no candidate is
    significantly higher; none where nothing was compared. corrected: the score of the best row, corrected for having
    been chosen. margin: the difference that `Contrast.needed` patients detect.
    """

    dataset: str
    protocol: str
    metric: str
    scores: dict[str, Estimate]
    seconds: dict[str, float] = field(default_factory=dict)
    controls: frozenset[str] = frozenset()
    differences: dict[tuple[str, str], Contrast] = field(default_factory=dict)
    ceiling: Estimate | None = None  # what the truth scores at the stored size and back
    contenders: frozenset[str] = frozenset()
    corrected: Estimate | None = None
    margin: float = math.nan
    external: frozenset[str] = frozenset()  # rows whose predictions were made elsewhere
    leads: bool = False  # is its protocol the `report.headline` of params

    def protocol_of(self, backbone: str) -> str:
        """Return what a backbone was scored with here: what was trained as a whole stands beside every protocol."""
        if backbone in self.external:
            return EXTERNAL
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

    @property
    def leader(self) -> str:
        """The same, where something was scored. Raises ValueError if nothing was."""
        if self.best is None:
            raise ValueError(f"{self.dataset}, {self.protocol}: no score is defined")
        return self.best

    @property
    def candidates(self) -> list[str]:
        """The backbones with a defined score that are no controls, best first; the controls where nothing else is."""
        return [name for name in self.order if name not in self.controls] or self.order

    def difference(self, backbone: str, other: str) -> Contrast | None:
        """Return score of `backbone` minus score of `other` on the same patients, None where it was not compared."""
        if (backbone, other) in self.differences:
            return self.differences[backbone, other]
        found = self.differences.get((other, backbone))
        return found.negated() if found else None

    def significant(self, backbone: str) -> list[str]:
        """Return the candidates that a backbone is significantly higher than."""
        found = {other: self.difference(backbone, other) for other in self.candidates if other != backbone}
        return [other for other, each in found.items() if each and each.sign == 1]

    def unbeaten(self, backbone: str) -> list[str]:
        """Return the control rows of a backbone, its random init and raw pixels, that it is not significantly above."""
        if backbone in self.controls:
            return []
        found = {control: self.difference(backbone, control) for control in controls_of(backbone)}
        return [control for control, each in found.items() if each and each.sign in (0, -1)]


def columns(findings: Findings) -> list[Column]:
    """Return a Column for each dataset and protocol that has scores; few-shot curves are apart."""
    table = findings.shown
    controls = frozenset(name for name in findings.study.backbones if findings.family(name) == "control")
    external = frozenset(findings.study.external)
    found = []
    for dataset, entry in findings.datasets.items():
        metric = PRIMARY_METRIC.get(entry.task)
        if metric is None:
            continue
        rows = table[(table["dataset"] == dataset) & (table["metric"] == metric)]
        rows = rows[(rows["class"] == "macro") & (rows["part"] == "test")]
        rows = rows[~rows["protocol"].str.startswith(FEW_SHOT)]
        ceiling = next((estimate(row, "value") for row in _of(rows, CEILING).to_dict("records")), None)
        rows = rows[rows["protocol"] != CEILING]
        for protocol, each in _by_protocol(rows):
            scores = {row["backbone"]: estimate(row, "value") for row in each.to_dict("records")}
            seconds = dict(zip(each["backbone"], each["seconds"], strict=True))
            leads = protocol == findings.study.params.report.headline
            column = Column(dataset, protocol, metric, scores, seconds, controls, ceiling=ceiling, leads=leads)
            found.append(_compared(findings, replace(column, external=external)))
    return found


def _compared(findings: Findings, column: Column) -> Column:
    comparison = findings.comparison(column.dataset)
    if comparison is None:
        return column
    pairs, rows = (
        table[table["protocol"] == column.protocol].to_dict("records") for table in (comparison.table, comparison.rows)
    )
    return compared(column, pairs, rows, comparison.facts["margin"])


def compared(column: Column, pairs: Sequence[Record], rows: Sequence[Record], margin: float) -> Column:
    """Return a column with what `compare` made of it: differences, means over inits, the corrected best score.

    pairs, rows: of the column's protocol, as COMPARISON_SCHEMA and ROWS_SCHEMA have them.
    """
    differences = {(row["backbone"], row["other"]): _contrast(row) for row in pairs}
    over_inits = {row["backbone"]: _over_inits(row) for row in rows if row["n_inits"] > 1}
    corrected = [_corrected(row) for row in rows if not pd.isna(row["corrected"])]
    return replace(
        column,
        scores=column.scores | over_inits,
        differences=differences,
        contenders=frozenset(row["backbone"] for row in rows if row["may_be_best"]),
        corrected=corrected[0] if corrected else None,
        margin=margin,
    )


def _contrast(row: Record) -> Contrast:
    found = estimate(row, "difference")
    needed = (float(row["needed"]), float(row["needed_low"]), float(row["needed_high"]))
    return Contrast(found.value, found.low, found.high, found.patients, found.note, float(row["p"]), needed)


def _over_inits(row: Record) -> Estimate:
    found = estimate(row, "value")
    note = f"mean of {row['n_inits']} random inits, SD between them {row['init_sd']:.3f}"
    return replace(found, note="; ".join(filter(None, (note, found.note))))


def _corrected(row: Record) -> Estimate:
    low, high = float(row["corrected_low"]), float(row["corrected_high"])
    return Estimate(float(row["corrected"]), low, high, int(row["n_patients"]))


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


def controls_of(backbone: str) -> tuple[str, str]:
    """Return the control rows that a backbone has to beat: its random init, and raw pixels."""
    return random_init(backbone), PIXELS


def estimate(row: Record, key: str) -> Estimate:
    """Return a row of scores or of differences, whose value stands under `key`, as an Estimate."""
    value, low, high = (math.nan if pd.isna(row[name]) else float(row[name]) for name in (key, "low", "high"))
    return Estimate(value, low, high, int(row["n_patients"]), row["note"])
