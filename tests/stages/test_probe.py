import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import running
import torch
import yaml
from frozen import PARTS, leave_out, study
from frozen import prepare as write_prepared
from scipy.special import log_softmax
from sklearn.metrics import roc_auc_score
from small_params import NO_CONTROLS

from radprobe import artifacts
from radprobe.artifacts import Embeddings, Predictions, Scores, Split
from radprobe.artifacts.tables import write_array
from radprobe.files import RadprobeError
from radprobe.learning import grid, logistic, selection
from radprobe.manifests import Place, seal
from radprobe.metrics import operating
from radprobe.names import METADATA
from radprobe.stages import probe
from radprobe.study import Study

READING = ("linear", "logistic")  # what reads several inputs
MULTILABEL = [name for name in probe.PROTOCOLS if name != "knn@paper"]  # there it is mlknn@paper
NIH, CLASSES, N = "nih_chestxray14", ("a", "b"), 200
SMALL = {
    "knn": {"k": [3, 10, 500]},
    "mlknn": {"k": [5]},
    "linear": {"epochs": 8, "batch_size": 16},
    "logistic": {"values": 3, "low": 1e-1, "high": 100},
    "few_shot": {"shots": [1, 4], "draws": 3},
}


def made(root, labels=None, patch=True, n=N, top=None, **sections):
    """A study whose CLS of the last block holds the labels, under noise."""
    s = study(root, probe={**SMALL, **sections}, **(top or {}))
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (n, len(CLASSES))).astype(float)
    labels = truth if labels is None else labels(truth.copy())
    write_prepared(s, NIH, np.zeros((n, 4, 4), np.uint8), labels, classes=CLASSES)
    step = s.step("embed", NIH, "test_vit")
    tokens = rng.normal(size=(n, 4 if patch else 1, 8))
    tokens[:, -1, :2] += 2 * truth
    write_array(step.folder / "00000.cls.npy", tokens.astype(np.float16))
    names = ["00000.cls.npy"]
    if patch:
        write_array(step.folder / "00000.patch_mean.npy", rng.normal(size=(n, 8)).astype(np.float16))
        names.append("00000.patch_mean.npy")
    seal(step.place, Embeddings.KIND, {"seconds": 2.0, "peak_gb": 0.5}, names)
    return s, s.step("probe", NIH, "test_vit")


def without_mlknn(step):
    return step.job.heads.model_copy(update={"mlknn": None})


def test_every_protocol_predicts_val_and_test_in_order_and_learns(tmp_path):
    s, step = made(tmp_path)
    running.run(s, step)
    found = Predictions.load(step.folder)
    assert found.classes == list(CLASSES)
    assert [name for name in found.table["protocol"].unique() if "~" not in name] == MULTILABEL
    for protocol, rows in found.table.groupby("protocol"):
        if protocol.startswith("shuffled"):
            continue
        for part in ("val", "test"):
            here = rows[rows["part"] == part]
            expected = [f"film{i:04d}" for i in range(N) if PARTS[i % 4] == part]
            assert here["sample_id"].tolist() == expected == here["patient_id"].tolist()
            auc = [roc_auc_score(here[f"target:{name}"], here[f"score:{name}"]) for name in CLASSES]
            assert min(auc) > 0.75, protocol
        facts = found.facts["protocols"][protocol]
        assert facts["selected_on"] == ("nothing: k is fixed" if protocol == "mlknn@paper" else "val")
        assert facts["seconds"] > 0
        best = max(facts["candidates"], key=lambda candidate: candidate["value"])
        assert facts["chosen"] == {key: value for key, value in best.items() if key != "value"}
        val = rows[rows["part"] == "val"]
        auc = np.mean([roc_auc_score(val[f"target:{name}"], val[f"score:{name}"]) for name in CLASSES])
        assert auc == pytest.approx(best["value"])  # the val predictions are those that chose
    assert found.facts["protocols"]["knn"]["left_out"] == [500]
    heads = {name: found.facts["protocols"][name] for name in ("linear", "linear@paper", "logistic")}
    assert heads["linear@paper"]["heads"] == 16
    for name, rates in (("linear", 4), ("logistic", 3)):
        counted = Counter((each["blocks"], each["patch_mean"]) for each in heads[name]["candidates"])
        assert set(counted) == {(1, False), (1, True), (4, False), (4, True)}
        assert min(counted.values()) >= rates
    assert heads["linear"]["heads"] == 4 * (4 + heads["linear"]["widened"])


