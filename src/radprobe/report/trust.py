"""Can I trust it: what was verified, split, compared, left out, and under which licence."""

from dataclasses import dataclass
from typing import Any

from radprobe.artifacts import PARTS
from radprobe.artifacts.tables import Record
from radprobe.catalog import Backbone, Dataset, Tolerance
from radprobe.catalog.describe import as_in_the_study, recipe, restriction, vector
from radprobe.jobs.external import ExternalJob
from radprobe.names import EXTERNAL, RANDOM, SCRATCH, mode_of, with_weights
from radprobe.report import look, verdict, words
from radprobe.report.collect import Findings
from radprobe.report.ranking import Column, controls_of

MOST = 20  # entries of a list that are told in full


def flat(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested facts as (name, text) lines; long lists say how much is left out."""
    lines = []
    for key, value in facts.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict) and value:
            lines += flat(value, f"{key}: ") if not prefix else [(name, inline(value))]
        elif value not in (None, [], {}, ""):
            lines.append((name, inline(value)))
    return lines


def inline(value: object) -> str:
    """Return a fact as text: floats to four digits, long lists cut with the number of what is left out."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {inline(each)}" for key, each in value.items())
    if isinstance(value, list):
        shown = ", ".join(inline(each) for each in value[:MOST])
        return shown + (f" and {len(value) - MOST} more" if len(value) > MOST else "")
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class DatasetRecord:
    """What is known of a dataset here: the lines of its sections, its split as a table, and near-duplicates."""

    name: str
    entry: Dataset
    parts: list[tuple[str, list[str]]]
    part_names: list[str]
    near: list[look.NearPair]
    sections: dict[str, list[tuple[str, str]]]


@dataclass(frozen=True)
class BackboneRecord:
    """What is known of a backbone here: the cells of its row, and the lines of its sections."""

    name: str
    entry: Backbone
    licence: str
    parameters: str
    gflops: str
    sides: str
    vector: str
    beats: str
    sections: dict[str, list[tuple[str, str]]]


def datasets(findings: Findings) -> list[DatasetRecord]:
    """Return for each dataset here its card, source, verification, split and leak certificate, as lines."""
    found = []
    for name, entry in findings.datasets.items():
        raw = findings.facts("retrieve", name)
        split, leaks = (findings.facts("split", name, kind=kind) for kind in ("split", "leaks"))
        source: Record = {key: raw[key] for key in ("source", "variant", "n_files", "bytes") if key in raw}
        card = {
            "modality": entry.modality,
            "licence": entry.licence,
            "access": entry.access,
            "citation": entry.citation,
            "surfaces agree": _tolerance(entry.tolerance),
        }
        sections: dict[str, Record] = {
            "Card": card,
            "Source": source,
            "Verification": findings.facts("prepare", name, kind="pixels"),
            "Samples": findings.facts("prepare", name, kind="index"),
            "Split": {key: value for key, value in split.items() if key not in ("parts", "classes")},
            "Leak certificate": _certificate(leaks) if leaks else {},
        }
        if entry.task == "look":
            sections = {key: value for key, value in sections.items() if key not in ("Split", "Leak certificate")}
        record = DatasetRecord(
            name=name,
            entry=entry,
            parts=parts(split),
            part_names=part_names(split),
            near=look.near_duplicates(findings, name),
            sections={key: flat(each) for key, each in sections.items()},
        )
        found.append(record)
    return found


def backbones(findings: Findings, heads: dict[str, Column]) -> list[BackboneRecord]:
    """Return for each backbone here its card: licence, size, recipe, weights, cost, controls.

    Random initialisations and adapted backbones have none of their own.
    """
    names = [name for name in findings.study.backbones_here if not name.startswith(RANDOM) and not mode_of(name)]
    return [_backbone(findings, name, heads) for name in names]


def elsewhere(findings: Findings, row: str) -> dict[str, Any]:
    """Return what is known of a row whose predictions were made elsewhere."""
    dataset, entry = findings.study.external[row], findings.study.backbone(row)
    facts = findings.facts(EXTERNAL, dataset, row).get("protocols", {}).get(EXTERNAL, {})
    step = findings.study.steps.get((EXTERNAL, dataset, row))
    return {
        "what": words.ELSEWHERE,
        "notes": entry.notes,
        "of": findings.study.dataset(dataset).title,
        "file": facts.get("external"),
        "digest of its content": step.job.content if step and isinstance(step.job, ExternalJob) else None,
        "scale": facts.get("scale"),
        "cases ignored": facts.get("ignored"),
    }


