import os

import pytest

from radprobe import machine


@pytest.mark.slow
def test_what_is_asked_of_torch_is_what_torch_knows():
    import torch

    gpus, built_for = machine.gpus()
    assert len(gpus) == torch.cuda.device_count()
    assert built_for == (torch.version.cuda or torch.version.hip)


def test_the_quota_of_a_container_limits_the_cores(tmp_path, monkeypatch):
    usual = machine.cpu().cores
    assert usual <= (os.cpu_count() or 1)
    for text, cores in (("100000 100000\n", 1), ("50000 100000\n", 1), ("max 100000\n", usual)):
        (tmp_path / "cpu.max").write_text(text)
        monkeypatch.setattr(machine, "QUOTA", tmp_path / "cpu.max")
        assert machine.cpu().cores == cores


@pytest.mark.parametrize(
    ("text", "fast"),
    [
        ("flags\t: sse2 amx_bf16 fma\n", True),
        ("flags\t: sse2 avx2\n", False),
        ("Features\t: fp bf16\n", True),
        ("", None),
    ],
)
def test_the_flags_of_the_processor_say_whether_it_knows_bf16(tmp_path, monkeypatch, text, fast):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{text}")
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    assert machine.cpu().fast_bf16 is fast


def test_looking_at_a_place_leaves_nothing_and_says_what_it_is(tmp_path):
    found = machine.place(tmp_path / "not" / "yet")
    assert found.at == tmp_path
    assert found.error is None
    assert found.locks is True
    assert found.free > 0
    (tmp_path / "a").touch()
    assert found.case_sensitive is not (tmp_path / "A").exists()
    (tmp_path / "a").unlink()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
def test_no_room_for_data_or_for_a_thread_is_a_lack_of_memory(error):
    assert machine.lacks_memory(error)
    assert not machine.lacks_memory(RuntimeError("shapes do not fit"))
