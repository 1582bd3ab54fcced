"""What heads on frozen features read: the features and labels of the cases in the three parts of a split."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from radprobe.artifacts import PARTS, Embeddings, Index, Split
from radprobe.files import RadprobeError
from radprobe.learning import grid, knn, selection
from radprobe.learning.cases import Cases

USE = {"train": "trained", "val": "chosen", "test": "evaluated"}
TRAIN, VAL, TEST, REFIT = "train", "val", "test", "train+val"


class Samples:
    """Features and labels by part: of films, or of volumes as the mean of their slices.

    exclusive: one class is true of each case. neighbours: how many each list of `near` holds. within: some head needs
    the neighbours within its source.
    """

    def __init__(
        self,
        index: Index,
        split: Split,
        embeddings: Embeddings,
        *,
        exclusive: bool,
        neighbours: int,
        within: bool,
    ) -> None:
        self.cases = Cases(index)
        self.labels = self.cases.labels(index, split, exclusive)
        self.table, *self.views = (self._table(*view) for view in embeddings.views())
        self.tokens = embeddings.tokens.shape[1]
        self.cls = self.table.x[:, self.table.columns(1, False)]
        self.classes = split.classes
        self.exclusive = exclusive
        self.rows = {part: self.cases.of(split.rows(index, part)) for part in PARTS}
        self.rows[REFIT] = self.cases.of(split.rows(index, TRAIN, VAL))
        self.neighbours = neighbours
        self.within = within

    def _table(self, vectors: Sequence[np.ndarray], patch_mean: np.ndarray | None) -> grid.FeatureTable:
        mean = None if patch_mean is None else self.cases.mean(patch_mean)
        return grid.FeatureTable.of([self.cases.mean(each) for each in vectors], mean)

    @cached_property
    def near(self) -> dict[tuple[str, str], knn.Neighbours]:
        """The lists that kNN and ML-kNN share, by (query, source): searched once."""
        pairs = [(VAL, TRAIN), (TEST, REFIT)]
        if self.within:
            pairs += [(TRAIN, TRAIN), (REFIT, REFIT)]
        parts = {part: self.rows[part] for part in PARTS}
        return knn.nearest(self.cls, parts, pairs, self.neighbours)

    def check(self, dataset: str) -> None:
        """Raise RadprobeError if a part has no sample, or if train or val has no class with both labels."""
        for part in PARTS:
            if not len(self.rows[part]):
                reason = f"part {part} has no sample here, so no head can be {USE[part]}"
                remedy = "choose another split of this dataset, or get the whole download"
                raise RadprobeError(f"{dataset}, its split", reason, remedy)
        for part in (TRAIN, VAL):
            if not selection.both_present(self.y(part).numpy()).any():
                reason = f"no class has both a positive and a negative in {part}, so no head can be {USE[part]}"
                raise RadprobeError(f"{dataset}, its split", reason, "choose another split of this dataset")

    def y(self, part: str) -> torch.Tensor:
        """Return the labels [n, classes] of a part."""
        return self.labels[self.rows[part]]

    def features(self, part: str) -> grid.FeatureTable:
        """Return the features of a part."""
        return self.table.rows(self.rows[part])

    def views_of(self, part: str) -> list[grid.FeatureTable]:
        """Return the augmented copies of a part, one table per view."""
        return [view.rows(self.rows[part]) for view in self.views]

    def value(self, scores: torch.Tensor) -> float:
        """Return the macro AUROC of scores [n val, classes]; NaN if they are not finite."""
        return selection.macro_auroc(self.y(VAL).numpy(), scores.numpy()) if scores.isfinite().all() else float("nan")
