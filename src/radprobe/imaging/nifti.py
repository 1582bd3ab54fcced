"""NIfTI: nibabel reads the header, isal (igzip) the compressed bytes, in blocks that go straight to their place."""

import io
import math
import os
import struct
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import nibabel
import numpy as np
from isal import igzip_lib
from nibabel.arrayproxy import ArrayProxy

from radprobe.files import RadprobeError
from radprobe.imaging.values import BLOCK, REMEDY, Header, Labels, Native, Volume, check_size, check_spacing, foreign

SUFFIXES = (".nii", ".nii.gz")
NIFTI2 = 540  # bytes of its header
CHUNK = 1 << 20  # compressed bytes that are read at a time
GZIP = b"\x1f\x8b"
Stream = io.RawIOBase | io.BufferedReader


def is_nifti(path: Path) -> bool:
    """Say whether a file is a NIfTI by its name."""
    return path.name.lower().endswith(SUFFIXES)


def probe(path: Path) -> Header:
    """Read a header, and check that the voxels are all there; a compressed file is read only if its end contradicts.

    Raises RadprobeError where it is damaged or cut off, is not 3-D, or has no sound geometry.
    """
    image = _load(path)
    return Header(_shape(image), _dtype(image), _spacing(image), image.affine)


def read(path: Path, relative: bool = False) -> Volume:
    """Read a volume as stored, with the header's scaling applied: values [X, Y, Z] uint8 or int16.

    `relative` grey values (MR: the unit means nothing) that 16 bits cannot hold, or that are fine fractions, are
    multiplied so that they fill 16 bits; 0 stays 0.
    Which of qform, sform and pixdim gives the affine is nibabel's rule. Peak memory is the volume itself and a block.
    Raises RadprobeError as `probe` does, and on NaN, infinite values, and values that 16 bits cannot hold.
    """
    image = _load(path)
    taking = Native()
    values = _fill(path, image, taking, _dtype(image))
    if relative and taking.filling != 1:
        taking = Native(taking.filling)
        values = _fill(path, image, taking, np.int16)
    taking.check(path)
    return Volume(values, image.affine, _spacing(image))


def read_labels(path: Path) -> np.ndarray:
    """Read a label map uint8 [X, Y, Z]. Raises RadprobeError on what is no label: fractions, < 0, > 255, NaN."""
    return _fill(path, _load(path), Labels(path), np.uint8)  # which are checked as they come


def _load(path: Path) -> nibabel.Nifti1Image:
    with foreign(path, "has no readable header"):
        _check_pixdim(path)
        image = cast(nibabel.Nifti1Image, nibabel.load(path))
    shape = image.shape
    if len(shape) < 3 or any(side != 1 for side in shape[3:]) or min(shape) < 1:
        reason = f"is {' x '.join(map(str, shape))}, and not one volume of three axes"
        raise RadprobeError(path, reason, "write each volume to a file of its own")
    check_size(path, shape[:3])
    array = _array(image)
    if array.dtype.kind not in "iuf":
        raise RadprobeError(path, f"holds {array.dtype}, which are no grey values", "convert it first")
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-9:
        raise RadprobeError(path, "has a singular affine: its axes span no volume", "convert it again from its source")
    _check_length(path, array)
    return image


def _check_pixdim(path: Path) -> None:
    start = bytearray(NIFTI2)
    with _opened(path) as stream:
        n = _fill_up(stream, memoryview(start))
    sizes = {struct.unpack(f"{order}i", start[:4])[0] for order in "<>"}
    kind = nibabel.Nifti2Header if NIFTI2 in sizes else nibabel.Nifti1Header
    if n < kind.sizeof_hdr:
        raise EOFError("it ends within its header")
    content = bytes(start[: kind.sizeof_hdr])
    # nibabel's check would turn a spacing of 0 into 1 mm
    header = kind(content, check=False)  # type: ignore[no-untyped-call]  # nibabel gives it no types
    check_spacing(path, tuple(abs(float(step)) for step in header["pixdim"][1:4]))
    if np.isinf([header["scl_slope"], header["scl_inter"]]).any():  # NaN says that there is none; nibabel takes both so
        raise RadprobeError(path, "has an infinite scale of its values", REMEDY)


def _array(image: nibabel.Nifti1Image) -> ArrayProxy:
    return cast(ArrayProxy, image.dataobj)


def _shape(image: nibabel.Nifti1Image) -> tuple[int, int, int]:
    x, y, z = (int(side) for side in image.shape[:3])
    return x, y, z


