"""The throughput benchmark: what it counts, and that it says what it measured and what it left out."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from radprobe import catalog

SCRIPT = Path(__file__).parents[1] / "benchmarks/throughput.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("throughput", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ratios(*arguments: str) -> tuple[str, dict[str, float]]:
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=True)
    lines = (line.split() for line in done.stdout.splitlines() if line.startswith("ratio "))
    return done.stdout, {name: float(value) for _, name, value in lines}


@pytest.mark.parametrize("size", [224, 448])
@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "tf_efficientnet_lite0", "test_vit"])
def test_it_counts_the_flops_that_the_catalog_states(benchmark, name, size):
    counted = benchmark.gflops(catalog.backbones()[name], size)
    assert counted == pytest.approx(getattr(catalog.costs()[name], f"gflops_{size}"), abs=0.005)


def test_a_vit_costs_more_per_token_the_more_tokens_it_has(benchmark):
    """A token's share of the attention grows with the number of tokens: 4 C a token, a pair and a block."""
    entry = catalog.backbones()["vit_small_patch14_dinov2"]
    tokens = {size: (size // 14) ** 2 + 1 for size in (224, 518)}
    attention = {size: 4 * 384 * 12 * n**2 / 1e9 for size, n in tokens.items()}
    small, large = (benchmark.gflops(entry, size) - attention[size] for size in tokens)
    assert large / small == pytest.approx(tokens[518] / tokens[224], rel=1e-3)


@pytest.mark.slow
def test_it_measures_and_names_what_it_leaves_out():
    said, found = ratios("test_vit", "160,100", "none")
    assert 0 < found.pop("share_of_peak_test_vit_160_eager") <= 1
    assert not found
    assert "left out: test_vit does not take images of 100 px" in said
    assert "not compiled, as not asked for" in said


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_on_a_gpu_eager_and_compiled_are_measured():
    _, found = ratios("vit_small_patch14_dinov2", "224")
    assert found.keys() == {
        "share_of_peak_vit_small_patch14_dinov2_224_eager",
        "share_of_peak_vit_small_patch14_dinov2_224_compiled",
        "compiled_vs_eager_vit_small_patch14_dinov2_224",
    }
    assert 0 < found["share_of_peak_vit_small_patch14_dinov2_224_eager"] <= 1
