"""What all readers share: what a file says of itself, a volume, and turning any numbers into 8 or 16 bits."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from radprobe.files import RadprobeError

REMEDY = "download the file again, or let it be set aside: max_quarantine"
DICOM, MAGIC = (".dcm", ".dicom", ".ima"), b"DICM"  # suffixes, and what stands behind the preamble of 128 bytes
INT16 = np.iinfo(np.int16)
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


class Volume(NamedTuple):
    """A volume as stored: values [X, Y, Z] uint8 or int16, affine [4, 4] to RAS mm, spacing in mm along its axes."""

    values: np.ndarray
    affine: np.ndarray
    spacing: tuple[float, float, float]


def check_spacing(path: Path, spacing: tuple[float, ...]) -> None:
    """Raise RadprobeError where a spacing (mm) is zero, negative or not finite."""
    if not all(np.isfinite(step) and step > 0 for step in spacing):
        steps = " x ".join(f"{step:g}" for step in spacing)
        raise RadprobeError(path, f"has a spacing of {steps} mm", "convert it again from its source, or correct it")


def is_dicom(path: Path, by_content: bool = False) -> bool:
    """Say whether a file is DICOM, by its content (many have no suffix) or its suffix (some lack the preamble)."""
    if not by_content and path.suffix.lower() in DICOM:
        return True
    with path.open("rb") as handle:
        return handle.read(132)[128:] == MAGIC


class Native:
    """Turns numbers that come in blocks into int16 (uint8 stays), and knows at the end whether that lost anything."""

    def __init__(self) -> None:
        self.low, self.high, self.n_nan, self.n_infinite, self.whole = np.inf, -np.inf, 0, 0, True

    def take(self, block: np.ndarray) -> np.ndarray:
        """Return a block as uint8 or int16, rounded to the nearest (to even at ties), and remember what it held."""
        if block.dtype in (np.uint8, np.int16):
            return block
        if block.dtype.kind in "bi" and block.dtype.itemsize == 1:
            return block.astype(np.int16)
        if block.dtype.kind == "f":
            block = self._rounded(block)
        if block.size:
            self.low, self.high = min(self.low, block.min()), max(self.high, block.max())
        with np.errstate(invalid="ignore"):  # what does not fit is refused by `check`
            return block.astype(np.int16)

    def _rounded(self, block: np.ndarray) -> np.ndarray:
        self.n_nan += int(np.isnan(block).sum())
        self.n_infinite += int(np.isinf(block).sum())
        block = np.nan_to_num(block, nan=0, posinf=0, neginf=0)
        rounded = np.rint(block)
        self.whole = self.whole and bool((np.abs(rounded - block) < 1e-3).all())
        return rounded

    def check(self, path: Path) -> None:
        """Raise RadprobeError where a block held NaN, infinite values, values beyond 16 bits, or fine fractions."""
        if self.n_nan or self.n_infinite:
            reason = f"holds {self.n_nan:,} NaN and {self.n_infinite:,} infinite values"
            raise RadprobeError(path, reason, "replace them, or let it be set aside: max_quarantine")
        if self.low < INT16.min or self.high > INT16.max:
            reason = f"holds values {self.low:g} to {self.high:g}, beyond 16 bits"
            raise RadprobeError(path, reason, "convert it to signed 16 bits first")
        if not self.whole and self.high - self.low < FEW_STEPS:
            reason = f"holds fractions between {self.low:g} and {self.high:g}: whole numbers would lose them"
            raise RadprobeError(path, reason, "scale it up first, so that whole numbers tell grey values apart")


def native(path: Path, values: np.ndarray) -> np.ndarray:
    """Return `values` as uint8 or int16. Raises RadprobeError where that would lose something."""
    taking = Native()
    taken = taking.take(values)
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
        return whole.astype(np.uint8)

    def check(self, path: Path) -> None:
        """Do nothing: blocks were checked as they came."""
