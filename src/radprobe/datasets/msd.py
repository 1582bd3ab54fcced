"""Medical Segmentation Decathlon (Antonelli et al., Nature Communications 2022): Heart, Hippocampus and Spleen."""

from pathlib import Path

from radprobe.artifacts import Index
from radprobe.catalog import RawEntry
from radprobe.datasets import Layout, raw

IMAGES, LABELS, UNLABELLED = "imagesTr", "labelsTr", "imagesTs"
LISTING = "dataset.json"
OF_A_TASK = ("Task", "Dataset")  # how the archives, and the folders of nnU-Net, begin: Task04_, Task004_, Dataset004_


def locate(entry: RawEntry, raw_folder: Path) -> Layout | None:
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


def _is_another_task(folder: str, entry: RawEntry) -> bool:
    task = entry.root_name.partition("_")[2]
    return folder.startswith(OF_A_TASK) and not folder.lower().endswith(task.lower())


def samples(layout: Layout, entry: RawEntry, allow_missing: bool) -> Index:
    """Return one row per slice of the labelled volumes.

    Raises RadprobeError where a volume has no label map or a label map no volume, or (unless `allow_missing`) where
    volumes of the set are absent. The volumes of imagesTs have no labels: they are left out, and counted.
    """
    images, labels = (raw.volumes(folder) for folder in layout.folders)
    test = layout.root / UNLABELLED
    n_unlabelled = len(raw.images(test)) if test.is_dir() else 0
    return raw.labelled_volumes(layout, entry, raw.pairs(images, labels), allow_missing, n_unlabelled=n_unlabelled)
