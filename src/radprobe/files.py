"""Writing files so that a kill leaves the old one or the new one, hashing them, and one lock per artifact.

Besides, the header of a safetensors file, which needs no torch.
"""

import atexit
import errno
import functools
import hashlib
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

Item = TypeVar("Item")
Result = TypeVar("Result")
TEMPORARY = ".partial"
# Snakemake's `update(...)` is no substitute: it restores a failed job's manifest as new, and the next run does nothing.
TWIN = ".made"  # a manifest's second name
_COPYING = threading.Lock()  # threads of a process would copy to one temporary name
LARGEST_HEADER = 100_000_000  # bytes of a safetensors file's header, as its library allows
BACK_S = 30  # from the removal of a manifest to the start of the job that puts it back


class RadprobeError(Exception):
    """A problem that the user can mend. The message names the file (or key), the reason and the remedy."""

    def __init__(self, what: str | Path, reason: str, remedy: str):
        self.what, self.reason, self.remedy = str(what), reason, remedy
        super().__init__(f"{what}: {reason}\n  -> {remedy}")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success fsync it and rename it to `path`, on failure remove it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        yield temporary
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def put_in_place(temporary: Path, path: Path) -> None:
    """Fsync a finished file and rename it to `path`: whatever happens, the old file or the new one is there."""
    with temporary.open("rb") as handle:
        os.fsync(handle.fileno())
    temporary.replace(path)
    _fsync_folder(path.parent)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reserve(path: Path) -> None:
    """Take the room of a sparse file: a full disk is then an OSError here, and no crash where its map is written."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with path.open("r+b") as handle:
        try:
            os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot do so
                raise OSError(error.errno, error.strerror, str(path)) from None


def twin(manifest: Path) -> Path:
    """Return the name under which a manifest is kept a second time."""
    return manifest.with_name(f"{manifest.name}{TWIN}")


def keep_twin(manifest: Path) -> None:
    """Keep a manifest under its second name too.

    Snakemake removes what a job is to make before the job starts, also what another run made after the graph was built.
    """
    _copy(manifest, twin(manifest))


def was_pulled(manifest: Path) -> bool:
    """Return whether a manifest came through DVC, which leaves out its second copy.

    DVC runs no code of ours on a pull that could record it. A lost second copy errs on the safe side: pixels and dense
    maps that are missing do not set aside what counts as pulled.
    """
    return manifest.is_file() and not twin(manifest).is_file()


def _copy(source: Path, to: Path) -> None:
    with atomic(to) as temporary:
        shutil.copy2(source, temporary)  # with its time: what was made from it stays newer


def restore(manifests: list[Path], since: float) -> None:
    """Put manifests back that another run wrote after `since` (seconds since 1970), all of them or none."""
    twins = [twin(manifest) for manifest in manifests]
    if all(each.is_file() and each.stat().st_mtime > since for each in twins):
        for manifest, kept in zip(manifests, twins, strict=True):
            if not manifest.is_file():
                _copy(kept, manifest)


def wait_for(manifests: list[Path], on_wait: Callable[[str], None] = print) -> None:
    """Wait while another run puts back manifests that were there before; return when they are, or nobody does."""
    gone = [manifest for manifest in manifests if not manifest.is_file() and twin(manifest).is_file()]
    if not gone:
        return
    on_wait(f"{gone[0]}: another run is about to put it back")
    until = time.monotonic() + BACK_S
    while not all(manifest.is_file() for manifest in gone) and time.monotonic() < until:
        time.sleep(0.2)
        with lock(gone[0].parent / "lock", on_wait=on_wait):  # held while it is made
            pass


DISK, QUOTA = "the disk is full", "the disk quota is used up"
FULL = {errno.ENOSPC: DISK, errno.EDQUOT: QUOTA}
FULL_WORDS = {"no space left": DISK, "not enough free space": DISK, "quota exceeded": QUOTA}  # libraries hide numbers
FULL_WORDS["requested and"] = "the disk or its quota may be full"  # all that numpy says
MAKE_ROOM = "make room (`radprobe gc` lists what no study needs) or name another disk (paths.work, paths.results)"
UNWRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}


def _used(number: int | None) -> str:
    return "written" if number == errno.EROFS else "read or written"  # an error of permission does not say which


def _of_the_system(error: Exception) -> tuple[int | None, str | None, str | None]:
    """Return the number, the file and the reason that the system gives; None where it gives none."""
    return (error.errno, error.filename, error.strerror) if isinstance(error, OSError) else (None, None, None)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a disk that is full, over its quota or read-only, and a lack of permission, into a RadprobeError."""
    try:
        yield
    except RadprobeError:
        raise
    except Exception as error:
        number, what, why = _of_the_system(error)
        said = str(error).lower()
        full = FULL.get(number or 0) or next((why for words, why in FULL_WORDS.items() if words in said), None)
        if not full and number not in UNWRITABLE:
            raise
        reason = f"cannot be written: {full}" if full else f"may not be {_used(number)} ({why})"
        remedy = f"{MAKE_ROOM if full else 'allow it'}, and run again: what is complete is kept"
        raise RadprobeError(what or folder, reason, remedy) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """Write `content` as readable JSON with sorted keys, atomically."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def link_or_copy(source: Path, target: Path) -> str:
    """Give a file a second name, or copy it if the file system cannot do that; return "linked" or "copied"."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
        return "copied"
    return "linked"


