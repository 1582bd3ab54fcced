"""A small whole study whose steps are run as a person runs them, each by its command in a process of its own."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import yaml
from small_params import SMALL

from radprobe.files import TEMPORARY, sha256
from radprobe.manifests import Manifest
from radprobe.study import Step, Study

PARAMS = SMALL | {
    "study": "faults",
    "device": "cpu",
    "datasets": {**SMALL["datasets"], "nih_chestxray14": {"phantom": {"patients": 60}, "size": 64, "stored": 64}},
    "adapt": {
        "backbones": ["test_vit"],
        "bitfit": {"head_rates": [0.001, 0.01]},
        "lora": None,
        "end_to_end": None,
        "classify": {"epochs": 1, "batch_size": 16},
        "segment": {"epochs": 2, "batch_size": 8},
    },
    "score": {"resamples": 100},
}
MAKE_ALL = """
import json, sys, time
from pathlib import Path
from radprobe import cli
from radprobe.study import Study
study, seconds = Study(Path("study.yaml")), {}
cli._limit_threads(1)
for step in study.steps.values():
    started = time.monotonic()
    cli._make_step(study, step)
    seconds[step.command] = time.monotonic() - started
Path("seconds.json").write_text(json.dumps(seconds))
"""


def write(folder: Path, **changes) -> Study:
    """Write study.yaml to `folder`; return the study that lies there."""
    content = {**PARAMS, **changes, "paths": {"root": str(folder)}}
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    return Study(content)


def environment() -> dict[str, str]:
    return {**os.environ, "RADPROBE_PARAMS": "study.yaml", "OMP_NUM_THREADS": "1"}


def make_all(folder: Path) -> None:
    """Make every step in one process, and write the seconds that each took."""
    call = [sys.executable, "-c", MAKE_ALL]
    done = subprocess.run(call, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def start(folder: Path, step: Step, *options: str, python=("-m", "radprobe")) -> subprocess.Popen:
    """Start the command of a step, in a session of its own; `python` is how radprobe is called."""
    words = step.command.split()[1:] if step.command.startswith("radprobe ") else step.command.split()
    call = [sys.executable, *python, *options, *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(call, cwd=folder, env=environment(), start_new_session=True, **pipes)


def run(folder: Path, step: Step, *options: str, **how) -> tuple[int, str]:
    """Run the command of a step to its end; return its status and all that it said."""
    process = start(folder, step, *options, **how)
    said, _ = process.communicate(timeout=120)
    return process.returncode, said


def content(step: Step) -> dict[str, str]:
    """Return file -> sha256 of what a step made; of scores all but the seconds and memory taken, and the key."""
    found = {}
    for manifest in step.outputs:
        for name, file in Manifest.read(manifest).files.items():
            assert sha256(manifest.parent / name) == file["sha256"]
            found[name] = file["sha256"]
            if name in ("scores.parquet", "training.parquet"):
                table = pd.read_parquet(manifest.parent / name)
                found[name] = table.drop(columns=["seconds", "peak_gb", "key"], errors="ignore").to_csv()
    return found


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(f"*{TEMPORARY}*")]


def living(session: int) -> list[int]:
    """Return the processes of a session that still live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its = stat.read_text().rpartition(") ")[2].split()[:4]
        except OSError:
            continue
        if int(its) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


def wait_for(what, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
