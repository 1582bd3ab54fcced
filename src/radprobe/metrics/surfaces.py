"""How far two surfaces lie apart: HD95, ASSD and NSD of label maps, and the error of their volumes.

The definitions are MONAI's (`compute_hausdorff_distance(percentile=95)`, `compute_average_surface_distance(
symmetric=True)`, `compute_surface_dice`): a surface is the voxels of a structure that have a face neighbour outside of
it, or lie at the border of the image; distances are between voxel centres, in mm. DeepMind's `surface-distance` puts
surfaces between voxels and weighs them by area instead: see docs/metrics.md.
"""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import find_objects
from scipy.spatial import KDTree

METRICS = ("hd95", "assd", "nsd", "volume_error")
PERCENTILE = 95
ROUNDING = 1 + 1e-9  # voxels just as far apart as is tolerated agree, whatever the last digit of their distance


def surfaces(
    truth: np.ndarray, prediction: np.ndarray, classes: int, spacing: Sequence[float], tolerance: float
) -> dict[str, np.ndarray]:
    """Return each of METRICS [classes] of two label maps [H, W] or [X, Y, Z] with labels 0 ... classes.

    spacing: mm along each axis; [] where it is unknown, and then distances are in pixels. hd95: the larger of the two
    directed 95th percentiles. assd: the mean of all distances, both ways. nsd: the share of both surfaces no further
    than `tolerance` from the other. volume_error: |prediction - truth| / truth.

    A class that is in neither map has none of them (NaN). In one only, no distance exists, so hd95 and assd are NaN
    too, but nsd is 0, and volume_error is 1 where the class was missed and NaN where there is no truth to divide by.
    """
    found = {name: np.full(classes, np.nan) for name in METRICS}
    boxes = [_boxes(labels, classes) for labels in (truth, prediction)]
    scale = np.asarray(spacing if len(spacing) else [1.0] * truth.ndim)
    for label, both in enumerate(zip(*boxes, strict=True), start=1):
        box = _union(*both)
        if box is None:
            continue
        of_class = _of_class(truth[box] == label, prediction[box] == label, scale, tolerance)
        for name, value in of_class.items():
            found[name][label - 1] = value
    return found


def _boxes(labels: np.ndarray, classes: int) -> list[tuple[slice, ...] | None]:
    boxes: list[tuple[slice, ...] | None] = find_objects(labels, max_label=classes)
    return boxes


def _union(one: tuple[slice, ...] | None, other: tuple[slice, ...] | None) -> tuple[slice, ...] | None:
    if one is None or other is None:
        return one or other
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))


def _of_class(truth: np.ndarray, prediction: np.ndarray, scale: np.ndarray, tolerance: float) -> dict[str, float]:
    volumes = [int(np.count_nonzero(mask)) for mask in (truth, prediction)]
    found = {"nsd": 0.0}
    if volumes[0]:
        found["volume_error"] = abs(volumes[1] - volumes[0]) / volumes[0]
    if not all(volumes):
        return found
    points = [np.argwhere(surface(mask)) * scale for mask in (truth, prediction)]
    trees = [KDTree(each, leafsize=32) for each in points]
    apart = [trees[1].query(points[0])[0], trees[0].query(points[1])[0]]
    every = np.concatenate(apart)
    found["hd95"] = max(np.percentile(each, PERCENTILE) for each in apart)
    found["assd"] = every.mean()
    found["nsd"] = np.count_nonzero(every <= tolerance * ROUNDING) / len(every)
    return found


def surface(mask: np.ndarray) -> np.ndarray:
    """Return the voxels of a mask that have a face neighbour outside of it, or none because the array ends."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        before = (slice(None),) * axis
        inner[(*before, slice(1, None))] &= mask[(*before, slice(None, -1))]
        inner[(*before, slice(None, -1))] &= mask[(*before, slice(1, None))]
        inner[(*before, slice(0, 1))] = False
        inner[(*before, slice(-1, None))] = False
    outer: np.ndarray = mask & ~inner
    return outer
