"""The study's linear decoder on frozen dense maps, all its learning rates trained together over one pass of features.

A 1x1 convolution on the last block's patch tokens; its logits are upsampled bilinearly to the stored mask; Dice loss;
Adam (arXiv 2312.02366, authors' code). The Dice loss is MONAI's `DiceLoss(softmax=True)`: background included, mean
over images and classes, smoothing 1e-5. The dense features are standardised channel by channel with the statistics of
the images that the decoder is fitted on, for every backbone alike, so that one range of learning rates suits them all.

The loss is at the full stored size, but costs little: bilinear upsampling is two small matrix products, and the
gradient of softmax and Dice is written out, image by image and head by head, so that it stays in the cache.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import interpolate, one_hot

from radprobe import console
from radprobe.artifacts import Shards
from radprobe.files import RadprobeError
from radprobe.learning.device import threads

SMOOTH, INIT_STD = 1e-5, 0.01
STD_FLOOR = 1e-6  # a channel that never changes is left at 0


@dataclass(frozen=True)
class Maps:
    """Dense features [n, C, h, w] and label maps [n, H, W] of the samples at `rows`, gathered batch by batch."""

    dense: Shards
    masks: np.ndarray
    rows: np.ndarray
    cases: np.ndarray  # [n], the film or volume that each sample belongs to
    device: torch.device

    def __len__(self) -> int:
        return len(self.rows)

    def features(self, batch) -> torch.Tensor:
        """Return float32 [B, C, h, w] on the device."""
        return torch.from_numpy(self.dense[self.rows[batch]]).to(self.device).float()

    def labels(self, batch) -> torch.Tensor:
        """Return int64 [B, H, W] on the device."""
        return torch.from_numpy(self.masks[self.rows[batch]].astype(np.int64)).to(self.device)

    def statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and standard deviation of each channel, [C], streaming."""
        total, squares, count = 0.0, 0.0, 0
        for batch in np.array_split(np.arange(len(self)), -(-len(self) // 8)):
            x = self.features(batch).double()
            total, squares = total + x.sum((0, 2, 3)), squares + (x * x).sum((0, 2, 3))
            count += x[:, 0].numel()
        mean = total / count
        variance = (squares / count - mean**2).clamp_min(0)
        return mean.float(), variance.sqrt().clamp_min(STD_FLOOR).float()


@dataclass(frozen=True)
class Decoder:
    """A trained 1x1 convolution on standardised dense features."""

    learning_rate: float
    mean: torch.Tensor  # [C]
    std: torch.Tensor  # [C]
    weight: torch.Tensor  # [K, C]
    bias: torch.Tensor  # [K]

    @torch.inference_mode()
    def logits(self, features: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Return logits [B, K, *size] of dense features [B, C, h, w]."""
        x = _standardised(features, self.mean, self.std)
        z = (self.weight @ x + self.bias[:, None]).unflatten(2, features.shape[2:])
        return Upsampling(features.shape[2:], size, z.device)(z)


class Upsampling:
    """Bilinear interpolation (align_corners=False) of [..., h, w] to [..., H, W] as two matrix products."""

    def __init__(self, grid: Sequence[int], size: Sequence[int], device: torch.device):
        self.rows, self.columns = (_interpolation(n, to).to(device) for n, to in zip(grid, size, strict=True))

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        """Return z at the full size."""
        return self.rows @ z @ self.columns.T

    def transpose(self, slope: torch.Tensor) -> torch.Tensor:
        """Return the gradient on the grid of a gradient at the full size."""
        return self.rows.T @ slope @ self.columns


def _interpolation(n: int, to: int) -> torch.Tensor:
    return interpolate(torch.eye(n)[None], size=to, mode="linear", align_corners=False)[0].T.contiguous()


def dice_slope(
    z: torch.Tensor, labels: torch.Tensor, heads: int, up: Upsampling, each: Callable = map
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the Dice loss of each head, [heads], and the gradient of their sum with respect to z [B, heads * K, h, w].

    labels: [B, H, W] of 0 ... K - 1. With p = softmax(upsampled z) and t one-hot, the loss is the mean over images and
    classes of 1 - (2 <p, t> + s) / (<p> + <t> + s). `each` maps over the images, perhaps in threads.
    """
    n, classes = len(z), z.shape[1] // heads
    losses, slope = z.new_zeros((n, heads)), torch.empty_like(z)

    def image(i: int) -> None:
        t = one_hot(labels[i], classes).permute(2, 0, 1).to(z.dtype).contiguous()
        size = t.sum((1, 2))
        for head in range(heads):
            at = slice(head * classes, (head + 1) * classes)
            p = up(z[i, at]).softmax(0)
            above = 2 * (p * t).sum((1, 2)) + SMOOTH
            below = p.sum((1, 2)) + size + SMOOTH
            losses[i, head] = (1 - above / below).mean()
            toward = (above / below**2)[:, None, None] - (2 / below)[:, None, None] * t  # d loss / d p
            toward *= p
            slope[i, at] = up.transpose(toward - p * toward.sum(0)) / (n * classes)

    list(each(image, range(n)))
    return losses.mean(0), slope


def fit(maps: Maps, classes: int, rates: Sequence[float], epochs: int, batch_size: int, seed: int) -> list[Decoder]:
    """Train one decoder per learning rate on `maps`, for labels 0 (background) ... classes - 1.

    Shuffles and initial weights depend on `seed` only: each decoder is what it would be if trained alone. Threads take
    an image each and every operation runs on one, so a CPU gives the same bits for any number of threads. Raises
    RadprobeError that names epoch, step and learning rate when logits are not finite.
    """
    mean, std = maps.statistics()
    generator = torch.Generator().manual_seed(seed)
    start = (torch.randn((classes, len(mean)), generator=generator) * INIT_STD).to(maps.device)
    weights = [start.clone().requires_grad_() for _ in rates]
    biases = [torch.zeros(classes, device=maps.device, requires_grad=True) for _ in rates]
    groups = [{"params": [w, b], "lr": rate} for w, b, rate in zip(weights, biases, rates, strict=True)]
    adam = torch.optim.Adam(groups)
    up = Upsampling(maps.dense.shape[2:], maps.masks.shape[1:], maps.device)
    epochs_ = console.track(range(epochs), f"decoder, {len(rates)} learning rates (epochs)", epochs)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool, threads(1):
        for epoch in epochs_:
            for step, batch in enumerate(torch.randperm(len(maps), generator=generator).split(batch_size)):
                x = _standardised(maps.features(batch.numpy()), mean, std)
                z = torch.cat(weights) @ x + torch.cat(biases)[:, None]
                _check_finite(z, rates, classes, epoch, step)
                z = z.unflatten(2, maps.dense.shape[2:])
                _, slope = dice_slope(z.detach(), maps.labels(batch.numpy()), len(rates), up, pool.map)
                adam.zero_grad()
                z.backward(slope)
                adam.step()
    trained = zip(rates, weights, biases, strict=True)
    return [Decoder(rate, mean, std, weight.detach(), bias.detach()) for rate, weight, bias in trained]


def _standardised(features: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    return ((features - mean[:, None, None]) / std[:, None, None]).flatten(2)


def _check_finite(z: torch.Tensor, rates: Sequence[float], classes: int, epoch: int, step: int) -> None:
    if z.isfinite().all():
        return
    worst = next(i for i in range(len(rates)) if not z[:, i * classes : (i + 1) * classes].isfinite().all())
    reason = f"logits are not finite at epoch {epoch + 1}, step {step + 1}, learning rate {rates[worst]:g}"
    raise RadprobeError("linear-decoder", reason, "leave out this learning rate, or look at the dense features")


def mean_dsc(decoder: Decoder, maps: Maps, classes: int) -> float:
    """Return the mean DSC over foreground classes of the mean over cases (films or volumes), at the stored size.

    A case in which a class is neither there nor predicted has no DSC of that class and does not count.
    """
    names, case_of = np.unique(maps.cases, return_inverse=True)
    tables = np.zeros((len(names), classes, classes), np.int64)
    for row, case in enumerate(case_of):
        tables[case] += _confusion(decoder, maps, row, classes)
    both = np.diagonal(tables, axis1=1, axis2=2)[:, 1:]
    total = (tables.sum(1) + tables.sum(2))[:, 1:]
    scores = np.divide(2 * both, total, out=np.full(total.shape, np.nan), where=total > 0)
    defined = ~np.isnan(scores)
    by_class = np.where(defined, scores, 0).sum(0) / np.where(defined.any(0), defined.sum(0), np.nan)
    return float(np.nanmean(by_class)) if defined.any() else float("nan")


def _confusion(decoder: Decoder, maps: Maps, row: int, classes: int) -> np.ndarray:
    truth = maps.labels([row])[0]
    found = decoder.logits(maps.features([row]), tuple(truth.shape))[0].argmax(0)
    return torch.bincount((truth * classes + found).flatten(), minlength=classes**2).view(classes, -1).cpu().numpy()
