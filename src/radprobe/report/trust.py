"""Can I trust it: what was verified, split, compared, left out, and under which licence."""

from typing import Any

from radprobe.artifacts import PARTS
from radprobe.report import look, words
from radprobe.report.collect import Findings
from radprobe.report.ranking import Column

MOST = 20  # entries of a list that are told in full


def flat(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested facts as (name, text) lines; long lists say how much is left out."""
    lines = []
    for key, value in facts.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict) and value:
            lines += flat(value, f"{key}: ") if not prefix else [(name, _inline(value))]
        elif value not in (None, [], {}, ""):
            lines.append((name, _inline(value)))
    return lines


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_inline(each)}" for key, each in value.items())
    if isinstance(value, list):
        shown = ", ".join(_inline(each) for each in value[:MOST])
        return shown + (f" and {len(value) - MOST} more" if len(value) > MOST else "")
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def datasets(findings: Findings) -> list[dict]:
    """Return for each dataset here its card, source, verification, split and leak certificate, as lines."""
    found = []
    for name, entry in findings.datasets.items():
        raw = findings.facts("retrieve", name)
        split, leaks = (findings.facts("split", name, kind=kind) for kind in ("split", "leaks"))
        source = {key: raw[key] for key in ("source", "variant", "n_files", "bytes") if key in raw}
        card = {
            "modality": entry.modality,
            "licence": entry.licence,
            "access": entry.access,
            "citation": entry.citation,
        }
        sections = {
            "Card": card,
            "Source": source,
            "Verification": findings.facts("prepare", name, kind="pixels"),
            "Samples": findings.facts("prepare", name, kind="index"),
            "Split": {key: value for key, value in split.items() if key not in ("parts", "classes")},
            "Leak certificate": _certificate(leaks) if leaks else {},
        }
        if entry.task == "look":
            sections = {key: value for key, value in sections.items() if key not in ("Split", "Leak certificate")}
        found.append(
            {
                "name": name,
                "entry": entry,
                "parts": parts(split),
                "near": look.near_duplicates(findings, name),
                "sections": {key: flat(each) for key, each in sections.items()},
            }
        )
    return found


def parts(split: dict) -> list[tuple[str, list[str]]]:
    """Return the lines of a table of the parts: samples, patients, and by class the positive samples (patients)."""
    found = split.get("parts", {})
    each = [found.get(part, {}) for part in PARTS]
    lines = [(key, [str(part.get(key, "–")) for part in each]) for key in ("patients", "samples")] if found else []
    for name in split.get("classes", []):
        counts = [[part.get(key, {}).get(name) for key in ("positives", "positive_patients")] for part in each]
        if any(samples is not None for samples, _ in counts):
            lines.append((f"{name}, positive", [_positives(*count) for count in counts]))
    return lines


def _positives(samples: int | None, patients: int | None) -> str:
    return "–" if samples is None else f"{samples} ({patients} patients)"


def _certificate(leaks: dict) -> dict[str, Any]:
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
    for name, entry in findings.datasets.items():
        index = findings.facts("prepare", name)
        if index.get("partial"):
            absent, listed = index.get("n_absent", "some"), index.get("n_listed", "those listed")
            lines.append(f"A partial copy of {entry.title}: {absent} of {listed} images are absent.")
    for name in study.backbones_here:
        if why := study.backbone(name).derived:
            lines.append(f"{study.backbone(name).title} has derived weights, not the published ones: {why}.")
    initialised = [study.backbone(name).title for name in study.params.backbones if study.backbone(name).random]
    if initialised:
        lines.append(f"Random weights, never trained, only for tests and control: {', '.join(initialised)}.")
    return lines


def without_near(findings: Findings, column: Column) -> list[str]:
    """Return what the best score is without test cases that look like a copy of one in another part, where any does."""
    table, metric = findings.scores, column.metric + words.WITHOUT_NEAR
    rows = table[
        (table["dataset"] == column.dataset) & (table["backbone"] == column.best) & (table["metric"] == metric)
    ]
    rows = rows[(rows["protocol"] == column.protocol) & (rows["class"] == "macro")]
    return [
        f"Near-duplicates of other parts are among the test cases; without them {words.METRICS[column.metric]} is "
        f"{words.number(row.value)} with {row.n_patients} patients."
        for row in rows.itertuples()
    ]


def scope(findings: Findings, dataset: str) -> list[str]:
    """Return what a dataset's scores are about, where that is less than the study's split and classes."""
    split, entry, notes = findings.facts("split", dataset), findings.datasets[dataset], []
    if (name := split.get("name", "study")) != "study":
        notes.append(f"Split {name}, not the study's: not comparable with published scores.")
    if split.get("left_out"):
        kept = split["classes"]
        few = "the others have too few positive patients"
        notes.append(f"Macro over {len(kept)} of {len(entry.classes)} classes ({', '.join(kept)}): {few}.")
    return notes


def is_phantom(findings: Findings, dataset: str) -> bool:
    """Are a dataset's raw files generated?"""
    source = findings.facts("retrieve", dataset).get("source")
    return source == "phantom" or findings.study.params.datasets[dataset].phantom is not None
