"""`snakemake --cores 8 --profile slurm`, as typed in a clone, on a real Slurm with a pretend GPU."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from small_params import NO_CONTROLS

sys.path.insert(0, str(Path(__file__).parent))
import loopback

ROOT = Path(__file__).parents[2]
TYPED = ["snakemake", "--cores", "8", "--profile", "slurm"]
PARAMS = {
    "study": "on Slurm",
    "datasets": {"montgomery": {"phantom": {"patients": 24}, "size": 112, "stored": 112}},
    "backbones": ["test_vit"],
    "controls": NO_CONTROLS,
    "hub": False,
    "threads": 1,
    "embed": {"precision": "fp32"},
    "segment": {"linear": {"epochs": 2, "learning_rates": [0.01]}, "unet": None, "few_shot": None, "scratch": None},
    "score": {"resamples": 100},
}
SMI = "#!/bin/sh\necho 'GPU 0: Pretended (UUID: GPU-of-the-node)'\n"  # what a job without a scheduler would take

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """The environment in which commands find the Slurm of these tests."""
    if why := loopback.why_not():
        pytest.skip(f"no Slurm: {why}")
    folder = tmp_path_factory.mktemp("slurm")
    with loopback.running(folder) as environment:
        smi = folder / "bin/nvidia-smi"
        smi.write_text(SMI)
        smi.chmod(0o755)
        yield environment


@pytest.fixture
def study(tmp_path):
    """A clone with a small study of its own."""
    return clone(tmp_path / "clone")


def clone(folder: Path) -> Path:
    """Clone the repository as it stands, changes included."""
    names = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in names:
        if (ROOT / name).is_symlink() or (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    return folder


def command(*call: str) -> list[str]:
    return [sys.executable, "-m", *call]


def start(study: Path, environment: dict[str, str], *options: str) -> subprocess.Popen:
    with (study / "said.txt").open("a") as said:  # Ctrl-C is heard, also where a shell in the background hears none
        call = command(*TYPED, *options)
        there = {"cwd": study, "env": environment, "stdout": said, "stderr": said, "start_new_session": True}
        return subprocess.Popen(call, **there, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def finish(running: subprocess.Popen, study: Path, code: int = 0) -> str:
    ended = running.wait(400)
    said = (study / "said.txt").read_text()
    assert ended == code, said[-4000:]
    return said


def queue(environment: dict[str, str]) -> list[str]:
    """Return the ids of the jobs that wait or run."""
    return loopback.ask(environment, "squeue", "--noheader", "--format=%i").split()


def until(true, what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.1)


def job_of(environment: dict[str, str], rule: str) -> str:
    """Return the Slurm id of the running job of a rule, "" where there is none; a comment says the rule."""
    lines = loopback.ask(environment, "squeue", "--noheader", "--states=RUNNING", "--Format=JobID:12,Comment:80")
    return next((line.split()[0] for line in lines.splitlines() if f"rule_{rule}_" in line), "")


def is_embedding(study: Path) -> bool:
    return any(study.glob("work/*/embed/*/*/lock"))


def scores(study: Path) -> pd.DataFrame:
    (file,) = study.glob("results/*/score/*/*/scores.parquet")
    return pd.read_parquet(file).drop(columns=["seconds", "peak_gb"])


@pytest.fixture(scope="session")
def without_slurm(tmp_path_factory):
    """The same study on this machine alone."""
    study = clone(tmp_path_factory.mktemp("local") / "clone")
    done = subprocess.run(command("snakemake", "--cores", "2"), cwd=study, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return scores(study)


def test_one_job(slurm, study):
    said = finish(start(study, slurm, "--until", "prepare"), study)
    assert said.count("has been submitted with SLURM jobid") == 1
    assert list(study.glob("work/montgomery/prepare/*/pixels.json"))
    assert queue(slurm) == []


def test_a_killed_job_is_sent_again_and_scores_are_those_of_one_machine(slurm, study, without_slurm):
    running = start(study, slurm)
    until(lambda: is_embedding(study) and job_of(slurm, "embed"), "an embed job")
    # the study of the next run; this one's goes on as it began
    (study / "params.yaml").write_text(yaml.safe_dump({**PARAMS, "seed": 9, "backbones": ["tf_efficientnet_lite0"]}))
    first = job_of(slurm, "embed")
    memory = asked(slurm, first, "MinMemoryNode")
    loopback.ask(slurm, "scancel", first)
    until(lambda: job_of(slurm, "embed") not in ("", first), "a second embed job")
    assert asked(slurm, job_of(slurm, "embed"), "MinMemoryNode") == 2 * memory  # more at the next attempt
    assert asked(slurm, job_of(slurm, "embed"), "TimeLimit") == 960
    said = finish(running, study)
    assert "Trying to restart job" in said
    assert "squeue is asked instead" in said
    pd.testing.assert_frame_equal(scores(study), without_slurm)
    assert (study / "reports/explorer.html").is_file()
    assert (study / "reports/report.html").is_file()
    (log,) = study.glob("work/logs/embed/*/*/*.log")
    assert "CUDA_VISIBLE_DEVICES=0\n" in log.read_text()  # Slurm's, and not GPU-of-the-node
    (study / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    assert "Nothing to be done" in finish(start(study, slurm), study)


def asked(environment: dict[str, str], job: str, what: str) -> int:
    """Return what a job has asked for: MB of memory, or minutes."""
    value = re.search(rf"{what}=(\S+)", loopback.ask(environment, "scontrol", "show", "job", job))[1]
    if what == "TimeLimit":
        days, _, clock = value.rpartition("-")
        hours, minutes, _ = map(int, clock.split(":"))
        return int(days or 0) * 1440 + hours * 60 + minutes
    return int(float(value[:-1]) * {"M": 1, "G": 1024}[value[-1]])


def test_a_killed_run_goes_on_with_the_same_command(slurm, study, without_slurm):
    running = start(study, slurm)
    until(lambda: job_of(slurm, "embed"), "an embed job")
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert queue(slurm), "the jobs of a killed run go on"
    finish(start(study, slurm), study)
    pd.testing.assert_frame_equal(scores(study), without_slurm)
    until(lambda: not queue(slurm), "an empty queue", 30)


def test_jobs_are_not_lost_while_the_controller_is_away(tmp_path, study):
    if why := loopback.why_not():
        pytest.skip(f"no Slurm: {why}")
    with loopback.running(tmp_path / "slurm") as environment:
        running = start(study, environment, "--until", "prepare", "--slurm-status-attempts", "1")
        until(lambda: job_of(environment, "prepare"), "a prepare job")
        loopback.ask(environment, "scontrol", "shutdown", "slurmctld")
        until(lambda: "does not say" in (study / "said.txt").read_text(), "a question without an answer")
        controller = loopback.controller(tmp_path / "slurm")
        finish(running, study)
    controller.terminate()
    controller.wait()
    assert list(study.glob("work/montgomery/prepare/*/pixels.json"))


def test_ctrl_c_takes_the_jobs_out_of_the_queue(slurm, study):
    running = start(study, slurm)
    until(lambda: job_of(slurm, "prepare"), "a prepare job")
    os.kill(running.pid, signal.SIGINT)
    running.wait(60)
    until(lambda: not queue(slurm), "an empty queue", 30)
    assert not list(study.glob("results/*/*/*/*/*.json"))


def test_ctrl_c_ends_a_run_whose_controller_is_away(tmp_path, study):
    if why := loopback.why_not():
        pytest.skip(f"no Slurm: {why}")
    with loopback.running(tmp_path / "slurm") as environment:
        running = start(study, environment, "--until", "prepare", "--slurm-status-attempts", "1")
        until(lambda: job_of(environment, "prepare"), "a prepare job")
        loopback.ask(environment, "scontrol", "shutdown", "slurmctld")
        until(lambda: "does not say" in (study / "said.txt").read_text(), "a question without an answer")
        os.kill(running.pid, signal.SIGINT)
        try:
            running.wait(60)
        finally:
            running.kill()
