import os
import signal
import subprocess
import sys
import time

import pytest

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
