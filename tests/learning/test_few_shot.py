from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radprobe.artifacts import Index, Split
from radprobe.files import RadprobeError
from radprobe.learning import few_shot
from radprobe.learning.selection import Diverged

SHOTS = [1, 2, 4, 8]
CLASSES = {"multilabel": ["a", "b", "rare"], "binary": ["a"], "multiclass": ["a", "b", "c"], "segmentation": ["a", "b"]}
TASKS = pytest.mark.parametrize("task", CLASSES)
FEW = settings(max_examples=6, deadline=None)


def study(seed, task="multilabel", patients=40):
    """An Index and Split of patients with one to four images each and random labels, some of them unknown.

    The order of ids is not the order in which patients are given their part.
    """
    generator, classes = np.random.default_rng(seed), CLASSES[task]
    names = generator.permutation([f"p{number:03d}" for number in range(patients)])
    parts = {name: ("train", "train", "train", "val", "test")[place % 5] for place, name in enumerate(names)}
    rows = [(f"{name}_{image}", name) for name in sorted(names) for image in range(generator.integers(1, 5))]
    table = pd.DataFrame(rows, columns=["sample_id", "patient_id"])
    index = table.assign(volume_id=table["sample_id"], slice=0, image="a.png")
    index["masks"], index["spacing"], index["affine"] = ([[] for _ in rows] for _ in range(3))
    if task == "multiclass":
        labels = np.eye(len(classes))[generator.integers(0, len(classes), len(rows))]
        labels[generator.random(len(rows)) < 0.1] = np.nan
    else:
        labels = (generator.random((len(rows), len(classes))) < [0.4, 0.3, 0.03][: len(classes)]).astype(float)
        labels[generator.random(labels.shape) < 0.1] = np.nan
    for column, name in enumerate(classes if task != "segmentation" else ()):
        index[f"label:{name}"] = labels[:, column]
    return Index(index), Split(table.assign(part=table["patient_id"].map(parts)), classes)


def as_volumes(index):
    """The same Index with the images of a patient as slices of one volume."""
    return Index(index.table.assign(volume_id="v" + index.table["patient_id"]))


def ids(split, part="train", column="sample_id"):
    return set(split.table.loc[split.table["part"] == part, column])


def drawn(draw):
    return ids(draw.split, column="patient_id")


def having(index, split, name, value=1):
    """The patients of train with an image whose label of a class is known to be `value`."""
    table = index.table[index.table["sample_id"].isin(ids(split))]
    return set(table.loc[table[f"label:{name}"] == value, "patient_id"])


def by_number(found):
    return {(draw.number, draw.shots): draw for draw in found}


@TASKS
@given(seed=st.integers(0, 2**32))
@FEW
def test_draws_are_nested_by_patient_and_never_touch_val_and_test(task, seed):
    index, split = study(seed, task)
    found = by_number(few_shot.draws(index, split, task, SHOTS, 3, seed))
    assert set(found) == {(number, shots) for number in range(3) for shots in SHOTS} | {(0, None)}
    for draw in found.values():
        assert (ids(draw.split, "val"), ids(draw.split, "test")) == (ids(split, "val"), ids(split, "test"))
        of_drawn = split.table[split.table["patient_id"].isin(drawn(draw))]
        assert ids(draw.split) == set(of_drawn["sample_id"])  # all images of a drawn patient
        assert set(of_drawn["part"]) == {"train"}
        assert (draw.patients, draw.samples) == (len(drawn(draw)), len(of_drawn))
    for number in range(3):
        for few, more in pairwise(SHOTS):
            assert drawn(found[number, few]) <= drawn(found[number, more])
    assert ids(found[0, None].split) == ids(split)


@TASKS
@given(seed=st.integers(0, 2**32))
@FEW
def test_every_class_has_as_many_patients_as_were_asked_for_or_all_it_has(task, seed):
    index, split = study(seed, task)
    if task == "segmentation":
        groups = {"train": ids(split, column="patient_id")}
    else:
        groups = {name: having(index, split, name) for name in CLASSES[task]}
    if task == "binary":
        groups["no a"] = having(index, split, "a", 0) - groups["a"]
    for draw in few_shot.draws(index, split, task, SHOTS, 2, seed):
        if draw.shots is None:
            assert draw.note == ""
            continue
        for who in groups.values():
            assert len(drawn(draw) & who) >= min(draw.shots, len(who))
        assert drawn(draw) <= set().union(*groups.values())  # nobody else is drawn
        assert draw.patients <= sum(min(draw.shots, len(who)) for who in groups.values())
        if task in ("binary", "segmentation"):  # groups share nobody: exactly so many
            assert draw.patients == sum(min(draw.shots, len(who)) for who in groups.values())
        short = [f"{name} {len(who)}" for name, who in groups.items() if len(who) < draw.shots]
        assert draw.note == (f"fewer patients than {draw.shots}: {', '.join(short)}" if short else "")
        classes = [] if task == "segmentation" else CLASSES[task]
        assert draw.positives == {name: len(drawn(draw) & groups[name]) for name in classes}


