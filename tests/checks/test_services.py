import os
import stat
import subprocess

import pytest
from doctored import look

from radprobe import machine


def command(folder, name, script):
    """Put a command on the PATH."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


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