def as_cnn(step, tokens=(3, 5, 8)):
    """Give the last vector, alone of its kind, earlier stages of other widths."""
    embed, rng = step.dependency("embed"), np.random.default_rng(1)
    names = ["00000.cls.npy"]
    for number, width in enumerate(tokens):
        names.append(f"00000.stage{len(tokens) + 1 - number}.npy")
        write_array(embed.folder / names[-1], rng.normal(size=(N, width)).astype(np.float16))
    seal(embed.place, Embeddings.KIND, {"seconds": 2.0, "peak_gb": 0.5}, names)


def test_a_cnn_has_as_many_candidates_as_a_transformer(tmp_path):
    (s, step), (cnn, of_cnn) = made(tmp_path / "vit"), made(tmp_path / "cnn", patch=False)
    as_cnn(of_cnn)
    counts = []
    for each, its in ((s, step), (cnn, of_cnn)):
        running.run(each, its)
        facts = Predictions.load(its.folder).facts["protocols"]
        inputs = {name: {(c["blocks"], c["patch_mean"]) for c in facts[name]["candidates"]} for name in READING}
        counts.append({name: len(found) for name, found in inputs.items()})
        assert facts["linear"]["heads_left_out"] == 0
    assert counts[0] == counts[1] == {"linear": 4, "logistic": 4}
    assert (facts["linear@paper"]["heads"], facts["linear@paper"]["heads_left_out"]) == (
        4,
        12,
    )  # the study has no stages


@pytest.mark.parametrize("patch", [True, False])
def test_no_score_depends_on_the_unit_of_the_features(tmp_path, patch):
    found = {}
    for factor in (1, 0.02, 50):
        s, step = made(tmp_path / str(factor), patch=patch, paper=False)
        if not patch:
            as_cnn(step)
        folder = step.dependency("embed").folder
        for path in folder.glob("*.npy"):
            write_array(path, np.load(path).astype(np.float32) * np.float32(factor))
        names = sorted(path.name for path in folder.glob("*.npy"))
        seal(Place(folder, step.dependency("embed").key), Embeddings.KIND, {"seconds": 2.0, "peak_gb": 0.5}, names)
        running.run(s, step)
        predictions = Predictions.load(step.folder)
        found[factor] = {name: macro(predictions, name) for name in ("linear", "logistic", "shuffled", "knn")}
        assert predictions.few_shot.table["shots"].iloc[-1] == 0
        tests = predictions.matrices(predictions.rows("linear", "test"))[1]
        found[factor]["few-shot"] = selection.macro_auroc(tests, np.nan_to_num(predictions.few_shot.scores[-1]))
    for factor in (0.02, 50):
        assert found[factor] == pytest.approx(found[1], abs=0.002)


REAL = [os.environ.get(f"RADPROBE_REAL_{name}") for name in ("DATA", "WEIGHTS")]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not all(REAL), reason="RADPROBE_REAL_DATA and RADPROBE_REAL_WEIGHTS are not set")
def test_of_real_films_no_score_depends_on_the_unit_of_real_or_random_features(tmp_path):
    lite = "tf_efficientnet_lite0"
    content = {
        "study": "real",
        "device": "cpu",
        "threads": 1,
        "hub": False,
        "limit": 250,
        "controls": {**NO_CONTROLS, "random_inits": 1},
    }
    content |= {"paths": {"root": str(tmp_path), "raw": REAL[0], "weights": REAL[1]}, "backbones": [lite]}
    content["datasets"] = {NIH: {"split": "nih_real_subset", "allow_missing": True}}
    content["probe"] = {"knn": None, "mlknn": None, "few_shot": None, "shuffled": 0, "paper": False}
    s = Study(content)
    for verb in ("retrieve", "prepare", "split"):
        running.run(s, s.step(verb, NIH))
    for backbone in (lite, f"random:{lite}"):
        running.run(s, s.step("weights", None, backbone))
        step = s.step("embed", NIH, backbone)
        running.run(s, step)
        found = Embeddings.load(step.folder)
        names = ["00000.cls.npy", *(f"00000.stage{-layer}.npy" for layer in found.stages)]
        kept, values = [found.tokens, *found.stages.values()], []
        for path in step.folder.glob("*.npy"):
            path.unlink()
        for factor in (1, 0.02, 50):
            for name, array in zip(names, kept, strict=True):
                write_array(step.folder / name, array.astype(np.float32) * np.float32(factor))
            seal(step.place, Embeddings.KIND, found.facts, names)
            running.run(s, s.step("probe", NIH, backbone))
            predictions = Predictions.load(s.step("probe", NIH, backbone).folder)
            values.append([macro(predictions, protocol) for protocol in READING])
        np.testing.assert_allclose(values[1:], [values[0]] * 2, atol=0.002)


