"""How fast a backbone's forward pass is: images per second, peak memory and share of the peak FLOP/s, in bf16 autocast.

    python benchmarks/throughput.py [backbones] [sizes] [compiled]

Lists are separated by commas; by default DINOv2 S, B, L and g on a GPU, S and B on a CPU, at 224, 448 and 518 px.
`compiled` says what torch.compile is timed for too: all (the default on a GPU), first (the first backbone at the first
size, the default on a CPU, where compiling takes most of a minute) or none.

The weights are random, which cost the same, and the images are normalised already. Each backbone and size has a process
of its own, in which matrix products, eager and compiled take turns, so that they meet the same other load; ratios are
the median over the turns. The peak of a turn is no data sheet's, but the best of several large products of bf16
matrices with as many threads. FLOPs are those of matrix products, convolutions and attention, a multiply-add counted as
two. Memory on a GPU is what tensors take at most, weights included; on a CPU it is how much the process grows from
before the model is built, so that of compiled includes the compiler.
"""

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np
import torch
from torch._dynamo.exc import TorchDynamoException
from torch.utils.flop_counter import FlopCounterMode

from radprobe import catalog
from radprobe.artifacts import Weights
from radprobe.learning.device import device, peak_gb
from radprobe.models import architectures, backbones

DINOV2 = [f"vit_{size}_patch14_dinov2" for size in ("small", "base", "large", "giant")]
BY_DEFAULT = {"cuda": (DINOV2, "all"), "cpu": (DINOV2[:2], "first")}
SIZES, TURNS = "224,448,518", 3
BATCH = {"cuda": 128, "cpu": 8}  # at 224 px; of larger images as many as have about as many pixels
SECONDS = {"cuda": 2, "cpu": 3}  # of one turn; at least one batch
SIDES = {"cuda": (4096, 8192, 16384), "cpu": (512, 1024, 2048)}  # of the matrices
PRODUCTS = 3  # of each side


@dataclass(frozen=True)
class Measured:
    """One backbone at one size. The rest is by how it ran: eager and, where asked for and possible, compiled."""

    batch: int
    images: int  # timed, of each way
    gflops: float  # of an image
    peaks: np.ndarray  # FLOP/s, of each turn
    rates: dict[str, np.ndarray]  # images per second, of each turn
    memory: dict[str, float]  # GB
    failure: str | None  # why it could not be compiled

    def share(self, how: str) -> float:
        return float(np.median(self.rates[how] * self.gflops * 1e9 / self.peaks))


def measure(name: str, size: int, compiled: bool) -> Measured:
    """Measure one backbone at one size in this process, which is to build no other."""
    where = device("auto")
    entry, kind, before = catalog.backbones()[name], where.type, peak_gb(where)
    encoder = backbones.build(entry, Weights(None, None, "random", {"seed": 0}), size).to(where)
    batch = max(1, BATCH[kind] * 224**2 // size**2)
    images = torch.randn((batch, 3, size, size), device=where)
    towers = {"eager": encoder.tower, "compiled": torch.compile(encoder.tower, dynamic=False)}
    calls, memory, failure = {}, {}, None
    for how in ("eager", "compiled") if compiled else ("eager",):
        call = partial(forward, towers[how], encoder, images)
        try:
            call()  # compiles
        except TorchDynamoException as error:
            failure = str(error).splitlines()[0]
            continue
        calls[how], memory[how] = call, memory_of(call, where) - before
    n = max(1, round(SECONDS[kind] / seconds(calls["eager"], where)))
    turns = [turn(list(calls.values()), n, where) for _ in range(TURNS)]
    peaks, *times = np.array(turns).T
    rates = {how: n * batch / taken for how, taken in zip(calls, times, strict=True)}
    return Measured(batch, n * batch * TURNS, gflops(entry, size), peaks, rates, memory, failure)


def turn(calls: list[Callable[[], None]], n: int, where: torch.device) -> list[float]:
    """Return the peak in FLOP/s, then the seconds of `n` runs of each call."""
    return [peak(where), *(seconds(call, where, n) for call in calls)]


def forward(tower: Callable, encoder: backbones.Encoder, images: torch.Tensor) -> None:
    """Run what embedding runs of `tower`, the encoder's own or the compiled one."""
    with torch.inference_mode(), torch.autocast(images.device.type, torch.bfloat16):
        tower(images, *asked(encoder))


def asked(encoder: backbones.Encoder) -> tuple[tuple[int, ...], bool]:
    """Return the layers, and whether the library pools: what a tower is asked for beside images."""
    return encoder.layers, encoder.recipe.pool == "library"


def peak(where: torch.device) -> float:
    """Return the FLOP/s of the fastest product of two large bf16 matrices."""
    best = 0.0
    for side in SIDES[where.type]:
        one, two = (torch.randn((side, side), device=where, dtype=torch.bfloat16) for _ in range(2))
        product = partial(torch.nn.functional.linear, one, two)
        product()  # warm
        best = max(best, *(2 * side**3 / seconds(product, where) for _ in range(PRODUCTS)))
    return best


def seconds(call: Callable[[], object], where: torch.device, n: int = 1) -> float:
    finish(where)
    begun = time.perf_counter()
    for _ in range(n):
        call()
    finish(where)
    return time.perf_counter() - begun


def memory_of(call: Callable[[], None], where: torch.device) -> float:
    """Return the most GB that are taken while it runs; on a CPU, that were ever taken."""
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where)
    call()
    finish(where)
    return peak_gb(where)


