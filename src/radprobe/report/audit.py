"""The deviations of the authors' code, one by one: what ours does, and how much it matters in this study."""

import math
from dataclasses import dataclass
from statistics import median

import pandas as pd

from radprobe.artifacts.tables import Record
from radprobe.catalog import PAPER, PRIMARY_METRIC
from radprobe.catalog.paper import Deviation, Pair, deviations
from radprobe.metrics.classification import MACRO
from radprobe.names import FLOOR
from radprobe.report.collect import Findings
from radprobe.report.ranking import FEW_SHOT, Estimate, estimate

PRIMARY = tuple(dict.fromkeys(PRIMARY_METRIC.values()))
KINDS = {"metric": "another metric", "protocol": "another protocol", "bug": "a defect"}
INTRODUCTION = """# What the authors' code does otherwise

Made from `src/radprobe/catalog/deviations.yaml` by `make audit-page`. The code that was published with the study
(arXiv 2312.02366), as read at its last commit, of 26 December 2023; the paper is younger, and its tables may come from
other code. `metric`: the study's definition is computed too, as rows of its own name. `protocol`: a variant of ours, or
an option, does it the study's way. `bug`: never built; tests hold that ours is free of it. A report shows, where both
variants ran, how much the score changes.
"""


@dataclass(frozen=True)
class Change:
    """Both variants of one cell: what the score changes by when it is made the study's way."""

    dataset: str
    backbone: str
    protocol: str
    ours: float
    theirs: float
    by: Estimate  # theirs less ours: over resampled patients; of few shots, the range of the changes from our draws


@dataclass(frozen=True)
class Changes:
    """The changes of one pair of rows on one dataset."""

    dataset: str
    pair: Pair
    cells: list[Change]

    @property
    def middle(self) -> float:
        """The median change over cells."""
        return median(cell.by.value for cell in self.cells)

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the largest change."""
        values = [cell.by.value for cell in self.cells]
        return min(values), max(values)

    @property
    def apart(self) -> str:
        """In how many cells with an interval it leaves out 0; "" where none has one."""
        signs = [cell.by.sign for cell in self.cells if cell.by.sign is not None]
        return f"0 is outside of the interval in {sum(map(abs, signs))} of {len(signs)}" if signs else ""


@dataclass(frozen=True)
class Finding:
    """A deviation, and what of it shows in this study."""

    deviation: Deviation
    changes: list[Changes]

    @property
    def why_none(self) -> str:
        """Why no change of a score is told."""
        if self.deviation.kind == "bug":
            return "never built, so there is nothing to compare"
        return self.deviation.no_pair or "both variants did not run in this study"


def findings_of(findings: Findings) -> list[Finding]:
    """Return every deviation with the score changes of the datasets in which both variants ran."""
    return [Finding(each, _of(findings, each)) for each in deviations()]


def signed(value: float) -> str:
    """Return three decimals with their sign, without a negative zero."""
    return f"{round(value, 3) + 0.0:+.3f}"


def signed_text(change: Estimate) -> str:
    """Return "+value [low, high]", the interval where there is one."""
    if math.isnan(change.low):
        return signed(change.value)
    return f"{signed(change.value)} [{signed(change.low)}, {signed(change.high)}]"


def names(pair: Pair) -> str:
    """Say which two rows a pair sets against each other."""
    if pair.of == "backbone":
        return f"features as in the study ({PAPER}) less ours"
    return f"{pair.theirs} less {pair.ours}"


def _of(findings: Findings, deviation: Deviation) -> list[Changes]:
    found = []
    for pair in deviation.pairs:
        for name, entry in findings.datasets.items():
            cells = _cells(findings, name, pair) if entry.task in pair.tasks else []
            found += [Changes(name, pair, cells)] if cells else []
    return found


def _cells(findings: Findings, dataset: str, pair: Pair) -> list[Change]:
    """Return the cells of a dataset in which both rows of a pair are defined, controls apart."""
    table = findings.scores
    rows = table[(table["dataset"] == dataset) & (table["part"] == "test") & (table["class"] == MACRO)]
    named = rows["backbone"].isin(_no_controls(findings)) & (rows["protocol"] != FLOOR)
    merged = PAIRING[pair.of](rows[named & rows["value"].notna()], pair)
    return [_change(findings, dataset, row) for row in merged.to_dict("records")]


def _no_controls(findings: Findings) -> list[str]:
    return [name for name in findings.study.backbones if findings.family(name) != "control"]


def _change(findings: Findings, dataset: str, row: Record) -> Change:
    by = _over_draws(row) if row["protocol"].startswith(FEW_SHOT) else _paired(findings, dataset, row)
    return Change(dataset, row["backbone"], row["protocol"], row["value"], row["value_theirs"], by)


def _over_draws(row: Record) -> Estimate:
    """Return the study's draw less ours: it is of the same patients, but one draw, so draws make the interval."""
    theirs = row["value_theirs"]
    low, high = theirs - row["high"], theirs - row["low"]
    return Estimate(theirs - row["value"], low, high, row["n_patients"], row["note"])


