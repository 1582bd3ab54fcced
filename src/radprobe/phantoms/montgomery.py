"""Generated raw downloads of Montgomery County chest X-rays, in its official layout."""

from pathlib import Path

import numpy as np
from PIL import Image

from radprobe.catalog import RawEntry
from radprobe.datasets.montgomery import FILMS, MASKS
from radprobe.phantoms import anatomy


def generate(folder: Path, entry: RawEntry, patients: int, seed: int) -> None:
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
