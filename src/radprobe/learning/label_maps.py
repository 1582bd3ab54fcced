"""From the logits of a decoder to label maps on the original grid, films and whole volumes."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from radprobe.artifacts import Index, Pixels
from radprobe.imaging.resize import to_original
from radprobe.imaging.volumes import Slicing
from radprobe.learning.maps import Maps
from radprobe.models.decoders import Decoder

EVERY = 8  # slices that are predicted at once
Case = tuple[
    str, str, str, np.ndarray, Sequence[float]
]  # id, patient id, part, label map, spacing: as LabelMaps has it
Cases = Iterator[Case]


def predicted(decoder: Decoder, maps: Maps, index: Index, pixels: Pixels, part: str) -> Cases:
    """Yield every film or volume with its predicted label map on the original grid."""
    stored = pixels.images.shape[1:]
    for _, places in maps.by_case():
        slices = []
        for start in range(0, len(places), EVERY):
            batch = places[start : start + EVERY]
            probabilities = _probabilities(decoder, maps, batch, stored)
            sizes = pixels.shapes[maps.rows[batch]]
            slices += [
                to_original(each, (int(height), int(width)))
                for each, (height, width) in zip(probabilities, sizes, strict=True)
            ]
        yield joined(index, maps.rows[places], slices, part)


@torch.inference_mode()
def _probabilities(decoder: Decoder, maps: Maps, batch: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    logits: torch.Tensor = decoder(maps.features(batch), size)
    return logits.softmax(1)


def joined(index: Index, rows: np.ndarray, slices: list[np.ndarray], part: str) -> Case:
    """Return the case whose slices are given: a film has one."""
    sample, labels = index.table.iloc[rows[0]], slices[0]
    if len(sample["affine"]):
        affine = np.reshape(sample["affine"], (4, 4))
        labels = Slicing.of(affine, index.facts["slices"]).join(np.stack(slices))
    return sample["volume_id"], sample["patient_id"], part, labels, sample["spacing"]
