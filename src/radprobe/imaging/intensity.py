"""Which range of native grey values a backbone sees as 0 to 1: a window, or percentiles of a slice or its volume."""

from itertools import groupby

import numpy as np
import pandas as pd

from radprobe.catalog import Intensity, MinMax, Window


def ranges(images: np.ndarray, cases: pd.Series, intensity: Intensity) -> np.ndarray | None:
    """Return the low and high value of each image, float32 [n, 2]; None: each image's own minimum and maximum.

    images: stored pixels [n, H, W], read case by case; cases: the volume of each, neighbours belonging together.
    Percentiles are of the stored pixels (arXiv 2312.02366, authors' code: 5th to 95th of each slice).
    """
    if isinstance(intensity, MinMax):
        return None
    if isinstance(intensity, Window):
        return np.tile(np.array([intensity.low, intensity.high], np.float32), (len(images), 1))
    whole = intensity.of == "volume"
    groups = groupby(range(len(images)), key=lambda row: cases.iloc[row] if whole else row)
    found = np.empty((len(images), 2), np.float32)
    for _, group in groups:
        rows = list(group)
        found[rows] = np.percentile(images[rows[0] : rows[-1] + 1], [intensity.low, intensity.high])
    return found
