"""What the loaders share: looking into raw folders, and one Index row per film."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from radprobe.artifacts import LABEL, META, Index
from radprobe.catalog import Dataset
from radprobe.datasets import PHANTOM_MARKER, Layout
from radprobe.files import RadprobeError

IMAGES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".nii", ".gz"}


def places(raw: Path, depth: int) -> Iterator[Path]:
    """Yield `raw`, then the folders in it, level by level down to `depth`: archives unpack with or without a folder."""
    level = [raw]
    for _ in range(depth + 1):
        yield from level
        level = [inner for folder in level for inner in sorted(folder.iterdir()) if inner.is_dir()]


def junk(path: Path) -> bool:
    """Say whether a file is one that macOS leaves in archives: `._name`, .DS_Store and other hidden files."""
    return path.name.startswith(".")


def images(folder: Path) -> list[Path]:
    """Return the image files that lie directly in `folder`, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES and not junk(path))


def has_image(folder: Path) -> bool:
    """Say whether at least one image lies directly in `folder`; stops at the first."""
    with os.scandir(folder) as entries:
        return any(Path(entry.name).suffix.lower() in IMAGES and not junk(Path(entry.name)) for entry in entries)


def is_phantom(layout: Layout) -> bool:
    """Say whether a raw folder was generated."""
    return (layout.root / PHANTOM_MARKER).is_file()


def index(dataset: str, entry: Dataset, rows: list[dict[str, Any]], facts: dict[str, Any]) -> Index:
    """Build the Index of `rows`, sorted by sample_id, with what every reader needs among its facts.

    A row has sample_id, image and patient_id; volume_id, slice, masks and spacing where they are not those of a film;
    labels and meta columns by their full names.
    """
    film = {"slice": 0, "masks": [], "spacing": []}
    table = pd.DataFrame([{"volume_id": row["sample_id"], **film, **row} for row in rows])
    if table.empty:
        raise RadprobeError(dataset, "no image was found", f"put there {entry.layout}")
    fixed = ["sample_id", "patient_id", "volume_id", "slice", "image", "masks", "spacing"]
    labels = [LABEL + name for name in entry.classes if LABEL + name in table]
    meta = [name for name in table if name.startswith(META)]
    table = table[fixed + labels + meta].sort_values("sample_id", ignore_index=True)
    table = table.astype(dict.fromkeys(labels, float) | dict.fromkeys(meta, object))
    return Index(table, {"dataset": dataset, "classes": list(entry.classes), "limit": None, **facts})
