"""Montgomery County chest X-rays: 138 films with a mask for each lung (Jaeger et al., QIMS 2014)."""

from pathlib import Path
from typing import Any

from radprobe.artifacts import Index
from radprobe.catalog import RawEntry
from radprobe.datasets import Layout, raw
from radprobe.files import RadprobeError

FILMS = "CXR_png"
MASKS = {"left lung": "leftMask", "right lung": "rightMask"}  # class -> folder under ManualMask


def locate(entry: RawEntry, raw_folder: Path) -> Layout | None:
    """Find CXR_png and ManualMask in the folder itself (MontgomerySet), or one or two folders below."""
    for root in raw.places(raw_folder, depth=2):
        folders = (root / FILMS, *(root / "ManualMask" / name for name in MASKS.values()))
        if all(folder.is_dir() for folder in folders):
            return Layout(root=root, variant="official", folders=folders)
    return None


def samples(layout: Layout, entry: RawEntry, allow_missing: bool) -> Index:
    """Return one row per film; the patient is the film, its masks are in the catalog's order of classes.

    Raises RadprobeError where a film has no mask, or (unless `allow_missing`) where films of the set are absent.
    """
    films = raw.images(layout.root / FILMS)
    rows: list[dict[str, Any]] = []
    for film in films:
        masks = [_mask(layout, entry, name, film) for name in entry.classes]
        image = f"{FILMS}/{film.name}"
        rows.append({"sample_id": film.stem, "patient_id": film.stem, "image": image, "masks": masks})
    return raw.index(entry, rows, raw.coverage(layout, entry, len(films), allow_missing))


def _mask(layout: Layout, entry: RawEntry, name: str, film: Path) -> str:
    path = f"ManualMask/{MASKS[name]}/{film.name}"
    if not (layout.root / path).is_file():
        raise RadprobeError(
            layout.root / path, f"the mask '{name}' of {film.name} is missing", f"put there {entry.layout}"
        )
    return path
