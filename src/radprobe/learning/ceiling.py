"""The ceiling of segmentation: what is left of the truth at the stored size, the best that any model could score."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import one_hot

from radprobe.artifacts import Index, LabelMaps, Pixels, Predictions, Split
from radprobe.imaging.resize import to_original
from radprobe.learning import label_maps
from radprobe.learning.maps import masks_of
from radprobe.names import CEILING

NO_COST = {"seconds": 0.0, "peak_gb": 0.0}


def predictions(index: Index, pixels: Pixels, split: Split, folder: Path) -> Predictions:
    """Return the stored label maps, resized to the original grid, as predictions of val and test."""
    cases = chain(_cases(index, pixels, split, "val"), _cases(index, pixels, split, "test"))
    LabelMaps.write(folder, CEILING, cases)
    facts = {"protocols": {CEILING: {**NO_COST, "chosen": {}, "selected_on": "nothing"}}, "embedding": NO_COST}
    return Predictions(split.classes, maps={CEILING: LabelMaps.read(folder, CEILING)}, facts=facts)


def _cases(index: Index, pixels: Pixels, split: Split, part: str) -> Iterator[label_maps.Case]:
    rows = split.rows(index, part)
    names = index.table["volume_id"].to_numpy()[rows]
    for case in dict.fromkeys(names):
        of_case = rows[names == case]
        slices = [_original(pixels, row, len(split.classes) + 1) for row in of_case]
        yield label_maps.joined(index, of_case, slices, part)


def _original(pixels: Pixels, row: int, labels: int) -> np.ndarray:
    """Return a stored label map on the original grid."""
    mask = torch.from_numpy(masks_of(pixels)[row].copy()).long()
    height, width = pixels.shapes[row]
    return to_original(one_hot(mask, labels).movedim(-1, 0), (int(height), int(width)))
