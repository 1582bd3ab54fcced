"""Artifacts belong to their data: no score of other images, weights or studies is taken for one's own."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from datasets.own_folders import texture
from PIL import Image
from safetensors.torch import save_file
from small_params import NO_CONTROLS

from radprobe import catalog, cli, datasets, phantoms
from radprobe.artifacts import LeakCertificate, Scores, Split
from radprobe.datasets import identity
from radprobe.models.architectures import build as architecture
from radprobe.study import Study

ROOT = Path(__file__).parents[1]
PATIENTS = 40


def films(folder: Path, seed: int) -> None:
    """Write films of patients with and without a texture, and their CSV; the seed draws pixels and labels."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    ill = rng.permutation(np.arange(PATIENTS) % 2)
    for k in range(PATIENTS):
        pixels = np.clip(texture(rng, int(ill[k]) if seed else 0, (64, 64)) / 4 + 128, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.tif")  # uncompressed: all files have one size
    table = pd.DataFrame({"path": [f"{k}.tif" for k in range(PATIENTS)], "patient": range(PATIENTS), "ill": ill})
    table.to_csv(folder / "labels.csv", index=False)


def params(root: Path, work: Path, **changes) -> dict:
    folder = {"task": "binary", "classes": ["ill"], "stored": 64, "size": 160}
    return {
        "study": root.name,
        "hub": False,
        "device": "cpu",
        "threads": 1,
        "paths": {"root": str(root), "work": str(work), "results": str(work / "results"), "reports": "reports"},
        "datasets": {"mine": {"raw": "mine", "folder": folder}},
        "backbones": ["test_vit"],
        "controls": NO_CONTROLS,
        "embed": {"precision": "fp32"},
        "probe": {"knn": None, "linear": None, "few_shot": None, "paper": False, "shuffled": 0},
        "score": {"resamples": 100},
        **changes,
    }


def made(content: dict) -> Study:
    """Make every step of a study as the command line does."""
    study = Study(content)
    for step in study.steps.values():
        cli._make_step(study, step)
    return study


def auroc(study: Study, backbone: str = "test_vit") -> float:
    table = Scores.load(study.step("score", "mine", backbone).folder).table
    chosen = table[(table["metric"] == "auroc") & (table["part"] == "test") & (table["class"] == "macro")]
    return float(chosen["value"].iloc[0])


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two roots whose folder `mine` holds other films, and the score of each alone."""
    root = tmp_path_factory.mktemp("two")
    for seed, name in enumerate(("first", "second")):
        films(root / name / "mine", seed)
    alone = [auroc(made(params(root / name, root / f"{name}-work"))) for name in ("first", "second")]
    assert alone[0] != alone[1]
    return root, alone


# --- what lies at one place never stands for what lies at another -----------------------------------------------------


@pytest.mark.survives("fault", "two studies with other data under one name in one folder", "each gets its own scores")
def test_studies_that_share_their_folders_and_name_other_data_get_their_own_scores(two):
    root, alone = two
    shared = [auroc(made(params(root / name, root / "shared"))) for name in ("first", "second", "first")]
    assert shared == [*alone, alone[0]]


def test_equal_data_at_another_place_share_what_is_made_of_them(two, capsys):
    root, alone = two
    first = made(params(root / "first", root / "moved"))
    shutil.copytree(root / "first", root / "copied", dirs_exist_ok=True)
    capsys.readouterr()
    copied = made(params(root / "copied", root / "moved"))
    assert [step.key for step in copied.steps.values()] == [step.key for step in first.steps.values()]
    assert capsys.readouterr().out.count("already made") == len(copied.steps)
    assert auroc(copied) == alone[0]


def test_one_benchmark_at_two_places_is_two_downloads(tmp_path):
    entry = catalog.datasets()["montgomery"]
    keys = []
    for seed in (0, 0, 1):
        raw = tmp_path / f"raw{len(keys)}"
        raw.mkdir()
        phantoms.generate(raw, entry, 6, seed)
        content = {"study": "s", "datasets": {"montgomery": {"raw": str(raw)}}, "backbones": ["test_vit"]}
        keys.append({step.verb: step.key for step in Study(content).steps.values()})
    assert keys[0] == keys[1]
    changed = {verb for verb in keys[0] if keys[0][verb] != keys[2][verb]}
    assert changed == set(keys[0]) - {"weights"}


@pytest.mark.parametrize("way", ["in place", "by another folder"])
def test_other_weights_under_one_name_are_not_the_first(two, tmp_path, way):
    root, _ = two
    own = {"mine": {"like": "test_vit", "title": "Mine", "file": "mine.safetensors"}}
    entry = catalog.backbones()["test_vit"]
    keys, folders = [], (tmp_path / "a", tmp_path / ("a" if way == "in place" else "b"))
    for seed, folder in enumerate(folders):
        folder.mkdir(exist_ok=True)
        torch.manual_seed(seed)
        save_file(architecture(entry).model.state_dict(), folder / "mine.safetensors")
        paths = {"root": str(root / "first"), "work": str(tmp_path / "work"), "weights": str(folder)}
        content = params(root / "first", tmp_path / "work", own_backbones=own, backbones=["mine"])
        keys.append({step.verb: step.key for step in Study(content | {"paths": paths}).steps.values()})
    same = {verb for verb in keys[0] if keys[0][verb] == keys[1][verb]}
    assert same == {"retrieve", "prepare", "split"}


# --- what was copied in, or made from something else, is told and made again ------------------------------------------


@pytest.mark.survives("fault", "an artifact copied in from another study", "set aside by name; made again")
@pytest.mark.parametrize("verb", ["split", "embed", "probe", "score"])
def test_a_folder_from_another_study_is_told_and_made_again(two, tmp_path, capsys, verb):
    root, alone = two
    other = made(params(root / "second", root / "other"))
    mine = made(params(root / "first", tmp_path / "work"))
    there, here = (study.step(verb, "mine", "test_vit" if verb != "split" else None) for study in (other, mine))
    shutil.rmtree(here.folder)
    shutil.copytree(there.folder, here.folder)
    capsys.readouterr()
    again = made(params(root / "first", tmp_path / "work"))
    said = capsys.readouterr().out
    assert f"was made by `{there.command}` with key {there.key}" in said
    assert auroc(again) == alone[0]


@pytest.mark.survives("fault", "an input that was made again with other content", "what was made from it is made again")
def test_what_was_made_from_another_input_is_made_again(two, tmp_path, capsys):
    root, _ = two
    study = made(params(root / "first", tmp_path / "work"))
    before = auroc(study)
    step = study.step("split", "mine")
    table = pd.read_csv(step.folder / "split.csv", dtype=str)
    split = Split.load(step.folder)
    swapped = table["part"].replace({"train": "test", "test": "train"})
    Split(table.assign(part=swapped), split.classes, split.facts).save(step.place)
    LeakCertificate({}, []).save(step.place)
    capsys.readouterr()
    changed = made(params(root / "first", tmp_path / "work"))
    assert "was made from another split/" in capsys.readouterr().out
    assert auroc(changed) != before


@pytest.mark.survives("fault", "an image that is overwritten after its study ended", "hashed again, with all after it")
def test_an_image_that_is_overwritten_is_noticed_at_the_command_line(tmp_path, capsys):
    films(tmp_path / "mine", 1)
    made(params(tmp_path, tmp_path / "work"))
    for k in range(0, PATIENTS, 2):  # the same sizes, other pixels
        file, other = (tmp_path / f"mine/{n}.tif" for n in (k, k + 1))
        content = file.read_bytes(), other.read_bytes()
        assert len(content[0]) == len(content[1])
        file.write_bytes(content[1])
        other.write_bytes(content[0])
    capsys.readouterr()
    after = made(params(tmp_path, tmp_path / "work"))
    assert capsys.readouterr().out.count("already made") == 1  # the weights
    assert auroc(after) == auroc(made(params(tmp_path, tmp_path / "alone")))


@pytest.mark.slow
def test_snakemake_notices_all_of_it(two, tmp_path):
    root, alone = two
    shutil.copytree(root / "first", tmp_path, dirs_exist_ok=True)
    content = params(tmp_path, tmp_path / "work")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]

    def run() -> str:
        options = {"cwd": tmp_path, "capture_output": True, "text": True}
        done = subprocess.run([*command, "--configfile", "study.yaml"], **options)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout + done.stderr

    run()
    assert auroc(Study(content)) == alone[0]
    assert "Nothing to be done" in run()
    other = made(params(root / "second", root / "other"))
    for verb in ("probe", "score"):  # copied in
        there, here = (study.step(verb, "mine", "test_vit").folder for study in (other, Study(content)))
        shutil.rmtree(here)
        shutil.copytree(there, here)
    assert "was made by `probe mine test_vit`" in run()
    assert auroc(Study(content)) == alone[0]
    study = Study(content)
    split, score = study.step("split", "mine").outputs[0], study.step("score", "mine", "test_vit").outputs[0]
    for manifest in (split, score):
        manifest.write_text('{"half')
    told = run()
    assert f"{split}: is no manifest" in told
    assert f"{score}: is no manifest" in told
    assert auroc(Study(content)) == alone[0]
    for file in (root / "second/mine").iterdir():  # all films are replaced, and the CSV
        shutil.copy(file, tmp_path / "mine")
    run()
    assert auroc(Study(content)) == alone[1]


# --- the fingerprint --------------------------------------------------------------------------------------------------


def test_the_fingerprint_knows_names_sizes_and_tables_and_no_place_or_time(tmp_path):
    entry = catalog.datasets()["nih_chestxray14"]
    phantoms.generate(tmp_path / "a", entry, 20, 0)
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)

    def of(name):
        return identity.identify(entry, datasets.locate(entry, tmp_path / name))

    first = of("a")
    assert of("b").fingerprint == first.fingerprint
    assert of("b").state != first.state
    (image, *_) = (path for path in (tmp_path / "b").rglob("*.png"))
    content = image.read_bytes()
    image.write_bytes(content + b"\0")
    longer = of("b").fingerprint
    image.write_bytes(content)
    assert of("b").fingerprint == first.fingerprint != longer
    image.rename(image.with_name("other.png"))
    assert of("b").fingerprint != first.fingerprint
    image.with_name("other.png").rename(image)
    table = tmp_path / "b/Data_Entry_2017.csv"
    table = table if table.is_file() else next((tmp_path / "b").glob("Data_Entry*"))
    table.write_text(table.read_text().replace("No Finding", "Effusion", 1))
    assert of("b").fingerprint != first.fingerprint


def test_links_that_lead_in_circles_and_hidden_files_do_not_matter(tmp_path):
    entry = catalog.datasets()["montgomery"]
    phantoms.generate(tmp_path, entry, 3, 0)
    layout = datasets.locate(entry, tmp_path)
    before = identity.identify(entry, layout).fingerprint
    (layout.folders[0] / ".DS_Store").write_bytes(b"x")
    (layout.folders[0] / "loop").symlink_to(layout.folders[0])
    assert identity.identify(entry, layout).fingerprint == before