def near(path: Path) -> Path:
    """Return the file that is best mapped in place of `path`: a copy on a disk of this machine, or `path` itself.

    RADPROBE_SCRATCH names a folder there, also by a variable of the job ('$SLURM_TMPDIR'); else nothing is copied.
    Copies are made once a process, and gone when it ends. What does not fit is read from where it is.
    """
    folder = _scratch()
    if folder is None:
        return path
    found = path.stat()
    copy = folder / digest([str(path.resolve()), found.st_size, found.st_mtime_ns])
    if shutil.disk_usage(folder).free < found.st_size:
        return copy if copy.exists() else path
    try:
        with _COPYING:
            if not copy.exists():
                with atomic(copy) as temporary:
                    shutil.copyfile(path, temporary)
    except OSError:  # another job has filled the disk meanwhile
        return path
    return copy


@functools.cache
def _scratch() -> Path | None:
    named = os.path.expandvars(os.environ.get("RADPROBE_SCRATCH", ""))
    if not named:
        return None
    try:
        folder = Path(tempfile.mkdtemp(prefix="radprobe-", dir=named))
    except OSError as error:
        raise RadprobeError(
            f"RADPROBE_SCRATCH: {named}", str(error), "name a folder to write to, or unset it"
        ) from None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def cached_sha256(path: Path, cache: Path) -> str:
    """Return the SHA-256 of a file from the JSON `cache`, if the file has the size and time it had then; else hash it.

    A cache that cannot be written is no error: the file is then hashed each time.
    """
    found = path.stat()
    state = (found.st_size, found.st_mtime_ns)
    known: dict[str, tuple[int, int, str]]
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    name = str(path.resolve())
    if name not in known or tuple(known[name][:2]) != state:
        known[name] = (*state, sha256(path))
        with suppress(OSError):
            write_json(cache, known)
    return known[name][2]


def safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file, and the byte at which its tensors begin.

    Raises OSError or ValueError where there is none.
    """
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        try:
            header = json.loads(handle.read(min(length, LARGEST_HEADER)))
        except (ValueError, RecursionError):
            header = None
    if not isinstance(header, dict):
        raise ValueError(f"{path} has no header of safetensors")
    return header, 8 + length


def in_threads(function: Callable[[Item], Result], items: list[Item], threads: int = 8) -> list[Result]:
    """Return `[function(item) for item in items]`, computed by threads (hashing and reading release the GIL)."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


def stream_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int = 8, ahead: int = 2
) -> Iterator[Result]:
    """Yield `function(item)` in order; at most `ahead` results for each thread wait, so memory is bounded."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= ahead * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def digest(content: object) -> str:
    """Return 12 hexadecimal digits that identify JSON-like `content`, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@contextmanager
def lock(path: Path, wait_s: float = -1, on_wait: Callable[[str], None] = print) -> Iterator[None]:
    """Hold the lock file `path`, waiting for another owner (by default for ever).

    The kernel releases it when the owner dies, so a `kill -9` leaves nothing to clean up. The file names host and pid.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    guard = FileLock(path)
    try:
        guard.acquire(timeout=0)
    except Timeout:
        owner = path.read_text() or "another process"
        on_wait(f"{path.parent}: waiting for {owner}, which is making it")
        try:
            guard.acquire(timeout=wait_s)
        except Timeout:
            raise RadprobeError(path.parent, f"still held by {owner}", "wait for it to end, or stop it") from None
    try:
        path.write_text(f"{socket.gethostname()} pid {os.getpid()}")
        yield
    finally:
        guard.release()
