import json

import numpy as np
import pytest
import running
import torch
from frozen import PARTS, leave_out, prepare, study
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from small_params import NO_CONTROLS

from radprobe import artifacts
from radprobe.artifacts import Adapter, Embeddings, Predictions
from radprobe.entries import read_adapter
from radprobe.files import RadprobeError
from radprobe.learning import decoders, loop, tuning
from radprobe.names import MODES
from radprobe.study import Study

NIH, MONTGOMERY, CLASSES, N, SIDE = "nih_chestxray14", "montgomery", ("a", "b"), 64, 32
SETTINGS = {
    "backbones": ["test_vit"],
    "bitfit": {"backbone_rates": [0.001], "head_rates": [0.01]},
    "lora": {"backbone_rates": [0.001], "head_rates": [0.003, 0.01], "rank": 4},
    "end_to_end": {"backbone_rates": [0.0003], "head_rates": [0.01]},
    "classify": {"epochs": 8, "batch_size": 8},
    "segment": {"epochs": 4, "batch_size": 8},
    "precision": "fp32",
    "patience": None,
}


def made(root, dataset=NIH, labels=None, images=None, device="cpu", name="test_vit", **changes) -> Study:
    """A study whose images say their labels: a bright upper half is class a, stripes are class b."""
    choice = {dataset: {"phantom": {"patients": 1}, "size": SIDE, "stored": SIDE}}
    names = list(dict.fromkeys(["test_vit", name]))
    adapting = SETTINGS | {"backbones": [name]} | changes
    s = study(root, dataset, datasets=choice, device=device, backbones=names, adapt=adapting)
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (N, 2))
    pixels = rng.integers(0, 60, (N, SIDE, SIDE))
    pixels[truth[:, 0] == 1, : SIDE // 2] += 120
    pixels[truth[:, 1] == 1] += 60 * (np.arange(SIDE) // 4 % 2)
    pixels = pixels.astype(np.uint8) if images is None else images
    if dataset == NIH:
        prepare(s, dataset, pixels, truth if labels is None else labels(truth.copy()), classes=CLASSES)
    else:
        masks = (pixels > 100).astype(np.uint8) + (pixels > 160)
        prepare(s, dataset, pixels, masks=masks.astype(np.uint8), classes=CLASSES)
    return s


def run(s, mode, dataset=NIH):
    step = s.step("adapt", dataset, f"test_vit+{mode}")
    running.run(s, step)
    return step, Predictions.load(step.folder)


@pytest.mark.parametrize("mode", MODES)
def test_it_classifies_val_and_test_and_says_what_it_trained(tmp_path, mode):
    step, found = run(made(tmp_path), mode)
    assert list(found.table["protocol"].unique()) == [mode]
    for part, rows in found.table.groupby("part"):
        assert rows["sample_id"].tolist() == [f"film{i:04d}" for i in range(N) if PARTS[i % 4] == part]
        assert np.mean([roc_auc_score(rows[f"target:{c}"], rows[f"score:{c}"]) for c in CLASSES]) > 0.7, part
    facts = found.facts["protocols"][mode]
    assert facts["selected_on"] == "val"
    assert (facts["n_train"], facts["n_val"], facts["n_test"]) == (N // 2, N // 4, N // 4)
    assert 1 <= facts["chosen"]["epochs"] <= 8
    assert len(facts["candidates"]) == {"bitfit": 1, "head": 2, "lora": 2, "end_to_end": 1}[mode]
    assert ("backbone_rate" in facts["chosen"]) == (mode != "head")
    assert facts["seconds"] > 0
    assert facts["peak_gb"] > 0
    kept = load_file(Adapter.file(step.folder))
    assert 0 < facts["parameters"] <= facts["parameters_of_all"]
    trained = sum(t.numel() for name, t in kept.items() if not name.endswith((".mean", ".std")))
    assert trained == facts["parameters"]
    assert {name.partition(".")[0] for name in kept} == {"head"} | ({"backbone"} if mode != "head" else set())
    assert set(found.training["phase"]) == {"search", "refit"}
    assert not (step.folder / "training").exists()


@pytest.mark.parametrize("mode", MODES)
def test_it_segments_on_the_original_grid(tmp_path, mode):
    longer = {"bitfit": {"head_rates": [0.03]}, "segment": {"epochs": 12, "batch_size": 8}}  # where all is left to it
    step, found = run(made(tmp_path, MONTGOMERY, **(longer if mode == "head" else {})), mode, MONTGOMERY)
    maps = found.maps[mode]
    assert set(maps.table["part"]) == {"val", "test"}
    pixels = artifacts.Pixels.load(step.dependency("prepare").folder)
    right = [(maps[case] == pixels.masks[int(case.removeprefix("film"))]).mean() for case in maps]
    majority = (pixels.masks == 0).mean()
    assert maps[next(iter(maps))].shape == (SIDE, SIDE)
    assert np.mean(right) > majority
    assert found.facts["protocols"][mode]["parameters"] < 500_000
    Adapter.file(step.folder)


def test_a_unet_on_a_backbone_that_is_trained_end_to_end_reads_several_of_its_layers(tmp_path):
    unet = {
        "segment": {**SETTINGS["segment"], "unet_widths": [16, 8]},
        "few_shot": {"shots": [2], "draws": 1, "steps": 2},
    }
    step, found = run(made(tmp_path / "unet", MONTGOMERY, **unet), "end_to_end", MONTGOMERY)
    _, linear = run(made(tmp_path / "linear", MONTGOMERY), "end_to_end", MONTGOMERY)
    facts, plain = (each.facts["protocols"]["end_to_end"] for each in (found, linear))
    assert facts["parameters"] > plain["parameters"]
    head = {name for name in load_file(Adapter.file(step.folder)) if name.startswith("head.")}
    assert {"head.mean0", "head.mean3", "head.enter.weight", "head.leave.bias"} <= head
    curve = found.training[found.training["phase"] == "search"].sort_values("epoch")["loss"].to_numpy()
    assert curve[-1] < curve[0]
    assert found.few_shot.scores.shape == (2, N // 4, 3, 3)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("mode", ["head", "bitfit", "lora"])
@pytest.mark.parametrize("dataset", [NIH, MONTGOMERY])
def test_what_the_mode_leaves_frozen_must_stay(tmp_path, monkeypatch, dataset, mode):
    epoch = loop._Run.epoch

    def leaking(self, *given):
        epoch(self, *given)
        self.heads[0].module.encoder.fixed["tower.model.pos_embed"].data.add_(1)

    monkeypatch.setattr(loop._Run, "epoch", leaking)
    once = {"lora": {**SETTINGS["lora"], "head_rates": [0.01]}, "classify": {"epochs": 1, "batch_size": 8}}
    s = made(tmp_path, dataset, **once, segment={"epochs": 1, "batch_size": 8})
    with pytest.raises(RadprobeError, match=r"tower\.model\.pos_embed changed while it was frozen"):
        run(s, mode, dataset)
    folder = s.step("adapt", dataset, f"test_vit+{mode}").folder
    assert not list(folder.rglob("*.json"))  # no checkpoint that the next run would go on from


@pytest.mark.parametrize("after", [2, 9])  # fits of an epoch: in the search, in the refit
@pytest.mark.parametrize("mode", ["lora", "end_to_end"])
def test_a_killed_job_goes_on_to_the_same_bytes(tmp_path, monkeypatch, mode, after):
    once = {mode: {**SETTINGS[mode], "head_rates": [0.01]}}
    step, expected = run(made(tmp_path / "a", **once), mode)
    s = made(tmp_path / "b", **once)
    epoch, done = loop._Run.epoch, []

    def dying(self, *given):
        if len(done) == after:
            raise Killed
        done.append(1)
        epoch(self, *given)

    monkeypatch.setattr(loop._Run, "epoch", dying)
    with pytest.raises(Killed):
        run(s, mode)
    monkeypatch.undo()
    again, found = run(s, mode)
    assert found.table.equals(expected.table)
    assert Adapter.file(again.folder).read_bytes() == Adapter.file(step.folder).read_bytes()


def test_test_labels_change_only_the_targets(tmp_path):
    def permuted(labels):
        tests = [i for i in range(N) if PARTS[i % 4] == "test"]
        labels[tests] = 1 - labels[tests]
        return labels

    step, expected = run(made(tmp_path / "a"), "lora")
    again, found = run(made(tmp_path / "b", labels=permuted), "lora")
    scores = [f"score:{name}" for name in CLASSES]
    assert found.table[scores].equals(expected.table[scores])
    assert not found.table["target:a"].equals(expected.table["target:a"])
    assert Adapter.file(again.folder).read_bytes() == Adapter.file(step.folder).read_bytes()


def test_an_adapter_is_a_backbone_of_its_own_that_embed_loads(tmp_path):
    s = made(tmp_path)
    step, _ = run(s, "lora")
    plain = s.step("embed", NIH, "test_vit")
    running.run(s, plain)
    content = json.loads(s.params.model_dump_json())
    path = Adapter.file(step.folder)
    own = {"mine": {"title": "Ours", "adapter": str(path.relative_to(tmp_path))}}
    s = Study({**content, "own_backbones": own, "backbones": ["mine"], "adapt": None, "controls": NO_CONTROLS})
    entry = s.backbone("mine")
    assert (entry.title, entry.family) == ("Ours", "own")
    assert entry.derived.endswith(f"adapted (lora) on {NIH}")
    running.run(s, s.step("weights", None, "test_vit"))
    weights = s.step("weights", None, "mine")
    running.run(s, weights)
    made_by_it = s.step("embed", NIH, "mine")
    running.run(s, made_by_it)
    one, other = (Embeddings.load(each.folder).tokens[:, -1].astype(float) for each in (plain, made_by_it))
    assert one.shape == other.shape
    assert np.abs(one - other).max() > 1e-3
    assert read_adapter(path)["backbone"] == "test_vit"


@pytest.mark.parametrize(("dataset", "room"), [(NIH, tuning), (MONTGOMERY, decoders)])
def test_d03_few_shot_backbones_see_the_drawn_patients_of_train_alone(tmp_path, monkeypatch, dataset, room):
    seen, fit = [], room.fit

    def watched(make, train, *rest, **how):
        seen.append(train.rows)
        return fit(make, train, *rest, **how)

    monkeypatch.setattr(room, "fit", watched)
    epoch = {"epochs": 1, "batch_size": 8}
    wanted = {"shots": [1, 8], "draws": 2, "steps": 1}
    _, found = run(made(tmp_path, dataset, few_shot=wanted, classify=epoch, segment=epoch), "bitfit", dataset)
    drawn = [np.hstack(rows) for rows in seen[-len(found.few_shot.table) :]]
    assert [len(rows) for rows in drawn] == found.few_shot.table["n_samples"].tolist()
    assert {PARTS[row % 4] for rows in drawn for row in rows} == {"train"}


@pytest.mark.parametrize(("dataset", "room"), [(NIH, tuning), (MONTGOMERY, decoders)])
def test_few_shot_fits_take_the_same_steps_whatever_the_number_of_images(tmp_path, monkeypatch, dataset, room):
    steps, fit = [], room.loop.fit

    def watched(heads, batches, losses, schedule, *rest, steps_per_epoch, **how):
        steps.append((schedule.epochs, steps_per_epoch))
        return fit(heads, batches, losses, schedule, *rest, steps_per_epoch=steps_per_epoch, **how)

    monkeypatch.setattr(room.loop, "fit", watched)
    epoch = {"epochs": 1, "batch_size": 4}
    wanted = {"shots": [1, 8], "draws": 1, "steps": 6}
    _, found = run(made(tmp_path, dataset, few_shot=wanted, classify=epoch, segment=epoch), "bitfit", dataset)
    of_draws = steps[-len(found.few_shot.table) :]
    assert len({each for _, each in of_draws}) > 1
    assert all(epochs == max(1, round(6 / each)) for epochs, each in of_draws)


@pytest.mark.parametrize("name", ["test_vit", "random:tf_efficientnet_lite0"])
@pytest.mark.parametrize(("dataset", "room"), [(NIH, tuning), (MONTGOMERY, decoders)])
def test_the_head_alone_leaves_every_tensor_of_a_backbone_bit_equal(tmp_path, monkeypatch, dataset, room, name):
    """Also the statistics of batch norms, in every fit: of candidates, on train and val, and on few patients."""
    networks, fit = [], room.fit

    def watched(make, *rest, **how):
        def kept():
            network = make()
            networks.append((network, {each: value.clone() for each, value in network.state_dict().items()}))
            return network

        return fit(kept, *rest, **how)

    monkeypatch.setattr(room, "fit", watched)
    epoch = {"epochs": 1, "batch_size": 8}
    few = {"shots": [2], "draws": 1, "steps": 2}
    s = made(tmp_path, dataset, name=name, few_shot=few, classify=epoch, segment=epoch)
    step = s.step("adapt", dataset, f"{name}+head")
    running.run(s, step.dependency("weights"))
    running.run(s, step)
    found = Predictions.load(step.folder)
    assert len(networks) == 2 + 1 + len(found.few_shot.table)
    for network, before in networks:
        after = network.state_dict()
        moved = {each for each in before if not torch.equal(before[each], after[each])}
        assert moved == {each for each, _ in network.named_parameters() if each.startswith("head.")}
    facts = found.facts["protocols"]["head"]
    assert facts["parameters"] == sum(each.numel() for each in networks[0][0].head.parameters())


def test_few_shot_draws_are_adapted_each_and_score_every_test_case(tmp_path):
    wanted = {"shots": [1, 8], "draws": 2, "steps": 8}
    _, found = run(made(tmp_path, few_shot=wanted), "bitfit")
    few = found.few_shot
    assert few.table["shots"].tolist() == [1, 1, 8, 8, 0]
    assert few.scores.shape == (5, N // 4, 2)
    targets = found.table[found.table["part"] == "test"].sort_values("sample_id")["target:a"]
    assert roc_auc_score(targets, few.scores[-1, :, 0]) > 0.7
    _, found = run(made(tmp_path / "s", MONTGOMERY, few_shot=wanted), "bitfit", MONTGOMERY)
    assert found.few_shot.scores.shape == (5, N // 4, 3, 3)


def test_volumes_are_the_mean_of_their_slices(tmp_path):
    s = made(tmp_path, classify={"epochs": 2, "batch_size": 4, "slices": 2})
    step = s.step("prepare", NIH)
    index = artifacts.Index.load(step.folder)
    parts = [PARTS[i // 4 % 4] for i in range(N)]
    index.table["volume_id"] = index.table["patient_id"] = [f"volume{i // 4:03d}" for i in range(N)]
    for name in CLASSES:
        index.table[f"label:{name}"] = np.repeat(np.arange(N // 4) // 4 % 2, 4).astype(float)
    index.save(step.place)
    split = s.step("split", NIH)
    table = index.table[["sample_id", "patient_id"]].assign(part=parts)
    artifacts.Split(table, list(CLASSES)).save(split.place)
    _, found = run(s, "lora")
    assert found.table["sample_id"].str.startswith("volume").all()
    assert found.table.groupby("part").size().to_dict() == {"val": N // 16, "test": N // 16}


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (lambda labels: np.ones_like(labels), "no class has both a positive and a negative in train"),
        (lambda labels: np.where(np.arange(N)[:, None] % 4 == 2, 0, labels), "in val"),
    ],
)
def test_a_part_of_one_class_only_stops_it_before_anything_is_trained(tmp_path, labels, why):
    with pytest.raises(RadprobeError, match=why):
        run(made(tmp_path, labels=labels), "lora")


@pytest.mark.parametrize(("dataset", "why"), [(NIH, "a negative in val"), (MONTGOMERY, "part val has no sample here")])
def test_d05_without_val_it_stops_and_chooses_nothing_on_test(tmp_path, dataset, why):
    s = made(tmp_path, dataset)
    leave_out(s, dataset, "val")
    with pytest.raises(RadprobeError, match=why):
        run(s, "bitfit", dataset)


def test_a_loss_that_is_not_finite_is_named_and_the_other_learning_rate_goes_on(tmp_path, capsys):
    wild = {"backbone_rates": [1e30], "head_rates": [1e30]}
    with pytest.raises(RadprobeError, match=r"not finite at epoch \d, step \d"):
        run(made(tmp_path / "a", end_to_end=wild), "end_to_end")
    _, found = run(
        made(tmp_path / "b", end_to_end={**wild, "backbone_rates": [1e30, 0.0001], "head_rates": [0.01]}), "end_to_end"
    )
    facts = found.facts["protocols"]["end_to_end"]
    assert [each["value"] is None for each in facts["candidates"]] == [True, False]
    assert facts["chosen"]["backbone_rate"] == 0.0001


def test_a_batch_that_does_not_fit_says_what_to_do(tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("radprobe.learning.tuning._loss", full)
    with pytest.raises(RadprobeError, match="does not fit into the memory") as error:
        run(made(tmp_path), "lora")
    assert "halve batch_size: where it adapts, double adapt.accumulate" in str(error.value)


def test_lora_of_a_cnn_leaves_the_study_loudly_and_named_layers_bring_it_back(tmp_path):
    content = {
        "study": "s",
        "paths": {"root": str(tmp_path)},
        "datasets": {NIH: {"phantom": {"patients": 1}}},
        "backbones": ["tf_efficientnet_lite0"],
        "adapt": {},
    }
    s = Study(content)
    assert [(gone.kind, gone.name) for gone in s.missing] == [("adaptation", "tf_efficientnet_lite0+lora")]
    assert {b for v, _, b in s.steps if v == "adapt"} == {f"tf_efficientnet_lite0+{m}" for m in MODES if m != "lora"}
    s = Study({**content, "adapt": {"lora": {"targets": ["conv_pw"]}}})
    assert not s.missing
    assert ("adapt", NIH, "tf_efficientnet_lite0+lora") in s.steps


def test_a_class_that_a_draw_cannot_teach_has_no_score_of_it(tmp_path):
    def without_b_in_train(labels):
        labels[[i for i in range(N) if PARTS[i % 4] == "train"], 1] = 0
        return labels

    wanted = {"shots": [2], "draws": 2, "steps": 4}
    _, found = run(made(tmp_path, labels=without_b_in_train, few_shot=wanted), "bitfit")
    assert np.isnan(found.few_shot.scores[:, :, 1]).all()
    assert not np.isnan(found.few_shot.scores[-1, :, 0]).any()  # all of train: positives and negatives
    assert np.isnan(found.few_shot.scores[0, :, 0]).all()  # two positives of class a and nothing else


@pytest.mark.parametrize("dataset", [NIH, MONTGOMERY])
def test_in_bf16_it_learns_too(tmp_path, dataset):
    _, found = run(made(tmp_path, dataset, precision="bf16"), "end_to_end", dataset)
    _, expected = run(made(tmp_path / "fp32", dataset), "end_to_end", dataset)
    value, full = (each.facts["protocols"]["end_to_end"]["value"] for each in (found, expected))
    assert value == pytest.approx(full, abs=0.1)
    if dataset == NIH:
        assert found.table["score:a"].nunique() == len(found.table)


def test_a_head_alone_is_no_backbone_of_its_own(tmp_path):
    s = made(tmp_path, classify={"epochs": 1, "batch_size": 8})
    step, _ = run(s, "head")
    content = json.loads(s.params.model_dump_json())
    own = {"mine": {"title": "Ours", "adapter": str(Adapter.file(step.folder).relative_to(tmp_path))}}
    with pytest.raises(RadprobeError, match="holds a head alone: nothing in test_vit was trained") as error:
        Study({**content, "own_backbones": own, "backbones": ["mine"], "adapt": None})
    assert "name test_vit itself in backbones" in str(error.value)


def test_an_adapter_whose_hash_is_another_is_refused(tmp_path):
    s = made(tmp_path)
    step, _ = run(s, "bitfit")
    content = json.loads(s.params.model_dump_json())
    own = {"mine": {"title": "Ours", "adapter": str(Adapter.file(step.folder)), "sha256": "0" * 64}}
    s = Study({**content, "own_backbones": own, "backbones": ["mine"], "adapt": None, "controls": NO_CONTROLS})
    running.run(s, s.step("weights", None, "test_vit"))
    with pytest.raises(RadprobeError, match="not the known 0000"):
        running.run(s, s.step("weights", None, "mine"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dataset", [NIH, MONTGOMERY])
def test_on_a_gpu_it_learns_as_on_a_cpu(tmp_path, dataset, mode):
    _, found = run(made(tmp_path / "gpu", dataset, device="cuda", precision="bf16"), mode, dataset)
    _, expected = run(made(tmp_path / "cpu", dataset), mode, dataset)
    value, full = (each.facts["protocols"][mode]["value"] for each in (found, expected))
    assert value == pytest.approx(full, abs=0.15)
    assert found.facts["device"] != "cpu"
