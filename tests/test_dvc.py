"""DVC as a user types it: repro, push, a clone elsewhere, pull, and every score again without an image."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import running
import yaml
from moto.server import ThreadedMotoServer
from PIL import Image
from small_params import SMALL

from radprobe import catalog
from radprobe.study import Study

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("make") is None, reason="needs make")]
MAKE = ["make", "-o", ".venv/ready"]  # the environment of the tests is ready
PARTS = ["train", "train", "val", "test"]


def typed(folder: Path, *command: str, fails: bool = False, **environment: str) -> str:
    """Run a command in a clone, as one who works in its .venv types it; return what it said."""
    path = os.pathsep.join([str(folder / ".venv/bin"), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder / "src"), "MAKEFLAGS": "", **environment}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    said = done.stdout + done.stderr
    assert (done.returncode != 0) == fails, said[-4000:]
    return said


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    typed(folder, "git", *who, *arguments)


def clone(of: Path, folder: Path) -> Path:
    typed(of, "git", "clone", "-q", str(of), str(folder))
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def checkout(folder: Path, params: dict) -> Path:
    """Make a git repository of the files of this one, with other params."""
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")) | params
    (folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    typed(folder, "git", "init", "-q", "-b", "main")
    (folder / ".venv").symlink_to(sys.prefix)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a study")
    return folder


def raw_downloads(folder: Path, **phantoms: dict) -> None:
    """Generate raw downloads, and lay them where a user puts those of a publisher."""
    study = Study({"study": "raw", "datasets": phantoms, "backbones": ["test_vit"], "paths": {"root": str(folder)}})
    for name in phantoms:
        step = study.step("retrieve", name)
        step.folder.mkdir(parents=True)
        running.run(study, step)
        (folder / "data/raw").mkdir(parents=True, exist_ok=True)
        study.raw_folder(name).rename(folder / "data/raw" / name)
    shutil.rmtree(folder / "work")


def own_films(folder: Path) -> None:
    """Write films of one's own, with their table."""
    rng, rows = np.random.default_rng(0), []
    folder.mkdir(parents=True)
    for number in range(24):
        ill = number % 3 == 0
        image = rng.integers(0, 100, (64, 64)) + 100 * (ill * (np.arange(64) % 8 < 4))
        Image.fromarray(image.astype(np.uint8)).save(folder / f"film{number}.png")
        rows.append((f"film{number}.png", f"p{number}", int(ill), PARTS[number % 4]))
    pd.DataFrame(rows, columns=["path", "patient", "ill", "split"]).to_csv(folder / "table.csv", index=False)


MINE = {"table": "table.csv", "task": "binary", "classes": ["ill"], "split": "split", "stored": 64, "size": 160}
PARAMS = SMALL | {
    "study": "versions",
    "datasets": {
        "nih_chestxray14": {},
        "montgomery": {"size": 112, "stored": 112},
        "mine": {"raw": "data/mine", "folder": MINE},
    },
    "probe": {"linear": {"epochs": 5}, "knn": {"k": [5, 10], "temperature": 0.07}},
    "adapt": None,
    "score": {"resamples": 200, "seed": 0, "min_patients": 10},
    "dvc": {"push": ["nih_chestxray14", "montgomery"], "keep": ["mine"], "pixels": ["montgomery"]},
}


def scores(folder: Path, dataset: str) -> pd.DataFrame:
    """Return the scores of a dataset that lie in a clone."""
    tables = [pd.read_parquet(path) for path in folder.glob(f"results/{dataset}/score/*/*/scores.parquet")]
    keys = ["backbone", "protocol", "part", "metric", "class"]
    return pd.concat(tables).sort_values(keys).set_index(keys)[["value", "low", "high"]]


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    folder = checkout(tmp_path_factory.mktemp("versions"), PARAMS)
    raw_downloads(folder, nih_chestxray14={"phantom": {"patients": 60}}, montgomery={"phantom": {"patients": 16}})
    own_films(folder / "data/mine")
    typed(folder, "dvc", "repro")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "its results")
    return folder


def test_a_second_repro_runs_nothing(reproduced):
    said = typed(reproduced, "dvc", "repro")
    assert said.count("didn't change, skipping") == 7
    assert "Nothing to be done" in said
    assert not typed(reproduced, "git", "status", "--short")


