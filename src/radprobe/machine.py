"""What this machine has: cores, memory, GPUs, file systems, commands. Facts only; what they mean is said elsewhere."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from radprobe.files import RadprobeError

WAIT_S = 5  # for a command to answer: sacct without its database never does
TORCH_WAIT_S = 60  # torch is imported, and the driver asked
# what torch says of a CPU, and of a GPU; and Python, where there is no room for a thread's stack
NO_MEMORY = ("DefaultCPUAllocator", "out of memory", "can't start new thread")
CPU_INFO, QUOTA = Path("/proc/cpuinfo"), Path("/sys/fs/cgroup/cpu.max")
GPU_SIGNS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of NVIDIA, of AMD, of either in WSL
FAST_BF16 = {"amx_bf16", "avx512_bf16", "bf16"}  # flags of x86 and (the last) of ARM
LOOK = """
import json, torch
found = []
if torch.cuda.is_available():
    for k in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(k)
        torch.ones(8, device=f"cuda:{k}").sum().item()  # a driver that is too old says so only here
        with torch.cuda.device(k):
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        found.append({"name": torch.cuda.get_device_name(k), "total": total, "free": free, "bf16": bf16})
print(json.dumps({"torch": torch.__version__, "built_for": torch.version.cuda or torch.version.hip, "gpus": found}))
"""


@dataclass(frozen=True)
class Cpu:
    """cores: those that this process may use; memory: bytes in all; fast_bf16: None where the machine does not say."""

    cores: int
    memory: int
    fast_bf16: bool | None


@dataclass(frozen=True)
class Gpu:
    """A GPU as torch sees it: name, memory in all and free (bytes), and whether it computes bf16 itself."""

    name: str
    total: int
    free: int
    bf16: bool


@dataclass(frozen=True)
class FileSystem:
    """The file system under a folder, seen by writing to it (or to its nearest parent that exists, `at`).

    error: why it cannot be written, None where it can; free in bytes, and free inodes (None: without a limit). locks
    and case_sensitive are None where nothing could be written.
    """

    at: Path
    kind: str
    free: int
    inodes: int | None
    error: str | None
    locks: bool | None
    case_sensitive: bool | None


def cpu() -> Cpu:
    """Return the cores that this process may use, by affinity and by the quota of its container, and the memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup, or no quota ("max")
        pass
    return Cpu(cores, psutil.virtual_memory().total, _fast_bf16())


def _fast_bf16() -> bool | None:
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        return None
    flags = next((line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))), None)
    return None if flags is None else bool(FAST_BF16 & set(flags.split()))


def has_gpu_signs() -> bool:
    """Say whether the machine looks as if it had a GPU; costs nothing, as torch is not asked."""
    return shutil.which("nvidia-smi") is not None or any(Path(sign).exists() for sign in GPU_SIGNS)


def gpus() -> tuple[list[Gpu], str | None]:
    """Return the GPUs that torch can use, and what torch was built for (None: CPUs only).

    In a process of its own, as a broken driver may hang it or end it. Raises RadprobeError with what it said.
    """
    remedy = "install the torch of envs/requirements.lock, and a driver that its CUDA accepts"
    try:
        ran = subprocess.run(
            [sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=TORCH_WAIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise RadprobeError("torch", f"does not answer within {TORCH_WAIT_S} s", remedy) from None
    if ran.returncode:
        last = ran.stderr.strip().splitlines()[-1:] or [f"ended with code {ran.returncode}"]
        raise RadprobeError("torch", f"fails: {last[0]}", remedy)
    seen = json.loads(ran.stdout.strip().splitlines()[-1])
    return [Gpu(**one) for one in seen["gpus"]], seen["built_for"]


def existing(folder: Path) -> Path:
    """Return a folder, or its nearest parent that exists."""
    at = folder.absolute()
    while not at.exists() and at != at.parent:
        at = at.parent
    return at


def place(folder: Path) -> FileSystem:
    """Try a folder that is there or will be: write, lock, and look how names are told apart. Nothing is left behind."""
    at = existing(folder)
    space = shutil.disk_usage(at)
    inodes = os.statvfs(at)
    left = inodes.f_favail if inodes.f_files else None  # btrfs and others make them as they go
    try:
        with tempfile.NamedTemporaryFile(prefix=".radprobe-probe-", dir=at) as probe:
            probe.write(b"x")
            probe.flush()
            locks, other = _locks(probe.fileno()), Path(probe.name).with_name(Path(probe.name).name.upper())
            return FileSystem(at, _kind(at), space.free, left, None, locks, not other.exists())
    except OSError as error:
        return FileSystem(at, _kind(at), space.free, left, error.strerror or str(error), None, None)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def _kind(folder: Path) -> str:
    """Return the type of the file system: ext4, nfs4 ...; "" where the machine does not say."""
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    folder = folder.resolve()
    return next((mounts[parent] for parent in (folder, *folder.parents) if parent in mounts), "")


def lacks_memory(error: BaseException) -> bool:
    """Say whether an error is that of a machine, or of a GPU, that has not enough memory."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY)


def answers(command: Sequence[str], wait_s: float = WAIT_S) -> str | None:
    """Return what a command prints, or None where it is not there, fails, or does not answer in `wait_s` seconds."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=wait_s, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ran.stdout.strip() if ran.returncode == 0 else None
