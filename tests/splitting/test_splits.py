import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radprobe import catalog, datasets, phantoms
from radprobe.artifacts import Index, Split
from radprobe.catalog import Folds, OfficialLists, Stratified, Systematic
from radprobe.entries import Entries
from radprobe.files import RadprobeError
from radprobe.manifests import Place
from radprobe.splitting import splits

ROOT = Path(__file__).parents[2]
REAL = pytest.mark.skipif(not os.environ.get("RADPROBE_REAL_DATA"), reason="RADPROBE_REAL_DATA is not set")
SYSTEMATIC = Systematic(recipe="systematic", parts={"test": 46, "val": 23}, total=138, source="s")
NIH = catalog.datasets()["nih_chestxray14"]
LISTS = OfficialLists(recipe="official_lists", val_tail=20, total=100, source="s")
STRATIFIED = Stratified(recipe="stratified", val=0.2, test=0.3, min_positives=3, source="s")
quick = settings(max_examples=30, deadline=None)


def index(patients, labels=None, lists=None, dataset="nih_chestxray14", **facts):
    """An Index of images of `patients` (one name per image); labels [n, classes]; lists: (list, row) per image."""
    n = len(patients)
    table = {
        "sample_id": [f"s{row:05d}" for row in range(n)],
        "patient_id": list(patients),
        "volume_id": [f"s{row:05d}" for row in range(n)],
        "slice": 0,
        "image": [f"s{row:05d}.png" for row in range(n)],
        "masks": [[] for _ in range(n)],
        "spacing": [[] for _ in range(n)],
        "affine": [[] for _ in range(n)],
    }
    classes = [f"c{column}" for column in range(0 if labels is None else labels.shape[1])]
    table |= {f"label:{name}": labels[:, column].astype(float) for column, name in enumerate(classes)}
    if lists:
        table["meta:list"] = pd.Series([name for name, _ in lists], dtype=object)
        table["meta:list_row"] = pd.Series([row for _, row in lists], dtype=object)
        facts["n_train_val"] = sum(name == "train_val" for name, _ in lists)
    common = {"dataset": dataset, "classes": classes or ["organ"], "limit": None, "partial": False, "phantom": False}
    return Index(pd.DataFrame(table), {**common, **facts})


def random_index(seed, n_patients=80):
    rng = np.random.default_rng(seed)
    patients = np.repeat([f"p{p:04d}" for p in range(n_patients)], rng.integers(1, 5, n_patients))
    return index(patients, rng.random((len(patients), 4)) < [0.3, 0.2, 0.1, 0.02])


def parts(split):
    return dict(zip(split.table["sample_id"], split.table["part"], strict=True))


def sizes(split, what="samples"):
    return [split.facts["parts"][part][what] for part in ("train", "val", "test")]


# --- systematic -------------------------------------------------------------------------------------------------------


def test_138_films_fall_as_published():
    split = splits.make_split(index([f"p{n:03d}" for n in range(138)]), SYSTEMATIC, "study", 0)
    assert sizes(split) == [69, 23, 46]
    names = split.table["part"].tolist()
    assert names[:7] == ["test", "val", "train", "test", "train", "train", "test"]


@quick
@given(st.integers(12, 400))
def test_a_smaller_copy_keeps_the_shares(n):
    found = sizes(splits.make_split(index([f"p{i:03d}" for i in range(n)]), SYSTEMATIC, "study", 0))
    assert sum(found) == n
    np.testing.assert_allclose(found, [n / 2, n / 6, n / 3], atol=1)


@pytest.mark.parametrize(
    ("n", "facts", "equal"),
    [(138, {}, True), (137, {}, False), (137, {"partial": True}, None), (138, {"limit": {"patients": 138}}, None)],
)
def test_only_a_complete_copy_is_held_to_the_published_sizes(n, facts, equal):
    split = splits.make_split(index([f"p{i:03d}" for i in range(n)], **facts), SYSTEMATIC, "study", 0)
    published = catalog.datasets()["montgomery"].published
    compared = splits.against_published(
        split, index([f"p{i:03d}" for i in range(n)], **facts), published.parts if published else {}
    )
    assert compared["equal"] is equal


# --- official lists ---------------------------------------------------------------------------------------------------


def listed(patients_train_val, patients_test):
    patients = [*patients_train_val, *patients_test]
    rows = [("train_val", r) for r in range(len(patients_train_val))] + [("test", r) for r in range(len(patients_test))]
    return index(patients, lists=rows)


def test_the_last_lines_of_the_complete_list_are_val():
    split = splits.make_split(listed([f"p{n:03d}" for n in range(100)], ["t"] * 7), LISTS, "study", 0)
    assert sizes(split) == [80, 20, 7]
    assert split.table["part"].tolist() == ["train"] * 80 + ["val"] * 20 + ["test"] * 7


