"""Malformed files of every format that is read: each is read as it is, or refused in one error that names it.

Never a library's traceback, a crash, a hang of 30 s, or more than 2 GB.
"""

import functools
import tempfile
from pathlib import Path

import pytest
from corpus.by_hand import CASES as BY_HAND
from corpus.by_hand import Runs
from corpus.sound import GREY, SOUND, harms
from corpus.worker import MEMORY_MB, Worker
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

EXAMPLES = 25  # of each format
CASES = [(name, reader) for name, (_, readers) in SOUND.items() for reader in readers]


@pytest.fixture(scope="module")
def worker():
    worker = Worker()
    yield worker
    worker.stop()


@pytest.fixture(scope="module")
def sound():
    return functools.cache(lambda name: SOUND[name][0]())


def handled(worker, reader, path) -> dict:
    """Ask the worker to read a file; return its answer, which is a result or one error that names the file."""
    answer = worker.ask(reader, path)
    assert answer["outcome"] in ("read", "refused"), answer["text"]
    assert answer["peak_mb"] < MEMORY_MB, f"{answer['peak_mb']:.0f} MB"
    if answer["outcome"] == "refused":
        assert (path.stem if reader == "manifest" else path.name) in answer["text"]  # or the file that it lists
        assert "\n  -> " in answer["text"]
        assert "Unable to allocate" not in answer["text"]
        assert "MemoryError" not in answer["text"]
        assert len(answer["text"]) < 2000
    return answer


def put(folder: Path, name: str, content: bytes) -> Path:
    """Write a file, and beside a table the films that it lists."""
    path = folder / name
    path.write_bytes(content)
    if name.endswith(".csv"):
        for k in range(1, 5):
            Image.fromarray(GREY).save(folder / f"{k}.png")
    return path


@pytest.mark.parametrize(("name", "reader"), CASES)
def test_the_sound_files_are_read(worker, sound, tmp_path, name, reader):
    assert handled(worker, reader, put(tmp_path, name, sound(name)))["outcome"] == "read"


@pytest.mark.survives(
    "input",
    "files of each format, harmed at random",
    "read, or refused in one error that names the file",
)
@pytest.mark.parametrize(("name", "reader"), CASES)
@settings(max_examples=EXAMPLES, derandomize=True, database=None, deadline=None)
@given(data=st.data())
def test_a_harmed_file_is_read_or_refused_by_name(worker, sound, name, reader, data):
    with tempfile.TemporaryDirectory() as folder:
        handled(worker, reader, put(Path(folder), name, data.draw(harms(sound(name)))))


@pytest.mark.survives(
    "input",
    "files made by hand: headers that lie, bombs, wrong types",
    "refused in one error that names the file; the few that are sound are read",
)
@pytest.mark.parametrize("case", BY_HAND, ids=lambda case: case.what)
def test_a_file_made_by_hand_is_refused_by_name(worker, tmp_path, case):
    answer = handled(worker, case.reader, put(tmp_path, case.name, case.make()))
    assert case.outcome in (None, answer["outcome"]), answer["text"]
    assert not Path(Runs.PROOF).exists()
