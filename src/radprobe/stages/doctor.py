"""doctor: what of this machine and this study would stop a run, line by line, each with what to do. Nothing is changed.

It takes seconds: no image, table or weights file is read, and torch is asked only where there seems to be a GPU.
"""

import configparser
import importlib.metadata
import json
import os
import re
import shutil
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import radprobe
from radprobe import catalog, machine, needs
from radprobe.console import say, show_states, size
from radprobe.datasets import Layout
from radprobe.files import RadprobeError
from radprobe.machine import Place
from radprobe.study import LARGEST_HEADER, Missing, Study, with_weights

LOCK = Path(radprobe.__file__).parents[2] / "envs/requirements.lock"  # of a checkout
HUB, HUB_WAIT_S = "https://huggingface.co", 4
FEW_INODES = 100_000  # a study of many cells makes some ten thousand files
SHARED = (
    "nfs",
    "cifs",
    "smb",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "fuse",
    "9p",
    "afs",
)  # file systems of several hosts
WRITTEN = ("work", "results", "reports")
NAMES = 8  # in a line


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, whether it is ok, a note, or a problem (a run would stop or lose something)."""

    check: str
    state: Literal["ok", "note", "problem"]
    found: str
    remedy: str = ""


def run(params_file: Path, default: bool, as_json: bool) -> bool:
    """Print every check (or all as JSON); return whether there is no problem. `default`: nobody named the file."""
    study, said = _study(params_file, default)
    checks = [*_machine(study), *said, *(_of_study(study) if study else ())]
    problems = sum(check.state == "problem" for check in checks)
    if as_json:
        print(json.dumps({"problems": problems, "checks": [asdict(check) for check in checks]}, indent=1))
        return not problems
    show_states([(check.state, check.check, check.found, check.remedy) for check in checks])
    say(f"{problems} problem(s) would stop a run: see above." if problems else "Nothing here would stop a run.")
    return not problems


def _study(params_file: Path, default: bool) -> tuple[Study | None, list[Check]]:
    if default and not params_file.is_file():
        remedy = "go to the folder of your study, or name it: --params FILE"
        return None, [Check("params", "note", f"no {params_file} here: only the machine is looked at", remedy)]
    try:
        study = Study(params_file)
    except RadprobeError as error:
        return None, [Check("params", "problem", f"{error.what}: {error.reason}", error.remedy)]
    return study, [Check("params", "ok", f"{params_file}: {study.params.study}")]


def _machine(study: Study | None) -> Iterator[Check]:
    yield _python()
    yield from _packages()
    yield from _torch(study.params.device if study else "auto")
    yield from _cpu(study)


def _of_study(study: Study) -> Iterator[Check]:
    fail = study.params.on_missing == "fail"
    study.params = study.params.model_copy(update={"on_missing": "skip"})  # all that is missing is told, not the first
    try:
        yield from _data(study, fail)
        yield from _weights(study, fail)
        yield from _places(study)
    except RadprobeError as error:
        yield Check("params", "problem", f"{error.what}: {error.reason}", error.remedy)
    yield from _slurm()
    yield _dvc()


# --- the installation -------------------------------------------------------------------------------------------------


def _python() -> Check:
    return Check("Python", "ok", f"{'.'.join(map(str, sys.version_info[:3]))}, {sys.executable}")


def _packages() -> Iterator[Check]:
    pinned, needed = _pinned(), _required()
    absent = sorted(name for name in needed if _version(name) is None)
    install = f"pip install -r {LOCK}" if pinned else "pip install 'radprobe[workflow]'"
    if absent:
        yield Check("packages", "problem", f"not installed: {', '.join(absent)}", install)
    installed = {name: found for name in pinned if (found := _version(name))}
    others = {name: found for name, found in installed.items() if found != pinned[name]}
    if others:
        known = [f"{name} {found} (lock: {pinned[name]})" for name, found in sorted(others.items())]
        found = f"{len(others)} of {len(installed)} have another version than the lock: {_some(known)}"
        yield Check("packages", "note", found, f"results were tested with the lock's; {install}")
    elif not absent:
        found = f"{len(installed)} as in the lock" if pinned else f"all {len(needed)} are here; there is no lock here"
        yield Check("packages", "ok", found)


def _pinned() -> dict[str, str]:
    lines = LOCK.read_text(encoding="utf-8").splitlines() if LOCK.is_file() else []
    return dict(line.split("==") for line in lines if "==" in line)


def _required() -> set[str]:
    """Return the packages that a run needs: those of radprobe, and Snakemake."""
    try:
        lines = importlib.metadata.requires("radprobe") or []
    except importlib.metadata.PackageNotFoundError:
        lines = []  # a checkout on PYTHONPATH, as in a conda environment of the workflow
    return {re.match(r"[\w.-]+", line)[0] for line in lines if "extra ==" not in line} | {"snakemake"}


@cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package).partition("+")[0]  # 2.13.0+cpu is 2.13.0
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch(device: str) -> Iterator[Check]:
    if _version("torch") is None:
        return  # said among the packages
    state = "problem" if device == "cuda" else "note"
    if device == "cpu" or (device == "auto" and not machine.has_gpu_signs()):
        why = "params say device: cpu" if device == "cpu" else "no GPU here"
        remedy = "" if device == "cpu" else "small backbones run on a CPU in minutes, large ones take hours to days"
        yield Check("GPU", "ok" if device == "cpu" else "note", f"{why}: backbones run on the CPU", remedy)
        return
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
        yield Check("GPU", state, why, remedy + ("" if device == "auto" else "; or set device: cpu"))
    for k, gpu in enumerate(found):
        words = f"{k}: {gpu.name}, {size(gpu.free)} of {size(gpu.total)} free, {'' if gpu.bf16 else 'no '}bf16"
        remedy = "" if gpu.bf16 else "it computes bf16 slowly: set embed.precision (and adapt.precision): fp32"
        yield Check("GPU", "ok" if gpu.bf16 else "note", words, remedy)


def _cpu(study: Study | None) -> Iterator[Check]:
    cpu = machine.cpu()
    words = {True: "fast bf16", False: "no fast bf16", None: "bf16 not known"}[cpu.fast_bf16]
    check = Check("CPU", "ok", f"{cpu.cores} core(s), {size(cpu.memory)} of memory, {words}")
    if study is None:
        yield check
        return
    params, remedies = study.params, []
    if params.threads > cpu.cores:
        remedies.append(
            f"jobs take {params.threads} threads each: set threads: {cpu.cores} (it changes trained results)"
        )
    if cpu.fast_bf16 is False and params.embed.precision == "bf16" and not study.gpus:
        remedies.append("embed: {precision: fp32} is faster here")
    yield replace(check, state="note", remedy="; ".join(remedies)) if remedies else check
    if (most := max(map(study.memory_mb, study.backbones), default=0) * 1_000_000) > cpu.memory:
        remedy = "if it does not fit, leave the largest backbones out, or run them on another machine"
        yield Check("memory", "note", f"the largest job asks for {size(most)}, of {size(cpu.memory)} here", remedy)


# --- data and weights -------------------------------------------------------------------------------------------------


def _data(study: Study, fail: bool) -> Iterator[Check]:
    missing = {one.name: one for one in study.missing if one.kind == "dataset"}
    for name, choice in study.params.datasets.items():
        what = f"data: {name}"
        if choice.phantom:
            yield Check(what, "ok", f"generated, {choice.phantom.patients} patients: a phantom, not real images")
        elif one := missing.get(name):
            yield Check(what, "problem" if fail else "note", f"{one.why}: left out", _how_to_get(study, name, one))
        elif study.will_download(name):
            yield Check(what, "note", f"downloaded to {study.raw_folder(name)} by the next run")
        else:
            yield _readable(what, study.layout(name))
    if len(missing) == len(study.params.datasets):
        yield Check("data", "problem", "none of the study's datasets is here", "put one where the lines above say")


def _how_to_get(study: Study, name: str, missing: Missing) -> str:
    entry = study.dataset(name)
    if entry.folder or entry.package:
        return missing.remedy
    fetch = "set download: true; or " if entry.downloads else ""
    where = f"put in {study.raw_folder(name)}: {entry.layout}; or say where it is: datasets.{name}.raw"
    return f"{fetch}get it (`radprobe datasets {name}` says how), and {where}"


def _readable(what: str, layout: Layout) -> Check:
    places = [layout.root, *layout.folders, *layout.tables, *layout.files[:1]]
    shut = [path for path in places if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0))]
    if shut:
        return Check(what, "problem", f"{shut[0]} may not be read", f"chmod -R a+rX {shut[0]}, or ask its owner")
    return Check(what, "ok", f"{layout.variant} layout in {layout.root}")


def _weights(study: Study, fail: bool) -> Iterator[Check]:
    state, gone = "problem" if fail else "note", [one for one in study.missing if one.kind != "dataset"]
    for one in gone:
        yield Check(f"weights: {one.name}", state, f"{one.why}: left out", one.remedy)
    if not set(study.params.backbones) & set(study.backbones_here):
        yield Check("weights", "problem", "none of the study's backbones is here", "see the lines above")
    here, fetched = [], []
    for name in dict.fromkeys(map(with_weights, study.backbones_here)):
        if not study.backbone(name).random:
            (here if _is_here(study, name) else fetched).append(name)
    for name in here:
        yield from _cut_off(study, name)
    if here:
        yield Check("weights", "ok", f"here: {_some(here)}")
    if fetched:
        yield _from_the_hub(study, fetched)
    elif not study.may_fetch:
        yield Check("hub", "ok", "offline by choice (hub: false, or HF_HUB_OFFLINE)")


def _is_here(study: Study, name: str) -> bool:
    entry = study.backbone(name)
    if study.weights_file(name) or (entry.package and catalog.package_folder(entry.package)):
        return True
    return study.step("weights", None, name).done


def _cut_off(study: Study, name: str) -> Iterator[Check]:
    """Say where a safetensors file ends before its tensors do, by its header; the rest is verified by `retrieve`."""
    entry, file = study.backbone(name), study.weights_file(name)
    if file is None or file.suffix != ".safetensors":
        return
    try:
        with file.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            header = json.loads(handle.read(min(length, LARGEST_HEADER)))
        header.pop("__metadata__", None)
        missing = 8 + length + max(one["data_offsets"][1] for one in header.values()) - file.stat().st_size
        found = f"{file} is cut off: {missing:,} bytes are missing" if missing > 0 else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        found = f"{file} is cut off within its header, or no safetensors file"
    if found:
        how = catalog.how_to_get_weights(entry, study.path("weights"))
        yield Check(f"weights: {name}", "problem", found, f"copy it again: {how}")


def _from_the_hub(study: Study, names: list[str]) -> Check:
    hub = os.environ.get("HF_ENDPOINT") or HUB
    largest = [f"{name} ({catalog.weights_size(study.backbone(name))})" for name in names]
    if why := _unreachable(hub):
        remedy = "where there is a network, `radprobe weights pack FOLDER`; then RADPROBE_WEIGHTS=FOLDER here"
        remedy += "; `hub: false` in params leaves out what is not here"
        return Check("hub", "problem", f"{hub} is not reached ({why}); wanted from it: {_some(largest)}", remedy)
    return Check("hub", "ok", f"{hub} answers; fetched by the next run: {_some(largest)}")


def _unreachable(url: str) -> str | None:
    """Return why a page does not answer, None where it does; names that nobody resolves may take longer than asked."""
    why = [f"no answer in {HUB_WAIT_S} s"]

    def ask() -> None:
        try:
            asked = urllib.request.Request(url, method="HEAD")  # noqa: S310 - nothing of the answer is read
            with urllib.request.urlopen(asked, timeout=HUB_WAIT_S):  # noqa: S310
                why[0] = None
        except urllib.error.HTTPError:
            why[0] = None  # it answers, if only to say no
        except (OSError, ValueError) as error:
            why[0] = str(getattr(error, "reason", None) or error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_WAIT_S + 1)
    return why[0]


# --- places -----------------------------------------------------------------------------------------------------------


def _places(study: Study) -> Iterator[Check]:
    need = needs.disk(study)
    for name in WRITTEN:
        found = machine.place(study.path(name))
        what = f"paths.{name}"
        if found.error:
            remedy = f"name a folder that you may write: paths.{name}, or ask the owner of {found.at}"
            yield Check(what, "problem", f"{study.path(name)} cannot be written ({found.error})", remedy)
            continue
        yield from _traps(what, found)
        yield _space(what, found, *(need if name == "work" else (0, 0)))
    raw = study.path("raw")
    if raw.is_dir():
        yield Check("paths.raw", "ok", f"{raw}: only read, unless `download: true`")


def _space(what: str, found: Place, least: int, with_maps: int) -> Check:
    words = f"{found.at}: {size(found.free)} free"
    if with_maps:
        words += f"; pixels and vectors take about {size(least)}, with all dense maps {size(with_maps)}"
        words += " (those not made yet, of the datasets that are here, by their published counts)"
    remedy = "name a larger disk: paths.work; or a smaller study: limit, fewer backbones, embed.max_dense_cache_gb"
    if found.free < max(least, 100_000_000):
        return Check(what, "problem", words, remedy)
    return Check(what, "note", words, remedy) if found.free < with_maps else Check(what, "ok", words)


def _traps(what: str, found: Place) -> Iterator[Check]:
    if not found.locks:
        reason = f"{found.at} ({found.kind}): files cannot be locked there, so two runs could write the same file"
        yield Check(what, "problem", reason, f"name a folder on a disk that locks: paths.{what.partition('.')[2]}")
    if not found.case_sensitive:
        reason = f"{found.at}: names that differ only in case are one file there"
        yield Check(what, "note", reason, "give datasets and own backbones names that differ in more than case")
    if found.inodes is not None and found.inodes < FEW_INODES:
        reason = f"{found.at}: room for {found.inodes:,} more files only"
        yield Check(what, "note", reason, "remove files, ask for a larger quota, or name another disk")
    if found.kind.startswith(SHARED):
        reason = f"{found.at} is on {found.kind}, a file system that is shared or slow with many small files"
        remedy = "fine on a cluster (the slurm profile waits for files to show up); on one machine a local disk is"
        yield Check(what, "note", reason, f"{remedy} faster: paths.{what.partition('.')[2]}")


# --- what runs and what keeps -----------------------------------------------------------------------------------------


def _slurm() -> Iterator[Check]:
    if shutil.which("sbatch") is None:
        yield Check("Slurm", "ok", "not here: jobs run on this machine")
        return
    if _version("snakemake-executor-plugin-slurm") is None:
        remedy = "pip install snakemake-executor-plugin-slurm, at the version of the lock"
        yield Check("Slurm", "note", "sbatch is here, but Snakemake's plugin is not", remedy)
    if machine.answers(["squeue", "--noheader", "--me"]) is None:
        remedy = "ask the administrators, or run without --profile slurm"
        yield Check("Slurm", "note", "sbatch is here, but the controller does not answer (squeue)", remedy)
    elif machine.answers(["sacct", "--noheader", "--starttime", "now"]) is None:
        yield Check("Slurm", "ok", "sbatch and squeue answer (sacct does not, nor is it asked): add --profile slurm")
    else:
        yield Check("Slurm", "ok", "sbatch, squeue and sacct answer: add --profile slurm")


def _dvc() -> Check:
    if _version("dvc") is None:
        return Check("DVC", "note", "not installed: data and results are not versioned", "pip install dvc, as locked")
    if machine.answers(["git", "rev-parse", "--show-toplevel"]) is None:
        return Check("DVC", "note", "this folder is in no git repository, which DVC needs", "git init && dvc init")
    root = next((each for each in (Path.cwd(), *Path.cwd().parents) if (each / ".dvc").is_dir()), None)
    if root is None:
        return Check("DVC", "note", "not set up in this repository", "dvc init")
    remotes = _remotes(root / ".dvc")
    if not remotes:
        remedy = "dvc remote add --default NAME URL, to share results; without one nothing leaves this machine"
        return Check("DVC", "note", "set up, no remote", remedy)
    return Check("DVC", "ok", f"set up, remote(s): {', '.join(remotes)}")


def _remotes(folder: Path) -> list[str]:
    """Return the names of the remotes; no address is shown, as it may hold a password."""
    config = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        config.read([folder / "config", folder / "config.local"], encoding="utf-8")
    except configparser.Error:
        return []
    return [match[1] for section in config.sections() if (match := re.fullmatch(r"'?remote \"(.+)\"'?", section))]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
    return ", ".join(names[:NAMES]) + more
