"""What Slurm adds to a cell: cells that do nothing, through the shipped profile, on a real Slurm on loopback.

    python benchmarks/slurm_overhead.py [cells] [cells of a Slurm job]

A cell is two jobs, as the profile groups them: one that makes predictions and one that scores them. Each only touches
its file, so that all time is Snakemake's and Slurm's. Time per cell is (with Slurm - on this machine alone) / cells,
with as many CPUs: once with cells put together in Slurm jobs (--group-components, for studies of many small cells),
once with a Slurm job each, as shipped, for a few of them. A ratio is 1 s over what was measured: 1 or more keeps it.
Wants root and apt, or an installed Slurm.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/slurm"))
import loopback

ROOT = Path(__file__).parents[1]
CPUS = 2
FEW = 6  # cells with a Slurm job each
LIMIT_S = 1
SNAKEFILE = """
include: "ROOT/workflow/rules/slurm.smk"
localrules: all
onstart: suit_slurm(workflow.executor_settings)
rule all:
    input: expand("{cell}.scores", cell=range(int(config["cells"])))
rule probe:
    output: "{cell}.predictions"
    resources: mem_mb=100, runtime=10
    shell: "touch {output}"
rule score:
    input: "{cell}.predictions"
    output: "{cell}.scores"
    resources: mem_mb=100, runtime=10
    shell: "touch {output}"
""".replace("ROOT", str(ROOT))


def seconds(environment: dict[str, str] | None, cells: int, *options: str) -> float:
    """Return the seconds that so many cells take, in a folder of their own."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Snakefile").write_text(SNAKEFILE)
        call = [sys.executable, "-m", "snakemake", "--config", f"cells={cells}", "--cores", str(CPUS), *options]
        begun = time.perf_counter()
        done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr[-3000:])
        return time.perf_counter() - begun


def main(cells: str = "100", batch: str = "25") -> None:
    if why := loopback.why_not():
        print(f"left out: no Slurm: {why}")
        return
    profile = ["--profile", str(ROOT / "workflow/profiles/slurm")]
    with tempfile.TemporaryDirectory() as folder, loopback.running(Path(folder), CPUS) as environment:
        for name, n, options in (
            ("batched", int(cells), ["--group-components", f"cell={batch}"]),
            ("one_each", min(FEW, int(cells)), []),
        ):
            alone, with_slurm = seconds(None, n), seconds(environment, n, *profile, *options)
            added = max((with_slurm - alone) / n, 1e-3)
            print(f"{name}: {n} cells: {alone:.1f} s alone, {with_slurm:.1f} s with Slurm, {added:.2f} s a cell more")
            print(f"ratio slurm_overhead_{name} {LIMIT_S / added:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
