"""Few-shot draws: each is a Split whose train part holds a few patients only; val and test stay as they are.

`shots` counts patients: for each class so many with a positive image of it (multi-label), so many of each class
(multi-class) or of each of the two values (binary), and so many in all where the labels are masks. Draws depend on the
patients, their labels and a seed, and on nothing else: every backbone gets the same. The draws of one number are
nested: who is drawn for 1 is drawn for 2, 4 and so on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

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
    note: str = ""


def draws(index: Index, split: Split, task: str, shots: Sequence[int], repeats: int, seed: int) -> Iterator[Draw]:
    """Yield `repeats` draws of each of `shots`, then one of all patients of train."""
    patients, groups = _groups(index, split, task)
    orders = [
        {name: np.random.default_rng([seed, number, place]).permutation(members) for place, (name, members) in groups}
        for number in range(repeats)
    ]
    for wanted in sorted(set(shots)):
        short = [name for _, (name, members) in groups if len(members) < wanted]
        for number, order in enumerate(orders):
            drawn = np.unique(np.concatenate([members[:wanted] for members in order.values()]))
            yield _draw(split, wanted, number, patients[drawn], short)
    yield _draw(split, None, 0, patients, [])


def paper_draws(index: Index, split: Split, task: str, shots: Sequence[int]) -> Iterator[Draw]:
    """Yield the study's single draw of each of `shots` (arXiv 2312.02366, authors' code, D15).

    Multi-label: for each class the first patients by id whose every image has the label. Others: evenly spaced images,
    `arange(0, n, n / shots).round()` over the sorted images of train; there `shots` counts images.
    """
    table = _train(index, split)
    for wanted in sorted(set(shots)):
        if task == "multilabel":
            every = table.groupby("patient_id")[split.classes].min()
            firsts = {name: every.index[every[name] == 1][:wanted] for name in split.classes}
            drawn = np.unique(np.concatenate(list(firsts.values())))
            short = [name for name, members in firsts.items() if len(members) < wanted]
            if len(drawn):
                yield _draw(split, wanted, 0, drawn, short)
            continue
        places = np.arange(0, len(table), len(table) / min(wanted, len(table))).round().astype(int)
        samples = table["sample_id"].to_numpy()[np.unique(places[places < len(table)])]
        yield _of_samples(split, wanted, 0, samples, "")


def _train(index: Index, split: Split) -> pd.DataFrame:
    """Return sample_id, patient_id and a column of labels for each class of the train part, by sample_id."""
    rows = split.rows(index, "train")
    if not len(rows):
        raise RadprobeError("few-shot", "train has no sample", "choose another split of this dataset")
    table = index.table.iloc[rows][["sample_id", "patient_id"]].reset_index(drop=True)
    labels = index.labels()
    if labels.shape[1]:
        chosen = labels[rows][:, [index.classes.index(name) for name in split.classes]]
        table = pd.concat([table, pd.DataFrame(chosen, columns=split.classes)], axis=1)
    return table.sort_values("sample_id", ignore_index=True)


def _groups(index: Index, split: Split, task: str) -> tuple[np.ndarray, list[tuple[int, tuple[str, np.ndarray]]]]:
    """Return the patients of train, sorted, and the groups that are drawn from: (place, (name, positions))."""
    table = _train(index, split)
    patients = np.array(sorted(table["patient_id"].unique()))
    if task == "segmentation":
        return patients, [(0, ("patients", np.arange(len(patients))))]
    most = table.groupby("patient_id")[split.classes].max().loc[patients]
    groups = [(name, np.flatnonzero(most[name] == 1)) for name in split.classes]
    if task == "binary":
        (name,) = split.classes
        groups.append((f"no {name}", np.flatnonzero(most[name] == 0)))
    return patients, list(enumerate(groups))


def _draw(split: Split, shots: int | None, number: int, patients: np.ndarray, short: list[str]) -> Draw:
    train = split.table[(split.table["part"] == "train") & split.table["patient_id"].isin(patients)]
    note = f"fewer patients than {shots}: {', '.join(short)}" if short else ""
    return _of_samples(split, shots, number, train["sample_id"], note)


def _of_samples(split: Split, shots: int | None, number: int, samples: Sequence[str], note: str) -> Draw:
    drawn = (split.table["part"] != "train") | split.table["sample_id"].isin(samples)
    table = split.table[drawn]
    train = table[table["part"] == "train"]
    return Draw(shots, number, Split(table, split.classes), train["patient_id"].nunique(), len(train), note)
