"""Decoders: from the dense maps of a frozen backbone to a logit for every label and pixel.

Each first standardises the channels of its maps by fixed statistics, for every backbone alike, so that one range of
learning rates suits them all. Logits pass no activation, but for those of the paper's U-Net (D19).
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import interpolate
from typing_extensions import override

from radprobe import files
from radprobe.catalog import PAPER
from radprobe.files import RadprobeError

INIT_STD = 0.01  # of the linear decoder's weights
Statistics = Sequence[tuple[torch.Tensor, torch.Tensor]]  # mean and standard deviation [C] of each map
ParameterGroup = dict[str, Any]  # of torch's optimizers: `params` and `lr`


@dataclass(frozen=True)
class DecoderPlan:
    """What a decoder is built from, besides statistics.

    kind: linear, unet, unet@paper, or a network from scratch: scratch-unet, scratch-transunet. labels: the classes and
    background. widths: channels of `unet`. width, side: channels of the first stage of a network from scratch, and the
    side of its images, pixels.
    """

    kind: str
    labels: int
    widths: tuple[int, ...] | None = None
    width: int | None = None
    side: int | None = None

    @property
    def header(self) -> dict[str, Any]:
        """The plan as JSON, without what its kind has not."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Decoder(nn.Module):
    """Maps [B, C, h, w], the deepest first, in; logits [B, K, *size] out."""

    def __init__(self, statistics: Statistics):
        super().__init__()
        for number, (mean, std) in enumerate(statistics):
            self.register_buffer(f"mean{number}", mean.view(-1, 1, 1))
            self.register_buffer(f"std{number}", std.view(-1, 1, 1))

    def standardised(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the maps with channels of mean 0 and standard deviation 1, as the statistics say."""
        buffers = dict(self.named_buffers(recurse=False))
        return [(each - buffers[f"mean{number}"]) / buffers[f"std{number}"] for number, each in enumerate(maps)]

    def grid_logits(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits [B, K, h, w] on the decoder's own grid."""
        raise NotImplementedError

    def groups(self, rate: float) -> list[ParameterGroup]:
        """Return what is trained, each group with its learning rate; `rate` is the decoder's."""
        return [{"params": list(self.parameters()), "lr": rate}]

    @override
    def forward(self, maps: Sequence[torch.Tensor], size: Sequence[int]) -> torch.Tensor:
        return upsampled(self.grid_logits(maps), size)


class PixelwiseLinear(Decoder):
    """A 1x1 convolution on one map (arXiv 2312.02366, the paper's linear decoder)."""

    def __init__(self, statistics: Statistics, classes: int):
        super().__init__(statistics)
        self.weight = nn.Parameter(torch.randn(classes, len(statistics[0][0])) * INIT_STD)
        self.bias = nn.Parameter(torch.zeros(classes))

    @override
    def grid_logits(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        (x,) = self.standardised(maps)
        z = self.weight @ x.flatten(2) + self.bias[:, None]
        return z.view(*z.shape[:2], *x.shape[2:])


class UNet(Decoder):
    """A U-Net over several layers: light blocks of `widths` channels, and a 1x1 convolution to the logits.

    The deepest map is brought to the first width; each block doubles the grid (or takes that of its skip, if larger:
    the stages of a CNN), joins the next map, resized bilinearly, and mixes both by a 3x3 convolution.
    """

    def __init__(self, statistics: Statistics, classes: int, widths: Sequence[int]):
        super().__init__(statistics)
        channels = [len(mean) for mean, _ in statistics]
        self.enter = nn.Conv2d(channels[0], widths[0], 1)
        between = itertools.pairwise(widths)
        self.blocks = nn.ModuleList(
            _Up(*pair, skip) for pair, skip in zip(between, _skips(channels, widths), strict=True)
        )
        self.leave = nn.Conv2d(widths[-1], classes, 1)

    @override
    def grid_logits(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        deepest, *skips = self.standardised(maps)
        x = self.enter(deepest)
        for number, block in enumerate(self.blocks):
            x = block(x, skips[number] if number < len(skips) else None)
        logits: torch.Tensor = self.leave(x)
        return logits


class PaperUNet(Decoder):
    """The paper's U-Net over the last five blocks: C, C/2, C/4, C/8, classes channels (arXiv 2312.02366, its code).

    Each block is a 2x2 transposed convolution, a skip through 3x3 convolution, batch norm and ReLU, both joined and
    through the same once more. The last block ends so too, and its logits are never below 0 (D19).
    """

    def __init__(self, statistics: Statistics, classes: int):
        super().__init__(statistics)
        channels = [len(mean) for mean, _ in statistics]
        widths = [channels[0], *(max(channels[0] // part, classes) for part in (2, 4, 8)), classes]
        pairs = zip(widths[:-1], widths[1:], channels[1:], strict=True)
        self.blocks = nn.ModuleList(_PaperUp(*each) for each in pairs)

    @override
    def grid_logits(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        x, *skips = self.standardised(maps)
        for block, skip in zip(self.blocks, skips, strict=True):
            x = block(x, skip)
        return x


class FromImages(Decoder):
    """A network that reads the grey images themselves, [B, 1, H, W]."""

    def __init__(self, network: nn.Module):
        super().__init__([])
        self.network = network

    @override
    def grid_logits(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        (images,) = maps
        logits: torch.Tensor = self.network(images)
        return logits


def build(plan: DecoderPlan, statistics: Statistics) -> Decoder:
    """Return a decoder with new weights, on maps of these statistics: none if it reads the images themselves.

    Raises ValueError if the plan lacks an option of its kind.
    """
    if plan.kind == "linear":
        return PixelwiseLinear(statistics, plan.labels)
    if plan.kind == "unet" and plan.widths:
        return UNet(statistics, plan.labels, plan.widths)
    if plan.kind == "unet" + PAPER:
        return PaperUNet(statistics, plan.labels)
    from radprobe.models import scratch  # MONAI takes seconds to import

    if plan.kind == "scratch-unet" and plan.width:
        return FromImages(scratch.unet(plan.labels, plan.width))
    if plan.kind == "scratch-transunet" and plan.width and plan.side:
        return FromImages(scratch.transunet(plan.labels, plan.side, plan.width))
    raise ValueError(f"no decoder can be built from {plan}")


def save(path: Path, decoder: Decoder, plan: DecoderPlan, facts: Mapping[str, Any]) -> None:
    """Write a trained decoder as safetensors, atomically; its plan and `facts` go into the header."""
    tensors = {name: each.detach().cpu().clone().contiguous() for name, each in decoder.state_dict().items()}
    with files.atomic(path) as temporary:
        # one key of metadata: safetensors writes several in any order
        save_file(tensors, temporary, metadata={"radprobe": json.dumps({**facts, "plan": plan.header}, sort_keys=True)})
        temporary.chmod(0o644)  # safetensors lets nobody else read


def load(path: Path) -> tuple[Decoder, dict[str, Any]]:
    """Return a decoder that `save` wrote, in evaluation mode, and its facts: the `layers` that it reads among them.

    Raises RadprobeError if the file holds no decoder.
    """
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["radprobe"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        maps = sum(name.startswith("mean") for name in state)
        decoder = build(
            DecoderPlan(**facts["plan"]),
            [(state[f"mean{n}"].flatten(), state[f"std{n}"].flatten()) for n in range(maps)],
        )
        decoder.load_state_dict(state)
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, RuntimeError) as error:
        remedy = "name a <protocol>.safetensors that `radprobe segment` wrote"
        raise RadprobeError(path, f"is no decoder of ours ({error})", remedy) from None
    return decoder.eval(), facts


def upsampled(logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resize logits [B, K, h, w] to [B, K, *size], bilinearly."""
    return interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


def _skips(channels: list[int], widths: Sequence[int]) -> list[int]:
    """Return the channels of each block's skip: 0 where the backbone has no further map."""
    skips = channels[1 : len(widths)]
    return skips + [0] * (len(widths) - 1 - len(skips))


class _Up(nn.Module):
    def __init__(self, before: int, after: int, skip: int):
        super().__init__()
        self.skip = nn.Conv2d(skip, after, 1) if skip else None
        self.mix = nn.Sequential(
            nn.Conv2d(before + (after if skip else 0), after, 3, padding=1, bias=False),
            nn.GroupNorm(_groups(after), after),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None) -> torch.Tensor:
        size = [2 * side for side in x.shape[2:]]
        if skip is not None and skip.shape[2] > x.shape[2]:
            size = list(skip.shape[2:])
        x = upsampled(x, size)
        if skip is not None and self.skip is not None:
            x = torch.cat([x, upsampled(self.skip(skip), x.shape[2:])], 1)
        mixed: torch.Tensor = self.mix(x)
        return mixed


def _groups(channels: int) -> int:
    return next(groups for groups in (8, 4, 2, 1) if channels % groups == 0)


class _PaperUp(nn.Module):
    def __init__(self, before: int, after: int, skip: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(before, after, 2, stride=2)
        self.skip, self.mix = _block(skip, after), _block(2 * after, after)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = self.up(x)
        mixed: torch.Tensor = self.mix(torch.cat([x, upsampled(self.skip(skip), x.shape[2:])], 1))
        return mixed


def _block(before: int, after: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))
