"""The map of backbones and datasets, the forest of paired differences, and the table of everything, as plain data."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from radprobe.catalog import PRIMARY_METRIC
from radprobe.names import CEILING, METADATA
from radprobe.report import style, verdict, words
from radprobe.report.cells import places
from radprobe.report.collect import Findings
from radprobe.report.ranking import FLOOR, Column, Contrast, Estimate, controls_of

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


def anchor(dataset: str, backbone: str) -> str:
    """Return the id of a cell's details in the page."""
    return f"cell-{dataset}-{backbone}".replace(":", "-").replace("+", "-")


# The first view of the map: each dataset under the protocol that its verdict speaks of.
MAIN = "protocol of the verdict"


def maps(findings: Findings, columns: list[Column], heads: dict[str, Column]) -> dict[str, dict]:
    """Return the views of the map by label: the main one, one for every other protocol, the floor last."""
    if not columns:
        return {}
    others = dict.fromkeys(column.protocol for column in columns if column not in heads.values())
    views = {name: {each.dataset: each for each in columns if each.protocol == name} for name in others}
    ordered = sorted(views, key=lambda name: name == FLOOR)
    return {MAIN: _map(findings, heads)} | {words.label(name): _map(findings, views[name]) for name in ordered}


def _map(findings: Findings, here: dict[str, Column]) -> dict:
    """Return the map of one column a dataset: datasets by modality, backbones by family, controls last."""
    states = {(cell.dataset, cell.backbone): cell for cell in findings.cells}
    datasets = sorted(
        (name for name, entry in findings.datasets.items() if entry.task != "look"),
        key=lambda name: findings.datasets[name].modality,
    )

    def row(backbone: str) -> list[Tile]:
        return [_tile(findings, here.get(name), states.get((name, backbone)), name, backbone) for name in datasets]

    families: dict[str, list] = {family: [] for family in style.FAMILIES}
    for backbone in findings.study.rows:
        families[findings.family(backbone)].append((backbone, row(backbone)))
    heads = {name: _heading(findings, name, here.get(name)) for name in datasets}
    return {
        "heads": heads,
        "families": {name: rows for name, rows in families.items() if rows},
        "protocols": sorted({column.protocol for column in here.values()}),
        "is_floor": any(column.is_floor for column in here.values()),
    }


def _heading(findings: Findings, dataset: str, column: Column | None) -> str:
    entry = findings.datasets[dataset]
    if column is None:
        return entry.modality
    return f"{entry.modality}, {words.METRICS[column.metric]}, {words.protocol(column.protocol)}"


def _tile(findings: Findings, column: Column | None, cell, dataset: str, backbone: str) -> Tile:
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


def forest(findings: Findings, column: Column, most: int | None = None) -> dict | None:
    """Return the differences of the best backbone from every other, with places in percent of an axis that holds 0.

    most: only so many of them: the best candidates and the controls of the best.
    """
    others = [other for other in column.order if other != column.best]
    if most is not None:
        first = [other for other in others if other in controls_of(column.best)]
        rivals = [other for other in column.candidates if other != column.best and other not in first]
        others = [*rivals[: most - len(first)], *first]
    rows = [(other, found) for other in others if (found := column.difference(column.best, other)) and found.defined]
    if not rows:
        return None
    ends = [0.0, *(end for _, found in rows for end in (found.low, found.value, found.high) if not math.isnan(end))]
    low, high = min(ends), max(ends)
    pad = (high - low or 0.01) * 0.06
    low, high = low - pad, high + pad

    def place(value: float) -> float | None:
        return None if math.isnan(value) else round(100 * (value - low) / (high - low), 2)

    lines = [_line(findings, other, found, place) for other, found in rows]
    ticks = [{"at": place(tick), "text": _tick(tick)} for tick in _ticks(low, high)]
    return {"column": column, "zero": place(0.0), "lines": lines, "ticks": ticks}


def _line(findings: Findings, other: str, found: Contrast, place) -> dict:
    verdicts = {1: "significantly higher", -1: "significantly lower", 0: "no significant difference"}
    said = found.note if found.sign is None else f"{verdicts[found.sign]}, {words.p_value(found.p)}"
    at = {name: place(getattr(found, name)) for name in ("low", "value", "high")}
    colour = list(style.FAMILIES).index(findings.family(other))
    return {**at, "other": other, "text": words.text(found), "verdict": said, "colour": colour}


def _ticks(low: float, high: float, about: int = 4) -> list[float]:
    raw = (high - low) / about
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * each for each in (1, 2, 5, 10) if size * each >= raw)
    return [float(tick) for tick in np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step]


def _tick(value: float) -> str:
    return f"{value + 0.0:.4g}" if abs(value) > 1e-9 else "0"


def everything(findings: Findings) -> dict:
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
