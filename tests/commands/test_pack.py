import json
import os
import shutil
import subprocess

import pytest
import torch
import yaml
from safetensors.torch import save_file

from radprobe import catalog, cli, files
from radprobe.artifacts import Weights
from radprobe.commands.pack import run
from radprobe.files import RadprobeError
from radprobe.models import architectures
from radprobe.models.weights import read
from radprobe.study import Study

EFFICIENTNET = catalog.backbones()["tf_efficientnet_lite0"]
needs_package = pytest.mark.skipif(
    catalog.package_folder(EFFICIENTNET.package) is None, reason=f"{EFFICIENTNET.package.name} is not installed"
)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("RADPROBE_WEIGHTS", raising=False)


def state(seed=0):
    torch.manual_seed(seed)
    return architectures.build(catalog.backbones()["test_vit"]).model.state_dict()


def save(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state(seed), path) if path.suffix == ".safetensors" else torch.save(state(seed), path)
    return path


def own(file, **changes):
    return {"like": "test_vit", "title": "mine", "file": str(file), **changes}


def write_params(root, owns, backbones=None, **changes):
    content = {"study": "s", "threads": 1, "paths": {"root": str(root)}, "own_backbones": owns}
    content |= {"datasets": {"montgomery": {}}, "backbones": backbones or list(owns), **changes}
    root.mkdir(exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(content))
    return root / "params.yaml"


def pack(params, folder):
    cli.app(["pack", str(folder), "--params", str(params)], standalone_mode=False)


def record(folder):
    return json.loads((folder / "weights.json").read_text())["files"]


def snapshot(folder):
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*.safetensors")}


@pytest.fixture
def tiny_in_catalog(monkeypatch):
    """Add a backbone `tiny` with changes to the catalog."""

    def add(name="tiny", **changes):
        entry = catalog.backbones()["test_vit"].model_copy(update={"id": name, "random": False, **changes})
        known = {**catalog.backbones(), name: entry}
        monkeypatch.setattr(catalog, "backbones", lambda: known)

    return add


def test_a_study_on_another_machine_finds_all_that_was_packed(tmp_path, monkeypatch):
    elsewhere = save(tmp_path / "runs/best.safetensors", 1)
    weights = tmp_path / "here/data/weights"
    save(weights / "plain.safetensors", 2)
    save(weights / "sub/pickled.pth", 3)
    owns = {"plain": own("plain.safetensors"), "pickled": own("sub/pickled.pth"), "absolute": own(elsewhere)}
    folder = tmp_path / "packed"
    pack(write_params(tmp_path / "here", owns, [*owns, "test_vit"]), folder)
    assert set(record(folder)) == {"plain.safetensors", "sub/pickled.pth", "best.safetensors"}
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": OK") == 3

    moved = shutil.copytree(folder, tmp_path / "cluster")
    for gone in (folder, elsewhere.parent, weights):
        shutil.rmtree(gone)
    monkeypatch.setenv("RADPROBE_WEIGHTS", str(moved))
    there = write_params(tmp_path / "there", owns | {"absolute": own("best.safetensors")}, [*owns, "test_vit"])
    study = Study(there)
    assert [one for one in study.missing if one.kind == "backbone"] == []
    for name, seed in (("absolute", 1), ("plain", 2), ("pickled", 3)):
        cli.app(["weights", name, "--params", str(there)], standalone_mode=False)
        found = Weights.load(study.step("weights", None, name).folder)
        assert found.source == "local"
        tensors = read(found.file, study.backbone(name))
        assert all(torch.equal(tensor, tensors[key]) for key, tensor in state(seed).items())


@needs_package
def test_weights_of_a_package_are_packed_as_a_file_that_needs_no_package(tmp_path, monkeypatch):
    name, folder = "tf_efficientnet_lite0", tmp_path / "packed"
    pack(write_params(tmp_path / "here", {}, [name]), folder)
    (file,) = folder.glob("*.safetensors")
    fact = record(folder)[file.name]
    assert file.name in EFFICIENTNET.local
    assert fact["source"] == f"package:{EFFICIENTNET.package.name}=={EFFICIENTNET.package.version}"
    assert fact["sha256_of_original"] == EFFICIENTNET.package.sha256
    assert (fact["sha256"], fact["bytes"]) == (files.sha256(file), file.stat().st_size)
    assert (fact["licence"], fact["backbones"], fact["revision"]) == (EFFICIENTNET.licence, [name], None)
    monkeypatch.setattr("radprobe.study.package_folder", lambda package: None)
    monkeypatch.setattr(catalog, "package_folder", lambda package: None)
    there = write_params(tmp_path / "there", {}, [name])
    assert name in [one.name for one in Study(there).missing]
    monkeypatch.setenv("RADPROBE_WEIGHTS", str(folder))
    assert name not in [one.name for one in Study(there).missing]
    cli.app(["weights", name, "--params", str(there)], standalone_mode=False)


