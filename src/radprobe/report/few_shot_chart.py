"""The few-shot chart of a dataset: a line for each backbone, a band over the draws, a label at the end of each line."""

import math
import textwrap

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.optimize import isotonic_regression

from radprobe.report import few_shot, figures, style, words
from radprobe.report.collect import Findings
from radprobe.report.few_shot import ALL, Curves
from radprobe.report.ranking import Estimate

GAP = 1.3  # from the most shots to "all", which is not to scale, in doublings
LABEL, POINT = 9, 1 / 72  # font size of the labels at the lines' ends, in points; inches of a point
LINE = 1.3 * LABEL * POINT  # inches that a line of a label takes


def draw(findings: Findings, dataset: str, found: Curves | None) -> str:
    """Return the few-shot chart of a dataset as SVG: shots on a log2 axis, macro score on y, controls dashed."""
    entry = findings.datasets[dataset]
    with matplotlib.rc_context(style.RC):
        if found is None:
            return figures.empty(f"{entry.title}: no few-shot draws yet")
        labels = {name: textwrap.fill(findings.title(name), 30) for name in found.means}
        lines = sum(label.count("\n") + 1 for label in labels.values())
        figure = Figure(figsize=(7.2, 2.2 + max(2.6, 1.1 * LINE * lines)), layout="constrained")
        axes = figure.subplots()
        for name in found.means:
            _draw_backbone(axes, found, name, *_look(findings, found, name))
        _dress(axes, found)
        title = textwrap.fill(_title(findings, found), 84)
        figure.suptitle(f"{entry.title}\n{title}", x=0.01, ha="left", fontsize=11)
        figure.legend(handles=_legend(findings, found), loc="outside lower left", ncols=3, frameon=False, fontsize=9)
        figure.draw_without_rendering()  # the height of the axes is known from here on
        ends = {name: end for name in labels if (end := _end(found, name))}
        label(axes, ends, labels, {name: _look(findings, found, name)[0] for name in labels})
        return figures.svg(figure)


def _title(findings: Findings, found: Curves) -> str:
    leading = few_shot.leader(found)
    if leading is None:
        return f"Few-shot: {words.METRICS[found.metric]} by the number of training patients"
    name, always = leading
    if always:
        return f"{findings.title(name)} scores highest in every draw, however many patients"
    return f"{findings.title(name)} has the highest mean at every number of patients, but not in every draw"


def _look(findings: Findings, found: Curves, name: str) -> tuple[str, str]:
    """Return colour and marker: of the family, and within it by place."""
    family = findings.family(name)
    place = [other for other in found.means if findings.family(other) == family].index(name)
    return style.FAMILIES[family], style.MARKERS[place % len(style.MARKERS)]


def _draw_backbone(axes: Axes, found: Curves, name: str, colour: str, marker: str) -> None:
    control = name in found.controls
    x, means, low, high = _points(found, found.means[name])
    numbered = np.array([each != ALL for each in found.means[name]], bool)
    shape = {"color": colour, "linestyle": "--" if control else "-", "linewidth": 1.2 if control else 1.8}
    axes.plot(x[numbered], means[numbered], **shape)
    axes.plot(x[~numbered | _last(numbered)], means[~numbered | _last(numbered)], **{**shape, "linestyle": ":"})
    size = 3 if control else 5
    axes.plot(x, means, marker, color=colour, markersize=size)
    alpha = min(0.15, 1 / len(found.means)) * (0.5 if control else 1)  # many bands lie on each other
    band = {"color": colour, "alpha": alpha, "linewidth": 0.8}
    axes.fill_between(x, low, high, where=~np.isnan(low), **band)
    x, single, *_ = _points(found, found.single[name])
    axes.plot(x, single, marker, color=colour, markerfacecolor="none", markersize=size)


def _last(numbered: np.ndarray) -> np.ndarray:
    """Return where the last number of shots is: from there a dotted line leads to "all"."""
    return (np.arange(len(numbered)) == numbered.sum() - 1) & numbered


def _points(found: Curves, by: dict[int, Estimate]) -> tuple[np.ndarray, ...]:
    """Return places on x, and values with their bounds."""
    rows = [(_place(found, shots), each.value, each.low, each.high) for shots, each in by.items()]
    return tuple(np.array(rows, float).reshape(-1, 4).T)


def _place(found: Curves, shots: int) -> float:
    numbers = [math.log2(each) for each in found.shots if each != ALL]
    return math.log2(shots) if shots != ALL else max(numbers, default=0) + GAP


def _dress(axes: Axes, found: Curves) -> None:
    axes.set_xticks([_place(found, each) for each in found.shots], [few_shot.text(each) for each in found.shots])
    axes.set_axisbelow(True)
    axes.grid(axis="y", color="#888888", alpha=0.3, linewidth=0.6)
    axes.set_xlabel('training patients, of each class where labels allow\n(log scale, "all" apart)')
    axes.set_ylabel(f"{words.METRICS[found.metric]}, macro, test")


def _legend(findings: Findings, found: Curves) -> list:
    families = dict.fromkeys(findings.family(name) for name in found.means)
    dashes = {"control": "--"}
    handles: list = [
        Line2D([], [], color=style.FAMILIES[name], linestyle=dashes.get(name, "-"), linewidth=2, label=name)
        for name in families
    ]
    if found.n_draws > 1:
        handles.append(Patch(color=style.INK, alpha=0.2, label=f"95 % of {found.n_draws} draws"))
    if found.has_single:
        hollow = {"linestyle": "none", "color": style.INK, "markerfacecolor": "none"}
        handles.append(Line2D([], [], marker=style.MARKERS[0], label="the study's single draw", **hollow))
    return handles


def label(axes: Axes, ends: dict[str, tuple[float, float]], labels: dict[str, str], colours: dict[str, str]) -> None:
    """Write a label right of the axes for each of `ends` (x, y), moved up or down until none lies on another.

    A line leads from each end to its label. The height of the axes has to be known: draw the figure first.
    """
    height = axes.get_window_extent().height / axes.figure.dpi
    (low, high), order = axes.get_ylim(), sorted(ends, key=lambda name: ends[name][1])
    wanted = np.array([(ends[name][1] - low) / (high - low) for name in order])
    heights = np.array([(labels[name].count("\n") + 1.15) * LINE / height for name in order])
    for name, at in zip(order, apart(wanted, heights), strict=True):
        stroke = {"arrowstyle": "-", "color": colours[name], "linewidth": 0.8, "relpos": (0, 0.5), "shrinkB": 3}
        axes.annotate(
            labels[name], ends[name], xytext=(1.06, at), textcoords="axes fraction", va="center", fontsize=LABEL,
            arrowprops=stroke, annotation_clip=False,
        )  # fmt: skip


def _end(found: Curves, name: str) -> tuple[float, float] | None:
    known = [(shots, each) for shots, each in found.means[name].items() if each.defined]
    return (_place(found, known[-1][0]), known[-1][1].value) if known else None


def apart(wanted: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Return centres of labels, none on another: of all such ascending ones, those nearest to the ascending `wanted`.

    They lie between 0 and 1 where their heights allow it.
    """
    offsets = np.cumsum(heights) - heights / 2  # where the centres were if the labels stood close, from 0 up
    room = max(1 - heights.sum(), 0)
    return np.clip(isotonic_regression(wanted - offsets).x, 0, room) + offsets
