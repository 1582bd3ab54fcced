"""What a decoder is fitted to: dense maps and label maps of some samples, gathered batch by batch."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Self

import numpy as np
import torch

from radprobe.artifacts import Pixels
from radprobe.learning.augment import moved
from radprobe.learning.features import Dense

EVERY = 8  # samples at once where nothing is trained
STD_FLOOR = 1e-6  # of its mean or of 1: a channel that changes less keeps its unit, so that it stays small elsewhere


@dataclass(frozen=True)
class Maps:
    """Maps of `layers` (the deepest first) and label maps [n, H, W] of the samples at `rows`.

    cases: the film or volume that each of `rows` belongs to; the slices of a volume are neighbours, in order.
    """

    dense: Dense
    layers: tuple[int, ...]
    masks: np.ndarray
    rows: np.ndarray
    cases: np.ndarray
    device: torch.device

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, layers: Sequence[int]) -> Self:
        """Return the same samples through other layers."""
        return replace(self, layers=tuple(layers))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the label maps."""
        return tuple(self.masks.shape[1:])

    def features(self, batch: np.ndarray, view: int = 0) -> list[torch.Tensor]:
        """Return float32 [B, C, h, w] of each layer, on the device; view 0 is the image as it is."""
        found = self.dense.take(self.rows[batch], self.layers, view)
        return [each.to(self.device).float() for each in found]

    def labels(self, batch: np.ndarray, view: int = 0) -> torch.Tensor:
        """Return int64 [B, H, W], on the device, moved as the images of that view are."""
        rows = self.rows[batch]
        labels = torch.from_numpy(self.masks[rows]).to(self.device)
        if view:
            labels = moved(labels, self.dense.views.matrices(rows, view), nearest=True)
        return labels.long()

    def in_order(self) -> Iterator[np.ndarray]:
        """Yield all places, some at a time."""
        places = np.arange(len(self))
        return (places[start : start + EVERY] for start in range(0, len(self), EVERY))

    def by_case(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield each case and its places."""
        for case, places in groupby(range(len(self)), key=lambda place: self.cases[place]):
            yield case, np.array(list(places))

    def statistics(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return mean and standard deviation [C] of each layer's channels, streaming."""
        return channel_statistics(self.features(batch) for batch in self.in_order())


def masks_of(pixels: Pixels) -> np.ndarray:
    """Return the label maps [n, H, W]. Raises ValueError if there are none: `decoding.check` says so before."""
    if pixels.masks is None:
        raise ValueError("the pixels have no masks")
    return pixels.masks


class _Sums:
    """Of each channel [C] the sum of its values and of their squares, and how many there are."""

    def __init__(self) -> None:
        self.values: torch.Tensor = torch.tensor(0.0, dtype=torch.float64)
        self.squares: torch.Tensor = torch.tensor(0.0, dtype=torch.float64)
        self.count = 0

    def add(self, x: torch.Tensor) -> None:
        """Add values [B, C, n]."""
        self.values = self.values.to(x.device) + x.sum((0, 2))
        self.squares = self.squares.to(x.device) + (x * x).sum((0, 2))
        self.count += x[:, 0].numel()


@torch.no_grad()
def channel_statistics(batches: Iterable[Sequence[torch.Tensor]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return mean and standard deviation [C] of the channels of several [B, C, ...], streaming over batches of them.

    The deviation of a channel that never changes is 1 (as scikit-learn's StandardScaler has it): divided by a tiny one,
    what it shows in other images would drown all else.
    """
    sums: list[_Sums] = []
    for batch in batches:
        sums = sums or [_Sums() for _ in batch]
        for each, x in zip(sums, batch, strict=True):
            each.add(x.double().reshape(*x.shape[:2], -1))
    found = []
    for each in sums:
        total, squares, count = each.values, each.squares, each.count
        mean = total / count
        std = (squares / count - mean**2).clamp_min(0).sqrt()
        still = std < STD_FLOOR * mean.abs().clamp_min(1)
        found.append((mean.float(), std.masked_fill(still, 1).float()))
    return found
