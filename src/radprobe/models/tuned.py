"""A backbone and its head as one network that is trained: grey images from 0 to 1 in, logits out.

Heads first standardise what they read by the statistics of the backbone before it was adapted, as those of frozen
features do, so that one range of learning rates suits all backbones.
"""

from collections.abc import Sequence

import torch
from torch import nn
from typing_extensions import override

from radprobe.models.adapters import trained
from radprobe.models.backbones import Encoder, Features
from radprobe.models.decoders import INIT_STD, Decoder, ParameterGroup, Statistics


def encode(encoder: Encoder, images: torch.Tensor) -> Features:
    """Encode grey images from 0 to 1, [B, 1, size, size]."""
    features: Features = encoder(images[:, 0], images.new_tensor([0.0, 1.0]).expand(len(images), 2))
    return features


def groups(encoder: Encoder, head: nn.Module, backbone_rate: float, head_rate: float) -> list[ParameterGroup]:
    """Return the parameters that move, with their learning rates; the backbone's only if some of it moves."""
    moving: ParameterGroup = {"params": list(trained(encoder).values()), "lr": backbone_rate}
    of_head = {"params": list(head.parameters()), "lr": head_rate}
    return [moving, of_head] if moving["params"] else [of_head]


class BackboneClassifier(nn.Module):
    """A backbone and a linear head on its last vector: CLS, mean patch token, or what its library pools."""

    def __init__(self, encoder: Encoder, statistics: Statistics, classes: int):
        super().__init__()
        self.encoder = encoder
        self.head = LinearHead(*statistics[0], classes)

    def vectors(self, images: torch.Tensor) -> torch.Tensor:
        """Return the vectors [B, C] of grey images [B, 1, size, size]."""
        return vectors(self.encoder, images)

    @override
    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(vectors)
        return logits


class LinearHead(nn.Module):
    """Vectors [B, C] in, logits [B, classes] out; standardised by fixed mean and standard deviation [C]."""

    def __init__(self, mean: torch.Tensor, std: torch.Tensor, classes: int):
        super().__init__()
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.weight = nn.Parameter(torch.randn(classes, len(mean)) * INIT_STD)
        self.bias = nn.Parameter(torch.zeros(classes))

    @override
    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        with torch.autocast(vectors.device.type, enabled=False):  # logits of 8 bits would tie
            return nn.functional.linear((vectors.float() - self.mean) / self.std, self.weight, self.bias)


def vectors(encoder: Encoder, images: torch.Tensor) -> torch.Tensor:
    """Return the last vector [B, C] that an encoder makes of grey images [B, 1, size, size]."""
    return encode(encoder, images).cls[:, -1]


class BackboneSegmenter(Decoder):
    """A backbone and a decoder, `head`, on its dense maps."""

    def __init__(self, encoder: Encoder, head: Decoder, backbone_rate: float):
        super().__init__([])
        self.encoder, self.head, self.backbone_rate = encoder, head, backbone_rate

    @override
    def grid_logits(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        (images,) = maps
        return self.head.grid_logits(encode(self.encoder, images).dense)

    @override
    def groups(self, rate: float) -> list[ParameterGroup]:
        return groups(self.encoder, self.head, self.backbone_rate, rate)


def parameters(network: BackboneClassifier | BackboneSegmenter) -> dict[str, int]:
    """Return how many parameters were trained, the head's among them, and how many backbone and head have."""
    head = sum(each.numel() for each in network.head.parameters())
    moved = sum(each.numel() for each in trained(network.encoder).values())
    named = network.encoder.tower.model.named_parameters()
    plain = sum(each.numel() for name, each in named if ".lora_" not in name)
    return {"parameters": moved + head, "parameters_of_all": plain + head}
