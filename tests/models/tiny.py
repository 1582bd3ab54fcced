"""Small networks of every family of the catalog, with random weights: the same code, fewer and narrower blocks."""

import torch

from radprobe import catalog
from radprobe.artifacts import Weights
from radprobe.models import backbones

RANDOM = Weights(None, None, "random", {"seed": 0})
NARROW = {"depth": 3, "embed_dim": 64, "num_heads": 2}
HF = {"num_hidden_layers": 3, "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}


def like(id_, native_size=None, **changes):
    """Return a catalog entry with other options, and the native size of the small network."""
    update = {"native_size": native_size} if native_size else {}
    return catalog.backbones()[id_].model_copy(update={**update, **changes})


SAM = {**NARROW, "img_size": 256, "global_attn_indexes": (1,), "window_size": 6, "neck_chans": 32}
CLIP = {
    "embed_dim": 48,
    "vision_cfg": {"layers": 3, "width": 64, "head_width": 32, "patch_size": 16, "image_size": 224},
}
BIOMED = {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160}
TOKENS = {
    "dinov2": like("vit_small_patch14_dinov2", options=NARROW),
    "dinov2, registers": like("vit_small_patch14_reg4_dinov2", options=NARROW),
    "dinov3": like("vit_small_patch16_dinov3", options=NARROW),
    "supervised": like("vit_large_patch16_in21k", options=NARROW),
    "supervised, transformers": like("vit_large_patch16_in21k_in1k", options=HF),
    "mae": like("mae_large", options=NARROW),
    "msn": like("msn_large", options=HF),
    "clip": like("clip_large", options=NARROW),
    "openclip": like("openclip_huge", options=NARROW),
    "rad-dino": like("rad_dino", options={**HF, "image_size": 518}),
    "biomedclip": like("biomedclip_base", 160, options={"embed_dim": 48, "vision_cfg": BIOMED}),
    "open_clip's own": like("biomedclip_base", options=CLIP),
    "sam": like("sam_large_resized", 256, options=SAM),
    "test_vit": like("test_vit"),
}
STAGES = {
    "resnet": like("resnet152", name="resnet18.tv_in1k"),
    "densenet": like("densenet201", name="densenet121.tv_in1k"),
    "vgg": like("vgg19", name="vgg11.tv_in1k", options={"mlp_ratio": 0.02}),
    "efficientnet": like("tf_efficientnet_lite0", name="test_efficientnet.r160_in1k"),
}


def encoder(entry, size=224, blocks=2, seed=0, frozen=True, weights=None):
    """Build an encoder of an entry, with its own dense layer."""
    weights = weights or Weights(None, None, "random", {"seed": seed})
    return backbones.build(entry, weights, size, blocks, [entry.dense_layer], frozen)


def pixels(n=2, side=160, seed=0):
    """Return noise [n, side, side]."""
    return torch.randint(0, 256, (n, side, side), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
