"""The study's two networks from scratch: grey images in, a logit for every label and pixel out."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from torch.nn.functional import interpolate

from radprobe.models import torchvision_ops  # noqa: F401 - before timm

STUDY_WIDTH = 64


def unet(classes: int, width: int = STUDY_WIDTH) -> nn.Module:
    """Return a U-Net for images [B, 1, H, W] whose sides 16 divides: logits [B, classes, H, W].

    MONAI's BasicUNet with `width`, 2, 4, 8 and 16 times as many channels: 64 to 1,024 in the study (Ronneberger et al.
    2015, arXiv 1505.04597).
    """
    from monai.networks.nets.basic_unet import BasicUNet

    features = (width, 2 * width, 4 * width, 8 * width, 16 * width, width)
    return BasicUNet(spatial_dims=2, in_channels=1, out_channels=classes, features=features)


class TransUnet(nn.Module):
    """A ResNet-50 stem, a transformer over its last map, and an upsampler that joins three maps of the stem.

    Chen et al. 2021, arXiv 2102.04306. Images [B, 1, H, W] of side `size`, which 16 divides, become logits [B, classes,
    H, W]. The encoder is timm's hybrid: ResNetV2 of 3, 4 and 9 blocks, then a ViT of `depth` blocks of `dim` channels.
    """

    def __init__(self, classes: int, size: int, dim: int, depth: int, heads: int, stem: float, widths: Sequence[int]):
        super().__init__()
        from timm.layers.hybrid_embed import HybridEmbed
        from timm.layers.norm_act import GroupNormAct
        from timm.layers.std_conv import StdConv2dSame
        from timm.models.resnetv2 import ResNetV2
        from timm.models.vision_transformer import VisionTransformer

        groups = 32 if stem == 1 else 8  # of the norms: narrow stems have fewer channels
        channels = [max(4 * groups, int(each * stem)) for each in (256, 512, 1024)]
        stem_chs = max(groups, int(64 * stem))
        resnet = ResNetV2(
            layers=[3, 4, 9],
            channels=tuple(channels),
            num_classes=0,
            global_pool="",
            stem_chs=stem_chs,
            stem_type="same",
            preact=False,
            norm_layer=partial(GroupNormAct, num_groups=groups),
            conv_layer=partial(StdConv2dSame, eps=1e-8),
        )
        self.encoder = VisionTransformer(
            img_size=size,
            num_classes=0,
            embed_dim=dim,
            depth=depth,
            num_heads=heads,
            class_token=False,
            global_pool="",
            embed_layer=lambda **given: HybridEmbed(backbone=resnet, **given),
            patch_size=1,
        )
        self.grid = size // 16
        self.enter = _block(dim, widths[0])
        skips = [channels[1], channels[0], stem_chs, 0]  # at 1/8, 1/4, 1/2 and 1/1 of the side
        steps = zip([widths[0], *widths[:-1]], widths, skips, strict=True)
        self.up = nn.ModuleList(_block(before + skip, after) for before, after, skip in steps)
        self.leave = nn.Conv2d(widths[-1], classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of grey images from 0 to 1."""
        stem = self.encoder.patch_embed.backbone
        kept: list[torch.Tensor] = []
        parts = [stem.stem.norm, stem.stages[0], stem.stages[1]]
        hooks = [part.register_forward_hook(lambda _, __, output: kept.append(output)) for part in parts]
        try:
            tokens = self.encoder.forward_features(images.expand(-1, 3, -1, -1) * 2 - 1)
        finally:
            for hook in hooks:
                hook.remove()
        x = self.enter(tokens.transpose(1, 2).unflatten(2, (self.grid, self.grid)))
        skips = [*reversed(kept), None]
        for number, (block, skip) in enumerate(zip(self.up, skips, strict=True)):
            side = self.grid * 2 ** (number + 1)
            x = interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
            x = block(x if skip is None else torch.cat([x, skip], 1))
        logits: torch.Tensor = self.leave(x)
        return logits


def transunet(classes: int, size: int, width: int = STUDY_WIDTH) -> TransUnet:
    """Return a TransUnet; at width 64 the study's R50-ViT-L/16: 24 blocks of 1,024 channels, upsampled by 256 to 16.

    Other widths shrink every channel alike, and below 64 the transformer's depth too, for CPUs and tests.
    """
    share = width / STUDY_WIDTH
    heads = max(1, round(16 * share))
    widths = [max(4, round(each * share)) for each in (256, 128, 64, 16)]
    return TransUnet(classes, size, 64 * heads, max(2, round(24 * share)), heads, share, widths)


def _block(before: int, after: int) -> nn.Sequential:
    layers = [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    again = [nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *again)