def _backbone(findings: Findings, name: str, heads: dict[str, Column]) -> BackboneRecord:
    entry, cost = findings.study.backbone(name), findings.study.cost(name)
    weights = findings.facts("weights", None, with_weights(name))
    embeds = {dataset: findings.facts("embed", dataset, name) for dataset in findings.datasets}
    made = {findings.datasets[dataset].title: facts for dataset, facts in embeds.items() if facts}
    limits = restriction(entry.licence, entry.gated)
    against = _against_controls(findings, name, heads)
    dim = next((facts["dim"] for facts in made.values()), cost.dim if cost else None)
    sections = {
        "Card": {"family": entry.family, "licence": entry.licence, "restricted": limits, "citation": entry.citation}
        | {"notes": entry.notes, "derived": entry.derived},
        "Weights": _weights(weights, entry.random),
        "Recipe": {**recipe(entry, dim), "in the study": as_in_the_study(entry)},
        "Cost": {title: _took(facts) for title, facts in made.items()},
        "Controls": against,
    }
    if name in findings.study.external:
        sections = {"Card": elsewhere(findings, name), "Controls": against}
    sides = sorted({facts["size"] for facts in made.values() if "size" in facts})
    parameters = cost.parameters if cost else weights.get("parameters")
    return BackboneRecord(
        name=name,
        entry=entry,
        licence=entry.licence + (f" ({limits})" if limits else ""),
        parameters="–" if parameters is None else f"{parameters / 1e6:,.1f} M",
        gflops=f"{cost.gflops_224:,.1f}" if cost else "–",
        sides=", ".join(f"{side:,}" for side in sides) or "–",
        vector=vector(entry, dim),
        beats=_beaten(name, heads),
        sections={key: flat(each) for key, each in sections.items()},
    )


def _weights(facts: dict[str, Any], random: bool) -> dict[str, Any]:
    if random:
        return {"weights": "none: nothing was pretrained"}
    known = "the known one" if facts.get("sha256_known") else "recorded at first use, and compared since"
    hashed = {"sha256": f"{facts['sha256']} ({known})"} if facts.get("sha256") else {}
    shown: Record = {key: facts[key] for key in ("source", "bytes", "dtype", "converted_from") if key in facts}
    return {**shown, **hashed} or {"weights": "not verified yet"}


def _took(facts: dict[str, Any]) -> str:
    if "size" not in facts:
        return "no image was encoded"
    rate = f", {facts['images_per_second']:,.1f} images/s" if "images_per_second" in facts else ""
    where = f"{facts['device']}, {facts['precision']}"
    return f"{facts['size']:,} px, {words.duration(facts['seconds'])}{rate}, {facts['peak_gb']:.1f} GB; {where}"


def _against_controls(findings: Findings, name: str, heads: dict[str, Column]) -> dict[str, str]:
    """Return by dataset and control what the simultaneous interval says under the verdict's protocol."""
    found = {}
    for dataset, column in heads.items():
        for control, (called, *_) in zip(controls_of(name), verdict.CONTROLS, strict=True):
            if name in column.controls or name not in column.scores or control not in column.scores:
                continue
            key = f"{findings.datasets[dataset].title}, {called}"
            found[key] = verdict.against(column.difference(name, control))
    return found


def _beaten(name: str, heads: dict[str, Column]) -> str:
    """Return how many of its control rows a backbone scores significantly higher than, over all datasets."""
    pairs = [
        column.difference(name, control)
        for column in heads.values()
        if name not in column.controls
        for control in controls_of(name)
    ]
    compared = [each for each in pairs if each is not None]
    return f"{sum(each.sign == 1 for each in compared)} of {len(compared)}" if compared else "–"


def _tolerance(tolerance: Tolerance | None) -> str:
    if tolerance is None:
        return ""
    unit = "mm (where spacing is unknown: thousandths of the longer side)"
    return f"within {tolerance.value:g} {unit}; {tolerance.source}"


def part_names(split: Record) -> list[str]:
    """Return the names of the parts of a split, in their order; under cross-validation those of the folds."""
    found = split.get("parts", {})
    return [name for name in PARTS if name in found] or sorted(found, key=lambda name: int(name.split()[-1]))


def parts(split: Record) -> list[tuple[str, list[str]]]:
    """Return the lines of a table of the parts (or folds): samples, patients, and by class the positive ones."""
    found = split.get("parts", {})
    each = [found[name] for name in part_names(split)]
    lines = [(key, [str(part.get(key, "–")) for part in each]) for key in ("patients", "samples")] if found else []
    for name in split.get("classes", []):
        counts = [[part.get(key, {}).get(name) for key in ("positives", "positive_patients")] for part in each]
        if any(samples is not None for samples, _ in counts):
            lines.append((f"{name}, positive", [_positives(*count) for count in counts]))
    return lines


def _positives(samples: int | None, patients: int | None) -> str:
    return "–" if samples is None else f"{samples} ({patients} patients)"


