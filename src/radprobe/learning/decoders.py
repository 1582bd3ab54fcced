"""Fitting decoders to dense maps: all learning rates together over one pass of features, chosen by macro DSC on val.

The loss is Dice, as in the study, or Dice plus cross-entropy, at the full stored size: MONAI's
`DiceLoss(softmax=True)` and `DiceCELoss`: background included, mean over images and classes, smoothing 1e-5. It costs
little: bilinear upsampling is two small matrix products, and the gradient of softmax, Dice and cross-entropy is written
out, image by image and head by head, so that it stays in the cache.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import interpolate, one_hot

from radprobe.learning import loop
from radprobe.learning.device import threads
from radprobe.learning.maps import Maps
from radprobe.metrics import segmentation
from radprobe.models.decoders import Decoder, PixelwiseLinear

LossName = Literal["dice", "dice_ce"]  # Dice, or Dice plus cross-entropy
D = TypeVar("D", bound=Decoder)
SMOOTH = 1e-5
CHOSEN_BY = "macro DSC at the stored size: mean over classes of the mean over cases"


class Upsampling:
    """Bilinear interpolation (align_corners=False) of [..., h, w] to [..., H, W] as two matrix products."""

    def __init__(self, grid: Sequence[int], size: Sequence[int], device: torch.device):
        self.same = tuple(grid) == tuple(size)
        self.rows, self.columns = (_interpolation(n, to).to(device) for n, to in zip(grid, size, strict=True))

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        """Return z at the full size."""
        return z if self.same else self.rows @ z @ self.columns.T

    def transpose(self, slope: torch.Tensor) -> torch.Tensor:
        """Return the gradient on the grid of a gradient at the full size."""
        return slope if self.same else self.rows.T @ slope @ self.columns


def _interpolation(n: int, to: int) -> torch.Tensor:
    return interpolate(torch.eye(n)[None], size=to, mode="linear", align_corners=False)[0].T.contiguous()


@dataclass(frozen=True)
class Loss:
    """Dice at the full size, `up` of the logits; with cross-entropy or without. `each` maps over images, in threads."""

    up: Upsampling
    cross_entropy: bool = False
    each: "Each" = map

    def __call__(self, z: torch.Tensor, labels: torch.Tensor, heads: int = 1) -> torch.Tensor:
        """Return the loss of each head, [heads], of logits z [B, heads * K, h, w] and labels [B, H, W] of 0 ... K - 1.

        With p = softmax(upsampled z) and t one-hot, Dice is the mean over images and classes of
        1 - (2 <p, t> + s) / (<p> + <t> + s), and the cross-entropy the mean over images and pixels of -log p of the
        label.
        """
        losses: torch.Tensor = _AtFullSize.apply(z, labels, heads, self)  # type: ignore[no-untyped-call]  # torch's own
        return losses

    def slope(self, z: torch.Tensor, labels: torch.Tensor, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss of each head and the gradient of their sum with respect to z."""
        n, classes = len(z), z.shape[1] // heads
        losses, slope = z.new_zeros((n, heads)), torch.empty_like(z)

        def image(i: int) -> None:
            t = one_hot(labels[i], classes).permute(2, 0, 1).to(z.dtype).contiguous()
            for head in range(heads):
                at = slice(head * classes, (head + 1) * classes)
                losses[i, head], toward = self._of_image(self.up(z[i, at]), t)
                slope[i, at] = self.up.transpose(toward) / n

        list(self.each(image, range(n)))
        return losses.mean(0), slope

    def _of_image(self, full: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        classes, pixels = len(t), t[0].numel()
        p = full.softmax(0)
        above = 2 * (p * t).sum((1, 2)) + SMOOTH
        below = p.sum((1, 2)) + t.sum((1, 2)) + SMOOTH
        loss = (1 - above / below).mean()
        toward = (above / below**2)[:, None, None] - (2 / below)[:, None, None] * t  # d loss / d p
        toward *= p
        toward = (toward - p * toward.sum(0)) / classes
        if self.cross_entropy:
            loss = loss - (full.log_softmax(0) * t).sum() / pixels
            toward += (p - t) / pixels
        return loss, toward


class _AtFullSize(torch.autograd.Function):
    """The loss with its gradient, which costs little more than the loss."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, labels: torch.Tensor, heads: int, loss: Loss) -> torch.Tensor:
        with torch.autocast(z.device.type, enabled=False):
            losses, slope = loss.slope(z.detach().float(), labels, heads)
        ctx.save_for_backward(slope.to(z.dtype))
        return losses

    @staticmethod
    def backward(ctx: Any, toward: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        by_head = slope.unflatten(1, (len(toward), -1)) * toward.view(1, -1, 1, 1, 1).to(slope.dtype)
        return by_head.flatten(1, 2), None, None, None


@dataclass(frozen=True)
class DecoderRecipe:
    """How decoders are trained: images per step, the loss (with cross-entropy or without), the schedule of the loop."""

    batch_size: int
    loss: LossName
    schedule: loop.Schedule


@dataclass(frozen=True)
class FittedDecoders(Generic[D]):
    """A decoder for each learning rate: each as it was in its best epoch by val, or in the last one without val."""

    decoders: list[D]
    values: list[float]  # macro DSC on val, NaN without val or where it diverged
    epochs: list[int]
    history: pd.DataFrame  # loop.COLUMNS
    diverged: list[str]


def fit(
    make: Callable[[], D],
    maps: Maps,
    classes: int,
    rates: Sequence[float],
    recipe: DecoderRecipe,
    val: Maps | None = None,
    folder: Path | None = None,
    what: str | None = None,
) -> FittedDecoders[D]:
    """Train one decoder, as `make` builds it, per learning rate on `maps`, for labels 0 (background) ... classes - 1.

    Each is what it would be if trained alone: shuffles and initial weights depend on the seed only. `folder` holds
    checkpoints: a fit that was killed goes on there. Raises RadprobeError that names epoch, step and learning rate when
    every one of them has diverged.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.schedule.seed)
        first = make().to(maps.device)
    decoders = [first, *(copy.deepcopy(first) for _ in rates[1:])]
    heads = [_head(decoder, rate) for decoder, rate in zip(decoders, rates, strict=True)]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        each = pool.map if maps.device.type == "cpu" else map
        linear = [decoder for decoder in decoders if isinstance(decoder, PixelwiseLinear)]
        losses = _fused(linear, recipe, each) if linear else _one_by_one(decoders, recipe, each)
        fused = bool(linear) and maps.device.type == "cpu"  # its threads take an image each
        with threads(1 if fused else torch.get_num_threads()):
            found = loop.fit(
                heads,
                lambda epoch, generator: _batches(maps, recipe.batch_size, epoch, generator),
                losses,
                recipe.schedule,
                maps.device,
                validate=None if val is None else lambda: macro_dsc(decoders, val, classes),
                steps_per_epoch=-(-len(maps) // recipe.batch_size),
                folder=folder,
                what=f"{what}, {len(rates)} learning rates" if what and len(rates) > 1 else what,
            )
    return FittedDecoders(decoders, found.values, found.epochs, found.history, found.diverged)


def _head(decoder: Decoder, rate: float) -> loop.Trainee:
    return loop.Trainee(f"learning rate {rate:g}", decoder, decoder.groups(rate))


MapsAndLabels = tuple[list[torch.Tensor], torch.Tensor]
Each = Callable[[Callable[[int], None], Iterable[int]], Iterable[None]]  # map, in threads or not


def _batches(maps: Maps, batch_size: int, epoch: int, generator: torch.Generator) -> Iterator[MapsAndLabels]:
    view = maps.dense.views.of_epoch(epoch)
    for batch in torch.randperm(len(maps), generator=generator).split(batch_size):
        yield maps.features(batch.numpy(), view), maps.labels(batch.numpy(), view)


def _fused(decoders: Sequence[PixelwiseLinear], recipe: DecoderRecipe, each: Each) -> loop.Losses[MapsAndLabels]:
    """Return the losses of all linear decoders at once: one matrix product, since they share their input."""

    def losses(batch: MapsAndLabels) -> Iterator[torch.Tensor]:
        maps, labels = batch
        (x,) = decoders[0].standardised(maps)
        weight, bias = (torch.cat([getattr(decoder, name) for decoder in decoders]) for name in ("weight", "bias"))
        z = (weight @ x.flatten(2) + bias[:, None]).unflatten(2, x.shape[2:])
        yield _loss(z, labels, recipe, each)(z, labels, len(decoders))

    return losses


def _one_by_one(decoders: Sequence[Decoder], recipe: DecoderRecipe, each: Each) -> loop.Losses[MapsAndLabels]:
    def losses(batch: MapsAndLabels) -> Iterator[torch.Tensor]:
        maps, labels = batch
        for decoder in decoders:
            z = decoder.grid_logits(maps)
            yield _loss(z, labels, recipe, each)(z, labels)

    return losses


def _loss(z: torch.Tensor, labels: torch.Tensor, recipe: DecoderRecipe, each: Each) -> Loss:
    return Loss(Upsampling(z.shape[2:], labels.shape[1:], z.device), recipe.loss == "dice_ce", each)


def macro_dsc(decoders: Sequence[Decoder], maps: Maps, classes: int) -> list[float]:
    """Return each decoder's macro DSC at the stored size, by the definition that test is scored with."""
    return [segmentation.macro_dsc(matrices) for matrices in counts(decoders, maps, classes)[1]]


@torch.inference_mode()
def counts(decoders: Sequence[Decoder], maps: Maps, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cases, sorted, and pixels by true (row) and predicted (column) label, [decoders, cases, K, K].

    They are counted at the stored size, over one pass of the features.
    """
    names, case_of = np.unique(maps.cases, return_inverse=True)
    tables = np.zeros((len(decoders), len(names), classes, classes), np.int64)
    for batch in maps.in_order():
        features, truth = maps.features(batch), maps.labels(batch)
        for number, decoder in enumerate(decoders):
            found = decoder(features, maps.size).argmax(1)
            pairs = (truth * classes + found).flatten(1).cpu().numpy()
            for place, each in zip(batch, pairs, strict=True):
                tables[number, case_of[place]] += np.bincount(each, minlength=classes**2).reshape(classes, classes)
    return names, tables
