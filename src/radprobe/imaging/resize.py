"""To the stored size and back. Pixel centres are at half coordinates throughout, so nothing is shifted."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:  # prepare runs where torch is not installed
    import torch


def resize_image(image: np.ndarray, side: int) -> np.ndarray:
    """Resize grey [H, W], uint8 or int16, to [side, side] of the same dtype.

    Bicubic, as in the study, by PIL, whose kernel widens when it shrinks (antialias): without that, fine texture of a
    4,000 px film folds into false patterns. Lanczos would ring at the edges of bones, bilinear blurs more. Overshoot is
    cut at the range of the image's own values.
    """
    if image.dtype == np.uint8:
        return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
    floats = Image.fromarray(np.ascontiguousarray(image, np.float32))
    resized = np.rint(np.asarray(floats.resize((side, side), Image.Resampling.BICUBIC)))
    clipped: np.ndarray = np.clip(resized, image.min(), image.max()).astype(image.dtype)
    return clipped


def resize_mask(mask: np.ndarray, side: int) -> np.ndarray:
    """Resize a label map [H, W] to [side, side] by the nearest pixel centre: no label is made up."""
    rows, columns = (_nearest(length, side) for length in mask.shape)
    nearest: np.ndarray = mask[np.ix_(rows, columns)]
    return nearest


def _nearest(length: int, side: int) -> np.ndarray:
    return (2 * np.arange(side) + 1) * length // (2 * side)  # floor((i + 0.5) length / side), exact at ties


def to_original(probabilities: "np.ndarray | torch.Tensor", shape: tuple[int, ...]) -> np.ndarray:
    """Bring probabilities [K, h, w] (NumPy or torch) to the original grid and return the label map, uint8 [H, W].

    Channel k is label k, 0 being background. Probabilities are resized (bilinear, antialiased where that shrinks them)
    and the most probable label is taken there: resizing labels would give edges the steps of the model's grid.
    """
    import torch

    values = torch.as_tensor(probabilities).float()[None]
    size = tuple(int(side) for side in shape)
    resized = torch.nn.functional.interpolate(values, size=size, mode="bilinear", align_corners=False, antialias=True)
    labels: np.ndarray = resized[0].argmax(0).to(torch.uint8).cpu().numpy()
    return labels
