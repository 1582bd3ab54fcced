"""Embedding once and fitting the 16-head grid, against computing the frozen backbone anew at every step.

    python benchmarks/grid_vs_recompute.py [backbone] [images] [plain epochs]

NIH films where RADPROBE_REAL_DATA names their raw folder, else noise of the same shape; random weights, which cost the
same as pretrained ones; 14 labels; 10 epochs of batches of 64. Ours is the whole embed stage and the grid. The plain
loop is a forward pass of the backbone and one step of 16 torch heads at every step, same batches, precision and
threads; every epoch of it is the same work, so some are measured and the rest is multiplied.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from embed import films

from radprobe import catalog
from radprobe.artifacts import Embeddings, Weights
from radprobe.learning import features, grid
from radprobe.learning.augment import Views
from radprobe.learning.device import device
from radprobe.manifests import Place, seal
from radprobe.models import backbones

EPOCHS, BATCH, CLASSES, RATES, BLOCKS = 10, 64, 14, [0.001, 0.005, 0.01, 0.05], [1, 4]


def ours(encoder, images: np.ndarray, labels: torch.Tensor, where: torch.device) -> tuple[float, float]:
    """Seconds of embedding and of the grid."""
    with tempfile.TemporaryDirectory() as folder:
        names, views = [str(i) for i in range(len(images))], Views("crop", len(images), 0, 0)
        source = features.Source(encoder, {}, images, None, views, names, "fp32", BATCH, where)
        begun = time.perf_counter()
        facts, files = features.encode(source, features.Store(Path(folder), 256, "benchmark", 20))
        seal(Place(Path(folder), "benchmark"), Embeddings.KIND, facts, files)
        found = Embeddings.load(Path(folder))
        between = time.perf_counter()
        table = grid.FeatureTable.of(torch.from_numpy(found.cls).unbind(1), torch.from_numpy(found.patch_mean))
        recipes = [grid.HeadRecipe(*each, rate) for each in grid.inputs(table, BLOCKS, [False, True]) for rate in RATES]
        grid.fit(table, labels, recipes, EPOCHS, BATCH, 0, unit=grid.Unit.of(table))
        return between - begun, time.perf_counter() - between


def plain(encoder, images: np.ndarray, labels: torch.Tensor, where: torch.device, epochs: int) -> float:
    """Seconds of 10 epochs, of which `epochs` are measured."""
    first = encoder(torch.from_numpy(images[:1]).to(where))
    dim = first.cls.shape[-1]
    kinds = [(blocks, mean, rate) for blocks in BLOCKS for mean in (False, True) for rate in RATES]
    heads = [torch.nn.Linear(dim * (blocks + mean), CLASSES).to(where) for blocks, mean, _ in kinds]
    sgd = [
        torch.optim.SGD(head.parameters(), lr=rate, momentum=0.9) for head, (*_, rate) in zip(heads, kinds, strict=True)
    ]
    begun = time.perf_counter()
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(BATCH):
            with torch.inference_mode():
                found = encoder(torch.from_numpy(images[rows.numpy()]).to(where))
            for head, step, (blocks, mean, _) in zip(heads, sgd, kinds, strict=True):
                x = torch.cat([found.cls[:, -blocks:].flatten(1), *([found.patch_mean] if mean else [])], 1).clone()
                loss = torch.nn.functional.binary_cross_entropy_with_logits(head(x), labels[rows].to(where))
                step.zero_grad()
                loss.backward()
                step.step()
    return (time.perf_counter() - begun) * EPOCHS / epochs


def main(name: str = "vit_small_patch14_dinov2", n: str = "192", epochs: str = "1") -> None:
    where, images = device("auto"), films(int(n))
    labels = (torch.rand((len(images), CLASSES), generator=torch.Generator().manual_seed(0)) < 0.2).float()
    encoder = backbones.build(catalog.backbones()[name], Weights(None, None, "random"), 224, 4).to(where)
    ours(encoder, images[:BATCH], labels[:BATCH], where)  # warm
    embedding, fitting = ours(encoder, images, labels, where)
    recomputed = plain(encoder, images, labels, where, int(epochs))
    print(
        f"{name}, {len(images)} images, {torch.get_num_threads()} threads: embedding {embedding:.1f} s, grid of 16",
        end="",
    )
    print(f" heads {fitting:.2f} s; recomputing {recomputed:.1f} s ({epochs} of {EPOCHS} epochs measured)")
    print(f"ratio grid_vs_recompute {recomputed / (embedding + fitting):.2f}")
    print(f"ratio grid_share_of_embedding {fitting / embedding:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
