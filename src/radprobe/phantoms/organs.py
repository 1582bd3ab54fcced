"""Generated bodies in 3-D, CT and MRI, with organs that can be told apart in one slice; written as NIfTI volumes.

As the films of `anatomy` these are drawings, not anatomy. Coordinates run from -1 to 1 over the volume, towards the
patient's right, front and head (RAS): lengths are fractions of half its side.
"""

import gzip
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from radprobe import files

APPLE_DOUBLE = bytes.fromhex("0005160700020000") + b"Mac OS X        "  # how the `._` files of macOS begin

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Organ:
    """An ellipsoid: centre, radii, mean value (HU in CT), and stripes of some strength across it."""

    centre: Triple
    radii: Triple
    value: float
    stripes: float = 0
    waves: float = 8  # stripes from side to side of the volume


@dataclass(frozen=True)
class Scan:
    """A volume and its label map [X, Y, Z], drawn towards RAS, and how they are to be stored.

    `spacing` is in mm; `axes` say whither the stored axes run, as in nibabel; `inter` is what the header adds to the
    stored values of the image.
    """

    values: np.ndarray
    labels: np.ndarray
    spacing: Triple
    axes: str = "RAS"
    inter: int = 0


# Values lie further apart than in life, so that a light decoder can learn them within a window of 1,600 HU. Later ones
# are drawn over earlier ones.
ABDOMEN = {
    "liver": Organ((0.40, 0.08, 0.45), (0.34, 0.38, 0.50), 130, 30, 6),
    "stomach": Organ((-0.33, 0.22, 0.45), (0.24, 0.20, 0.40), -160, 30, 10),
    "spleen": Organ((-0.60, -0.12, 0.45), (0.15, 0.22, 0.45), 230, 30, 12),
    "right kidney": Organ((0.42, -0.34, -0.10), (0.14, 0.13, 0.42), 330),
    "left kidney": Organ((-0.42, -0.34, -0.02), (0.14, 0.13, 0.42), 300, 60, 14),
    "duodenum": Organ((0.24, 0.12, -0.25), (0.12, 0.11, 0.32), -60, 60, 16),
    "pancreas": Organ((-0.12, 0.08, -0.02), (0.26, 0.09, 0.26), 190, 40, 20),
    "gallbladder": Organ((0.45, 0.34, 0.02), (0.11, 0.10, 0.28), -90),
    "portal vein and splenic vein": Organ((0.02, 0.24, 0.20), (0.20, 0.07, 0.24), 420),
    "esophagus": Organ((-0.06, 0.00, 0.70), (0.09, 0.08, 0.40), -220),
    "right adrenal gland": Organ((0.22, -0.24, 0.42), (0.08, 0.09, 0.24), 280, 80, 24),
    "left adrenal gland": Organ((-0.24, -0.24, 0.42), (0.08, 0.09, 0.24), 260),
    "inferior vena cava": Organ((0.12, -0.14, 0.05), (0.09, 0.08, 1.40), 390),
    "aorta": Organ((-0.09, -0.18, 0.05), (0.09, 0.09, 1.60), 480),
    "bladder": Organ((0.00, 0.24, -0.75), (0.26, 0.20, 0.34), -40),
    "prostate/uterus": Organ((0.00, -0.06, -0.78), (0.18, 0.13, 0.30), 160, 60, 18),
}
SAME = {"postcava": "inferior vena cava"}  # as AMOS calls it
TRUNK = Organ((0, 0, 0), (0.88, 0.66, 20), 40)
SPINE = Organ((0, -0.42, 0), (0.14, 0.14, 20), 560, 80, 10)
SKIN = (0.86, 0.96)  # where the fat under it ends, as a share of the trunk's radii
AIR, FAT = -1000, -100

