"""The benchmarks of frozen features run and print their ratios, at a size at which no number means anything."""

import math
import subprocess
import sys
from pathlib import Path

import browser
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = {
    "embed": (["test_vit", "64"], ["embed_vs_forward"]),
    "grid_vs_recompute": (["test_vit", "64"], ["grid_vs_recompute", "grid_share_of_embedding"]),
    "mlknn": (["300", "16", "3"], ["mlknn", "mlknn_vs_bare"]),
    "logistic_sweep": (["5", "3"], ["logistic_sweep"]),
    "cost_vs_n": (
        ["200", "400"],
        [f"cost_vs_n_{name}" for name in ("linear_grid", "logistic_sweep", "knn_search", "mlknn_scores")],
    ),
    "explorer": (["300"], ["explorer", "explorer_first_paint", "explorer_filter", "explorer_sort"]),
    "dag": (["test_vit,unet"], ["dag_dry_run", "dag_noop", "dag_gb"]),
    "all_probes": (["1200", "80", "5", "1"], ["all_probes_minutes", "all_probes_gb"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_it_runs_and_prints_its_ratios(name, monkeypatch):
    if name == "explorer" and browser.CHROMIUM is None:
        pytest.skip("no Chromium or Chrome is installed")
    for variable in ("RADPROBE_REAL_DATA", "RADPROBE_REAL_WEIGHTS"):
        monkeypatch.delenv(variable, raising=False)
    arguments, expected = SCRIPTS[name]
    call = [sys.executable, FOLDER / f"{name}.py", *arguments]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    ratios = [line.split() for line in done.stdout.splitlines() if line.startswith("ratio ")]
    assert [ratio[1] for ratio in ratios] == expected
    # cost_vs_n ends in exponents: of the times of a few rows they may have either sign
    assert all(math.isfinite(float(ratio[2])) and (name == "cost_vs_n" or float(ratio[2]) > 0) for ratio in ratios)
