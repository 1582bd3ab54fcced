"""From the logits of a decoder to label maps on the original grid, films and whole volumes."""

from collections.abc import Iterator

import numpy as np
import torch

from radprobe.artifacts import Index, Pixels
from radprobe.imaging.resize import to_original
from radprobe.imaging.volumes import Slicing
from radprobe.learning.maps import Maps

EVERY = 8  # slices that are predicted at once


def predicted(decoder: torch.nn.Module, maps: Maps, index: Index, pixels: Pixels, part: str) -> Iterator[tuple]:
    """Yield (case_id, patient_id, part, label map on the original grid, spacing) of every film or volume."""
    stored = pixels.images.shape[1:]
    for case, places in maps.by_case():
        slices = []
        for start in range(0, len(places), EVERY):
            batch = places[start : start + EVERY]
            probabilities = _probabilities(decoder, maps, batch, stored)
            sizes = pixels.shapes[maps.rows[batch]]
            slices += [
                to_original(each, tuple(map(int, size))) for each, size in zip(probabilities, sizes, strict=True)
            ]
        yield case, *joined(index, maps.rows[places], slices, part)


@torch.inference_mode()
def _probabilities(decoder: torch.nn.Module, maps: Maps, batch: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    return decoder(maps.features(batch), size).softmax(1)


def joined(index: Index, rows: np.ndarray, slices: list[np.ndarray], part: str) -> tuple:
    """Return patient_id, part, label map and spacing of the case whose slices are given: a film has one."""
    sample, labels = index.table.iloc[rows[0]], slices[0]
    if len(sample["affine"]):
        affine = np.reshape(sample["affine"], (4, 4))
        labels = Slicing.of(affine, index.facts["slices"]).join(np.stack(slices))
    return sample["patient_id"], part, labels, sample["spacing"]
