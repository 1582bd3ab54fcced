"""PNG, JPEG, TIFF and BMP through Pillow."""

import os
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from radprobe.files import RadprobeError
from radprobe.imaging.values import MAX_PIXELS, REMEDY, Header, foreign, native

Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow warns of more, and refuses twice as many before it decodes anything
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
SHALLOW = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}  # PIL modes of 8 bits or less
ENDS = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}  # what the end of a complete file holds
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG, by its colour type
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # interlacing
TAIL = 64  # bytes at the end in which it is looked for: some writers pad
ORIENTATION, PHOTOMETRIC, BLACK_IS_ZERO = 0x0112, 262, 1  # TIFF tags, which EXIF uses as well
STRIPS = ((273, 279), (324, 325))  # TIFF tags: offsets and byte counts of strips, of tiles


def probe(path: Path) -> Header:
    """Read the header of an image. Raises RadprobeError where it is no image, is cut off or has several pages."""
    with foreign(path, "has no readable header"), _opened(path) as image:
        _refuse_pages(path, image)
        _refuse_cut_off(path, image)
        return Header(_shape(image), np.uint8 if image.mode in SHALLOW else np.int16)


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        raise RadprobeError(path, "is of no known format, or its header is damaged", REMEDY) from None


def _shape(image: Image.Image) -> tuple[int, int]:
    sideways = _is_jpeg(image) and image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    return image.size if sideways else image.size[::-1]


def _is_jpeg(image: Image.Image) -> bool:
    return image.format in ("JPEG", "MPO")  # MPO: a JPEG with further pictures (a preview) behind the first


def _refuse_pages(path: Path, image: Image.Image) -> None:
    pages = 1 if _is_jpeg(image) else getattr(image, "n_frames", 1)
    if pages > 1:
        raise RadprobeError(path, f"has {pages} pages", "write each page to a file of its own, or the stack as NIfTI")


def _refuse_cut_off(path: Path, image: Image.Image) -> None:
    form = "JPEG" if _is_jpeg(image) else image.format
    if form in ENDS and ENDS[form] not in _tail(path):
        raise RadprobeError(path, f"is cut off: the end of the {form} is missing", REMEDY)
    if form == "TIFF" and _end_of_strips(image) > path.stat().st_size:
        raise RadprobeError(path, "is cut off: it ends before its last strip", REMEDY)


def _tags(image: Image.Image) -> Mapping[int, Any]:
    """Return the tags of a TIFF."""
    return image.tag_v2 if isinstance(image, TiffImageFile) else {}


def _end_of_strips(image: Image.Image) -> int:
    tags = _tags(image)
    pairs = [(tags[offsets], tags[counts]) for offsets, counts in STRIPS if counts in tags]
    return max((o + n for offsets, counts in pairs for o, n in zip(offsets, counts, strict=True)), default=0)


def _tail(path: Path) -> bytes:
    with path.open("rb") as handle:
        handle.seek(-min(TAIL, path.stat().st_size), os.SEEK_END)
        return handle.read()


def read_grey(path: Path) -> np.ndarray:
    """Decode an image to grey [H, W]: uint8, or int16 where a grey sample has 16 bits or more.

    1-bit images become 0 and 255; palettes and colours their luma (ITU-R 601), 8 bits deep; transparency is ignored:
    the RGBA files of NIH are grey and opaque. Unsigned 16-bit values are shifted by -32,768, so that all of them fit
    without loss. The EXIF rotation of a JPEG is applied. Raises RadprobeError where it cannot be decoded.
    """
    return _read(path, _grey)


def read_stored(path: Path) -> np.ndarray:
    """Decode a mask to the values that are stored, [H, W]: 1-bit as 0 and 1, palettes as their indices.

    Raises RadprobeError where it cannot be decoded, or is coloured: a colour is no label.
    """
    return _read(path, _stored)


def _read(path: Path, values_of: Callable[[Path, Image.Image], np.ndarray]) -> np.ndarray:
    with foreign(path, "cannot be decoded"), _opened(path) as image:
        _refuse_pages(path, image)
        if image.mode == "P" and image.palette is None:
            raise RadprobeError(path, "has indices into a palette, and no palette", REMEDY)
        values = values_of(path, ImageOps.exif_transpose(image) if _is_jpeg(image) else image)
        # Pillow leaves what is missing at 0
        suspect = image.format == "PNG" and (image.info.get("interlace") or not np.ptp(values[-1]))
        if suspect and _png_ends_early(path):
            raise RadprobeError(path, "is cut off: it has fewer rows than it says", REMEDY)
        return values


def _png_ends_early(path: Path) -> bool:
    """Say whether the compressed pixels of a PNG are fewer than its header says."""
    content = path.read_bytes()
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", content[16:29])
    needed = 0
    for x, y, across, down in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - x) // across), -(-(height - y) // down)
        needed += rows * (1 + -(-columns * depth * CHANNELS[colour] // 8)) if min(columns, rows) > 0 else 0
    packer, at, found = zlib.decompressobj(), 8, 0
    while at + 8 <= len(content) and not packer.eof:
        (length,) = struct.unpack(">I", content[at : at + 4])
        piece = content[at + 8 : at + 8 + length] if content[at + 4 : at + 8] == b"IDAT" else b""
        while piece:
            found += len(packer.decompress(piece, 1 << 20))
            piece = packer.unconsumed_tail
        at += 12 + length
    return found < needed


def _grey(path: Path, image: Image.Image) -> np.ndarray:
    if image.mode in SHALLOW:
        # a palette goes through RGB: its indices are no intensities
        return np.asarray((image.convert("RGB") if image.mode in ("P", "PA") else image).convert("L"))
    values = np.asarray(image)
    if values.dtype == np.uint16:
        if image.format == "TIFF" and _tags(image).get(PHOTOMETRIC, BLACK_IS_ZERO) == 0:  # Pillow inverts 8 bits only
            values = 65535 - values
        return (values ^ 0x8000).view(np.int16)  # minus 32,768
    return native(path, values)


def _stored(path: Path, image: Image.Image) -> np.ndarray:
    if image.mode in ("LA", "PA"):
        return np.asarray(image)[..., 0]
    if image.mode not in ("RGB", "RGBA"):
        return np.asarray(image).astype(np.uint8) if image.mode == "1" else np.asarray(image)
    colours = np.asarray(image)[..., :3]
    coloured = (colours != colours[..., :1]).any(axis=-1)
    if coloured.any():
        first = tuple(int(value) for value in colours[coloured][0])
        raise RadprobeError(path, f"is a coloured mask (the first colour is {first})", "write it as a label map")
    return colours[..., 0]
