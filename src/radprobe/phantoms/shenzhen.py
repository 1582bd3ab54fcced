"""Generated raw downloads of Shenzhen chest X-rays, in its official layout."""

from pathlib import Path

import numpy as np
from PIL import Image

from radprobe.catalog import RawEntry
from radprobe.datasets.shenzhen import FILMS, MASKS, PREFIX
from radprobe.phantoms import anatomy

MODES = ("RGB", "L", "P")  # of the PNGs, in turn


def generate(folder: Path, entry: RawEntry, patients: int, seed: int) -> None:
    """Write ChinaSet_AllFiles/CXR_png and mask/: `patients` films with a mask, and a sixth as many without.

    Films are about 300 px, not square, of varying PNG modes; masks are 8-bit, 0 and 255.
    """
    films, masks = folder / FILMS[1], folder / MASKS[0]
    films.mkdir(parents=True)
    masks.mkdir()
    total = patients + patients // 6
    without = set(range(6, total, 7))
    for number in range(total):
        rng = np.random.default_rng([seed, number])
        height, width = (int(side) for side in rng.integers(280, 330, 2))
        positive = int(number >= total // 2)  # the second half is of tuberculosis
        findings = ["Infiltration"] if positive else []
        film, lungs = anatomy.film(anatomy.person(rng), findings, (height, width), rng)
        name = f"{PREFIX}{number + 1:04d}_{positive}"
        Image.fromarray(film).convert(MODES[number % 3]).save(films / f"{name}.png", compress_level=1)
        if number not in without:
            Image.fromarray(np.maximum(*lungs)).save(masks / f"{name}_mask.png", compress_level=1)
    (films / "Thumbs.db").write_bytes(bytes(16))  # is in the official archive
    anatomy.mark(folder, patients, seed)
