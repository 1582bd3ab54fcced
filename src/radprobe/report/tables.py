"""The map of backbones and datasets, the forest of paired differences, and the table of everything, as plain data."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from radprobe.catalog import PRIMARY_METRIC
from radprobe.names import CEILING, FLOOR, METADATA
from radprobe.report import style, verdict, words
from radprobe.report.cells import places
from radprobe.report.collect import Cell, Findings
from radprobe.report.ranking import Column, Contrast, Estimate, controls_of

COLUMNS = ["dataset", "backbone", "protocol", "part", "metric", "class", "value", "low", "high", "n_patients"]
COLUMNS += [
    "n_samples",
    "n_classes",
    "n_fits",
    "seed_sd",
    "seed_low",
    "seed_high",
    "seconds",
    "peak_gb",
    "trained_parameters",
    "trained_share",
    "best_epoch",
]
COLUMNS += ["seed", "key", "note"]

NO_METADATA = "no metadata in this benchmark"


@dataclass(frozen=True)
class Tile:
    """One tile of the map: what it shows, what it tells on hover, where it leads, its shade from 0 to 1, its mark."""

    text: str
    detail: str
    href: str
    shade: float = 0
    mark: str = ""  # best | tied
    flag: str = ""  # the control rows that it does not beat


@dataclass(frozen=True)
class ScoreMap:
    """A view of the map: the heading of each dataset, and by family each backbone with its tiles, one a dataset."""

    heads: dict[str, str]
    families: dict[str, list[tuple[str, list[Tile]]]]
    protocols: list[str]
    is_floor: bool


@dataclass(frozen=True)
class ForestLine:
    """The difference from one backbone: its ends in percent of the axis (None: it has none), and what is said."""

    other: str
    low: float | None
    value: float | None
    high: float | None
    text: str
    verdict: str
    colour: int  # number of the family


@dataclass(frozen=True)
class Tick:
    """A tick of the axis of a forest, at a place in percent."""

    at: float | None
    text: str


@dataclass(frozen=True)
class Forest:
    """The differences of the best backbone of a column from others; `zero` is the place of 0 in percent."""

    column: Column
    zero: float | None
    lines: list[ForestLine]
    ticks: list[Tick]


def anchor(dataset: str, backbone: str) -> str:
    """Return the id of a cell's details in the page."""
    return f"cell-{dataset}-{backbone}".replace(":", "-").replace("+", "-")


# The first view of the map: each dataset under the protocol that its verdict speaks of.
MAIN = "protocol of the verdict"


def maps(findings: Findings, columns: Sequence[Column], heads: dict[str, Column]) -> dict[str, ScoreMap]:
    """Return the views of the map by label: the main one, one for every other protocol, the floor last."""
    if not columns:
        return {}
    others = dict.fromkeys(column.protocol for column in columns if column not in heads.values())
    views = {name: {each.dataset: each for each in columns if each.protocol == name} for name in others}
    ordered = sorted(views, key=lambda name: name == FLOOR)
    return {MAIN: _map(findings, heads)} | {words.label(name): _map(findings, views[name]) for name in ordered}


def _map(findings: Findings, here: dict[str, Column]) -> ScoreMap:
    """Return the map of one column a dataset: datasets by modality, backbones by family, controls last."""
    states = {(cell.dataset, cell.backbone): cell for cell in findings.cells}
    datasets = sorted(
        (name for name, entry in findings.datasets.items() if entry.task != "look"),
        key=lambda name: findings.datasets[name].modality,
    )

    def row(backbone: str) -> list[Tile]:
        return [_tile(findings, here.get(name), states.get((name, backbone)), name, backbone) for name in datasets]

    families: dict[str, list[tuple[str, list[Tile]]]] = {family: [] for family in style.FAMILIES}
    for backbone in findings.study.rows:
        families[findings.family(backbone)].append((backbone, row(backbone)))
    heads = {name: _heading(findings, name, here.get(name)) for name in datasets}
    return ScoreMap(
        heads=heads,
        families={name: rows for name, rows in families.items() if rows},
        protocols=sorted({column.protocol for column in here.values()}),
        is_floor=any(column.is_floor for column in here.values()),
    )


def _heading(findings: Findings, dataset: str, column: Column | None) -> str:
    entry = findings.datasets[dataset]
    if column is None:
        return entry.modality
    return f"{entry.modality}, {words.METRICS[column.metric]}, {words.protocol(column.protocol)}"


