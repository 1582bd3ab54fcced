"""What happens to a whole small study when processes are killed, disks fill up, files change and memory runs out.

RADPROBE_KILLS is the number of kills; 8 where it is not set.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import running
from faults.small import content, leftovers, living, make_all, run, start, wait_for, write

from radprobe.artifacts import Weights
from radprobe.files import RadprobeError, sha256
from radprobe.manifests import Manifest, Place, unseal
from radprobe.stages import prepare

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("RADPROBE_KILLS", "8"))
TRIES = 20  # to hit a step while it runs
# Little memory from when everything is imported: what runs out is work, and not the import of torch.
POOR = """
import resource
import torch
import radprobe.models.torchvision_ops  # before timm, which a backbone imports when it is built
import timm
import radprobe.stages.embed
from radprobe import cli
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, 2 * (pages * resource.getpagesize() + (150 << 20),))
cli.main()
"""
NIH = "nih_chestxray14"


class Finished:
    """A study of which every step is made, and what each of them made when nothing disturbed it."""

    def __init__(self, folder):
        self.folder = folder
        self.study = write(folder)
        make_all(folder)
        self.seconds = json.loads((folder / "seconds.json").read_text())
        self.steps = list(self.study.steps.values())
        self.made = {step.command: content(step) for step in self.steps}

    def step(self, command: str):
        return next(step for step in self.steps if step.command == command)

    def check(self, step) -> None:
        assert content(step) == self.made[step.command]
        assert not leftovers(self.folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return Finished(tmp_path_factory.mktemp("study"))


def at_work(step) -> bool:
    """Has a step begun to write what it makes?"""
    return any(path.is_file() and path.name != "lock" for path in step.folder.rglob("*"))


# --- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.survives(
    "fault",
    "kill -9 of a step at a random moment, and the same command again",
    "the same bytes, no orphan, no temporary file",
)
@pytest.mark.parametrize("seed", range(KILLS))
def test_a_step_that_is_killed_is_made_by_the_same_command(finished, seed):
    chance = random.Random(seed)
    step = chance.choices(finished.steps, [0.5 + finished.seconds[step.command] for step in finished.steps])[0]
    for _ in range(TRIES):  # a step that ended before it was killed tells nothing
        killed = start(finished.folder, step, "--force")
        wait_for(lambda: killed.poll() is not None or not any(path.is_file() for path in step.outputs))  # noqa: B023
        time.sleep(chance.uniform(0, 1.5 + finished.seconds[step.command]))
        killed.kill()
        killed.communicate()
        assert not living(killed.pid)
        if killed.returncode == -signal.SIGKILL:
            break
    assert killed.returncode == -signal.SIGKILL
    status, said = run(finished.folder, step)
    assert status == 0, said
    finished.check(step)


@pytest.mark.survives("fault", "kills of many steps of one study", "the final scores of an undisturbed run")
def test_scores_after_the_kills_are_those_of_an_undisturbed_run(finished):
    scores = [step for step in finished.steps if step.verb in ("score", "compare")]
    for step in scores:
        for manifest in step.outputs:
            manifest.unlink()
    make_all(finished.folder)
    for step in scores:
        finished.check(step)


@pytest.mark.survives(
    "fault",
    "SIGTERM, as Slurm sends it before it kills",
    "ends within 10 s, no temporary file, the same command goes on",
)
@pytest.mark.parametrize("command", [f"embed {NIH} test_vit", f"adapt {NIH} test_vit+bitfit", "prepare montgomery"])
def test_sigterm_ends_a_step_cleanly(finished, command):
    step = finished.step(command)
    for _ in range(TRIES):  # until one is at work: it has begun to write, and has not ended
        shutil.rmtree(step.folder)
        stopped = start(finished.folder, step)
        wait_for(lambda: stopped.poll() is not None or at_work(step))  # noqa: B023
        stopped.send_signal(signal.SIGTERM)
        said, _ = stopped.communicate(timeout=10)
        assert "Traceback" not in said
        if stopped.returncode == 128 + signal.SIGTERM:
            break
    assert stopped.returncode == 128 + signal.SIGTERM, said
    assert not leftovers(finished.folder)
    assert not living(stopped.pid)
    status, said = run(finished.folder, step)
    assert status == 0, said
    finished.check(step)


@pytest.mark.survives("fault", "two runs of one step at once", "one makes it, the other waits for it and makes nothing")
@pytest.mark.parametrize("command", [f"prepare {NIH}", f"embed {NIH} test_vit"])
def test_two_at_once_make_it_once(finished, command):
    step = finished.step(command)
    for manifest in step.outputs:
        manifest.unlink()
    shutil.rmtree(step.folder)
    both = [start(finished.folder, step) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("already made" in text for text in said) == 1, said
    finished.check(step)


# --- disks and memory -------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, options: str):
    """Mount a small disk at `folder`, or skip."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(not shutil.which("mount") or os.geteuid(), reason="mounting a small disk needs root")
@pytest.mark.survives(
    "fault",
    "a disk that fills up, or that may only be read",
    "one error that names the folder; once mended, the same command goes on",
)
@pytest.mark.parametrize(
    ("trouble", "command"),
    [("full", f"prepare {NIH}"), ("full", f"embed {NIH} test_vit"), ("read-only", f"probe {NIH} test_vit")],
)
def test_a_disk_that_cannot_be_written_is_said_and_mended(finished, command, trouble):
    step = finished.step(command)
    kept = step.folder.rename(step.folder.with_name(f"{step.folder.name}-kept"))
    try:
        with small_disk(step.folder, "size=8k" if trouble == "full" else "size=64m,ro"):
            status, said = run(finished.folder, step)
            assert status == 2, said
            assert "Traceback" not in said
            assert f"radprobe: {step.folder}" in said
            assert "run again" in said
            assert not any(path.is_file() for path in step.outputs)
            assert not leftovers(finished.folder)
            subprocess.run(["mount", "-o", "remount,rw,size=64m", step.folder], check=True)
            status, said = run(finished.folder, step)
            assert status == 0, said
            finished.check(step)
    finally:
        shutil.rmtree(step.folder, ignore_errors=True)
        kept.rename(step.folder)


