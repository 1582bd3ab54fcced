"""What the loaders share: looking into raw folders, and one Index row per film."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from radprobe.artifacts import LABEL, META, Index
from radprobe.catalog import RawEntry
from radprobe.datasets import PHANTOM_MARKER, Layout
from radprobe.files import RadprobeError, digest

WORDS = {"samples": "images", "cases": "labelled volumes"}
IMAGES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".nii", ".gz"}


def places(raw: Path, depth: int) -> Iterator[Path]:
    """Yield `raw`, then the folders in it, level by level down to `depth`: archives unpack with or without a folder.

    Folders that may not be read, as a disk's lost+found, are left out.
    """
    level = [raw]
    for below in range(depth + 1):
        level = [folder for folder in level if os.access(folder, os.R_OK | os.X_OK)]
        yield from level
        if below < depth:
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


def files_of(path: Path) -> list[Path]:
    """Return the file itself, or of a folder with a DICOM series the files in it, sorted by name."""
    return sorted(one for one in path.iterdir() if one.is_file() and not junk(one)) if path.is_dir() else [path]


def is_phantom(layout: Layout) -> bool:
    """Say whether a raw folder was generated."""
    return (layout.root / PHANTOM_MARKER).is_file()


def read_table(path: Path) -> pd.DataFrame:
    """Read a publisher's CSV, all cells as text. Raises RadprobeError where it is none."""
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except ValueError as error:  # empty, a quote left open, another encoding
        raise RadprobeError(path, f"is no CSV table ({error})", "put the publisher's label table there") from None


def natural(text: str) -> list[tuple[int, str]]:
    """Return a key that sorts numbers in a text by their value: slice 9 before slice 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", text)]


def ids(names: list[str]) -> dict[str, str]:
    """Return an id for each of these distinct names: letters, digits, `_`, `-` and dots, fit for paths.

    Where two names would get the same (on a disk that knows no case, too), both carry a hash of the name.
    """
    plain = {name: re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._") or "_" for name in names}
    times = Counter(text.lower() for text in plain.values())
    return {name: text if times[text.lower()] == 1 else f"{text}-{digest(name)}" for name, text in plain.items()}


def coverage(
    layout: Layout, entry: RawEntry, here: int, allow_missing: bool, of: Literal["samples", "cases"] = "samples"
) -> dict[str, Any]:
    """Return the facts on how many of the published samples (or cases: volumes) are here; of a phantom that is all.

    Raises RadprobeError where some are absent, unless `allow_missing`.
    """
    phantom = is_phantom(layout)
    listed = here if phantom else max(getattr(entry.published, of), here)
    if here < listed and not allow_missing:
        remedy = f"complete the copy, or accept a partial one: datasets.{entry.id}.allow_missing: true"
        raise RadprobeError(layout.root, f"holds {here:,} of {listed:,} {WORDS[of]}", remedy)
    return {"partial": here < listed, "n_listed": listed, "n_absent": listed - here, "phantom": phantom}


def slices(root: Path, image: Path, slicing: str, **row: Any) -> list[dict[str, Any]]:
    """Return one row per slice of a volume (a NIfTI file, or a folder with a DICOM series), from its header alone.

    `row` has volume_id and patient_id, and what else is the same in all slices. A header that cannot be read gives a
    single row: prepare then names the file, or sets it aside.
    """
    from radprobe.imaging import reading  # the graph is built where no reader is installed
    from radprobe.imaging.volumes import Slicing

    place: dict[str, Any] = {"image": image.relative_to(root).as_posix()}
    try:
        header = reading.probe(image)
    except RadprobeError:
        return [{**row, **place, "sample_id": f"{row['volume_id']}_0000"}]
    affine, shape = header.of_volume
    n = Slicing.of(affine, slicing).shape(shape)[0]
    place |= {"spacing": list(header.spacing), "affine": [float(value) for value in affine.reshape(-1)]}
    return [{**row, **place, "sample_id": f"{row['volume_id']}_{k:04d}", "slice": k} for k in range(n)]


def volumes(folder: Path, name: str = r"(.+?)") -> dict[str, Path]:
    """Return the NIfTI volumes that lie directly in `folder`, case -> file.

    `name` is the pattern of the file names without suffix; its group is the case. nnU-Net's conversions add the channel
    `_0000` to the names of images: it is taken off. Raises RadprobeError on another name, or on a case that is there
    twice (as .nii and .nii.gz).
    """
    found: dict[str, Path] = {}
    for path in images(folder):
        match = re.fullmatch(rf"{name}(?:_0000)?\.nii(?:\.gz)?", path.name)
        if not match:
            raise RadprobeError(path, "has a name that no volume of this set has", "take it out of the folder")
        if (other := found.setdefault(match[1], path)) != path:
            raise RadprobeError(path, f"is there twice: also {other.name}", "remove one of the two")
    return found


def pairs(images: dict[str, Path], labels: dict[str, Path]) -> list[tuple[str, Path, Path]]:
    """Return (case, image, label map), sorted by case. Raises RadprobeError where one of the two is missing."""
    for names, others, other in ((images, labels, "label map"), (labels, images, "image")):
        if alone := sorted(names.keys() - others.keys()):
            path, where = names[alone[0]], next((found.parent for found in others.values()), "any folder")
            reason = f"has no {other}: no volume of {alone[0]} lies in {where} ({len(alone)} such)"
            raise RadprobeError(path, reason, f"put the {other} there, or take this file out too")
    return [(case, images[case], labels[case]) for case in sorted(images)]


def labelled_volumes(
    layout: Layout, entry: RawEntry, found: list[tuple[str, Path, Path]], allow_missing: bool, **facts: Any
) -> Index:
    """Return the Index of `found` (case, image, label map), one row a slice; each volume is its own case and patient.

    Raises RadprobeError where volumes of the published number are absent, unless `allow_missing`.
    """
    whole = coverage(layout, entry, len(found), allow_missing, "cases")
    rows = []
    for case, image, label in found:
        masks = [label.relative_to(layout.root).as_posix()]
        rows += slices(layout.root, image, entry.slices, volume_id=case, patient_id=case, masks=masks)
    return index(entry, rows, {**whole, **facts})


def index(entry: RawEntry, rows: list[dict[str, Any]], facts: dict[str, Any]) -> Index:
    """Build the Index of `rows`, sorted by sample_id, with what every reader needs among its facts.

    A row has sample_id, image and patient_id; volume_id, slice, masks, spacing and affine where they are not those of a
    film; labels and meta columns by their full names.
    """
    film = {"slice": 0, "masks": [], "spacing": [], "affine": []}
    table = pd.DataFrame([{"volume_id": row["sample_id"], **film, **row} for row in rows])
    if table.empty:
        raise RadprobeError(entry.id, "no image was found", f"put there {entry.layout}")
    fixed = ["sample_id", "patient_id", "volume_id", "slice", "image", "masks", "spacing", "affine"]
    labels = [LABEL + name for name in entry.classes if LABEL + name in table]
    meta = [name for name in table if name.startswith(META)]
    table = table[fixed + labels + meta].sort_values("sample_id", ignore_index=True)
    table = table.astype(dict.fromkeys(labels, float) | dict.fromkeys(meta, object))
    meaning = {"dataset": entry.id, "classes": list(entry.classes), "blank": entry.blank}
    return Index(table, {**meaning, "limit": None, **facts})
