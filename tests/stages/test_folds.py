"""Cross-validation through the stages: what each fold is fitted on, and what becomes of the folds together."""

import json

import numpy as np
import pandas as pd
import pytest
import running
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from small_params import NO_CONTROLS
from stages import test_adapt, test_probe, test_segment

from radprobe.artifacts import Adapter, Predictions, Scores, Split
from radprobe.catalog import Folds
from radprobe.entries import Entries, read_adapter
from radprobe.files import RadprobeError
from radprobe.learning import folds, loop
from radprobe.study import Study

NIH, MONTGOMERY, K, N = "nih_chestxray14", "montgomery", 4, 80
HEADS = {"few_shot": None, "mlknn": None, "paper": False}
OWN = {"task": "binary", "classes": ["ill"]}


def fold_of(names):
    """The fold of a film by its number: 1, 2, ... K in turn."""
    return [int(name.removeprefix("film")) % K + 1 for name in names]


def put_into_folds(s, dataset):
    """Replace the split of a prepared study by folds."""
    step = s.step("split", dataset)
    recipe = Folds(recipe="folds", folds=K, min_positives=1, source="a test")
    object.__setattr__(step, "job", step.job.model_copy(update={"recipe": recipe}))
    made = Split.load(step.folder)
    table = made.table.assign(part="test", fold=fold_of(made.table["sample_id"]))
    Split(table, made.classes, made.facts).save(step.place)


def probed(root, labels=None, **top):
    s, step = test_probe.made(root, labels, n=N, top=top, **HEADS)
    put_into_folds(s, NIH)
    running.run(s, step)
    return s, Predictions.load(step.folder)


def test_each_sample_is_test_once_by_a_fit_that_never_saw_it_and_val_once(tmp_path):
    _, found = probed(tmp_path)
    assert list(found.facts["protocols"]) == ["knn", "linear", "logistic", "shuffled"]
    for protocol in found.facts["protocols"]:
        tests, vals = (found.rows(protocol, part) for part in ("test", "val"))
        for rows in (tests, vals):
            assert rows["sample_id"].tolist() == [f"film{i:04d}" for i in range(N)]
        assert tests["fold"].tolist() == fold_of(tests["sample_id"])
        assert vals["fold"].tolist() == [(fold - 2) % K + 1 for fold in fold_of(vals["sample_id"])]  # the one before
        facts = found.facts["protocols"][protocol]
        assert "chosen" not in facts
        assert [(each["n_train"], each["n_val"], each["n_test"]) for each in facts["folds"]] == [(40, 20, 20)] * K
        assert facts["seconds"] == sum(each["seconds"] for each in facts["folds"])
    areas = [roc_auc_score(*(rows[f"{kind}:a"] for kind in ("target", "score"))) for _, rows in tests.groupby("fold")]
    assert len(areas) == K


def test_a_fold_is_what_an_ordinary_split_into_the_same_parts_gives(tmp_path):
    _, found = probed(tmp_path / "folds")
    s, step = test_probe.made(tmp_path / "split", n=N, **HEADS)
    source = s.step("split", NIH)
    made = Split.load(source.folder)
    part = {1: "test", 2: "val"}
    parts = [part.get(fold, "train") for fold in fold_of(made.table["sample_id"])]
    Split(made.table.assign(part=parts), made.classes).save(source.place)
    running.run(s, step)
    alone = Predictions.load(step.folder)
    first = found.table[found.table["fold"] == 1].drop(columns="fold")
    keys = ["protocol", "part", "sample_id"]
    ours, theirs = (each.sort_values(keys, ignore_index=True) for each in (first, alone.table))
    pd.testing.assert_frame_equal(ours, theirs)
    for name, facts in alone.facts["protocols"].items():
        assert found.facts["protocols"][name]["folds"][0]["chosen"] == facts["chosen"]