def macro(predictions, protocol):
    scores, targets = predictions.matrices(predictions.rows(protocol, "test"))
    return selection.macro_auroc(targets, scores)


def test_repeated_features_change_no_few_shot_score(tmp_path):
    found = []
    for name, times in (("a", 1), ("b", 16)):
        s, step = made(tmp_path / name, paper=False, linear=None, logistic=None)
        folder = step.dependency("embed").folder
        tokens = np.load(folder / "00000.cls.npy")
        write_array(folder / "00000.cls.npy", np.tile(tokens, (1, 1, times)))
        seal(
            Place(folder, step.dependency("embed").key),
            Embeddings.KIND,
            {"seconds": 2.0, "peak_gb": 0.5},
            ["00000.cls.npy"],
        )
        running.run(s, step)
        predictions = Predictions.load(step.folder)
        targets = predictions.matrices(predictions.rows("knn", "test"))[1]
        drawn = predictions.few_shot.scores
        found.append([selection.macro_auroc(np.where(np.isnan(each), np.nan, targets), each) for each in drawn])
    assert np.isfinite(found).any()
    np.testing.assert_allclose(*found, atol=0.005)


def test_a_choice_at_the_edge_widens_the_grid_and_is_said(tmp_path, capsys):
    narrow = {"linear": {**SMALL["linear"], "learning_rates": [2e-4, 4e-4]}}
    narrow["logistic"] = {"values": 2, "low": 1e-9, "high": 1e-8}
    s, step = made(tmp_path, paper=False, **narrow)
    running.run(s, step)
    facts = Predictions.load(step.folder).facts["protocols"]
    linear, logistic = facts["linear"], facts["logistic"]
    rates = sorted({each["learning_rate"] for each in linear["candidates"]})
    assert rates == pytest.approx([2e-4, 4e-4, 8e-4, 16e-4, 32e-4])
    assert (linear["widened"], linear["at_edge"]) == (selection.WIDENINGS, "learning_rate")
    assert linear["chosen"]["learning_rate"] == rates[-1]
    assert logistic["widened"] > 0  # the weakest regularisation is so strong that its order no longer changes
    said = capsys.readouterr()
    line = next(line for line in (said.out + said.err).splitlines() if " linear: val" in line)
    assert "the grid was widened 3 times; the chosen learning rate lies at the edge of the grid" in line


def test_the_same_job_gives_the_same_bytes(tmp_path):
    written = []
    for name in ("a", "b"):
        s, step = made(tmp_path / name)
        running.run(s, step)
        written.append((step.folder / "predictions.parquet").read_bytes())
    assert written[0] == written[1]