def test_a_second_call_copies_nothing_and_mends_a_damaged_file(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", refuse)  # a damaged copy must not damage what it is a copy of
    for name in "ab":
        save(tmp_path / f"here/data/weights/{name}.safetensors", ord(name))
    params = write_params(tmp_path / "here", {name: own(f"{name}.safetensors") for name in "ab"})
    folder = tmp_path / "packed"
    pack(params, folder)
    first, sums = snapshot(folder), (folder / "SHA256SUMS").read_bytes()
    pack(params, folder)
    assert snapshot(folder) == first
    (folder / "a.safetensors").write_bytes(b"damaged")
    (folder / "a.safetensors.1.partial").write_bytes(b"of a kill")
    pack(params, folder)
    assert snapshot(folder)["b.safetensors"] == first["b.safetensors"]
    assert files.sha256(folder / "a.safetensors") == files.sha256(tmp_path / "here/data/weights/a.safetensors")
    assert (folder / "SHA256SUMS").read_bytes() == sums
    assert not list(folder.glob("*.partial"))


def refuse(*_):
    raise OSError(18, "Invalid cross-device link")


def test_on_one_file_system_a_file_takes_no_room_twice(tmp_path):
    file = save(tmp_path / "real/best.safetensors")
    link = tmp_path / "here/data/weights/best.safetensors"
    link.parent.mkdir(parents=True)
    link.symlink_to(file)  # the file is linked, and not the way to it
    pack(write_params(tmp_path / "here", {"mine": own("best.safetensors")}), tmp_path / "packed")
    packed = tmp_path / "packed/best.safetensors"
    assert packed.samefile(file)
    assert not packed.is_symlink()


def test_what_is_missing_or_damaged_is_said_after_the_rest_is_packed(tmp_path, capsys):
    weights = tmp_path / "here/data/weights"
    save(weights / "good.safetensors")
    save(weights / "cut.safetensors").write_bytes(b"cut")
    owns = {"cut": own("cut.safetensors"), "good": own("good.safetensors")}
    params = write_params(tmp_path / "here", owns, ["mae_large@paper", *owns], on_missing="fail")
    with pytest.raises(RadprobeError, match="lacks the weights of mae_large, cut"):
        pack(params, tmp_path / "packed")
    assert set(record(tmp_path / "packed")) == {"good.safetensors"}
    printed = capsys.readouterr().out
    for words in (*catalog.backbones()["mae_large"].local, "timm/vit_large_patch16_224.mae", "no complete safetensors"):
        assert words in printed
    assert "HF_HUB_OFFLINE=1 runs the study" not in printed


def test_size_licences_and_the_line_to_change_are_said(tmp_path, capsys):
    owns = {
        "free": own(save(tmp_path / "free.safetensors"), licence="MIT"),
        "closed": own(save(tmp_path / "closed.safetensors", 1), licence="CC BY-NC 4.0"),
    }
    pack(write_params(tmp_path / "here", owns), tmp_path / "packed")
    printed = capsys.readouterr().out
    total = sum(fact["bytes"] for fact in record(tmp_path / "packed").values())
    assert f"2 file(s), {total / 1e6:.1f} MB" in printed
    assert "own_backbones.closed.file: closed.safetensors" in printed
    assert "licence of closed.safetensors restricts use: CC BY-NC 4.0" in printed
    assert "licence of free" not in printed


def test_gated_weights_are_listed_as_such(tmp_path, capsys, tiny_in_catalog):
    tiny_in_catalog(local=["tiny.safetensors"], gated=True)
    save(tmp_path / "here/data/weights/tiny.safetensors")
    pack(write_params(tmp_path / "here", {}, ["tiny"]), tmp_path / "packed")
    assert "licence of tiny.safetensors restricts use" in capsys.readouterr().out


@pytest.mark.parametrize("known", [True, False])
def test_a_checkpoint_whose_hash_is_known_is_packed_as_it_is_else_converted(tmp_path, tiny_in_catalog, known):
    original = save(tmp_path / "here/data/weights/tiny.bin")
    sha256 = files.sha256(original) if known else None
    tiny_in_catalog(local=["tiny.safetensors", "tiny.bin"], sha256=sha256, revision="f" * 40)
    pack(write_params(tmp_path / "here", {}, ["tiny"]), tmp_path / "packed")
    ((name, fact),) = record(tmp_path / "packed").items()
    assert name == ("tiny.bin" if known else "tiny.safetensors")
    assert fact.get("sha256_of_original") == (None if known else files.sha256(original))
    assert fact["revision"] == ("f" * 40 if known else None)  # which commit a file is of is known by its hash


@needs_package
def test_a_conversion_that_the_hash_of_the_catalog_would_refuse_is_not_packed(tmp_path, monkeypatch):
    entry = EFFICIENTNET.model_copy(update={"sha256": "0" * 64})
    known = {**catalog.backbones(), entry.id: entry}
    monkeypatch.setattr(catalog, "backbones", lambda: known)
    with pytest.raises(RadprobeError, match="lacks the weights of tf_efficientnet_lite0"):
        pack(write_params(tmp_path / "here", {}, [entry.id]), tmp_path / "packed")
    assert record(tmp_path / "packed") == {}


def test_backbones_that_share_a_file_share_it_in_the_folder(tmp_path, tiny_in_catalog):
    tiny_in_catalog(local=["tiny.safetensors"])
    tiny_in_catalog("tiny_resized", local=["tiny.safetensors"])
    save(tmp_path / "here/data/weights/tiny.safetensors")
    pack(write_params(tmp_path / "here", {}, ["tiny", "tiny_resized"]), tmp_path / "packed")
    assert record(tmp_path / "packed")["tiny.safetensors"]["backbones"] == ["tiny", "tiny_resized"]


def test_two_files_of_one_name_are_not_confused(tmp_path, capsys):
    owns = {name: own(save(tmp_path / name / "best.safetensors", seed)) for seed, name in enumerate("ab")}
    with pytest.raises(RadprobeError, match="lacks the weights of b"):
        pack(write_params(tmp_path / "here", owns), tmp_path / "packed")
    assert "give one of the files another name" in capsys.readouterr().out
    assert record(tmp_path / "packed")["best.safetensors"]["sha256"] == files.sha256(tmp_path / "a/best.safetensors")


def test_a_folder_serves_several_studies_and_keeps_what_is_not_its_own(tmp_path, capsys):
    folder = tmp_path / "packed"
    for name in "ab":
        save(tmp_path / f"{name}/data/weights/{name}.safetensors", ord(name))
        pack(write_params(tmp_path / name, {name: own(f"{name}.safetensors")}), folder)
    assert set(record(folder)) == {"a.safetensors", "b.safetensors"}
    theirs = folder / "c.safetensors"
    theirs.write_bytes(b"of somebody else")
    save(tmp_path / "c/data/weights/c.safetensors")
    with pytest.raises(RadprobeError, match="lacks the weights of c"):
        pack(write_params(tmp_path / "c", {"c": own("c.safetensors")}), folder)
    assert theirs.read_bytes() == b"of somebody else"
    assert "move it elsewhere" in capsys.readouterr().out
    (folder / "weights.json").write_text("{")
    with pytest.raises(RadprobeError, match="not what this command writes"):
        pack(tmp_path / "a/params.yaml", folder)


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_done(tmp_path, capsys):
    (tmp_path / "packed").touch()
    with pytest.raises(RadprobeError, match="packed: cannot be written"):
        pack(write_params(tmp_path / "here", {}, ["mae_large"]), tmp_path / "packed")
    assert capsys.readouterr().out == ""


def test_a_full_disk_is_named_and_leaves_no_half_file(tmp_path, monkeypatch, capsys):
    copy, packed = shutil.copyfile, tmp_path / "packed"

    def full(source, target, **how):
        if packed not in target.parents:
            return copy(source, target, **how)
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(shutil, "copyfile", full)
    save(tmp_path / "here/data/weights/a.safetensors")
    with pytest.raises(RadprobeError, match="lacks the weights of a"):
        pack(write_params(tmp_path / "here", {"a": own("a.safetensors")}), tmp_path / "packed")
    assert "No space left on device" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "packed").iterdir()} == {".lock", "SHA256SUMS", "weights.json"}


