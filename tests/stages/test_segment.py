import dataclasses

import numpy as np
import pytest
import running
import torch
from frozen import PARTS, films, leave_out, prepare, study

from radprobe import artifacts
from radprobe.artifacts import Embeddings, Predictions, Scores, Truth
from radprobe.artifacts.tables import write_array
from radprobe.files import RadprobeError
from radprobe.imaging.resize import to_original
from radprobe.learning import decoding
from radprobe.learning.selection import Diverged
from radprobe.manifests import seal
from radprobe.models import backbones, decoders

MONTGOMERY, CLASSES, N, SIDE = "montgomery", ("left lung", "right lung"), 16, 32
KNOBS = {"linear": {"learning_rates": [0.001, 0.1], "epochs": 30, "batch_size": 4}, "unet": None, "few_shot": None}
FACTS = {"seconds": 2.0, "peak_gb": 0.5, "streamed": False, "seed": 0, "views": 0, "decoders": {"linear": [-1]}}


def made(root, masks=None, facts=FACTS, grey=False, top=None, **knobs):
    """A study whose dense maps hold the labels of their cells, under noise; originals are 40 x 24."""
    s = study(root, MONTGOMERY, segment=KNOBS | knobs, backbones=["test_vit", "unet", "ceiling"], **(top or {}))
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.integers(0, 3, (N, 2, 2)), np.ones((4, 4), int))
    truth = np.kron(coarse, np.ones((4, 4), int)).astype(np.uint8) if masks is None else masks
    images = truth * 100 if grey else np.zeros((N, SIDE, SIDE), np.uint8)
    prepare(s, MONTGOMERY, images, masks=truth, classes=CLASSES)
    step = s.step("prepare", MONTGOMERY)
    pixels = artifacts.Pixels.load(step.folder)
    artifacts.Pixels(pixels.images, pixels.masks, np.tile([40, 24], (N, 1))).save(step.place)
    step = s.step("embed", MONTGOMERY, "test_vit")
    dense = rng.normal(size=(N, 6, 8, 8), scale=0.3)
    for label in range(3):
        dense[:, label] += coarse == label
    names = ["00000.cls.npy", "00000.dense1.npy", "00001.cls.npy", "00001.dense1.npy"]
    for name, array in zip(
        names, (dense[:7, None, :, 0, 0], dense[:7], dense[7:, None, :, 0, 0], dense[7:]), strict=True
    ):
        write_array(step.folder / name, array.astype(np.float16))
    seal(step.place, Embeddings.KIND, facts, names)
    return s, s.step("segment", MONTGOMERY, "test_vit"), coarse


def test_it_predicts_val_and_test_on_the_original_grid_and_learns(tmp_path):
    s, step, coarse = made(tmp_path)
    running.run(s, step)
    found = Predictions.load(step.folder)
    maps = found.maps["linear-decoder"]
    assert list(maps) == [f"film{i:04d}" for part in ("val", "test") for i in range(N) if PARTS[i % 4] == part]
    assert set(maps.table["part"]) == {"val", "test"}
    for case in maps:
        truth = np.kron(coarse[int(case.removeprefix("film"))], np.ones((5, 3), int))
        assert maps[case].shape == truth.shape == (40, 24)
        assert (maps[case] == truth).mean() > 0.75
    facts = found.facts["protocols"]["linear-decoder"]
    assert facts["chosen"]["learning_rate"] == 0.1
    assert 1 <= facts["chosen"]["epochs"] <= 30
    assert [candidate["learning_rate"] for candidate in facts["candidates"]] == [0.001, 0.1]
    assert (facts["n_train"], facts["n_val"], facts["n_test"]) == (8, 4, 4)


def test_the_same_job_gives_the_same_bytes_and_test_masks_change_nothing(tmp_path):
    s, step, coarse = made(tmp_path / "a")
    masks = np.kron(coarse, np.ones((4, 4), int)).astype(np.uint8)
    masks[3::4] = 1
    other, again, _ = made(tmp_path / "b", masks)
    for which in ((s, step), (other, again)):
        running.run(*which)
    name = "linear-decoder.bin"
    assert (step.folder / name).read_bytes() == (again.folder / name).read_bytes()