def test_a_shorter_list_has_a_shorter_tail_and_splits_no_patient():
    patients = [f"p{n // 4:03d}" for n in range(50)]  # the tail of 10 lines cuts through the patient of lines 40-43
    split = splits.make_split(listed(patients, ["t"]), LISTS, "study", 0)
    assert sizes(split) == [40, 10, 1]
    patients = [f"p{n // 7:03d}" for n in range(50)]  # line 40 is inside the patient of lines 35-41
    split = splits.make_split(listed(patients, ["t"]), LISTS, "study", 0)
    assert sizes(split) == [35, 15, 1]


def test_a_partial_copy_puts_each_image_where_the_complete_one_does():
    whole = listed([f"p{n:03d}" for n in range(100)], ["t"] * 7)
    some = whole.table.iloc[::3].reset_index(drop=True)
    partial = splits.make_split(Index(some, whole.facts), LISTS, "study", 0)
    expected = parts(splits.make_split(whole, LISTS, "study", 0))
    assert parts(partial) == {name: expected[name] for name in some["sample_id"]}


# --- stratified -------------------------------------------------------------------------------------------------------


@quick
@given(st.integers(0, 1000))
def test_stratified_uses_every_sample_once_and_keeps_patients_together(seed):
    whole = random_index(seed)
    split = splits.make_split(whole, STRATIFIED, "own", seed)
    assert split.table["sample_id"].tolist() == whole.table["sample_id"].tolist()
    assert (split.table.groupby("patient_id")["part"].nunique() == 1).all()


@quick
@given(st.integers(0, 1000))
def test_stratified_shares_are_near_for_patients_and_for_each_class(seed):
    split = splits.make_split(random_index(seed), STRATIFIED, "own", seed)
    np.testing.assert_allclose(sizes(split, "patients"), [40, 16, 24], atol=4)
    by_class = pd.DataFrame([split.facts["parts"][part]["positive_patients"] for part in ("train", "val", "test")])
    np.testing.assert_allclose(by_class, np.outer([0.5, 0.2, 0.3], by_class.sum()), atol=5)


@quick
@given(st.integers(0, 1000))
def test_d12_the_order_of_the_rows_does_not_matter(seed):
    whole = random_index(seed)
    order = np.random.default_rng(seed).permutation(len(whole.table))
    shuffled = Index(whole.table, whole.facts)
    shuffled.table = whole.table.iloc[order].reset_index(drop=True)  # past the schema, which wants sorted rows
    for recipe in (STRATIFIED, SYSTEMATIC):
        assert parts(splits.make_split(whole, recipe, "own", 7)) == parts(splits.make_split(shuffled, recipe, "own", 7))


def test_another_seed_gives_another_stratified_split():
    whole = random_index(0)
    assert parts(splits.make_split(whole, STRATIFIED, "own", 0)) != parts(
        splits.make_split(whole, STRATIFIED, "own", 1)
    )


def test_rare_classes_are_left_out_by_name():
    split = splits.make_split(random_index(3), STRATIFIED, "own", 0)
    rare = {name for name in ("c0", "c1", "c2", "c3") if name not in split.classes}
    assert "c3" in rare
    assert set(split.facts["left_out"]) == rare
    assert all(min(split.facts["left_out"][name].values()) < 3 for name in rare)
    for name in split.classes:
        assert min(split.facts["parts"][part]["positive_patients"][name] for part in ("train", "val", "test")) >= 3


@pytest.mark.parametrize("constant", [0, 1, np.nan])
def test_a_class_that_train_cannot_teach_is_left_out_of_an_official_split_too(constant):
    lists = [("train_val", row) for row in range(100)] + [("test", row) for row in range(10)]
    labels = np.column_stack([np.arange(110) % 2, np.arange(110) % 2]).astype(float)
    labels[:80, 1] = constant
    split = splits.make_split(index([f"p{n:03d}" for n in range(110)], labels, lists), LISTS, "study", 0)
    assert split.classes == ["c0"]
    assert list(split.facts["left_out"]) == ["c1"]
    whole = index([f"p{n:03d}" for n in range(110)], labels[:, 1:], lists)
    with pytest.raises(RadprobeError, match="no class has a positive and a negative in train"):
        splits.check_parts(splits.make_split(whole, LISTS, "study", 0), whole, NIH.splits)


# --- gates ------------------------------------------------------------------------------------------------------------


def test_an_empty_part_is_named_with_the_way_out():
    whole = listed([f"p{n}" for n in range(4)], [])
    with pytest.raises(RadprobeError, match="nih_chestxray14, split 'study', part 'test'") as error:
        splits.check_parts(splits.make_split(whole, LISTS, "study", 0), whole, NIH.splits)
    assert "split: nih_real_subset" in error.value.remedy


