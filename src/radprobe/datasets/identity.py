"""What a raw download is, wherever it lies: a cheap fingerprint of its files, and their state on this machine."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from radprobe import files
from radprobe.catalog import RawEntry
from radprobe.datasets import Layout, loader


@dataclass(frozen=True)
class RawIdentity:
    """Two views of the same files.

    `fingerprint` covers the names and sizes of all files and the bytes of tables: equal downloads on two machines have
    the same. `state` covers sizes and times, so that a file that was overwritten is noticed on the machine that holds
    it.
    """

    fingerprint: str
    state: str


def identify(entry: RawEntry, layout: Layout) -> RawIdentity:
    """Return the identity of a raw download: one pass over its folders, which opens tables alone."""
    found = sorted(set(_stats(entry, layout)))
    names = hashlib.sha256(layout.variant.encode())
    states = hashlib.sha256()
    for name, size, time in found:
        names.update(f"{name}\0{size}\n".encode())
        states.update(f"{name}\0{size}\0{time}\n".encode())
    for table in layout.tables:
        names.update(files.sha256(table).encode())
    return RawIdentity(names.hexdigest()[:16], states.hexdigest()[:16])


def _stats(entry: RawEntry, layout: Layout) -> Iterator[tuple[str, int, int]]:
    """Yield name, bytes and time (ns) of every file of a download, each once."""
    listed = getattr(loader(entry), "listed", None)
    for path in {*layout.tables, *layout.files, *(listed(layout, entry) if listed else ())}:
        yield from _stat(layout.root, path)
    for folder in layout.folders:
        yield from _below(layout.root, folder)


def _stat(root: Path, path: Path) -> Iterator[tuple[str, int, int]]:
    if path.is_dir():  # a DICOM series
        yield from _below(root, path)
    elif path.exists():
        found = path.stat()
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        yield name, found.st_size, found.st_mtime_ns


def _below(root: Path, folder: Path) -> Iterator[tuple[str, int, int]]:
    """Yield the files below a folder; hidden ones, as macOS leaves in archives, are no part of a download."""
    start = folder.relative_to(root).as_posix() if folder.is_relative_to(root) else folder.name
    waiting = [(str(folder), "" if start == "." else f"{start}/")]
    seen = set()  # links may lead back up
    while waiting:
        path, prefix = waiting.pop()
        place = Path(path).stat()
        if (place.st_dev, place.st_ino) in seen:
            continue
        seen.add((place.st_dev, place.st_ino))
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    waiting.append((entry.path, f"{prefix}{entry.name}/"))
                elif entry.is_file():
                    found = entry.stat()
                    yield f"{prefix}{entry.name}", found.st_size, found.st_mtime_ns
