"""Raw folders that hold links, pipes and devices: named, and never read without end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from datasets.test_folder import films

NAME = "site 0/0.png"


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def itself(path: Path) -> None:
    path.symlink_to(path)


def nothing(path: Path) -> None:
    path.symlink_to("gone.png")


def folder_above(path: Path) -> None:
    path.symlink_to("..")


def secret(path: Path) -> None:
    path.symlink_to("/etc/passwd")


@pytest.mark.survives("attack", "links, pipes and devices among raw files", "refused by name; never read without end")
@pytest.mark.parametrize("put", [device, pipe, itself, nothing, folder_above, secret])
def test_what_is_no_film_is_named(tmp_path, put):
    films(tmp_path / "mine")
    (tmp_path / "mine" / NAME).unlink()
    put(tmp_path / "mine" / NAME)
    own = {"raw": "mine", "folder": {"task": "binary", "classes": ["ill"]}}
    content = {"study": "s", "datasets": {"mine": own}, "backbones": ["test_vit"], "paths": {"root": str(tmp_path)}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    for verb in ("retrieve", "prepare"):
        call = [sys.executable, "-m", "radprobe", verb, "mine"]
        done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        if done.returncode:
            break
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("radprobe: ")
    assert NAME in done.stderr
    assert "Traceback" not in done.stderr
    assert "root:" not in done.stderr
