"""The benchmarks: one short module each, from a raw layout to samples.

A loader module `radprobe.datasets.<loader>` has
- `locate(entry, raw: Path) -> Layout | None`: which known layout lies under `raw`; cheap, no image or table is read;
- `samples(layout, entry, allow_missing: bool) -> Index`: one row per image or slice;
- optionally `listed(layout, entry) -> set[Path]`: files that lie in no folder of the layout, for its fingerprint.
`entry` is the catalog.Dataset as the study uses it.
"""

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from radprobe.catalog import Dataset, RawEntry

PHANTOM_MARKER = "PHANTOM.json"
DOWNLOADING, DOWNLOADED = "DOWNLOADING.json", "DOWNLOADED.json"  # in a raw folder that `retrieve` fills, or has filled


UNLESS_BY_HAND = "if you have put the whole dataset there yourself, remove {}"


@dataclass(frozen=True)
class Layout:
    """Where the parts of a raw download were found. Paths in the Index are relative to `root`."""

    root: Path
    variant: str  # official | flat | ...
    tables: tuple[Path, ...] = ()  # label tables and lists
    folders: tuple[Path, ...] = field(default=())  # folders that hold images or masks
    files: tuple[Path, ...] = ()  # single volumes, where the folder around them holds other things too


def loader(entry: RawEntry) -> ModuleType:
    """Return the loader module of a dataset."""
    return importlib.import_module(f"radprobe.datasets.{entry.loader}")


def locate(entry: RawEntry, raw: Path) -> Layout | None:
    """Return the layout of a dataset that lies under `raw`; None where there is none, or its download goes on."""
    whole = raw.is_dir() and not (raw / DOWNLOADING).is_file()
    return loader(entry).locate(entry, raw) if whole else None


def absent_by_hand(entry: Dataset, raw: Path) -> list[str]:
    """Return the patterns of files that no link gives, and of which none is under `raw`."""
    return [pattern for pattern in entry.by_hand if not next(raw.rglob(pattern), None)]