def _tile(findings: Findings, column: Column | None, cell: Cell | None, dataset: str, backbone: str) -> Tile:
    place = f"#{anchor(dataset, backbone)}"
    if cell is None:
        return Tile("–", _not_run(findings, dataset, backbone), "#not-run")
    if cell.state != "done":
        return Tile("–", f"{cell.state}: {cell.step.verb}, {cell.why}", place)
    if backbone == CEILING and column and column.ceiling:
        page = places.address(dataset, CEILING, CEILING)
        return Tile(words.number(column.ceiling.value), _detail(column.ceiling), page)
    if column is None or backbone not in column.scores:
        return Tile("–", "no such protocol for this task", place)
    score, page = column.scores[backbone], places.address(dataset, backbone, column.protocol_of(backbone))
    if not score.defined:
        return Tile("–", score.note, page)
    if column.is_floor:
        return Tile(words.number(score.value), _detail(score), page)
    mark = "best" if backbone == column.best else "tied" if backbone in column.contenders else ""
    flag = " and ".join(verdict.CONTROLS[controls_of(backbone).index(each)][0] for each in column.unbeaten(backbone))
    return Tile(words.number(score.value), _detail(score), page, _shade(column, score.value), mark, flag)


def _not_run(findings: Findings, dataset: str, backbone: str) -> str:
    if not findings.study.applies(dataset, backbone):
        if backbone in findings.study.external:
            return "no predictions of it for this dataset"
        if backbone != METADATA:
            return "only segments"
        return "metadata alone segment nothing" if findings.datasets[dataset].metadata else NO_METADATA
    gone = findings.study.why_gone(backbone)
    return f"not run: {gone.why}" if gone else "not run"


def _detail(score: Estimate) -> str:
    return f"{words.interval(score) or score.note}, {score.patients} patients"


def _shade(column: Column, value: float) -> float:
    """Return 1 for the highest score of a column, 0 for its lowest."""
    values = [score.value for score in column.scores.values() if score.defined]
    return (value - min(values)) / (max(values) - min(values)) if max(values) > min(values) else 1.0


def forest(findings: Findings, column: Column, most: int | None = None) -> Forest | None:
    """Return the differences of the best backbone from every other, with places in percent of an axis that holds 0.

    most: only so many of them: the best candidates and the controls of the best.
    """
    best = column.best
    if best is None:
        return None
    others = [other for other in column.order if other != best]
    if most is not None:
        first = [other for other in others if other in controls_of(best)]
        rivals = [other for other in column.candidates if other != best and other not in first]
        others = [*rivals[: most - len(first)], *first]
    rows = [(other, found) for other in others if (found := column.difference(best, other)) and found.defined]
    if not rows:
        return None
    ends = [0.0, *(end for _, found in rows for end in (found.low, found.value, found.high) if not math.isnan(end))]
    low, high = min(ends), max(ends)
    pad = (high - low or 0.01) * 0.06
    low, high = low - pad, high + pad

    def place(value: float) -> float | None:
        return None if math.isnan(value) else round(100 * (value - low) / (high - low), 2)

    lines = [_line(findings, other, found, place) for other, found in rows]
    ticks = [Tick(place(tick), _tick(tick)) for tick in _ticks(low, high)]
    return Forest(column, place(0.0), lines, ticks)


def _line(findings: Findings, other: str, found: Contrast, place: Callable[[float], float | None]) -> ForestLine:
    verdicts = {1: "significantly higher", -1: "significantly lower", 0: "no significant difference"}
    said = found.note if found.sign is None else f"{verdicts[found.sign]}, {words.p_value(found.p)}"
    return ForestLine(
        other=other,
        low=place(found.low),
        value=place(found.value),
        high=place(found.high),
        text=words.text(found),
        verdict=said,
        colour=list(style.FAMILIES).index(findings.family(other)),
    )


def _ticks(low: float, high: float, about: int = 4) -> list[float]:
    raw = (high - low) / about
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * each for each in (1, 2, 5, 10) if size * each >= raw)
    return [float(tick) for tick in np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step]


def _tick(value: float) -> str:
    return f"{value + 0.0:.4g}" if abs(value) > 1e-9 else "0"


def everything(findings: Findings) -> dict[str, Any]:
    """Return all scores as {columns, rows}, NaN as None, and beside them what stands once.

    That is what each dataset and backbone is, by id, the colours of families, and where the cells' pages lie.
    """
    table = findings.shown[COLUMNS].astype(object)
    datasets = {
        name: {
            "title": entry.title,
            "modality": entry.modality,
            "task": entry.task,
            "primary": PRIMARY_METRIC.get(entry.task),
        }
        for name, entry in findings.datasets.items()
    }
    families = {name: findings.family(name) for name in table["backbone"].unique()}
    rows = table.where(pd.notna(table), None).values.tolist()
    pages = places.addresses(findings)
    found = {"columns": COLUMNS, "rows": rows, "datasets": datasets, "families": families, "pages": pages}
    return {**found, "colours": style.FAMILIES}