def test_repeats_are_what_other_seeds_would_have_been_and_change_nothing_else(tmp_path):
    linear = {"learning_rates": [0.1], "epochs": 1, "batch_size": 4}  # one candidate: no seed chooses another
    once, other, many = (
        made(tmp_path / name, linear=linear, top=top)[:2]
        for name, top in (("once", {}), ("other", {"seed": 1}), ("many", {"repeats": 2}))
    )
    for s, step in (once, other, many):
        running.run(s, step)
    once, other, found = (Predictions.load(step.folder) for _, step in (once, other, many))
    maps = [each.maps["linear-decoder"] for each in (once, other, found)] + [found.maps["linear-decoder~1"]]
    tests = list(maps[3])
    assert tests == [f"film{i:04d}" for i in range(N) if PARTS[i % 4] == "test"]
    assert all((maps[2][case] == maps[0][case]).all() for case in maps[0])
    assert all((maps[3][case] == maps[1][case]).all() for case in tests)
    assert not all((maps[3][case] == maps[2][case]).all() for case in tests)
    assert found.facts["protocols"]["linear-decoder"]["seeds"] == [0, 1]


def test_a_fit_that_diverges_with_another_seed_is_left_out_and_counted(tmp_path, monkeypatch):
    s, step, _ = made(tmp_path, linear={"learning_rates": [0.1], "epochs": 1, "batch_size": 4}, top={"repeats": 3})
    fit = decoding.decoders.fit

    def spoiled(*given, **how):
        if given[4].schedule.seed == 1:
            raise Diverged("learning rate 0.1", "the loss is not finite", "lower it")
        return fit(*given, **how)

    monkeypatch.setattr(decoding.decoders, "fit", spoiled)
    running.run(s, step)
    found = Predictions.load(step.folder)
    told = found.facts["protocols"]["linear-decoder"]
    assert (told["seeds"], told["seeds_diverged"]) == ([0, 2], 1)
    assert set(found.maps) == {"linear-decoder", "linear-decoder~1"}


def test_a_learning_rate_that_diverges_on_refit_gives_way_to_the_next_best(tmp_path, monkeypatch, capsys):
    s, step, _ = made(tmp_path / "one", linear={"learning_rates": [0.1], "epochs": 2, "batch_size": 4})
    running.run(s, step)
    expected = Predictions.load(step.folder).maps["linear-decoder"]
    fit = decoding.decoders.fit

    def spoiled(make, maps, labels, rates, recipe, val=None, **how):
        if val is None and rates != [0.1]:
            raise Diverged(f"learning rate {rates[0]:g}", "its loss is not finite", "lower it")
        fitted = fit(make, maps, labels, rates, recipe, val=val, **how)
        return fitted if val is None else dataclasses.replace(fitted, values=[0.9, 0.1])

    monkeypatch.setattr(decoding.decoders, "fit", spoiled)
    s, step, _ = made(tmp_path / "two", linear={"learning_rates": [0.2, 0.1], "epochs": 2, "batch_size": 4})
    running.run(s, step)
    found = Predictions.load(step.folder)
    facts = found.facts["protocols"]["linear-decoder"]
    assert (facts["chosen"]["learning_rate"], facts["value"]) == (0.1, 0.1)
    assert [each["learning_rate"] for each in facts["diverged_when_refitted"]] == [0.2]
    assert "learning rate 0.2" in capsys.readouterr().out
    val = {case for case in expected if PARTS[int(case.removeprefix("film")) % 4] == "val"}
    assert val
    assert all((found.maps["linear-decoder"][case] == expected[case]).all() for case in val)


def test_if_every_learning_rate_diverges_on_refit_it_says_so(tmp_path, monkeypatch):
    s, step, _ = made(tmp_path)
    fit = decoding.decoders.fit

    def spoiled(*given, val=None, **how):
        if val is None:
            raise Diverged("learning rate", "its loss is not finite", "lower it")
        return fit(*given, val=val, **how)

    monkeypatch.setattr(decoding.decoders, "fit", spoiled)
    with pytest.raises(RadprobeError, match="every candidate diverged when it was fitted again"):
        running.run(s, step)


def test_a_few_shot_fit_that_diverges_counts_nothing(tmp_path, monkeypatch):
    wanted = {"shots": [1, 4], "draws": 1, "learning_rate": 0.1, "steps": 1}
    s, step, _ = made(tmp_path, few_shot=wanted, linear={"learning_rates": [0.2], "epochs": 1, "batch_size": 4})
    fit = decoding.decoders.fit

    def spoiled(make, maps, labels, rates, recipe, **how):
        if rates == [0.1] and len(maps) == 1:
            raise Diverged("learning rate 0.1", "its loss is not finite", "lower it")
        return fit(make, maps, labels, rates, recipe, **how)

    monkeypatch.setattr(decoding.decoders, "fit", spoiled)
    running.run(s, step)
    found = Predictions.load(step.folder).few_shot
    counted = found.scores.sum((1, 2, 3)) > 0
    assert (counted == (found.table["n_samples"] > 1)).all()
    assert not counted.all()


