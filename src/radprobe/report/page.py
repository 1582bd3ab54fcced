"""The page: gathers what the sections say, and renders it as one file that loads nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from radprobe.names import CEILING, SCRATCH, mode_of, original
from radprobe.report import (
    adaptation,
    again,
    audit,
    canvas,
    few_shot,
    frontier,
    ledger,
    look,
    ranks,
    recommendation,
    tables,
    templating,
    trust,
    words,
)
from radprobe.report.collect import Findings
from radprobe.report.few_shot import Curves
from radprobe.report.figures import PICTURED, Figure
from radprobe.report.ranking import Column, headlines
from radprobe.report.verdict import verdict

Figures = dict[Figure, bytes]
IN_CARD = 6  # differences in the forest plot of a card


def render(
    findings: Findings,
    columns: Sequence[Column],
    curves: Sequence[Curves],
    features: dict[str, look.PatchFeatures],
    figures: Figures,
) -> str:
    """Return explorer.html. `figures` are SVGs, `features` are by dataset. Every name and label is escaped."""
    environment = templating.environment(findings)
    environment.globals |= {"few_shot": few_shot, "ranks": ranks, "audit": audit, "anchor": tables.anchor}
    heads = headlines(columns)
    return environment.get_template("page.html").render(
        study=findings.study,
        datasets=findings.datasets,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=again.commit(),
        hardware=again.hardware(findings),
        counts=_counts(findings),
        banners=trust.banners(findings),
        cards=[_card(findings, name, heads.get(name)) for name, e in findings.datasets.items() if e.task != "look"],
        recommendation=recommendation.recommend(heads, findings.title, lambda each: findings.datasets[each].title),
        maps=tables.maps(findings, columns, heads),
        heads=heads,
        forests=[found for column in columns if not column.is_floor and (found := tables.forest(findings, column))],
        rankings=[
            _across(findings, heads, figures, each) for each in (False, True) if _is_trained(findings) or not each
        ],
        adaptations=[_adaptation(findings, each, figures) for each in heads.values() if _is_trained(findings)],
        few_shots=[_few_shot(findings, each, figures) for each in curves],
        frontiers=[_frontier(findings, name, figures) for name in heads],
        galleries=[
            look.gallery(findings, name, heads.get(name), features.get(name))
            for name, entry in findings.datasets.items()
            if entry.task in PICTURED
        ],
        figures={each.dataset: _shown(figures, each) for each in figures if each.kind == "scores"},
        everything=tables.everything(findings),
        trust=trust.datasets(findings),
        missing=findings.study.missing,
        backbones=trust.backbones(findings, heads),
        command=again.command(),
        versions=again.versions(),
        params=again.params_yaml(findings),
        cells=(cells := again.cells(findings)),
        ledger=ledger.groups(ledger.lines(findings, cells)),
        audited=audit.findings_of(findings),
        script=Markup(templating.source("page.js")),
    )


def _shown(figures: Figures, figure: Figure) -> dict[str, Any]:
    """Return what a section needs of a figure: itself, and the name of its files."""
    return {"svg": Markup(canvas.inline(figures[figure])), "file": figure.name}


def _is_trained(findings: Findings) -> bool:
    return any(mode_of(name) for name in findings.study.backbones)


def _across(findings: Findings, heads: dict[str, Column], figures: Figures, trained: bool) -> dict[str, Any]:
    """Return what the section on ranks shows: the finding, the figure, and a line for each backbone."""
    found = ranks.across(findings, heads, trained)
    shown = {"found": found, "finding": ranks.finding(found, findings.title)}
    if found.ranking is None:
        return shown
    means = list(found.means.values())
    return {
        **shown,
        **_shown(figures, Figure("ranks_trained" if trained else "ranks")),
        "rows": ranks.rows(found),
        "note": means[0].note,
        "is_interval": not math.isnan(means[0].low),
    }


def _adaptation(findings: Findings, column: Column, figures: Figures) -> dict[str, Any]:
    """Return what the section on adaptation shows of a dataset: rows, and the chart of what was trained."""
    rows = adaptation.rows(findings, column)
    return {"column": column, "rows": rows, **_shown(figures, Figure("adaptation", column.dataset))}


def _few_shot(findings: Findings, found: Curves, figures: Figures) -> dict[str, Any]:
    """Return what the few-shot section shows of a dataset: the chart, its numbers, and what the draws say."""
    study = findings.study
    # what has no draws, or only where adapt asks
    never = {CEILING, *SCRATCH, *study.external, *filter(mode_of, study.backbones)}
    absent = [name for name in study.rows if study.applies(found.dataset, name)]
    absent = [name for name in absent if name not in found.means and name not in never]
    absent = [
        name for name in absent if original(name) == name or original(name) not in absent
    ]  # its backbone is named
    shown = {"curves": found, **_shown(figures, Figure("few_shot", found.dataset))}
    return {**shown, "absent": absent, "notes": few_shot.notes(found)}


def _frontier(findings: Findings, dataset: str, figures: Figures) -> dict[str, Any]:
    """Return what the section on cost shows of a dataset: the chart, and every way with what it costs."""
    every = frontier.points(findings, dataset)
    shown = {"dataset": dataset, "every": every, "best": frontier.frontier(every)}
    shown |= _shown(figures, Figure("frontier", dataset))
    return {**shown, "devices": frontier.devices(findings, dataset, every)}


def _counts(findings: Findings) -> dict[str, int]:
    """Return how many cells (dataset x backbone) are done, failed and not run; absent data and weights count too."""
    states = [cell.state for cell in findings.cells if cell.backbone]
    study = findings.study
    wanted = sum(study.applies(dataset, name) for dataset in study.params.datasets for name in study.backbones)
    counts = {state: states.count(state) for state in ("done", "failed")}
    return {**counts, "not run": wanted - sum(counts.values())}


@dataclass(frozen=True)
class Card:
    """A verdict: lines, a small forest plot, and what folds: details and notes."""

    dataset: str
    kind: str
    lines: list[str]
    patients: int | None = None
    details: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    forest: tables.Forest | None = None


def _card(findings: Findings, dataset: str, column: Column | None) -> Card:
    entry = findings.datasets[dataset]
    kind = f"{words.TASKS[entry.task]}, {entry.title}"
    if column is None:
        return Card(dataset, kind, ["No cell of it is done, so there is no verdict."])
    device = findings.device(dataset, column.best) if column.best else ""
    said = verdict(column, findings.title, "CPU" if device == "cpu" else device)
    return Card(
        dataset=dataset,
        kind=kind,
        lines=said.lines,
        patients=max(score.patients for score in column.scores.values()),
        details=said.details,
        notes=_notes(findings, dataset, column),
        forest=tables.forest(findings, column, IN_CARD),
    )


def _notes(findings: Findings, dataset: str, column: Column) -> list[str]:
    """Return what to know before the verdict of a dataset is believed."""
    phantom = ["Generated data: these numbers say nothing about radiology."]
    notes = phantom if trust.is_phantom(findings, dataset) else []
    notes += trust.scope(findings, dataset) + trust.without_near(findings, column)
    notes += trust.not_compared(findings, dataset)
    if column.best and (derived := findings.study.backbone(column.best).derived):
        notes.append(f"Derived weights: {derived}.")
    return notes
