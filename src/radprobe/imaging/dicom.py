"""DICOM images. Of a data set only pixels, geometry and what pixels mean is ever read: no tag that identifies anybody.

Messages name files, never the values of tags, and never a library's own message, which may quote one.
"""

import logging
import warnings
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypedDict, TypeVar

import numpy as np
import pydicom
from PIL import Image
from pydicom.filereader import _read_file_meta_info, read_partial, read_preamble
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.tag import BaseTag, Tag

from radprobe.files import RadprobeError
from radprobe.imaging.values import REMEDY, Header, check_size, is_dicom, native

PIXELS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "ExtendedOffsetTable"),
    *("ExtendedOffsetTableLengths", "ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for part in ("Descriptor", "Data")
    ),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
)
KIND = ("Modality", "BurnedInAnnotation", "SOPClassUID")
GEOMETRY = (
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "SliceThickness"),
    *("ImagePositionPatient", "ImageOrientationPatient", "SeriesInstanceUID"),  # the last only to be compared
)
TAGS: list[BaseTag | int] = [Tag(name) for name in (*PIXELS, *KIND, *GEOMETRY)]
PIXEL_DATA, UNDEFINED_LENGTH = Tag("PixelData"), 0xFFFFFFFF
SEQUENCE_END = b"\xfe\xff\xdd\xe0"  # ends compressed pixels
DEFLATED = pydicom.uid.DeflatedExplicitVRLittleEndian
MAX_INFLATED, CHUNK = 512 << 20, 1 << 20
NEEDED = ("Rows", "Columns", "BitsAllocated")
DEFAULTS = {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "PixelRepresentation": 0}
MEASURED = {"CT", "MR", "PT", "NM"}  # modalities whose values are kept as they are; others are pictures
ON_SCREEN = {"US", "OT", "ES", "XC", "GM", "SM"}  # modalities whose images are often copies of a screen
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # start of the SOP class UIDs

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"pydicom\.|radprobe\.imaging\.dicom")


Result = TypeVar("Result")


class Description(TypedDict):
    """What is told of a DICOM file: shape [H, W], spacing in mm."""

    modality: str | None
    photometric: str
    shape: tuple[int, int]
    spacing: tuple[float, ...]
    burned_in: str | None  # YES or NO
    text_possible: bool


class _Extent(NamedTuple):
    """Where the pixels of a file are: their bytes, and the first of them."""

    length: int
    at: int


class NoImage(RadprobeError):
    """A DICOM file without pixels: a report, structures, a plan."""


def probe(path: Path) -> Header:
    """Read the header of an image. Raises RadprobeError where it has no pixels, is cut off, or has several frames."""
    data = header(path)
    return Header((data.Rows, data.Columns), stored_dtype(data), pixel_spacing(path, data))


def describe(path: Path) -> Description:
    """Return what is told of a file, and nothing else.

    `text_possible`: names may be burned into the pixels: the file says so, or it says nothing and is of a kind that is
    often copied from a screen (secondary capture, ultrasound). Of a folder the first file is described.
    """
    file = files(path)[0] if path.is_dir() else path
    data = header(file)
    burned_in = data.get("BurnedInAnnotation") or None
    screen = data.get("Modality") in ON_SCREEN or str(data.get("SOPClassUID", "")).startswith(SECONDARY_CAPTURE)
    return {
        "modality": data.get("Modality") or None,
        "photometric": data.PhotometricInterpretation,
        "shape": (data.Rows, data.Columns),
        "spacing": pixel_spacing(file, data),
        "burned_in": burned_in,
        "text_possible": burned_in == "YES" or (burned_in != "NO" and screen),
    }


def files(folder: Path) -> list[Path]:
    """Return the DICOM files that lie directly in a folder, by name. Raises RadprobeError where there are none."""
    named = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    found = [path for path in named if path.name.upper() != "DICOMDIR" and is_dicom(path)]
    if not found:
        raise RadprobeError(
            folder, "holds no DICOM file", "list the folder that directly holds the files of one series"
        )
    return found


