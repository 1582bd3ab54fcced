"""Surface metrics of a label map against MONAI's three functions, class by class.

    python benchmarks/surface_metrics.py [side] [slices] [classes]

Generated organs, and the same organs after a small shift; one thread, in turns. Values must be equal.
"""

import sys
import time
import tracemalloc
import warnings

import numpy as np
import torch

from radprobe.learning.device import threads
from radprobe.metrics.surfaces import surfaces

SPACING, TOLERANCE, TURNS = (0.8, 0.8, 5.0), 2.0, 3


def organs(side: int, slices: int, classes: int, shift: int = 0) -> np.ndarray:
    """Ellipsoids of several sizes."""
    rng, labels = np.random.default_rng(0), np.zeros((side, side, slices), np.uint8)
    axes = np.ogrid[:side, :side, :slices]
    for label in range(1, classes + 1):
        centre = rng.uniform(0.2, 0.8, 3) * labels.shape + shift
        radius = rng.uniform(0.04, 0.14, 3) * labels.shape
        labels[sum(((x - c) / r) ** 2 for x, c, r in zip(axes, centre, radius, strict=True)) < 1] = label
    return labels


def monais(truth: np.ndarray, prediction: np.ndarray, classes: int) -> dict[str, list[float]]:
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    found: dict[str, list[float]] = {"hd95": [], "assd": [], "nsd": []}
    for label in range(1, classes + 1):
        both = [torch.from_numpy(labels == label)[None, None] for labels in (prediction, truth)]
        how = {"include_background": True, "spacing": list(SPACING)}
        found["hd95"].append(float(compute_hausdorff_distance(*both, percentile=95, **how)))
        found["assd"].append(float(compute_average_surface_distance(*both, symmetric=True, **how)))
        found["nsd"].append(float(compute_surface_dice(*both, class_thresholds=[TOLERANCE], **how)))
    return found


def main(side: str = "256", slices: str = "64", classes: str = "15") -> None:
    warnings.filterwarnings("ignore", "the (ground truth|prediction)")
    size, n = (int(side), int(slices)), int(classes)
    truth, prediction = organs(*size, n), organs(*size, n, shift=2)
    seconds = np.empty((TURNS, 2))
    with threads(1):
        monais(truth[:64, :64], prediction[:64, :64], 1)  # imports
        for turn in range(TURNS):
            begun = time.perf_counter()
            ours = surfaces(truth, prediction, n, SPACING, TOLERANCE)
            between = time.perf_counter()
            theirs = monais(truth, prediction, n)
            seconds[turn] = between - begun, time.perf_counter() - between
            print("ours {:.2f} s, MONAI {:.2f} s".format(*seconds[turn]))
    for name, values in theirs.items():
        np.testing.assert_allclose(ours[name], np.where(np.isfinite(values), values, np.nan), rtol=1e-5, atol=1e-6)
    tracemalloc.start()
    surfaces(truth, prediction, n, SPACING, TOLERANCE)
    print(f"{truth.shape}, {n} classes; equal values; memory of ours {tracemalloc.get_traced_memory()[1] / 1e6:.0f} MB")
    print(f"ratio surface_metrics {np.median(seconds[:, 1] / seconds[:, 0]):.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
