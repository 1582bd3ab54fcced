"""The installation: Python, and the packages beside the lock."""

import importlib.metadata
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import radprobe
from radprobe.checks import Check, some

LOCK = Path(radprobe.__file__).parents[2] / "envs/requirements.lock"  # of a checkout


def python() -> Check:
    """Say which Python this is."""
    return Check("Python", "ok", f"{'.'.join(map(str, sys.version_info[:3]))}, {sys.executable}")


def packages() -> Iterator[Check]:
    """Look for what radprobe needs, and compare what is installed with the lock."""
    pinned, needed = _pinned(), _required()
    absent = sorted(name for name in needed if version(name) is None)
    install = f"pip install -r {LOCK}" if pinned else "pip install 'radprobe[workflow]'"
    if absent:
        yield Check("packages", "problem", f"not installed: {', '.join(absent)}", install)
    installed = {name: found for name in pinned if (found := version(name))}
    others = {name: found for name, found in installed.items() if found != pinned[name]}
    if others:
        known = [f"{name} {found} (lock: {pinned[name]})" for name, found in sorted(others.items())]
        found = f"{len(others)} of {len(installed)} have another version than the lock: {some(known)}"
        yield Check("packages", "note", found, f"results were tested with the lock's; {install}")
    elif not absent:
        found = f"{len(installed)} as in the lock" if pinned else f"all {len(needed)} are here; there is no lock here"
        yield Check("packages", "ok", found)


@cache
def version(package: str) -> str | None:
    """Return the version of a package that is installed, None where it is not."""
    try:
        return importlib.metadata.version(package).partition("+")[0]  # 2.13.0+cpu is 2.13.0
    except importlib.metadata.PackageNotFoundError:
        return None


def _pinned() -> dict[str, str]:
    lines = LOCK.read_text(encoding="utf-8").splitlines() if LOCK.is_file() else []
    return dict(line.split("==") for line in lines if "==" in line)


def _required() -> set[str]:
    """Return the packages that a run needs: those of radprobe, and Snakemake."""
    try:
        lines = importlib.metadata.requires("radprobe") or []
    except importlib.metadata.PackageNotFoundError:
        lines = []  # a checkout on PYTHONPATH, as in a conda environment of the workflow
    names = [re.match(r"[\w.-]+", line) for line in lines if "extra ==" not in line]
    return {name[0] for name in names if name} | {"snakemake"}
