"""Rows from elsewhere in the graph: ids, missing files, what a change re-runs; plan, doctor, gc and Snakemake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from small_params import NO_CONTROLS

from radprobe import files
from radprobe.artifacts import Truth
from radprobe.checks import external as checks
from radprobe.commands import gc, plan, retrieved
from radprobe.files import RadprobeError
from radprobe.study import Study

ROOT = Path(__file__).parents[1]
LUNGS, FILMS = "montgomery", "nih_chestxray14"
RESULTS = ("results", "results_kept")  # stages of DVC
PLANNED = "Reading nnunet's predictions of montgomery"  # what Snakemake says of the job


def study(root: Path, rows: dict, dataset: str = FILMS, **changes) -> Study:
    datasets = {name: {"phantom": {"patients": 9}} for name in (LUNGS, FILMS)}
    datasets[dataset]["predictions"] = rows
    content = {"study": "s", "hub": False, "datasets": datasets, "backbones": ["test_vit"], "controls": NO_CONTROLS}
    return Study({**content, "paths": {"root": str(root)}, **changes})


def table(root: Path, value: float = 0.5, name: str = "reader.csv") -> str:
    classes = Study({"study": "s", "datasets": {FILMS: {}}, "backbones": ["test_vit"]}).dataset(FILMS).classes
    row = ",".join(["a.png", *[str(value)] * len(classes)])
    (root / name).write_text(f"sample_id,{','.join(classes)}\n{row}\n")
    return name


def keys(made: Study) -> dict:
    return {key: step.key for key, step in made.steps.items()}


# --- ids --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ["test_vit", "Test_ViT", "pixels", "metadata", "Ceiling", "unet", "mine"])
def test_an_id_that_is_taken_is_refused_whatever_its_case(tmp_path, row):
    own = {"Mine": {"like": "test_vit", "title": "Mine", "file": "mine.safetensors"}}
    with pytest.raises(RadprobeError, match="the id is taken by"):
        study(tmp_path, {row: table(tmp_path)}, own_backbones=own)


def test_two_rows_cannot_have_one_id_in_two_datasets(tmp_path):
    datasets = {FILMS: {"predictions": {"reader": "a.csv"}}, LUNGS: {"predictions": {"Reader": "maps"}}}
    with pytest.raises(RadprobeError, match=r"montgomery\.predictions\.Reader: the id is taken by 'reader'"):
        study(tmp_path, {}, datasets=datasets)


def test_a_row_is_not_named_among_the_backbones(tmp_path):
    with pytest.raises(RadprobeError, match="'reader' names predictions of nih_chestxray14"):
        study(tmp_path, {"reader": table(tmp_path)}, backbones=["test_vit", "reader"])


def test_a_dataset_without_labels_has_no_predictions(tmp_path):
    with pytest.raises(RadprobeError, match="has no labels"):
        study(tmp_path, {}, datasets={"mni152": {"predictions": {"reader": "a.csv"}}})


# --- steps ------------------------------------------------------------------------------------------------------------


def test_a_row_is_scored_and_compared_on_its_dataset_alone(tmp_path):
    made = study(tmp_path, {"reader": table(tmp_path)})
    of_row = {key for key in made.steps if key[2] == "reader"}
    assert of_row == {("external", FILMS, "reader"), ("score", FILMS, "reader")}
    assert made.step("external", FILMS, "reader") in made.step("compare", FILMS).dependencies
    assert {need.verb for need in made.step("external", FILMS, "reader").dependencies} == {"prepare", "split"}
    entry = made.backbone("reader")
    assert (entry.title, entry.family) == ("reader", "external")
    assert not [key for key in made.steps if key[0] == "weights" and key[2] == "reader"]


def test_content_and_scale_reach_what_depends_on_them_and_nothing_else_does(tmp_path):
    before = keys(study(tmp_path, {"reader": table(tmp_path)}))

    def changed(row):
        after = keys(study(tmp_path, {"reader": row}))
        return {key for key in before if before[key] != after[key]}

    reached = {("external", FILMS, "reader"), ("score", FILMS, "reader"), ("compare", FILMS, None)}
    assert changed({"file": "reader.csv", "title": "A reader", "notes": "ten years"}) == set()
    assert changed({"file": "reader.csv", "scale": "score"}) == reached
    os.utime(tmp_path / "reader.csv", (1, 1))
    assert changed("reader.csv") == set()
    assert changed(table(tmp_path, name="moved.csv")) == set()
    assert changed(table(tmp_path, 0.25, "edited.csv")) == reached


def test_a_row_alone_changes_no_other_step_but_the_comparison(tmp_path):
    before, after = keys(study(tmp_path, {})), keys(study(tmp_path, {"reader": table(tmp_path)}))
    assert {key for key in before if before[key] != after[key]} == {("compare", FILMS, None)}


def test_a_dataset_is_scored_though_nothing_here_segments_it(tmp_path):
    (tmp_path / "maps").mkdir()
    nothing = {"linear": None, "unet": None, "scratch": None}
    alone = {"datasets": {LUNGS: {"phantom": {"patients": 9}, "predictions": {"nnunet": "maps"}}}, "segment": nothing}
    assert {one.name for one in study(tmp_path, {}, **alone).missing} == {LUNGS, "nnunet"}
    (tmp_path / "maps/a.png").touch()
    assert not study(tmp_path, {}, **alone).missing


# --- a file that is absent --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dataset", "file"), [(FILMS, "gone.csv"), (LUNGS, "gone"), (LUNGS, "empty")])
def test_an_absent_file_leaves_its_row_out_with_the_remedy(tmp_path, dataset, file):
    (tmp_path / "empty").mkdir()
    made = study(tmp_path, {"reader": file}, dataset)
    (missing,) = made.missing
    assert (missing.kind, missing.name) == ("predictions", "reader")
    assert str(tmp_path / file) in missing.why
    assert f"datasets.{dataset}.predictions.reader" in missing.remedy
    assert not [key for key in made.steps if key[2] == "reader"]
    assert made.step("compare", dataset)
    with pytest.raises(RadprobeError, match=r"gone|empty"):
        _ = study(tmp_path, {"reader": file}, dataset, on_missing="fail").steps
    with pytest.raises(RadprobeError, match="put it there"):
        made.step("external", dataset, "reader")


def test_plan_counts_an_absent_row_and_says_what_it_needs(tmp_path, capsys):
    plan.run(study(tmp_path, {"reader": "gone.csv"}))
    said = capsys.readouterr().out
    assert "3 cells (dataset x backbone), 2 can run here" in said
    assert "missing: predictions reader" in said


def test_gc_refuses_to_guess_what_an_absent_file_needs(tmp_path):
    with pytest.raises(RadprobeError, match="what they need is not known"):
        list(gc.unneeded([study(tmp_path, {"reader": "gone.csv"})]))


def test_gc_keeps_what_the_file_as_it_is_needs(tmp_path):
    made = study(tmp_path, {"reader": table(tmp_path)})
    folder = made.step("external", FILMS, "reader").folder
    old = folder.with_name("0" * 12)
    for each in (folder, old):
        each.mkdir(parents=True)
        (each / "predictions.json").write_text("{}")
    assert [one.folder for one in gc.unneeded([made])] == [old]


def test_predictions_that_dvc_brought_need_no_file(tmp_path):
    made = study(tmp_path, {"reader": table(tmp_path)})
    step = made.step("external", FILMS, "reader")
    facts = {"protocols": {"external": {"content": step.job.content}}}
    files.write_json(step.folder / "predictions.json", {"facts": facts})
    (tmp_path / "reader.csv").unlink()
    pulled = study(tmp_path, {"reader": "reader.csv"})
    assert not pulled.missing
    assert pulled.step("external", FILMS, "reader").key == step.key
    assert not pulled.external_here
    files.keep_twin(step.folder / "predictions.json")  # it was made here: then its file is missed
    assert [one.name for one in study(tmp_path, {"reader": "reader.csv"}).missing] == ["reader"]


# --- in the first seconds ---------------------------------------------------------------------------------------------


def test_a_broken_file_stops_plan_and_is_a_problem_to_doctor_before_anything_is_made(tmp_path):
    name = table(tmp_path)
    (tmp_path / name).write_text((tmp_path / name).read_text().replace("0.5", "high", 1))
    made = study(tmp_path, {"reader": name})
    with pytest.raises(RadprobeError, match=r"reader.csv, line 2, column '.*': is 'high', which is no number"):
        plan.run(made)
    (found,) = checks.predictions(made, fail=False)
    assert (found.state, found.check) == ("problem", "predictions: reader")
    assert "line 2" in found.found
    assert "higher is more likely" in found.remedy


def test_doctor_says_what_is_there_and_what_is_not(tmp_path):
    (found,) = checks.predictions(study(tmp_path, {"reader": table(tmp_path)}), fail=False)
    assert (found.state, "once there is one" in found.found) == ("ok", True)
    for fail, state in ((False, "note"), (True, "problem")):
        (found,) = checks.predictions(study(tmp_path, {"reader": "gone.csv"}), fail)
        assert found.state == state
        assert "put it there" in found.remedy


def test_dvc_sees_the_content(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = {"dvc": {"keep": [LUNGS, FILMS]}, "paths": {"work": "work"}}
    made = study(tmp_path, {"reader": table(tmp_path)}, **kept)
    found = json.loads(retrieved.found(made))["predictions"]
    assert found[LUNGS] == {}
    assert found[FILMS]["reader"] == made.step("external", FILMS, "reader").job.content
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert all({"work/retrieved.json": ["predictions.${item}"]} in stages[name]["do"]["params"] for name in RESULTS)


# --- Snakemake --------------------------------------------------------------------------------------------------------


def snakemake(folder: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "1"]
    command += ["--configfile", "study.yaml", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_snakemake_runs_a_row_notices_an_edit_and_ignores_a_new_time(tmp_path):
    content = {"study": "s", "hub": False, "backbones": ["test_vit"], "controls": NO_CONTROLS, "threads": 1}
    choice = {"phantom": {"patients": 24}, "size": 112, "stored": 112, "predictions": {"nnunet": "maps"}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**content, "datasets": {LUNGS: choice}}))
    done = snakemake(tmp_path, "--until", "split")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Not run: predictions nnunet" in done.stderr + done.stdout
    made = Study({**content, "datasets": {LUNGS: choice}, "paths": {"root": str(tmp_path)}})
    maps = Truth.load(made.step("prepare", LUNGS).folder).maps
    (tmp_path / "maps").mkdir()
    for case in maps:
        Image.fromarray(maps[case]).save(tmp_path / f"maps/{case}.png")
    done = snakemake(tmp_path, "--until", "external")
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(tmp_path.glob("results/montgomery/external/nnunet/*/predictions.json"))) == 1
    for file in (tmp_path / "maps").iterdir():
        file.touch()
    assert PLANNED not in snakemake(tmp_path, "-n", "--until", "external").stdout
    victim = sorted((tmp_path / "maps").iterdir())[0]
    Image.fromarray(np.zeros_like(np.asarray(Image.open(victim)))).save(victim)
    assert PLANNED in snakemake(tmp_path, "-n", "--until", "external").stdout
    (tmp_path / "maps/unknown.png").write_bytes(victim.read_bytes())
    stopped = snakemake(tmp_path, "-n")
    assert stopped.returncode != 0
    assert "cases unknown to the dataset: 1 (first: unknown)" in stopped.stderr + stopped.stdout