def _dtype(image: nibabel.Nifti1Image) -> type:
    array = _array(image)
    return np.uint8 if array.dtype == np.uint8 and array.slope == 1 and array.inter == 0 else np.int16


def _spacing(image: nibabel.Nifti1Image) -> tuple[float, float, float]:
    x, y, z = (float(step) for step in image.header.get_zooms()[:3])
    return x, y, z


def _opened(path: Path) -> Stream:
    return Gunzipped(path) if path.name.lower().endswith(".gz") else path.open("rb")


def _member() -> igzip_lib.IgzipDecompressor:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


class Gunzipped(io.RawIOBase):
    """The decompressed bytes of a gzip file, its members joined; what follows the last member is not read.

    A file-like object that gives as much as it has at hand. Checksums are compared when a member ends.
    """

    def __init__(self, path: Path) -> None:
        self.handle = path.open("rb")
        self.member = _member()
        self.is_first = True  # no byte was given to the member yet

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]  # only `_fill_up` calls it
        """Fill the start of `target`, and return how many bytes: 0 at the end."""
        piece = b""
        while not piece and (compressed := self._compressed()) is not None:
            piece = self.member.decompress(compressed, len(target))
        target[: len(piece)] = piece
        return len(piece)

    def _compressed(self) -> bytes | None:
        """Return bytes for the present member, or for the next one where it has ended; None where there is none."""
        if self.is_first:
            self.is_first = False
            return self.handle.read(CHUNK)
        if not self.member.eof:
            more = self.handle.read(CHUNK) if self.member.needs_input else b""
            if not more and self.member.needs_input:
                raise EOFError("it ends before its end mark")
            return more
        start = self.member.unused_data + self.handle.read(CHUNK)
        if not start.startswith(GZIP):
            return None
        self.member = _member()
        return start

    def readable(self) -> bool:
        """Say yes."""
        return True

    def close(self) -> None:
        """Close the file."""
        self.handle.close()
        super().close()


def _fill_up(stream: Stream, target: memoryview) -> int:
    """Read until `target` is full or the stream ends; return the bytes read."""
    at = 0
    while at < len(target) and (n := stream.readinto(target[at:])):
        at += n
    return at


def _skip(stream: Stream, n_bytes: int) -> None:
    if stream.seekable():
        stream.seek(n_bytes)
        return
    passed = memoryview(bytearray(CHUNK))
    while n_bytes > 0 and (n := _fill_up(stream, passed[: min(n_bytes, CHUNK)])):
        n_bytes -= n


def _check_length(path: Path, array: ArrayProxy) -> None:
    expected = array.offset + math.prod(array.shape) * array.dtype.itemsize
    if not path.name.lower().endswith(".gz"):
        if path.stat().st_size < expected:
            raise RadprobeError(path, f"is cut off: {expected - path.stat().st_size:,} bytes are missing", REMEDY)
        return
    with path.open("rb") as handle:
        handle.seek(-4, os.SEEK_END)
        (size,) = struct.unpack("<I", handle.read())  # gzip's last field: the length before compression, modulo 2**32
    if size != expected % 2**32:  # cut off, unless written in several gzip members, or followed by other bytes
        deque(_blocks(path, array), maxlen=0)


def _fill(path: Path, image: nibabel.Nifti1Image, taking: Native | Labels, dtype: type) -> np.ndarray:
    values: np.ndarray = np.empty(math.prod(image.shape), dtype)
    at = 0
    for block in _blocks(path, _array(image)):
        values[at : at + block.size] = taking.take(block)
        at += block.size
    return values.reshape(_shape(image), order="F")


def _blocks(path: Path, array: ArrayProxy) -> Iterator[np.ndarray]:
    """Yield the voxels in stored order, scaled as the header says (float64 where it does)."""
    left = math.prod(array.shape)
    with foreign(path, "is damaged or cut off"), _opened(path) as stream:
        _skip(stream, array.offset)
        while left:
            block = np.empty(min(left, BLOCK), array.dtype)
            if _fill_up(stream, block.data.cast("B")) < block.nbytes:
                raise EOFError("voxels are missing at the end")
            left -= block.size
            yield _scaled(block, float(array.slope), float(array.inter))
        stream.read(1)  # gzip compares its checksum when it comes to the end


def _scaled(block: np.ndarray, slope: float, inter: float) -> np.ndarray:
    return block if slope == 1 and inter == 0 else block * slope + inter
