"""What runs a study elsewhere, and what keeps it: Slurm and DVC."""

import configparser
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from radprobe import machine
from radprobe.checks import Check
from radprobe.checks.installation import version


def slurm() -> Iterator[Check]:
    """Ask Slurm, where it is here, whether it answers."""
    if shutil.which("sbatch") is None:
        yield Check("Slurm", "ok", "not here: jobs run on this machine")
        return
    if version("snakemake-executor-plugin-slurm") is None:
        remedy = "pip install snakemake-executor-plugin-slurm, at the version of the lock"
        yield Check("Slurm", "note", "sbatch is here, but Snakemake's plugin is not", remedy)
    if machine.answers(["squeue", "--noheader", "--me"]) is None:
        remedy = "ask the administrators, or run without --profile slurm"
        yield Check("Slurm", "note", "sbatch is here, but the controller does not answer (squeue)", remedy)
    elif machine.answers(["sacct", "--noheader", "--starttime", "now"]) is None:
        yield Check("Slurm", "ok", "sbatch and squeue answer (sacct does not, nor is it asked): add --profile slurm")
    else:
        yield Check("Slurm", "ok", "sbatch, squeue and sacct answer: add --profile slurm")


def dvc() -> Check:
    """Look whether DVC is installed, set up here, and has a remote."""
    if version("dvc") is None:
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
