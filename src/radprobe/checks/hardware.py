"""The hardware that backbones run on: GPUs, and the CPU with its memory."""

import os
from collections.abc import Iterator

from radprobe import machine
from radprobe.checks import Check
from radprobe.checks.installation import version
from radprobe.console import size
from radprobe.files import RadprobeError
from radprobe.machine import Cpu
from radprobe.study import Study


def gpus(device: str) -> Iterator[Check]:
    """Look for GPUs, as `device` of params wants them; torch is asked only where there seems to be one."""
    if version("torch") is None:
        return  # said among the packages
    if device == "cpu":
        yield Check("GPU", "ok", "params say device: cpu: backbones run on the CPU")
    elif device == "auto" and not machine.has_gpu_signs():
        remedy = "small backbones run on a CPU in minutes, large ones take hours to days"
        yield Check("GPU", "note", "no GPU here: backbones run on the CPU", remedy)
    else:
        yield from _as_torch_sees_them(device)


def _as_torch_sees_them(device: str) -> Iterator[Check]:
    try:
        found, built_for = machine.gpus()
    except RadprobeError as error:
        yield Check("GPU", "problem", f"{error.what} {error.reason}", error.remedy)
        return
    if not found:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = "torch is built for CPUs only" if not built_for else f"torch, built for {built_for}, sees no GPU"
        why += f" (CUDA_VISIBLE_DEVICES={hidden!r})" if hidden is not None else ""
        remedy = "install the torch of the lock from PyPI, check the driver (nvidia-smi), and CUDA_VISIBLE_DEVICES"
        remedy += "" if device == "auto" else "; or set device: cpu"
        yield Check("GPU", "problem" if device == "cuda" else "note", why, remedy)
    for k, gpu in enumerate(found):
        words = f"{k}: {gpu.name}, {size(gpu.free)} of {size(gpu.total)} free, {'' if gpu.bf16 else 'no '}bf16"
        remedy = "" if gpu.bf16 else "it computes bf16 slowly: set embed.precision (and adapt.precision): fp32"
        yield Check("GPU", "ok" if gpu.bf16 else "note", words, remedy)


def cpu(study: Study | None) -> Iterator[Check]:
    """Look at cores and memory; of a study also whether it asks for more."""
    found = machine.cpu()
    words = {True: "fast bf16", False: "no fast bf16", None: "bf16 not known"}[found.fast_bf16]
    words = f"{found.cores} core(s), {size(found.memory)} of memory, {words}"
    remedies = list(_remedies(found, study)) if study else []
    yield Check("CPU", "note" if remedies else "ok", words, "; ".join(remedies))
    most = max(map(study.memory_mb, study.backbones), default=0) * 1_000_000 if study else 0
    if most > found.memory:
        remedy = "if it does not fit, leave the largest backbones out, or run them on another machine"
        words = f"the largest job asks for {size(most)}, of {size(found.memory)} here"
        yield Check("memory", "note", words, remedy)


def _remedies(found: Cpu, study: Study) -> Iterator[str]:
    threads = study.params.threads
    if threads > found.cores:
        yield f"jobs take {threads} threads each: set threads: {found.cores} (it changes trained results)"
    if found.fast_bf16 is False and study.params.embed.precision == "bf16" and not study.gpus:
        yield "embed: {precision: fp32} is faster here"
