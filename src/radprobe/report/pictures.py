"""Small pictures as data URIs: contours of truth and prediction, and principal components of patch features."""

import base64
import io

import numpy as np
from PIL import Image

from radprobe.report import style

WIDTH = 172  # pixels, as they are shown: contours stay sharp
STRIP_WIDTH = 72  # pixels, of one slice among several: three strips of four beside each other
GAP = 2  # white pixels between the slices of a strip
COLOURS = 64  # of the palette: small files


def size_of(shape: tuple[int, int], width: int = WIDTH) -> tuple[int, int]:
    """Return (width, height) of a picture of an image of this height and width."""
    return width, max(1, round(width * shape[0] / shape[1]))


def grey(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image [H, W] as grey RGB uint8 [h, w, 3]; other than 8-bit images span their 1st to 99th percentile."""
    if image.dtype != np.uint8:
        low, high = np.percentile(image, [1, 99])
        image = (np.clip((image - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    return np.repeat(small[..., None], 3, axis=2)


def overlay(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the image with the contours of two label maps (any size): truth, prediction, white where both run."""
    picture = grey(image, size).copy()
    edges = [
        _contour(np.asarray(Image.fromarray(each).resize(size, Image.Resampling.NEAREST)))
        for each in (truth, prediction)
    ]
    picture[edges[0]], picture[edges[1]] = style.TRUTH, style.PREDICTION
    picture[edges[0] & edges[1]] = style.BOTH
    return picture


def strip(pictures: list[np.ndarray]) -> np.ndarray:
    """Return RGB pictures [h, w, 3] of one size side by side."""
    gap = np.full((pictures[0].shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([part for each in pictures for part in (gap, each)][1:], axis=1)


def _contour(labels: np.ndarray) -> np.ndarray:
    """Return the inner edge of every label, bool [h, w]."""
    padded = np.pad(labels, 1, mode="edge")
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    edge: np.ndarray = (labels > 0) & np.any([each != labels for each in neighbours], axis=0)
    return edge


def components(dense: np.ndarray) -> np.ndarray:
    """Return the first three principal components of patch features [k, C, h, w] as RGB uint8 [k, h, w, 3].

    One PCA over all patches of the k images; each component spans its 1st to 99th percentile; its sign is such that the
    largest loading is positive. Colours mean the same within one backbone, and nothing across backbones.
    """
    k, channels, h, w = dense.shape
    patches = np.asarray(dense, np.float64).transpose(0, 2, 3, 1).reshape(-1, channels)
    patches -= patches.mean(0)
    values, vectors = np.linalg.eigh(patches.T @ patches)
    top = vectors[:, np.argsort(values)[::-1][:3]]
    top *= np.sign(top[np.abs(top).argmax(0), range(top.shape[1])])
    projected = patches @ top
    low, high = np.percentile(projected, [1, 99], axis=0)
    colours = (np.clip((projected - low) / np.maximum(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)
    return np.pad(colours, ((0, 0), (0, 3 - colours.shape[1]))).reshape(k, h, w, 3)


def enlarged(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return RGB uint8 at (width, height), each pixel a rectangle."""
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST))


def uri(picture: np.ndarray) -> str:
    """Return RGB uint8 [h, w, 3] as the data URI of a PNG with a small palette."""
    buffer = io.BytesIO()
    Image.fromarray(picture).quantize(COLOURS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