def header(path: Path) -> pydicom.Dataset:
    """Read the tags of TAGS, with defaults for what may be missing, and check that the pixels are all there."""
    found: list[_Extent] = []

    def at_pixels(tag: BaseTag, _: str | None, length: int) -> bool:
        if tag == PIXEL_DATA:
            found[:] = [_Extent(length, handle.tell())]
        return bool(tag >= PIXEL_DATA)

    _refuse_bomb(path)
    with path.open("rb") as handle:
        data = _parsed(path, lambda: read_partial(handle, stop_when=at_pixels, force=True, specific_tags=TAGS))
        _parsed(path, lambda: list(data))  # pydicom converts values when they are asked for: here, and not later
        if not is_dicom(path, by_content=True) and "Rows" not in data:
            raise RadprobeError(path, "is no DICOM image", REMEDY)
        if not found:
            raise NoImage(path, "has no pixel data: it is no image", "leave it out of the data")
        compressed = _complete_tags(path, data)
        _refuse_cut_off(path, handle, data, compressed, found[0])
    return data


def _refuse_bomb(path: Path) -> None:
    """Raise RadprobeError where a deflated data set inflates to far more than an image has: pydicom would do it all."""
    with path.open("rb") as handle:
        if _parsed(path, lambda: _meta(handle).get("TransferSyntaxUID")) != DEFLATED:  # `get` reads the value
            return
        inflated, packer = 0, zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        while inflated <= MAX_INFLATED and not packer.eof:
            piece = packer.unconsumed_tail or handle.read(CHUNK)
            if not piece:
                return
            inflated += len(_parsed(path, partial(packer.decompress, piece, CHUNK)))
    if inflated > MAX_INFLATED:
        raise RadprobeError(path, "inflates to far more than an image", "decompress it first, e.g. gdcmconv --raw")


def _meta(handle: BinaryIO) -> pydicom.dataset.FileMetaDataset:
    """Read what comes before the data set, as pydicom does before it inflates what follows: also without a preamble."""
    read_preamble(handle, force=True)
    return _read_file_meta_info(handle)


def _parsed(path: Path, read: Callable[[], Result]) -> Result:
    try:
        return read()
    except Exception as error:  # pydicom raises nearly anything on damage, in words that may quote a tag
        raise RadprobeError(path, f"is damaged or no DICOM file ({type(error).__name__})", REMEDY) from None


def _complete_tags(path: Path, data: pydicom.Dataset) -> bool:
    """Fill in what is missing and has a usual value, refuse what has none; say whether the pixels are compressed."""
    missing = [name for name in NEEDED if not data.get(name)]
    if missing:
        raise RadprobeError(path, f"lacks {', '.join(missing)}", "export it again: without these it cannot be decoded")
    check_size(path, (data.Rows, data.Columns))
    for name, value in DEFAULTS.items():
        if data.get(name) in (None, ""):
            setattr(data, name, value)
    if not data.get("BitsStored"):
        data.BitsStored = data.BitsAllocated
    frames = _parsed(path, lambda: int(data.get("NumberOfFrames") or 1))
    if frames != 1:
        raise RadprobeError(path, f"holds {frames} frames", "write each frame to a file of its own, or all as NIfTI")
    if "TransferSyntaxUID" not in data.file_meta:
        implicit, little = data.original_encoding
        endian = pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian
        data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian if implicit else endian
    return bool(_parsed(path, lambda: data.file_meta.TransferSyntaxUID.is_compressed))


def _refuse_cut_off(path: Path, handle: BinaryIO, data: pydicom.Dataset, compressed: bool, pixels: _Extent) -> None:
    if data.file_meta.TransferSyntaxUID == pydicom.uid.DeflatedExplicitVRLittleEndian:
        return  # inflating it was the check
    handle.seek(pixels.at)
    if compressed and pixels.length == UNDEFINED_LENGTH:
        whole = SEQUENCE_END in handle.read()
    else:
        whole = pixels.at + pixels.length <= path.stat().st_size
    if not whole:
        raise RadprobeError(path, "is cut off: it ends before its pixels do", REMEDY)


def pixel_spacing(path: Path, data: pydicom.Dataset) -> tuple[float, ...]:
    """Return the mm between rows and between columns, () where the file does not say (films often write 0).

    In the patient where that is known, else at the detector (which magnifies by some percent).
    """
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        spacing = _parsed(path, partial(_steps, data, name))
        if len(spacing) == 2 and all(np.isfinite(spacing)) and min(spacing) > 0:
            return spacing
    return ()


