import errno
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from radprobe import files


@pytest.mark.survives("fault", "a write that fails half way", "the old file stays; nothing else is left")
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})

    def fail():
        with files.atomic(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == '{\n "old": 1\n}\n'
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_digest_ignores_key_order_and_sees_values():
    assert files.digest({"a": 1, "b": [2]}) == files.digest({"b": [2], "a": 1})
    assert files.digest({"a": 1}) != files.digest({"a": 2})


HOLD = "import sys, time; from pathlib import Path; from radprobe import files\n"
HOLD += "with files.lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


@pytest.mark.survives("fault", "an owner of a lock that is killed", "the lock is free at once")
def test_a_lock_names_its_owner_and_dies_with_it(tmp_path):
    path = tmp_path / "lock"
    owner = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout.readline() == "held\n"
        heard = []
        with pytest.raises(files.RadprobeError, match=f"pid {owner.pid}"), files.lock(path, 0.2, heard.append):
            pass
        assert f"pid {owner.pid}" in heard[0]
    finally:
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    started = time.monotonic()
    with files.lock(path, wait_s=5):
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk quota is used up"),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "disk is full"),
        (OSError("Not enough free space to write 32000000 bytes after offset 128"), "disk is full"),
        (OSError("12 requested and 0 written"), "may be full"),
    ],
)
def test_a_full_disk_is_said_with_the_path_and_a_remedy(tmp_path, error, words):
    with pytest.raises(files.RadprobeError, match=words) as said, files.writing(tmp_path):
        raise error
    assert str(tmp_path) in str(said.value)
    assert "paths.work" in str(said.value)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), ValueError("requests"), KeyError("a")])
def test_other_errors_stay_what_they_are(tmp_path, error):
    with pytest.raises(type(error)) as said, files.writing(tmp_path):
        raise error
    assert said.value is error


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def write_array(path):
    with path.open("wb") as handle:
        np.save(handle, np.zeros(1_000_000))


def write_weights(path):
    save_file({"a": np.zeros(1_000_000)}, path)


def write_table(path):
    pd.DataFrame({"a": np.random.default_rng(0).random(1_000_000)}).to_parquet(path)


def write_text(path):
    path.write_text("0" * 2_000_000)


def write_map(path):
    """As a shard of features is written: without its room reserved, this ends the process by a SIGBUS."""
    array = np.lib.format.open_memmap(path, "w+", np.float16, (1_000_000,))
    files.reserve(path)
    array[:] = 1


@pytest.mark.parametrize("write", [write_array, write_weights, write_table, write_text, write_map])
def test_every_writer_says_that_a_real_disk_is_full_and_leaves_nothing(small_disk, write):
    path = small_disk / "a"
    with (
        pytest.raises(files.RadprobeError, match=r"disk.*full"),
        files.writing(small_disk),
        files.atomic(path) as to,
    ):
        write(to)
    assert list(small_disk.iterdir()) == []


MAPPED = """
import sys
from pathlib import Path
import numpy as np
from radprobe.artifacts import tables

path = Path(sys.argv[1])
for value in (1, 2):
    tables.write_array(path, np.full(1000, value))
    found = [tables.read_array(path) for _ in range(2)]
    print(found[0].filename, *{int(each.sum()) for each in found})
"""


def mapped(path, scratch):
    environment = {**os.environ, "OF_THE_JOB": str(scratch), "RADPROBE_SCRATCH": "$OF_THE_JOB"}
    done = subprocess.run([sys.executable, "-c", MAPPED, path], env=environment, capture_output=True, text=True)
    return [line.split() for line in done.stdout.splitlines()], done.stderr


def test_arrays_are_mapped_from_scratch_as_they_are_and_the_copies_go(tmp_path):
    (tmp_path / "scratch").mkdir()
    (first, *one), (second, *two) = mapped(tmp_path / "a.npy", tmp_path / "scratch")[0]
    assert (one, two) == (["1000"], ["2000"])  # what was written anew is copied anew
    assert first.startswith(str(tmp_path / "scratch/radprobe-"))
    assert first != second
    assert not list((tmp_path / "scratch").iterdir())


def test_what_does_not_fit_on_scratch_is_mapped_where_it_is(tmp_path, small_disk):
    (small_disk / "full").write_bytes(b"0" * (shutil.disk_usage(small_disk).free - 4096))
    lines, _ = mapped(tmp_path / "a.npy", small_disk)
    assert lines == [[str(tmp_path / "a.npy"), "1000"], [str(tmp_path / "a.npy"), "2000"]]


def test_a_scratch_that_is_not_there_is_said(tmp_path):
    _, said = mapped(tmp_path / "a.npy", tmp_path / "gone")
    assert f"RADPROBE_SCRATCH: {tmp_path}/gone" in said


def test_the_header_of_safetensors_says_what_is_in_the_file_and_anything_else_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    tensors = {"a": np.arange(6.0).reshape(2, 3), "b": np.ones(5, np.float32)}
    save_file(tensors, path, {"format": "pt"})
    header, start = files.safetensors_header(path)
    assert header.pop("__metadata__") == {"format": "pt"}
    assert {name: tuple(one["shape"]) for name, one in header.items()} == {"a": (2, 3), "b": (5,)}
    begin, end = header["a"]["data_offsets"]
    assert path.read_bytes()[start + begin : start + end] == tensors["a"].tobytes()
    for content in (b"", b"\x02", b"[]", b"[" * 100_000, b"no json", b"\xff"):
        path.write_bytes(len(content).to_bytes(8, "little") + content)
        with pytest.raises(ValueError, match="has no header of safetensors"):
            files.safetensors_header(path)
