"""Every figure of a study, as files."""

from collections.abc import Callable, Sequence
from functools import partial

from radprobe.report import adaptation, canvas, features_chart, few_shot_chart, figures, frontier, ranks, scores_chart
from radprobe.report.collect import Findings
from radprobe.report.few_shot import Curves
from radprobe.report.figures import Figure
from radprobe.report.ranking import Column, headline


def draw(findings: Findings, columns: Sequence[Column], curves: dict[str, Curves]) -> dict[Figure, dict[str, bytes]]:
    """Return every figure of the study in every format; what has no score yet is a line that says so."""
    by_dataset = {name: [each for each in columns if each.dataset == name] for name in findings.datasets}
    heads = {name: headline(each) for name, each in by_dataset.items()}
    known = {name: head for name, head in heads.items() if head}
    draws: dict[str, Callable] = {
        "scores": lambda name: scores_chart.draw(findings, name, by_dataset[name]),
        "few_shot": lambda name: few_shot_chart.draw(findings, name, curves.get(name)),
        "adaptation": lambda name: adaptation.draw(findings, name, heads[name]),
        "frontier": lambda name: frontier.draw(findings, name),
        "features": lambda name: features_chart.draw(findings, name, heads[name]),
        "ranks": lambda _: ranks.draw(findings, ranks.across(findings, known)),
        "ranks_trained": lambda _: ranks.draw(findings, ranks.across(findings, known, trained=True)),
    }
    wanted = figures.of(findings.study)
    return {each: canvas.render(partial(draws[each.kind], each.dataset)) for each in wanted}
