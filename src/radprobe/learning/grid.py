"""The study's grid of linear heads on frozen features, trained together, each exactly as if it were alone.

One head per learning rate, number of blocks whose CLS is used, and with or without the mean patch token (arXiv
2312.02366, authors' code): SGD with momentum 0.9, no weight decay, a cosine schedule to 0 over all steps, weights
N(0, 0.01) and bias 0 at the start. The loss is the binary cross-entropy of each class, or the cross-entropy over
classes of which one is true (`exclusive`), averaged over the batch and summed over classes: unlike the study's sum over
the batch (D17), the learning rate does not depend on the batch size. Unlabelled entries (NaN) take no part in it.

The gradient is written out: (sigmoid or softmax of the logits - labels) / batch for both. That, and one matrix product
for all heads that read the same columns, makes a pass over the cached features cheap.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from radprobe.learning.device import threads

MOMENTUM, INIT_STD = 0.9, 0.01


@dataclass(frozen=True)
class Recipe:
    """One head: CLS of the last `blocks` blocks, with the mean patch token or not, and its learning rate."""

    blocks: int
    patch_mean: bool
    learning_rate: float

    @property
    def input(self) -> tuple[int, bool]:
        """What the head reads: heads of the same input share a matrix product."""
        return self.blocks, self.patch_mean


@dataclass(frozen=True)
class Table:
    """Features as one matrix [n, D]: CLS from the earliest block to the last, then the mean patch token.

    So the input of every recipe is a range of columns.
    """

    x: torch.Tensor
    blocks: int
    has_patch_mean: bool

    @classmethod
    def of(cls, tokens: torch.Tensor, patch_mean: torch.Tensor | None) -> "Table":
        """Join tokens [n, blocks, C] and patch_mean [n, C]."""
        parts = [tokens.flatten(1)] + ([] if patch_mean is None else [patch_mean])
        return cls(torch.cat(parts, 1), tokens.shape[1], patch_mean is not None)

    def columns(self, recipe: Recipe) -> slice:
        """Return the columns that a recipe reads."""
        width = self.x.shape[1] // (self.blocks + self.has_patch_mean)
        return slice((self.blocks - recipe.blocks) * width, (self.blocks + recipe.patch_mean) * width)

    def rows(self, rows) -> "Table":
        """Return the table of some samples."""
        return Table(self.x[torch.as_tensor(rows)], self.blocks, self.has_patch_mean)


def recipes(
    table: Table, learning_rates: Sequence[float], blocks: Sequence[int], patch_mean: Sequence[bool]
) -> tuple[list[Recipe], int]:
    """Return the recipes that `table` can serve, and how many of the grid it cannot.

    A CNN has one pooled output and no patch token: recipes that ask for more would repeat another one.
    """
    every = [Recipe(b, bool(p), lr) for b in blocks for p in patch_mean for lr in learning_rates]
    kept = [r for r in every if r.blocks <= table.blocks and (table.has_patch_mean or not r.patch_mean)]
    return kept, len(every) - len(kept)


@dataclass(frozen=True)
class Head:
    """A trained linear head."""

    recipe: Recipe
    weight: torch.Tensor  # [classes, D of its recipe]
    bias: torch.Tensor  # [classes]

    def logits(self, table: Table) -> torch.Tensor:
        """Return the logits [n, classes]."""
        with threads(1):
            return torch.addmm(self.bias, table.x[:, table.columns(self.recipe)].float(), self.weight.T)


def fit(
    table: Table,
    labels: torch.Tensor,
    heads: Sequence[Recipe],
    epochs: int,
    batch_size: int,
    seed: int,
    exclusive: bool = False,
    summed: bool = False,
    views: Sequence[Table] = (),
) -> list[Head]:
    """Train `heads` on labels [n, classes] (1, 0, NaN); return them in the order given.

    With `summed` the loss is summed over the batch, as in the study (D17), else averaged. `views` are tables of the
    same samples after augmentation: epochs take the table and its views in turn.

    Shuffles and initial weights depend on `seed` only, so a head is the same whatever others are trained beside it.
    One torch thread: these products are too small for more, and the result then holds for any number of cores.
    """
    inputs = list(dict.fromkeys(head.input for head in heads))
    groups = [
        _Group(table, [head for head in heads if head.input == wanted], labels.shape[1], seed, exclusive)
        for wanted in inputs
    ]
    known, target = (~labels.isnan()).float(), labels.nan_to_num(0.0)
    shuffle, n = torch.Generator().manual_seed(seed), len(labels)
    steps, step = epochs * math.ceil(n / batch_size), 0
    with threads(1), torch.inference_mode():
        for epoch in range(epochs):
            now = (table, *views)[epoch % (1 + len(views))]
            for batch in torch.randperm(n, generator=shuffle).split(batch_size):
                x, y, mask = now.x[batch].float(), target[batch], known[batch]
                scale = 0.5 * (1 + math.cos(math.pi * step / steps))
                for group in groups:
                    group.step(x, y, mask, scale, 1 if summed else len(x))
                step += 1
    trained = {head.recipe: head for group in groups for head in group.heads()}
    return [trained[head] for head in heads]


class _Group:
    """Heads that read the same columns: weights [heads x classes, D], and a learning rate for each row."""

    def __init__(self, table: Table, recipes_: list[Recipe], classes: int, seed: int, exclusive: bool):
        self.recipes, self.classes, self.exclusive = recipes_, classes, exclusive
        self.columns = table.columns(recipes_[0])
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

    def heads(self) -> list[Head]:
        weights, biases = self.weight.split(self.classes), self.bias.split(self.classes)
        return [Head(*each) for each in zip(self.recipes, weights, biases, strict=True)]
