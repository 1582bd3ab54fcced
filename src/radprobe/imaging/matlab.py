"""MATLAB v7.3 files (HDF5) of the brain tumour set, figshare 1512427: `cjdata/image`, and small parts beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from radprobe.files import RadprobeError
from radprobe.imaging.values import Header, foreign, native

IMAGE = "cjdata/image"
DOWNLOAD = "use the files of figshare 1512427"
OLD = b"MATLAB 5.0 MAT-file"


def probe(path: Path) -> Header:
    """Read the shape [H, W] of the image. Raises RadprobeError as `read_grey` does."""
    with _part(path, IMAGE) as image:
        return Header(image.shape[::-1], np.uint8 if image.dtype == np.uint8 else np.int16)


def read_grey(path: Path) -> np.ndarray:
    """Read the image, uint8 or int16 [H, W]. MATLAB writes columns first, so HDF5 shows it transposed: undone here.

    Raises RadprobeError where the file is damaged, is a MATLAB v5 file, or has no 2-D `cjdata/image`.
    """
    with _part(path, IMAGE) as image:
        values = image[()]
    return native(path, np.ascontiguousarray(values.T))


def read_numbers(path: Path, name: str, most: int) -> np.ndarray:
    """Read a 2-D array of at most `most` numbers, as cjdata/label is. Raises RadprobeError as `read_grey` does."""
    with _part(path, name) as part:
        if part.size > most:
            raise RadprobeError(path, f"has {part.size:,} numbers in {name}, where at most {most:,} are read", DOWNLOAD)
        numbers: np.ndarray = part[()]
        return numbers


@contextmanager
def _part(path: Path, name: str) -> Iterator[h5py.Dataset]:
    with path.open("rb") as handle:
        if handle.read(len(OLD)) == OLD:
            remedy = "take the figshare download (v7.3), or in MATLAB: load it, save(name, 'cjdata', '-v7.3')"
            raise RadprobeError(path, "is a MATLAB v5 file, not v7.3 (HDF5)", remedy)
    with foreign(path, "is damaged or no MATLAB v7.3 file"), h5py.File(path, "r") as content:
        _refuse_links(path, content, name)
        part = content.get(name)
        if not isinstance(part, h5py.Dataset) or part.ndim != 2 or part.dtype.kind not in "iuf":
            raise RadprobeError(path, f"holds no array {name} of numbers", DOWNLOAD)
        if part.external or part.is_virtual:
            raise RadprobeError(path, f"takes {name} from another file", DOWNLOAD)
        yield part


def _refuse_links(path: Path, content: h5py.File, name: str) -> None:
    """HDF5 can name any other file of the machine as the place of a part of it: such a file is a trap."""
    place = content
    for inner in name.split("/"):
        if not isinstance(place, h5py.Group):
            return
        if not isinstance(place.get(inner, getlink=True), h5py.HardLink | None):
            raise RadprobeError(path, f"takes {name} from elsewhere", DOWNLOAD)
        place = place.get(inner)  # only now: opening a link opens what it names, a pipe for ever
