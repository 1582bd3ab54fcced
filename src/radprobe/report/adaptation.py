"""Frozen, or trained in which way: one table for each dataset, and a chart of the score by the share that was trained.

The reference of a gain is the head alone, trained in the same loop: the frozen row has another recipe for its head, so
a difference from it would mix two causes.
"""

import itertools
import math
import textwrap
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType

from radprobe.names import ADAPTED, HEAD, MODES, TITLES, frozen, mode_of
from radprobe.report import canvas, style, words
from radprobe.report.collect import Findings
from radprobe.report.ranking import Column, Estimate

DASHES: tuple[LineStyleType, ...] = ("-", "--", ":", "-.")
MARKERS = dict(zip(("frozen", *MODES), style.MARKERS, strict=False))


@dataclass(frozen=True)
class AdaptedRow:
    """A backbone in one state: frozen under the protocol of the column, or trained. Unknown numbers are NaN."""

    backbone: str
    base: str
    how: str
    score: Estimate
    gain: Estimate | None  # of training the backbone: paired difference from the head alone
    parameters: float
    share: float  # of the parameters of backbone and head
    epoch: float
    seconds: float
    peak_gb: float

    @property
    def mode(self) -> str:
        """How it was trained, or `frozen`."""
        return mode_of(self.backbone) or "frozen"

    @property
    def cells(self) -> list[str]:
        """Parameters, share, epoch, time and memory as they stand in the table."""
        percent = f"{100 * self.share:.3g} %"
        texts = [words.millions(self.parameters), percent, f"{self.epoch:.0f}", words.duration(self.seconds)]
        numbers = [self.parameters, self.share, self.epoch, self.seconds, self.peak_gb]
        texts.append(f"{self.peak_gb:.2f} GB")
        return ["–" if math.isnan(number) else text for number, text in zip(numbers, texts, strict=True)]


def rows(findings: Findings, column: Column) -> list[AdaptedRow]:
    """Return every backbone that was trained, after itself frozen; none where nothing was trained yet."""
    trained = [name for name in findings.study.backbones if mode_of(name) and name in column.scores]
    names = dict.fromkeys(each for name in trained for each in (frozen(name), *_modes(name, trained)))
    return [_row(findings, column, name) for name in names if name in column.scores]


def _modes(backbone: str, trained: list[str]) -> list[str]:
    return [name for name in trained if frozen(name) == frozen(backbone)]


def _row(findings: Findings, column: Column, backbone: str) -> AdaptedRow:
    table, base = findings.scores, frozen(backbone)
    chosen = (table["dataset"] == column.dataset) & (table["backbone"] == backbone) & (table["part"] == "test")
    chosen &= (table["protocol"] == column.protocol_of(backbone)) & (table["metric"] == column.metric)
    found = table[chosen & (table["class"] == "macro")].iloc[0]
    names = ("trained_parameters", "trained_share", "best_epoch", "seconds", "peak_gb")
    numbers = {name: math.nan if pd.isna(found[name]) else float(found[name]) for name in names}
    mode = mode_of(backbone)
    how = TITLES[mode] if mode else f"frozen, {words.label(column.protocol)}"
    gain = column.difference(backbone, base + ADAPTED + HEAD) if mode not in (None, HEAD) else None
    return AdaptedRow(
        backbone=backbone,
        base=base,
        how=how,
        score=column.scores[backbone],
        gain=gain,
        parameters=numbers["trained_parameters"],
        share=numbers["trained_share"],
        epoch=numbers["best_epoch"],
        seconds=numbers["seconds"],
        peak_gb=numbers["peak_gb"],
    )


def draw(findings: Findings, dataset: str, column: Column | None) -> Figure:
    """Return the chart of a dataset: the share of parameters that was trained on a log axis, the score on y."""
    every = rows(findings, column) if column else []
    found = [row for row in every if row.score.defined and row.share > 0]
    title = findings.datasets[dataset].title
    if column is None or not found:
        return canvas.empty(f"{title}: no backbone was trained yet")
    figure, axes = canvas.sheet()
    bases = list(dict.fromkeys(row.base for row in found))
    for place, base in enumerate(bases):
        line = sorted((row for row in found if row.base == base), key=lambda row: row.share)
        colour, apart = style.FAMILIES[findings.family(base)], 1.12 ** (place - (len(bases) - 1) / 2)
        _draw_line(axes, line, colour, DASHES[place % len(DASHES)], apart)
    axes.set_xscale("log")
    axes.grid(axis="y")
    axes.set_xlabel("share of backbone and head that was trained, % (log scale); bars: 95 % intervals")
    axes.set_ylabel(f"{words.METRICS[column.metric]}, macro, test")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    canvas.finish(figure, 3.2, title, finding(found), _legend(findings, found, bases))
    return figure


def _draw_line(axes: Axes, line: list[AdaptedRow], colour: str, dashes: LineStyleType, apart: float) -> None:
    """Draw a backbone's rows, moved by the factor `apart`: several are trained end to end, at 100 %."""
    shares = [100 * row.share * apart for row in line]
    axes.plot(shares, [row.score.value for row in line], linestyle=dashes, color=colour, linewidth=1)
    for share, row in zip(shares, line, strict=True):
        if words.interval(row.score):
            axes.plot([share] * 2, [row.score.low, row.score.high], color=colour, linewidth=1.8)
        axes.plot(share, row.score.value, MARKERS[row.mode], color=colour, markersize=7)


def _legend(findings: Findings, found: list[AdaptedRow], bases: list[str]) -> list[Line2D]:
    kinds = dict.fromkeys((row.mode, row.how) for row in found)
    marks = [Line2D([], [], marker=MARKERS[mode], linestyle="none", color=style.INK, label=how) for mode, how in kinds]
    lines = [
        Line2D([], [], color=style.FAMILIES[findings.family(base)], linestyle=dashes, label=_short(findings, base))
        for base, dashes in zip(bases, itertools.cycle(DASHES), strict=False)
    ]
    return marks + lines


def _short(findings: Findings, base: str) -> str:
    return textwrap.fill(findings.title(base), 28)


def finding(found: list[AdaptedRow]) -> str:
    """Return how many rows with a trained backbone differ from their head-only row, in a line."""
    gains = [row.gain for row in found if row.gain and row.gain.sign is not None]
    if not gains:
        return "Trained backbones have no interval against the head alone"
    above = sum(gain.sign == 1 for gain in gains)
    below = sum(gain.sign == -1 for gain in gains)
    said = [f"significantly higher than the head alone in {above} of {len(gains)} rows"] if above else []
    said += [f"significantly lower in {below} of {len(gains)}"] if below else []
    return "Training the backbone: " + (", ".join(said) or "no significant difference from the head alone in any row")
