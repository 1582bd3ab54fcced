"""Malformed files that no random harm would find: headers that lie, bombs, code in data, names that are no names."""

import gzip
import io
import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import h5py
import nibabel
import numpy as np
import pydicom
from corpus.sound import (
    CSV,
    GREY,
    MEMBERS,
    PIXELS,
    SOUND,
    index_table,
    npy,
    parquet,
    pickled,
    safetensors,
    tarred,
    zipped,
)
from imaging.dicom_files import data_set
from PIL import Image

REFUSED, READ = "refused", "read"


@dataclass(frozen=True)
class Case:
    """A file, the reader that gets it, and what must come of it; `make` writes its bytes."""

    what: str
    name: str
    reader: str
    make: Callable[[], bytes]
    outcome: str = REFUSED


class Runs:
    """Unpickled, it would write a file: none may be there afterwards."""

    PROOF = "code-has-run"

    def __reduce__(self):
        return os.system, (f"touch {self.PROOF}",)


def _sound(name: str) -> bytes:
    return SOUND[name][0]()


# --- films ------------------------------------------------------------------------------------------------------------


def _png(width: int, height: int, depth: int = 8, colour: int = 0, rows: bytes = b"", palette: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    extra = chunk(b"PLTE", palette) if palette else b""
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def _png_bomb(side: int, channels: int) -> bytes:
    return _png(side, side, colour={1: 0, 4: 6}[channels], rows=bytes((side * channels + 1) * side))


def _saved(values, form: str, **how) -> bytes:
    buffer = io.BytesIO()
    (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(buffer, form, **how)
    return buffer.getvalue()


def _tiff(values, **how) -> bytes:
    return _saved(values, "TIFF", **how)


def _tiff_of(tags: dict[int, tuple[int, int]], tail: bytes = bytes(400)) -> bytes:
    """A TIFF written by hand: tag -> (type, value), all in place; pixels behind."""
    entries = {
        256: (4, 20),
        257: (4, 12),
        258: (3, 8),
        259: (3, 1),
        262: (3, 1),
        273: (4, 200),
        277: (3, 1),
        279: (4, 240),
    }
    entries |= tags
    ifd = struct.pack("<H", len(entries))
    for tag, (kind, value) in sorted(entries.items()):
        ifd += struct.pack("<HHII", tag, kind, 1, value)
    return (b"II*\x00" + struct.pack("<I", 8) + ifd + bytes(4)).ljust(200, b"\x00") + tail


def _pages() -> bytes:
    return _saved(Image.fromarray(GREY), "TIFF", save_all=True, append_images=[Image.fromarray(GREY)])


def _bmp(width: int, height: int) -> bytes:
    content = bytearray(_sound("film.bmp"))
    content[18:26] = struct.pack("<ii", width, height)
    return bytes(content)


def _coloured() -> bytes:
    return _saved(np.dstack([GREY, GREY // 2, GREY]), "PNG")


FILMS = [
    Case("a PNG of no width", "x.png", "image", lambda: _png(0, 12)),
    Case("a PNG of 2^31 - 1 by 2^31 - 1 pixels", "x.png", "image", lambda: _png(2**31 - 1, 2**31 - 1)),
    Case("a PNG of 100,000 by 100,000 pixels", "x.png", "image", lambda: _png(100_000, 100_000)),
    Case("a PNG of 95 megapixels in four channels", "x.png", "image", lambda: _png_bomb(9_700, 4), READ),
    Case("a PNG bomb of 250 megapixels", "x.png", "image", lambda: _png_bomb(16_000, 1)),
    Case("a PNG bomb of 190 megapixels in four channels", "x.png", "image", lambda: _png_bomb(13_800, 4)),
    Case("a PNG with fewer rows than it says", "x.png", "image", lambda: _png(20, 12, rows=bytes(21 * 5))),
    Case("a PNG without pixels", "x.png", "image", lambda: _png(20, 12)),
    Case("a PNG of depth 3", "x.png", "image", lambda: _png(20, 12, depth=3, rows=bytes(21 * 12))),
    Case("a PNG of colour type 5", "x.png", "image", lambda: _png(20, 12, colour=5, rows=bytes(21 * 12))),
    Case("a PNG palette without its palette", "x.png", "image", lambda: _png(20, 12, colour=3, rows=bytes(21 * 12))),
    Case(
        "an animated PNG",
        "x.png",
        "image",
        lambda: _saved(Image.fromarray(GREY), "PNG", save_all=True, append_images=[Image.fromarray(255 - GREY)]),
    ),
    Case("a text bomb in a PNG", "x.png", "image", lambda: _with_text(50_000_000)),
    Case("a coloured mask", "x.png", "mask", _coloured),
    Case("a GIF called PNG", "x.png", "image", lambda: _saved(GREY, "GIF")),
    Case(
        "an EPS, which other programs would run",
        "x.eps",
        "image",
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    ),
    Case("an SVG", "x.png", "image", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    Case("a JPEG that ends after its header", "x.jpg", "image", lambda: _sound("film.jpg")[:100]),
    Case("a JPEG of 65,535 by 65,535 pixels", "x.jpg", "image", lambda: _jpeg_of(65_535, 65_535)),
    Case("a JPEG of no height", "x.jpg", "image", lambda: _jpeg_of(20, 0)),
    Case("two JPEGs end to end", "x.jpg", "image", lambda: _sound("film.jpg") * 2, READ),
    Case("a TIFF of two pages", "x.tif", "image", _pages),
    Case("a TIFF with NaN", "x.tif", "image", lambda: _tiff(np.full((9, 9), np.nan, np.float32))),
    Case("a TIFF with infinity", "x.tif", "image", lambda: _tiff(np.full((9, 9), np.inf, np.float32))),
    Case("a TIFF of fractions", "x.tif", "image", lambda: _tiff(np.linspace(0, 1, 81, dtype=np.float32).reshape(9, 9))),
    Case("a TIFF beyond 16 bits", "x.tif", "image", lambda: _tiff(np.full((9, 9), 1_000_000, np.int32))),
    Case("a TIFF mask with NaN", "x.tif", "mask", lambda: _tiff(np.full((9, 9), np.nan, np.float32))),
    Case("a TIFF mask of 300", "x.tif", "mask", lambda: _tiff(np.full((9, 9), 300, np.int32))),
    Case("a TIFF whose strip lies beyond its end", "x.tif", "image", lambda: _tiff_of({273: (4, 10_000_000)})),
    Case("a TIFF whose strip is 4 GB", "x.tif", "image", lambda: _tiff_of({279: (4, 2**32 - 1)})),
    Case("a TIFF of no height", "x.tif", "image", lambda: _tiff_of({257: (4, 0)})),
    Case("a TIFF of 4 billion rows", "x.tif", "image", lambda: _tiff_of({257: (4, 2**32 - 1)})),
    Case("a TIFF of 60,000 by 60,000", "x.tif", "image", lambda: _tiff_of({256: (4, 60_000), 257: (4, 60_000)})),
    Case("a TIFF of 65,535 samples a pixel", "x.tif", "image", lambda: _tiff_of({277: (3, 65_535)})),
    Case("a TIFF of 0 bits", "x.tif", "image", lambda: _tiff_of({258: (3, 0)})),
    Case("a TIFF of unknown compression", "x.tif", "image", lambda: _tiff_of({259: (3, 4242)})),
    Case("a TIFF whose next page is itself", "x.tif", "image", lambda: _looped_tiff(), READ),
    Case(
        "a TIFF of 95 megapixels of floats",
        "x.tif",
        "image",
        lambda: _tiff(np.zeros((9_700, 9_700), np.float32), compression="tiff_adobe_deflate"),
        READ,
    ),
    Case("a BMP of negative width", "x.bmp", "image", lambda: _bmp(-20, 12)),
    Case("a BMP of 30,000 by 30,000 pixels", "x.bmp", "image", lambda: _bmp(30_000, 30_000)),
]


def _jpeg_of(width: int, height: int) -> bytes:
    content = _sound("film.jpg")
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]


def _with_text(n: int) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Comment", "a" * n, zip=True)
    return _saved(GREY, "PNG", pnginfo=info)


def _looped_tiff() -> bytes:
    content = bytearray(_tiff_of({}))
    n = struct.unpack("<H", content[8:10])[0]
    content[10 + 12 * n : 14 + 12 * n] = struct.pack("<I", 8)
    return bytes(content)


# --- DICOM ------------------------------------------------------------------------------------------------------------


def _dicom(pixels=PIXELS, change: Callable = lambda data: None, **tags) -> bytes:
    data = data_set(pixels, **tags)
    change(data)
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def _compressed(syntax: str, fragment: bytes, **tags) -> bytes:
    def change(data):
        data.file_meta.TransferSyntaxUID = syntax
        data.PixelData = pydicom.encaps.encapsulate([fragment])
        data["PixelData"].is_undefined_length = True

    return _dicom(GREY, change, **tags)


RLE, JPEG, JPEG2000 = pydicom.uid.RLELossless, pydicom.uid.JPEGBaseline8Bit, pydicom.uid.JPEG2000Lossless
DICOM = [
    Case("a DICOM without rows", "x.dcm", "image", lambda: _dicom(Rows=0)),
    Case("a DICOM that says it has 65,535 rows", "x.dcm", "image", lambda: _dicom(Rows=65_535)),
    Case(
        "a DICOM of 65,535 by 65,535, compressed",
        "x.dcm",
        "image",
        lambda: _compressed(RLE, bytes(64), Rows=65_535, Columns=65_535),
    ),
    Case("a DICOM of 100 frames", "x.dcm", "image", lambda: _dicom(NumberOfFrames=100)),
    Case("a DICOM of 99,999,999 frames", "x.dcm", "image", lambda: _dicom(NumberOfFrames=99_999_999)),
    Case("a DICOM of 12 bits in 7", "x.dcm", "image", lambda: _dicom(BitsAllocated=7)),
    Case("a DICOM that stores more bits than it has", "x.dcm", "image", lambda: _dicom(BitsStored=200, HighBit=199)),
    Case(
        "a DICOM of three samples that has one",
        "x.dcm",
        "image",
        lambda: _dicom(SamplesPerPixel=3, PhotometricInterpretation="RGB"),
    ),
    Case("a DICOM of an unknown photometric", "x.dcm", "image", lambda: _dicom(PhotometricInterpretation="SEPIA")),
    Case(
        "a DICOM palette without its palette",
        "x.dcm",
        "image",
        lambda: _dicom(GREY, PhotometricInterpretation="PALETTE COLOR"),
    ),
    Case("a DICOM whose slope is NaN", "x.dcm", "image", lambda: _raw_text("RescaleSlope", "nan")),
    Case("a DICOM whose slope is infinite", "x.dcm", "image", lambda: _raw_text("RescaleSlope", "inf")),
    Case("a DICOM whose slope is 1e300", "x.dcm", "image", lambda: _raw_text("RescaleSlope", "1e300")),
    Case("a DICOM whose intercept is a word", "x.dcm", "image", lambda: _raw_text("RescaleIntercept", "zero")),
    Case("RLE of nothing", "x.dcm", "image", lambda: _compressed(RLE, bytes(2))),
    Case(
        "RLE whose segments lie beyond its end",
        "x.dcm",
        "image",
        lambda: _compressed(RLE, struct.pack("<16I", 15, *[2**32 - 2] * 15)),
    ),
    Case(
        "JPEG of another size than its DICOM", "x.dcm", "image", lambda: _compressed(JPEG, _saved(GREY[:6, :6], "JPEG"))
    ),
    Case(
        "a JPEG of 65,535 by 65,535 in a DICOM", "x.dcm", "image", lambda: _compressed(JPEG, _jpeg_of(65_535, 65_535))
    ),
    Case(
        "no JPEG 2000 in a DICOM that says so",
        "x.dcm",
        "image",
        lambda: _compressed(JPEG2000, b"\xff\x4f\xff\x51" + bytes(200)),
    ),
    Case("a deflate bomb of 3 GB in a DICOM", "x.dcm", "image", lambda: _bomb_dicom()),
    Case("2,000 sequences in each other", "x.dcm", "image", lambda: _deep_dicom()),
    Case("a DICOM without pixels", "x.dcm", "image", lambda: _dicom(change=lambda data: delattr(data, "PixelData"))),
    Case("half the pixels of a DICOM", "x.dcm", "image", lambda: _sound("film.dcm")[:-100]),
    Case("a DICOM preamble and nothing else", "x.dcm", "image", lambda: bytes(128) + b"DICM"),
    Case("a DICOM of an unknown transfer syntax", "x.dcm", "image", lambda: _compressed("1.2.3.4.5", b"abc")),
]


def _raw_text(tag: str, text: str) -> bytes:
    """A DICOM with a number that pydicom would not write."""
    marker = "1.234567"
    padded = text.ljust(len(marker)).encode()
    return _dicom(**{tag: marker}).replace(marker.encode(), padded)


def _bomb_dicom() -> bytes:
    """A deflated data set that inflates to 3 GB of private data, and then an honest image."""
    packed, plain = (_dicom(GREY, change) for change in (_deflate, lambda data: None))
    n = 3 << 30
    element = struct.pack("<HH", 0x0007, 0x1010) + b"OB\0\0" + struct.pack("<I", n)
    body = zlib.compress(plain[_meta_end(plain) :], wbits=-15)
    return packed[: _meta_end(packed)] + _stored(element) + _zeros(n) + body


def _deflate(data) -> None:
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian


def _stored(content: bytes) -> bytes:
    """Bytes as a piece of a deflate stream that does not end it."""
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(content) + packer.flush(zlib.Z_FULL_FLUSH)


def _zeros(n: int) -> bytes:
    """n zeros as a piece of a deflate stream; n is a multiple of 16 MB."""
    return _stored(bytes(1 << 24)) * (n >> 24)


def _meta_end(content: bytes) -> int:
    """Where the data set behind the file meta information begins."""
    length = struct.unpack("<I", content[140:144])[0]
    return 144 + length


def _deep_dicom() -> bytes:
    """Sequences of undefined length in each other, which no library would write."""
    tag = struct.pack("<HH", 0x0028, 0x3000) + b"SQ\0\0" + struct.pack("<I", 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    content = _sound("film.dcm")
    at = content.index(struct.pack("<HH", 0x7FE0, 0x0010))
    return content[:at] + (tag + item) * 2000 + content[at:]


# --- NIfTI and MATLAB -------------------------------------------------------------------------------------------------


def _nifti(values=PIXELS[..., None], affine=np.diag([2.0, 3, 4, 1]), **fields) -> bytes:
    image = nibabel.Nifti1Image(values, affine)
    content = bytearray(image.to_bytes())
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    return bytes(content)


def _dim(*sides: int) -> dict:
    return {"dim": [len(sides), *sides, *[1] * (7 - len(sides))]}


def _pixdim(*steps: float) -> dict:
    return {"pixdim": [1, *steps, 0, 0, 0, 0]}


def _gz_zeros(shape: tuple[int, ...], dtype: str = "<i2") -> bytes:
    """A whole .nii.gz of zeros, which packs a thousand times smaller."""
    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(dtype)
    header["pixdim"][1:4] = 1
    header["magic"], header["vox_offset"], header["sform_code"] = b"n+1", 352, 1
    header["srow_x"], header["srow_y"], header["srow_z"] = [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]
    n = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return _gzip(_stored(header.binaryblock + bytes(4)) + _zeros(n), 352 + n)


def _gzip(deflated: bytes, n: int) -> bytes:
    """A gzip of a deflate stream of n bytes that has no end; its checksum is wrong."""
    end = zlib.compress(b"", wbits=-15)
    return b"\x1f\x8b\x08" + bytes(7) + deflated + end + bytes(4) + struct.pack("<I", n % 2**32)


def _mat(write: Callable) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        write(file)
    return buffer.getvalue()


def _mat_image(values) -> bytes:
    return _mat(lambda file: file.create_dataset("cjdata/image", data=values))


def _hollow(side: int) -> bytes:
    return _mat(lambda file: file.create_dataset("cjdata/image", (side, side), "i2", chunks=(64, 64)))


def _mat_loop() -> bytes:
    def write(file):
        file["cjdata"] = h5py.SoftLink("/cjdata")

    return _mat(write)


def _mat_elsewhere() -> bytes:
    def write(file):
        file["cjdata/image"] = h5py.ExternalLink("/etc/passwd", "/x")

    return _mat(write)


def _mat_stored_elsewhere() -> bytes:
    """HDF5 may say that the bytes of a data set lie in another file: that would read any file of the machine."""

    def write(file):
        file.create_group("cjdata").create_dataset("image", (4, 4), "u1", external=[("/etc/passwd", 0, 16)])

    return _mat(write)


VOLUMES = [
    Case("a NIfTI that says it has 32,767 slices", "x.nii", "volume", lambda: _nifti(**_dim(20, 12, 32_767))),
    Case("a NIfTI of 32,767 voxels along each axis", "x.nii", "volume", lambda: _nifti(**_dim(32_767, 32_767, 32_767))),
    Case("such a NIfTI, packed", "x.nii.gz", "volume", lambda: gzip.compress(_nifti(**_dim(32_767, 32_767, 32_767)))),
    Case("a NIfTI with a side of 0", "x.nii", "volume", lambda: _nifti(**_dim(20, 0, 1))),
    Case("a NIfTI with a negative side", "x.nii", "volume", lambda: _nifti(**_dim(20, -12, 1))),
    Case("a NIfTI of two axes", "x.nii", "volume", lambda: _nifti(PIXELS)),
    Case("a NIfTI of four axes", "x.nii", "volume", lambda: _nifti(np.zeros((4, 4, 4, 2), np.int16))),
    Case("a NIfTI of complex numbers", "x.nii", "volume", lambda: _nifti(np.zeros((4, 4, 4), np.complex64))),
    Case(
        "a NIfTI of colours",
        "x.nii",
        "volume",
        lambda: _nifti(np.zeros((4, 4, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))),
    ),
    Case("a NIfTI of an unknown type", "x.nii", "volume", lambda: _nifti(datatype=4242)),
    Case("a NIfTI with NaN", "x.nii", "volume", lambda: _nifti(np.full((4, 4, 4), np.nan, np.float32))),
    Case("a NIfTI with infinity", "x.nii", "volume", lambda: _nifti(np.full((4, 4, 4), -np.inf, np.float64))),
    Case("a NIfTI mask with NaN", "x.nii", "mask", lambda: _nifti(np.full((4, 4, 4), np.nan, np.float32))),
    Case("a NIfTI mask of halves", "x.nii", "mask", lambda: _nifti(np.full((4, 4, 4), 0.5, np.float32))),
    Case("a NIfTI mask of -1", "x.nii", "mask", lambda: _nifti(np.full((4, 4, 4), -1, np.int16))),
    Case("a NIfTI mask of 256", "x.nii", "mask", lambda: _nifti(np.full((4, 4, 4), 256, np.int16))),
    Case("a NIfTI whose slope is infinite", "x.nii", "volume", lambda: _nifti(scl_slope=np.inf)),
    Case("a NIfTI whose slope is 1e30", "x.nii", "volume", lambda: _nifti(scl_slope=1e30), None),
    Case("a NIfTI whose spacing is 0", "x.nii", "volume", lambda: _nifti(**_pixdim(0, 1, 1))),
    Case("a NIfTI whose spacing is NaN", "x.nii", "volume", lambda: _nifti(**_pixdim(np.nan, 1, 1))),
    Case("a NIfTI whose spacing is infinite", "x.nii", "volume", lambda: _nifti(**_pixdim(1, np.inf, 1))),
    Case(
        "a NIfTI whose axes span nothing", "x.nii", "volume", lambda: _nifti(srow_x=[0, 0, 0, 0], srow_y=[0, 0, 0, 0])
    ),
    Case("a NIfTI whose affine is NaN", "x.nii", "volume", lambda: _nifti(srow_x=[np.nan, 0, 0, 0])),
    Case("a NIfTI whose voxels begin at 1e30", "x.nii", "volume", lambda: _nifti(vox_offset=1e30)),
    Case("a NIfTI whose voxels begin before its start", "x.nii", "volume", lambda: _nifti(vox_offset=-100)),
    Case(
        "a NIfTI whose voxels begin at 2 GB, packed",
        "x.nii.gz",
        "volume",
        lambda: gzip.compress(_nifti(vox_offset=2.0**31)),
    ),
    Case("a NIfTI whose voxels begin at NaN", "x.nii", "volume", lambda: _nifti(vox_offset=np.nan)),
    Case("a gzip bomb of 3 GB called NIfTI", "x.nii.gz", "volume", lambda: _gzip(_zeros(3 << 30), 3 << 30)),
    Case("a NIfTI of 6 GB of zeros", "x.nii.gz", "volume", lambda: _gz_zeros((1024, 1024, 3072))),
    Case("a gzip without a NIfTI in it", "x.nii.gz", "volume", lambda: gzip.compress(b"")),
    Case("a NIfTI in two gzips", "x.nii.gz", "volume", lambda: gzip.compress(gzip.compress(_nifti()))),
    Case("a NIfTI whose checksum is wrong", "x.nii.gz", "volume", lambda: _wrong_crc()),
    Case("a tar called NIfTI", "x.nii.gz", "volume", lambda: gzip.compress(tarred(MEMBERS))),
    Case(
        "a MATLAB v5 file",
        "x.mat",
        "image",
        lambda: b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\1IM" + bytes(400),
    ),
    Case("a MATLAB file without the image", "x.mat", "image", lambda: _mat(lambda file: file.create_group("cjdata"))),
    Case(
        "a MATLAB image that is a group", "x.mat", "image", lambda: _mat(lambda file: file.create_group("cjdata/image"))
    ),
    Case("a MATLAB image that is a link to itself", "x.mat", "image", _mat_loop),
    Case("a MATLAB image that is a link to another file", "x.mat", "image", _mat_elsewhere),
    Case("a MATLAB image whose bytes lie in another file", "x.mat", "image", _mat_stored_elsewhere),
    Case("a MATLAB image of three axes", "x.mat", "image", lambda: _mat_image(np.zeros((3, 4, 5), np.int16))),
    Case("a MATLAB image of no side", "x.mat", "image", lambda: _mat_image(np.zeros((0, 5), np.int16))),
    Case("a MATLAB image of texts", "x.mat", "image", lambda: _mat_image(np.array([[b"a", b"b"]]))),
    Case("a MATLAB image of NaN", "x.mat", "image", lambda: _mat_image(np.full((4, 4), np.nan))),
    Case("a MATLAB image of 10^12 pixels in 2 kB", "x.mat", "image", lambda: _hollow(1_000_000)),
    Case("a MATLAB image of 3 GB in 2 kB", "x.mat", "image", lambda: _hollow(40_000)),
]


def _wrong_crc() -> bytes:
    content = bytearray(_sound("volume.nii.gz"))
    content[-6] ^= 1
    return bytes(content)


# --- tables and params ------------------------------------------------------------------------------------------------


def _row(path="1.png", patient="p1", ill="1", age="010Y") -> bytes:
    return CSV + f"{path},{patient},{ill},{age}\n".encode()


TABLES = [
    Case(f"a CSV whose {what}", "labels.csv", "own table", lambda content=content: content, outcome)
    for what, content, outcome in [
        ("file leads out of its folder", _row("../../../etc/passwd"), REFUSED),
        ("file is absolute", _row("/etc/passwd"), REFUSED),
        ("file is on another drive", _row("C:\\\\x.png"), REFUSED),
        ("file holds a NUL", _row("a\0b.png"), REFUSED),
        ("file has a name of 5,000 letters", _row("a" * 5000 + ".png"), REFUSED),
        ("file is a folder", _row("."), REFUSED),
        ("label is NaN", _row("5.png", ill="nan"), REFUSED),
        ("label is infinite", _row("5.png", ill="inf"), REFUSED),
        ("label is 0.5", _row("5.png", ill="0.5"), REFUSED),
        ("age has 400 digits", _row("1.png", age="9" * 400), REFUSED),
        ("age is -1", _row(age="-1"), REFUSED),
        ("age is 1e5", _row(age="1e5"), REFUSED),
        ("cell has 10 MB", _row(patient="p" * 10_000_000), REFUSED),
        ("quote stays open", CSV + b'"1.png,p1,1,\n', REFUSED),
        ("text is UTF-16", CSV.decode().encode("utf-16"), REFUSED),
        ("text is Latin-1", _row(patient="M\u00fcller").decode().encode("latin-1"), REFUSED),
        ("columns are there twice", CSV.replace(b"age", b"ill"), REFUSED),
        ("header is missing", CSV.partition(b"\n")[2], REFUSED),
        ("rows are missing", CSV.partition(b"\n")[0], REFUSED),
        ("last line is 100,000 empty cells", CSV + b"," * 100_000 + b"\n", READ),
        ("last line has 100,000 cells", CSV + b"x," * 100_000 + b"\n", REFUSED),
        ("content is empty", b"", REFUSED),
        ("content is zeros", bytes(1000), REFUSED),
        ("content is a spreadsheet", zipped({"xl/workbook.xml": b"<x/>"}), REFUSED),
        ("cells are formulas", _row(patient="=cmd|' /C calc'!A0").replace(b"1.png,=", b"9.png,="), REFUSED),
    ]
]


def _laughs() -> bytes:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 10)]
    return "\n".join([*lines, "study: *a9", ""]).encode()


def _params(**changes) -> bytes:
    import yaml

    return yaml.safe_dump(yaml.safe_load(_sound("params.yaml")) | changes).encode()


def _text(more: str) -> bytes:
    return _sound("params.yaml") + more.encode()


PARAMS = [
    Case(f"params {what}", "params.yaml", "params", lambda content=content: content() if callable(content) else content)
    for what, content in [
        (
            "with a tag that would run code",
            lambda: _text(f"title: !!python/object/apply:os.system ['touch {Runs.PROOF}']\n"),
        ),
        ("with a tag that would import", lambda: _text("title: !!python/module:subprocess\n")),
        ("with an unknown tag", lambda: _text("title: !include /etc/passwd\n")),
        ("of a billion laughs", _laughs),
        ("of 100,000 brackets in each other", lambda: b"[" * 100_000),
        ("of 5,000 mappings in each other", lambda: b"{a: " * 5000 + b"}" * 5000),
        ("that hold themselves", lambda: b"&a {study: *a, datasets: *a}\n"),
        ("with a backbone that nobody knows", lambda: _text("").replace(b"test_vit", b"uest_vit")),
        ("with a name of 5,000 letters", lambda: _text("").replace(b"test_vit", b"z" * 5000)),
        ("that are a list", lambda: b"- a\n- b\n"),
        ("that are a number", lambda: b"42\n"),
        ("that are empty", lambda: b""),
        ("that are binary", lambda: bytes(range(256))),
        ("in UTF-16", lambda: "study: s\n".encode("utf-16")),
        ("in Latin-1", lambda: "study: M\u00fcller\n".encode("latin-1")),
        ("with a key that is there twice", lambda: _text("study: other\nstudy: again\n")),
        ("with a seed that is infinite", lambda: _text("seed: .inf\n")),
        ("with a seed of 400 digits", lambda: _text("seed: " + "9" * 400 + "\n")),
        ("with a seed that is negative", lambda: _text("seed: -1\n")),
        ("with no thread", lambda: _text("threads: 0\n")),
        ("with a limit of NaN", lambda: _text("limit: .nan\n")),
        (
            "with a dataset that is a path",
            lambda: _params(datasets={"../../x": {"folder": {"task": "binary", "classes": ["a"]}}}),
        ),
        (
            "with a dataset named as a command",
            lambda: _params(datasets={"a; touch x": {"folder": {"task": "binary", "classes": ["a"]}}}),
        ),
        ("with a backbone that is a path", lambda: _params(own_backbones={"../x": {"like": "test_vit", "file": "x"}})),
        (
            "with a backbone named as a command",
            lambda: _params(own_backbones={"$(x)": {"like": "test_vit", "file": "x"}}),
        ),
        ("with a learning rate of NaN", lambda: _params(probe={"linear": {"learning_rates": [float("nan")]}})),
        ("with a learning rate of infinity", lambda: _params(probe={"linear": {"learning_rates": [float("inf")]}})),
        ("with a list where a mapping belongs", lambda: _params(datasets=["montgomery"])),
        ("with a mapping where a list belongs", lambda: _params(backbones={"test_vit": 1})),
        ("with 10 MB in one value", lambda: _params(seed="x" * 10_000_000)),
        ("with a key of 1 MB", lambda: _params(**{"x" * 1_000_000: 1})),
        ("with a key that is a list", lambda: _text("? [a, b]\n: 1\n")),
        ("with a date for a name", lambda: _params(datasets={}).replace(b"study: s", b"study: 2020-01-01")),
        ("with a NUL in a path", lambda: _text('paths: {root: "a\\0b"}\n')),
    ]
]


# --- archives ---------------------------------------------------------------------------------------------------------


def _zip_lie() -> bytes:
    content = bytearray(zipped({"a": bytes(5000)}))
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 10)  # the size that the directory gives
    return bytes(content)


def _overlapping() -> bytes:
    """Two names of the directory point to the same bytes, as in the zips that hold petabytes."""
    content = zipped({"a": bytes(5000), "b": bytes(5000)})
    at = content.rindex(b"PK\x01\x02")
    return content[: at + 42] + struct.pack("<I", 0) + content[at + 46 :]


def _tar_size(size: bytes) -> bytes:
    content = bytearray(tarred({"a": b"x" * 100}))
    content[124:136] = size.ljust(12, b"\0")
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    return bytes(content)


ARCHIVES = [
    Case("a zip whose directory lies about a size", "x.zip", "archive", _zip_lie),
    Case("a zip whose members overlap", "x.zip", "archive", _overlapping),
    Case("a zip bomb of 3 GB", "x.zip", "archive", lambda: _zip_bomb(3 << 30)),
    Case(
        "a zip in a zip in a zip",
        "x.zip",
        "archive",
        lambda: zipped({"a.zip": zipped({"b.zip": zipped(MEMBERS)})}),
        READ,
    ),
    Case("a zip of nothing", "x.zip", "archive", lambda: zipped({})),
    Case("the end of a zip and nothing before", "x.zip", "archive", lambda: _sound("archive.zip")[-22:]),
    Case("a tar whose member is -1 bytes", "x.tar", "archive", lambda: _tar_size(b"-0000000001")),
    Case(
        "a tar whose member is 8 exabytes",
        "x.tar",
        "archive",
        lambda: _tar_size(b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7),
    ),
    Case("a tar whose member is no number", "x.tar", "archive", lambda: _tar_size(b"abcdefghijk")),
    Case("a gzip bomb of 3 GB", "x.tar.gz", "archive", lambda: _gzip(_zeros(3 << 30), 3 << 30)),
    Case("a tar of nothing", "x.tar", "archive", lambda: tarred({})),
    Case("a tar packed by bzip2", "x.tar.gz", "archive", lambda: tarred(MEMBERS, "w:bz2")),
    Case("a RAR", "x.zip", "archive", lambda: b"Rar!\x1a\x07\x01\x00" + bytes(200)),
    Case("a 7z", "x.zip", "archive", lambda: b"7z\xbc\xaf\x27\x1c" + bytes(200)),
]


def _zip_bomb(n: int, name: str = "a") -> bytes:
    """A zip of one member of n zeros; its checksum is wrong."""
    packed = _zeros(n) + zlib.compress(b"", wbits=-15)
    facts = struct.pack("<HHHHIIIHH", 20, 0, 8, 0, 0, len(packed), n, len(name), 0)[2:]
    local = b"PK\x03\x04" + struct.pack("<H", 20) + facts + name.encode() + packed
    entry = b"PK\x01\x02" + struct.pack("<HH", 20, 20) + facts + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name.encode()
    return local + entry + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), len(local), 0)


# --- weights ----------------------------------------------------------------------------------------------------------


def _header(header, tail: bytes = bytes(64)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tail


def _nan(state) -> None:
    state["norm.weight"].fill_(float("nan"))


def _infinite(state) -> None:
    state["norm.bias"].fill_(float("inf"))


def _half_missing(state) -> None:
    for name in list(state)[::2]:
        state.pop(name)


def _whole_numbers(state) -> None:
    state["norm.weight"] = state["norm.weight"].int()


ONE = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
WEIGHTS = [
    Case(f"weights {what}", name, "weights", make)
    for what, name, make in [
        ("whose header is 2^63 bytes", "x.safetensors", lambda: struct.pack("<Q", 2**63) + b"{}"),
        ("whose header is longer than the file", "x.safetensors", lambda: struct.pack("<Q", 1 << 30) + b"{}"),
        ("whose header is no JSON", "x.safetensors", lambda: _header(b"{not json")),
        ("whose header is 100,000 brackets", "x.safetensors", lambda: _header(b"[" * 100_000)),
        ("of an unknown type", "x.safetensors", lambda: _header({"a": {**ONE, "dtype": "F999"}})),
        ("of a negative shape", "x.safetensors", lambda: _header({"a": {**ONE, "shape": [-4]}})),
        ("of a shape of 2^60", "x.safetensors", lambda: _header({"a": {**ONE, "shape": [2**60]}})),
        (
            "whose offsets lie beyond the end",
            "x.safetensors",
            lambda: _header({"a": {**ONE, "data_offsets": [0, 2**40]}}),
        ),
        ("whose offsets run backwards", "x.safetensors", lambda: _header({"a": {**ONE, "data_offsets": [16, 0]}})),
        ("whose tensors overlap", "x.safetensors", lambda: _header({"a": ONE, "b": ONE})),
        ("of no tensor", "x.safetensors", lambda: _header({})),
        ("with NaN", "x.safetensors", lambda: safetensors(_nan)),
        ("with infinity", "x.safetensors", lambda: safetensors(_infinite)),
        ("of whole numbers", "x.safetensors", lambda: safetensors(_whole_numbers)),
        ("of which half is missing", "x.safetensors", lambda: safetensors(_half_missing)),
        ("that are a pickle called safetensors", "x.safetensors", lambda: pickled({})),
        ("that are a pickle which would run code", "x.pt", lambda: pickle.dumps(Runs())),
        ("that are a zip with a pickle which would run code", "x.pt", lambda: pickled({"a": Runs()})),
        ("that are a pickle of a list", "x.pt", lambda: pickled([1, 2])),
        ("that are a pickle of numbers", "x.pt", lambda: pickled({"a": 1})),
        ("that are a zip of nothing", "x.pt", lambda: zipped({})),
        ("that are a zip bomb", "x.pt", lambda: _zip_bomb(3 << 30, "archive/data.pkl")),
        ("that are empty", "x.pt", lambda: b""),
    ]
]
ADAPTERS = [
    Case(f"an adapter {what}", "adapter.safetensors", "adapter", make)
    for what, make in [
        ("whose header is 2^63 bytes", lambda: struct.pack("<Q", 2**63) + b"{}"),
        ("whose header is a list", lambda: _header([])),
        ("whose header is 100,000 brackets", lambda: _header(b"[" * 100_000)),
        ("without facts", lambda: _header({"__metadata__": {}})),
        ("whose facts are no JSON", lambda: _header({"__metadata__": {"radprobe": "x"}})),
        ("whose facts are a list", lambda: _header({"__metadata__": {"radprobe": "[]"}})),
        ("whose facts are 100,000 brackets", lambda: _header({"__metadata__": {"radprobe": "[" * 100_000}})),
        ("of zeros", lambda: bytes(1000)),
    ]
]


# --- what stages hand to each other ----------------------------------------------------------------------------------


def _npy_header(text: str, tail: bytes = b"") -> bytes:
    head = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + tail


def _npy(shape: str, descr: str = "'|u1'") -> bytes:
    return _npy_header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}", bytes(48))


ARTIFACTS = [
    Case(f"an array {what}", "images.npy", "array", make)
    for what, make in [
        ("that is a pickle which would run code", lambda: npy(np.array([Runs()], object), allow_pickle=True)),
        ("that is a bare pickle", lambda: pickle.dumps(Runs())),
        ("of 10^15 rows", lambda: _npy("(1000000000000000, 4, 4)")),
        ("of negative rows", lambda: _npy("(-3, 4, 4)")),
        ("of more rows than there are", lambda: _npy("(300, 4, 4)")),
        ("whose header is code", lambda: _npy_header("__import__('os').system('touch code-has-run')")),
        ("whose header is 20,000 brackets", lambda: b"\x93NUMPY\x02\x00" + struct.pack("<I", 20_000) + b"(" * 20_000),
        ("of objects", lambda: _npy("(3, 4, 4)", "'|O'")),
        ("of an unknown version", lambda: b"\x93NUMPY\x09\x09" + bytes(200)),
        ("that is a zip of arrays", lambda: zipped({"a.npy": npy(np.zeros(3))})),
    ]
]
ARTIFACTS += [
    Case(f"a table {what}", "index.parquet", "table", make)
    for what, make in [
        ("without a column", lambda: parquet(index_table().drop(columns="patient_id"))),
        ("with a column too many", lambda: parquet(index_table().assign(x=1))),
        ("of no row and no column", lambda: parquet(index_table()[[]])),
        ("whose sample is there twice", lambda: parquet(index_table().assign(sample_id="a"))),
        ("out of order", lambda: parquet(index_table()[::-1])),
        ("with a slice of -1", lambda: parquet(index_table().assign(slice=-1))),
        ("of texts where labels belong", lambda: parquet(index_table().assign(**{"label:ill": "yes"}))),
        ("whose masks are no lists", lambda: parquet(index_table().assign(masks=3))),
        ("without patients", lambda: parquet(index_table().assign(patient_id=None))),
        ("whose footer says 2 GB", lambda: _sound("index.parquet")[:-8] + struct.pack("<I", 2**31 - 1) + b"PAR1"),
        ("that is a CSV", lambda: index_table().to_csv().encode()),
    ]
]


def _manifest(**changes) -> bytes:
    return json.dumps({"kind": "index", "key": "s", "facts": {}, "files": {}} | changes).encode()


MANIFESTS = [
    Case(f"a manifest {what}", "index.json", "manifest", make)
    for what, make in [
        ("that is empty", lambda: b""),
        ("that is a list", lambda: b"[]"),
        ("that is null", lambda: b"null"),
        ("that is a number", lambda: b"3"),
        ("that is binary", lambda: bytes(range(256))),
        ("of 100,000 brackets", lambda: b"[" * 100_000),
        ("with a field too many", lambda: _manifest(x=1)),
        ("of another kind", lambda: _manifest(kind="split")),
        ("whose files are a list", lambda: _manifest(files=["index.parquet"])),
        ("whose file has no hash", lambda: _manifest(files={"index.parquet": {}})),
        ("whose file is null", lambda: _manifest(files={"index.parquet": None})),
        ("whose file is elsewhere", lambda: _manifest(files={"../../etc/passwd": {"bytes": 1, "sha256": "0"}})),
        ("whose file is not there", lambda: _manifest(files={"index.parquet": {"bytes": 1, "sha256": "0"}})),
        ("whose facts are a text", lambda: _manifest(facts="x")),
        ("that lists no file", lambda: _manifest()),
    ]
]

CASES = [*FILMS, *DICOM, *VOLUMES, *TABLES, *PARAMS, *ARCHIVES, *WEIGHTS, *ADAPTERS, *ARTIFACTS, *MANIFESTS]
