"""Medical Segmentation Decathlon (Antonelli et al., Nature Communications 2022): Heart, Hippocampus and Spleen."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from radprobe.artifacts import Index
from radprobe.catalog import Dataset
from radprobe.datasets import Layout, anatomy, organs, raw
from radprobe.datasets.organs import Scan

IMAGES, LABELS, UNLABELLED = "imagesTr", "labelsTr", "imagesTs"
LISTING = "dataset.json"
OF_A_TASK = ("Task", "Dataset")  # how the archives, and the folders of nnU-Net, begin: Task04_, Task004_, Dataset004_


def locate(entry: Dataset, raw_folder: Path) -> Layout | None:
    """Find imagesTr and labelsTr in the folder itself, or one or two folders below.

    A folder named as the archive unpacks is `official`, another one `flat`; one named as another task is passed by.
    """
    for root in raw.places(raw_folder, depth=2):
        folders = (root / IMAGES, root / LABELS)
        if all(folder.is_dir() for folder in folders) and not _is_another_task(root.name, entry):
            variant = "official" if root.name == entry.root else "flat"
            tables = tuple(path for path in (root / LISTING,) if path.is_file())
            return Layout(root, variant, tables, folders)
    return None


def _is_another_task(folder: str, entry: Dataset) -> bool:
    task = entry.root.partition("_")[2]
    return folder.startswith(OF_A_TASK) and not folder.lower().endswith(task.lower())


def samples(layout: Layout, entry: Dataset, allow_missing: bool) -> Index:
    """Return one row per slice of the labelled volumes.

    Raises RadprobeError where a volume has no label map or a label map no volume, or (unless `allow_missing`) where
    volumes of the set are absent. The volumes of imagesTs have no labels: they are left out, and counted.
    """
    images, labels = (raw.volumes(folder) for folder in layout.folders)
    test = layout.root / UNLABELLED
    n_unlabelled = len(raw.images(test)) if test.is_dir() else 0
    return raw.labelled_volumes(layout, entry, raw.pairs(images, labels), allow_missing, n_unlabelled=n_unlabelled)


# --- phantom ----------------------------------------------------------------------------------------------------------

N_UNLABELLED = 2


def phantom(folder: Path, entry: Dataset, patients: int, seed: int) -> None:
    """Write a generated task of `patients` labelled volumes and two without labels, with dataset.json and `._` files.

    Axes run towards RAS, as in the real hippocampus volumes.
    """
    name, draw = PHANTOMS[entry.id]
    root = folder / entry.root
    cases = [name.format(number) for number in range(1, patients + N_UNLABELLED + 1)]
    for number, case in enumerate(cases):
        scan = draw(np.random.default_rng([seed, number]), number)
        labelled = number < patients
        organs.save(scan, root / (IMAGES if labelled else UNLABELLED), root / LABELS if labelled else None, case)
    organs.write_junk(root / IMAGES, cases[0])
    training, test = cases[:patients], cases[patients:]
    modality = entry.modality.split()[0]
    organs.write_listing(root / LISTING, entry.root.partition("_")[2], modality, entry.classes, training, test)
    anatomy.mark(root, patients, seed)


def _heart(rng: np.random.Generator, number: int) -> Scan:
    side = int(rng.integers(80, 105))
    return Scan(*organs.heart((side, side, int(rng.integers(16, 27))), rng), (4.0, 4.0, 6.0))


def _hippocampus(rng: np.random.Generator, number: int) -> Scan:
    """As in the real files: sizes about 35 x 50 x 35 at 1 mm; every fifth image is uint8, some labels are float."""
    shape = tuple(int(rng.integers(low, high)) for low, high in ((31, 44), (40, 60), (24, 48)))
    values, labels = organs.hippocampus(shape, rng)
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
