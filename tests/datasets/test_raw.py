import os

from radprobe.datasets import raw


def test_folders_that_may_not_be_read_are_no_places(tmp_path, monkeypatch):
    for name in ("a/b/c", "lost+found/d"):
        (tmp_path / name).mkdir(parents=True)
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "lost+found" and allowed(path, mode))
    assert list(raw.places(tmp_path, 2)) == [tmp_path, tmp_path / "a", tmp_path / "a/b"]
    assert list(raw.places(tmp_path / "lost+found", 1)) == []


def test_no_level_below_the_last_is_looked_at(tmp_path, monkeypatch):
    (tmp_path / "a/b").mkdir(parents=True)
    looked, listed = [], type(tmp_path).iterdir
    monkeypatch.setattr(type(tmp_path), "iterdir", lambda path: looked.append(path) or listed(path))
    assert list(raw.places(tmp_path, 1)) == [tmp_path, tmp_path / "a"]
    assert looked == [tmp_path]
