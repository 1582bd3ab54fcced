"""Encoders: stored pixels in, features out, everything on the device and the same recipe for every backbone.

Each image is scaled to [0, 1] from the range of grey values that it is given (a window, percentiles), or from its own
minimum and maximum (arXiv 2312.02366, authors' code), resized with antialiasing, stacked to three channels and
normalised with the backbone's own mean and standard deviation.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from torch.nn.functional import interpolate, pad

from radprobe import catalog
from radprobe.artifacts import Weights
from radprobe.files import RadprobeError
from radprobe.models import weights as checkpoints
from radprobe.models.architectures import Layer, Tower, awaken
from radprobe.models.architectures import build as architecture

MAP_DIMENSIONS = 4  # [B, C, h, w]; a stage of an own network may give something else, and is then no input of heads
FLAT = 0.5  # grey levels: an image of less contrast is constant, and becomes 0 everywhere rather than noise (D11)


@dataclass(frozen=True)
class Features:
    """What an encoder makes of a batch.

    cls: [B, blocks, C], the CLS of the last blocks, the last one last; or the vector that the recipe states instead:
    the mean patch token of the last blocks, or what the library pools (blocks = 1).
    patch_mean: [B, C], the mean patch token of the last block, or None where `cls` is no CLS.
    stages: by layer (-2, -3 ...) the mean [B, C] of the map of an earlier stage or block, each of its own width, where
    `cls` is what the library pools: a CNN has stages as a transformer has blocks.
    dense: for each chosen layer its map [B, C, h, w]: patch tokens on their grid, or a CNN's stage.
    """

    cls: torch.Tensor
    patch_mean: torch.Tensor | None
    dense: tuple[torch.Tensor, ...]
    stages: dict[int, torch.Tensor] = field(default_factory=dict)


class Encoder(torch.nn.Module):
    """A backbone at one input size, frozen or to be trained."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, tower: Tower, size: int, blocks: int, dense: Sequence[int], frozen: bool):
        super().__init__()
        self.tower, self.recipe, self.size, self.dense, self.frozen = tower, tower.entry, size, tuple(dense), frozen
        self.fixed_statistics = frozen  # do norms with running statistics keep them in training
        last = [] if self.recipe.pool == "library" else [*range(-blocks, 0)]
        self.vectors = tuple(last)  # the layers whose tokens make the vector
        self.stages = tuple(range(-2, -min(blocks, tower.depth) - 1, -1)) if self.recipe.pool == "library" else ()
        self.layers = tuple(dict.fromkeys([*last, *self.stages, *self.dense]))
        self.register_buffer("mean", torch.tensor(self.recipe.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(self.recipe.std).view(1, 3, 1, 1))
        self.tower.requires_grad_(not frozen)
        self.train(not frozen)

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; a frozen encoder, and norms whose statistics are fixed, stay as they are evaluated."""
        super().train(mode and not self.frozen)
        if self.fixed_statistics:
            for norm in self.modules():
                if getattr(norm, "running_mean", None) is not None:
                    norm.eval()
        return self

    @property
    def parameters_count(self) -> int:
        """Parameters of the backbone, its classifier not counted."""
        return sum(parameter.numel() for parameter in self.tower.parameters())

    @property
    def fixed(self) -> dict[str, torch.Tensor]:
        """What must not move: parameters without a gradient, and buffers where norms keep their statistics."""
        frozen = {name: each for name, each in self.named_parameters() if not each.requires_grad}
        return frozen | (dict(self.named_buffers()) if self.fixed_statistics else {})

    def normalise(self, pixels: torch.Tensor, ranges: torch.Tensor | None = None) -> torch.Tensor:
        """Turn stored pixels [B, H, W] of any number type into the backbone's input, float32 [B, 3, size, size].

        ranges: the values [B, 2] that become 0 and 1, beyond which they are cut; None: each image's own extremes.
        """
        return (grey(pixels, ranges, self.size) - self.mean) / self.std

    def forward(self, pixels: torch.Tensor, ranges: torch.Tensor | None = None) -> Features:
        """Encode stored pixels [B, H, W]; ranges as in `normalise`."""
        pool = self.recipe.pool == "library"
        found, pooled = self.tower(self.normalise(pixels, ranges), self.layers, pool)
        by_layer = dict(zip(self.layers, found, strict=True))
        vectors = [self._vector(by_layer[layer]) for layer in self.vectors]
        last = _mean(by_layer[-1]) if self.recipe.pool == "cls" else None
        cls = pooled[:, None] if pool else torch.stack(vectors, 1)
        stages = {layer: _mean(by_layer[layer]) for layer in self.stages if _is_map(by_layer[layer])}
        return Features(cls, last, tuple(by_layer[layer].map for layer in self.dense), stages)

    def _vector(self, layer: Layer) -> torch.Tensor:
        return layer.prefix[:, 0] if self.recipe.pool == "cls" and layer.prefix is not None else _mean(layer)


@contextmanager
def held(*modules: torch.nn.Module, made: Sequence[Path] = ()) -> Iterator[None]:
    """Raise RadprobeError where an encoder in `modules` does not keep what is frozen of it while this runs.

    `made`: files and folders that come of it meanwhile; they are then removed, so that the next run starts without.
    """
    # of the bytes: torch's counters of writes miss `.data`, views of numpy and the statistics that batch_norm updates
    encoders = [each for module in modules for each in module.modules() if isinstance(each, Encoder)]
    before = [_checksums(each.fixed) for each in encoders]
    yield
    for encoder, known in zip(encoders, before, strict=True):
        tensors = {**dict(encoder.named_parameters()), **dict(encoder.named_buffers())}
        now = _checksums({name: tensors[name] for name in known if name in tensors})
        if moved := [name for name in known if now.get(name) != known[name]]:
            for path in made:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            reason = f"its tensor {moved[0]} changed while it was frozen: what was made meanwhile is of no one backbone"
            remedy = "run it again; where it happens again, report it with the recipe of the backbone"
            raise RadprobeError(encoder.recipe.title, reason, remedy)


def _checksums(tensors: dict[str, torch.Tensor]) -> dict[str, int]:
    return {name: _checksum(each) for name, each in tensors.items()}


def _checksum(tensor: torch.Tensor) -> int:
    """Sum the bytes as words of 64 bits, modulo 2^64, where they are: a ViT-L takes 0.1 s, sha256 of it 1 s."""
    content = tensor.detach().flatten().view(torch.uint8)
    if len(content) % 8 or content.storage_offset() % 8:
        content = pad(content, (0, -len(content) % 8))
    return int(content.view(torch.int64).sum())


def grey(pixels: torch.Tensor, ranges: torch.Tensor | None, size: int) -> torch.Tensor:
    """Turn stored pixels [B, H, W] into grey images from 0 to 1, float32 [B, 1, size, size].

    ranges: the values [B, 2] that become 0 and 1, beyond which they are cut; None: each image's own extremes.
    """
    images = pixels.float()[:, None]
    if ranges is None:
        low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    else:
        low, high = ranges.float()[:, :, None, None, None].unbind(1)
    span = high - low
    images = ((images - low) / torch.where(span < FLAT, torch.inf, span)).clamp(0, 1)
    if images.shape[-2:] != (size, size):
        images = interpolate(images, (size, size), mode="bilinear", antialias=True)
    return images


def _mean(layer: Layer) -> torch.Tensor:
    return layer.map.float().mean((2, 3))


def _is_map(layer: Layer) -> bool:
    return isinstance(layer.map, torch.Tensor) and layer.map.ndim == MAP_DIMENSIONS


def layers(entry: catalog.EncoderEntry, decoders: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the layers whose maps each decoder reads, as the catalog has them at the depth of the network."""
    with torch.device("meta"):
        return entry.dense_layers(decoders, architecture(entry).depth)


def build(
    entry: catalog.EncoderEntry,
    weights: Weights,
    size: int,
    blocks: int = 1,
    dense: Sequence[int] = (),
    frozen: bool = True,
) -> Encoder:
    """Build an encoder for images of side `size`.

    Its vectors are of the last `blocks` blocks or stages (fewer where a CNN has fewer stages), its maps are of the
    layers `dense`, counted from the last one, -1.
    Random weights come from their own seed and leave torch's generator as it was. A state dict is loaded strictly at
    the native size, then positions are resized by the rule of the entry.
    """
    if not entry.fits(size):
        sides = f"the sides {entry.sizes}" if entry.sizes else f"multiples of its patch, {entry.patch} px"
        raise RadprobeError(entry.title, f"cannot take images of {size} px, only {sides}", "choose such a size")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights.facts.get("seed", 0))
        tower = architecture(entry)
        if not weights.file:
            awaken(tower.model)
    deepest = -min(-1 if entry.pool == "library" else -blocks, *dense, -1)
    if deepest > tower.depth:
        reason = f"asks for {deepest} blocks, but {entry.name} has {tower.depth}"
        raise RadprobeError("params: embed.blocks", reason, f"set it to {tower.depth} or less")
    if weights.file:
        if "size" in weights.facts:  # trained end to end: its positions are those of the images that it was trained on
            tower.resize(weights.facts["size"])
        checkpoints.fill(tower, checkpoints.read(weights.file, entry), weights.file)
    tower.resize(size)
    return Encoder(tower, size, blocks, dense, frozen)
