from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radprobe.artifacts import Index, Split
from radprobe.learning import draws

SHOTS = [1, 2, 4, 8]


def study(seed, patients=40, classes=("a", "b", "rare"), exclusive=False, task="multilabel"):
    """An Index and Split of patients with one to three images each, and random labels."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(patients):
        part = ("train", "train", "train", "val", "test")[number % 5]
        for image in range(generator.integers(1, 4)):
            rows.append((f"p{number:03d}_{image}", f"p{number:03d}", part))
    table = pd.DataFrame(rows, columns=["sample_id", "patient_id", "part"])
    index = table[["sample_id", "patient_id"]].assign(volume_id=table["sample_id"], slice=0, image="a.png")
    index["masks"], index["spacing"], index["affine"] = ([[] for _ in rows] for _ in range(3))
    if exclusive:
        labels = np.eye(len(classes))[generator.integers(0, len(classes), len(rows))]
    else:
        labels = (generator.random((len(rows), len(classes))) < [0.4, 0.3, 0.05][: len(classes)]).astype(float)
    for column, name in enumerate(classes if task != "segmentation" else ()):
        index[f"label:{name}"] = labels[:, column]
    return Index(index), Split(table, list(classes))


def drawn(draw):
    return set(draw.split.table.loc[draw.split.table["part"] == "train", "patient_id"])


def by_number(found):
    return {(draw.number, draw.shots): draw for draw in found}


TASKS = pytest.mark.parametrize(
    ("task", "classes", "exclusive"),
    [
        ("multilabel", ("a", "b", "rare"), False),
        ("binary", ("a",), False),
        ("multiclass", ("a", "b", "c"), True),
        ("segmentation", ("a", "b"), False),
    ],
)


@TASKS
@given(seed=st.integers(0, 30))
@settings(max_examples=8, deadline=None)
def test_draws_are_nested_by_patient_and_never_touch_val_and_test(task, classes, exclusive, seed):
    index, split = study(seed, classes=classes, exclusive=exclusive, task=task)
    found = by_number(draws.draws(index, split, task, SHOTS, 3, seed))
    assert set(found) == {(number, shots) for number in range(3) for shots in SHOTS} | {(0, None)}
    full = split.table.set_index("sample_id")["part"]
    for draw in found.values():
        table = draw.split.table.set_index("sample_id")["part"]
        others = full[full != "train"]
        assert table[table != "train"].equals(others)
        of_drawn = split.table[split.table["patient_id"].isin(drawn(draw)) & (split.table["part"] == "train")]
        assert set(table.index[table == "train"]) == set(of_drawn["sample_id"])  # all images of a drawn patient
        assert (draw.patients, draw.samples) == (len(drawn(draw)), len(of_drawn))
    for number in range(3):
        for few, more in pairwise(SHOTS):
            assert drawn(found[number, few]) <= drawn(found[number, more])
    assert drawn(found[0, None]) == set(split.table.loc[split.table["part"] == "train", "patient_id"])


@TASKS
@given(seed=st.integers(0, 30))
@settings(max_examples=8, deadline=None)
def test_every_class_has_as_many_patients_as_were_asked_for_or_all_it_has(task, classes, exclusive, seed):
    index, split = study(seed, classes=classes, exclusive=exclusive, task=task)
    train = index.table[index.table["sample_id"].isin(split.table.loc[split.table["part"] == "train", "sample_id"])]
    for draw in draws.draws(index, split, task, SHOTS, 2, seed):
        if draw.shots is None:
            continue
        if task == "segmentation":
            assert draw.patients == draw.shots
            continue
        for name in classes:
            having = set(train.loc[train[f"label:{name}"] == 1, "patient_id"])
            assert len(drawn(draw) & having) >= min(draw.shots, len(having))
            assert (name in draw.note.partition(": ")[2].split(", ")) == (len(having) < draw.shots)
        if task == "binary":
            without = set(train["patient_id"]) - set(train.loc[train["label:a"] == 1, "patient_id"])
            assert len(drawn(draw) & without) == min(draw.shots, len(without))


def test_draws_depend_on_the_seed_and_not_on_the_order_of_rows():
    index, split = study(1)
    turned = Split(split.table[::-1], split.classes)
    one, other, third = (
        [drawn(draw) for draw in draws.draws(index, which, "multilabel", SHOTS, 4, seed)]
        for which, seed in ((split, 5), (turned, 5), (split, 6))
    )
    assert one == other
    assert one != third
    assert len({frozenset(each) for each in one[:4]}) > 1  # another number, other patients


def test_the_studys_draw_takes_the_first_patients_whose_every_image_has_the_label():
    index, split = study(3, patients=60)
    train = index.table[index.table["sample_id"].isin(split.table.loc[split.table["part"] == "train", "sample_id"])]
    for draw in draws.paper_draws(index, split, "multilabel", [1, 4]):
        expected = set()
        for name in split.classes:
            every = train.groupby("patient_id")[f"label:{name}"].min()
            expected |= set(sorted(every.index[every == 1])[: draw.shots])
        assert drawn(draw) == expected


def test_the_studys_draw_of_other_sets_is_evenly_spaced_images():
    index, split = study(3, classes=("a", "b", "c"), exclusive=True)
    train = sorted(split.table.loc[split.table["part"] == "train", "sample_id"])
    for draw in draws.paper_draws(index, split, "multiclass", [1, 4, 8]):
        places = np.arange(0, len(train), len(train) / draw.shots).round().astype(int)
        table = draw.split.table
        assert sorted(table.loc[table["part"] == "train", "sample_id"]) == [train[place] for place in places]
