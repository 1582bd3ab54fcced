"""The whole embed stage against the bare forward pass of the same model, batch, precision and threads.

    python benchmarks/embed.py [backbone] [images]

1,000 NIH films where RADPROBE_REAL_DATA names their raw folder, else noise of the same shape; random weights, which
cost the same as pretrained ones. Both take turns in one process, so that they meet the same other load.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from radprobe import catalog
from radprobe.artifacts import Weights
from radprobe.learning import features
from radprobe.learning.augment import Views
from radprobe.learning.device import device
from radprobe.models import backbones

TURNS, BATCH, SHARD = 3, 32, 256


def films(n: int) -> np.ndarray:
    raw = os.environ.get("RADPROBE_REAL_DATA")
    if not raw:
        return np.random.default_rng(0).integers(0, 256, (n, 256, 256), np.uint8)
    from PIL import Image

    paths = sorted((Path(raw) / "nih_chestxray14").rglob("*.png"))[:n]
    return np.stack([np.asarray(Image.open(path).convert("L").resize((256, 256))) for path in paths])


def bare(encoder: backbones.Encoder, n: int, where: torch.device) -> float:
    """Images per second of the model alone, on a batch that is already normalised."""
    images = encoder.normalise(torch.zeros((BATCH, 256, 256), device=where))
    begun = time.perf_counter()
    with torch.inference_mode(), torch.autocast(where.type, torch.bfloat16):
        for _ in range(n // BATCH):
            encoder.tower(images, encoder.layers, encoder.recipe.pool == "library")
    if where.type == "cuda":
        torch.cuda.synchronize()
    return n // BATCH * BATCH / (time.perf_counter() - begun)


def stage(encoder: backbones.Encoder, images: np.ndarray, where: torch.device) -> float:
    """Images per second of everything: reading, normalising, forward, writing shards."""
    with tempfile.TemporaryDirectory() as folder:
        names = [str(i) for i in range(len(images))]
        views = Views("crop", len(images), 0, 0)
        source = features.Source(encoder, {}, images, None, views, names, "bf16", BATCH, where)
        begun = time.perf_counter()
        features.encode(source, features.Store(Path(folder), SHARD, "benchmark", 20))
        return len(images) / (time.perf_counter() - begun)


def main(name: str = "tf_efficientnet_lite0", n: str = "1000") -> None:
    where, images = device("auto"), films(int(n))
    encoder = backbones.build(catalog.backbones()[name], Weights(None, None, "random", {"seed": 0}), 224, 4)
    encoder.to(where)
    bare(encoder, BATCH, where)
    rates = np.array([(bare(encoder, len(images), where), stage(encoder, images, where)) for _ in range(TURNS)])
    for forward, embed in rates:
        print(f"forward {forward:.1f} img/s, embed {embed:.1f} img/s")
    print(f"{name}, {len(images)} images, {where}, {torch.get_num_threads()} threads")
    print(f"ratio embed_vs_forward {np.median(rates[:, 1] / rates[:, 0]):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
