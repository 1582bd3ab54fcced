"""Brain tumours: 3,064 contrast-enhanced T1 slices of 233 patients, as MATLAB v7.3 files (Cheng, figshare 1512427)."""

from pathlib import Path
from typing import Any

import numpy as np

from radprobe.artifacts import LABEL, Index
from radprobe.catalog import RawEntry
from radprobe.datasets import Layout, raw
from radprobe.files import RadprobeError, in_threads

CLASSES = {1: "meningioma", 2: "glioma", 3: "pituitary"}  # cjdata.label
MOST, LAST_CODE = 64, 0xFFFF  # numbers in a label or a patient's name; the last code of MATLAB's characters
ARCHIVES = "brainTumorDataPublic_*"


def locate(entry: RawEntry, raw_folder: Path) -> Layout | None:
    """Find the files N.mat, in the folder itself or one below.

    Variants: `official` (the four archives' folders), `flat` (all files in one folder).
    """
    for root in raw.places(raw_folder, depth=1):
        archives = tuple(path for path in sorted(root.glob(ARCHIVES)) if path.is_dir() and _has_slice(path))
        if archives:
            return Layout(root, "official", folders=archives)
        if _has_slice(root):
            return Layout(root, "flat", folders=(root,))
    return None


def _has_slice(folder: Path) -> bool:
    return next((True for path in folder.glob("*.mat") if _is_slice(path)), False)


def _is_slice(path: Path) -> bool:
    return path.stem.isdigit() and path.is_file()  # not cvind.mat, the publisher's folds


def samples(layout: Layout, entry: RawEntry, allow_missing: bool) -> Index:
    """Return one row per slice, which is a case of its own, with its class and patient as the file says.

    A file that cannot be read gives a row without label: prepare then names the file, or sets it aside; where no file
    can be read (a MATLAB v5 copy), its RadprobeError is raised. It is also raised on unknown labels, a file that lacks
    label or patient, a number that is there twice, and (unless `allow_missing`) absent slices.
    """
    paths = [path for folder in layout.folders for path in sorted(folder.glob("*.mat")) if _is_slice(path)]
    numbers: dict[int, Path] = {}
    for path in paths:
        if (other := numbers.setdefault(int(path.stem), path)) != path:
            raise RadprobeError(path, f"is there twice: also {other}", "remove one of the two")
    found = in_threads(_label_and_patient, paths)
    errors = [one for one in found if isinstance(one, RadprobeError)]
    if errors and len(errors) == len(found):
        raise errors[0]
    people = raw.ids(sorted({one[1] for one in found if not isinstance(one, RadprobeError)}))
    rows = [_row(layout.root, path, one, people) for path, one in zip(paths, found, strict=True)]
    return raw.index(entry, rows, raw.coverage(layout, entry, len(rows), allow_missing))


def _row(root: Path, path: Path, one: tuple[int, str] | RadprobeError, people: dict[str, str]) -> dict[str, Any]:
    row = {"sample_id": f"{int(path.stem):04d}", "image": path.relative_to(root).as_posix()}
    if isinstance(one, RadprobeError):
        unknown = {LABEL + name: np.nan for name in CLASSES.values()}
        return {**row, "patient_id": f"unreadable-{row['sample_id']}", **unknown}
    label, patient = one
    labels = {LABEL + name: float(label == number) for number, name in CLASSES.items()}
    return {**row, "patient_id": people[patient], **labels}


def _label_and_patient(path: Path) -> tuple[int, str] | RadprobeError:
    """Read cjdata.label and cjdata.PID, a char array: uint16 codes in HDF5. Return why there is no image to label."""
    from radprobe.imaging import matlab, reading  # the graph is built where no reader is installed

    try:
        reading.probe(path)
    except RadprobeError as error:
        return error
    label, codes = (matlab.read_numbers(path, f"cjdata/{name}", MOST) for name in ("label", "PID"))
    if not ((codes >= 0) & (codes <= LAST_CODE)).all():
        raise RadprobeError(path, "has a patient (cjdata.PID) that is no text", "download it again")
    patient = "".join(chr(code) for code in codes.astype(np.int64).reshape(-1)).strip("\0 ")
    if label.size != 1 or label.item() not in CLASSES:
        known = ", ".join(f"{number} {name}" for number, name in CLASSES.items())
        raise RadprobeError(path, f"unknown cjdata.label {label.tolist()}", f"known are {known}; download it again")
    if not patient:
        raise RadprobeError(path, "has no patient (cjdata.PID is empty)", "download it again")
    return int(label.item()), patient
