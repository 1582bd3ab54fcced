"""Frozen encoders: stored pixels in, features out, everything on the device and the same recipe for every backbone.

Each image is scaled to [0, 1] from the range of grey values that it is given (a window, percentiles), or from its own
minimum and maximum (arXiv 2312.02366, authors' code), resized with antialiasing, stacked to three channels and
normalised with the backbone's own mean and standard deviation.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import interpolate

from radprobe import catalog
from radprobe.artifacts import Weights
from radprobe.files import RadprobeError
from radprobe.models.weights import architecture, read

FLAT = 0.5  # grey levels: an image of less contrast is constant, and becomes 0 everywhere rather than noise (D11)


@dataclass(frozen=True)
class Features:
    """What an encoder makes of a batch.

    cls: [B, blocks, C], the last entry from the last block (a CNN: its pooled output, blocks = 1).
    patch_mean: [B, C], the mean patch token of the last block, or None (CNNs).
    dense: [B, C, h, w], the last block's patch tokens on their grid, or a CNN's stage.
    """

    cls: torch.Tensor
    patch_mean: torch.Tensor | None
    dense: torch.Tensor | None


class Encoder(torch.nn.Module):
    """A frozen backbone at one input size."""

    def __init__(self, model: torch.nn.Module, entry: catalog.Backbone, size: int, blocks: int, dense: bool):
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.is_vit, self.size, self.blocks, self.dense = entry.patch is not None, size, blocks, dense
        self.dense_layer = entry.dense_layer
        self.register_buffer("mean", torch.tensor(entry.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(entry.std).view(1, 3, 1, 1))

    @property
    def parameters_count(self) -> int:
        """Parameters of the backbone, its classifier not counted."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def dim(self) -> int:
        """Width of a CLS token, or of a CNN's pooled output."""
        return self.model.num_features if self.is_vit else self.model.head_hidden_size

    def normalise(self, pixels: torch.Tensor, ranges: torch.Tensor | None = None) -> torch.Tensor:
        """Turn stored pixels [B, H, W] of any number type into the backbone's input, float32 [B, 3, size, size].

        ranges: the values [B, 2] that become 0 and 1, beyond which they are cut; None: each image's own extremes.
        """
        images = pixels.float()[:, None]
        if ranges is None:
            low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        else:
            low, high = ranges.float()[:, :, None, None, None].unbind(1)
        span = high - low
        images = ((images - low) / torch.where(span < FLAT, torch.inf, span)).clamp(0, 1)
        if images.shape[-2:] != (self.size, self.size):
            images = interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        return (images - self.mean) / self.std

    def forward(self, pixels: torch.Tensor, ranges: torch.Tensor | None = None) -> Features:
        """Encode stored pixels [B, H, W]; ranges as in `normalise`."""
        images = self.normalise(pixels, ranges)
        return self._vit(images) if self.is_vit else self._cnn(images)

    def _vit(self, images: torch.Tensor) -> Features:
        # Prefix tokens (CLS, registers) are separated by their number, and every block passes the final norm.
        options = {"norm": True, "return_prefix_tokens": True, "intermediates_only": True}
        blocks = self.model.forward_intermediates(images, indices=self.blocks, **options)
        maps = blocks[-1][0]
        cls = torch.stack([prefix[:, 0] for _, prefix in blocks], 1)
        return Features(cls, maps.float().mean((2, 3)), maps if self.dense else None)

    def _cnn(self, images: torch.Tensor) -> Features:
        if self.dense:
            final, (dense,) = self.model.forward_intermediates(images, indices=[self.dense_layer])
        else:
            final, dense = self.model.forward_features(images), None
        return Features(self.model.forward_head(final, pre_logits=True)[:, None], None, dense)


def build(entry: catalog.Backbone, weights: Weights, size: int, blocks: int, dense: bool) -> Encoder:
    """Build a frozen encoder for images of side `size`, with the CLS of the last `blocks` blocks (ViTs).

    Random weights come from their own seed and leave torch's generator as it was. A state dict is loaded strictly at
    the native size; timm then resizes position embeddings to each input's grid (bicubic, antialiased).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights.facts.get("seed", 0))
        model = architecture(entry, num_classes=0)
    if entry.patch and blocks > len(model.blocks):
        reason = f"asks for {blocks} blocks, but {entry.name} has {len(model.blocks)}"
        raise RadprobeError("params: embed.blocks", reason, f"set it to {len(model.blocks)} or less")
    if weights.file:
        model.load_state_dict(read(weights.file, entry), strict=True)
    return Encoder(model, entry, size, blocks, dense)
