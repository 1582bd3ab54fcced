"""SARS-CoV-2 CT: 210 patients as stacks of PNG slices: Covid, healthy, other lung disease (Soares et al., 2020)."""

from pathlib import Path
from typing import Any

from radprobe.artifacts import LABEL, Index
from radprobe.catalog import RawEntry
from radprobe.datasets import Layout, raw
from radprobe.files import RadprobeError

GROUPS = ("Covid", "Healthy", "Others")  # sorted: the order in which the study took patients


def locate(entry: RawEntry, raw_folder: Path) -> Layout | None:
    """Find the folders Covid, Healthy and Others, in the folder itself (New_Data_CoV2) or one or two folders below."""
    for root in raw.places(raw_folder, depth=2):
        if all((root / group).is_dir() for group in GROUPS):
            return Layout(root, "official", folders=tuple(_patients(root)))
    return None


def _patients(root: Path) -> list[Path]:
    return [path for group in GROUPS for path in sorted((root / group).iterdir()) if path.is_dir()]


def samples(layout: Layout, entry: RawEntry, allow_missing: bool) -> Index:
    """Return one row per slice, in the order of the numbers in the file names; the patient is the case.

    A patient is a group and a folder: the same folder names are in several groups. Raises RadprobeError where a
    patient's folder holds no slice, or (unless `allow_missing`) where fewer slices than published are here.
    """
    names = {folder: f"{folder.parent.name}_{folder.name}" for folder in layout.folders}
    patient_ids = raw.ids(list(names.values()))
    rows, empty = [], []
    for folder, name in names.items():
        found = sorted(raw.images(folder), key=lambda path: raw.natural(path.name))
        empty += [] if found else [folder]
        rows += [_row(layout.root, path, patient_ids[name], k) for k, path in enumerate(found)]
    if empty and not allow_missing:
        raise RadprobeError(empty[0], f"holds no slice ({len(empty)} such)", "unpack the archive again")
    facts = raw.coverage(layout, entry, len(rows), allow_missing)
    return raw.index(entry, rows, {**facts, "n_empty_folders": len(empty)})


def _row(root: Path, path: Path, patient: str, k: int) -> dict[str, Any]:
    group = path.parent.parent.name
    names = {"sample_id": f"{patient}_{k:04d}", "patient_id": patient, "volume_id": patient, "slice": k}
    return {**names, "image": path.relative_to(root).as_posix(), f"{LABEL}Covid": float(group == "Covid")}
