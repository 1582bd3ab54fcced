"""The benchmarks: one short module each, from a raw layout to samples, and a generator of phantom raw downloads.

A loader module `radprobe.datasets.<id>` has
- `locate(raw: Path) -> Layout | None`: which known layout lies under `raw`; cheap, no image and no table is read;
- `samples(layout, dataset: catalog.Dataset, allow_missing: bool) -> Index`: one row per image or slice;
- `phantom(folder: Path, patients: int, seed: int) -> None`: writes a generated raw download of the official layout,
  with the marker file PHANTOM.json, whose labels can be learnt (benchmarks with a public download only).
"""

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

PHANTOM_MARKER = "PHANTOM.json"


@dataclass(frozen=True)
class Layout:
    """Where the parts of a raw download were found. Paths in the Index are relative to `root`."""

    root: Path
    variant: str  # official | flat | ...
    tables: tuple[Path, ...] = ()  # label tables and lists
    folders: tuple[Path, ...] = field(default=())  # folders that hold images or masks
    files: tuple[Path, ...] = ()  # single volumes, where the folder around them holds other things too


def loader(dataset: str) -> ModuleType:
    """Return the loader module of a dataset."""
    return importlib.import_module(f"radprobe.datasets.{dataset}")


def locate(dataset: str, raw: Path) -> Layout | None:
    """Return the layout of `dataset` that lies under `raw`, or None."""
    return loader(dataset).locate(raw) if raw.is_dir() else None
