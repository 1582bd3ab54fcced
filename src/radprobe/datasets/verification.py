"""What was checked of the raw files while they were decoded, and what looks wrong."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import nibabel
import numpy as np
import pandas as pd

from radprobe.artifacts import Index
from radprobe.catalog import PublishedCounts
from radprobe.datasets import decoding
from radprobe.datasets.decoding import Bad


@dataclass
class DecodingFindings:
    """What grows while files are decoded."""

    bad: list[Bad] = field(default_factory=list)
    oddities: list[tuple[str, str, int]] = field(default_factory=list)  # what looks wrong, sample, pixels
    shapes: list[tuple[int, int]] = field(default_factory=list)  # height and width of each image as stored


def report(index: Index, findings: DecodingFindings, stored: int, published: PublishedCounts | None) -> dict[str, Any]:
    """Return the verification report: what was checked, what looks wrong, and the published counts beside ours."""
    table, facts = index.table, index.facts
    counts = {"samples": len(table), "cases": table["volume_id"].nunique(), "patients": table["patient_id"].nunique()}
    # slices are published along the last stored axis: cut otherwise, a volume may have another number of them
    cut_otherwise = facts["slices"] != "paper" and table["affine"].map(len).any()
    compared = set(counts) - ({"samples"} if cut_otherwise else set())
    expected = published.model_dump(include=compared, exclude_none=True) if published else None
    whole = not (facts["partial"] or facts["limit"] or facts["phantom"] or findings.bad)
    equal = expected.items() <= counts.items() if expected and whole else None
    warnings = decoding.warnings(findings.oddities)
    if equal is False:
        warnings.append(f"counts {counts} differ from the published {expected}")
    warnings += [f"set aside: {bad.file.name}: {bad.why}" for bad in findings.bad]
    return {
        "checked": len(table) + sum(len(bad.names) for bad in findings.bad),
        "counts": counts,
        "published": expected,
        "equals_published": equal,
        "constant": [name for kind, name, _ in findings.oddities if kind == decoding.CONSTANT],
        "warnings": warnings,
        "quarantined": facts["quarantine"],
        "stored": stored,
        "original_sizes": _range(findings.shapes),
        **_geometry(table),
    }


def _range(shapes: list[tuple[int, int]]) -> str:
    """Return the smallest to the largest height and width, in pixels."""
    (low_h, low_w), (high_h, high_w) = np.min(shapes, axis=0), np.max(shapes, axis=0)
    return f"{low_h}-{high_h} x {low_w}-{high_w} pixels"


def _orientation(affine: list[float]) -> str:
    return "".join(nibabel.aff2axcodes(np.reshape(affine, (4, 4))))


def _geometry(table: pd.DataFrame) -> dict[str, Any]:
    """Return the orientations and spacings of the volumes, as stored: how many of each, and the range in mm."""
    volumes = table[table["affine"].map(len) > 0].drop_duplicates("volume_id")
    if volumes.empty:
        return {}
    spacing = np.array(volumes["spacing"].tolist())
    low, high = spacing.min(axis=0), spacing.max(axis=0)
    steps = " x ".join(f"{a:.3g}-{b:.3g}" if a != b else f"{a:.3g}" for a, b in zip(low, high, strict=True))
    return {"orientations": dict(Counter(volumes["affine"].map(_orientation))), "spacing": f"{steps} mm"}
