"""adopt: features of another key are taken over if they are those that would be computed, and only then."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import frozen
import numpy as np
import pytest
import running
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from test_identity import auroc, films, made, params

from radprobe import catalog, cli, files
from radprobe.artifacts import Embeddings, Weights
from radprobe.commands import adopt, gc
from radprobe.learning import features
from radprobe.manifests import Manifest, seal, unseal
from radprobe.models import backbones
from radprobe.models.architectures import build as architecture
from radprobe.stages import embed
from radprobe.study import VERSIONS, Step, Study

OLD = "0123456789ab"
OWN = {"own": {"like": "test_vit", "title": "Own", "file": "own.safetensors"}}


def content(root: Path, **changes) -> dict:
    """The params of a small study: a random backbone and one with weights in a file; several shards, one view."""
    found = params(root, root / "work", backbones=["test_vit", "own"], own_backbones=OWN, **changes)
    found["embed"] = {"precision": "fp32", "shard_rows": 16, "views": 1} | changes.get("embed", {})
    found["paths"]["weights"] = str(root)
    return found


def write_weights(root: Path, seed: int) -> None:
    torch.manual_seed(seed)
    save_file(architecture(catalog.backbones()["test_vit"]).model.state_dict(), root / "own.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a study that is made, to copy."""
    root = tmp_path_factory.mktemp("finished")
    films(root / "mine", 0)
    write_weights(root, 0)
    made(content(root))
    return root


