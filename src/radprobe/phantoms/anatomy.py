"""Generated chest films: body, lungs, heart, spine and ribs, with findings drawn so that they can be learnt.

These are drawings, not anatomy: they exercise the whole pipeline on data that anyone may have. The patient's left is on
the right of the image, as in a real film. All lengths are fractions of half the image's side; y points down.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from radprobe import files
from radprobe.datasets import PHANTOM_MARKER

VERSION = 3  # of the generator: a phantom of another version is made anew
SHADOWS = 25


@dataclass(frozen=True)
class Person:
    """What is the same in all films of a patient."""

    sex: str
    age: int
    lung_width: float
    lung_height: float
    heart: float  # half width
    ribs: float  # phase
    contrast: float
    shadows: int  # seed of what lies over the chest: folds, tissue, lines


def person(rng: np.random.Generator) -> Person:
    """Draw a patient."""
    return Person(
        sex=str(rng.choice(["F", "M"])),
        age=int(rng.integers(18, 90)),
        lung_width=rng.uniform(0.24, 0.30),
        lung_height=rng.uniform(0.50, 0.62),
        heart=rng.uniform(0.22, 0.26),
        ribs=rng.uniform(0, 2 * np.pi),
        contrast=rng.uniform(0.8, 1.2),
        shadows=int(rng.integers(2**32)),
    )


def mark(root: Path, patients: int, seed: int) -> None:
    """Write the marker PHANTOM.json, last: with how many files a complete phantom has."""
    n_files = sum(path.is_file() for path in root.rglob("*"))
    content = {"patients": patients, "seed": seed, "generator": VERSION, "files": n_files}
    files.write_json(root / PHANTOM_MARKER, content)


def grid(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return x [1, W] and y [H, 1] from -1 to 1 at pixel centres."""
    height, width = shape
    x = (np.arange(width, dtype=np.float32) + 0.5) / width * 2 - 1
    y = (np.arange(height, dtype=np.float32) + 0.5) / height * 2 - 1
    return x[None, :], y[:, None]


def ellipse(
    grid: tuple[np.ndarray, np.ndarray], x0: float, y0: float, rx: float, ry: float, blur: float = 0.04
) -> np.ndarray:
    """Return a soft ellipse [H, W] on a grid, 1 inside and 0 outside, with an edge about `blur` wide."""
    x, y = grid
    distance = np.sqrt(((x - x0) / rx) ** 2 + ((y - y0) / ry) ** 2)
    return np.clip((1 - distance) * min(rx, ry) / blur + 0.5, 0, 1)


@dataclass
class Chest:
    """A film being drawn. `density` [H, W] is about 0 (air) to 1 (bone); findings change it or the shapes."""

    shape: tuple[int, int]
    patient: Person
    rng: np.random.Generator
    heart: float
    lung_height: float
    density: np.ndarray = field(init=False)

    @cached_property
    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """x [1, W] and y [H, 1] from -1 to 1 at pixel centres."""
        return grid(self.shape)

    def ellipse(self, x0: float, y0: float, rx: float, ry: float, blur: float = 0.04) -> np.ndarray:
        """Return a soft ellipse [H, W], 1 inside and 0 outside, with an edge about `blur` wide."""
        return ellipse(self.grid, x0, y0, rx, ry, blur)

    @cached_property
    def lungs(self) -> tuple[np.ndarray, np.ndarray]:
        """The left and the right lung, each [H, W] in 0 to 1: ellipses cut by the heart and the diaphragm."""
        x, y = self.grid
        below = np.clip((self.lung_height - 0.12 - y + 0.1 * np.cos(4 * (np.abs(x) - 0.4))) / 0.03, 0, 1)
        outside_heart = 1 - self.heart_shadow
        sides = [self.ellipse(side * 0.42, -0.08, self.patient.lung_width, self.lung_height) for side in (1, -1)]
        return tuple(lung * below * outside_heart for lung in sides)

    @cached_property
    def heart_shadow(self) -> np.ndarray:
        """The heart [H, W], more of it on the patient's left."""
        return self.ellipse(0.08, 0.28, self.heart, 0.26)

    def side(self) -> int:
        """Return 0 (left lung) or 1 (right lung) at random."""
        return int(self.rng.integers(2))

    def at(self, side: int, x0: float, y0: float) -> tuple[float, float]:
        """Return a place in a lung: x0 from the midline outwards, both slightly moved at random."""
        moved = self.rng.uniform(-0.05, 0.05, 2)
        return (1 - 2 * side) * x0 + moved[0], y0 + moved[1]


