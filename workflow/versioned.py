"""What DVC brings and keeps beside what dvc.yaml names: pixels in a second place, and times that are in order.

python workflow/versioned.py lay DATASET    work/DATASET/prepare -> work/pixels/DATASET, for those under `dvc.pixels`
python workflow/versioned.py bring          pixels back to where stages look for them, after `dvc pull`
python workflow/versioned.py ordered        fails where DVC brought manifests since the last `python ... order`
python workflow/versioned.py order          says that their times are in order now
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from radprobe import files
from radprobe.study import Study

WORK = Path("work")
PIXELS = ("images.npy", "masks.npy")
ORDERED = Path(".snakemake/ordered")


def link(source: Path, target: Path) -> None:
    """Let a file stand in two places; it takes its room once, until DVC puts a copy in place of one."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
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
        dataset, key, name = file.parts[-3:]
        if (WORK / dataset / "prepare" / key).is_dir():
            link(file, WORK / dataset / "prepare" / key / name)


def brought() -> Iterator[Path]:
    """Yield the manifests of the study that came through DVC."""
    manifests = (path for step in Study(Path("params.yaml")).steps.values() for path in step.outputs)
    yield from filter(files.was_pulled, manifests)


def ordered() -> None:
    """Fail where DVC brought manifests since their times were put in order, which leaves them newer than that."""
    since = ORDERED.stat().st_mtime_ns if ORDERED.is_file() else 0
    sys.exit(any(manifest.stat().st_mtime_ns > since for manifest in brought()))


def order() -> None:
    """Remember that times are in order now."""
    ORDERED.parent.mkdir(exist_ok=True)
    ORDERED.touch()


if __name__ == "__main__":
    {function.__name__: function for function in (lay, bring, ordered, order)}[sys.argv[1]](*sys.argv[2:])
