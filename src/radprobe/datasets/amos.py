"""AMOS: abdominal CT and MRI with 15 organs (Ji et al., NeurIPS 2022). The study takes the 300 labelled CT volumes."""

from pathlib import Path

import numpy as np

from radprobe.artifacts import Index
from radprobe.catalog import Dataset
from radprobe.datasets import Layout, anatomy, organs, raw
from radprobe.datasets.organs import Scan
from radprobe.files import RadprobeError

PARTS = ("Tr", "Va")  # imagesTr and labelsTr, imagesVa and labelsVa; imagesTs has no labels
NAME = r"(amos_\d{4})"
FIRST_MR = 500  # the publisher's readme: ids below 500 are CT


def locate(entry: Dataset, raw_folder: Path) -> Layout | None:
    """Find imagesTr and labelsTr with volumes named amos_*, in the folder itself, or one or two folders below.

    Variants: `official`, with imagesVa and labelsVa; `training folders`, without them (all volumes merged, or less).
    """
    for root in raw.places(raw_folder, depth=2):
        pairs = [(root / f"images{part}", root / f"labels{part}") for part in PARTS]
        here = [pair for pair in pairs if all(folder.is_dir() for folder in pair)]
        if pairs[0] in here and any(pairs[0][0].glob("amos_*")):
            variant = "official" if len(here) == len(pairs) else "training folders"
            tables = tuple(path for path in (root / "dataset.json",) if path.is_file())
            return Layout(root, variant, tables, tuple(folder for pair in here for folder in pair))
    return None


def samples(layout: Layout, entry: Dataset, allow_missing: bool) -> Index:
    """Return one row per slice of the labelled CT volumes. MRI and unlabelled volumes are left out, and counted.

    Raises RadprobeError where a CT volume has no label map or a label map no volume, where a volume is in both parts,
    or (unless `allow_missing`) where volumes of the set are absent.
    """
    images, n_mr = _ct(layout.folders[::2])
    labels, _ = _ct(layout.folders[1::2])
    test = layout.root / "imagesTs"
    n_unlabelled = len(raw.images(test)) if test.is_dir() else 0
    found = raw.pairs(images, labels)
    return raw.labelled_volumes(layout, entry, found, allow_missing, n_mr=n_mr, n_unlabelled=n_unlabelled)


def _ct(folders: tuple[Path, ...]) -> tuple[dict[str, Path], int]:
    """Return the CT volumes in some folders, case -> file, and the number of MRI volumes beside them."""
    found: dict[str, Path] = {}
    for folder in folders:
        for case, path in raw.volumes(folder, NAME).items():
            if (other := found.setdefault(case, path)) != path:
                raise RadprobeError(path, f"is there twice: also {other}", "remove one of the two")
    ct = {case: path for case, path in found.items() if int(case.removeprefix("amos_")) < FIRST_MR}
    return ct, len(found) - len(ct)


# --- phantom ----------------------------------------------------------------------------------------------------------

ORIENTATIONS = ("LAS", "RAS", "LPS")
MR = {"Tr": 507, "Va": 508, "Ts": 509}  # one MRI volume in each part


def phantom(folder: Path, entry: Dataset, patients: int, seed: int) -> None:
    """Write a generated amos22 of `patients` labelled CT volumes, two thirds of them in imagesTr.

    As in the real one each part has MRI volumes too, imagesTs has no labels, and orientations, spacings and sizes vary.
    """
    if patients >= FIRST_MR - 1:
        raise RadprobeError(f"datasets.{entry.id}.phantom.patients", f"is {patients}", "generate fewer than 499")
    root = folder / entry.root
    parts = {number: PARTS[number % 3 == 0] for number in range(1, patients + 1)}
    parts |= {patients + 1: "Ts"} | {number: part for part, number in MR.items()}
    for number, part in parts.items():
        scan = _phantom_scan(entry, number, np.random.default_rng([seed, number]))
        labels = root / f"labels{part}" if part in PARTS else None
        organs.save(scan, root / f"images{part}", labels, f"amos_{number:04d}")
    (root / "labelsVa").mkdir(exist_ok=True)
    organs.write_junk(root / "imagesTr", "amos_0001")
    cases = {part: [f"amos_{n:04d}" for n in parts if parts[n] == part] for part in (*PARTS, "Ts")}
    where = root / "dataset.json"
    organs.write_listing(where, "AMOS", "CT", entry.classes, cases["Tr"], cases["Ts"], validation=cases["Va"])
    anatomy.mark(root, patients, seed)


def _phantom_scan(entry: Dataset, number: int, rng: np.random.Generator) -> Scan:
    side, step, thickness = int(rng.integers(88, 113)), rng.uniform(0.6, 0.9) * 5, rng.uniform(1.5, 5) * 4
    shape = (side, side + 4 * int(rng.integers(0, 3)), int(rng.integers(18, 29)))
    values, labels = organs.abdomen(shape, entry.classes, rng)
    if number >= FIRST_MR:
        values = ((values + 1000) // 3).astype(np.int16)  # all positive, no Hounsfield units
    # stored without the shift of 1,024 that the header then adds, in some
    inter = -1024 if number % 4 == 2 and number < FIRST_MR else 0
    return Scan(values, labels, (step, step, thickness), ORIENTATIONS[number % len(ORIENTATIONS)], inter)
