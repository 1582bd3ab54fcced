"""Label maps that were made elsewhere, read on the grid of the truth."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from radprobe.files import RadprobeError
from radprobe.imaging import reading, volumes

WRITE_AGAIN = "write it again, or copy it again from where it was made"


def read_on_grid(path: Path, shape: tuple[int, ...], affine: Sequence[float], classes: Sequence[str]) -> np.ndarray:
    """Return the label map of a file on the grid of the truth [H, W] or [X, Y, Z]; axes of a volume are brought there.

    Raises RadprobeError if it is unreadable, on another grid, or has a label that is no class.
    """
    try:
        labels = _read(path, shape, affine)
    except RadprobeError as error:
        remedy = WRITE_AGAIN if "max_quarantine" in error.remedy else error.remedy
        raise RadprobeError(error.what, error.reason, remedy) from None
    if labels.shape != shape:
        found, needed = (" x ".join(map(str, each)) for each in (labels.shape, shape))
        reason = f"is {found} pixels, and the truth of its case {needed} (height x width)"
        raise RadprobeError(path, reason, "write it on the grid of the original image (nearest neighbour)")
    if (most := int(labels.max())) > len(classes):
        known = ", ".join(f"{label} {name}" for label, name in enumerate(classes, 1))
        reason = f"holds label {most}; known are 0 background, {known}"
        raise RadprobeError(path, reason, "number the labels as the classes of the dataset are, from 1")
    return labels


def _read(path: Path, shape: tuple[int, ...], affine: Sequence[float]) -> np.ndarray:
    labels = reading.read_labels(path)
    own = reading.probe(path).affine if labels.ndim == 3 else None
    if labels.ndim != len(shape):
        found, needed = ("a volume", "an image") if labels.ndim == 3 else ("an image", "a volume")
        remedy = "write PNG for images, and NIfTI for volumes"
        raise RadprobeError(path, f"is {found}, and the truth of its case is {needed}", remedy)
    if own is None:  # an image: every file with three axes states an affine
        return labels
    return volumes.same_grid(path, labels, own, shape, np.reshape(affine, (4, 4)))
