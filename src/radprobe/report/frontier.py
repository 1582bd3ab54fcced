"""What a score costs: every backbone under every protocol by its time, and the frontier of those worth their time."""

import math
import textwrap
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from radprobe.artifacts.tables import Record
from radprobe.catalog import PAPER, PRIMARY_METRIC
from radprobe.names import CEILING, EXTERNAL, FLOOR, mode_of
from radprobe.report import canvas, style, words
from radprobe.report.collect import Findings
from radprobe.report.ranking import FEW_SHOT, Estimate, estimate

MINUTE, HOUR = 60, 3600
# Where ticks may stand, in seconds: all of them, or every second or third on a long axis.
FINE: tuple[float, ...] = (
    *(1, 2, 5, 10, 20, 30),
    *(MINUTE * n for n in (1, 2, 5, 10, 20, 30)),
    *(HOUR * n for n in (1, 2, 5, 10, 20, 50)),
)
FINE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, *FINE, *(HOUR * n for n in (100, 200, 500, 1000)))
COARSE = (0.01, 0.1, 1, 10, MINUTE, 10 * MINUTE, HOUR, 10 * HOUR, 100 * HOUR, 1000 * HOUR)
MOST_TICKS = 7
PALE = "99"  # alpha of what leads to a label
OURS = [name for name in words.PROTOCOLS if not name.endswith(PAPER) and name not in (FLOOR, EXTERNAL)]
MARKERS = dict(zip(OURS, (*style.MARKERS, "X", "p", "<", ">", "*"), strict=True))  # the same for a protocol everywhere
ROOM = 1.6  # left and right of the points on the log axis, as a factor


@dataclass(frozen=True)
class Point:
    """A backbone under a protocol: its macro score on test, and what it costs. Unknown numbers are NaN."""

    backbone: str
    protocol: str
    score: Estimate
    seconds: float  # of embedding and fitting
    images_per_second: float  # of embedding
    peak_gb: float
    parameters: float  # that were trained
    share: float  # of all parameters, backbone and head

    @property
    def is_known(self) -> bool:
        """Are score and time known, so that it has a place?"""
        return self.score.defined and self.seconds > 0

    @property
    def key(self) -> str:
        """Backbone and protocol as one name."""
        return f"{self.backbone} {self.protocol}"

    @property
    def cells(self) -> list[str]:
        """Time, images/s, memory, parameters and share as they stand in the table."""
        numbers = [self.seconds, self.images_per_second, self.peak_gb, self.parameters, self.share]
        texts = [words.duration(self.seconds), f"{self.images_per_second:,.1f}", f"{self.peak_gb:.2f}"]
        texts += [words.millions(self.parameters), f"{100 * self.share:.3g} %"]
        return ["–" if math.isnan(number) else text for number, text in zip(numbers, texts, strict=True)]


def points(findings: Findings, dataset: str) -> list[Point]:
    """Return every backbone under every protocol of ours, the cheapest first; floor, ceiling and few-shot apart."""
    table = findings.shown
    rows = table[(table["dataset"] == dataset) & (table["class"] == "macro") & (table["part"] == "test")]
    rows = rows[rows["metric"] == PRIMARY_METRIC.get(findings.datasets[dataset].task)]
    rows = rows[~rows["protocol"].isin((FLOOR, CEILING)) & ~rows["protocol"].str.startswith(FEW_SHOT)]
    rows = rows[~rows["protocol"].str.endswith(PAPER) & ~rows["backbone"].str.endswith(PAPER)]
    found = [_point(findings, row) for row in rows.to_dict("records")]
    return sorted(found, key=lambda point: (math.isnan(point.seconds), point.seconds))


def _point(findings: Findings, row: Record) -> Point:
    rate = findings.facts("embed", row["dataset"], row["backbone"]).get("images_per_second", math.nan)
    names = ("seconds", "peak_gb", "trained_parameters", "trained_share")
    seconds, *rest = [math.nan if pd.isna(row[name]) else float(row[name]) for name in names]
    return Point(row["backbone"], row["protocol"], estimate(row, "value"), seconds, rate, *rest)


def frontier(every: list[Point]) -> list[Point]:
    """Return the points that no other beats in time and score, nor in one of them at the same other; cheapest first."""
    known = [point for point in every if point.is_known]
    best = [point for point in known if not any(_beats(other, point) for other in known)]
    return sorted(best, key=lambda point: point.seconds)


def _beats(other: Point, point: Point) -> bool:
    cheaper, better = point.seconds - other.seconds, other.score.value - point.score.value
    return min(cheaper, better) >= 0 and max(cheaper, better) > 0


def devices(findings: Findings, dataset: str, every: list[Point]) -> list[str]:
    """Return on what the features were computed; of more than one device, times do not compare."""
    found = {findings.facts("embed", dataset, point.backbone).get("device") for point in every}
    return sorted("CPU" if each == "cpu" else each for each in found if each)


