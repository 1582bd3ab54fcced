"""The few-shot chart of a dataset: a line for each backbone, a band over the draws, a label at the end of each line."""

import math
import textwrap
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.typing import LineStyleType

from radprobe.report import canvas, few_shot, style, words
from radprobe.report.collect import Findings
from radprobe.report.few_shot import ALL, Curves
from radprobe.report.ranking import Estimate

GAP = 1.3  # from the most shots to "all", which is not to scale, in doublings


def draw(findings: Findings, dataset: str, found: Curves | None) -> Figure:
    """Return the few-shot chart of a dataset: shots on a log2 axis, macro score on y, controls dashed."""
    title = findings.datasets[dataset].title
    if found is None:
        return canvas.empty(f"{title}: no few-shot draws yet")
    labels = {name: textwrap.fill(findings.title(name), 30) for name in found.means}
    figure, axes = canvas.sheet()
    for name in found.means:
        _draw_backbone(axes, found, name, *_look(findings, found, name))
    _dress(axes, found)
    body = max(2.6, 1.1 * canvas.height_of(labels))
    canvas.finish(figure, body, title, _title(findings, found), _legend(findings, found))
    ends = {name: end for name in labels if (end := _end(found, name))}
    canvas.label(axes, ends, labels, {name: _look(findings, found, name)[0] for name in labels})
    return figure


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
    shape: dict[str, Any] = {"color": colour, "linewidth": 1.2 if control else 1.8}
    shape["linestyle"] = "--" if control else "-"
    axes.plot(x[numbered], means[numbered], **shape)
    axes.plot(x[~numbered | _last(numbered)], means[~numbered | _last(numbered)], **{**shape, "linestyle": ":"})
    size = 3 if control else 5
    axes.plot(x, means, marker, color=colour, markersize=size)
    alpha = min(0.15, 1 / len(found.means)) * (0.5 if control else 1)  # many bands lie on each other
    axes.fill_between(x, low, high, where=~np.isnan(low), color=colour, alpha=alpha, linewidth=0.8)
    x, single, *_ = _points(found, found.single[name])
    axes.plot(x, single, marker, color=colour, markerfacecolor="none", markersize=size)


def _last(numbered: np.ndarray) -> np.ndarray:
    """Return where the last number of shots is: from there a dotted line leads to "all"."""
    last: np.ndarray = (np.arange(len(numbered)) == numbered.sum() - 1) & numbered
    return last


def _points(found: Curves, by: dict[int, Estimate]) -> tuple[np.ndarray, ...]:
    """Return places on x, and values with their bounds."""
    rows = [(_place(found, shots), each.value, each.low, each.high) for shots, each in by.items()]
    return tuple(np.array(rows, float).reshape(-1, 4).T)


def _place(found: Curves, shots: int) -> float:
    numbers = [math.log2(each) for each in found.shots if each != ALL]
    return math.log2(shots) if shots != ALL else max(numbers, default=0) + GAP


def _dress(axes: Axes, found: Curves) -> None:
    axes.set_xticks([_place(found, each) for each in found.shots], [few_shot.text(each) for each in found.shots])
    axes.grid(axis="y")
    axes.set_xlabel('training patients, of each class where labels allow\n(log scale, "all" apart)')
    axes.set_ylabel(f"{words.METRICS[found.metric]}, macro, test")


def _legend(findings: Findings, found: Curves) -> list[Artist]:
    families = dict.fromkeys(findings.family(name) for name in found.means)
    dashes: dict[str, LineStyleType] = {"control": "--"}
    handles: list[Artist] = [
        Line2D([], [], color=style.FAMILIES[name], linestyle=dashes.get(name, "-"), linewidth=2, label=name)
        for name in families
    ]
    if found.n_draws > 1:
        handles.append(Patch(color=style.INK, alpha=0.2, label=f"range of {found.n_draws} draws"))
    if found.has_single:
        hollow: dict[str, Any] = {"linestyle": "none", "color": style.INK, "markerfacecolor": "none"}
        handles.append(Line2D([], [], marker=style.MARKERS[0], label="the study's single draw", **hollow))
    return handles


def _end(found: Curves, name: str) -> tuple[float, float] | None:
    known = [(shots, each) for shots, each in found.means[name].items() if each.defined]
    return (_place(found, known[-1][0]), known[-1][1].value) if known else None
