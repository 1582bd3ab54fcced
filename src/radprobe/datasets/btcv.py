"""BTCV, Beyond the Cranial Vault: 30 labelled abdominal CT volumes with 13 organs (Landman et al., MICCAI 2015)."""

from pathlib import Path

from radprobe.artifacts import Index
from radprobe.catalog import RawEntry
from radprobe.datasets import Layout, raw

VARIANTS = {  # folders of the images and of the label maps
    "official": ("Training/img", "Training/label"),
    "flat": ("img", "label"),
    "decathlon": ("imagesTr", "labelsTr"),  # as MONAI's tutorials and UNETR have it moved
}
NAME = r"(?:img|label)(\d{4})"
UNLABELLED = ("Testing/img", "imagesTs")


def locate(entry: RawEntry, raw_folder: Path) -> Layout | None:
    """Find the folders of a variant with volumes named img*, in the folder itself, or up to three folders below.

    The archive of Synapse unpacks to RawData, often put under Abdomen.
    """
    for root in raw.places(raw_folder, depth=3):
        for variant, names in VARIANTS.items():
            folders = tuple(root / name for name in names)
            if all(folder.is_dir() for folder in folders) and any(folders[0].glob("img*")):
                return Layout(root, variant, folders=folders)
    return None


def samples(layout: Layout, entry: RawEntry, allow_missing: bool) -> Index:
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
