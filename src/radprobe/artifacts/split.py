"""The training, validation and test sets."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import pandera.pandas as pa

from radprobe import files, manifests
from radprobe.artifacts.index import Index
from radprobe.artifacts.tables import reading
from radprobe.files import RadprobeError
from radprobe.manifests import Place

PARTS = ("train", "val", "test")
SPLIT_SCHEMA = pa.DataFrameSchema(
    {
        "sample_id": pa.Column(str, unique=True),
        "patient_id": pa.Column(str),
        "part": pa.Column(str, pa.Check.isin(PARTS)),
        "fold": pa.Column(int, pa.Check.ge(1), coerce=True, required=False),  # of cross-validation; all parts are test
    },
    strict=True,
)


@dataclass
class Split:
    """Which sample is in which part; samples in no part are absent from the table. A few-shot draw is a Split too.

    Under cross-validation the table has a column `fold`, 1 ... k, and every sample is test: `folds` are the splits that
    heads are fitted on.
    """

    KIND: ClassVar[str] = "split"
    table: pd.DataFrame
    classes: list[str]  # the classes that this split evaluates, in order
    facts: dict[str, Any] = field(default_factory=dict)  # recipe, counts of samples, patients and positives by part

    def __post_init__(self) -> None:
        self.table = SPLIT_SCHEMA.validate(self.table.reset_index(drop=True))
        parts = self.groups.groupby(self.table["patient_id"]).nunique()
        if (shared := parts[parts > 1]).size:
            raise RadprobeError(
                f"patient {shared.index[0]}",
                f"is in two parts of the split ({shared.size} such patients)",
                "give every image of a patient the same part",
            )

    @property
    def is_folded(self) -> bool:
        """Does it say folds of a cross-validation?"""
        return "fold" in self.table

    @property
    def groups(self) -> pd.Series:
        """The group of each row of `table` that must share nothing with another: its part, or its fold as text."""
        return "fold " + self.table["fold"].astype(str) if self.is_folded else self.table["part"]

    @property
    def group_names(self) -> list[str]:
        """The names of all groups, in order."""
        if not self.is_folded:
            return list(PARTS)
        return [f"fold {number}" for number in sorted(self.table["fold"].unique())]

    @property
    def folds(self) -> "list[Split]":
        """The splits that heads are fitted on: of each fold one, else this one alone.

        In the split of a fold, the fold is test, the next one (after the last: the first) is val, all others are train.
        """
        if not self.is_folded:
            return [self]
        numbers = sorted(self.table["fold"].unique())
        splits = []
        for test, val in zip(numbers, [*numbers[1:], numbers[0]], strict=True):
            part = self.table["fold"].map({test: "test", val: "val"}).fillna("train")
            splits.append(Split(self.table.drop(columns="fold").assign(part=part), self.classes, self.facts))
        return splits

    def rows(self, index: Index, *groups: str) -> np.ndarray:
        """Return the positions in `index` of the samples of some parts (or folds, by `group_names`), sorted."""
        chosen = self.table.loc[self.groups.isin(groups), "sample_id"]
        return np.flatnonzero(index.table["sample_id"].isin(chosen).to_numpy())

    def targets(self, index: Index, exclusive: bool) -> np.ndarray:
        """Return the labels 1, 0 or NaN of every row of an index, of the classes of this split, float32 [n, classes].

        `exclusive`: one class is true of each row; a row of a class that the split leaves out is NaN.
        """
        found = index.labels()[:, [index.classes.index(name) for name in self.classes]]
        if exclusive:  # known to be none of the others, but not to be anything
            found[~(found == 1).any(axis=1)] = np.nan
        return found

    def save(self, place: Place) -> None:
        """Write split.csv and split.json."""
        with files.atomic(place.folder / "split.csv") as temporary:
            self.table.to_csv(temporary, index=False, lineterminator="\n")
        manifests.seal(place, self.KIND, {**self.facts, "classes": self.classes}, ["split.csv"])

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read and validate it."""
        facts = dict(manifests.unseal(folder, cls.KIND).facts)
        with reading(path := Path(folder) / "split.csv"):
            return cls(pd.read_csv(path, dtype=str, keep_default_na=False), facts.pop("classes"), facts)