@pytest.fixture
def root(finished, tmp_path):
    """A copy of the finished study, to change."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


def step_of(root: Path, backbone: str = "test_vit", **changes) -> Step:
    return Study(content(root, **changes)).step("embed", "mine", backbone)


def under_old_key(step: Step, spec: bool = True) -> Path:
    """Move the features of a step to the key OLD, as a version that gave it this key wrote them; return the folder.

    spec: as version fb0ac23, whose manifests have the key as `spec` and neither origin nor content.
    """
    prepared, weights = step.dependency("prepare").folder, Weights.load(step.dependency("weights").folder)
    images = Manifest.read(prepared / "pixels.json").files["images.npy"]["sha256"]
    old = step.folder.rename(step.folder.with_name(OLD))
    manifest = json.loads((old / "embeddings.json").read_text())
    facts = manifest["facts"]
    store = features.Store(old, facts["shard_rows"], [OLD, images, weights.sha256], 0)
    for name, rows in store.shards(facts["n"] * (1 + facts["views"])):
        record = json.loads((old / f"{name}.json").read_text())
        files.write_json(old / f"{name}.json", record | {"key": store.key(rows)})
    if spec:
        manifest = {name: manifest[name] for name in ("kind", "facts", "files", "made", "radprobe")} | {"spec": OLD}
    reseal(old, manifest if spec else manifest | {"key": OLD})
    return old


def reseal(folder: Path, manifest: dict) -> None:
    """Write a manifest with its own digest."""
    manifest["check"] = files.digest({**manifest, "check": ""})
    files.write_json(folder / "embeddings.json", manifest)
    files.keep_twin(folder / "embeddings.json")


def run(study: Study, answer: bool = True) -> None:
    adopt.run(study, lambda question: answer, nullcontext)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def arrays(folder: Path) -> dict[str, bytes]:
    return {name: each for name, each in snapshot(folder).items() if name.endswith(".npy")}


# --- the same features ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [True, False])
def test_features_of_an_older_key_are_adopted_and_score_the_same(root, monkeypatch, capsys, spec):
    scores = {name: auroc(Study(content(root)), name) for name in ("test_vit", "own")}
    old = [under_old_key(step_of(root, name), spec) for name in scores]
    computed = [arrays(folder) for folder in old]
    monkeypatch.setattr(embed.features, "encode", None)  # nothing is embedded from here on
    run(Study(content(root)))
    said = capsys.readouterr().out
    assert said.count("can be adopted (16 images differ by 0 at most)") == 2
    assert "everything is made" in said  # the keys of probe and score are those of the steps
    assert [folder.exists() for folder in old] == [not spec] * 2
    for name, expected in zip(scores, computed, strict=True):
        step = step_of(root, name)
        assert arrays(step.folder) == expected
        manifest = unseal(step.folder, "embeddings")
        assert (manifest.key, manifest.of) == (step.key, f"embed mine {name}")
        assert manifest.facts["adopted"] == {"key": OLD, "images": 16, "difference": 0.0}
        assert files.twin(step.outputs[0]).read_bytes() == step.outputs[0].read_bytes()
        sources = [need.stat().st_mtime for each in step.dependencies for need in each.outputs]
        assert step.outputs[0].stat().st_mtime >= max(sources)
    shutil.rmtree(root / "work/results")
    again = made(content(root))
    assert {name: auroc(again, name) for name in scores} == scores
    capsys.readouterr()
    run(Study(content(root)))
    assert capsys.readouterr().out == "there is nothing to adopt\neverything is made\n"


def test_a_new_version_of_the_verb_adopts_and_the_study_of_the_old_one_keeps_its_own(root, monkeypatch, capsys):
    old = step_of(root)
    score = auroc(Study(content(root)))
    before = snapshot(old.folder)
    monkeypatch.setitem(VERSIONS, "embed", VERSIONS["embed"] + 1)
    run(Study(content(root)))
    assert "still to be made: 2 probe, 2 score, 1 compare" in capsys.readouterr().out
    new = step_of(root)
    assert new.done
    assert new.key != old.key
    assert {name: each for name, each in snapshot(old.folder).items() if name != "lock"} == {
        name: each for name, each in before.items() if name != "lock"
    }
    assert old.folder.resolve() in {one.folder for one in gc.unneeded([Study(content(root))])}
    monkeypatch.setattr(embed.features, "encode", None)
    assert auroc(made(content(root))) == score


def test_what_was_adopted_is_adopted_again(root, monkeypatch, capsys):
    for _ in range(2):
        monkeypatch.setitem(VERSIONS, "embed", VERSIONS["embed"] + 1)
        run(Study(content(root)))
    assert step_of(root).done
    assert "is refused" not in capsys.readouterr().out


@pytest.mark.parametrize("batch", [5, 32])
def test_another_batch_size_is_no_other_recipe(root, capsys, batch):
    changed = {"embed": {"precision": "bf16"}}
    made(content(root, **changed))
    under_old_key(step_of(root, **changed))
    changed["embed"]["batch_size"] = batch
    run(Study(content(root, **changed)))
    assert step_of(root, **changed).done
    assert "can be adopted" in capsys.readouterr().out


@pytest.mark.parametrize("max_gb", [1, 1e-9])
def test_dense_maps_are_adopted_stored_or_not(tmp_path, capsys, max_gb):
    study = frozen.study(tmp_path, "montgomery", embed={"shard_rows": 4, "views": 1, "max_dense_cache_gb": max_gb})
    images = frozen.films(10, 64)
    frozen.prepare(study, "montgomery", images, masks=np.zeros_like(images), classes=("a",))
    step = study.step("embed", "montgomery", "test_vit")
    running.run(study, step)
    before = arrays(step.folder)
    assert any("dense" in name for name in before) == (max_gb == 1)
    under_old_key(step)
    run(study)
    assert "(10 images differ by 0 at most)" in capsys.readouterr().out
    assert arrays(step.folder) == before
    Embeddings.load(step.folder)


# --- other features ---------------------------------------------------------------------------------------------------


def refused(root: Path, capsys, why: str, backbone: str = "test_vit", **changes) -> None:
    """Check that the features under OLD are refused with this reason, and left as they are."""
    study = Study(content(root, **changes))
    for step in study.steps.values():
        if step.verb in ("retrieve", "prepare", "weights"):
            cli._make_step(study, step)
    step = study.step("embed", "mine", backbone)
    old = step.folder.with_name(OLD)
    before = snapshot(old)
    capsys.readouterr()
    run(study)
    said = capsys.readouterr().out
    assert f"embed mine {backbone}: {old} is refused: " in said
    assert why in said
    assert f"still to be made: `embed mine {backbone}`" in said
    assert snapshot(old) == before
    assert not step.done


@pytest.mark.parametrize("n", [1, 40])
def test_features_of_other_images_are_refused(root, capsys, n):
    under_old_key(step_of(root))
    for k in range(n):
        file = root / f"mine/{k}.tif"
        pixels = np.asarray(Image.open(file)).copy()
        pixels[0, 0] ^= 1
        Image.fromarray(pixels).save(file)
    (root / "mine/labels.csv").write_text((root / "mine/labels.csv").read_text() + "\n")  # another fingerprint
    refused(root, capsys, "made from other images or weights")


def test_features_of_other_weights_are_refused(root, capsys):
    under_old_key(step_of(root, "own"))
    write_weights(root, 1)
    shutil.rmtree(root / "work/weights")
    refused(root, capsys, "made from other images or weights", "own")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"embed": {"precision": "bf16"}}, "precision is fp32, and would be bf16"),
        ({"embed": {"views": 2}}, "views is 1, and would be 2"),
        ({"embed": {"blocks": 2}}, "blocks is 4, and would be 2"),
        ({"seed": 7}, "seed is 0, and would be 7"),
    ],
)
def test_features_of_another_recipe_are_refused(root, capsys, changes, why):
    under_old_key(step_of(root))
    refused(root, capsys, why, **changes)


def test_features_of_images_at_another_size_are_refused(root, capsys):
    under_old_key(step_of(root))
    folder = {"task": "binary", "classes": ["ill"], "stored": 64, "size": 96}
    refused(root, capsys, "size is 160, and would be 96", datasets={"mine": {"raw": "mine", "folder": folder}})


def change_facts(old: Path) -> None:
    manifest = json.loads((old / "embeddings.json").read_text())
    manifest["facts"]["dtype"] = "float32"
    reseal(old, manifest)


def store_another_type(old: Path) -> None:
    """Store whole arrays as float32 under facts that say float16."""
    manifest, record = (json.loads((old / name).read_text()) for name in ("embeddings.json", "00000.json"))
    file = old / "00000.cls.npy"
    np.save(file, np.load(file).astype(np.float32))
    record["files"][file.name] = files.sha256(file)
    manifest["files"][file.name] = {"bytes": file.stat().st_size, "sha256": files.sha256(file)}
    files.write_json(old / "00000.json", record)
    reseal(old, manifest)


def store_the_rows_of_others(old: Path) -> None:
    """Give each image the features of the next one."""
    manifest, record = (json.loads((old / name).read_text()) for name in ("embeddings.json", "00001.json"))
    file = old / "00001.cls.npy"
    np.save(file, np.roll(np.load(file), 1, axis=0))
    record["files"][file.name] = files.sha256(file)
    manifest["files"][file.name]["sha256"] = files.sha256(file)
    files.write_json(old / "00001.json", record)
    reseal(old, manifest)


def flip(old: Path) -> None:
    array = bytearray((old / "00001.cls.npy").read_bytes())
    array[-1] ^= 1
    (old / "00001.cls.npy").write_bytes(array)


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (change_facts, "dtype is float32, and would be float16"),
        (store_another_type, "arrays are of other kinds, shapes or types"),
        (store_the_rows_of_others, "features of 16 images, encoded again, differ by"),
        (flip, "00001.cls.npy is missing or damaged (1 of 10 files)"),
        (lambda old: (old / "00004.patch_mean.npy").unlink(), "00004.patch_mean.npy is missing or damaged"),
        (lambda old: (old / "00002.json").unlink(), "00002.json, which says what the shard was made from, is missing"),
        (lambda old: (old / "00002.json").write_text("[]"), "00002.json, which says what the shard was made from"),
    ],
)
def test_damaged_features_are_refused(root, capsys, harm, why):
    harm(under_old_key(step_of(root)))
    refused(root, capsys, why)


def test_files_that_no_record_lists_are_refused(root, capsys):
    old = under_old_key(step_of(root))
    manifest = json.loads((old / "embeddings.json").read_text())
    shutil.copy(old / "00001.cls.npy", old / "00009.cls.npy")
    manifest["files"]["00009.cls.npy"] = manifest["files"]["00001.cls.npy"]
    reseal(old, manifest)
    refused(root, capsys, "list other files than its manifest")


def test_code_that_gives_other_features_is_noticed(root, capsys, monkeypatch):
    under_old_key(step_of(root))
    mean = torch.Tensor.mean
    monkeypatch.setattr(backbones, "_mean", lambda layer: mean(layer.map.float(), (2, 3)) * 1.01)
    refused(root, capsys, "differ by 0.01 (at most 0.001); made on cpu in batches of 20, compared on cpu")


def test_what_it_is_compared_by_comes_first(root, capsys):
    old = under_old_key(step_of(root))
    shutil.rmtree(step_of(root).dependency("prepare").folder)
    run(Study(content(root)))
    said = capsys.readouterr().out
    assert "1 folder(s) of other keys cannot be compared: run `radprobe prepare mine` first" in said
    assert "`embed mine test_vit`" in said
    unseal(old, "embeddings")


def test_damaged_pixels_are_no_comparison(root, capsys):
    old = under_old_key(step_of(root))
    images = step_of(root).dependency("prepare").folder / "images.npy"
    images.write_bytes(images.read_bytes()[:-1])
    run(Study(content(root)))
    assert "1 folder(s) of other keys cannot be compared: " in (said := capsys.readouterr().out)
    assert "images.npy: is missing or does not match its manifest" in said
    unseal(old, "embeddings")


# --- kills, and answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["link_or_copy", "write_json", "seal", "keep_twin", "remove"])
def test_a_kill_loses_nothing(root, monkeypatch, capsys, at):
    old = under_old_key(step_of(root))
    computed = arrays(old)
    place, function = {"seal": (adopt, seal), "remove": (gc, gc.remove)}.get(at, (files, getattr(files, at, None)))
    calls = []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == (1 if at in ("seal", "keep_twin", "remove") else 3):
            raise KeyboardInterrupt
        return function(*arguments)

    monkeypatch.setattr(place, at, killed)
    with pytest.raises(KeyboardInterrupt):
        run(Study(content(root)))
    monkeypatch.setattr(place, at, function)
    assert arrays(old) == computed
    assert unseal(old, "embeddings").key == OLD
    assert step_of(root).done == (at in ("keep_twin", "remove"))
    run(Study(content(root)))
    assert arrays(step_of(root).folder) == computed
    Embeddings.load(step_of(root).folder)
    assert not list((root / "work").rglob(f"*{files.TEMPORARY}"))


def test_a_file_system_without_hard_links_gets_copies(root, monkeypatch):
    old = under_old_key(step_of(root))
    computed = arrays(old)
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    run(Study(content(root)))
    assert arrays(step_of(root).folder) == computed


def test_what_changes_before_the_answer_is_left(root, capsys):
    old = under_old_key(step_of(root))

    def confirmed(question):
        change_facts(old)
        return True

    adopt.run(Study(content(root)), confirmed, nullcontext)
    assert "not adopted, as another run has made it or changed" in capsys.readouterr().out
    assert not step_of(root).done


def test_as_it_is_typed(root):
    old = under_old_key(step_of(root))
    file = root / "study.yaml"
    file.write_text(yaml.safe_dump(content(root)))
    call = [sys.executable, "-m", "radprobe", "adopt", "--params", str(file)]
    asked = subprocess.run(call, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert asked.returncode == 0, asked.stderr
    assert f"embed mine test_vit: {old} can be adopted" in asked.stdout
    assert "nothing was adopted" in asked.stdout
    assert old.is_dir()
    adopted = subprocess.run([*call, "--yes"], capture_output=True, text=True)
    assert "everything is made" in adopted.stdout, adopted.stderr
    assert step_of(root).done
    assert not old.exists()
