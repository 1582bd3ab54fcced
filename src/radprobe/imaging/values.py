"""What all readers share: what a file says of itself, a volume, and turning any numbers into 8 or 16 bits."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from radprobe.files import RadprobeError

REMEDY = "download the file again, or let it be set aside: max_quarantine"
DICOM, MAGIC = (".dcm", ".dicom", ".ima"), b"DICM"  # suffixes, and what stands behind the preamble of 128 bytes
INT16 = np.iinfo(np.int16)
MAX_PIXELS = 100_000_000  # of an image: films have up to 50 million
MAX_VOXELS = 750_000_000  # of a volume, 1.5 GB as 16 bits: 512 x 512 x 1,500 are 400 million
BLOCK = 1_000_000  # values that are converted at a time
FEW_STEPS = 64  # a range of fewer grey steps than this cannot be rounded to whole numbers without visible loss


@dataclass(frozen=True)
class Header:
    """What a file says of itself without its pixels being decoded.

    `shape` is [H, W], or [X, Y, Z] as stored; `dtype` what reading gives (np.uint8 or np.int16); `spacing` the mm along
    each axis, () where unknown; `affine` [4, 4] from voxel indices to RAS mm, None for images.
    """

    shape: tuple[int, ...]
    dtype: type
    spacing: tuple[float, ...] = ()
    affine: np.ndarray | None = field(default=None, compare=False)  # arrays have no truth value

    @property
    def of_volume(self) -> tuple[np.ndarray, tuple[int, int, int]]:
        """The affine and [X, Y, Z] of a volume. Raises ValueError for an image."""
        if self.affine is None:
            raise ValueError(f"an image of {self.shape} has no affine")
        x, y, z = self.shape
        return self.affine, (x, y, z)


class Volume(NamedTuple):
    """A volume as stored: values [X, Y, Z] uint8 or int16, affine [4, 4] to RAS mm, spacing in mm along its axes."""

    values: np.ndarray
    affine: np.ndarray
    spacing: tuple[float, float, float]


@contextmanager
def foreign(path: Path, reason: str) -> Iterator[None]:
    """Turn whatever a library raises on the bytes of a damaged file into a RadprobeError with this reason.

    Pillow, nibabel and h5py document no errors: random damage brings up TypeError and KeyError as well as OSError.
    """
    try:
        yield
    except RadprobeError:
        raise
    except Exception as error:
        why = str(error)[:300] or type(error).__name__  # some quote the file
        raise RadprobeError(path, f"{reason} ({why})", REMEDY) from None


def check_spacing(path: Path, spacing: tuple[float, ...]) -> None:
    """Raise RadprobeError where a spacing (mm) is zero, negative or not finite."""
    if not all(np.isfinite(step) and step > 0 for step in spacing):
        steps = " x ".join(f"{step:g}" for step in spacing)
        raise RadprobeError(path, f"has a spacing of {steps} mm", "convert it again from its source, or correct it")


def check_size(path: Path, shape: tuple[int, ...]) -> None:
    """Raise RadprobeError where an image or a volume has no pixels, or so many that it must be a mistake or a trap."""
    most = MAX_PIXELS if len(shape) == 2 else MAX_VOXELS
    if min(shape) < 1 or math.prod(shape) > most:
        reason = f"says that it is {' x '.join(map(str, shape))}: 1 to {most:,} values can be read"
        raise RadprobeError(path, reason, "crop or resample it, or let it be set aside: max_quarantine")


def is_dicom(path: Path, by_content: bool = False) -> bool:
    """Say whether a file is DICOM, by its content (many have no suffix) or its suffix (some lack the preamble)."""
    if not by_content and path.suffix.lower() in DICOM:
        return True
    with path.open("rb") as handle:
        return handle.read(132)[128:] == MAGIC


class Native:
    """Turns numbers that come in blocks into int16 (uint8 stays), and knows at the end whether that lost anything."""

    def __init__(self, scale: float = 1) -> None:
        self.scale = scale  # every value is multiplied by it first
        self.low, self.high, self.n_nan, self.n_infinite, self.whole = np.inf, -np.inf, 0, 0, True

    def take(self, block: np.ndarray) -> np.ndarray:
        """Return a block as uint8 or int16, rounded to the nearest (to even at ties), and remember what it held."""
        if self.scale != 1:
            block = block * self.scale
        if block.dtype in (np.uint8, np.int16):
            return block
        if block.dtype.kind in "bi" and block.dtype.itemsize == 1:
            return block.astype(np.int16)
        if block.dtype.kind == "f":
            block = self._finite(block)
        if block.size:
            self.low, self.high = min(self.low, float(block.min())), max(self.high, float(block.max()))
        if block.dtype.kind == "f":
            exact, block = block, np.rint(block)
            self.whole = self.whole and bool((np.abs(block - exact) < 1e-3).all())
        with np.errstate(invalid="ignore"):  # what does not fit is refused by `check`
            return block.astype(np.int16)

    def _finite(self, block: np.ndarray) -> np.ndarray:
        if np.isfinite(block).all():
            return block
        self.n_nan += int(np.isnan(block).sum())
        self.n_infinite += int(np.isinf(block).sum())
        finite: np.ndarray = np.nan_to_num(block, nan=0, posinf=0, neginf=0)
        return finite

    @property
    def fits(self) -> bool:
        """Whether all values are, rounded, within 16 bits."""
        return self.low >= INT16.min - 0.5 and self.high < INT16.max + 0.5

    @property
    def fine(self) -> bool:
        """Whether rounding lost fractions that tell grey values apart."""
        return not self.whole and self.high - self.low < FEW_STEPS

    @property
    def filling(self) -> float:
        """The scale at which the values that were seen fill 16 bits; 1 where they need none, or are NaN or infinite."""
        if self.n_nan or self.n_infinite or (self.fits and not self.fine):
            return 1
        return INT16.max / max(abs(self.low), abs(self.high))

    def check(self, path: Path) -> None:
        """Raise RadprobeError where a block held NaN, infinite values, values beyond 16 bits, or fine fractions."""
        if self.n_nan or self.n_infinite:
            reason = f"holds {self.n_nan:,} NaN and {self.n_infinite:,} infinite values"
            raise RadprobeError(path, reason, "replace them, or let it be set aside: max_quarantine")
        if not self.fits:
            reason = f"holds values {self.low:g} to {self.high:g}, beyond 16 bits"
            raise RadprobeError(path, reason, "convert it to signed 16 bits first")
        if self.fine:
            reason = f"holds fractions between {self.low:g} and {self.high:g}: whole numbers would lose them"
            raise RadprobeError(path, reason, "scale it up first, so that whole numbers tell grey values apart")


def native(path: Path, values: np.ndarray) -> np.ndarray:
    """Return `values` as uint8 or int16. Raises RadprobeError where that would lose something."""
    if values.dtype in (np.uint8, np.int16):
        return values
    taking, taken = Native(), np.empty(values.shape, np.int16)
    step = max(1, BLOCK // max(1, values[:1].size))  # rows at a time: the steps between take several times the memory
    for start in range(0, len(values), step):
        taken[start : start + step] = taking.take(values[start : start + step])
    taking.check(path)
    return taken


class Labels:
    """Turns numbers that come in blocks into label maps, uint8."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def take(self, block: np.ndarray) -> np.ndarray:
        """Return a block as uint8. Raises RadprobeError, naming the first, on values that are no label 0 to 255."""
        if block.dtype == np.uint8:
            return block
        whole = np.rint(block)
        # a header's slope of 1/255 as float32 gives 1.0000001: whole for all purposes
        wrong = ~((whole >= 0) & (whole <= 255) & (np.abs(block - whole) < 1e-3))
        if wrong.any():
            first = block[wrong][0]
            reason = f"holds {first:g}, which is no label (a whole number from 0 to 255)"
            raise RadprobeError(self.path, reason, "write the mask as a label map of whole numbers")
        labels: np.ndarray = whole.astype(np.uint8)
        return labels
