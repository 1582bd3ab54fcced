"""Shenzhen chest X-rays: 662 films (Jaeger et al., QIMS 2014), 566 of them with lung masks (Stirenko et al., 2018)."""

from pathlib import Path
from typing import Any

from radprobe.artifacts import Index
from radprobe.catalog import RawEntry
from radprobe.datasets import Layout, raw

FILMS = ("CXR_png", "ChinaSet_AllFiles/CXR_png", "ChinaSet_AllFiles/ChinaSet_AllFiles/CXR_png", "images", "img")
MASKS = ("mask", "masks", "mask/mask", "masks/masks", "shcxr-lung-mask/mask", "shcxr-lung-mask/mask/mask")
PREFIX = "CHNCXR_"  # other sets' films lie in the same folders in some copies


def locate(entry: RawEntry, raw_folder: Path) -> Layout | None:
    """Find films and masks, which come from two sources, side by side in the folder itself or up to two below.

    Variants: `official` (ChinaSet_AllFiles/CXR_png or CXR_png), `repacked` (images/ or img/).
    """
    for root in raw.places(raw_folder, depth=2):
        films = [root / name for name in FILMS if _has_films(root / name)]
        masks = [root / name for name in MASKS if _has_films(root / name)]
        if films and masks:
            variant = "official" if films[0].name == "CXR_png" else "repacked"
            return Layout(root, variant, folders=(films[0], masks[0]))
    return None


def _has_films(folder: Path) -> bool:
    return folder.is_dir() and next(folder.glob(f"{PREFIX}*.png"), None) is not None


def samples(layout: Layout, entry: RawEntry, allow_missing: bool) -> Index:
    """Return one row per film that has a mask; the patient is the film. Films without a mask are counted.

    Raises RadprobeError where fewer of them than the published 566 are here, unless `allow_missing`.
    """
    films, masks = (_by_name(folder) for folder in layout.folders)
    rows = [_row(layout, film, masks[name]) for name, film in films.items() if name in masks]
    facts = raw.coverage(layout, entry, len(rows), allow_missing)
    return raw.index(entry, rows, {**facts, "n_without_mask": len(films) - len(rows)})


def _by_name(folder: Path) -> dict[str, Path]:
    found = [path for path in raw.images(folder) if path.name.startswith(PREFIX)]
    return {path.stem.removesuffix("_mask"): path for path in found}


def _row(layout: Layout, film: Path, mask: Path) -> dict[str, Any]:
    image, drawn = (path.relative_to(layout.root).as_posix() for path in (film, mask))
    return {"sample_id": film.stem, "patient_id": film.stem, "image": image, "masks": [drawn]}