def _certificate(leaks: Record) -> Record:
    excepted = [f"{one['kind']} {', '.join(one['samples'])}: {one['reason']}" for one in leaks.get("excepted", [])]
    near = len(leaks.get("near", []))
    return {
        **leaks["compared"],
        "overlaps": len(leaks["overlaps"]) or "none",
        "overlaps accepted by params": excepted or "none",
        "near-duplicates": f"{near} pair(s), {len(leaks['near_test_samples'])} test sample(s)" if near else "none",
    }


def banners(findings: Findings) -> list[str]:
    """Return what must be known before any number is read: phantom, partial and limited data, weights that differ."""
    study, lines = findings.study, []
    phantom = [entry.title for name, entry in findings.datasets.items() if is_phantom(findings, name)]
    if phantom:
        lines.append(f"Generated (phantom) data, which say nothing about radiology: {', '.join(phantom)}.")
    if study.params.limit:
        lines.append(f"A pilot: at most {study.params.limit} patients of each dataset.")
    for name in findings.datasets:
        lines += partial(findings, name)
    for name in (name for name in study.backbones_here if not mode_of(name)):
        if why := study.backbone(name).derived:
            lines.append(f"{study.backbone(name).title} has derived weights, not the published ones: {why}.")
    untrained = [name for name in study.params.backbones if study.backbone(name).random and name not in SCRATCH]
    initialised = [study.backbone(name).title for name in untrained]
    if initialised:
        lines.append(f"Random weights, never trained, only for tests and control: {', '.join(initialised)}.")
    return lines


def partial(findings: Findings, dataset: str) -> list[str]:
    """Return how much of a dataset is absent, where this is a partial copy."""
    index = findings.facts("prepare", dataset)
    if not index.get("partial"):
        return []
    absent, listed = index.get("n_absent", "some"), index.get("n_listed", "those listed")
    return [f"A partial copy of {findings.datasets[dataset].title}: {absent} of {listed} images are absent."]


def without_near(findings: Findings, column: Column) -> list[str]:
    """Return what the best score is without test cases that look like a copy of one in another part, where any does."""
    if column.best is None:
        return []
    table, metric = findings.scores, column.metric + words.WITHOUT_NEAR
    rows = table[
        (table["dataset"] == column.dataset) & (table["backbone"] == column.best) & (table["metric"] == metric)
    ]
    rows = rows[(rows["protocol"] == column.protocol_of(column.best)) & (rows["class"] == "macro")]
    return [_without_near(row, words.METRICS[column.metric]) for row in rows.itertuples()]


def _without_near(row: Any, metric: str) -> str:
    if not row.n_samples:
        return "Every test case looks like a copy of one in another part."
    over = f", over {row.n_classes} classes" if row.n_classes > 1 else ""
    score = f"{metric} is {words.number(row.value)} with {row.n_patients} patients{over}"
    return f"Near-duplicates of other parts are among the test cases; without them {score}."


def not_compared(findings: Findings, dataset: str) -> list[str]:
    """Return which backbones the comparison of a dataset waits for, and what to do, where it does."""
    comparisons = [cell for cell in findings.cells if (cell.dataset, cell.backbone) == (dataset, None)]
    needs = [need for cell in comparisons for need in cell.step.dependencies]
    waits = [findings.title(need.backbone) for need in needs if need.backbone and not need.done]
    if not waits:
        return []
    what = "mend what failed, or take them out of `backbones` in params, and run again: all else is kept"
    return [f"Nothing is compared yet. That waits for {inline(waits)}: {what}."]


def scope(findings: Findings, dataset: str) -> list[str]:
    """Return what a dataset's scores are about: doubts about its table, its split, fewer classes."""
    split, entry = findings.facts("split", dataset), findings.datasets[dataset]
    notes = [f"Warning: {warning}." for warning in findings.facts("prepare", dataset, kind="index").get("warnings", [])]
    if folds := split.get("recipe", {}).get("folds"):
        notes.append(
            f"Cross-validation: each patient is tested once, by one of {folds} fits that never saw that patient. "
            f"Intervals are conditional on these {folds} fits. No few-shot curves."
        )
    elif (name := split.get("name", "study")) != "study":
        notes.append(f"Split {name}, not the study's: not comparable with published scores.")
    if split.get("left_out"):
        kept = split["classes"]
        few = "the others have too few positive or negative patients"
        notes.append(f"Macro over {len(kept)} of {len(entry.classes)} classes ({', '.join(kept)}): {few}.")
    return notes


def is_phantom(findings: Findings, dataset: str) -> bool:
    """Are a dataset's raw files generated?"""
    source = findings.facts("retrieve", dataset).get("source")
    return source == "phantom" or findings.study.params.datasets[dataset].phantom is not None
