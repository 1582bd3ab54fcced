"""The guides of docs/ as a person follows them: files written, diffs applied, commands typed, in the order of the page.

A fenced block with a title is a file; "(append)" in the title: added to the end of one. A block of sh is typed, unless
the line above it says `<!-- not run: why -->`.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = (
    "Snakefile",
    "Makefile",
    "params.yaml",
    "pyproject.toml",
    "envs",
    "profiles",
    "slurm",
    "splits",
    "src",
    "workflow",
)
BLOCK = re.compile(
    r'(?:<!-- not run: (?P<why>.+?) -->\n)?^```(?P<kind>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: sh, yaml, python, diff, text; why a block of sh is not run, None where it is."""

    kind: str
    title: str | None
    text: str
    why: str | None


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [Block(each["kind"], each["title"], each["text"], each["why"]) for each in BLOCK.finditer(text)]


def checkout(folder: Path) -> Path:
    """Make a checkout with an environment in `folder`, and return it."""
    folder.mkdir(parents=True)
    for name in PARTS:
        source = ROOT / name
        if source.is_dir() and not source.is_symlink():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, folder / name, follow_symlinks=False)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def follow(page: Path, here: Path, after: Callable[[Block], None] = lambda block: None) -> str:
    """Follow a page in a checkout, and return all that was printed; `after` is called after each block.

    Raises AssertionError at the first command that fails, or diff that does not fit.
    """
    said = ""
    for block in blocks(page):
        if block.title and block.kind == "diff":
            said += typed(here, "git apply -", block.text)
        elif block.title:
            put(block, here)
        elif block.kind == "sh" and not block.why:
            said += typed(here, block.text)
        after(block)
    return said


def put(block: Block, here: Path) -> None:
    """Write a block with a title to its file in a checkout, or append it."""
    name, _, appended = block.title.partition(" ")
    (here / name).parent.mkdir(parents=True, exist_ok=True)
    with (here / name).open("a" if appended else "w", encoding="utf-8") as file:
        file.write(block.text)


def typed(here: Path, commands: str, given: str = "") -> str:
    """Type commands in a checkout, offline, with its own code; return what they print."""
    own = {
        "PYTHONPATH": str(here / "src"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "GIT_CEILING_DIRECTORIES": str(here.parent),
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RADPROBE_")} | own
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=here,
        env=environment,
        input=given,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, f"{commands}\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"
    return ran.stdout + ran.stderr
