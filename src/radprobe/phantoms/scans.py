"""Generated axial slices: a chest in CT and a head in MR, with disease drawn so that it can be learnt.

Drawings, not anatomy, like `anatomy`. All lengths are fractions of half the image's side; y points down.
"""

import math
from dataclasses import dataclass

import numpy as np

from radprobe.phantoms import anatomy
from radprobe.phantoms.anatomy import Person, ellipse

N_WAVES = 12

CHEST_DISEASE = {"Covid": "ground glass", "Others": "mass", "Healthy": None}


@dataclass(frozen=True)
class Patient:
    """What is the same in all slices of a patient: the build, how the patient lies, and the tissue's own pattern.

    Patients differ as much as real ones do for the leak gate, which looks for copies.
    """

    build: Person
    turn: float  # radians
    centre: tuple[float, float]
    stretch: tuple[float, float]
    waves: np.ndarray  # [N_WAVES, 3]: frequency along x and y, phase

    def grid(self, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y [H, W] of the patient's own axes."""
        x, y = anatomy.grid(shape)
        x, y = x - self.centre[0], y - self.centre[1]
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return (cos * x - sin * y) / self.stretch[0], (sin * x + cos * y) / self.stretch[1]

    def pattern(self, axes: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Return the tissue's pattern [H, W], of mean about 0 and standard deviation about 1."""
        x, y = axes
        waves = [np.cos(fx * x + fy * y + phase) for fx, fy, phase in self.waves.tolist()]
        pattern: np.ndarray = sum(waves) / np.sqrt(N_WAVES / 2)
        return pattern


def patient(rng: np.random.Generator) -> Patient:
    """Draw a patient."""
    return Patient(
        build=anatomy.person(rng),
        turn=rng.uniform(-0.06, 0.06),
        centre=tuple(rng.uniform(-0.03, 0.03, 2).tolist()),
        stretch=tuple(rng.uniform(0.94, 1.04, 2).tolist()),
        waves=np.column_stack([rng.normal(0, 11, (N_WAVES, 2)), rng.uniform(0, 2 * np.pi, N_WAVES)]),
    )


def chest(who: Patient, group: str, z: float, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw a slice at height z (0 base, 1 apex) of a chest CT in a lung window: uint8 [H, W].

    Disease is seen in the middle of the lungs only, as in patients.
    """
    axes = who.grid(shape)
    size = 0.75 + 0.5 * np.sin(np.pi * (0.15 + 0.7 * z))
    body = ellipse(axes, 0, 0, 0.92, 0.70)
    sides = [ellipse(axes, side * 0.42, -0.02, who.build.lung_width * size, 0.42 * size) for side in (1, -1)]
    lungs = sides[0] + sides[1]
    density = 0.62 * body - 0.5 * lungs
    density += 0.35 * ellipse(axes, 0, 0.45, 0.11, 0.11)  # spine
    density += who.pattern(axes) * (0.06 * (body - lungs) + 0.03 * lungs)
    if 0.15 < z < 0.85:
        density += _disease(CHEST_DISEASE[group], axes, sides, rng)
    density += rng.normal(0, 0.02, shape)
    grey: np.ndarray = np.clip(255 * density * who.build.contrast, 0, 255).astype(np.uint8)
    return grey


def _disease(
    kind: str | None, axes: tuple[np.ndarray, np.ndarray], sides: list[np.ndarray], rng: np.random.Generator
) -> np.ndarray | float:
    """Return what a disease adds to the density [H, W]; `sides` are the two lungs."""
    added: np.ndarray | float = 0.0
    if kind == "ground glass":  # hazy patches at the outer edge of both lungs, vessels seen through them
        places = [(side * rng.uniform(0.5, 0.6), rng.uniform(-0.2, 0.25)) for side in (1, -1) for _ in range(2)]
        patches = sum(ellipse(axes, x0, y0, 0.14, 0.16, blur=0.12) for x0, y0 in places)
        added = 0.28 * np.clip(patches, 0, 1) * (sides[0] + sides[1])
    elif kind == "mass":
        side = int(rng.integers(2))
        x0 = (1 - 2 * side) * rng.uniform(0.3, 0.4)
        added = 0.5 * ellipse(axes, x0, rng.uniform(-0.15, 0.15), 0.08, 0.08, blur=0.02) * sides[side]
    return added


def brain(who: Patient, tumour: str, shape: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a slice of a contrast-enhanced T1 head with a tumour: int16 [H, W] (about 0 to 2,000), bool [H, W].

    meningioma: bright and even, at the skull; glioma: a bright ring around a dark core, deep on one side; pituitary:
    small and very bright, in the midline.
    """
    axes = who.grid(shape)
    scale = who.build.lung_width / 0.27
    head, inside = ellipse(axes, 0, 0, 0.72 * scale, 0.86 * scale), ellipse(axes, 0, 0, 0.62 * scale, 0.76 * scale)
    signal = 0.8 * (head - inside) + inside * (0.42 + 0.07 * who.pattern(axes))
    signal -= 0.25 * sum(ellipse(axes, side * 0.12, -0.05, 0.06, 0.22) for side in (1, -1))  # ventricles
    side = 1 - 2 * int(rng.integers(2))
    if tumour == "meningioma":
        x0, y0, radius = side * 0.48 * scale, rng.uniform(-0.35, 0.2), rng.uniform(0.13, 0.17)
    elif tumour == "glioma":
        x0, y0, radius = side * rng.uniform(0.25, 0.32), rng.uniform(-0.25, 0.25), rng.uniform(0.17, 0.23)
    else:
        x0, y0, radius = rng.uniform(-0.02, 0.02), rng.uniform(0.28, 0.34), rng.uniform(0.06, 0.09)
    drawn = ellipse(axes, x0, y0, radius, radius, blur=0.03)
    signal = signal * (1 - drawn) + drawn * {"meningioma": 0.85, "glioma": 0.80, "pituitary": 1.0}[tumour]
    if tumour == "glioma":
        signal -= 0.55 * ellipse(axes, x0, y0, 0.6 * radius, 0.6 * radius, blur=0.03)
    signal += rng.normal(0, 0.02, shape)
    return np.clip(1600 * who.build.contrast * signal, 0, None).astype(np.int16), drawn > 0.5