@pytest.mark.survives("bug", "labels of a test fold that could reach its own fit", "none does")
def test_permuting_the_labels_of_a_fold_leaves_what_is_said_of_it_as_it_is(tmp_path):
    def permuted(labels):
        rows = np.array(fold_of(f"film{i}" for i in range(N))) == 2
        labels[rows] = labels[rows][np.random.default_rng(1).permutation(rows.sum())]
        return labels

    (_, one), (_, two) = (probed(tmp_path / name, change) for name, change in (("a", None), ("b", permuted)))
    scores = [f"score:{name}" for name in test_probe.CLASSES]
    for protocol in one.facts["protocols"]:
        first, second = (each.rows(protocol, "test") for each in (one, two))
        of_it = (first["fold"] == 2).to_numpy()
        np.testing.assert_array_equal(first.loc[of_it, scores], second.loc[of_it, scores])
        chosen = [each.facts["protocols"][protocol]["folds"][1]["chosen"] for each in (one, two)]
        assert chosen[0] == chosen[1]
        if protocol != "shuffled":
            assert not np.array_equal(first.loc[~of_it, scores], second.loc[~of_it, scores])  # others learn from it


def test_scores_rank_within_folds_and_say_so_by_their_values(tmp_path):
    s, found = probed(tmp_path)
    step = s.step("score", NIH, "test_vit")
    running.run(s, step)
    table = Scores.load(step.folder).table.set_index(["protocol", "part", "metric", "class"])["value"]
    for protocol in set(found.facts["protocols"]) - {"shuffled"}:  # whose value is the mean over shuffles
        of_folds = [each for _, each in found.rows(protocol, "test").groupby("fold")]
        pairs = [each["target:a"].sum() * (1 - each["target:a"]).sum() for each in of_folds]
        areas = [roc_auc_score(each["target:a"], each["score:a"]) for each in of_folds]
        expected = np.average(areas, weights=pairs)
        assert table[protocol, "test", "auroc", "a"] == pytest.approx(expected, abs=1e-12)


def test_other_seeds_are_merged_by_seed_where_one_diverged_in_some_fold(tmp_path):
    _, found = probed(tmp_path, repeats=3)
    of_folds = []
    for number, each in enumerate(found.facts["protocols"]["linear"]["folds"], 1):
        rows = found.table[(found.table["fold"] == number) & (found.table["protocol"].str.startswith("linear"))]
        of_folds.append(Predictions(found.classes, rows.drop(columns="fold"), facts={"protocols": {"linear": each}}))
    assert found.facts["protocols"]["linear"]["seeds"] == [0, 1, 2]
    gone = of_folds[1]  # as if seed 1 had diverged there: what was the second other fit is the first
    gone.facts["protocols"]["linear"] |= {"seeds": [0, 2], "seeds_diverged": 1}
    kept = gone.table[gone.table["protocol"] != "linear~1"]
    gone.table = kept.assign(protocol=kept["protocol"].replace("linear~2", "linear~1"))
    merged = folds.merged(of_folds, tmp_path)
    assert merged.facts["protocols"]["linear"]["seeds"] == [0, 2]
    assert merged.facts["protocols"]["linear"]["seeds_diverged"] == 1
    assert set(merged.table["protocol"]) == {"linear", "linear~1"}
    columns = ["sample_id", "score:a", "score:b"]
    np.testing.assert_array_equal(merged.rows("linear~1", "test")[columns], found.rows("linear~2", "test")[columns])


# --- what is trained, and killed --------------------------------------------------------------------------------------


def adapted(root, monkeypatch=None, dies_after=None):
    s = test_adapt.made(root, classify={"epochs": 2, "batch_size": 16}, bitfit={"backbone_rates": [0.001]})
    put_into_folds(s, NIH)
    step = s.step("adapt", NIH, "test_vit+bitfit")
    if dies_after:
        real, calls = loop.fit, []

        def dying(*given, **named):
            calls.append(named["folder"])
            if len(calls) > dies_after:
                raise KeyboardInterrupt
            return real(*given, **named)

        with monkeypatch.context() as patched:
            patched.setattr(loop, "fit", dying)
            with pytest.raises(KeyboardInterrupt):
                running.run(s, step)
        assert len(set(calls)) == len(calls)  # no two fits share their checkpoints
    running.run(s, step)
    return step, Predictions.load(step.folder)


def test_a_killed_adaptation_goes_on_in_its_fold_to_the_same_bytes(tmp_path, monkeypatch):
    step, found = adapted(tmp_path / "whole")
    other, again = adapted(tmp_path / "killed", monkeypatch, dies_after=3)
    pd.testing.assert_frame_equal(found.table, again.table)
    assert set(found.training["fold"]) == set(range(1, K + 1))
    tensors, others = (load_file(Adapter.file(each.folder)) for each in (step, other))
    assert all((tensors[name] == others[name]).all() for name in tensors)
    assert not (step.folder / "training").exists()
    assert not list(step.folder.glob("fold*"))


