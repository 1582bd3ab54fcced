import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from doctored import GOOD, look

from radprobe import machine
from radprobe.commands import doctor


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
