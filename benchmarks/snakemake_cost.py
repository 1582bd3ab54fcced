"""What Snakemake costs beside its jobs: ten times the cells of the demo, whose jobs do nothing but touch their outputs.

    python benchmarks/snakemake_cost.py [times] [folder of the finished demo]

The graph, the rules and the locks are the workflow's own; a job is a Python that starts and ends. The seconds of a job
of the demo are those that Snakemake's own benchmark files hold. The share is Snakemake's seconds a job over those that
a job of the demo keeps its core busy, both on as many cores. A ratio is the limit over the share: 1 or more keeps it.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import yaml

from radprobe.study import Study

ROOT = Path(__file__).parents[1]
CORES = 2
LIMIT = 0.1  # of the time of the demo
LIKE = ("tf_efficientnet_lite0", "test_vit")  # the backbones of the demo, except the network from scratch
TOUCH = """
import json, sys
from pathlib import Path
for name in json.loads(Path("outputs.json").read_text())[" ".join(sys.argv[1:])]:
    Path(name).touch()
"""


def write_study(folder: Path, times: int) -> Study:
    """Write the study of the demo, each backbone so many times, with empty files for weights."""
    content = yaml.safe_load((ROOT / "workflow/profiles/demo/params.yaml").read_text())
    names = {f"{like}_{number}": like for like in LIKE for number in range(times)}
    own = {name: {"like": like, "title": name, "file": "empty.safetensors"} for name, like in names.items()}
    content |= {"own_backbones": own, "backbones": [*own, "unet"], "paths": {"root": "."}}
    content["adapt"]["backbones"] = [name for name, like in names.items() if like == "test_vit"]
    (folder / "data/weights").mkdir(parents=True)
    (folder / "data/weights/empty.safetensors").touch()
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    return Study({**content, "paths": {"root": str(folder)}})


def idle_checkout(folder: Path) -> Path:
    """Return a Snakefile whose jobs do nothing."""
    for name in ("src", "workflow", "envs"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "src/radprobe/__main__.py").write_text(TOUCH)
    return Path(shutil.copy(ROOT / "Snakefile", folder))


def run(times: int) -> tuple[int, int, float]:
    """Return the cells, the jobs and the seconds of a run on `CORES`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "study"
        folder.mkdir()
        study = write_study(folder, times)
        steps = study.steps.values()
        touched = {step.command: [str(output.relative_to(folder)) for output in step.outputs] for step in steps}
        (folder / "outputs.json").write_text(json.dumps(touched))
        call = [sys.executable, "-m", "snakemake", "--snakefile", str(idle_checkout(Path(name) / "checkout"))]
        call += ["--cores", str(CORES), "--configfile", "study.yaml", "--omit-from", "report"]
        begun = time.perf_counter()
        done = subprocess.run(call, cwd=folder, capture_output=True, text=True)
        seconds = time.perf_counter() - begun
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    jobs = int(re.search(r"^total +(\d+)", done.stderr + done.stdout, re.MULTILINE)[1])
    return sum(step.verb == "score" for step in steps), jobs, seconds


def main(times: str = "10", demo: str = str(ROOT / "demo")) -> None:
    measured = [pd.read_csv(file, sep="\t")["s"].iloc[-1] for file in Path(demo).glob("work/benchmarks/**/*.tsv")]
    if not measured:
        sys.exit(f"{demo}: no finished demo is here; type `make demo` first")
    of_the_demo = sum(measured) / len(measured) / CORES
    cells, jobs, seconds = run(int(times))
    share = seconds / jobs / of_the_demo
    print(f"{cells} scored jobs, {jobs} in all: {seconds:.1f} s on {CORES} cores")
    print(f"as many of the demo: {jobs * of_the_demo:.0f} s")
    print(f"Snakemake's own share: {share:.1%}")
    print(f"ratio snakemake_share {LIMIT / share:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
