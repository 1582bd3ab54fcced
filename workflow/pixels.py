"""Prepared pixels beside what DVC keeps of a dataset, for those under `dvc.pixels`; .dvcignore leaves out all others.

python workflow/pixels.py lay DATASET    work/DATASET/prepare -> work/pixels/DATASET, an out of dvc.yaml
python workflow/pixels.py bring          back to where stages look for them, after `dvc pull`
"""

import sys
from pathlib import Path

WORK = Path("work")
PIXELS = ("images.npy", "masks.npy")


def link(source: Path, target: Path) -> None:
    """Let a file stand in two places; it takes its room once, until DVC puts a copy in place of one."""
    if target.exists() and target.samefile(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # of the same name, so of the same bytes, or damaged
    target.hardlink_to(source)


def lay(dataset: str) -> None:
    """Let the pixels of a dataset stand where DVC keeps them."""
    prepared, kept = WORK / dataset / "prepare", WORK / "pixels" / dataset
    kept.mkdir(parents=True, exist_ok=True)  # DVC has emptied it
    for name in PIXELS:
        for file in prepared.glob(f"*/{name}"):
            link(file, kept / file.relative_to(prepared))


def bring() -> None:
    """Let pixels that DVC brought stand beside their manifests."""
    for file in WORK.glob("pixels/*/*/*.npy"):
        dataset, spec, name = file.parts[-3:]
        if (WORK / dataset / "prepare" / spec).is_dir():
            link(file, WORK / dataset / "prepare" / spec / name)


if __name__ == "__main__":
    {"lay": lay, "bring": bring}[sys.argv[1]](*sys.argv[2:])
