"""One job a GPU on a machine without a scheduler; where a scheduler gave a job its GPUs, they stay as they are.

CUDA reads CUDA_VISIBLE_DEVICES once, so this comes before anything imports torch.
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from radprobe import machine

VISIBLE = "CUDA_VISIBLE_DEVICES"
SCHEDULERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")  # Slurm, PBS, LSF, Grid Engine
WAIT_S = 0.5  # between two looks at the GPUs
LISTING_S = 60  # without persistence mode, many GPUs take long to be listed
UUID = re.compile(r"^( *).*\(UUID: ([^)]+)\)")


@contextmanager
def one(on_wait: Callable[[str], None] = print, folder: Path | None = None) -> Iterator[str | None]:
    """Hold one GPU that no other job of this user holds, waiting for it; only it is visible in the block. Yield it.

    None, and nothing is changed, where a scheduler runs the job or no GPU is here. The user's CUDA_VISIBLE_DEVICES says
    which GPUs may be taken. The kernel releases a GPU when its holder dies. `folder`: of the locks, one a machine.
    """
    choices = {} if any(name in os.environ for name in SCHEDULERS) else _choices(on_wait)
    if not choices:
        yield None
        return
    before = os.environ.get(VISIBLE)
    name, held = _take(choices, folder or _folder(), on_wait)
    os.environ[VISIBLE] = name
    try:
        yield name
    finally:
        held.release()
        if before is None:
            del os.environ[VISIBLE]
        else:
            os.environ[VISIBLE] = before


def _take(choices: dict[str, str], folder: Path, on_wait: Callable[[str], None]) -> tuple[str, FileLock]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    told = False
    while True:
        for name, identity in choices.items():
            lock = FileLock(folder / f"{identity.replace('/', '-')}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            return name, lock
        if not told:
            on_wait(f"waiting for a GPU: each of {len(choices)} has a job")
            told = True
        time.sleep(WAIT_S)


def _folder() -> Path:
    """Return the folder of the locks: one for a user and machine, whatever the environment of a session says."""
    return Path("/tmp") / f"radprobe-gpus-{os.getuid()}"  # noqa: S108 - TMPDIR may be a session's own


def _choices(on_wait: Callable[[str], None]) -> dict[str, str]:
    """Return the GPUs that may be taken: name for CUDA_VISIBLE_DEVICES -> identity, the same for any way to name it."""
    listing = machine.answers(["nvidia-smi", "-L"], LISTING_S)
    if listing is None and shutil.which("nvidia-smi"):
        on_wait("nvidia-smi gives no answer: this job holds no GPU, and may share one with another")
    here = identities(listing or "")
    if VISIBLE not in os.environ:
        return {identity: identity for identity in here}
    chosen = [name.strip() for name in os.environ[VISIBLE].split(",") if name.strip()]
    if "-1" in chosen:  # CUDA's way to say none from here on
        chosen = chosen[: chosen.index("-1")]
    numbered = {str(number): identity for number, identity in enumerate(here)}
    return {name: numbered.get(name, name) for name in chosen} if here else {}


def identities(listing: str) -> list[str]:
    """Return the UUIDs in what `nvidia-smi -L` prints; the slices of a GPU that is cut up (MIG) stand for it."""
    found: list[str] = []
    whole = None
    for match in filter(None, map(UUID.match, listing.splitlines())):
        if match[1]:  # indented: a slice of the GPU above
            if found and found[-1] == whole:
                found.pop()
            found.append(match[2])
        else:
            whole = match[2]
            found.append(whole)
    return found
