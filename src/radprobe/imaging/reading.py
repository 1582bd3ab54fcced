"""Reading PNG, JPEG, TIFF and NIfTI as native grey values: uint8, or int16 for deeper sources. No window is applied."""

import os
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image, UnidentifiedImageError

from radprobe.files import RadprobeError

Image.MAX_IMAGE_PIXELS = 200_000_000  # films of 50 megapixels are usual; a header that claims more is damaged
VOLUMES = (".nii", ".nii.gz")
SHALLOW = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}  # PIL modes of 8 bits or less
ENDS = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}  # what the end of a complete file holds
TAIL = 64  # bytes at the end in which it is looked for: some writers pad
REMEDY = "download the file again, or let it be set aside: max_quarantine"


@dataclass(frozen=True)
class Header:
    """What a file says of itself: its shape ([H, W], or [X, Y, Z] as stored), and the dtype that reading gives."""

    shape: tuple[int, ...]
    dtype: type


def is_volume(path: Path) -> bool:
    """Say whether a file is read by `read_volume`."""
    return path.name.lower().endswith(VOLUMES)


def probe(path: Path) -> Header:
    """Read a header without decoding: cheap enough for every file before anything heavy.

    Raises RadprobeError where the file is missing, empty, of no known format, or cut off before its end.
    """
    path = Path(path)
    if not path.is_file():
        raise RadprobeError(path, "is missing", REMEDY)
    if not path.stat().st_size:
        raise RadprobeError(path, "is empty", REMEDY)
    return _probe_volume(path) if is_volume(path) else _probe_image(path)


def _probe_image(path: Path) -> Header:
    try:
        with Image.open(path) as image:
            (width, height), mode, form = image.size, image.mode, image.format
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise RadprobeError(path, f"has no readable header ({error})", REMEDY) from None
    if form in ENDS and ENDS[form] not in _tail(path):
        raise RadprobeError(path, f"is cut off: the end of the {form} is missing", REMEDY)
    return Header((height, width), np.uint8 if mode in SHALLOW else np.int16)


def _tail(path: Path) -> bytes:
    with path.open("rb") as handle:
        handle.seek(-min(TAIL, path.stat().st_size), os.SEEK_END)
        return handle.read()


def _probe_volume(path: Path) -> Header:
    try:
        image = nibabel.load(path)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError) as error:
        raise RadprobeError(path, f"has no readable header ({error})", REMEDY) from None
    native = image.get_data_dtype() == np.uint8 and image.dataobj.slope == 1 and image.dataobj.inter == 0
    return Header(tuple(int(side) for side in image.shape), np.uint8 if native else np.int16)


def read_grey(path: Path) -> np.ndarray:
    """Decode an image to grey [H, W]: uint8, or int16 where a sample has 16 bits or more.

    1-bit images become 0 and 255; palettes, RGB and RGBA their luma (ITU-R 601), transparency ignored: the RGBA files
    of NIH are grey and opaque. Unsigned 16-bit values are shifted by -32,768, so that all of them fit without loss.
    Raises RadprobeError where it cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            return _grey(path, image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RadprobeError(path, f"cannot be decoded ({error})", REMEDY) from None


def _grey(path: Path, image: Image.Image) -> np.ndarray:
    if image.mode in SHALLOW:
        # a palette goes through RGB: its indices are no intensities
        return np.asarray((image.convert("RGB") if image.mode in ("P", "PA") else image).convert("L"))
    values = np.asarray(image)
    if values.dtype.kind == "u" or (values.dtype == np.int32 and values.min() >= 0 and values.max() > 32767):
        return _as_int16(path, values.astype(np.int64) - 32768)
    return _as_int16(path, values)


def _as_int16(path: Path, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise RadprobeError(path, "holds NaN or infinite values", REMEDY)
        values = np.rint(values)
    limits = np.iinfo(np.int16)
    if values.min() < limits.min or values.max() > limits.max:
        reason = f"holds values {values.min()} to {values.max()}, beyond 16 bits"
        raise RadprobeError(path, reason, "convert it to 16 bits first")
    return values.astype(np.int16)


def read_volume(path: Path, canonical: bool = True) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Read a NIfTI volume: values [X, Y, Z] (uint8 or int16), affine [4, 4], spacing in mm along each axis.

    Scaling of the header is applied. `canonical` turns the axes to the closest of RAS: they grow towards the patient's
    right, front and head. Spacing follows the axes.
    Raises RadprobeError on a damaged file, NaN, or values beyond 16 bits.
    """
    try:
        image = nibabel.load(path)
        image = nibabel.as_closest_canonical(image) if canonical else image
        values = np.asanyarray(image.dataobj)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError) as error:
        raise RadprobeError(path, f"cannot be read ({error})", REMEDY) from None
    spacing = tuple(float(step) for step in image.header.get_zooms()[:3])
    return values if values.dtype == np.uint8 else _as_int16(path, values), image.affine, spacing


def axial(volume: np.ndarray, z: int) -> np.ndarray:
    """Return slice `z` of a canonical volume [X, Y, Z] as radiologists see it, [Y, X].

    Anterior is up, and the patient's right is on the left.
    """
    return volume[::-1, ::-1, z].T
