"""The grid of linear heads on frozen features, trained together, each exactly as if it were alone.

One head per learning rate and input (arXiv 2312.02366, authors' code): SGD with momentum 0.9, no weight decay, a cosine
schedule to 0 over all steps, weights N(0, 0.01) and bias 0 at the start. The loss is the binary cross-entropy of each
class, or the cross-entropy over classes of which one is true (`exclusive`), averaged over the batch and summed over
classes: unlike the study's sum over the batch (D17), the learning rate does not depend on the batch size. Unlabelled
entries (NaN) take no part in it.

SGD depends on the unit of its features: the same features times 50 need a learning rate 2,500 times smaller. `Unit`
takes the unit away. It centres each kind of vector (CLS of a block, patch mean, pooled stage) and divides it by one
number. The study has no such step, so its own grid (`paper_recipes`) reads features as they are.

The gradient is written out: (sigmoid or softmax of the logits - labels) / batch for both. That, and one matrix product
for all heads that read the same columns, makes a pass over the cached features cheap.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from radprobe.learning.device import threads

MOMENTUM, INIT_STD = 0.9, 0.01
PAPER_RATES = (0.001, 0.005, 0.01, 0.05)  # of the study's grid (arXiv 2312.02366, authors' code)
PAPER_BLOCKS = (1, 4)
CHUNK = 4096  # rows held in higher precision at a time


@dataclass(frozen=True)
class HeadRecipe:
    """One head: the vectors of the last `blocks` blocks or stages, the mean patch token or not, its learning rate."""

    blocks: int
    patch_mean: bool
    learning_rate: float

    @property
    def input(self) -> "Input":
        """What the head reads: heads of the same input share a matrix product."""
        return self.blocks, self.patch_mean


Input = tuple[int, bool]  # the last so many blocks or stages, with the mean patch token or not


@dataclass(frozen=True)
class FeatureTable:
    """Features as one matrix [n, D]: the vectors from the earliest block or stage to the last, then the patch mean.

    So every input is a range of columns. `widths` are those of the vectors, `patch_width` that of the mean patch token,
    0 where there is none.
    """

    x: torch.Tensor
    widths: tuple[int, ...]
    patch_width: int = 0

    @classmethod
    def of(cls, vectors: Sequence[torch.Tensor], patch_mean: torch.Tensor | None = None) -> "FeatureTable":
        """Join vectors [n, C], each of its own width, and patch_mean [n, C]."""
        parts = [*vectors] + ([] if patch_mean is None else [patch_mean])
        widths = tuple(each.shape[1] for each in vectors)
        return cls(torch.cat(parts, 1), widths, 0 if patch_mean is None else patch_mean.shape[1])

    @property
    def spans(self) -> list[slice]:
        """The columns of each vector, and of the patch mean."""
        widths = [*self.widths] + ([self.patch_width] if self.patch_width else [])
        return [slice(sum(widths[:place]), sum(widths[: place + 1])) for place in range(len(widths))]

    def columns(self, blocks: int, patch_mean: bool) -> slice:
        """Return the columns of an input."""
        return slice(sum(self.widths[:-blocks]), sum(self.widths) + (self.patch_width if patch_mean else 0))

    def rows(self, rows: np.ndarray | torch.Tensor) -> "FeatureTable":
        """Return the table of some samples."""
        return FeatureTable(self.x[torch.as_tensor(rows)], self.widths, self.patch_width)


def inputs(table: FeatureTable, blocks: Sequence[int], patch_mean: Sequence[bool]) -> list[Input]:
    """Return what heads may read of `table`: the same number of inputs for every backbone that has enough vectors.

    With a CLS and a mean patch token: each of `blocks` with each of `patch_mean`. Other backbones (CNNs, mean-pooled
    tokens, projections) get as many inputs: the last k vectors, for each k of `blocks`, then for k = 1, 2, 3 ...
    A backbone of a single vector (pixels, metadata) has one input.
    """
    if table.patch_width:
        possible = [number for number in blocks if number <= len(table.widths)]
        return [(number, bool(with_mean)) for number in possible for with_mean in patch_mean]
    wanted = len(blocks) * len(patch_mean)
    numbers = dict.fromkeys([*blocks, *range(1, len(table.widths) + 1)])
    possible = [number for number in numbers if number <= len(table.widths)]
    return [(number, False) for number in sorted(possible[:wanted])]


def paper_inputs(table: FeatureTable, tokens: int) -> list[Input]:
    """Return what the study's heads read: CLS of the last 1 or 4 blocks, with the patch mean or without.

    `tokens` is how many vectors the backbone gives as blocks: 1 for a CNN, whose earlier stages the study leaves out.
    """
    kinds = (False, True) if table.patch_width else (False,)
    return [(number, with_mean) for number in PAPER_BLOCKS for with_mean in kinds if number <= tokens]


@dataclass(frozen=True)
class Unit:
    """What makes features independent of their unit: x becomes (x - shift) * factor, both [D].

    The shift is the mean over cases. The factor is one number for each vector: 1 over the root mean square length of
    its deviations from that mean. So every vector has length 1 on average, whatever its width. A vector that never
    changes becomes 0.
    """

    shift: torch.Tensor
    factor: torch.Tensor

    @classmethod
    def of(cls, table: FeatureTable) -> "Unit":
        """Measure the features of `table`, in float64."""
        n = len(table.x)
        nothing = torch.zeros((), dtype=torch.float64)
        chunks = torch.split(table.x, CHUNK)
        mean = sum((rows.double().sum(0) for rows in chunks), nothing) / n
        variance = sum((((rows.double() - mean) ** 2).sum(0) for rows in chunks), nothing) / n
        factor = torch.zeros_like(mean)
        for span in table.spans:
            length = variance[span].sum()
            if length > 0:
                factor[span] = 1 / length.sqrt()
        return cls(mean.float(), factor.float())

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Return float32 features [n, D] in this unit."""
        return (x - self.shift).mul_(self.factor)

    def raw(self, head: "Head", columns: slice) -> "Head":
        """Return a head that was trained in this unit as one that reads raw features."""
        weight = head.weight.double() * self.factor[columns]
        bias = head.bias - weight @ self.shift[columns].double()
        return Head(head.recipe, weight.float(), bias.float())


