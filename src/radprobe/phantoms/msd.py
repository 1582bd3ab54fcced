"""Generated raw downloads of Medical Segmentation Decathlon (Antonelli et al, in its official layout."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from radprobe.catalog import RawEntry
from radprobe.datasets.msd import IMAGES, LABELS, LISTING, UNLABELLED
from radprobe.phantoms import anatomy, organs
from radprobe.phantoms.organs import Scan

N_UNLABELLED = 2


def generate(folder: Path, entry: RawEntry, patients: int, seed: int) -> None:
    """Write a generated task of `patients` labelled volumes and two without labels, with dataset.json and `._` files.

    Axes run towards RAS, as in the real hippocampus volumes.
    """
    name, draw = PHANTOMS[entry.id]
    root = folder / entry.root_name
    cases = [name.format(number) for number in range(1, patients + N_UNLABELLED + 1)]
    for number, case in enumerate(cases):
        scan = draw(np.random.default_rng([seed, number]), number)
        labelled = number < patients
        organs.save(scan, root / (IMAGES if labelled else UNLABELLED), root / LABELS if labelled else None, case)
    organs.write_junk(root / IMAGES, cases[0])
    training, test = cases[:patients], cases[patients:]
    modality = entry.modality.split()[0]
    organs.write_listing(root / LISTING, entry.root_name.partition("_")[2], modality, entry.classes, training, test)
    anatomy.mark(root, patients, seed)


def _heart(rng: np.random.Generator, number: int) -> Scan:
    side = int(rng.integers(80, 105))
    return Scan(*organs.heart((side, side, int(rng.integers(16, 27))), rng), (4.0, 4.0, 6.0))


def _hippocampus(rng: np.random.Generator, number: int) -> Scan:
    """As in the real files: sizes about 35 x 50 x 35 at 1 mm; every fifth image is uint8, some labels are float."""
    x, y, z = (int(rng.integers(low, high)) for low, high in ((31, 44), (40, 60), (24, 48)))
    values, labels = organs.hippocampus((x, y, z), rng)
    values = np.rint(values / 16).astype(np.uint8) if number % 5 == 4 else values
    labels = labels.astype(np.float32) if number % 16 == 7 else labels
    return Scan(values, labels, (1.0, 1.0, 1.0))


def _spleen(rng: np.random.Generator, number: int) -> Scan:
    side, step, thickness = int(rng.integers(88, 105)), rng.uniform(0.6, 0.9) * 5, rng.uniform(1.5, 5) * 4
    values, labels = organs.abdomen((side, side, int(rng.integers(16, 27))), ["spleen"], rng)
    return Scan(values, labels, (step, step, thickness))


# the spleen's names are not padded, so that their order by name is not that of their numbers
PHANTOMS: dict[str, tuple[str, Callable[[np.random.Generator, int], Scan]]] = {
    "msd_heart": ("la_{:03d}", _heart),
    "msd_hippocampus": ("hippocampus_{:03d}", _hippocampus),
    "msd_spleen": ("spleen_{}", _spleen),
}
