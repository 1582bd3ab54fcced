import json
import os
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import yaml

from radprobe import machine
from radprobe.stages import doctor

PHANTOM = {"montgomery": {"phantom": {"patients": 9}}}
GOOD = {"study": "s", "hub": False, "device": "cpu", "threads": 1, "datasets": PHANTOM, "backbones": ["test_vit"]}
GPU = {"name": "Card", "total": 80_000_000_000, "free": 79_000_000_000, "bf16": True}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name in ("RADPROBE_RAW", "RADPROBE_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def look(capsys, **changes):
    """Return the exit and the checks, by name, of a study that is GOOD but for the changes."""
    Path("params.yaml").write_text(yaml.safe_dump(GOOD | changes))
    capsys.readouterr()
    well = doctor.run(Path("params.yaml"), default=False, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert well == (told["problems"] == 0)
    assert told["problems"] == sum(one["state"] == "problem" for one in told["checks"])
    assert all(one["remedy"] for one in told["checks"] if one["state"] == "problem")
    return well, {one["check"]: one for one in told["checks"]}


def command(folder, name, script):
    """Put a command on the PATH."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


# --- as it is typed ---------------------------------------------------------------------------------------------------


def typed(folder, *arguments):
    code = "import sys; from radprobe.cli import main; sys.argv[0] = 'radprobe'\ntry: main()\n"
    code += "finally: print({'torch', 'pandas', 'sklearn'} & set(sys.modules), file=sys.stderr)"
    ran = [sys.executable, "-c", code, "doctor", *arguments]
    return subprocess.run(ran, cwd=folder, capture_output=True, text=True)


def test_a_good_study_ends_well_in_seconds_and_imports_nothing_heavy(folder):
    (folder / "params.yaml").write_text(yaml.safe_dump(GOOD))
    before, begun = set(folder.rglob("*")), time.monotonic()
    done = typed(folder)
    assert time.monotonic() - begun < 20
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("Nothing here would stop a run.")
    assert done.stderr.strip() == "set()"
    assert set(folder.rglob("*")) == before


def test_a_problem_ends_with_1_and_has_a_remedy(folder):
    (folder / "params.yaml").write_text(yaml.safe_dump(GOOD | {"datasets": {"amos": {}}}))
    done = typed(folder)
    assert done.returncode == 1
    assert "1 problem(s)" in done.stdout
    assert "radprobe datasets amos" in done.stdout
    told = json.loads(typed(folder, "--json").stdout)
    assert told["problems"] == 1


def test_without_a_study_the_machine_is_looked_at_but_a_study_that_was_named_must_be_there(folder):
    done = typed(folder)
    assert done.returncode == 0
    assert "only the machine is looked at" in done.stdout
    done = typed(folder, "--params", "params.yaml")
    assert done.returncode == 1
    assert "params.yaml: is not there" in done.stdout


# --- the installation -------------------------------------------------------------------------------------------------


def test_a_params_file_with_a_mistake_is_a_problem_and_the_machine_is_looked_at_all_the_same(folder, capsys):
    well, checks = look(capsys, threads=0)
    assert not well
    assert "threads" in checks["params"]["found"]
    assert checks["CPU"]["state"] == "ok"


def test_packages_are_compared_with_the_lock(folder, capsys, monkeypatch):
    lock = folder / "requirements.lock"
    lock.write_text("# pins\nnumpy==0.1\npillow==0.1\nnot-here==1.0\n")
    monkeypatch.setattr(doctor, "LOCK", lock)
    well, checks = look(capsys)
    assert well
    assert checks["packages"]["found"].startswith("2 of 2 have another version than the lock: numpy ")
    assert "(lock: 0.1)" in checks["packages"]["found"]


def test_a_package_that_is_needed_and_absent_is_a_problem(folder, capsys, monkeypatch):
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "pydicom" else version(name))
    well, checks = look(capsys)
    assert not well
    assert checks["packages"]["found"] == "not installed: pydicom"


@pytest.mark.parametrize(
    ("answer", "device", "state", "words"),
    [
        ([GPU], "auto", "ok", "0: Card, 79.0 GB of 80.0 GB free, bf16"),
        ([GPU | {"bf16": False}], "auto", "note", "no bf16"),
        ([], "auto", "note", "torch is built for CPUs only"),
        ([], "cuda", "problem", "torch is built for CPUs only"),
    ],
)
def test_torch_is_asked_where_there_seems_to_be_a_gpu(folder, capsys, monkeypatch, answer, device, state, words):
    monkeypatch.setattr(machine, "has_gpu_signs", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    code = f"import json; print('a warning'); print(json.dumps({{'gpus': {answer}, 'built_for': None}}))"
    monkeypatch.setattr(machine, "LOOK", code)
    _, checks = look(capsys, device=device)
    assert checks["GPU"]["state"] == state
    assert words in checks["GPU"]["found"]


@pytest.mark.parametrize(
    ("code", "words", "wait_s"),
    [
        ("raise OSError('libcuda is broken')", "libcuda is broken", 60),
        ("import os; os.kill(os.getpid(), 9)", "ended with code -9", 60),
        ("import time; time.sleep(60)", "does not answer", 1),
    ],
)
def test_a_torch_that_fails_or_hangs_is_a_problem(folder, capsys, monkeypatch, code, words, wait_s):
    monkeypatch.setattr(machine, "has_gpu_signs", lambda: True)
    monkeypatch.setattr(machine, "LOOK", code)
    monkeypatch.setattr(machine, "TORCH_WAIT_S", wait_s)
    well, checks = look(capsys, device="auto")
    assert not well
    assert words in checks["GPU"]["found"]


@pytest.mark.slow
def test_what_is_asked_of_torch_is_what_torch_knows():
    import torch

    gpus, built_for = machine.gpus()
    assert len(gpus) == torch.cuda.device_count()
    assert built_for == (torch.version.cuda or torch.version.hip)


def test_more_threads_than_cores_and_slow_bf16_are_noted(folder, capsys, monkeypatch):
    monkeypatch.setattr(machine, "cpu", lambda: machine.Cpu(cores=2, memory=4_000_000_000, fast_bf16=False))
    _, checks = look(capsys, threads=3)
    assert "set threads: 2" in checks["CPU"]["remedy"]
    assert "precision: fp32" in checks["CPU"]["remedy"]
    assert checks["memory"]["state"] == "note"
    _, checks = look(capsys, embed={"precision": "fp32"})
    assert checks["CPU"]["state"] == "ok"


def test_the_quota_of_a_container_limits_the_cores(tmp_path, monkeypatch):
    usual = machine.cpu().cores
    assert usual <= (os.cpu_count() or 1)
    for text, cores in (("100000 100000\n", 1), ("50000 100000\n", 1), ("max 100000\n", usual)):
        (tmp_path / "cpu.max").write_text(text)
        monkeypatch.setattr(machine, "QUOTA", tmp_path / "cpu.max")
        assert machine.cpu().cores == cores


@pytest.mark.parametrize(
    ("text", "fast"),
    [
        ("flags\t: sse2 amx_bf16 fma\n", True),
        ("flags\t: sse2 avx2\n", False),
        ("Features\t: fp bf16\n", True),
        ("", None),
    ],
)
def test_the_flags_of_the_processor_say_whether_it_knows_bf16(tmp_path, monkeypatch, text, fast):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{text}")
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    assert machine.cpu().fast_bf16 is fast


# --- data and weights -------------------------------------------------------------------------------------------------


def test_what_is_absent_leaves_the_study_or_stops_it(folder, capsys):
    datasets = PHANTOM | {"btcv": {}, "mine": {"folder": {"task": "binary", "classes": ["ill"]}}}
    well, checks = look(capsys, datasets=datasets)
    assert well
    assert [checks[f"data: {name}"]["state"] for name in datasets] == ["ok", "note", "note"]
    assert "put in data/raw/btcv" in checks["data: btcv"]["remedy"]
    assert "labels.csv" in checks["data: mine"]["remedy"]
    well, checks = look(capsys, datasets=datasets, on_missing="fail")
    assert not well
    assert checks["data: btcv"]["state"] == "problem"


def test_a_layout_that_is_found_is_named(folder, capsys):
    (folder / "films").mkdir()
    (folder / "films/labels.csv").write_text("path,patient,ill\n")
    own = {"raw": "films", "folder": {"task": "binary", "classes": ["ill"]}}
    _, checks = look(capsys, datasets={"mine": own})
    assert checks["data: mine"] | {"remedy": ""} == {
        "check": "data: mine", "state": "ok", "found": "csv layout in films", "remedy": "",
    }  # fmt: skip


def test_no_weights_at_all_are_a_problem(folder, capsys):
    well, checks = look(capsys, backbones=["rad_dino"], controls=["pixels"])
    assert not well
    assert checks["weights"]["state"] == "problem"
    assert "data/weights" in checks["weights: rad_dino"]["remedy"]


@pytest.mark.parametrize(
    ("kept", "words"), [(1.0, None), (0.9, "bytes are missing"), (0.01, "within its header"), (0, "within its header")]
)
def test_weights_that_are_cut_off_are_a_problem(folder, capsys, kept, words):
    (folder / "data/weights").mkdir(parents=True)
    whole = safetensors.numpy.save({"a": np.zeros((50, 40), np.float32), "b": np.ones(3)}, {"format": "pt"})
    (folder / "data/weights/rad-dino.safetensors").write_bytes(whole[: int(len(whole) * kept)])
    well, checks = look(capsys, backbones=["rad_dino"])
    assert well == (words is None)
    if words:
        assert words in checks["weights: rad_dino"]["found"]
        assert "huggingface.co/microsoft/rad-dino" in checks["weights: rad_dino"]["remedy"]
    assert checks["weights"]["found"] == "here: rad_dino"


def test_the_hub_is_asked_only_where_weights_are_wanted_of_it(folder, capsys, monkeypatch, server):
    monkeypatch.setenv("HF_ENDPOINT", server.url(""))
    _, checks = look(capsys, hub=True, backbones=["mae_large"])
    assert checks["hub"]["state"] == "ok"
    assert "mae_large (about" in checks["hub"]["found"]
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1/")
    well, checks = look(capsys, hub=True, backbones=["mae_large"])
    assert not well
    assert "radprobe weights pack" in checks["hub"]["remedy"]
    well, checks = look(capsys, hub=True)  # a backbone that needs no weights
    assert well
    assert "hub" not in checks


# --- places -----------------------------------------------------------------------------------------------------------


def test_a_place_that_cannot_be_written_is_a_problem(folder, capsys):
    (folder / "file").touch()
    well, checks = look(capsys, paths={"work": "file/work"})
    assert not well
    assert "file/work cannot be written (Not a directory)" in checks["paths.work"]["found"]
    assert checks["paths.results"]["state"] == "ok"


@pytest.mark.parametrize(
    ("facts", "state", "words"),
    [
        ({"free": 1_000_000}, "problem", "1.0 MB free"),
        ({"locks": False}, "problem", "cannot be locked"),
        ({"kind": "nfs4"}, "note", "is on nfs4"),
        ({"inodes": 9}, "note", "room for 9 more files"),
        ({"case_sensitive": False}, "note", "differ only in case"),
    ],
)
def test_traps_of_file_systems_are_told(folder, capsys, monkeypatch, facts, state, words):
    real = machine.place
    monkeypatch.setattr(machine, "place", lambda path: replace(real(path), **facts))
    Path("params.yaml").write_text(yaml.safe_dump(GOOD))
    doctor.run(Path("params.yaml"), default=False, as_json=True)
    checks = json.loads(capsys.readouterr().out)["checks"]
    told = [one for one in checks if one["check"] == "paths.work" and words in one["found"]]
    assert [one["state"] for one in told] == [state]


def test_a_study_that_the_disk_cannot_hold_is_a_problem(folder, capsys, monkeypatch):
    real = machine.place
    (folder / "data/raw/nih_chestxray14/images").mkdir(parents=True)
    monkeypatch.setattr(machine, "place", lambda path: replace(real(path), free=2_000_000_000))
    phantom = {"nih_chestxray14": {"phantom": {"patients": 30_805}}}
    well, checks = look(capsys, datasets=phantom)
    assert not well
    assert "2.0 GB free; pixels and vectors take about" in checks["paths.work"]["found"]
    well, _ = look(capsys, datasets=phantom, limit=50)
    assert well


def test_looking_at_a_place_leaves_nothing_and_says_what_it_is(tmp_path):
    found = machine.place(tmp_path / "not" / "yet")
    assert found.at == tmp_path
    assert found.error is None
    assert found.locks is True
    assert found.free > 0
    (tmp_path / "a").touch()
    assert found.case_sensitive is not (tmp_path / "A").exists()
    (tmp_path / "a").unlink()
    assert list(tmp_path.iterdir()) == []


# --- Slurm and DVC ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("squeue", "sacct", "state", "words"),
    [
        ("exit 0", "exit 0", "ok", "answer"),
        ("exit 1", "exit 0", "note", "controller does not answer"),
        ("exit 0", "exit 1", "ok", "sacct does not"),
        ("exit 0", "exec sleep 30", "ok", "sacct does not"),
    ],
)
def test_slurm_is_asked_but_not_waited_for(folder, capsys, monkeypatch, squeue, sacct, state, words):
    for name, script in (("sbatch", ""), ("squeue", squeue), ("sacct", sacct)):
        command(folder, name, script)
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=os.pathsep)
    monkeypatch.setattr(machine, "WAIT_S", 1)
    _, checks = look(capsys)
    assert checks["Slurm"]["state"] == state
    assert words in checks["Slurm"]["found"]


def test_without_slurm_jobs_run_here(folder, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    _, checks = look(capsys)
    assert checks["Slurm"]["state"] == "ok"


def test_dvc_wants_a_repository_and_a_remote_whose_address_is_not_shown(folder, capsys):
    _, checks = look(capsys)
    assert "no git repository" in checks["DVC"]["found"]
    subprocess.run(["git", "init", "-q"], check=True)
    _, checks = look(capsys)
    assert checks["DVC"]["remedy"] == "dvc init"
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    analytics = false\n")
    _, checks = look(capsys)
    assert "no remote" in checks["DVC"]["found"]
    (folder / ".dvc/config.local").write_text("['remote \"lab\"']\n    url = https://me:secret@host/%d\n")
    _, checks = look(capsys)
    assert checks["DVC"]["found"] == "set up, remote(s): lab"
