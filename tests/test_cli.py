import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from radprobe.artifacts import Truth
from radprobe.study import Study

ROOT = Path(__file__).parents[1]
PARAMS = {
    "study": "s",
    "hub": False,
    "backbones": ["test_vit"],
    "datasets": {"montgomery": {"phantom": {"patients": 9}}},
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    return tmp_path


def radprobe(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "radprobe", *arguments], cwd=folder, capture_output=True, text=True)


def test_a_verb_makes_its_artifact_once(folder):
    first = radprobe(folder, "retrieve", "montgomery")
    assert first.returncode == 0, first.stderr
    (manifest,) = folder.glob("work/montgomery/retrieve/*/raw.json")
    made = manifest.stat().st_mtime_ns
    assert "already made" in radprobe(folder, "retrieve", "montgomery").stdout
    assert manifest.stat().st_mtime_ns == made


def test_lost_truth_is_made_again(folder):
    for verb in ("retrieve", "prepare"):
        radprobe(folder, verb, "montgomery")
    assert "already made" in radprobe(folder, "prepare", "montgomery").stdout
    (truth,) = folder.glob("work/montgomery/prepare/*/truth.json")
    kept = {name: (truth.parent / name).read_bytes() for name in ("truth.bin", "images.npy", "index.parquet")}
    truth.unlink()
    again = radprobe(folder, "prepare", "montgomery")
    assert again.returncode == 0, again.stderr
    assert Truth.load(truth.parent).facts["classes"]
    assert {name: (truth.parent / name).read_bytes() for name in kept} == kept


def test_a_verb_says_which_command_must_come_first(folder):
    done = radprobe(folder, "prepare", "montgomery")
    assert done.returncode == 2
    assert "run `radprobe retrieve montgomery`" in done.stderr
    (folder / "params.yaml").rename(folder / "my study.yaml")
    done = radprobe(folder, "prepare", "montgomery", "--params", "my study.yaml")
    assert "run `radprobe retrieve montgomery --params 'my study.yaml'`" in done.stderr


def test_what_is_not_segmented_yet_cannot_be_exported(folder):
    done = radprobe(folder, "export", "montgomery", "test_vit", "out")
    assert done.returncode == 2
    assert "run `radprobe segment montgomery test_vit`, or snakemake" in done.stderr


def test_again_makes_it_again(folder):
    radprobe(folder, "retrieve", "montgomery")
    (manifest,) = folder.glob("work/montgomery/retrieve/*/raw.json")
    made = manifest.stat().st_mtime_ns
    assert radprobe(folder, "--force", "retrieve", "montgomery").returncode == 0
    assert manifest.stat().st_mtime_ns > made


@pytest.mark.parametrize(("seconds", "words"), [(-60, "already made"), (60, "retrieve montgomery: ")])
def test_what_another_run_made_after_the_graph_was_built_is_put_back(folder, monkeypatch, seconds, words):
    """Snakemake removes it as the job starts; what was there before is removed for a reason, and made anew."""
    radprobe(folder, "retrieve", "montgomery")
    (manifest,) = folder.glob("work/montgomery/retrieve/*/raw.json")
    made = manifest.stat().st_mtime_ns
    manifest.unlink()
    monkeypatch.setenv("RADPROBE_STARTED", str(made / 1e9 + seconds))
    assert words in radprobe(folder, "retrieve", "montgomery").stdout
    assert (manifest.stat().st_mtime_ns == made) == (seconds < 0)


def test_a_job_waits_for_what_another_run_is_putting_back(folder):
    radprobe(folder, "retrieve", "montgomery")
    (manifest,) = folder.glob("work/montgomery/retrieve/*/raw.json")
    content = manifest.read_bytes()
    manifest.unlink()
    call = [sys.executable, "-m", "radprobe", "prepare", "montgomery"]
    waiting = subprocess.Popen(call, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert "about to put it back" in waiting.stdout.readline()
    manifest.write_bytes(content)
    assert waiting.wait(60) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["embed", "montgomery", "tset_vit"], "did you mean 'montgomery test_vit'"),
        (["retrieve"], "name one"),
        (["split", "montgomery", "--params", "mine.yaml"], "mine.yaml: is not there"),
    ],
)
def test_a_mistake_is_explained_without_a_traceback(folder, arguments, words):
    done = radprobe(folder, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_leftovers_of_a_kill_are_removed(folder, monkeypatch):
    monkeypatch.chdir(folder)
    step = Study("params.yaml").step("retrieve", "montgomery")
    leftover = step.folder / "raw.parquet.123.partial"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    assert radprobe(folder, "retrieve", "montgomery").returncode == 0
    assert not leftover.exists()


def test_the_tables_of_the_catalog_need_no_study(tmp_path):
    for verb in ("datasets", "backbones"):
        done = radprobe(tmp_path, verb, "--markdown")
        assert done.stdout == (ROOT / f"docs/{verb}.md").read_text(encoding="utf-8"), done.stderr


def test_all_facts_of_one_backbone_are_printed(folder):
    done = radprobe(folder, "backbones", "rad_dino")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("rad_dino: RAD-DINO ViT-B/14\n")


def test_a_folder_of_weights_that_lacks_some_is_no_success(folder):
    (folder / "params.yaml").write_text(yaml.safe_dump({**PARAMS, "backbones": ["test_vit", "rad_dino"]}))
    done = radprobe(folder, "pack", "packed")
    assert done.returncode == 2
    assert "put rad-dino.safetensors in" in done.stdout
    assert "lacks the weights of rad_dino" in done.stderr
    assert "Traceback" not in done.stderr