def test_label_maps_of_all_folds_are_one_set_with_each_case_in_val_and_in_test(tmp_path):
    linear = {**test_segment.KNOBS["linear"], "epochs": 4}
    s, step, _ = test_segment.made(tmp_path, linear=linear)
    put_into_folds(s, MONTGOMERY)
    running.run(s, step)
    found = Predictions.load(step.folder)
    maps = found.maps["linear-decoder"]
    tests, vals = (maps.of(part) for part in ("test", "val"))
    assert sorted(tests) == sorted(vals) == sorted(Split.load(s.step("split", MONTGOMERY).folder).table["sample_id"])
    assert found.decoders == []
    assert any(not np.array_equal(tests[case], vals[case]) for case in tests)  # fitted on others


# --- params -----------------------------------------------------------------------------------------------------------


def of_params(split, folder=None):
    datasets = {"mine": {"raw": "mine", "split": split, "folder": {**OWN, **(folder or {})}}}
    return {"study": "s", "datasets": datasets, "backbones": ["test_vit"], "controls": NO_CONTROLS}


def test_folds_make_no_few_shot_draws_widen_intervals_and_change_the_keys_of_what_depends_on_them():
    folded, plain = (Study(of_params(split)).as_if_complete() for split in ({"folds": 5}, "study"))
    assert folded.step("probe", "mine", "test_vit").job.heads.few_shot is None
    assert folded.step("score", "mine", "test_vit").job.intervals.folds == 5
    for key, step in folded.steps.items():
        depends = key[0] in ("split", "probe", "score", "compare")
        assert (step.key != plain.steps[key].key) == depends, key


@pytest.mark.parametrize(
    ("split", "folder", "what"),
    [
        ({"folds": 2}, {}, "datasets.mine.split.folds"),
        ({"folds": 11}, {}, "datasets.mine.split.folds"),
        ({"folds": "many"}, {}, "datasets.mine.split.folds"),
        ({"fold": 5}, {}, "datasets.mine.split"),
        ({}, {}, "datasets.mine.split.folds"),
        (5, {}, "datasets.mine.split"),
        ("5-fold", {}, "datasets.mine.split"),
        ({"folds": 5}, {"split": "part"}, "datasets.mine.split"),
    ],
)
def test_folds_that_make_no_sense_are_refused(split, folder, what):
    with pytest.raises(RadprobeError) as error:
        Entries(of_params(split, folder))
    assert what in error.value.what
    assert error.value.remedy


def test_a_benchmark_keeps_its_published_split():
    with pytest.raises(RadprobeError, match="a benchmark keeps its published split") as error:
        Entries({"study": "s", "datasets": {"montgomery": {"split": {"folds": 5}}}, "backbones": ["test_vit"]})
    assert error.value.what == "params: datasets.montgomery.split"


def test_an_adapter_of_cross_validation_is_not_used_where_its_patients_are_tested(tmp_path):
    step, _ = adapted(tmp_path)
    file = Adapter.file(step.folder)
    assert read_adapter(file)["folds"] == K
    own = {"mine": {"title": "mine", "adapter": str(file)}}
    shared = {"study": "s", "own_backbones": own, "backbones": ["mine"]}
    with pytest.raises(RadprobeError, match=f"trained on patients of {NIH} that are tested here"):
        Entries({**shared, "datasets": {NIH: {}}})
    assert Entries({**shared, "datasets": {MONTGOMERY: {}}}).backbone("mine")


def test_an_adapter_of_a_plain_split_is_not_used_where_cross_validation_tests_its_patients(tmp_path):
    step, _ = adapted(tmp_path)
    facts = {**read_adapter(Adapter.file(step.folder)), "dataset": "mine"}
    del facts["folds"]
    file = tmp_path / "plain.safetensors"
    save_file(load_file(Adapter.file(step.folder)), file, metadata={"radprobe": json.dumps(facts)})
    own = {"own_backbones": {"tuned": {"title": "tuned", "adapter": str(file)}}, "backbones": ["tuned"]}
    with pytest.raises(RadprobeError, match="trained on patients of mine that are tested here"):
        Entries({**of_params({"folds": 5}), **own})
    assert Entries({**of_params("study"), **own}).backbone("tuned")
