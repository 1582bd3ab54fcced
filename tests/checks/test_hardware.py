import pytest
from doctored import look

from radprobe import machine

GPU = {"name": "Card", "total": 80_000_000_000, "free": 79_000_000_000, "bf16": True}


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


def test_more_threads_than_cores_and_slow_bf16_are_noted(folder, capsys, monkeypatch):
    monkeypatch.setattr(machine, "cpu", lambda: machine.Cpu(cores=2, memory=4_000_000_000, fast_bf16=False))
    _, checks = look(capsys, threads=3)
    assert "set threads: 2" in checks["CPU"]["remedy"]
    assert "precision: fp32" in checks["CPU"]["remedy"]
    assert checks["memory"]["state"] == "note"
    _, checks = look(capsys, embed={"precision": "fp32"})
    assert checks["CPU"]["state"] == "ok"
