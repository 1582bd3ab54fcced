"""Where things run and what they took."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from radprobe import machine
from radprobe.files import RadprobeError

GB = 1e9
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes


def device(choice: str) -> torch.device:
    """Return the device of params: auto (CUDA where there is one), cpu or cuda."""
    here = torch.cuda.is_available()
    if choice == "cuda" and not here:
        raise RadprobeError("params: device", "cuda is asked for but torch sees no GPU", "set it to auto or cpu")
    return torch.device("cuda" if here and choice != "cpu" else "cpu")


def device_name(where: torch.device) -> str:
    """Return the name of a GPU, or cpu."""
    return torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"


def peak_gb(where: torch.device) -> float:
    """Return the largest memory of this process so far, in GB: of the GPU, or resident."""
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated(where) / GB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT / GB


@contextmanager
def measured(facts: dict[str, Any], where: torch.device) -> Iterator[None]:
    """Add `seconds` and `peak_gb` of the block to `facts`."""
    begun = time.perf_counter()
    yield
    facts["seconds"] = time.perf_counter() - begun
    facts["peak_gb"] = peak_gb(where)


@contextmanager
def fits(what: str, where: torch.device) -> Iterator[None]:
    """Tell what to do when the block asks for more memory than there is. Raises RadprobeError that names `what`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if machine.lacks_memory(error):
            reason = f"a batch does not fit into the memory of the {'GPU' if where.type == 'cuda' else 'machine'}"
            remedy = (
                "give it smaller images (size), or halve batch_size: where it adapts, double adapt.accumulate with "
            )
            remedy += "it, which trains the same; a decoder or a network from scratch trains otherwise then"
            raise RadprobeError(what, reason, remedy) from error
        raise


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Run the block with `n` threads of torch, and of the BLAS of numpy and scipy, whose idle ones spin for work."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        with threadpool_limits(n, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