def test_the_lock_says_which_raw_files_weights_and_results_there_were(reproduced):
    lock = yaml.safe_load((reproduced / "dvc.lock").read_text())["stages"]
    outs = {out["path"]: out["md5"] for stage in lock.values() for out in stage.get("outs", [])}
    assert {f"work/nih_chestxray14/{verb}" for verb in ("retrieve", "prepare", "split", "embed")} < set(outs)
    assert {"results/nih_chestxray14", "results/mine", "work/weights", "reports/metrics.json"} < set(outs)
    assert all(outs.values())
    found = json.loads((reproduced / "work/retrieved.json").read_text())
    assert set(found["datasets"]) == set(PARAMS["datasets"])
    assert all(len(each) == 64 for each in found["datasets"].values())


def test_metrics_are_the_macro_scores_of_the_test_part(reproduced):
    metrics = json.loads((reproduced / "reports/metrics.json").read_text())["nih_chestxray14"]["test_vit"]
    table = scores(reproduced, "nih_chestxray14").xs(("test", "auroc", "macro"), level=("part", "metric", "class"))
    values = table["value"].droplevel("backbone")
    assert metrics == values[~values.index.str.startswith("few-shot")].to_dict()
    assert "nih_chestxray14.test_vit.linear" in typed(reproduced, "dvc", "metrics", "show", "--md")


def test_scores_are_those_of_the_stages_without_snakemake_and_dvc(reproduced, tmp_path):
    shutil.copytree(reproduced / "data/mine", tmp_path / "data/mine")
    datasets = {"mine": PARAMS["datasets"]["mine"]}
    study = Study({**PARAMS, "datasets": datasets, "dvc": None, "paths": {"root": str(tmp_path)}})
    for step in study.steps.values():
        running.run(study, step)
    pd.testing.assert_frame_equal(scores(tmp_path, "mine"), scores(reproduced, "mine"), check_exact=True)


@pytest.fixture(scope="module")
def pulled(reproduced, tmp_path_factory):
    """A clone in which nothing lies but what a local remote holds; and that remote."""
    remote = tmp_path_factory.mktemp("remote")
    typed(reproduced, "dvc", "remote", "add", "-f", "-d", "storage", str(remote))
    typed(reproduced, "dvc", "push")
    git(reproduced, "commit", "-qam", "where it is pushed")
    folder = clone(reproduced, tmp_path_factory.mktemp("elsewhere") / "clone")
    typed(folder, "dvc", "pull", "--allow-missing")
    return folder


def test_what_is_kept_is_never_pushed_and_of_pixels_what_was_asked_for(reproduced, pulled):
    assert (pulled / "results/nih_chestxray14").is_dir()
    assert not [path for path in pulled.glob("*/mine/**/*") if path.is_file()]
    assert list((reproduced / "work/nih_chestxray14/prepare").rglob("images.npy"))
    assert {path.parts[-3] for path in pulled.rglob("images.npy")} == {"montgomery"}
    assert not (pulled / "data").exists()


def test_pixels_that_were_pulled_are_used_where_there_are_no_raw_files(pulled, tmp_path):
    shutil.copytree(pulled, folder := tmp_path / "clone", symlinks=True)
    typed(folder, *MAKE, "ordered")
    (manifest,) = folder.glob("work/montgomery/embed/test_vit/*/embeddings.json")
    features = {path: path.read_bytes() for path in manifest.parent.glob("*.npy")}
    for path in (manifest, *manifest.parent.glob("0*.*")):  # shards too, which would be kept
        path.unlink()
    typed(folder, sys.executable, "-m", "radprobe", "embed", "montgomery", "test_vit")
    assert features
    assert features == {path: path.read_bytes() for path in features}
    typed(folder, sys.executable, "-m", "radprobe", "--force", "embed", "nih_chestxray14", "test_vit", fails=True)


def test_one_command_makes_every_score_again_without_an_image(reproduced, pulled):
    trained = {path: path.stat().st_mtime_ns for path in pulled.glob("results/montgomery/segment/*/*/*.bin")}
    tables = [*pulled.glob("results/*/probe/*/*/predictions.parquet"), *pulled.glob("results/*/*/*/*/scores.parquet")]
    made = {path: path.stat().st_mtime_ns for path in tables}
    said = typed(pulled, *MAKE, "rescore", CUDA_VISIBLE_DEVICES="")
    assert "Not run: dataset mine" in said
    assert all(path.stat().st_mtime_ns > before for path, before in made.items())
    for dataset in ("nih_chestxray14", "montgomery"):
        pd.testing.assert_frame_equal(scores(pulled, dataset), scores(reproduced, dataset), check_exact=True)
    page = (pulled / "reports/explorer.html").read_text(encoding="utf-8")
    assert "the dense maps are not here: DVC brought none" in page
    assert trained == {path: path.stat().st_mtime_ns for path in trained}
    assert len(made) == 3
    assert trained
    assert not list(pulled.rglob("*.set-aside"))
    assert "Nothing to be done" in typed(pulled, "snakemake", "--cores", "1")


