"""Few-shot draws: each is a Split whose train part holds a few patients only; val and test stay as they are.

`shots` counts patients, and all images of a drawn patient come along: for each class so many with a positive image of
it (multi-label), so many of each class (multi-class), so many with a positive image and so many without (binary), and
so many in all where the labels are masks. Draws depend on the patients, their labels and a seed, and on nothing else:
every backbone gets the same. The draws of one number are nested: who is drawn for 1 is drawn for 2, 4 and so on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from radprobe import console
from radprobe.artifacts import Index, Split
from radprobe.files import RadprobeError


@dataclass(frozen=True)
class Draw:
    """A few-shot training set. `note` names the classes that have fewer patients than were asked for."""

    shots: int | None  # None: all
    number: int
    split: Split
    patients: int
    samples: int
    positives: dict[str, int]  # by class, the drawn patients with a positive image of it; empty for masks
    note: str = ""

    def row(self, protocol: str) -> dict[str, Any]:
        """Return the draw as a row of FewShot's table."""
        facts = {"n_patients": self.patients, "n_samples": self.samples, "note": self.note}
        return {"protocol": protocol, "shots": self.shots or 0, "draw": self.number, **facts}


def every(
    index: Index, split: Split, task: str, wanted: dict[str, Any], seed: int, paper: bool
) -> list[tuple[str, Draw]]:
    """Return all draws that params (`shots`, `draws`) want, and the study's if `paper`, each with its protocol."""
    ours = draws(index, split, task, wanted["shots"], wanted["draws"], seed)
    studys = paper_draws(index, split, task, wanted["shots"]) if paper else []
    return [("few-shot", draw) for draw in ours] + [("few-shot@paper", draw) for draw in studys]


def draws(index: Index, split: Split, task: str, shots: Sequence[int], repeats: int, seed: int) -> Iterator[Draw]:
    """Yield `repeats` draws of each of `shots`, then one of all patients of train.

    A class with fewer patients than asked for gives all it has. Images whose label is unknown (NaN) count for nothing.
    """
    train = _Train(index, split)
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
    """Yield the study's single draw of each of `shots` (arXiv 2312.02366, authors' code, D15).

    Multi-label: for each class the first patients by id whose every image has the label. Others: evenly spaced cases,
    `arange(0, n, n / shots).round()` over the sorted cases of train; there `shots` counts cases: films, or volumes.
    """
    train = _Train(index, split)
    for wanted in sorted(set(shots)):
        if task == "multilabel":
            groups = train.who(train.every)
            firsts = np.concatenate([group[:wanted] for group in groups.values()])
            yield from train.draw(wanted, 0, firsts, _note("patients", wanted, groups))
        else:
            cases = np.unique(train.table["volume_id"].to_numpy(str))
            note = _note("cases", wanted, {"train": cases})
            yield from train.draw(wanted, 0, _evenly(cases, wanted), note, "volume_id")


def permuted(patients: np.ndarray, seed: int) -> np.ndarray:
    """Return positions [n] that give each case the labels of another one, for cases of `patients` [n].

    Patients are put in a random order and their cases laid one after the other over the cases of the patients as they
    are. So labels of one patient stay together: they resemble each other, and would be exchangeable case by case only
    if they did not. With one case a patient it is a permutation of the cases. No patient keeps its own labels but by
    chance, as would one whose number of cases nobody shares, if only equal numbers were exchanged.
    """
    names, of_patient = np.unique(patients, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    place = np.argsort(order)  # of each patient in the random order
    given = np.argsort(place[of_patient], kind="stable")
    source = np.empty(len(patients), int)
    source[np.argsort(of_patient, kind="stable")] = given
    return source


class _Train:
    """The train part of a split: its samples, its patients by id, and who of them has which label."""

    def __init__(self, index: Index, split: Split):
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
        yield Draw(shots, number, few, int(patients.sum()), len(drawn), positives, note)


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