@TASKS
@given(seed=st.integers(0, 2**32))
@FEW
def test_draws_depend_on_patients_labels_and_seed_and_not_on_the_order_or_names_of_images(task, seed):
    index, split = study(seed, task)
    names = index.table["sample_id"]
    shuffled = np.random.default_rng(seed).permutation(len(names))
    renamed = {name: f"{place:03d}" for name, place in zip(names, shuffled, strict=True)}  # so rows are reordered
    table = index.table.assign(sample_id=index.table["sample_id"].map(renamed)).sort_values("sample_id")
    other_rows = split.table.assign(sample_id=split.table["sample_id"].map(renamed))[::-1]
    again, other = (
        [drawn(draw) for draw in few_shot.draws(*given_, task, SHOTS, 3, seed)]
        for given_ in ((index, split), (Index(table.reset_index(drop=True)), Split(other_rows, split.classes)))
    )
    assert again == other


@TASKS
def test_other_numbers_and_other_seeds_draw_other_patients_where_there_is_a_choice(task):
    index, split = study(1, task, patients=200)
    one, other = ([drawn(draw) for draw in few_shot.draws(index, split, task, [4], 10, seed)] for seed in (5, 6))
    assert len({frozenset(each) for each in one[:10] + other[:10]}) == 20
    chosen = set().union(*(one[:10] + other[:10]))
    assert min(chosen) < "p050" < "p150" < max(chosen)  # not the first ones by id


def test_asking_for_other_shots_or_more_draws_changes_no_draw():
    index, split = study(2)
    few = by_number(few_shot.draws(index, split, "multilabel", [2], 2, 0))
    more = by_number(few_shot.draws(index, split, "multilabel", [8, 4, 2, 2, 1], 5, 0))
    assert all(drawn(draw) == drawn(more[key]) for key, draw in few.items())
    assert len(more) == 4 * 5 + 1


def test_where_no_patient_qualifies_there_is_no_draw_and_it_is_said(capsys):
    index, split = study(0)
    blank = index.table.assign(**{f"label:{name}": 0.0 for name in split.classes})
    found = list(few_shot.draws(Index(blank), split, "multilabel", [2], 1, 0))
    assert [draw.shots for draw in found] == [None]
    assert list(few_shot.paper_draws(Index(blank), split, "multilabel", [4])) == []
    said = capsys.readouterr().out
    assert "few-shot 2" in said
    assert "few-shot 4" in said
    assert "rare 0" in said


def test_a_split_without_train_is_an_error():
    index, split = study(0)
    with pytest.raises(RadprobeError, match="train has no sample"):
        list(few_shot.draws(index, Split(split.table.query("part != 'train'"), split.classes), "multilabel", [1], 1, 0))


@given(seed=st.integers(0, 2**32))
@FEW
def test_the_studys_draw_takes_the_first_patients_whose_every_image_has_the_label(seed):
    index, split = study(seed)
    train = index.table[index.table["sample_id"].isin(ids(split))]
    for draw in few_shot.paper_draws(index, split, "multilabel", SHOTS):
        expected = set()
        for name in split.classes:
            every = [who for who, images in train.groupby("patient_id") if (images[f"label:{name}"] == 1).all()]
            expected |= set(every[: draw.shots])
            assert (f"{name} {len(every)}" in draw.note) == (len(every) < draw.shots)
        assert drawn(draw) == expected
        assert ids(draw.split) == set(train.loc[train["patient_id"].isin(expected), "sample_id"])


@pytest.mark.parametrize("volumes", [False, True])
@given(seed=st.integers(0, 2**32), shots=st.integers(1, 200))
@FEW
def test_the_studys_draw_of_other_sets_is_evenly_spaced_films_or_whole_volumes(volumes, seed, shots):
    index, split = study(seed, "multiclass")
    index = as_volumes(index) if volumes else index
    case = index.table.set_index("sample_id")["volume_id"]
    cases = sorted(set(case[list(ids(split))]))
    (draw,) = few_shot.paper_draws(index, split, "multiclass", [shots])
    places = range(len(cases))
    if shots < len(cases):
        places = np.arange(0, len(cases), len(cases) / shots).round().astype(int)[:shots]
    assert ids(draw.split) == {name for name in ids(split) if case[name] in {cases[place] for place in places}}
    assert len({case[name] for name in ids(draw.split)}) == min(shots, len(cases))
    assert draw.note == ("" if shots <= len(cases) else f"fewer cases than {shots}: train {len(cases)}")
    assert ids(draw.split, "val") == ids(split, "val")


def test_a_draw_whose_fit_diverges_has_none_and_the_others_go_on(capsys):
    index, split = study(0, "binary")
    every = few_shot.every(index, split, "binary", [1, 2], 2, 0, paper=True)
    assert [(draw.protocol, draw.shots, draw.number) for draw in every] == [
        *(("few-shot", shots, number) for shots in (1, 2) for number in (0, 1)),
        ("few-shot", None, 0),
        *(("few-shot@paper", shots, 0) for shots in (1, 2)),
    ]
    assert len({draw.name for draw in every}) == len(every)

    def fit(draw):
        if draw.shots == 2 and draw.number == 1:
            raise Diverged("head", "its loss is not finite", "lower the rate")
        return draw.samples

    fitted = few_shot.fit_each(every, fit)
    assert fitted == [draw.samples if number != 3 else None for number, draw in enumerate(every)]
    assert "few-shot, draw 4: head: its loss is not finite" in capsys.readouterr().out
    found = few_shot.scored(every, np.zeros((7, 3, 1)))
    assert found.table["shots"].tolist() == [1, 1, 2, 2, 0, 1, 2]
    assert found.table["n_samples"].tolist() == [draw.samples for draw in every]