@dataclass(frozen=True)
class Head:
    """A trained linear head."""

    recipe: HeadRecipe
    weight: torch.Tensor  # [classes, D of its recipe]
    bias: torch.Tensor  # [classes]

    def logits(self, table: FeatureTable) -> torch.Tensor:
        """Return the logits [n, classes]."""
        with threads(1):
            return torch.addmm(self.bias, table.x[:, table.columns(*self.recipe.input)].float(), self.weight.T)


def fit(
    table: FeatureTable,
    labels: torch.Tensor,
    heads: Sequence[HeadRecipe],
    epochs: int,
    batch_size: int,
    seed: int,
    exclusive: bool = False,
    summed: bool = False,
    views: Sequence[FeatureTable] = (),
    unit: Unit | None = None,
) -> list[Head]:
    """Train `heads` on labels [n, classes] (1, 0, NaN); return them in the order given, as heads on raw features.

    With `unit` learning rates are those of features in that unit.

    With `summed` the loss is summed over the batch, as in the study (D17), else averaged. `views` are tables of the
    same samples after augmentation: epochs take the table and its views in turn.

    Shuffles and initial weights depend on `seed` only, so a head is the same whatever others are trained beside it.
    One torch thread: these products are too small for more, and the result then holds for any number of cores.
    """
    groups = [
        _Group(table, [head for head in heads if head.input == wanted], labels.shape[1], seed, exclusive)
        for wanted in dict.fromkeys(head.input for head in heads)
    ]
    known, target = (~labels.isnan()).float(), labels.nan_to_num(0.0)
    shuffle, n = torch.Generator().manual_seed(seed), len(labels)
    steps, step = epochs * math.ceil(n / batch_size), 0
    with threads(1), torch.inference_mode():
        for epoch in range(epochs):
            now = (table, *views)[epoch % (1 + len(views))]
            for batch in torch.split(torch.randperm(n, generator=shuffle), batch_size):
                x = now.x[batch].float()
                x = unit.apply(x) if unit else x
                y, mask = target[batch], known[batch]
                scale = 0.5 * (1 + math.cos(math.pi * step / steps))
                for group in groups:
                    group.step(x, y, mask, scale, 1 if summed else len(x))
                step += 1
    trained = {head.recipe: head for group in groups for head in group.heads(unit)}
    return [trained[head] for head in heads]


class _Group:
    """Heads that read the same columns: weights [heads x classes, D], and a learning rate for each row."""

    def __init__(self, table: FeatureTable, recipes_: list[HeadRecipe], classes: int, seed: int, exclusive: bool):
        self.recipes, self.classes, self.exclusive = recipes_, classes, exclusive
        self.columns = table.columns(*recipes_[0].input)
        shape = (classes, self.columns.stop - self.columns.start)
        start = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * INIT_STD
        self.weight = start.repeat(len(recipes_), 1)
        self.bias = torch.zeros(len(self.weight))
        self.weight_speed, self.bias_speed = torch.zeros_like(self.weight), torch.zeros_like(self.bias)
        self.rate = torch.tensor([r.learning_rate for r in recipes_]).repeat_interleave(classes)

    def step(self, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor, scale: float, over: int) -> None:
        x = x[:, self.columns]
        logits = torch.addmm(self.bias, x, self.weight.T).view(len(x), len(self.recipes), self.classes)
        likely = logits.softmax(2) if self.exclusive else logits.sigmoid_()
        slope = ((likely - y[:, None]) * mask[:, None]).div_(over).flatten(1)
        self.weight_speed.mul_(MOMENTUM).addmm_(slope.T, x)
        self.bias_speed.mul_(MOMENTUM).add_(slope.sum(0))
        rate = self.rate * scale
        self.weight.addcmul_(self.weight_speed, rate[:, None], value=-1)
        self.bias.addcmul_(self.bias_speed, rate, value=-1)

    def heads(self, unit: Unit | None) -> list[Head]:
        weights = torch.split(self.weight, self.classes)
        biases = torch.split(self.bias, self.classes)
        found = [Head(*each) for each in zip(self.recipes, weights, biases, strict=True)]
        return [unit.raw(head, self.columns) for head in found] if unit else found
