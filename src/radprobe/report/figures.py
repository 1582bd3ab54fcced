"""One figure per dataset: every backbone's score with its interval, a marker for each protocol of ours."""

import io
import itertools
import textwrap
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from radprobe import files
from radprobe.catalog import PAPER
from radprobe.report import style, words
from radprobe.report.collect import Findings
from radprobe.report.ranking import Column, headline

METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}  # the same scores give the same bytes
WHOLE = "*"  # the marker of what is trained as a whole, by whatever protocol
STEP = 0.2  # between protocols of one backbone, in rows


def draw(findings: Findings, dataset: str, columns: list[Column]) -> str:
    """Return the figure of a dataset as SVG: backbones on y grouped by family, controls last, scores on x."""
    entry = findings.datasets[dataset]
    with matplotlib.rc_context(style.RC):
        main = headline(columns)
        if main is None:
            return empty(f"{entry.title}: no scores yet")
        columns = [column for column in columns if not column.is_floor and not column.protocol.endswith(PAPER)]
        rows = _rows(findings, columns)
        labels = [textwrap.fill(findings.title(name), 26) for name in rows]
        lines = max(label.count("\n") + 1 for label in labels)
        height = max(0.2 * len(columns), 0.2 * lines, 0.4)  # inches of a row
        figure = Figure(figsize=(7.2, 1.5 + height * len(rows)), layout="constrained")
        axes = figure.subplots()
        for index, column in enumerate(columns):
            shift, marker = (index - (len(columns) - 1) / 2) * STEP, style.MARKERS[index % len(style.MARKERS)]
            _draw_column(axes, findings, column, _of_protocol(column, rows), shift, marker)
        whole = _trained_as_a_whole(columns[0], rows)
        _draw_column(axes, findings, columns[0], whole, 0, WHOLE)
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_axisbelow(True)
        axes.grid(axis="x", color="#888888", alpha=0.3, linewidth=0.6)
        patients = max(score.patients for score in main.scores.values())
        axes.set_xlabel(f"{words.METRICS[main.metric]}, macro, {patients} test patients; bars: 95 % intervals")
        figure.suptitle(
            f"{entry.title}\n{textwrap.fill(words.finding(main, findings.title), 90)}",
            x=0.01,
            ha="left",
            fontsize=11,
        )
        figure.legend(handles=_legend(findings, columns, rows), loc="outside lower left", ncols=3, frameon=False)
        return svg(figure)


def _rows(findings: Findings, columns: list[Column]) -> list[str]:
    here = {name for column in columns for name in column.scores}
    families = list(style.FAMILIES)
    return sorted(
        (name for name in findings.study.backbones if name in here),
        key=lambda name: families.index(findings.family(name)),
    )


def _of_protocol(column: Column, rows: list[str]) -> dict[str, int]:
    """Return the places of the backbones that were scored under the protocol of a column itself."""
    return {name: place for place, name in enumerate(rows) if column.protocol_of(name) == column.protocol}


def _trained_as_a_whole(column: Column, rows: list[str]) -> dict[str, int]:
    """Return the places of those that stand beside every protocol: they are drawn once."""
    return {name: place for place, name in enumerate(rows) if column.protocol_of(name) != column.protocol}


def _draw_column(axes, findings: Findings, column: Column, rows: dict[str, int], shift: float, marker: str) -> None:
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
    lines = [Line2D([], [], color=style.FAMILIES[name], linewidth=3, label=family(name)) for name in families]
    marks = zip(columns, itertools.cycle(style.MARKERS), strict=False)
    kind = {"linestyle": "none", "color": style.INK}
    lines += [Line2D([], [], marker=mark, label=words.label(column.protocol), **kind) for column, mark in marks]
    if _trained_as_a_whole(columns[0], rows):
        lines.append(Line2D([], [], marker=WHOLE, label="trained as a whole", **kind))
    return lines


def family(name: str) -> str:
    """Return a family as a legend names it."""
    return "control (hollow)" if name == "control" else name


def empty(text: str) -> str:
    """Return a line of text in the place of a figure."""
    figure = Figure(figsize=(7.2, 1.2))
    figure.text(0.02, 0.5, text)
    return svg(figure)


def svg(figure: Figure) -> str:
    """Return a figure as SVG; the same figure gives the same bytes."""
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata=METADATA)
    return buffer.getvalue()


def save(path: Path, svg: str) -> None:
    """Write a figure as its own file, on white paper."""
    files.write_text(path, svg)


def inline(svg: str) -> str:
    """Return a figure to stand inside a page: the page's ink and paper, and no XML heading."""
    body = svg[svg.index("<svg") :]
    return body.replace(style.INK, "currentColor").replace(f"fill: {style.PAPER}", "fill: none")