@pytest.mark.parametrize("known", [True, False])
def test_what_came_from_the_hub_is_packed_under_a_name_that_is_looked_for(
    tmp_path, tiny_in_catalog, monkeypatch, known
):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    fetched = save(tmp_path / "here/hub.bin")
    sha256 = files.sha256(fetched)
    changes = {"repo": "some/repo", "filename": "pytorch_model.bin", "sha256": sha256 if known else None}
    tiny_in_catalog(local=["tiny.safetensors", "tiny.bin"], **changes)
    study, commit = Study(write_params(tmp_path / "here", {}, ["tiny"])), "c" * 40

    def make(step):  # as `retrieve` leaves a step after a download
        file = save(step.folder / "weights.safetensors")
        shutil.copy(fetched, step.folder / "hub.bin")
        facts = {"converted_from": "hub.bin", "sha256_of_original": sha256, "sha256_known": known}
        Weights(file, files.sha256(file), f"hub:some/repo@{commit}", facts).save(step.place)

    run(study, tmp_path / "packed", make)
    ((name, fact),) = record(tmp_path / "packed").items()
    assert name == ("tiny.bin" if known else "tiny.safetensors")
    assert fact["sha256"] == files.sha256(tmp_path / "packed" / name)
    assert fact["revision"] == commit


def test_an_original_that_changed_since_it_was_verified_is_not_packed(tmp_path, capsys):
    file = save(tmp_path / "here/data/weights/mine.pth")
    params = write_params(tmp_path / "here", {"mine": own("mine.pth")})
    cli.app(["weights", "mine", "--params", str(params)], standalone_mode=False)
    save(file, 1)
    with pytest.raises(RadprobeError, match="lacks the weights of mine"):
        pack(params, tmp_path / "packed")
    assert "when first used: other weights under the same name" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "packed/mine.pth").exists()