def test_masks_that_are_absent_or_beyond_the_classes_stop_it(tmp_path):
    with pytest.raises(RadprobeError, match="have label 3"):
        running.run(*made(tmp_path / "a", np.full((N, SIDE, SIDE), 3, np.uint8))[:2])
    s, step, _ = made(tmp_path / "b")
    (step.dependency("split").folder / "leaks.json").unlink()
    with pytest.raises(RadprobeError, match=r"leaks\.json"):
        running.run(s, step)


def test_each_decoder_of_the_embeddings_is_fitted_and_says_what_it_chose(tmp_path):
    unet = {"learning_rates": [0.01], "epochs": 6, "batch_size": 4, "widths": [8, 4]}
    facts = FACTS | {"decoders": {"linear": [-1], "unet": [-1]}}
    s, step, _ = made(tmp_path, facts=facts, unet=unet)
    running.run(s, step)
    found = Predictions.load(step.folder)
    assert set(found.maps) == {"linear-decoder", "unet-decoder"}
    assert (
        found.facts["protocols"]["unet-decoder"]["parameters"]
        > found.facts["protocols"]["linear-decoder"]["parameters"]
    )
    assert set(found.training["protocol"]) == set(found.maps)
    assert set(found.training["phase"]) == {"search", "refit"}
    assert not (step.folder / "training").exists()


def test_a_saved_decoder_says_of_the_same_maps_what_its_job_said(tmp_path):
    unet = {"learning_rates": [0.01], "epochs": 2, "batch_size": 4, "widths": [8, 4]}
    s, step, _ = made(tmp_path, facts=FACTS | {"decoders": {"linear": [-1], "unet": [-1]}}, unet=unet)
    running.run(s, step)
    found, dense = Predictions.load(step.folder), Embeddings.load(s.step("embed", MONTGOMERY, "test_vit").folder).dense
    assert found.decoders == ["linear-decoder", "unet-decoder"]
    for protocol, maps in found.maps.items():
        decoder, facts = decoders.load(step.folder / f"{protocol}.safetensors")
        assert (facts["protocol"], facts["backbone"], facts["layers"]) == (protocol, "test_vit", [-1])
        for case in maps.table["case_id"][maps.table["part"] == "test"]:
            row = np.array([int(case.removeprefix("film"))])
            with torch.inference_mode():
                said = decoder([torch.from_numpy(dense[-1][row]).float()], (SIDE, SIDE)).softmax(1)
            assert (to_original(said[0], (40, 24)) == maps[case]).all()


def test_d03_few_shot_decoders_see_the_drawn_patients_of_train_alone(tmp_path, monkeypatch):
    wanted = {"shots": [1, 4], "draws": 1, "learning_rate": 0.1, "steps": 1}
    s, step, _ = made(tmp_path, few_shot=wanted, linear={"learning_rates": [0.1], "epochs": 1, "batch_size": 4})
    seen, fit = [], decoding.decoders.fit

    def watched(make, maps, *rest, **how):
        seen.append(maps.rows)
        return fit(make, maps, *rest, **how)

    monkeypatch.setattr(decoding.decoders, "fit", watched)
    running.run(s, step)
    found = Predictions.load(step.folder).few_shot
    drawn = seen[-len(found.table) :]
    assert [len(rows) for rows in drawn] == found.table["n_samples"].tolist()
    assert {PARTS[row % 4] for rows in drawn for row in rows} == {"train"}