@pytest.mark.survives(
    "fault",
    "a worker that runs out of memory",
    "one error that says so; with more memory, the same command goes on",
)
def test_too_little_memory_fails_and_leaves_nothing(finished):
    step = finished.step(f"embed {NIH} test_vit")
    shutil.rmtree(step.folder)
    status, said = run(finished.folder, step, python=("-c", POOR))
    made, left = [path for path in step.outputs if path.is_file()], leftovers(finished.folder)
    again, later = run(finished.folder, step)  # before anything is asserted: the tests that follow want the step
    assert status == 2, said
    assert "radprobe: out of memory" in said
    assert "Traceback" not in said
    assert not made
    assert not left, said
    assert again == 0, later
    finished.check(step)


# --- inputs that change -----------------------------------------------------------------------------------------------


def while_decoding(monkeypatch, harm):
    """Harm the first film before, or after, it is decoded."""
    decode = prepare.decoding.decode
    first = []

    def decoded(picture, *given):
        if not first:
            first.append(picture)
            harm(picture.image)
        return decode(picture, *given)

    monkeypatch.setattr(prepare.decoding, "decode", decoded)


def another_film(path: Path) -> None:
    """Put another sound film in the place of one, of the same number of bytes."""
    from PIL import Image

    size = path.stat().st_size
    with Image.open(path) as image:
        Image.new("L", image.size, 9).save(path, "PNG", compress_level=9)
    content = path.read_bytes()
    path.write_bytes(content + bytes(size - len(content)))


@pytest.mark.survives(
    "fault",
    "a raw file that vanishes or changes while it is prepared",
    "refused by name; hashed anew by the next run",
)
@pytest.mark.parametrize("harm", [Path.unlink, another_film])
def test_a_film_that_changes_under_prepare_is_never_used(tmp_path, monkeypatch, harm):
    study = write(tmp_path)
    running.run(study, study.step("retrieve", NIH))
    while_decoding(monkeypatch, harm)
    step = study.step("prepare", NIH)
    with pytest.raises(RadprobeError, match=r"\.png: changed since it was retrieved"):
        running.run(study, step)
    assert not any(path.is_file() for path in step.outputs)
    assert not leftovers(tmp_path / "work")
    assert not study.step("retrieve", NIH).outputs[0].is_file()  # so that the next run hashes the files anew


# --- flipped bits -----------------------------------------------------------------------------------------------------


@contextmanager
def flipped(path: Path, chance: random.Random):
    """Flip one bit of a file."""
    sound = path.read_bytes()
    harmed = bytearray(sound)
    harmed[chance.randrange(len(harmed))] ^= 1 << chance.randrange(8)
    path.write_bytes(harmed)
    try:
        yield
    finally:
        path.write_bytes(sound)


@pytest.mark.survives(
    "fault",
    "a flipped bit in any file of any artifact: shards, pixels, tables, predictions, adapters",
    "found by its checksum; set aside, so that it is re-made",
)
def test_a_flipped_bit_in_any_file_is_found(finished, record_property):
    chance, trials = random.Random(0), 0
    for manifest in (path for step in finished.steps for path in step.outputs):
        sealed = manifest.read_bytes()
        listed = Manifest.read(manifest).files
        for name in (name for name in listed if listed[name]["bytes"]):  # an empty file has no bit
            beside = {path: path.read_bytes() for path in manifest.parent.glob("*.json")}
            with flipped(manifest.parent / name, chance), pytest.raises(RadprobeError, match="manifest set aside"):
                unseal(manifest.parent, manifest.stem)
            assert not manifest.is_file()
            for path, content_ in beside.items():
                path.write_bytes(content_)
            trials += 1
        assert manifest.read_bytes() == sealed
    assert trials > 40
    record_property("trials", trials)


@pytest.mark.survives(
    "fault",
    "a flipped bit in a manifest",
    "found by its own checksum; set aside, so that it is re-made",
)
def test_a_flipped_bit_in_a_manifest_is_found(finished, record_property):
    chance, trials = random.Random(1), 0
    for manifest in (path for step in finished.steps for path in step.outputs):
        beside = {path: path.read_bytes() for path in manifest.parent.glob("*.json")}
        for _ in range(10):
            before = json.loads(beside[manifest])
            with flipped(manifest, chance):
                try:
                    found = vars(Manifest.read(manifest))
                except RadprobeError:
                    found = before
                    assert not manifest.is_file()
                assert {**before, "check": ""} == {**found, "check": ""}
            for path, content_ in beside.items():
                path.write_bytes(content_)
            trials += 1
    record_property("trials", trials)


@pytest.mark.survives(
    "fault",
    "a flipped bit in weights that were verified",
    "found by its checksum before they are used",
)
def test_a_flipped_bit_in_weights_is_found(tmp_path):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(bytes(range(256)) * 8)
    Weights(file, sha256(file), "local").save(Place(tmp_path, "key"))
    with flipped(file, random.Random(2)), pytest.raises(RadprobeError, match="changed since they were verified"):
        Weights.load(tmp_path)
