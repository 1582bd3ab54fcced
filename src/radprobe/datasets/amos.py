"""AMOS: abdominal CT and MRI with 15 organs (Ji et al., NeurIPS 2022). The study takes the 300 labelled CT volumes."""

from pathlib import Path

from radprobe.artifacts import Index
from radprobe.catalog import RawEntry
from radprobe.datasets import Layout, raw
from radprobe.files import RadprobeError

PARTS = ("Tr", "Va")  # imagesTr and labelsTr, imagesVa and labelsVa; imagesTs has no labels
NAME = r"(amos_\d{4})"
FIRST_MR = 500  # the publisher's readme: ids below 500 are CT


def locate(entry: RawEntry, raw_folder: Path) -> Layout | None:
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


def samples(layout: Layout, entry: RawEntry, allow_missing: bool) -> Index:
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