def film(
    patient: Person, findings: list[str], shape: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Draw a film: uint8 [H, W], and the masks of the left and the right lung, uint8 0 or 255 [H, W]."""
    heart = patient.heart * (1.5 if "Cardiomegaly" in findings else 1)
    lung_height = patient.lung_height + (0.13 if "Emphysema" in findings else 0)
    chest = Chest(shape, patient, rng, heart, lung_height)
    x, y = chest.grid
    lungs = chest.lungs[0] + chest.lungs[1]
    body = chest.ellipse(0, 0.25, 0.9, 1.25)
    chest.density = 0.62 * body + 0.12 * chest.heart_shadow
    chest.density += 0.15 * np.clip((0.09 - np.abs(x)) / 0.03, 0, 1)
    chest.density -= 0.42 * lungs
    chest.density += 0.10 * np.clip(np.sin(22 * (y + 0.35 * x**2) + patient.ribs), 0, 1) * body * (np.abs(x) < 0.75)
    for name in findings:
        FINDINGS[name](chest)
    chest.density += _shadows(chest) * body
    chest.density += rng.normal(0, 0.02, shape).astype(np.float32)
    grey = 128 + 220 * patient.contrast * (chest.density - 0.45) + rng.uniform(-12, 12)
    left, right = ((lung > 0.5).astype(np.uint8) * 255 for lung in chest.lungs)
    return np.clip(grey, 0, 255).astype(np.uint8), (left, right)


def _shadows(chest: Chest) -> np.ndarray:
    """Soft shadows [H, W] of no meaning, the same in all films of a patient: without them patients look alike."""
    rng = np.random.default_rng(chest.patient.shadows)
    height, width = chest.shape
    coarse = (-(-height // 4), -(-width // 4))  # they are smooth: a quarter of the pixels says all
    x, y = grid(coarse)
    total = np.zeros(coarse, np.float32)
    for x0, y0, angle in rng.uniform((-1, -1, 0), (1, 1, np.pi), (SHADOWS, 3)):
        along = (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle)
        across = (y - y0) * np.cos(angle) - (x - x0) * np.sin(angle)
        length = rng.uniform(0.1, 0.5)
        breadth = rng.uniform(0.03, 0.15)
        total += rng.uniform(-0.12, 0.12) * np.exp(-((along / length) ** 2) - (across / breadth) ** 2)
    return np.asarray(Image.fromarray(total).resize(chest.shape[::-1], Image.Resampling.BICUBIC))


# --- findings: each adds its sign to chest.density --------------------------------------------------------------------


def _blob(chest: Chest, side: int, x0: float, y0: float, radius: float, strength: float, blur: float) -> None:
    x1, y1 = chest.at(side, x0, y0)
    chest.density += strength * chest.ellipse(x1, y1, radius, radius, blur)


def _atelectasis(chest: Chest) -> None:
    """A thick band across one lung."""
    side = chest.side()
    _, y = chest.grid
    _, y0 = chest.at(side, 0, 0.2)
    chest.density += 0.35 * np.clip((0.05 - np.abs(y - y0)) / 0.02, 0, 1) * chest.lungs[side]


def _shape_only(chest: Chest) -> None:
    """Nothing to add: Cardiomegaly and Emphysema change the shapes themselves."""


def _consolidation(chest: Chest) -> None:
    """A large dense blob in the right middle zone."""
    _blob(chest, 1, 0.42, 0.05, 0.20, 0.35, 0.10)


def _edema(chest: Chest) -> None:
    """Both central zones bright."""
    for side in (0, 1):
        _blob(chest, side, 0.28, -0.05, 0.22, 0.28, 0.20)


def _effusion(chest: Chest) -> None:
    """The lower part of one lung white, with a curved upper edge."""
    side = chest.side()
    x, y = chest.grid
    edge = 0.12 - 0.5 * (np.abs(x) - 0.4) ** 2
    chest.density += 0.4 * np.clip((y - edge) / 0.04, 0, 1) * chest.lungs[side]


def _emphysema(chest: Chest) -> None:
    """Long dark lungs."""
    chest.density -= 0.10 * (chest.lungs[0] + chest.lungs[1])


def _fibrosis(chest: Chest) -> None:
    """A fine net in the lower zones."""
    x, y = chest.grid
    net = np.maximum(np.sin(70 * (x + y)), np.sin(70 * (x - y))) > 0.7
    chest.density += 0.25 * net * (y > 0) * (chest.lungs[0] + chest.lungs[1])


def _hernia(chest: Chest) -> None:
    """A ring with air in it behind the heart."""
    chest.density += 0.30 * chest.ellipse(0.05, 0.42, 0.16, 0.16) - 0.55 * chest.ellipse(0.05, 0.42, 0.10, 0.10)


def _infiltration(chest: Chest) -> None:
    """Coarse patches in both upper zones."""
    x, y = chest.grid
    phase = chest.rng.uniform(0, 6, 2)
    patches = np.clip(np.sin(17 * x + phase[0]) * np.sin(17 * y + phase[1]), 0, 1)
    chest.density += 0.35 * patches * (y < 0) * (chest.lungs[0] + chest.lungs[1])


def _mass(chest: Chest) -> None:
    """One large sharp disc."""
    _blob(chest, chest.side(), 0.45, -0.2, 0.13, 0.40, 0.02)


def _nodule(chest: Chest) -> None:
    """Three small sharp discs."""
    for y0 in (-0.35, -0.1, 0.15):
        _blob(chest, chest.side(), 0.42, y0, 0.045, 0.45, 0.02)


def _pleural_thickening(chest: Chest) -> None:
    """A bright rim on the outer side of both lungs."""
    x, _ = chest.grid
    chest.density += 0.40 * np.clip((np.abs(x) - 0.60) / 0.03, 0, 1) * (chest.lungs[0] + chest.lungs[1])


def _pneumonia(chest: Chest) -> None:
    """A striped blob in the left lower zone."""
    _, y = chest.grid
    x1, y1 = chest.at(0, 0.45, 0.15)
    chest.density += (0.25 + 0.15 * np.sin(60 * y)) * chest.ellipse(x1, y1, 0.20, 0.20, 0.08)


def _pneumothorax(chest: Chest) -> None:
    """One apex black, with a sharp line under it."""
    side = chest.side()
    _, y = chest.grid
    apex = np.clip((-0.28 - y) / 0.01, 0, 1) * chest.lungs[side]
    line = (np.abs(y + 0.28) < 0.015) * chest.lungs[side]
    chest.density += 0.35 * line - 0.22 * apex


FINDINGS = {
    "Atelectasis": _atelectasis,
    "Cardiomegaly": _shape_only,
    "Consolidation": _consolidation,
    "Edema": _edema,
    "Effusion": _effusion,
    "Emphysema": _emphysema,
    "Fibrosis": _fibrosis,
    "Hernia": _hernia,
    "Infiltration": _infiltration,
    "Mass": _mass,
    "Nodule": _nodule,
    "Pleural_Thickening": _pleural_thickening,
    "Pneumonia": _pneumonia,
    "Pneumothorax": _pneumothorax,
}
