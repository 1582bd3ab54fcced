"""Generated raw downloads of SARS-CoV-2 CT, in its official layout."""

from pathlib import Path

import numpy as np
from PIL import Image

from radprobe.catalog import RawEntry
from radprobe.datasets.sars_cov_2_ct import GROUPS
from radprobe.phantoms import anatomy, scans

SHARES = {"Covid": 80, "Others": 80, "Healthy": 50}  # patients of each group in the official set


def generate(folder: Path, entry: RawEntry, patients: int, seed: int) -> None:
    """Write a generated New_Data_CoV2 of `patients` patients with 4 to 12 slices each, in the official proportions.

    Slice sizes vary, some PNGs are RGBA, file numbers have no leading zeros, and macOS has left a file. Covid shows
    ground glass at the edge of both lungs, Others a dense mass, Healthy nothing.
    """
    root = folder / "New_Data_CoV2"
    for number in range(patients):
        group = _group(number)
        rng = np.random.default_rng([seed, number])
        n_before = sum(_group(other) == group for other in range(number))
        patient = root / group / f"Patient ({n_before + 1})"
        patient.mkdir(parents=True)
        height, width = (int(side) for side in rng.integers(120, 200, 2))
        who, n = scans.patient(rng), int(rng.integers(4, 13))
        for k in range(n):
            pixels = scans.chest(who, group, k / (n - 1), (height, width), rng)
            mode = "RGBA" if (number + k) % 5 == 0 else "L"
            Image.fromarray(pixels).convert(mode).save(patient / f"{k + 1}.png", compress_level=1)
    for group in GROUPS:
        (root / group).mkdir(parents=True, exist_ok=True)
    (patient / "._1.png").write_bytes(bytes(16))
    anatomy.mark(root, patients, seed)


def _group(number: int) -> str:
    """Return the group of a patient: in turn, by how many of its share a group still lacks."""
    made = dict.fromkeys(SHARES, 0)
    for _ in range(number + 1):
        group = min(SHARES, key=lambda name: (made[name] + 0.5) / SHARES[name])
        made[group] += 1
    return group
