"""Training a backbone with a linear head to classify: films, or volumes as the mean vector of their slices."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from radprobe.learning import loop, selection
from radprobe.learning.cases import ranking
from radprobe.learning.features import Grey
from radprobe.models.tuned import BackboneClassifier, BackboneSegmenter, groups

Network = BackboneClassifier | BackboneSegmenter
EVERY = 32  # images at once where nothing is trained, at most


@dataclass(frozen=True)
class Images:
    """The grey images of some cases, `rows` of each (one of a film), and their labels [n, classes]: 1, 0, NaN."""

    grey: Grey
    rows: list[np.ndarray]
    labels: torch.Tensor
    device: torch.device
    every: int = EVERY

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: np.ndarray, view: int = 0) -> torch.Tensor:
        """Return grey images [len(rows), 1, size, size] on the device; view 0 is the image as it is."""
        return self.grey.take(rows, (-1,), view)[0].to(self.device)

    def together(self, batch_size: int, slices: int) -> int:
        """Return how many cases make a batch of so many images, of each volume so many slices."""
        return max(1, batch_size // min(slices, max(map(len, self.rows))))

    def in_order(self, rows: np.ndarray) -> Iterator[torch.Tensor]:
        """Yield the images at some rows, some at a time."""
        return (self.take(rows[start : start + self.every]) for start in range(0, len(rows), self.every))


@dataclass(frozen=True)
class ImageBatch:
    """Images [B, 1, size, size], the case that each belongs to, and the labels of the cases [n, classes]."""

    images: torch.Tensor
    case: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class TuningRecipe:
    """Images per step, slices of a volume in it, is one class true of each case, learning rates, the schedule."""

    batch_size: int
    slices: int
    exclusive: bool
    backbone_rate: float
    head_rate: float
    schedule: loop.Schedule


@dataclass(frozen=True)
class TunedNetwork:
    """The network as it was in its best epoch by val (the last one without val), its value there, its curves.

    Of several fits only the best keeps its network: the others have None.
    """

    network: Network | None
    value: float
    epochs: int
    history: pd.DataFrame

    @property
    def trained(self) -> Network:
        """The network. Raises ValueError if it was not kept."""
        if self.network is None:
            raise ValueError("the network of this fit was not kept")
        return self.network


def fit(
    make: Callable[[], BackboneClassifier],
    train: Images,
    recipe: TuningRecipe,
    val: Images | None = None,
    folder: Path | None = None,
    what: str | None = None,
) -> TunedNetwork:
    """Train the network that `make` builds on `train`; `folder` holds checkpoints, and a killed fit goes on there.

    The loss is the cross-entropy of each class, summed over classes and averaged over cases, or, if one class is true
    of each case, the cross-entropy over classes. Unknown labels (NaN) take no part. Every epoch sees new crops.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.schedule.seed)
        network = make().to(train.device)
    parameters = groups(network.encoder, network.head, recipe.backbone_rate, recipe.head_rate)
    head = loop.Trainee(f"learning rates {recipe.backbone_rate:g} and {recipe.head_rate:g}", network, parameters)
    found = loop.fit(
        [head],
        lambda epoch, generator: _batches(train, recipe, epoch, generator),
        lambda batch: iter([_loss(network, batch, recipe.exclusive)]),
        recipe.schedule,
        train.device,
        steps_per_epoch=-(-len(train) // train.together(recipe.batch_size, recipe.slices)),
        validate=None if val is None else lambda: [_macro_auroc(network, val, recipe.exclusive)],
        folder=folder,
        what=what,
    )
    return TunedNetwork(network, found.values[0], found.epochs[0], found.history)


def _batches(train: Images, recipe: TuningRecipe, epoch: int, generator: torch.Generator) -> Iterator[ImageBatch]:
    view = train.grey.views.of_epoch(epoch)
    for batch in torch.randperm(len(train), generator=generator).split(
        train.together(recipe.batch_size, recipe.slices)
    ):
        rows = [_some(train.rows[case], recipe.slices, generator) for case in batch]
        case = torch.repeat_interleave(torch.arange(len(batch)), torch.tensor([len(each) for each in rows]))
        images = train.take(np.concatenate(rows), view)
        yield ImageBatch(images, case.to(train.device), train.labels[batch].to(train.device))


def _some(rows: np.ndarray, most: int, generator: torch.Generator) -> np.ndarray:
    """Return some of the slices of a volume, drawn without replacement, in order."""
    if len(rows) <= most:
        return rows
    chosen: np.ndarray = rows[np.sort(torch.randperm(len(rows), generator=generator)[:most].numpy())]
    return chosen


def _loss(network: BackboneClassifier, batch: ImageBatch, exclusive: bool) -> torch.Tensor:
    vectors = network.vectors(batch.images)
    logits = network(_means(vectors, batch.case, len(batch.labels)))
    known, target = ~batch.labels.isnan(), batch.labels.nan_to_num(0.0)
    if exclusive:
        each = -logits.log_softmax(1) * target
    else:
        each = binary_cross_entropy_with_logits(logits, target, reduction="none") * known
    loss: torch.Tensor = each.sum(1).mean()
    return loss


def _means(vectors: torch.Tensor, case: torch.Tensor, n: int) -> torch.Tensor:
    vectors = vectors.float()
    total = torch.zeros(n, vectors.shape[1], device=vectors.device).index_add(0, case, vectors)
    return total / torch.bincount(case, minlength=n)[:, None]


@torch.inference_mode()
def logits(network: BackboneClassifier, images: Images) -> torch.Tensor:
    """Return the logits [n, classes] of every case, by the mean vector of all its images; on the CPU."""
    network.eval()
    found = []
    if all(len(rows) == 1 for rows in images.rows):
        found = [network(network.vectors(each)) for each in images.in_order(np.concatenate(images.rows))]
    else:
        for rows in images.rows:
            vectors = torch.cat([network.vectors(each).float() for each in images.in_order(rows)])
            found.append(network(vectors.mean(0, keepdim=True)))
    return torch.cat(found).float().cpu()


def _macro_auroc(network: BackboneClassifier, val: Images, exclusive: bool) -> float:
    found = ranking(logits(network, val), exclusive)
    return selection.macro_auroc(val.labels.numpy(), found.numpy()) if found.isfinite().all() else float("nan")
