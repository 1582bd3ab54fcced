"""What parts of a split must not share: patients, volumes, identical pixels."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from radprobe.artifacts import Index, LeakCertificate, Split


def compare(index: Index, split: Split, images: np.ndarray) -> LeakCertificate:
    """Compare all parts with each other; images [n, H, W] are the stored pixels, rows as in the Index.

    `overlaps` has one entry per shared patient, volume or picture and pair of parts: kind, what, parts, samples.
    """
    rows = split.table.merge(index.table[["sample_id", "volume_id"]], on="sample_id")
    position = {name: row for row, name in enumerate(index.table["sample_id"])}
    pictures = [_picture(images[position[name]]) for name in rows["sample_id"]]
    keys = {"patient": rows["patient_id"], "volume": rows["volume_id"], "pixels": pictures}
    overlaps = [
        overlap for kind, values in keys.items() for overlap in _shared(kind, values, rows["sample_id"], rows["part"])
    ]
    compared = {
        "samples": len(rows),
        "patients": int(rows["patient_id"].nunique()),
        "volumes": int(rows["volume_id"].nunique()),
        "pictures": len(set(pictures)),
        "repeated_within_parts": len(rows) - len(set(zip(rows["part"], pictures, strict=True))),
        "pixels": f"sha256 of the stored {images.shape[1]} x {images.shape[2]} pixels",
    }
    return LeakCertificate(compared, overlaps)


def _picture(image: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def _shared(kind: str, values: Iterable[str], samples: Iterable[str], parts: Iterable[str]) -> list[dict[str, Any]]:
    """Return what occurs in more than one part, with the first sample of each part."""
    first: dict[str, dict[str, str]] = defaultdict(dict)
    for value, sample, part in zip(values, samples, parts, strict=True):
        first[value].setdefault(part, sample)
    return [
        {"kind": kind, "what": value, "parts": list(where), "samples": list(where.values())}
        for value, where in first.items()
        if len(where) > 1
    ]