@pytest.mark.full
def test_what_came_again_is_in_order_again_and_is_not_made_anew(pulled, tmp_path):
    shutil.copytree(pulled, folder := tmp_path / "clone", symlinks=True)
    typed(folder, *MAKE, "rescore")
    for place in ("work", "results"):
        shutil.rmtree(folder / place)
    typed(folder, "dvc", "checkout", "--allow-missing")
    shutil.rmtree(folder / ".snakemake/metadata")  # else Snakemake may know by their hashes that nothing has changed
    for path in folder.glob("work/montgomery/prepare/*/*.json"):  # by chance, they could be in order already
        path.touch()
    times = [path.stat().st_mtime_ns for path in folder.glob("work/montgomery/*/*/*.json")]
    typed(folder, *MAKE, "ordered")
    assert times
    assert times != [path.stat().st_mtime_ns for path in folder.glob("work/montgomery/*/*/*.json")]
    made = {path: path.stat().st_mtime_ns for path in folder.glob("work/*/*/**/*.json")}
    typed(folder, *MAKE, "rescore")
    assert made == {path: path.stat().st_mtime_ns for path in folder.glob("work/*/*/**/*.json")}


@pytest.mark.full
def test_repro_in_a_new_clone_makes_nothing_again_but_the_pages(reproduced, tmp_path, pulled):
    folder = clone(reproduced, tmp_path / "clone")
    typed(folder, "dvc", "pull", "--allow-missing")
    made = {path: path.read_bytes() for path in folder.glob("*/*/*/**/*.json")}
    typed(folder, "dvc", "repro")
    assert made
    changed = [str(path.relative_to(folder)) for path in made if path.read_bytes() != made[path]]
    assert changed == []  # a manifest also has the time at which it was made
    typed(folder, sys.executable, "-m", "radprobe", "--force", "embed", "nih_chestxray14", "test_vit", fails=True)
    assert not list(folder.rglob("*.set-aside"))


@pytest.mark.full
def test_an_s3_remote_does_the_same(reproduced, pulled, tmp_path):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    where = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    where |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": f"http://{host}:{port}", "NO_PROXY": host}
    try:
        make = "import boto3; boto3.client('s3').create_bucket(Bucket='studies')"
        typed(reproduced, sys.executable, "-c", make, **where)
        typed(reproduced, "dvc", "remote", "add", "-f", "cloud", "s3://studies/radprobe")
        typed(reproduced, "dvc", "remote", "modify", "cloud", "endpointurl", f"http://{host}:{port}")
        git(reproduced, "commit", "-qam", "a bucket")
        typed(reproduced, "dvc", "push", "-r", "cloud", **where)
        folder = clone(reproduced, tmp_path / "clone")
        typed(folder, "dvc", "pull", "--allow-missing", "-r", "cloud", **where)
    finally:
        server.stop()
    for path in folder.glob("results/nih_chestxray14/**/*.parquet"):
        assert path.read_bytes() == (reproduced / path.relative_to(folder)).read_bytes()
    assert not [path for path in folder.glob("*/mine/**/*") if path.is_file()]
    typed(folder, *MAKE, "rescore", CUDA_VISIBLE_DEVICES="")
    for dataset in ("nih_chestxray14", "montgomery"):
        pd.testing.assert_frame_equal(scores(folder, dataset), scores(reproduced, dataset), check_exact=True)


@pytest.mark.full
def test_an_experiment_changes_what_it_should_and_is_shown_beside_the_first(reproduced):
    typed(reproduced, "dvc", "exp", "run", "-n", "fewer-neighbours", "-S", "probe.knn.k=[3]")
    shown = typed(reproduced, "dvc", "exp", "show", "--md")
    assert "fewer-neighbours" in shown
    changed = json.loads(typed(reproduced, "dvc", "metrics", "diff", "--json"))["reports/metrics.json"]
    assert set(changed) <= {"nih_chestxray14.test_vit.knn", "mine.test_vit.knn"}
    assert "nih_chestxray14.test_vit.knn" in changed
    typed(reproduced, "git", "checkout", "-q", "params.yaml")
    typed(reproduced, "dvc", "repro")
    assert json.loads(typed(reproduced, "dvc", "metrics", "diff", "--json")) == {}


def test_every_dataset_of_the_shipped_study_has_its_place_and_none_that_is_gated_is_pushed():
    params = Study(ROOT / "params.yaml").params
    known = catalog.datasets()
    assert not [name for name in params.dvc.push if known[name].gated]
    assert sorted(params.dvc.push + params.dvc.keep) == sorted(params.datasets)