@pytest.mark.parametrize("constant", [0, 1])
def test_a_part_in_which_no_auroc_is_defined_is_named(constant):
    lists = [("train_val", row) for row in range(100)] + [("test", row) for row in range(10)]
    labels = np.arange(110)[:, None] % 2
    labels[80:100] = constant
    whole = index([f"p{n:03d}" for n in range(110)], labels, lists)
    with pytest.raises(RadprobeError, match="part 'val'"):
        splits.check_parts(splits.make_split(whole, LISTS, "study", 0), whole, NIH.splits)


def test_a_split_without_any_class_is_refused():
    whole = index([f"p{n:03d}" for n in range(30)], np.arange(30)[:, None] == 0)
    with pytest.raises(RadprobeError, match="no class has 3 positive patients"):
        splits.check_parts(splits.make_split(whole, STRATIFIED, "own", 0), whole, NIH.splits)


@quick
@given(st.integers(1, 100), st.integers(1, 120), st.booleans())
def test_a_limit_takes_evenly_spaced_patients_with_all_their_images(n_patients, limit, labelled):
    whole = random_index(0, n_patients) if labelled else index([f"p{k:04d}" for k in range(n_patients)])
    some = splits.limited(whole, limit, None) if limit else whole
    chosen = some.table["patient_id"].unique()
    assert len(chosen) == min(limit, n_patients)
    assert len(some.table) == whole.table["patient_id"].isin(chosen).sum()
    assert (some.facts["limit"] is None) == (limit >= n_patients)
    if labelled:
        of_first = {
            name: part.table.groupby("patient_id")["label:c0"].max() for name, part in (("all", whole), ("some", some))
        }
        assert abs(of_first["some"].sum() - of_first["all"].mean() * len(chosen)) <= 1
    else:
        positions = [int(name[1:]) for name in chosen]
        assert max(np.diff([*positions, n_patients]), default=1) <= -(-n_patients // len(chosen))


@quick
@given(st.integers(3, 60), st.sampled_from([(100, 1, 1), (40, 40, 40), (300, 2, 5), (20, 0, 20)]))
def test_a_pilot_has_patients_of_each_list_of_the_publisher(limit, sizes):
    names = [part for part, n in zip(("train", "val", "test"), sizes, strict=True) for _ in range(n)]
    whole = index([f"p{k:03d}" for k in range(len(names))], np.zeros((len(names), 1)), [(name, 0) for name in names])
    some = splits.limited(whole, limit, LISTS) if limit else whole
    taken = some.table.groupby("meta:list")["patient_id"].nunique()
    assert taken.sum() == min(limit, len(names))
    wanted = {"train": 0.5 * limit, "val": 0.2 * limit, "test": 0.3 * limit}
    for part, n in zip(("train", "val", "test"), sizes, strict=True):
        assert taken.get(part, 0) >= min(n, int(wanted[part]))
        assert bool(taken.get(part, 0)) == (n > 0)


@pytest.mark.parametrize("name", ["chexpert", "nih_chestxray14"])
def test_a_pilot_of_20_patients_can_be_split_by_the_official_lists(tmp_path, name):
    entry = catalog.datasets()[name]
    phantoms.generate(tmp_path, entry, 400, 0)
    whole = datasets.loader(entry).samples(datasets.locate(entry, tmp_path), entry, False)
    some = splits.limited(whole, 20, entry.splits["study"])
    split = splits.make_split(some, entry.splits["study"], "study", 0)
    splits.check_parts(split, some, entry.splits)
    assert sizes(split, "patients") == [10, 4, 6]


LISTED = ["montgomery", "msd_hippocampus"]


@REAL
@pytest.mark.real
@pytest.mark.parametrize("name", LISTED)
def test_a_listing_is_what_the_code_makes(tmp_path, name):
    entry = catalog.datasets()[name]
    layout = datasets.locate(entry, Path(os.environ["RADPROBE_REAL_DATA"]) / name)
    whole = datasets.loader(entry).samples(layout, entry, False)
    split = splits.make_split(whole, entry.splits["study"], "study", 0)
    splits.write_listing(split, whole, tmp_path / "listing.csv")
    assert (tmp_path / "listing.csv").read_bytes() == (ROOT / f"splits/{name}.csv").read_bytes()


@pytest.mark.parametrize("name", LISTED)
def test_a_listing_has_the_published_sizes(name):
    listing = pd.read_csv(ROOT / f"splits/{name}.csv", dtype=str)
    assert listing["split"].value_counts().to_dict() == catalog.datasets()[name].published.parts
    assert list(listing.columns) == ["patient", "case", "split"]


@pytest.mark.parametrize(("uncertain", "positives"), [("zeros", 1), ("ignore", 1), ("ones", 3)])
def test_uncertain_labels_are_counted_as_the_study_reads_them(uncertain, positives):
    labels = np.array([[1.0], [-1], [-1], [0], [np.nan], [0]])
    found = index([f"p{k}" for k in range(6)], labels, [("train", k) for k in range(6)], uncertain=uncertain)
    made = splits.make_split(found, OfficialLists(recipe="official_lists", source="s"), "study", 0)
    assert made.facts["parts"]["train"]["positives"] == {"c0": positives}
    assert made.facts["parts"]["train"]["positive_patients"] == {"c0": positives}


# --- folds ------------------------------------------------------------------------------------------------------------


def folds_of(index, k, seed=0):
    return splits.make_split(index, Folds(recipe="folds", folds=k, min_positives=1, source="s"), f"{k}-fold", seed)


ENTRY = Entries(
    {
        "study": "s",
        "backbones": ["test_vit"],
        "datasets": {"mine": {"folder": {"task": "binary", "classes": ["c0"]}, "split": {"folds": 5}}},
    }
).dataset("mine")


@quick
@given(st.integers(0, 1000), st.integers(3, 10))
def test_each_sample_is_test_once_and_val_once_and_no_patient_is_in_two_folds(seed, k):
    whole = random_index(seed)
    split = folds_of(whole, k, seed)
    assert split.table["sample_id"].tolist() == whole.table["sample_id"].tolist()
    assert (split.table.groupby("patient_id")["fold"].nunique() == 1).all()
    assert len(split.folds) == k
    for part in ("val", "test"):
        rows = np.concatenate([fold.rows(whole, part) for fold in split.folds])
        assert sorted(rows) == list(range(len(whole.table)))
    for fold in split.folds:
        assert sorted(fold.rows(whole, "train", "val", "test")) == list(range(len(whole.table)))
        patients = fold.table.groupby("patient_id")["part"].nunique()
        assert (patients == 1).all()


@quick
@given(st.integers(0, 1000), st.integers(3, 6))
def test_folds_hold_as_many_patients_and_positives_each(seed, k):
    whole = random_index(seed)
    counts = folds_of(whole, k, seed).facts["parts"]
    assert list(counts) == [f"fold {number}" for number in range(1, k + 1)]
    patients = [each["patients"] for each in counts.values()]
    assert max(patients) - min(patients) <= 80 / k / 2
    positive = pd.DataFrame([each["positive_patients"] for each in counts.values()])
    assert ((positive.max() - positive.min()) <= 4).all()
    rarest = positive.sum().idxmin()
    assert positive[rarest].max() - positive[rarest].min() <= 1


@pytest.mark.parametrize("rarer", [0, 1])
def test_as_many_patients_of_a_label_as_folds_are_enough(rarer):
    labels = np.full((40, 1), 1 - rarer)
    labels[::9] = rarer  # five of them
    split = folds_of(index([f"p{n:02d}" for n in range(40)], labels, dataset="mine"), 5)
    assert split.classes == ["c0"]
    splits.check_parts(split, index([f"p{n:02d}" for n in range(40)], labels, dataset="mine"), ENTRY.splits)


@pytest.mark.parametrize(
    ("n", "positive", "reason"),
    [(4, 2, "has 5 folds, and there are 4 patients"), (40, 4, "no class has 1 positive patients in each fold")],
)
def test_too_few_patients_for_the_folds_are_refused(n, positive, reason):
    labels = (np.arange(n) < positive).astype(float)[:, None]
    whole = index([f"p{k:02d}" for k in range(n)], labels, dataset="mine")
    with pytest.raises(RadprobeError, match=reason) as error:
        splits.check_parts(folds_of(whole, 5), whole, ENTRY.splits)
    assert error.value.what == "mine, split '5-fold'"
    assert "ask for fewer folds" in error.value.remedy
    assert "datasets.mine.split: study" in error.value.remedy


def test_a_class_that_some_fold_lacks_is_left_out_by_name():
    labels = np.column_stack([np.arange(40) % 2, np.arange(40) < 3])
    split = folds_of(index([f"p{k:02d}" for k in range(40)], labels), 5)
    assert split.classes == ["c0"]
    assert sum(split.facts["left_out"]["c1"].values()) == 3


def test_the_listing_says_the_fold(tmp_path):
    whole = random_index(0)
    split = folds_of(whole, 5)
    splits.write_listing(split, whole, tmp_path / "mine.csv")
    listing = pd.read_csv(tmp_path / "mine.csv", dtype=str)
    assert list(listing.columns) == ["patient", "case", "fold"]
    assert dict(zip(listing["case"], listing["fold"].astype(int), strict=True)) == dict(
        zip(split.table["sample_id"], split.table["fold"], strict=True)
    )


def test_folds_survive_being_saved(tmp_path):
    split = folds_of(random_index(0), 5)
    split.save(Place(tmp_path, "key"))
    pd.testing.assert_frame_equal(Split.load(tmp_path).table, split.table)
