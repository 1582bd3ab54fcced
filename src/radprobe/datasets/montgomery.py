"""Montgomery County chest X-rays: 138 films with a mask for each lung (Jaeger et al., QIMS 2014)."""

from pathlib import Path

import numpy as np
from PIL import Image

from radprobe.artifacts import Index
from radprobe.catalog import Dataset
from radprobe.datasets import Layout, anatomy, raw
from radprobe.files import RadprobeError

FILMS = "CXR_png"
MASKS = {"left lung": "leftMask", "right lung": "rightMask"}  # class -> folder under ManualMask


def locate(entry: Dataset, raw_folder: Path) -> Layout | None:
    """Find CXR_png and ManualMask in the folder itself (MontgomerySet), or one or two folders below."""
    for root in raw.places(raw_folder, depth=2):
        folders = (root / FILMS, *(root / "ManualMask" / name for name in MASKS.values()))
        if all(folder.is_dir() for folder in folders):
            return Layout(root=root, variant="official", folders=folders)
    return None


def samples(layout: Layout, entry: Dataset, allow_missing: bool) -> Index:
    """Return one row per film; the patient is the film, its masks are in the catalog's order of classes.

    Raises RadprobeError where a film has no mask, or (unless `allow_missing`) where films of the set are absent.
    """
    films = raw.images(layout.root / FILMS)
    rows = [{"sample_id": film.stem, "patient_id": film.stem, "image": f"{FILMS}/{film.name}"} for film in films]
    for row, film in zip(rows, films, strict=True):
        row["masks"] = [_mask(layout, entry, name, film) for name in entry.classes]
    return raw.index(entry, rows, raw.coverage(layout, entry, len(films), allow_missing))


def _mask(layout: Layout, entry: Dataset, name: str, film: Path) -> str:
    path = f"ManualMask/{MASKS[name]}/{film.name}"
    if not (layout.root / path).is_file():
        raise RadprobeError(
            layout.root / path, f"the mask '{name}' of {film.name} is missing", f"put there {entry.layout}"
        )
    return path


# --- phantom ----------------------------------------------------------------------------------------------------------


def phantom(folder: Path, entry: Dataset, patients: int, seed: int) -> None:
    """Write a generated MontgomerySet of `patients` films of about 512 px, sizes varying, not square.

    The films' layout, names and formats are the official ones: 8-bit grey films, 1-bit masks, readings as text.
    """
    root = folder / "MontgomerySet"
    for name in (FILMS, *(f"ManualMask/{mask}" for mask in MASKS.values()), "ClinicalReadings"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for number in range(1, patients + 1):
        _phantom_film(root, number, np.random.default_rng([seed, number]))
    anatomy.mark(root, patients, seed)


def _phantom_film(root: Path, number: int, rng: np.random.Generator) -> None:
    positive = int(rng.random() < 0.42)  # 58 of the 138 films are of tuberculosis
    height, width = rng.integers(480, 545, 2)
    patient = anatomy.person(rng)
    film, lungs = anatomy.film(patient, ["Infiltration"] if positive else [], (int(height), int(width)), rng)
    name = f"MCUCXR_{number:04d}_{positive}"
    Image.fromarray(film).save(root / FILMS / f"{name}.png", compress_level=1)
    for mask, lung in zip(MASKS.values(), lungs, strict=True):
        Image.fromarray(lung).convert("1", dither=Image.Dither.NONE).save(root / f"ManualMask/{mask}/{name}.png")
    reading = "abnormal, generated" if positive else "normal, generated"
    text = f"Patient's Sex: {patient.sex}\nPatient's Age: {patient.age:03d}Y\n{reading}\n"
    (root / "ClinicalReadings" / f"{name}.txt").write_text(text, encoding="utf-8")
