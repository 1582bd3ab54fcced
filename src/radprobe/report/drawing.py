"""Every figure of a study, as files."""

from collections.abc import Callable, Sequence
from functools import partial

from matplotlib.figure import Figure as Drawing

from radprobe.report import adaptation, canvas, features_chart, few_shot_chart, figures, frontier, ranks, scores_chart
from radprobe.report.collect import Findings
from radprobe.report.few_shot import Curves
from radprobe.report.figures import Figure
from radprobe.report.look import PatchFeatures
from radprobe.report.ranking import Column, headlines


def draw(
    findings: Findings, columns: Sequence[Column], curves: dict[str, Curves], features: dict[str, PatchFeatures]
) -> dict[Figure, dict[str, bytes]]:
    """Return every figure of the study in every format; what has no score yet is a line that says so.

    curves and features are those of each dataset that has such a figure; a dataset without draws has no curves.
    """
    heads = headlines(columns)
    draws: dict[str, Callable[[str], Drawing]] = {
        "scores": lambda name: scores_chart.draw(findings, name, [each for each in columns if each.dataset == name]),
        "few_shot": lambda name: few_shot_chart.draw(findings, name, curves.get(name)),
        "adaptation": lambda name: adaptation.draw(findings, name, heads.get(name)),
        "frontier": lambda name: frontier.draw(findings, name),
        "features": lambda name: features_chart.draw(findings, name, features[name]),
        "ranks": lambda _: ranks.draw(findings, ranks.across(findings, heads)),
        "ranks_trained": lambda _: ranks.draw(findings, ranks.across(findings, heads, trained=True)),
    }
    wanted = figures.of(findings.study)
    return {each: canvas.render(partial(draws[each.kind], each.dataset or "")) for each in wanted}