def test_few_shot_decoders_take_the_same_steps_whatever_the_number_of_images(tmp_path, monkeypatch):
    wanted = {"shots": [1, 4], "draws": 1, "learning_rate": 0.1, "steps": 12}
    s, step, _ = made(tmp_path, few_shot=wanted, linear={"learning_rates": [0.1], "epochs": 1, "batch_size": 4})
    steps, fit = [], decoding.decoders.fit

    def watched(make, maps, labels, rates, how, **more):
        steps.append((how.schedule.epochs, -(-len(maps) // how.batch_size)))
        return fit(make, maps, labels, rates, how, **more)

    monkeypatch.setattr(decoding.decoders, "fit", watched)
    running.run(s, step)
    of_draws = steps[-len(Predictions.load(step.folder).few_shot.table) :]
    assert of_draws[0] == (12, 1)
    assert all(abs(epochs * each - 12) <= each / 2 for epochs, each in of_draws)  # whole epochs


def test_few_shot_draws_are_counted_on_every_test_case(tmp_path):
    wanted = {"shots": [1, 4], "draws": 3, "learning_rate": 0.1, "steps": 40}
    s, step, _ = made(tmp_path, few_shot=wanted)
    running.run(s, step)
    found = Predictions.load(step.folder).few_shot
    k, tests = len(CLASSES) + 1, [i for i in range(N) if PARTS[i % 4] == "test"]
    assert found.scores.shape == (len(found.table), len(tests), k, k)
    assert (found.scores.sum((2, 3)) == SIDE * SIDE).all()
    drawn = found.table[~found.table["protocol"].str.endswith("@paper")]
    right = np.trace(found.scores.sum(1), axis1=1, axis2=2) / (len(tests) * SIDE * SIDE)
    by_shots = {shots: right[group.index].mean() for shots, group in drawn.groupby("shots", dropna=False)}
    assert by_shots[4] > by_shots[1] > 0.3


def test_a_network_from_scratch_learns_from_grey_values_alone(tmp_path):
    scratch = {"learning_rates": [0.01], "epochs": 8, "refit_epochs": 12, "batch_size": 4, "width": 8, "augment": False}
    small = {"datasets": {MONTGOMERY: {"phantom": {"patients": 1}, "size": 64}}}
    s, _, coarse = made(tmp_path, scratch=scratch, grey=True, top=small)
    step = s.step("segment", MONTGOMERY, "unet")
    running.run(s, step)
    found = Predictions.load(step.folder)
    maps, facts = found.maps["from-scratch"], found.facts["protocols"]["from-scratch"]
    assert facts["chosen"] | {"value": facts["value"]} in facts["candidates"]  # as val chose it, of at most 8 epochs
    assert facts["chosen"]["learning_rate"] == 0.01
    assert facts["chosen"]["epochs"] <= 8
    assert facts["refit_epochs"] == 12
    refit = found.training[found.training["phase"] == "refit"]
    assert refit["epoch"].tolist() == list(range(1, 13))
    assert refit["loss"].iloc[-1] < refit["loss"].iloc[0]
    right = [
        (maps[case] == np.kron(coarse[int(case.removeprefix("film"))], np.ones((5, 3), int))).mean() for case in maps
    ]
    assert np.mean(right) > 0.5


def test_the_ceiling_is_the_truth_at_the_stored_size_and_back(tmp_path):
    s, _, coarse = made(tmp_path)
    step = s.step("segment", MONTGOMERY, "ceiling")
    running.run(s, step)
    maps = Predictions.load(step.folder).maps["ceiling"]
    for case in maps:
        truth = np.kron(coarse[int(case.removeprefix("film"))], np.ones((5, 3), int))
        assert (maps[case] == truth).mean() > 0.98


def test_masks_that_are_all_empty_in_train_or_val_stop_it_before_anything_is_fitted(tmp_path):
    masks = np.ones((N, SIDE, SIDE), np.uint8)
    masks[[i for i in range(N) if PARTS[i % 4] == "val"]] = 0
    s, step, _ = made(tmp_path, masks)
    with pytest.raises(RadprobeError, match="every mask of part val is empty"):
        running.run(s, step)


def test_d05_without_val_it_stops_and_chooses_nothing_on_test(tmp_path):
    s, step, _ = made(tmp_path)
    leave_out(s, MONTGOMERY, "val")
    with pytest.raises(RadprobeError, match="part val has no sample here"):
        running.run(s, step)
    assert not (step.folder / "predictions.json").exists()


def streaming(root):
    """A study whose maps are over the budget, so that the backbone encodes anew."""
    how = {"datasets": {MONTGOMERY: {"phantom": {"patients": 1}, "size": SIDE, "stored": SIDE}}}
    how |= {"segment": {**KNOBS, "linear": {"learning_rates": [0.1], "epochs": 1, "batch_size": 4}}}
    s, images = study(root, MONTGOMERY, embed={"max_dense_cache_gb": 1e-9, "precision": "fp32"}, **how), films(8, SIDE)
    prepare(s, MONTGOMERY, images, masks=(images > 128).astype(np.uint8), classes=CLASSES[:1])
    running.run(s, s.step("embed", MONTGOMERY, "test_vit"))
    return s, s.step("segment", MONTGOMERY, "test_vit")


def test_a_backbone_that_encodes_anew_must_stay_frozen(tmp_path, monkeypatch):
    s, step = streaming(tmp_path)
    forward = backbones.Encoder.forward

    def learning(self, *given):
        self.tower.model.pos_embed.data.add_(1)
        return forward(self, *given)

    monkeypatch.setattr(backbones.Encoder, "forward", learning)
    with pytest.raises(RadprobeError, match=r"tower\.model\.pos_embed changed while it was frozen"):
        running.run(s, step)
    assert not list(step.folder.rglob("*.json"))


def test_features_of_other_images_than_the_index_has_stop_it(tmp_path):
    s, step, _ = made(tmp_path)
    prepared = step.dependency("prepare")
    index = artifacts.Index.load(prepared.folder)
    artifacts.Index(index.table[:-4].reset_index(drop=True), index.facts).save(prepared.place)
    with pytest.raises(RadprobeError, match="holds features of 16 images, and the index has 12 rows"):
        running.run(s, step)


def coarse_without(label, *parts):
    """Labels of the cells of each film; those of `parts` have none of `label`."""
    coarse = np.random.default_rng(0).integers(0, 3, (N, 2, 2))
    gone = [PARTS[i % 4] in parts for i in range(N)]
    coarse[gone] = np.where(coarse[gone] == label, 0, coarse[gone])
    return coarse


def scored(root, coarse):
    """Segment films of these labels and score them; return the Scores and the label maps."""
    s, step, _ = made(root, np.kron(coarse, np.ones((16, 16), int)).astype(np.uint8))
    truth = s.step("prepare", MONTGOMERY)
    cases = ((f"film{i:04d}", f"film{i:04d}", "", np.kron(coarse[i], np.ones((20, 12), int)), []) for i in range(N))
    Truth.write(truth.place, cases, list(CLASSES))
    running.run(s, step)
    running.run(s, s.step("score", MONTGOMERY, "test_vit"))
    return Scores.load(s.step("score", MONTGOMERY, "test_vit").folder), Predictions.load(step.folder).maps


@pytest.mark.parametrize("parts", [("train", "val"), ("test",), ("train", "val", "test")])
def test_a_class_absent_from_train_from_test_or_from_both_is_missing_or_0_where_it_should_be(tmp_path, parts):
    coarse = coarse_without(2, *parts)
    found, maps = scored(tmp_path, coarse)
    cases = found.cases[(found.cases["part"] == "test") & (found.cases["class"] == CLASSES[1])]
    values = cases.set_index(["metric", "case_id"])["value"]
    tests = [i for i in range(N) if PARTS[i % 4] == "test"]
    there = {i: ((coarse[i] == 2).any(), (maps["linear-decoder"][f"film{i:04d}"] == 2).any()) for i in tests}
    assert any(truth for truth, _ in there.values()) == ("test" not in parts)
    for i, (truth, predicted) in there.items():
        dsc, hd95, error = (values[metric, f"film{i:04d}"] for metric in ("dsc", "hd95", "volume_error"))
        assert np.isnan(dsc) == (not truth and not predicted)  # nothing to find, nothing found: missing, not 0 or 1
        assert truth == predicted or dsc == 0  # a miss, or a false alarm
        assert np.isnan(hd95) == (not (truth and predicted))
        assert np.isnan(error) == (not truth)
    row = found.table.query("part == 'test' and metric == 'dsc'").set_index("class").loc[CLASSES[1]]
    defined = sum(truth or predicted for truth, predicted in there.values())
    assert row["n_samples"] == defined
    assert ("absent from truth and prediction" in row["note"]) == (defined < len(tests))


def test_films_whose_masks_are_empty_are_left_out_where_nothing_is_found(tmp_path):
    coarse = coarse_without(1, "test")
    coarse[3::4] = 0
    found, maps = scored(tmp_path, coarse)
    rows = found.table.query("part == 'test' and metric == 'dsc'").set_index("class")
    predicted = [np.isin([1, 2], maps["linear-decoder"][f"film{i:04d}"]) for i in range(3, N, 4)]
    for number, name in enumerate(CLASSES):
        alarms = sum(each[number] for each in predicted)
        assert rows.loc[name, "n_samples"] == alarms
        assert rows.loc[name, "value"] == 0 if alarms else np.isnan(rows.loc[name, "value"])
    hd95 = found.table.query("part == 'test' and metric == 'hd95'")
    assert hd95["value"].isna().all()