def _steps(data: pydicom.Dataset, name: str) -> tuple[float, ...]:
    return tuple(float(step) for step in data.get(name) or ())


def is_colour(data: pydicom.Dataset) -> bool:
    """Say whether the pixels are colours, directly or through a palette."""
    return bool(data.SamplesPerPixel > 1 or data.PhotometricInterpretation == "PALETTE COLOR")


def stored_dtype(data: pydicom.Dataset) -> type:
    """Return the dtype that `read_grey` gives: uint8 for colours and unscaled 8-bit values, else int16."""
    shallow = data.BitsAllocated <= 8 and data.PixelRepresentation == 0 and not _is_rescaled(data)
    return np.uint8 if is_colour(data) or shallow else np.int16


def _is_rescaled(data: pydicom.Dataset) -> bool:
    slope, intercept = data.get("RescaleSlope"), data.get("RescaleIntercept")
    return bool(data.get("ModalityLUTSequence")) or slope not in (None, "", 1) or intercept not in (None, "", 0)


def read_grey(path: Path) -> np.ndarray:
    """Decode an image to grey [H, W], uint8 or int16: values after the modality LUT or rescaling (HU in CT).

    No window is applied: that is a choice of intensity, made later. MONOCHROME1 (bone is dark) is inverted within the
    range of its stored bits, as all other images show bone bright, but not where values are measured (CT, MR, PT, NM).
    Unsigned values of 16 bits (stored, or given by a lookup table) are shifted by -32,768, as in PNG, but for these.
    Colours become 8-bit luma (ITU-R 601). Raises RadprobeError where it cannot be decoded or 16 bits cannot hold it.
    """
    data = header(path)
    whole = _parsed(path, lambda: pydicom.dcmread(path, force=True, specific_tags=[*TAGS, PIXEL_DATA]))
    if PIXEL_DATA not in whole:
        raise RadprobeError(path, "is cut off: it ends before its pixels do", REMEDY)
    data[PIXEL_DATA] = _parsed(path, lambda: whole[PIXEL_DATA])
    try:
        values = pixel_array(data)
        values = _luma(data, values) if is_colour(data) else _picture(data, values)
    except Exception as error:  # decoders raise nearly anything on damage
        syntax = data.file_meta.TransferSyntaxUID.name
        reason = f"its pixels ({syntax}) cannot be decoded ({type(error).__name__})"
        raise RadprobeError(path, reason, "decompress it first, e.g. gdcmconv --raw or dcmdjpeg") from None
    return native(path, values).astype(stored_dtype(data), copy=False)


def _luma(data: pydicom.Dataset, values: np.ndarray) -> np.ndarray:
    bits = data.BitsStored
    if data.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, data)
        bits = 8 * values.itemsize
    return np.asarray(Image.fromarray((values >> (bits - 8)).astype(np.uint8)).convert("L"))


def _picture(data: pydicom.Dataset, values: np.ndarray) -> np.ndarray:
    """Return stored grey values [H, W] rescaled; of a picture (nothing is measured) with bright bone."""
    bits, signed, measured = data.BitsStored, data.PixelRepresentation == 1, data.get("Modality") in MEASURED
    rescaled = _rescaled(data, values)
    if data.PhotometricInterpretation == "MONOCHROME1" and not measured:
        ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1], values.dtype)
        total = _rescaled(data, ends).astype(np.float64).sum()
        rescaled = (total - rescaled).astype(rescaled.dtype)
    if rescaled.dtype == np.uint16 and not measured and (bits == 16 or data.get("ModalityLUTSequence")):
        return (rescaled ^ 0x8000).view(np.int16)  # minus 32,768
    return rescaled


def _rescaled(data: pydicom.Dataset, values: np.ndarray) -> np.ndarray:
    if not _is_rescaled(data):
        return values
    if not data.get("ModalityLUTSequence"):  # one of the two may be missing
        data.RescaleSlope = 1 if data.get("RescaleSlope") in (None, "") else data.RescaleSlope
        data.RescaleIntercept = data.get("RescaleIntercept") or 0
    return apply_modality_lut(values, data)
