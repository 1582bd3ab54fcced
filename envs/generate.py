"""The conda environments of the workflow from one source: pyproject.toml's groups, with requirements.lock's versions.

`make envs` writes <group>.yaml and <group>.post-deploy.sh; `make pins`, where conda is, <group>.<platform>.pin.txt with
the exact builds of what comes from conda. Snakemake looks for both beside the yaml.
"""

import argparse
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
PROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))
PYTHON = PROJECT["project"]["requires-python"].removeprefix(">=")
MARKERS = {"python_version": "3.11", "python_full_version": "3.11.0"}  # of the environments
GROUPS = {name: packages for name, packages in PROJECT["dependency-groups"].items() if name != "every"}
CHANNEL, CONDA = "conda-forge", [f"python={PYTHON}", "pip"]

YAML = """\
# Made by `make envs` from the groups of pyproject.toml and requirements.lock: edit those.
# Python and pip come from conda-forge, all else from PyPI: the lock's versions are PyPI's, and what the tests ran on.
name: radprobe-{group}
channels: [{channel}, nodefaults]
dependencies:
{conda}
  - pip:
{pins}
"""
POST_DEPLOY = """\
#!/usr/bin/env bash
# Made by `make envs`. Of a pin file Snakemake installs the conda packages alone: here come those of pip. After the yaml
# itself they are all there, and pip does nothing. Snakemake runs a copy of this; the workflow sets RADPROBE_SOURCE.
set -euo pipefail
sed -n 's/^      - //p' "$RADPROBE_SOURCE/../envs/{group}.yaml" | python -m pip install --no-input -r /dev/stdin
"""


def locked() -> dict[str, str]:
    """Return the version of every package of requirements.lock."""
    lines = (HERE / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return dict(re.split("==", line) for line in lines if "==" in line)


def direct(group: str) -> set[str]:
    """Return the packages that a group of pyproject.toml names, or includes from another."""
    named = PROJECT["dependency-groups"][group]
    own = {canonicalize_name(each) for each in named if isinstance(each, str)}
    return own.union(*(direct(each["include-group"]) for each in named if isinstance(each, dict)))


def pins(group: str) -> list[str]:
    """Return name==version of all that a group needs, with what that needs; SystemExit where this Python has others."""
    versions, found, todo = locked(), set(), [Requirement(name) for name in direct(group)]
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        if (name, *wanted.extras) in found:
            continue
        found.add((name, *wanted.extras))
        here = importlib.metadata.version(name).partition("+")[0]  # 2.13.0+cpu is 2.13.0
        if here != versions.get(name):
            sys.exit(
                f"{name} is {here} here and {versions.get(name, 'missing')} in requirements.lock: run `make setup`"
            )
        for needed in map(Requirement, importlib.metadata.requires(name) or []):
            if needed.marker is None or any(
                needed.marker.evaluate({**MARKERS, "extra": extra}) for extra in ("", *wanted.extras)
            ):
                todo.append(needed)
    return [f"{name}=={versions[name]}" for name in sorted({name for name, *_ in found})]


def texts() -> dict[str, str]:
    """Return the content of every file that `make envs` writes, by name."""
    found = {}
    for group in GROUPS:
        lists = {
            "conda": "\n".join(f"  - {each}" for each in CONDA),
            "pins": "\n".join(f"      - {p}" for p in pins(group)),
        }
        found[f"{group}.yaml"] = YAML.format(group=group, channel=CHANNEL, **lists)
        found[f"{group}.post-deploy.sh"] = POST_DEPLOY.format(group=group)
    return found


def conda(*arguments: str) -> str:
    """Run conda, and return what it prints. SystemExit where it is not on PATH."""
    command = shutil.which("conda")
    if command is None:
        sys.exit(
            "make pins: conda is not on PATH. Without pin files all works; python's patch version and build float."
        )
    return subprocess.run([command, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def explicit() -> str:
    """Return the exact builds of the conda packages, for a pin file: the same for every group."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = f"{folder}/env"
        conda("create", "--yes", "--quiet", "--prefix", prefix, "--override-channels", "--channel", CHANNEL, *CONDA)
        return conda("list", "--explicit", "--md5", "--prefix", prefix)


def main() -> None:
    """Write the environments, or with --pins the pin files of this platform."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pins", action="store_true", help="write the pin files; it wants conda")
    if not parser.parse_args().pins:
        written = texts()
    else:
        platform, builds = json.loads(conda("info", "--json"))["platform"], explicit()
        written = {f"{group}.{platform}.pin.txt": builds for group in GROUPS}
    for name, text in written.items():
        (HERE / name).write_text(text, encoding="utf-8")
        print(f"envs/{name}")


if __name__ == "__main__":
    main()
