"""What Snakemake asks of conda, without conda: environments hold the pinned packages of this Python, and no others.

`install(folder)` puts `conda` and `apptainer` into folder/bin. An environment's Python notes each of its runs in `ran`.
"""

import importlib.metadata
import json
import sys
import venv
from pathlib import Path

import yaml

ACTIVATE = """
# as conda's activate.py: in front of PATH, or in the place of what is active
case "${CONDA_SHLVL:-0}" in
  0) PATH="$1/bin:$PATH" ;;
  *) PATH="${PATH//"$CONDA_PREFIX/bin"/"$1/bin"}" ;;
esac
export PATH CONDA_PREFIX="$1"
"""
APPTAINER = """#!/bin/bash
if [ "$1" = --version ]; then echo apptainer version 1.3.4; exit; fi
while [ "$1" != bash ]; do image="$1"; shift; done
PATH="$image/bin:/usr/bin:/bin" exec "$@"
"""


def install(folder: Path) -> None:
    """Put `conda` and `apptainer` into folder/bin, and conda's `activate` where it says that it is."""
    scripts = {
        "bin/conda": f'#!/bin/sh\nexec {sys.executable} {__file__} {folder} "$@"\n',
        "bin/apptainer": APPTAINER,
        "root/bin/activate": ACTIVATE,
    }
    for name, text in scripts.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)


def environment(prefix: Path, packages: list[str], ran: Path) -> None:
    """Make an environment of packages that are installed here, as links."""
    venv.create(prefix, with_pip=False, symlinks=True)
    site = next(prefix.glob("lib/python*/site-packages"))
    for package in packages:
        found = importlib.metadata.distribution(package)
        for part in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
            if not (site / part).exists():
                (site / part).symlink_to(Path(found.locate_file(part)))
    note = f"open({str(ran)!r}, 'a').write(' '.join([sys.prefix, *sys.orig_argv]) + chr(10))"
    (site / "note.pth").write_text(f"import sys; {note}\n")


def main(folder: Path, *words: str) -> None:
    """Answer one call."""
    said = " ".join(words)
    if said == "info --json":
        print(json.dumps({"conda_prefix": str(folder / "root"), "platform": "linux-64"}))
    elif said == "--version":
        print("conda 25.1.1")
    elif words[0] == "config":
        print(json.dumps({"get": {"channel_priority": "strict"}}))
    elif words[:2] == ("env", "create"):
        needs = yaml.safe_load(Path(words[words.index("--file") + 1]).read_text())["dependencies"]
        pins = [pin.split("==")[0] for pin in needs[-1]["pip"]]
        environment(Path(words[words.index("--prefix") + 1]), ["pip", *pins], folder / "ran")
    elif words[0] == "create":
        (folder / "asked").write_text(said)
    elif words[:2] == ("list", "--explicit"):
        print("@EXPLICIT\nhttps://conda.anaconda.org/conda-forge/linux-64/python-3.11.14-h0_0.conda#0")
    elif words[0] != "clean":
        sys.exit(f"fake conda: {said}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
