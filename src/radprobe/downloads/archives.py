"""Unpacking archives from outside: zip, tar and tar.gz that can neither write elsewhere nor fill the disk."""

import errno
import gzip
import lzma
import re
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Protocol, cast

from radprobe.console import say, size
from radprobe.files import RadprobeError

MAX_BYTES = 10**12  # unpacked: the largest benchmark has 0.44 TB
MAX_RATIO = 100  # unpacked to packed, over the whole archive; films and volumes are at 1 to 5
ALWAYS_ALLOWED = 64 << 20  # bytes: small archives of masks pack better than any ratio
MAX_MEMBERS = 2_000_000  # the largest benchmark has 224,316 files
MAX_NAME, MAX_PATH = 255, 1024  # bytes of a file name and of a path in the archive
MAX_HEADER = 1 << 20  # bytes of a tar header; a long name or a comment, of 100 to 1,000 bytes in practice
CHUNK = 1 << 20
DAMAGED = (  # what the libraries raise
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError),
    *(EOFError, ValueError, struct.error, RecursionError, NotImplementedError),
)


class _Seekable(Protocol):
    """A file as it is read here."""

    def read(self, size: int = -1, /) -> bytes: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def tell(self) -> int: ...


@dataclass(frozen=True)
class Unpacked:
    """What came out of an archive: files, bytes, and how many files of macOS were left out."""

    files: int
    bytes: int
    junk: int


@dataclass(frozen=True)
class _Member:
    """An entry of an archive; `fault` says why it is refused, `open` is None for folders."""

    name: str
    fault: str | None
    open: Callable[[], IO[bytes]] | None


class _Unsafe(Exception):
    """The archive does what an honest one never does, or is larger than allowed."""


def extract(archive: Path, folder: Path, max_bytes: int = MAX_BYTES, max_ratio: float = MAX_RATIO) -> Unpacked:
    """Unpack `archive` as the new folder `folder`: complete, or not at all.

    An archive that holds nothing but one folder of that name becomes this folder. Files that macOS adds (`._*`,
    `__MACOSX`, `.DS_Store`) are left out and counted. Raises RadprobeError where `folder` is there, where the archive
    is damaged, encrypted or holds no file, where a member has an absolute path, `..`, a name that cannot be written or
    is there twice, or is a link or device, and where there are too many members or bytes; caps are checked while the
    bytes come, whatever the headers say.
    """
    if folder.exists():
        raise RadprobeError(folder, "is there already", f"move it away to unpack {archive.name} again")
    stage = folder.with_name(f".{folder.name}.unpacking")  # hidden: no loader looks into it
    shutil.rmtree(stage, ignore_errors=True)  # of a run that was killed
    stage.mkdir(parents=True)
    try:
        with _explained(archive, folder):
            unpacked = _unpack(archive, stage, min(max_bytes, max(ALWAYS_ALLOWED, max_ratio * archive.stat().st_size)))
        inner = stage / folder.name
        (inner if list(stage.iterdir()) == [inner] and inner.is_dir() else stage).rename(folder)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    junk = f"; {unpacked.junk} hidden file(s) of macOS left out" if unpacked.junk else ""
    say(f"{archive.name}: {unpacked.files} files, {size(unpacked.bytes)}, in {folder}{junk}")
    return unpacked


@contextmanager
def _explained(archive: Path, folder: Path) -> Iterator[None]:
    by_hand = f"if you trust it, unpack it by hand as {folder}"
    try:
        yield
    except _Unsafe as why:
        raise RadprobeError(archive, f"is not unpacked: {why}", by_hand) from None
    except DAMAGED as error:
        reason = f"is damaged, cut off, or no zip, tar or tar.gz ({error})"
        raise RadprobeError(archive, reason, "remove it and get it again") from None
    except OSError as error:
        if error.errno == errno.EINVAL:  # a header that points before the start of the archive
            raise RadprobeError(
                archive, "is damaged: a header points outside it", "remove it and get it again"
            ) from None
        raise RadprobeError(folder, f"cannot be written ({error.strerror or error})", "make room on its disk") from None


