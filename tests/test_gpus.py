"""One job a GPU, on machines whose GPUs are pretended by a script called nvidia-smi."""

import os
import signal
import subprocess
import sys
import time

import pytest

from radprobe import gpus

TWO = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb)
"""
CUT_UP = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa)
  MIG 3g.20gb     Device  0: (UUID: MIG-cccc)
  MIG 3g.20gb     Device  1: (UUID: MIG-dddd)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb)
"""
JOB = """
import os, sys, time
from pathlib import Path
from radprobe import gpus
with gpus.one(lambda text: print(text, flush=True), Path(sys.argv[1])) as name:
    print("got", name, os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    sys.stdin.read()
print("left", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
"""


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine with two GPUs and no scheduler."""
    for name in (gpus.VISIBLE, *gpus.SCHEDULERS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def has(listing: str) -> None:
        script = tmp_path / "nvidia-smi"
        script.write_text(f"#!/bin/sh\ncat <<'END'\n{listing}END\n")
        script.chmod(0o755)

    has(TWO)
    return has


@pytest.fixture
def start(tmp_path):
    started = []

    def job() -> subprocess.Popen:
        call = [sys.executable, "-c", JOB, str(tmp_path / "locks")]
        started.append(subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield job
    for each in started:
        each.kill()
        each.wait()


def test_each_job_sees_a_gpu_of_its_own_and_the_next_waits_for_one(start):
    first, second = start(), start()
    assert {first.stdout.readline(), second.stdout.readline()} == {
        "got GPU-aaaa GPU-aaaa\n",
        "got GPU-bbbb GPU-bbbb\n",
    }
    third = start()
    assert third.stdout.readline() == "waiting for a GPU: each of 2 has a job\n"
    first.stdin.close()
    assert first.stdout.readline() == "left None\n"
    assert third.stdout.readline().startswith("got GPU-")


def test_a_killed_job_gives_its_gpu_back(start, machine):
    machine(TWO.splitlines(keepends=True)[0])
    first = start()
    assert first.stdout.readline().startswith("got GPU-aaaa")
    second = start()
    assert second.stdout.readline().startswith("waiting")
    os.kill(first.pid, signal.SIGKILL)
    assert second.stdout.readline().startswith("got GPU-aaaa")


@pytest.mark.parametrize("scheduler", gpus.SCHEDULERS)
@pytest.mark.parametrize("given", [None, "1", "GPU-bbbb", ""])
def test_what_a_scheduler_gave_is_left_alone(tmp_path, monkeypatch, scheduler, given):
    monkeypatch.setenv(scheduler, "7")
    if given is not None:
        monkeypatch.setenv(gpus.VISIBLE, given)
    with gpus.one(folder=tmp_path / "locks") as name:
        assert name is None
        assert os.environ.get(gpus.VISIBLE) == given
    assert not (tmp_path / "locks").exists()


@pytest.mark.parametrize(
    ("said", "seen"), [("1", "1"), ("GPU-bbbb,GPU-aaaa", "GPU-bbbb"), ("-1", None), ("", None), ("1,-1,0", "1")]
)
def test_the_users_choice_of_gpus_is_kept_to(tmp_path, monkeypatch, said, seen):
    monkeypatch.setenv(gpus.VISIBLE, said)
    with gpus.one(folder=tmp_path / "locks") as name:
        assert name == seen
        assert os.environ[gpus.VISIBLE] == (seen or said)
    assert os.environ[gpus.VISIBLE] == said


def test_a_gpu_has_one_lock_however_it_is_named(tmp_path, monkeypatch, start):
    monkeypatch.setenv(gpus.VISIBLE, "1")
    assert start().stdout.readline() == "got 1 1\n"
    monkeypatch.setenv(gpus.VISIBLE, "GPU-bbbb")
    assert start().stdout.readline().startswith("waiting for a GPU: each of 1")


def test_slices_stand_for_a_gpu_that_is_cut_up():
    assert gpus.identities(CUT_UP) == ["MIG-cccc", "MIG-dddd", "GPU-bbbb"]
    assert gpus.identities("") == []


def test_gpus_that_are_not_listed_in_time_are_said_not_to_be_held(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(gpus, "LISTING_S", 0.2)
    said = []
    with gpus.one(said.append, tmp_path / "locks") as name:
        assert name is None
    assert ["nvidia-smi gives no answer" in each for each in said] == [True]


def test_without_a_gpu_nothing_is_set_and_nothing_waits(tmp_path, machine):
    machine("")
    begun = time.monotonic()
    with gpus.one(folder=tmp_path / "locks") as name:
        assert name is None
        assert gpus.VISIBLE not in os.environ
    assert time.monotonic() - begun < 5