CHEST = {  # arbitrary units of an MRI, blood bright
    "right ventricle": Organ((0.18, 0.28, -0.10), (0.26, 0.20, 0.70), 330, 40, 14),
    "left ventricle": Organ((-0.26, 0.18, -0.20), (0.24, 0.22, 0.70), 420),
    "right atrium": Organ((0.30, -0.06, 0.10), (0.18, 0.20, 0.70), 260, 60, 22),
    "left atrium": Organ((-0.06, -0.22, 0.15), (0.24, 0.16, 0.75), 560),
    "descending aorta": Organ((-0.28, -0.46, 0), (0.08, 0.08, 20), 480),
}
LUNGS = (Organ((0.58, 0, 0.1), (0.24, 0.50, 1.6), 20), Organ((-0.62, 0, 0.1), (0.22, 0.50, 1.6), 20))

TEMPORAL_LOBE = {
    "anterior": Organ((0.00, 0.42, -0.30), (0.48, 0.30, 0.46), 240),
    "posterior": Organ((-0.15, -0.22, 0.05), (0.50, 0.46, 0.52), 380, 60, 10),
}


class _Drawing:
    """A volume that is being drawn: values float32 and labels uint8, both [X, Y, Z]. No two patients are alike."""

    def __init__(self, shape: tuple[int, int, int], background: float, rng: np.random.Generator):
        axes = [(np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1 for side in shape]
        shift, scale = (rng.uniform(*span, 3).astype(np.float32) for span in ((-0.05, 0.05), (0.92, 1.06)))
        self.grid = np.meshgrid(
            *((axis - shift[k]) / scale[k] for k, axis in enumerate(axes)), indexing="ij", sparse=True
        )
        self.values = np.full(shape, background, np.float32)
        self.labels = np.zeros(shape, np.uint8)
        self.rng = rng

    def add(self, organ: Organ, label: int = 0, size: float = 1) -> None:
        """Draw an organ over what is there."""
        inside = (
            sum(
                ((axis - middle) / (radius * size)) ** 2
                for axis, middle, radius in zip(self.grid, organ.centre, organ.radii, strict=True)
            )
            < 1
        )
        x, y, _ = self.grid
        stripes = organ.stripes * np.sin(organ.waves * np.pi * (x + y))
        self.values = np.where(inside, organ.value + stripes, self.values)
        self.labels[inside] = label

    def add_varied(self, organ: Organ, label: int) -> None:
        """Draw an organ a little elsewhere and a little larger or smaller: never twice the same."""
        x, y, z = (at + self.rng.uniform(-0.02, 0.02) for at in organ.centre)
        a, b, c = (radius * self.rng.uniform(0.92, 1.10) for radius in organ.radii)
        centre = (x, y, z)
        radii = (a, b, c)
        self.add(replace(organ, centre=centre, radii=radii, value=organ.value * self.rng.uniform(0.97, 1.03)), label)

    def add_clutter(self, n: int, low: float, high: float) -> None:
        """Draw `n` small things without a label anywhere in the middle: bowel, vessels. They differ most by patient."""
        for _ in range(n):
            centre, radii = self.rng.uniform(-0.6, 0.6, 3) * (1, 0.7, 1.5), self.rng.uniform(0.05, 0.16, 3) * (1, 1, 3)
            self.add(Organ(tuple(centre.tolist()), tuple(radii.tolist()), self.rng.uniform(low, high)))

    def noisy(self, sigma: float) -> np.ndarray:
        """Return the values with noise."""
        return self.values + self.rng.normal(0, sigma, self.values.shape).astype(np.float32)


def abdomen(shape: tuple[int, int, int], classes: list[str], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw an abdominal CT: HU int16 [X, Y, Z], and labels uint8, k + 1 where classes[k] is. All organs are drawn."""
    number = {SAME.get(name, name): label for label, name in enumerate(classes, 1)}
    drawing = _Drawing(shape, AIR, rng)
    drawing.add(replace(TRUNK, value=FAT))
    drawing.add(TRUNK, size=rng.uniform(*SKIN))
    drawing.add_clutter(40, -140, 110)
    drawing.add(SPINE)
    for name, organ in ABDOMEN.items():
        drawing.add_varied(organ, number.get(name, 0))
    return np.rint(drawing.noisy(12)).astype(np.int16), drawing.labels


def heart(shape: tuple[int, int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw an MRI of the chest: arbitrary units float32 [X, Y, Z], another scale each time; the left atrium is 1."""
    drawing = _Drawing(shape, 5, rng)
    drawing.add(replace(TRUNK, value=180))
    drawing.add_clutter(30, 90, 240)
    for organ in (*LUNGS, *CHEST.values()):
        drawing.add_varied(organ, int(organ is CHEST["left atrium"]))
    return np.abs(drawing.noisy(14)) * np.float32(rng.uniform(0.3, 4)), drawing.labels


def hippocampus(shape: tuple[int, int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a cropped MRI: arbitrary units float32 [X, Y, Z], the hippocampus darker: 1 anterior, 2 posterior."""
    drawing = _Drawing(shape, 620, rng)
    drawing.add_clutter(20, 520, 700)
    for label, organ in enumerate(TEMPORAL_LOBE.values(), 1):
        drawing.add_varied(organ, label)
    return np.abs(drawing.noisy(40)) * np.float32(rng.uniform(0.8, 3)), drawing.labels


# --- writing ----------------------------------------------------------------------------------------------------------


def save(scan: Scan, images: Path, labels: Path | None, case: str) -> None:
    """Write a scan's volume to `images`, and its label map of the same name to `labels`, if any."""
    stored = scan.values - scan.inter if scan.inter else scan.values
    _write(images / f"{case}.nii.gz", stored.astype(scan.values.dtype), scan, scan.inter)
    if labels:
        save_labels(scan, labels, case)


def save_labels(scan: Scan, labels: Path, name: str) -> None:
    """Write a scan's label map."""
    _write(labels / f"{name}.nii.gz", scan.labels, scan)


def _write(path: Path, stored: np.ndarray, scan: Scan, inter: int = 0) -> None:
    """Write an array [X, Y, Z] that runs towards RAS as NIfTI, its axes turned as the scan says."""
    import nibabel  # the graph is built where it is not installed
    from nibabel import orientations

    affine = np.diag([*scan.spacing, 1])
    affine[:3, 3] = -np.array(scan.spacing) * (np.array(stored.shape) - 1) / 2
    turn = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt(scan.axes))
    affine = affine @ orientations.inv_ornt_aff(turn, stored.shape)
    image = nibabel.Nifti1Image(orientations.apply_orientation(stored, turn), affine)
    if inter:
        image.header.set_slope_inter(1, inter)  # nibabel then writes the array as it is
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))  # no time of day: the same bytes again


def write_junk(folder: Path, case: str) -> None:
    """Write the `._` file that macOS leaves beside a volume; the official archives hold such."""
    (folder / f"._{case}.nii.gz").write_bytes(APPLE_DOUBLE + bytes(120))


def write_listing(
    path: Path,
    name: str,
    modality: str,
    classes: list[str],
    training: list[str],
    test: list[str],
    validation: list[str] | None = None,
) -> None:
    """Write dataset.json in the form of the Medical Segmentation Decathlon, which AMOS uses too."""
    listed: dict[str, Any] = {"training": [_entry("Tr", case) for case in training]}
    if validation is not None:
        listed |= {"numValidation": len(validation), "validation": [_entry("Va", case) for case in validation]}
    labels = dict(enumerate(["background", *classes]))
    content = {
        "name": name,
        "description": "generated",
        "reference": "none",
        "licence": "none: generated",
        "release": "1.0",
        "tensorImageSize": "3D",
        "modality": {"0": modality},
        "labels": {str(label): organ for label, organ in labels.items()},
        "numTraining": len(training),
        "numTest": len(test),
        **listed,
        "test": [f"./imagesTs/{case}.nii.gz" for case in test],
    }
    files.write_json(path, content)


def _entry(part: str, case: str) -> dict[str, str]:
    return {"image": f"./images{part}/{case}.nii.gz", "label": f"./labels{part}/{case}.nii.gz"}
