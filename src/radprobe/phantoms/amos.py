"""Generated raw downloads of AMOS, in its official layout."""

from pathlib import Path

import numpy as np

from radprobe.catalog import RawEntry
from radprobe.datasets.amos import FIRST_MR, PARTS
from radprobe.files import RadprobeError
from radprobe.phantoms import anatomy, organs
from radprobe.phantoms.organs import Scan

ORIENTATIONS = ("LAS", "RAS", "LPS")
MR = {"Tr": 507, "Va": 508, "Ts": 509}  # one MRI volume in each part


def generate(folder: Path, entry: RawEntry, patients: int, seed: int) -> None:
    """Write a generated amos22 of `patients` labelled CT volumes, two thirds of them in imagesTr.

    As in the real one each part has MRI volumes too, imagesTs has no labels, and orientations, spacings and sizes vary.
    """
    if patients >= FIRST_MR - 1:
        raise RadprobeError(f"datasets.{entry.id}.phantom.patients", f"is {patients}", "generate fewer than 499")
    root = folder / entry.root_name
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


def _phantom_scan(entry: RawEntry, number: int, rng: np.random.Generator) -> Scan:
    side, step, thickness = int(rng.integers(88, 113)), rng.uniform(0.6, 0.9) * 5, rng.uniform(1.5, 5) * 4
    shape = (side, side + 4 * int(rng.integers(0, 3)), int(rng.integers(18, 29)))
    values, labels = organs.abdomen(shape, entry.classes, rng)
    if number >= FIRST_MR:
        values = ((values + 1000) // 3).astype(np.int16)  # all positive, no Hounsfield units
    # stored without the shift of 1,024 that the header then adds, in some
    inter = -1024 if number % 4 == 2 and number < FIRST_MR else 0
    return Scan(values, labels, (step, step, thickness), ORIENTATIONS[number % len(ORIENTATIONS)], inter)