def finish(where: torch.device) -> None:
    if where.type == "cuda":
        torch.cuda.synchronize(where)


def gflops(entry: catalog.Backbone, size: int) -> float:
    """Count the GFLOPs of one image, without computing it."""
    with torch.device("meta"), torch.no_grad():
        encoder = backbones.Encoder(architectures.build(entry), size, 1, (), frozen=True)
        encoder.tower.resize(size)
        images = torch.zeros((1, 3, size, size))
        with FlopCounterMode(display=False) as counter:
            encoder.tower(images, *asked(encoder))
    return counter.get_total_flops() / 1e9


def chosen(names: list[str], sizes: list[int], compiled: str) -> Iterator[tuple[str, int, bool]]:
    """Yield backbone, size and whether to compile it; name what is left out."""
    for i, name in enumerate(names):
        for j, size in enumerate(sizes):
            if not catalog.backbones()[name].fits(size):
                print(f"left out: {name} does not take images of {size} px")
                continue
            yield name, size, compiled == "all" or (compiled == "first" and i == j == 0)


def show(name: str, size: int, found: Measured) -> None:
    for how, rates in found.rates.items():
        rate = np.median(rates)
        cells = f"{found.batch:>5} {found.images:>6} {rate:>8.1f} {rate * found.gflops / 1e3:>8.3f}"
        print(f"{name:28} {size:>4} {how:8} {cells} {found.share(how):>7.1%} {found.memory[how]:>7.2f}", flush=True)


def ratios(name: str, size: int, found: Measured) -> Iterator[str]:
    for how in found.rates:
        yield f"ratio share_of_peak_{name}_{size}_{how} {found.share(how):.3f}"
    if "compiled" in found.rates:
        both = found.rates["compiled"] / found.rates["eager"]
        yield f"ratio compiled_vs_eager_{name}_{size} {np.median(both):.3f}"


def main(names: str = "", sizes: str = SIZES, compiled: str = "") -> None:
    where = device("auto")
    default_names, default_compiled = BY_DEFAULT[where.type]
    combinations = chosen(
        names.split(",") if names else default_names,
        [int(size) for size in sizes.split(",")],
        compiled or default_compiled,
    )
    print(f"{torch.cuda.get_device_name() if where.type == 'cuda' else 'CPU'}, {torch.get_num_threads()} threads")
    print(f"{'backbone':28} {'px':>4} {'how':8} batch images    img/s  TFLOP/s of peak      GB")
    lines, peaks, eager_only = [], [], []
    for name, size, wanted in combinations:
        try:
            with ProcessPoolExecutor(1, get_context("spawn")) as own:
                found = own.submit(measure, name, size, wanted).result()
        except torch.OutOfMemoryError as error:
            print(f"left out: {name} at {size} px does not fit on the GPU ({str(error).splitlines()[0]})")
            continue
        show(name, size, found)
        peaks.extend(found.peaks)
        lines += ratios(name, size, found)
        if found.failure:
            print(f"eager alone: {name} at {size} px cannot be compiled here ({found.failure})")
        elif not wanted:
            eager_only.append(f"{name} at {size} px")
    if not lines:
        return
    print(f"peak: {min(peaks) / 1e12:.3f} to {max(peaks) / 1e12:.3f} TFLOP/s over the turns, bf16 matrix products")
    if eager_only:
        print(f"not compiled, as not asked for (it takes about 40 s each on a CPU): {', '.join(eager_only)}")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