@pytest.mark.survives("bug", "test labels that could reach a choice", "none does")
def test_permuting_test_labels_changes_test_metrics_and_nothing_else(tmp_path):
    def permuted(labels):
        labels[3::4] = labels[3::4][np.random.default_rng(1).permutation(N // 4)]
        return labels

    found, scored = [], []
    for name, change in (("a", None), ("b", permuted)):
        s, step = made(tmp_path / name, change)
        running.run(s, step)
        found.append(Predictions.load(step.folder))
        running.run(s, s.step("score", NIH, "test_vit"))
        scored.append(Scores.load(s.step("score", NIH, "test_vit").folder).table)
    one, two = found
    scores = [f"score:{name}" for name in CLASSES]
    np.testing.assert_array_equal(one.table[scores], two.table[scores])
    np.testing.assert_array_equal(one.few_shot.scores, two.few_shot.scores)
    pd.testing.assert_frame_equal(one.few_shot.table, two.few_shot.table)
    assert selections(one) == selections(two)
    values = ["protocol", "part", "metric", "class", "value"]
    val, other_val = (table.loc[table["part"] == "val", values] for table in scored)
    pd.testing.assert_frame_equal(val, other_val)
    test, other_test = (table[(table["part"] == "test") & (table["class"] == "macro")] for table in scored)
    learnt = (test["metric"] == "auroc") & ~test["protocol"].str.contains("shuffled|few-shot")
    assert (test.loc[learnt, "value"] - other_test.loc[learnt, "value"]).min() > 0.05


def ran(root, **top):
    """Probe and score with a single candidate of the linear probe, so that no seed chooses another."""
    linear = {**SMALL["linear"], "learning_rates": [0.05], "blocks": [1], "patch_mean": [False]}
    s, step = made(root, top=top, linear=linear)
    running.run(s, step)
    running.run(s, s.step("score", NIH, "test_vit"))
    return Predictions.load(step.folder), Scores.load(s.step("score", NIH, "test_vit").folder).table


def test_repeats_are_what_other_seeds_would_have_been_and_change_nothing_else(tmp_path):
    once, twice, thrice = (ran(tmp_path / f"{seed}", seed=seed) for seed in (4, 5, 6))
    found, table = ran(tmp_path / "repeated", seed=4, repeats=3)
    for protocol in ("linear", "linear@paper"):
        assert found.facts["protocols"][protocol]["seeds"] == [4, 5, 6]
        for number, (other, _) in enumerate((twice, thrice), 1):
            expected = other.table.query("protocol == @protocol and part == 'test'")
            again = found.table[found.table["protocol"] == artifacts.again(protocol, number)]
            assert again.filter(like="score:").to_numpy() == pytest.approx(expected.filter(like="score:").to_numpy())
    moved = ["n_fits", "seed_sd", "seed_low", "seed_high"]
    costs = ["seconds", "peak_gb", "key"]
    pd.testing.assert_frame_equal(table.drop(columns=moved + costs), once[1].drop(columns=moved + costs))
    trained = table["protocol"].isin(["linear", "linear@paper"]) & (table["part"] == "test")
    assert (table.loc[trained, "n_fits"] == 3).all()
    floor = table["protocol"] == "shuffled"
    assert (table.loc[floor, "n_fits"] == 20).all()
    assert (table.loc[~trained & ~floor, "n_fits"] == 1).all()
    assert table.loc[~trained & ~floor, moved[1:]].isna().all(axis=None)
    for where in ({"metric": "auroc", "class": "macro"}, {"metric": "brier", "class": "a"}):
        values = [one_of(each, protocol="linear", part="test", **where)["value"] for _, each in (once, twice, thrice)]
        row = one_of(table, protocol="linear", part="test", **where)
        expected = [np.std(values, ddof=1), min(values), max(values)]
        assert row[moved[1:]].tolist() == pytest.approx(expected)


def one_of(table, **where):
    (row,) = (row for _, row in table.iterrows() if all(row[name] == value for name, value in where.items()))
    return row


def selections(found):
    """Everything that a job says of its choices: candidates, their values, what was chosen."""
    costs = ("seconds", "peak_gb")
    told = {**found.facts["protocols"], "few_shot": found.facts["few_shot"]}
    return {name: {key: value for key, value in each.items() if key not in costs} for name, each in told.items()}


def test_uncertain_and_blank_labels_are_undefined_targets(tmp_path):
    def doubt(labels):
        labels[2::8, 0], labels[4::8, 0] = -1, np.nan
        return labels

    s, step = made(tmp_path, doubt)
    running.run(s, step)
    table = Predictions.load(step.folder).table
    assert set(table["target:a"].dropna()) == {0.0, 1.0}
    ours = table[~table["protocol"].str.contains("~")]
    assert ours["target:a"].isna().sum() == len(MULTILABEL) * N // 8
    assert np.isfinite(table[["score:a", "score:b"]]).all(axis=None)


def test_a_single_vector_says_how_many_heads_remain(tmp_path):
    s, step = made(tmp_path, patch=False, linear={**SMALL["linear"], "learning_rates": [0.1, 0.3, 1.0]})
    running.run(s, step)
    facts = Predictions.load(step.folder).facts["protocols"]["linear"]
    assert (facts["heads"], facts["heads_left_out"]) == (3 + facts["widened"], 9)


def test_a_diverged_head_is_reported_and_not_chosen(tmp_path):
    s, step = made(tmp_path, linear={"epochs": 2, "learning_rates": [0.01, 1e39], "blocks": [1], "patch_mean": [False]})
    running.run(s, step)
    facts = Predictions.load(step.folder).facts["protocols"]["linear"]
    assert facts["heads_diverged"] == 1
    assert facts["chosen"]["learning_rate"] <= 0.01
    assert [c["learning_rate"] for c in facts["candidates"] if c["value"] is None] == [1e39]


def test_a_head_that_diverges_when_it_is_fitted_again_is_reported_and_passed_over(tmp_path, monkeypatch):
    fit, failed = grid.fit, []

    def fails_once(table, labels, recipes, *rest, **options):
        heads = fit(table, labels, recipes, *rest, **options)
        if len(recipes) == 1 and not failed:
            failed.append(vars(recipes[0]))
            heads[0].weight.fill_(torch.inf)
        return heads

    monkeypatch.setattr(grid, "fit", fails_once)
    s, step = made(tmp_path, paper=False)
    running.run(s, step)
    found = Predictions.load(step.folder)
    facts = found.facts["protocols"]["linear"]
    assert facts["diverged_when_refitted"] == failed
    assert facts["chosen"] not in failed
    assert np.isfinite(found.table["score:a"]).all()


@pytest.mark.parametrize(("start", "part"), [(0, "train"), (2, "val")])
def test_one_sided_labels_stop_it_by_name(tmp_path, start, part):
    def one_sided(labels):
        labels[start::4] = 1
        labels[start + (part == "train") :: 4] = 1
        return labels

    with pytest.raises(RadprobeError, match=f"both a positive and a negative in {part}"):
        running.run(*made(tmp_path, one_sided))


def test_an_empty_part_stops_it_by_name(tmp_path):
    with pytest.raises(RadprobeError, match="part test has no sample"):
        running.run(*made(tmp_path, n=3))


def test_d05_without_val_it_stops_and_chooses_nothing_on_test(tmp_path):
    s, step = made(tmp_path)
    leave_out(s, NIH, "val")
    with pytest.raises(RadprobeError, match="part val has no sample here, so no head can be chosen"):
        running.run(s, step)
    assert not (step.folder / "predictions.json").exists()


def test_without_a_leak_certificate_nothing_runs(tmp_path):
    s, step = made(tmp_path)
    (step.dependency("split").folder / "leaks.json").unlink()
    with pytest.raises(RadprobeError, match=r"leaks\.json"):
        running.run(s, step)


JOB = """
import runpy, sys
sys.argv = ["radprobe", "probe", sys.argv[1], "test_vit", "--params", sys.argv[2]]
try:
    runpy.run_module("radprobe", run_name="__main__")
except SystemExit as end:
    assert not end.code
print([name for name in ("timm", "monai", "torchvision", "transformers") if name in sys.modules])
"""


def test_d20_a_whole_job_imports_neither_timm_nor_monai(tmp_path):
    s, step = made(tmp_path)
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(s.params.model_dump(mode="json")))
    call = [sys.executable, "-c", JOB, NIH, str(params)]
    found = subprocess.run(call, check=True, capture_output=True, text=True)
    assert found.stdout.splitlines()[-1] == "[]"
    assert (step.folder / "predictions.json").is_file()


def test_a_volume_is_the_mean_of_its_slices_and_gives_one_score(tmp_path):
    s, step = made(tmp_path)
    source = step.dependency("prepare").folder
    index = artifacts.Index.load(source)
    index.table["volume_id"] = [f"patient{row // 8:03d}" for row in range(N)]  # neighbours in part as in volume
    index.table["patient_id"] = index.table["volume_id"]
    for name in CLASSES:
        index.table[f"label:{name}"] = [float(row // 32 % 2) for row in range(N)]
    index.save(Place(source, step.dependency("prepare").key))
    parts = [PARTS[row // 8 % 4] for row in range(N)]
    split = index.table[["sample_id", "patient_id"]].assign(part=parts)
    artifacts.Split(split, list(CLASSES)).save(step.dependency("split").place)
    running.run(s, step)
    found = Predictions.load(step.folder).table
    test = found[(found["protocol"] == "knn") & (found["part"] == "test")]
    assert test["sample_id"].tolist() == [f"patient{row:03d}" for row in range(N // 8) if PARTS[row % 4] == "test"]
    features = artifacts.Embeddings.load(step.dependency("embed").folder).cls[:, -1].astype(np.float32)
    volumes = features.reshape(N // 8, 8, -1).mean(1)
    volumes /= np.linalg.norm(volumes, axis=1, keepdims=True)
    fitted = np.array([PARTS[row % 4] != "test" for row in range(N // 8)])
    k = Predictions.load(step.folder).facts["protocols"]["knn"]["chosen"]["k"]
    labels = np.array([row // 4 % 2 for row in range(N // 8)])
    queries = volumes[[PARTS[row % 4] == "test" for row in range(N // 8)]]
    for query, value in zip(queries, test["score:a"], strict=True):
        similarity = volumes[fitted] @ query
        near = np.argsort(-similarity)[:k]
        weight = np.exp(similarity[near] / 0.07)
        assert value == pytest.approx((weight * labels[fitted][near]).sum() / weight.sum(), abs=1e-3)


def test_heads_of_epochs_see_the_augmented_copies_and_the_others_do_not(tmp_path):
    tables = []
    for name, noise in (("a", 0.0), ("b", 5.0)):
        s, step = made(tmp_path / name)
        embed, rng = step.dependency("embed"), np.random.default_rng(1)
        facts, files = {"seconds": 2.0, "peak_gb": 0.5, "views": 1}, []
        for kind in ("cls", "patch_mean"):
            plain = np.load(embed.folder / f"00000.{kind}.npy")
            copies = plain + rng.normal(size=plain.shape, scale=noise).astype(np.float16)
            write_array(embed.folder / f"00000.{kind}.npy", np.concatenate([plain, copies]))
            files.append(f"00000.{kind}.npy")
        seal(embed.place, Embeddings.KIND, facts, files)
        running.run(s, step)
        tables.append(Predictions.load(step.folder).table.set_index("protocol"))
    one, two = tables
    for protocol in MULTILABEL:
        same = np.array_equal(one.loc[protocol, "score:a"], two.loc[protocol, "score:a"])
        assert same == (not protocol.startswith("linear")), protocol
    s, step = made(tmp_path / "plain")
    running.run(s, step)
    plain = Predictions.load(step.folder).table.set_index("protocol")
    np.testing.assert_array_equal(plain["score:a"], one["score:a"])  # copies without noise are the images


def test_of_several_classes_one_is_true_and_their_probabilities_sum_to_one(tmp_path):
    def one_hot(labels):
        labels[:, 1] = 1 - labels[:, 0]
        return labels

    s, step = made(tmp_path, one_hot)
    step = replace(step, job=step.job.model_copy(update={"task": "multiclass", "heads": without_mlknn(step)}))
    running.run(s, step)
    found = Predictions.load(step.folder)
    assert list(found.facts["protocols"]) == [
        name
        for name in probe.PROTOCOLS
        if not name.startswith("mlknn")  # it is for many labels
    ]
    linear = found.table[found.table["protocol"] == "linear"]
    scores = linear[[f"score:{name}" for name in CLASSES]].to_numpy()
    np.testing.assert_allclose(np.exp(scores).sum(1), 1)
    logits = linear[[f"logit:{name}" for name in CLASSES]].to_numpy()
    np.testing.assert_allclose(log_softmax(logits, axis=1), scores)
    assert np.abs(logits - scores).max() > 0.1
    assert roc_auc_score(linear["target:a"], linear["score:a"]) > 0.75
    val, test = (found.matrices(found.rows("knn", part)) for part in ("val", "test"))
    made_of = operating.called_by_val(test[0], found.facts["protocols"]["knn"], *val)
    assert (made_of.positive.sum(1) == 1).all()  # the likeliest class, of kNN too


def test_a_sample_of_a_class_that_the_split_leaves_out_is_taught_and_scored_as_none(tmp_path):
    def with_a_third_class(labels):
        labels[:, 1] = 1 - labels[:, 0]
        labels[: N // 2 : 5] = 0  # of that class, which has no column here
        return labels

    s, step = made(tmp_path, with_a_third_class)
    step = replace(step, job=step.job.model_copy(update={"task": "multiclass", "heads": without_mlknn(step)}))
    running.run(s, step)
    table = Predictions.load(step.folder).table
    third = table["sample_id"].isin([f"film{row:04d}" for row in range(0, N // 2, 5)])
    assert 0 < third.sum() < len(table)
    assert table.loc[third, ["target:a", "target:b"]].isna().all(axis=None)
    assert (table.loc[~third, "target:a"] + table.loc[~third, "target:b"] == 1).all()
    assert np.isfinite(table[["score:a", "score:b"]]).all(axis=None)


def test_d03_few_shot_heads_see_the_drawn_patients_of_train_alone(tmp_path, monkeypatch):
    s, step = made(tmp_path)
    seen, fit = [], logistic.fit
    monkeypatch.setattr(logistic, "fit", lambda x, *rest: seen.append(len(x)) or fit(x, *rest))
    running.run(s, step)
    found = Predictions.load(step.folder).few_shot
    table = found.table
    assert list(table.columns) == list(found.COLUMNS)
    ours = table[table["protocol"] == "few-shot"]
    assert ours["shots"].tolist() == [1, 1, 1, 4, 4, 4, 0]
    assert ours["draw"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert (table["protocol"] == "few-shot@paper").sum() == 2
    taught = ~np.isnan(found.scores).all(axis=(1, 2))  # a single patient with both labels tells nothing apart
    assert taught.sum() >= len(table) - 2
    assert seen[-taught.sum() :] == table.loc[taught, "n_samples"].tolist()  # val and the rest of train take no part
    assert found.scores.shape == (len(table), N // 4, len(CLASSES))
    targets = Predictions.load(step.folder).table.query("protocol == 'knn' and part == 'test'").sort_values("sample_id")
    targets = targets[[f"target:{name}" for name in CLASSES]].to_numpy()
    auc = [
        selection.macro_auroc(np.where(np.isnan(scores), np.nan, targets), np.nan_to_num(scores))
        for scores in found.scores
    ]
    few, more = (np.nanmean([auc[row] for row in ours.index[ours["shots"] == shots]]) for shots in (1, 4))
    assert few < more < auc[6] + 0.05
    assert auc[6] > 0.75


def test_a_class_that_a_draw_cannot_teach_has_no_score_there(tmp_path):
    def without_b_in_train(labels):
        labels[0::4, 1] = labels[1::4, 1] = 0
        return labels

    s, step = made(tmp_path, without_b_in_train)
    running.run(s, step)
    found = Predictions.load(step.folder).few_shot
    everyone = (found.table["shots"] == 0).to_numpy()
    assert np.isnan(found.scores[~everyone]).all()  # only patients with a positive of `a` are drawn: no negative
    assert np.isfinite(found.scores[everyone][..., 0]).all()
    assert np.isnan(found.scores[..., 1]).all()


def test_the_floor_is_fitted_on_the_permuted_labels_of_train(tmp_path, monkeypatch):
    s, step = made(tmp_path, few_shot=None, logistic=None)
    given, fit = [], logistic.EigenFeatures.fit
    monkeypatch.setattr(logistic.EigenFeatures, "fit", lambda own, y, *rest: given.append(y) or fit(own, y, *rest))
    running.run(s, step)
    train = [row for row in range(N) if PARTS[row % 4] == "train"]
    index = artifacts.Index.load(step.dependency("prepare").folder)
    labels = index.labels()[train]
    assert len(given) == len({tuple(each.flatten().tolist()) for each in given}) == 20  # each shuffle is another one
    for each in given:
        assert not np.array_equal(each, labels)
        assert sorted(map(tuple, each.tolist())) == sorted(map(tuple, labels.tolist()))


def test_the_floor_is_the_mean_of_its_shuffles_and_their_range(tmp_path):
    s, step = made(tmp_path, shuffled=30)
    running.run(s, step)
    found = Predictions.load(step.folder)
    names = [artifacts.again("shuffled", number) for number in range(30)]
    assert len(found.facts["protocols"]["shuffled"]["seeds"]) == 30
    running.run(s, s.step("score", NIH, "test_vit"))
    table = Scores.load(s.step("score", NIH, "test_vit").folder).table
    assert not table["protocol"].str.contains("~").any()
    for part in ("val", "test"):
        values = []
        for name in names:
            scores, targets = found.matrices(found.rows(name, part))
            values.append(selection.macro_auroc(targets, scores))
        assert len(set(values)) > 20
        row = one_of(table, protocol="shuffled", part=part, metric="auroc", **{"class": "macro"})
        assert row[["value", "low", "high"]].tolist() == pytest.approx([np.mean(values), min(values), max(values)])
        assert row["seed_sd"] == pytest.approx(np.std(values, ddof=1))
        assert row["note"] == "range of 30 shuffles, not over patients"
        assert row["low"] < 0.5 < row["high"]


def test_the_studys_variants_and_the_floor_can_be_left_out(tmp_path):
    s, step = made(tmp_path, paper=False, shuffled=0, few_shot=None)
    running.run(s, step)
    found = Predictions.load(step.folder)
    assert list(found.table["protocol"].unique()) == ["knn", "mlknn", "linear", "logistic"]
    assert found.few_shot is None


def from_raw(root, dataset, patients, backbone, **sections):
    """A study of a generated download by the tiny random ViT and controls, made as far as the scores of one of them."""
    content = {"study": "raw", "device": "cpu", "threads": 1, "paths": {"root": str(root)}, "score": {"resamples": 100}}
    content |= {"datasets": {dataset: {"phantom": {"patients": patients}, "stored": 128}}, "backbones": ["test_vit"]}
    s = Study({**content, "probe": SMALL, **sections})
    for verb in ("retrieve", "prepare", "split"):
        if not s.step(verb, dataset).outputs[0].is_file():
            running.run(s, s.step(verb, dataset))
    if backbone != METADATA:
        running.run(s, s.step("weights", None, backbone))
    for verb in ("embed", "probe", "score"):
        running.run(s, s.step(verb, dataset, backbone))
    return s


@pytest.mark.slow
def test_slices_of_ct_are_scored_by_patient(tmp_path):
    sars = "sars_cov_2_ct"
    s = from_raw(tmp_path, sars, 40, "test_vit")
    table = artifacts.Index.load(s.step("prepare", sars).folder).table
    cases = table.drop_duplicates("volume_id")
    assert len(cases) == 40 < len(table)
    batch = Embeddings.load(s.step("embed", sars, "test_vit").folder).facts["batch"]
    assert batch > table.groupby("volume_id").size().max()  # slices of several patients go through together
    parts = Split.load(s.step("split", sars).folder).table.merge(table[["sample_id", "volume_id"]])
    found = Predictions.load(s.step("probe", sars, "test_vit").folder)
    assert list(found.facts["protocols"]) == [name for name in probe.PROTOCOLS if not name.startswith("mlknn")]
    for (_, part), rows in found.table.groupby(["protocol", "part"]):
        assert sorted(rows["sample_id"]) == sorted(set(parts.loc[parts["part"] == part, "volume_id"]))
    assert found.facts["protocols"]["linear"]["n_train"] == parts.loc[parts["part"] == "train", "volume_id"].nunique()
    assert found.few_shot.scores.shape[1] == parts.loc[parts["part"] == "test", "volume_id"].nunique()
    ours = found.few_shot.table.query("protocol == 'few-shot'").groupby("shots")["n_patients"].max()
    assert (ours[1], ours[4]) == (2, 8)  # of Covid, and of the others
    scored = Scores.load(s.step("score", sars, "test_vit").folder).table
    scored = scored[(scored["metric"] == "auroc") & (scored["part"] == "test")]
    assert (scored["n_samples"] == found.few_shot.scores.shape[1]).all()
    told = ~scored["protocol"].str.endswith("@paper")  # one patient alone, the study's draw, teaches nothing
    assert scored.loc[told, "value"].between(0, 1).all()


def test_metadata_alone_run_every_protocol_on_the_draws_of_the_backbones(tmp_path):
    for backbone in ("test_vit", METADATA):
        s = from_raw(tmp_path, NIH, 60, backbone)
    alone, seen = (Predictions.load(s.step("probe", NIH, name).folder) for name in (METADATA, "test_vit"))
    assert set(alone.facts["protocols"]) == set(seen.facts["protocols"]) == set(MULTILABEL)
    pd.testing.assert_frame_equal(alone.few_shot.table, seen.few_shot.table)
    keys = ["protocol", "part", "sample_id", "target:Effusion"]
    pd.testing.assert_frame_equal(alone.table[keys], seen.table[keys])
    assert Embeddings.load(s.step("embed", NIH, METADATA).folder).cls.shape[2] < 10
    assert np.isfinite(alone.table["score:Effusion"]).all()