def _unpack(archive: Path, stage: Path, max_bytes: float) -> Unpacked:
    n_files = n_bytes = junk = 0
    for count, member in enumerate(_members(archive), 1):
        if count > MAX_MEMBERS:
            raise _Unsafe(f"more than {MAX_MEMBERS:,} members")
        name = member.name.replace("\\", "/")  # some Windows programs write these
        if _is_junk(name):
            junk += 1
            continue
        fault = _name_fault(name) or member.fault
        if fault:
            raise _Unsafe(f"{member.name!r} {fault}")
        path = stage.joinpath(*_parts(name))
        with _name_taken(member.name):
            (path if member.open is None else path.parent).mkdir(parents=True, exist_ok=True)
            if member.open is None:
                continue
            with path.open("xb") as target, member.open() as source:
                n_bytes += _copy(source, target, max_bytes - n_bytes)
        n_files += 1
    if n_files == 0:
        raise _Unsafe("it holds no file")
    return Unpacked(n_files, n_bytes, junk)


@contextmanager
def _name_taken(name: str) -> Iterator[None]:
    """The disk itself tells which names are the same to it: twice, by case only, or as a file and as a folder."""
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise _Unsafe(f"{name!r} is in it twice, for this disk") from None


def _copy(source: IO[bytes], target: IO[bytes], room: float) -> int:
    n_bytes = 0
    while chunk := source.read(CHUNK):
        n_bytes += len(chunk)
        if n_bytes > room:
            raise _Unsafe("it unpacks to far more than an archive of its size should (or than is allowed)")
        target.write(chunk)
    return n_bytes


def folder_name(archive: str) -> str:
    """Return the name of the folder that an archive is unpacked as: its own, without .zip, .tar, .tar.gz or .tgz."""
    return re.sub(r"\.(zip|tar|tar\.gz|tgz)$", "", archive, flags=re.IGNORECASE)


# --- names ------------------------------------------------------------------------------------------------------------


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


def _is_junk(name: str) -> bool:
    parts = _parts(name)
    return "__MACOSX" in parts or (bool(parts) and (parts[-1].startswith("._") or parts[-1] == ".DS_Store"))


def _name_fault(name: str) -> str | None:
    parts = _parts(name)
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        return "is an absolute path"
    if ".." in parts:
        return "leads out of the folder"
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):  # control characters, bytes of no text
        return "is not a readable name"
    if len(name.encode()) > MAX_PATH or any(len(part.encode()) > MAX_NAME for part in parts):
        return "is too long a name"
    return None


# --- formats ----------------------------------------------------------------------------------------------------------


def _members(archive: Path) -> Iterator[_Member]:
    with archive.open("rb") as handle:
        start = handle.read(4)
    if start[:2] == b"PK":
        yield from _zip_members(archive)
    elif start[:2] == b"\x1f\x8b":
        with gzip.open(archive) as unpacked:
            yield from _tar_members(unpacked)
    else:
        with archive.open("rb") as stream:
            yield from _tar_members(stream)


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as content:
        for info in content.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the zip was made on Windows
            fault = None
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                fault = "is a link or a device"
            elif info.flag_bits & 1:
                fault = "is encrypted: it wants a password"
            yield _Member(info.filename, fault, None if info.is_dir() else partial(content.open, info))


def _tar_members(stream: _Seekable) -> Iterator[_Member]:
    guarded = _Headers(stream)
    with tarfile.open(fileobj=cast(IO[bytes], guarded), mode="r:") as content:
        for info in content:
            content.members.clear()  # type: ignore[attr-defined]  # else all headers stay in memory; the stubs lack it
            fault = None if info.isreg() or info.isdir() else "is a link or a device"
            yield _Member(info.name, fault, None if info.isdir() else partial(_regular, content, info))
        _check_end(stream, content.offset)


def _regular(content: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = content.extractfile(info)
    if stream is None:
        raise _Unsafe(f"{info.name!r} is no file")
    return stream


def _check_end(stream: _Seekable, offset: int) -> None:
    """Check the end mark (tarfile takes a cut-off header for one), and read on to the end: gzip's checksum is there."""
    stream.seek(offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise EOFError("the end mark is missing")
    padding = 0
    while chunk := stream.read(CHUNK):
        padding += len(chunk)
        if padding > ALWAYS_ALLOWED:
            raise _Unsafe("there are many bytes after its end")


@dataclass
class _Headers:
    """A tar stream in which no header can ask for much memory: tarfile reads each in one piece."""

    stream: _Seekable

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.stream.seek(offset, whence)

    def tell(self) -> int:
        return self.stream.tell()

    def read(self, n_bytes: int) -> bytes:
        if n_bytes > MAX_HEADER:
            raise _Unsafe(f"a header of {size(n_bytes)}")
        return self.stream.read(n_bytes)