def called(findings: Findings, point: Point) -> str:
    """Return a point's backbone and protocol in words; a trained backbone names its protocol itself."""
    title = findings.title(point.backbone)
    return title if mode_of(point.backbone) else f"{title}, {words.label(point.protocol)}"


def finding(findings: Findings, every: list[Point]) -> str:
    """Return the ends of the frontier in a line: points, and no claim that a difference is resolved."""
    best = frontier(every)
    if not best:
        return "No score with a known time yet"
    told = [f"{called(findings, each)} ({words.number(each.score.value)})" for each in (best[0], best[-1])]
    if len(best) == 1:
        return f"{told[0]} is both the cheapest and the highest"
    times = [words.duration(each.seconds) for each in (best[0], best[-1])]
    return f"From {told[0]} in {times[0]} to {told[1]} in {times[1]}"


def draw(findings: Findings, dataset: str) -> Figure:
    """Return the chart of a dataset: time on a log axis, macro score on y, the frontier named."""
    every, entry = points(findings, dataset), findings.datasets[dataset]
    best = frontier(every)
    if not best:
        return canvas.empty(f"{entry.title}: no score with a known time yet")
    known = [point for point in every if point.is_known]
    labels = {point.key: textwrap.fill(called(findings, point), 30) for point in best}
    figure, axes = canvas.sheet()
    for point in known:
        _draw_point(axes, findings, point, point in best)
    _draw_frontier(axes, best, max(point.seconds for point in known))
    _dress(axes, known, f"{words.METRICS[PRIMARY_METRIC[entry.task]]}, macro, test")
    body = max(2.8, 1.1 * canvas.height_of(labels))
    canvas.finish(figure, body, entry.title, finding(findings, every), _legend(findings, known))
    ends = {point.key: (point.seconds, point.score.value) for point in best}
    colours = {point.key: style.FAMILIES[findings.family(point.backbone)] + PALE for point in best}
    canvas.label(axes, ends, labels, colours)
    return figure


def _draw_point(axes: Axes, findings: Findings, point: Point, on_frontier: bool) -> None:
    family = findings.family(point.backbone)
    look: dict[str, Any] = {"color": style.FAMILIES[family]}
    look |= {"alpha": 1, "zorder": 3} if on_frontier else {"alpha": 0.5, "zorder": 2}
    if words.interval(point.score):
        axes.plot([point.seconds] * 2, [point.score.low, point.score.high], linewidth=1, **look)
    filled = "none" if family == "control" else style.FAMILIES[family]
    axes.plot(point.seconds, point.score.value, marker(point.protocol), markersize=6, markerfacecolor=filled, **look)


def marker(protocol: str) -> str:
    """Return the marker of a protocol; one without a marker of its own is a dot."""
    return MARKERS.get(protocol, ".")


def _draw_frontier(axes: Axes, best: list[Point], longest: float) -> None:
    x = [point.seconds for point in best] + [longest * ROOM]
    y = [point.score.value for point in best] + [best[-1].score.value]
    axes.step(x, y, where="post", color=style.INK, linewidth=1.5, zorder=1)


def _dress(axes: Axes, known: list[Point], label: str) -> None:
    low, high = min(point.seconds for point in known) / ROOM, max(point.seconds for point in known) * ROOM
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    at = ticks(low, high)
    axes.set_xticks(at, [clock(each) for each in at])
    axes.minorticks_off()
    axes.grid()
    axes.set_xlabel("time to embed and fit (log scale); bars: 95 % intervals")
    axes.set_ylabel(label)


def ticks(low: float, high: float) -> list[float]:
    """Return where the ticks of an axis of seconds stand."""
    fine, coarse = ([each for each in places if low <= each <= high] for places in (FINE, COARSE))
    return fine if len(fine) <= MOST_TICKS else coarse


def clock(seconds: float) -> str:
    """Return the time of a tick."""
    for unit, size in (("h", HOUR), ("min", MINUTE)):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _legend(findings: Findings, known: list[Point]) -> list[Line2D]:
    here, protocols = {findings.family(point.backbone) for point in known}, {point.protocol for point in known}
    families = {name: colour for name, colour in style.FAMILIES.items() if name in here}
    marks = {name: marker(name) for name in dict.fromkeys((*MARKERS, *sorted(protocols))) if name in protocols}
    lines = [Line2D([], [], color=each, linewidth=3, label=style.family(name)) for name, each in families.items()]
    kind: dict[str, Any] = {"linestyle": "none", "color": style.INK}
    shapes = [Line2D([], [], marker=mark, label=words.label(name), **kind) for name, mark in marks.items()]
    return [*lines, *shapes, Line2D([], [], color=style.INK, linewidth=1.5, label="frontier")]
