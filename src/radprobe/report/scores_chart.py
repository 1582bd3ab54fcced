"""One figure per dataset: every backbone's score with its interval, a marker for each protocol of ours."""

import itertools
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from radprobe.catalog import PAPER
from radprobe.report import canvas, style, verdict, words
from radprobe.report.collect import Findings
from radprobe.report.ranking import Column, headline

WHOLE = "*"  # the marker of what is trained as a whole, by whatever protocol
STEP = 0.2  # between protocols of one backbone, in rows
ROW, ROW_OF_PROTOCOL = 0.34, 0.2  # inches of a row, and at least of each protocol in it


def draw(findings: Findings, dataset: str, columns: list[Column]) -> Figure:
    """Return the figure of a dataset: backbones on y grouped by family, controls last, scores on x."""
    entry, main = findings.datasets[dataset], headline(columns)
    if main is None:
        return canvas.empty(f"{entry.title}: no scores yet")
    columns = [column for column in columns if not column.is_floor and not column.protocol.endswith(PAPER)]
    names = _rows(findings, columns)
    figure, axes = canvas.sheet()
    for index, column in enumerate(columns):
        shift, marker = (index - (len(columns) - 1) / 2) * STEP, style.MARKERS[index % len(style.MARKERS)]
        _draw_column(axes, findings, column, _of_protocol(column, names), shift, marker)
    _draw_column(axes, findings, columns[0], _trained_as_a_whole(columns[0], names), 0, WHOLE)
    row = max(ROW, ROW_OF_PROTOCOL * len(columns), canvas.rows(axes, [findings.title(name) for name in names]))
    axes.grid(axis="x")
    patients = max(score.patients for score in main.scores.values())
    axes.set_xlabel(f"{words.METRICS[main.metric]}, macro, {patients} test patients; bars: 95 % intervals")
    said = verdict.finding(main, findings.title)
    canvas.finish(figure, row * len(names), entry.title, said, _legend(findings, columns, names))
    return figure


def _rows(findings: Findings, columns: list[Column]) -> list[str]:
    here = {name for column in columns for name in column.scores}
    families = list(style.FAMILIES)
    return sorted(
        (name for name in findings.study.rows if name in here),
        key=lambda name: families.index(findings.family(name)),
    )


def _of_protocol(column: Column, rows: list[str]) -> dict[str, int]:
    """Return the places of the backbones that were scored under the protocol of a column itself."""
    return {name: place for place, name in enumerate(rows) if column.protocol_of(name) == column.protocol}


def _trained_as_a_whole(column: Column, rows: list[str]) -> dict[str, int]:
    """Return the places of those that stand beside every protocol: they are drawn once."""
    return {name: place for place, name in enumerate(rows) if column.protocol_of(name) != column.protocol}


def _draw_column(
    axes: Axes, findings: Findings, column: Column, rows: dict[str, int], shift: float, marker: str
) -> None:
    for name, place in rows.items():
        score = column.scores.get(name)
        if score is None or not score.defined:
            continue
        colour = style.FAMILIES[findings.family(name)]
        if words.interval(score):
            axes.plot([score.low, score.high], [place + shift] * 2, color=colour, linewidth=1.8)
        filled = "none" if name in column.controls else colour
        axes.plot(score.value, place + shift, marker, color=colour, markerfacecolor=filled, markersize=6)


def _legend(findings: Findings, columns: list[Column], rows: list[str]) -> list[Line2D]:
    families = dict.fromkeys(findings.family(name) for name in rows)
    lines = [Line2D([], [], color=style.FAMILIES[name], linewidth=3, label=style.family(name)) for name in families]
    marks = zip(columns, itertools.cycle(style.MARKERS), strict=False)
    kind: dict[str, Any] = {"linestyle": "none", "color": style.INK}
    lines += [Line2D([], [], marker=mark, label=words.label(column.protocol), **kind) for column, mark in marks]
    if _trained_as_a_whole(columns[0], rows):
        lines.append(Line2D([], [], marker=WHOLE, label="trained as a whole", **kind))
    return lines
