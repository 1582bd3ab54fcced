"""workflow/versioned.py: which manifests came through DVC, and pixels in two places."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from radprobe import files
from radprobe.study import Study

ROOT = Path(__file__).parents[1]
PARAMS = {"study": "s", "datasets": {"montgomery": {"phantom": {"patients": 9}}}, "backbones": ["test_vit"]}


@pytest.fixture
def manifests(tmp_path, monkeypatch):
    """Manifests of a study that were made here."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS))
    found = [path for step in Study(Path("params.yaml")).steps.values() for path in step.outputs]
    for path in found:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        files.keep_twin(path)
    return found


def typed(*arguments: str) -> bool:
    """Whether it ends well."""
    call = [sys.executable, ROOT / "workflow/versioned.py", *arguments]
    return subprocess.run(call, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}).returncode == 0


def test_what_was_made_here_is_in_order(manifests):
    assert typed("ordered")


def test_what_snakemake_and_dvc_do_to_times_of_what_was_made_here_is_not_taken_for_a_pull(manifests):
    for path in manifests:
        path.touch()
        path.chmod(0o600)
    assert typed("ordered")


def test_what_dvc_brought_is_in_no_order_until_it_is_put_in_one(manifests):
    for _ in range(2):  # a first pull, and a second
        path = manifests[3]
        path.unlink()
        path.write_text("{}")
        files.twin(path).unlink(missing_ok=True)
        assert not typed("ordered")
        assert typed("order")
        assert typed("ordered")
        path.chmod(0o600)  # as DVC does
        assert typed("ordered")


def test_pixels_go_to_where_dvc_keeps_them_and_come_back_where_none_are(manifests):
    (prepared,) = {path.parent for path in manifests if path.name == "pixels.json"}
    kept = Path("work/pixels/montgomery") / prepared.name / "images.npy"
    (prepared / "images.npy").write_bytes(b"old")
    assert typed("lay", "montgomery")
    assert kept.read_bytes() == b"old"
    (prepared / "images.npy").unlink()
    assert typed("bring")
    assert (prepared / "images.npy").read_bytes() == b"old"
    (prepared / "images.npy").unlink()
    (prepared / "images.npy").write_bytes(b"made anew")
    assert typed("bring")
    assert (prepared / "images.npy").read_bytes() == b"made anew"
