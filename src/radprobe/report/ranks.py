"""Backbones across the tasks of a study: ranks with their critical difference, and a score on a common scale."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from radprobe.catalog import PAPER
from radprobe.metrics import ranks
from radprobe.names import HEAD, PIXELS, RANDOM, STANDING, mode_of
from radprobe.report import canvas, style, words
from radprobe.report.collect import Findings
from radprobe.report.ranking import Column, Estimate

TITLES = {False: "Ranks across tasks: frozen", True: "Ranks across tasks: trained"}
ROW = 0.42  # inches


@dataclass(frozen=True)
class Across:
    """What the tasks of a study say together, of frozen backbones or of what was trained as a whole.

    A task is a dataset under the protocol that its verdict speaks of.
    """

    trained: bool = False
    tasks: dict[str, Column] = field(default_factory=dict)  # by dataset: those with enough backbones
    ranking: ranks.Ranking | None = None
    why: str = ""  # why there is no ranking
    scaled: dict[str, dict[str, float]] = field(default_factory=dict)  # by dataset that has a scale, and backbone
    means: dict[str, Estimate] = field(default_factory=dict)  # over those datasets
    left_out: list[str] = field(default_factory=list)  # datasets and backbones, with their reasons


def across(findings: Findings, heads: dict[str, Column], trained: bool = False) -> Across:
    """Return what the columns of the verdicts, by dataset, say together of frozen backbones, or of `trained` ones."""
    every = {name: _scores(column, trained) for name, column in heads.items()}
    few = {name: len(scores) for name, scores in every.items() if len(scores) < ranks.FEWEST_BACKBONES}
    scores = {name: each for name, each in every.items() if name not in few}
    tasks = {name: heads[name] for name in scores}
    gone = [
        f"{findings.datasets[name].title}: backbones scored on it, controls apart: {n}; ranks need "
        f"{ranks.FEWEST_BACKBONES} or more"
        for name, n in few.items()
    ]
    if not trained:
        others = dict.fromkeys(name for column in heads.values() for name in _scores(column, trained=True))
        gone += [f"{findings.title(name)}: trained as a whole, so not ranked with frozen backbones" for name in others]
    if why := ranks.lacking(scores):
        return Across(trained, tasks, why=why, left_out=gone)
    ranking = ranks.rank(scores)
    scales = {name: _scale(column, scores[name]) for name, column in tasks.items()}
    scaled = {
        name: {backbone: ranks.scaled(scores[name][backbone], *scale) for backbone in ranking.backbones}
        for name, scale in scales.items()
        if isinstance(scale, tuple)
    }
    gone += [
        f"{findings.datasets[name].title}: no scale, {why}" for name, why in scales.items() if isinstance(why, str)
    ]
    gone += _incomplete(findings, scores, ranking)
    means = {backbone: _mean(scaled, backbone) for backbone in ranking.backbones}
    return Across(trained, tasks, ranking, "", scaled, means, gone)


def _scores(column: Column, trained: bool) -> dict[str, float]:
    """Return the defined scores of a task: no controls, and of each backbone our reading of its features only."""
    never = column.controls | column.external  # a row from elsewhere belongs to one dataset
    names = [name for name in column.scores if name not in never and not name.endswith(PAPER)]
    names = [name for name in names if mode_of(name) != HEAD]  # the reference of trained rows, and not one of them
    names = [name for name in names if (column.protocol_of(name) in STANDING) == trained]
    return {name: column.scores[name].value for name in names if column.scores[name].defined}


def _scale(column: Column, scores: dict[str, float]) -> tuple[float, float] | str:
    """Return the scores that are 0 and 1 on the scale of a task, or why it has no scale."""
    best = max(scores, key=scores.__getitem__)
    controls = [name for name in column.order if name.startswith(RANDOM) or name == PIXELS]
    if not controls:
        return "neither a random init nor raw pixels were scored"
    found = column.difference(best, controls[0])
    ends = column.scores[controls[0]].value, scores[best]
    if ends[0] >= ends[1] or found is None or found.sign != 1:
        return "its best backbone is not significantly higher than its best control"
    return ends


def _incomplete(findings: Findings, scores: ranks.Scores, ranking: ranks.Ranking) -> list[str]:
    names = dict.fromkeys(name for each in scores.values() for name in each if name not in ranking.backbones)
    return [
        f"{findings.title(name)}: scored on {sum(name in each for each in scores.values())} of {len(scores)} tasks"
        for name in names
    ]


def _mean(scaled: dict[str, dict[str, float]], backbone: str) -> Estimate:
    value, low, high, note = ranks.mean_over_tasks([by[backbone] for by in scaled.values()])
    return Estimate(value, low, high, note=note)


def finding(found: Across, name: words.Name) -> str:
    """Return what the ranks say in a line, never more than their test supports."""
    ranking, kind = found.ranking, "trained" if found.trained else "frozen"
    if ranking is None:
        return f"No ranks of {kind} backbones across tasks: {found.why}"
    n = f"{len(ranking.backbones)} {kind} backbones over {len(ranking.tasks)} tasks"
    if not ranking.can_resolve:
        return f"{n}: too few tasks for any two to differ significantly, even if all had the same order"
    if not ranking.is_resolved:
        return f"{n}: no significant order (Friedman test, p = {p_value(ranking.p)})"
    best, *others = ranking.mean.items()
    near = sum(mean < best[1] + ranking.critical_difference for _, mean in others)
    apart = f"not critically apart from {near} of {len(others)} others" if near else "critically apart from all others"
    return f"{n}: {name(best[0])} has the best mean rank, {apart}"


def p_value(p: float) -> str:
    """Return a p-value to two digits."""
    return f"{p:.2g}" if p >= 1e-4 else "under 0.0001"


def rank_text(rank: float) -> str:
    """Return a rank, halves where it is tied."""
    return f"{rank:.2f}".rstrip("0").rstrip(".")


def rank_range(column: Column, backbone: str, ranked: Sequence[str]) -> str:
    """Return which ranks among `ranked` the simultaneous intervals of a task allow, "" where nothing was compared."""
    contrasts = [column.difference(backbone, other) for other in ranked if other != backbone]
    signs = [each.sign for each in contrasts if each and each.sign is not None]
    if len(signs) < len(ranked) - 1:
        return ""
    first, last = 1 + signs.count(-1), len(ranked) - signs.count(1)
    return str(first) if first == last else f"{first}–{last}"


@dataclass(frozen=True)
class TaskRank:
    """The rank of a backbone on one task, the ranks that intervals allow, its score, and that on the common scale."""

    rank: str
    range: str
    score: Estimate
    scaled: float  # NaN where the task has no scale


@dataclass(frozen=True)
class RankedRow:
    """A line of the table of ranks: a backbone, its mean rank, its mean score on the common scale, and each task."""

    backbone: str
    mean: str
    score: Estimate
    tasks: list[TaskRank]


def rows(found: Across) -> list[RankedRow]:
    """Return a line of the table for each backbone, best mean rank first; none without a ranking."""
    ranking = found.ranking
    if ranking is None:
        return []
    places = {name: at for at, name in enumerate(ranking.backbones)}

    def of_task(name: str, at: int, task: str) -> TaskRank:
        return TaskRank(
            rank=rank_text(ranking.ranks[at, places[name]]),
            range=rank_range(found.tasks[task], name, ranking.backbones),
            score=found.tasks[task].scores[name],
            scaled=found.scaled.get(task, {}).get(name, math.nan),
        )

    return [
        RankedRow(
            backbone=name,
            mean=f"{mean:.2f}",
            score=found.means[name],
            tasks=[of_task(name, at, task) for at, task in enumerate(ranking.tasks)],
        )
        for name, mean in ranking.mean.items()
    ]


def draw(findings: Findings, found: Across) -> Figure:
    """Return the critical-difference figure: a row for each backbone, mean ranks on x, groups as bars beside."""
    said = finding(found, findings.title)
    if found.ranking is None:
        return canvas.empty(f"{said}.")
    names = list(found.ranking.mean)
    figure, axes = canvas.sheet()
    for place, name in enumerate(names):
        _draw_row(axes, found.ranking, place, name, style.FAMILIES[findings.family(name)])
    _draw_groups(axes, found.ranking, names)
    row = max(ROW, canvas.rows(axes, [findings.title(name) for name in names]))
    axes.set_xlim(0.7, len(names) + 0.3)
    locator = axes.xaxis.get_major_locator()
    if isinstance(locator, MaxNLocator):
        locator.set_params(integer=True)
    axes.grid(axis="x")
    axes.set_xlabel(f"mean rank over {len(found.tasks)} tasks (1: highest score)")
    canvas.finish(figure, row * len(names), TITLES[found.trained], said, _legend(findings, found.ranking), ncols=2)
    return figure


def _draw_row(axes: Axes, ranking: ranks.Ranking, place: int, name: str, colour: str) -> None:
    of_tasks = ranking.ranks[:, ranking.backbones.index(name)]
    axes.plot(of_tasks, [place] * len(of_tasks), "|", color=colour, markersize=10, alpha=0.7)
    axes.plot(ranking.mean[name], place, "o", color=colour, markersize=7)


def _draw_groups(axes: Axes, ranking: ranks.Ranking, names: list[str]) -> None:
    """Shade what is not critically apart from the best, and join every group by a bar beside the rows."""
    best = ranking.mean[names[0]]
    axes.axvspan(best, best + ranking.critical_difference, color=style.INK, alpha=0.1, linewidth=0)
    beside: dict[str, Any] = {
        "transform": axes.get_yaxis_transform(),
        "clip_on": False,
        "color": style.INK,
        "linewidth": 3,
    }
    for at, group in enumerate(ranking.groups):
        ends = names.index(group[0]) - 0.25, names.index(group[-1]) + 0.25
        axes.plot([1.02 + 0.025 * at] * 2, ends, solid_capstyle="butt", **beside)


def _legend(findings: Findings, ranking: ranks.Ranking) -> list[Artist]:
    mark: dict[str, Any] = {"linestyle": "none", "color": style.INK}
    here = {findings.family(name) for name in ranking.mean}
    families = {name: colour for name, colour in style.FAMILIES.items() if name in here}
    critical = ranking.critical_difference
    return [
        *(Line2D([], [], color=colour, linewidth=3, label=name) for name, colour in families.items()),
        Line2D([], [], marker="o", label="mean rank", **mark),
        Line2D([], [], marker="|", markersize=10, label="rank on one task", **mark),
        Patch(color=style.INK, alpha=0.1, label=f"critical difference ({critical:.2f}) from the best"),
        Line2D([], [], color=style.INK, linewidth=3, label="joined: not critically apart"),
    ]
