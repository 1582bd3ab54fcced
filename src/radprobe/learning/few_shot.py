"""Few-shot learning: training sets of a few patients, and what is fitted to each.

A draw is a Split whose train part holds a few patients only; val and test stay as they are.

`shots` counts patients, and all images of a drawn patient come along: for each class so many with a positive image of
it (multi-label), so many of each class (multi-class), so many with a positive image and so many without (binary), and
so many in all where the labels are masks. Draws depend on the patients, their labels and a seed, and on nothing else:
every backbone gets the same. The draws of one number are nested: who is drawn for 1 is drawn for 2, 4 and so on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from radprobe import console
from radprobe.artifacts import FewShotScores, Index, Split
from radprobe.catalog import PAPER
from radprobe.files import RadprobeError
from radprobe.learning.selection import Diverged

OURS = "few-shot"  # the protocol of draws by seed
R = TypeVar("R")


@dataclass(frozen=True)
class Draw:
    """A few-shot training set. `note` names the classes that have fewer patients than were asked for."""

    protocol: str
    shots: int | None  # None: all
    number: int
    split: Split
    patients: int
    samples: int
    positives: dict[str, int]  # by class, the drawn patients with a positive image of it; empty for masks
    note: str = ""

    @property
    def name(self) -> str:
        """A name that no other draw of the job has, for files."""
        return f"{self.protocol}-{self.shots or 'all'}-{self.number}"

    @property
    def row(self) -> dict[str, Any]:
        """The draw as a row of FewShotScores's table."""
        facts = {"n_patients": self.patients, "n_samples": self.samples, "note": self.note}
        return {"protocol": self.protocol, "shots": self.shots or 0, "draw": self.number, **facts}


def every(
    index: Index, split: Split, task: str, shots: Sequence[int], repeats: int, seed: int, paper: bool
) -> list[Draw]:
    """Return all draws that params want, and if `paper` those of the paper after them."""
    ours = draws(index, split, task, shots, repeats, seed)
    theirs = paper_draws(index, split, task, shots) if paper else ()
    return [*ours, *theirs]


def fit_each(every: Sequence[Draw], fit: Callable[[Draw], R]) -> list[R | None]:
    """Return what `fit` makes of each draw, None if it raises Diverged; show the progress."""
    fitted: list[R | None] = []
    for number, draw in enumerate(console.track(every, "few-shot (draws)", len(every)), 1):
        try:
            fitted.append(fit(draw))
        except Diverged as error:
            console.say(f"{draw.protocol}, draw {number}: {error}")
            fitted.append(None)
    return fitted


def scored(every: Sequence[Draw], scores: np.ndarray) -> FewShotScores:
    """Return the artifact of draws and of what was fitted to them: `scores` [draws, n test cases, ...]."""
    return FewShotScores(pd.DataFrame([draw.row for draw in every], columns=list(FewShotScores.COLUMNS)), scores)


def draws(index: Index, split: Split, task: str, shots: Sequence[int], repeats: int, seed: int) -> Iterator[Draw]:
    """Yield `repeats` draws of each of `shots`, then one of all patients of train.

    A class with fewer patients than asked for gives all it has. Images whose label is unknown (NaN) count for nothing.
    """
    train = _Train(index, split, OURS)
    groups = _groups(train, task)
    orders = [
        [np.random.default_rng([seed, number, place]).permutation(group) for place, group in enumerate(groups.values())]
        for number in range(repeats)
    ]
    for wanted in sorted(set(shots)):
        note = _note("patients", wanted, groups)
        for number, order in enumerate(orders):
            yield from train.draw(wanted, number, np.concatenate([group[:wanted] for group in order]), note)
    yield from train.draw(None, 0, train.patients, "")


def paper_draws(index: Index, split: Split, task: str, shots: Sequence[int]) -> Iterator[Draw]:
    """Yield the paper's single draw of each of `shots` (arXiv 2312.02366, authors' code, D15).

    Multi-label: for each class the first patients by id whose every image has the label. Others: evenly spaced cases,
    `arange(0, n, n / shots).round()` over the sorted cases of train; there `shots` counts cases: films, or volumes.
    """
    train = _Train(index, split, OURS + PAPER)
    for wanted in sorted(set(shots)):
        if task == "multilabel":
            groups = train.who(train.every)
            firsts = np.concatenate([group[:wanted] for group in groups.values()])
            yield from train.draw(wanted, 0, firsts, _note("patients", wanted, groups))
        else:
            cases = np.unique(train.table["volume_id"].to_numpy(str))
            note = _note("cases", wanted, {"train": cases})
            yield from train.draw(wanted, 0, _evenly(cases, wanted), note, "volume_id")


class _Train:
    """The train part of a split: its samples, its patients by id, and who of them has which label."""

    def __init__(self, index: Index, split: Split, protocol: str):
        self.protocol = protocol
        rows = split.rows(index, "train")
        if not len(rows):
            raise RadprobeError("few-shot", "train has no sample", "choose another split of this dataset")
        self.split, self.table = split, index.table.iloc[rows]
        patients, classes = self.table["patient_id"].to_numpy(str), [c for c in split.classes if c in index.classes]
        labels = index.labels()[rows][:, [index.classes.index(name) for name in classes]]
        of_patient = pd.DataFrame(labels, columns=classes).groupby(patients)
        self.patients = np.unique(patients)  # as groupby sorts them
        self.any = of_patient.max() == 1  # [patients, classes]: has a positive image
        self.none = of_patient.max() == 0  # has negative images, and no positive one
        self.every = pd.DataFrame(labels == 1, columns=classes).groupby(patients).all()

    def who(self, has: pd.DataFrame) -> dict[str, np.ndarray]:
        """Return for each column of booleans [patients, classes] the ids of the patients where it is true, sorted."""
        return {name: self.patients[column] for name, column in has.items()}

    def draw(
        self, shots: int | None, number: int, chosen: np.ndarray, note: str, by: str = "patient_id"
    ) -> Iterator[Draw]:
        """Yield the draw of the samples whose `by` is chosen; where none is, say so: nothing can be fitted to it."""
        table, drawn = self.split.table, self.table[self.table[by].isin(chosen)]
        if drawn.empty:
            console.say(f"few-shot {shots}: no draw, no patient of train qualifies ({note})")
            return
        patients = np.isin(self.patients, drawn["patient_id"].to_numpy(str))
        positives = {name: int(count) for name, count in self.any[patients].sum().items()}
        kept = table[(table["part"] != "train") | table["sample_id"].isin(drawn["sample_id"])]
        few = Split(kept, self.split.classes)
        yield Draw(self.protocol, shots, number, few, int(patients.sum()), len(drawn), positives, note)


def _groups(train: _Train, task: str) -> dict[str, np.ndarray]:
    """Return the groups of patients, sorted by id, that are drawn from, by name."""
    if task == "segmentation":
        return {"train": train.patients}
    without = train.who(train.none.add_prefix("no ")) if task == "binary" else {}
    return train.who(train.any) | without


def _note(what: str, wanted: int, groups: dict[str, np.ndarray]) -> str:
    short = [f"{name} {len(group)}" for name, group in groups.items() if len(group) < wanted]
    return f"fewer {what} than {wanted}: {', '.join(short)}" if short else ""


def _evenly(items: np.ndarray, wanted: int) -> np.ndarray:
    """Return `arange(0, n, n / wanted).round()` of n items, all of them where there are no more."""
    n = len(items)
    return items if wanted >= n else items[np.arange(0, n, n / wanted).round().astype(int)[:wanted]]
