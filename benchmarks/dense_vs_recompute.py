"""Linear segmentation decoders on cached dense maps, against computing the frozen backbone anew at every step.

    python benchmarks/dense_vs_recompute.py [backbone] [films] [side] [plain epochs]

Montgomery films where RADPROBE_REAL_DATA names their raw folder, else generated ones; random weights; 7 learning rates,
10 epochs of batches of 8, Dice at the full size, no validation. Ours is the whole embed stage and the decoders; the
plain loop shares one forward pass among the 7 heads, and differentiates MONAI's loss. Every epoch of it is the same
work, so some are measured and the rest is multiplied. Also: the time of our loss against one batched pass of it.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate, one_hot

from radprobe import catalog
from radprobe.artifacts import Embeddings, Weights
from radprobe.learning import decoders, features, loop
from radprobe.learning.augment import Views
from radprobe.learning.device import device
from radprobe.learning.maps import Maps
from radprobe.manifests import Place, seal
from radprobe.models import backbones
from radprobe.models.decoders import Linear

RATES, EPOCHS, BATCH, CLASSES, TURNS = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1], 10, 8, 3, 5


def films(n: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Films and label maps of both lungs, [n, side, side]."""
    raw = os.environ.get("RADPROBE_REAL_DATA")
    if raw:
        from radprobe import datasets as loaders
        from radprobe.imaging.reading import read_grey
        from radprobe.imaging.resize import resize_image, resize_mask

        entry = catalog.datasets()["montgomery"]
        layout = loaders.locate(entry, Path(raw) / "montgomery")
        table = loaders.loader(entry).samples(layout, entry, allow_missing=True).table[:n]
        images = [resize_image(read_grey(layout.root / path), side) for path in table["image"]]
        masks = [[read_grey(layout.root / path) > 0 for path in paths] for paths in table["masks"]]
        labels = [resize_mask(left * 1 + right * 2, side) for left, right in masks]
        return np.stack(images), np.stack(labels).astype(np.uint8)
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:side, :side] / side
    labels = np.zeros((n, side, side), np.uint8)
    for label, centre in ((1, 0.3), (2, 0.7)):
        labels[:, ((x - centre) / 0.14) ** 2 + ((y - 0.5) / 0.32) ** 2 < 1] = label
    return (100 + 80 * (labels == 0) + rng.normal(0, 20, labels.shape)).clip(0, 255).astype(np.uint8), labels


def ours(encoder, images: np.ndarray, masks: np.ndarray, where: torch.device) -> float:
    with tempfile.TemporaryDirectory() as folder:
        n, views = len(images), Views("turn", len(images), 0, 0)
        source = features.Source(
            encoder, {"linear": (-1,)}, images, None, views, [str(i) for i in range(n)], "fp32", BATCH, where
        )
        begun = time.perf_counter()
        facts, files = features.encode(source, features.Store(Path(folder), 256, "benchmark", 20))
        seal(Place(Path(folder), "benchmark"), Embeddings.KIND, facts, files)
        dense = features.Cached(Embeddings.load(Path(folder)))
        maps = Maps(dense, (-1,), masks, np.arange(n), np.arange(n), where)
        statistics = maps.statistics()
        how = decoders.DecoderRecipe(BATCH, "dice", loop.Schedule(EPOCHS, seed=0))
        decoders.fit(lambda: Linear(statistics, CLASSES), maps, CLASSES, RATES, how)
        return time.perf_counter() - begun


def plain(encoder, images: np.ndarray, masks: np.ndarray, where: torch.device, epochs: int) -> float:
    from monai.losses import DiceLoss

    channels = encoder(torch.from_numpy(images[:1]).to(where)).dense[0].shape[1]
    heads = [torch.nn.Conv2d(channels, CLASSES, 1).to(where) for _ in RATES]
    groups = [{"params": head.parameters(), "lr": rate} for head, rate in zip(heads, RATES, strict=True)]
    adam, loss = torch.optim.Adam(groups), DiceLoss(softmax=True, to_onehot_y=True)
    begun = time.perf_counter()
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(BATCH):
            with torch.inference_mode():
                x = encoder(torch.from_numpy(images[rows.numpy()]).to(where)).dense[0]
            x, truth = x.clone(), torch.from_numpy(masks[rows.numpy()]).long().to(where)[:, None]
            adam.zero_grad()
            for head in heads:
                logits = interpolate(head(x), masks.shape[1:], mode="bilinear", align_corners=False)
                loss(logits, truth).backward()
            adam.step()
    return (time.perf_counter() - begun) * EPOCHS / epochs


def loss_ratio(side: int, where: torch.device) -> float:
    """Seconds of our loss and gradient over those of one batched softmax and Dice with autograd."""
    z = torch.randn((BATCH, len(RATES) * CLASSES, side // 14, side // 14), device=where)
    labels = torch.randint(0, CLASSES, (BATCH, side, side), device=where)
    up, found = decoders.Upsampling(z.shape[2:], (side, side), where), []
    for _ in range(TURNS):
        begun = time.perf_counter()
        decoders.Loss(up).slope(z, labels, len(RATES))
        between = time.perf_counter()
        leaf = z.clone().requires_grad_()
        p = (
            interpolate(leaf, (side, side), mode="bilinear", align_corners=False)
            .unflatten(1, (len(RATES), -1))
            .softmax(2)
        )
        t = one_hot(labels, CLASSES).movedim(-1, 1)[:, None].float()
        dice = 1 - (2 * (p * t).sum((3, 4)) + 1e-5) / (p.sum((3, 4)) + t.sum((3, 4)) + 1e-5)
        dice.mean((0, 2)).sum().backward()
        found.append((between - begun) / (time.perf_counter() - between))
    return float(np.median(found))


def main(name: str = "vit_small_patch14_dinov2", n: str = "24", side: str = "448", epochs: str = "1") -> None:
    where, (images, masks) = device("auto"), films(int(n), int(side))
    entry = catalog.backbones()[name]
    encoder = backbones.build(entry, Weights(None, None, "random"), int(side), 1, [-1]).to(where)
    ours(encoder, images[:BATCH], masks[:BATCH], where)  # warm
    cached, recomputed = ours(encoder, images, masks, where), plain(encoder, images, masks, where, int(epochs))
    print(f"{name}, {len(images)} films of {side} px, {torch.get_num_threads()} threads: ours {cached:.1f} s,", end="")
    print(f" recomputing {recomputed:.1f} s ({epochs} of {EPOCHS} epochs measured)")
    print(f"ratio dense_vs_recompute {recomputed / cached:.2f}")
    print(f"ratio dense_loss_vs_batched {loss_ratio(int(side), where):.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