def _paired(findings: Findings, dataset: str, row: Record) -> Estimate:
    """Return the paired difference of two rows; without an interval where `compare` did not make it."""
    table = findings.variants[findings.variants["dataset"] == dataset]
    for kind in ("backbone", "protocol", "metric"):
        table = table[(table[kind] == row[kind]) & (table[f"other_{kind}"] == row.get(f"{kind}_theirs", row[kind]))]
    found = [estimate(each, "difference") for each in table.to_dict("records")]
    return found[0] if found else Estimate(row["value_theirs"] - row["value"])


# --- pairing: rows of ours beside rows of theirs, as columns value and value_theirs -----------------------------------


def _by_metric(rows: pd.DataFrame, pair: Pair) -> pd.DataFrame:
    rows = rows[~rows["protocol"].str.startswith(FEW_SHOT)]
    found = _beside(rows, "metric", pair.ours, pair.theirs, on=["backbone", "protocol"])
    if pair.undefined is None:
        return found
    return found[(found["n_classes"] < found["n_classes_theirs"]) == pair.undefined]  # theirs counts every class


def _by_protocol(rows: pd.DataFrame, pair: Pair) -> pd.DataFrame:
    return _beside(_primary(rows), "protocol", pair.ours, pair.theirs, on=["backbone", "metric"])


def _by_draw(rows: pd.DataFrame, pair: Pair) -> pd.DataFrame:
    """Pair the mean over our draws with the study's single draw of as many shots."""
    rows = rows[rows["protocol"].str.startswith(f"{FEW_SHOT} ") & rows["metric"].isin(PRIMARY)]
    shots, theirs = rows["protocol"].str.removesuffix(PAPER), rows["protocol"].str.endswith(PAPER)
    rows = rows.assign(shots=shots, draw=theirs.map({True: pair.theirs, False: pair.ours}))
    return _beside(rows, "draw", pair.ours, pair.theirs, on=["backbone", "metric", "shots"])


def _by_backbone(rows: pd.DataFrame, pair: Pair) -> pd.DataFrame:
    rows = _primary(rows)
    theirs = rows["backbone"].str.endswith(PAPER)
    rows = rows.assign(base=rows["backbone"].str.removesuffix(PAPER), side=theirs.map({True: "theirs", False: "ours"}))
    return _beside(rows, "side", "ours", "theirs", on=["base", "protocol", "metric"])


def _primary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the primary metric; few-shot rows have a pair of their own."""
    return rows[rows["metric"].isin(PRIMARY) & ~rows["protocol"].str.startswith(FEW_SHOT)]


def _beside(rows: pd.DataFrame, column: str, ours: str, theirs: str, on: list[str]) -> pd.DataFrame:
    one, two = rows[rows[column] == ours], rows[rows[column] == theirs]
    return one.merge(two, on=on, suffixes=("", "_theirs"))


PAIRING = {"metric": _by_metric, "protocol": _by_protocol, "few-shot": _by_draw, "backbone": _by_backbone}


# --- docs/audit.md ----------------------------------------------------------------------------------------------------


def markdown() -> str:
    """Return docs/audit.md."""
    parts = [INTRODUCTION]
    for each in deviations():
        rows = [f"`{name}`" for pair in each.pairs for name in (pair.ours, pair.theirs)]
        lines = [f"**What.** {each.what}", f"**Effect.** {each.effect}", f"**Ours.** {each.ours}"]
        lines += [f"**Rows to compare.** {' and '.join(rows)}"] if rows else []
        lines += [f"**No rows to compare.** {each.no_pair}"] if each.no_pair else []
        tests = "\n".join(f"- `{test}`" for test in each.tests)
        parts.append(f"## {each.id}: {each.kind}\n\n" + "\n\n".join(lines) + f"\n\n**Held by**\n\n{tests}\n")
    return "\n".join(parts)
