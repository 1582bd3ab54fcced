"""Generated raw downloads of BTCV, Beyond the Cranial Vault, in its official layout."""

from itertools import chain, count, islice
from pathlib import Path

import numpy as np

from radprobe.catalog import RawEntry
from radprobe.datasets.btcv import UNLABELLED, VARIANTS
from radprobe.phantoms import anatomy, organs
from radprobe.phantoms.organs import Scan

NUMBERS = (*range(1, 11), *range(21, 41))  # of the 30 labelled volumes
MORE = 81  # the test volumes are 61 to 80
ORIENTATIONS = ("LAS", "LPS", "RAS", "LAS")
TESTING = (61, 62)


def generate(folder: Path, entry: RawEntry, patients: int, seed: int) -> None:
    """Write a generated RawData of `patients` labelled volumes and two without labels.

    Up to 30 of them have the names of real ones, evenly spaced, so that each published list of cases meets some.
    """
    root = folder / entry.root_name
    images, labels = (root / name for name in VARIANTS["official"])
    for number in _numbers(patients):
        scan = _phantom_scan(entry, number, np.random.default_rng([seed, number]))
        organs.save(scan, images, None, f"img{number:04d}")
        organs.save_labels(scan, labels, f"label{number:04d}")
    for number in TESTING:
        scan = _phantom_scan(entry, number, np.random.default_rng([seed, number]))
        organs.save(scan, root / UNLABELLED[0], None, f"img{number:04d}")
    organs.write_junk(images, "img0001")
    anatomy.mark(root, patients, seed)


def _numbers(patients: int) -> list[int]:
    if patients >= len(NUMBERS):
        return list(islice(chain(NUMBERS, count(MORE)), patients))
    return [NUMBERS[position * len(NUMBERS) // patients] for position in range(patients)]


def _phantom_scan(entry: RawEntry, number: int, rng: np.random.Generator) -> Scan:
    side, step, thickness = int(rng.integers(88, 105)), rng.uniform(0.6, 0.9) * 5, rng.uniform(2.5, 5) * 4
    values, labels = organs.abdomen((side, side, int(rng.integers(16, 29))), entry.classes, rng)
    labels = labels.astype(np.float32) if number % 8 == 5 else labels
    return Scan(values, labels, (step, step, thickness), ORIENTATIONS[number % len(ORIENTATIONS)])
