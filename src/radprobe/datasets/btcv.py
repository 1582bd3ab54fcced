"""BTCV, Beyond the Cranial Vault: 30 labelled abdominal CT volumes with 13 organs (Landman et al., MICCAI 2015)."""

from itertools import chain, count, islice
from pathlib import Path

import numpy as np

from radprobe.artifacts import Index
from radprobe.catalog import Dataset
from radprobe.datasets import Layout, anatomy, organs, raw
from radprobe.datasets.organs import Scan

VARIANTS = {  # folders of the images and of the label maps
    "official": ("Training/img", "Training/label"),
    "flat": ("img", "label"),
    "decathlon": ("imagesTr", "labelsTr"),  # as MONAI's tutorials and UNETR have it moved
}
NAME = r"(?:img|label)(\d{4})"
UNLABELLED = ("Testing/img", "imagesTs")


def locate(entry: Dataset, raw_folder: Path) -> Layout | None:
    """Find the folders of a variant with volumes named img*, in the folder itself, or up to three folders below.

    The archive of Synapse unpacks to RawData, often put under Abdomen.
    """
    for root in raw.places(raw_folder, depth=3):
        for variant, names in VARIANTS.items():
            folders = tuple(root / name for name in names)
            if all(folder.is_dir() for folder in folders) and any(folders[0].glob("img*")):
                return Layout(root, variant, folders=folders)
    return None


def samples(layout: Layout, entry: Dataset, allow_missing: bool) -> Index:
    """Return one row per slice of the labelled volumes; a case is named as its image, img0001.

    Raises RadprobeError where a volume has no label map or a label map no volume, or (unless `allow_missing`) where
    volumes of the set are absent. The 20 test volumes have no labels: they are left out, and counted.
    """
    images, labels = (
        {f"img{number}": path for number, path in raw.volumes(folder, NAME).items()} for folder in layout.folders
    )
    test = [folder for folder in (layout.root / name for name in UNLABELLED) if folder.is_dir()]
    n_unlabelled = sum(len(raw.images(folder)) for folder in test)
    return raw.labelled_volumes(layout, entry, raw.pairs(images, labels), allow_missing, n_unlabelled=n_unlabelled)


# --- phantom ----------------------------------------------------------------------------------------------------------

NUMBERS = (*range(1, 11), *range(21, 41))  # of the 30 labelled volumes
MORE = 81  # the test volumes are 61 to 80
ORIENTATIONS = ("LAS", "LPS", "RAS", "LAS")
TESTING = (61, 62)


def phantom(folder: Path, entry: Dataset, patients: int, seed: int) -> None:
    """Write a generated RawData of `patients` labelled volumes and two without labels.

    Up to 30 of them have the names of real ones, evenly spaced, so that each published list of cases meets some.
    """
    root = folder / entry.root
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


def _phantom_scan(entry: Dataset, number: int, rng: np.random.Generator) -> Scan:
    side, step, thickness = int(rng.integers(88, 105)), rng.uniform(0.6, 0.9) * 5, rng.uniform(2.5, 5) * 4
    values, labels = organs.abdomen((side, side, int(rng.integers(16, 29))), entry.classes, rng)
    labels = labels.astype(np.float32) if number % 8 == 5 else labels
    return Scan(values, labels, (step, step, thickness), ORIENTATIONS[number % len(ORIENTATIONS)])
