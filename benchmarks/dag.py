"""What the graph of the full study costs before a job runs: a dry run of everything, and a call that has nothing to do.

    python benchmarks/dag.py [backbones, separated by commas]

The study is params.yaml as shipped (or with these backbones): all eleven benchmarks, generated ones, so that none is
missing, and all backbones, protocols and variants. Nothing is computed: for the second call every output is a manifest
of no files, which Snakemake has marked as made (--touch), so that it looks at parameters and code too, and not at times
alone. A ratio is the limit over what was measured: 1 or more keeps it.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from radprobe.manifests import seal
from radprobe.study import Study

ROOT = Path(__file__).parents[1]
LIMITS = {"dag_dry_run_s": 30, "dag_noop_s": 20, "dag_gb": 0.5}
ROUNDS = 3
HF_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # weights that may be fetched belong to the study


def snakemake(folder: Path, *options: str) -> tuple[str, float, float]:
    """Return what a call said, its seconds and its peak memory in GB."""
    call = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--configfile", "study.yaml"]
    call += ["--cores", "8", "--workflow-profile", "none", *options]
    with tempfile.TemporaryFile("w+") as said:
        begun = time.perf_counter()
        running = subprocess.Popen(call, cwd=folder, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(running.pid, 0)
        seconds = time.perf_counter() - begun
        said.seek(0)
        text = said.read()
    if status:
        sys.exit(text[-3000:])
    return text, seconds, usage.ru_maxrss * 1024 / 1e9


def write_study(folder: Path, backbones: list[str]) -> Study:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["datasets"] = {name: {**own, "phantom": {"patients": 20}} for name, own in content["datasets"].items()}
    if backbones:
        content |= {"backbones": backbones, "adapt": None}
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    return Study({**content, "paths": {"root": str(folder)}})


def make_everything(folder: Path, planned: str, study: Study) -> None:
    """Write the manifests of each step and empty pages, oldest first, and have Snakemake mark them as made."""
    for step in study.steps.values():
        step.folder.mkdir(parents=True, exist_ok=True)
        for manifest in step.outputs:
            seal(step.place, manifest.stem, {}, [])
    for name in dict.fromkeys(re.findall(r"\breports/[^\s,]+", planned)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    snakemake(folder, "--touch", "--no-hooks")


def best(folder: Path) -> tuple[str, float, float]:
    """Return what the fastest of some dry runs said, its seconds and GB."""
    return min((snakemake(folder, "--dry-run") for _ in range(ROUNDS)), key=lambda one: one[1])


def main(backbones: str = "") -> None:
    for variable in HF_OFFLINE:
        os.environ.pop(variable, None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = write_study(folder, backbones.split(",") if backbones else [])
        said, dry, gb = best(folder)
        jobs = int(re.search(r"^total +(\d+)", said, re.MULTILINE)[1])
        make_everything(folder, said, study)
        said, noop, more_gb = best(folder)
        if "Nothing to be done" not in said:
            sys.exit(f"something was to be done:\n{said[-3000:]}")
    found = {"dag_dry_run_s": dry, "dag_noop_s": noop, "dag_gb": max(gb, more_gb)}
    print(f"{jobs} jobs: dry run {dry:.1f} s, nothing to do {noop:.1f} s, {found['dag_gb']:.2f} GB at most")
    for key, limit in LIMITS.items():
        print(f"ratio {key.removesuffix('_s')} {limit / found[key]:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
