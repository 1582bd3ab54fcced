"""Reading images, volumes and masks of every format as native grey values. No window is applied.

Images: PNG, JPEG, TIFF, BMP, single DICOM files, MATLAB v7.3. Volumes: NIfTI, and folders of one DICOM series.
"""

from pathlib import Path
from types import ModuleType

import numpy as np

from radprobe.files import RadprobeError
from radprobe.imaging import nifti, raster
from radprobe.imaging.values import REMEDY, Header, Labels, Volume, check_size, is_dicom

__all__ = ["Header", "Volume", "is_volume", "probe", "read_grey", "read_labels", "read_volume"]

MATLAB = ".mat"


def is_volume(path: Path) -> bool:
    """Say whether `read_volume` reads this path: a NIfTI by its name, or a folder, which holds a DICOM series."""
    return nifti.is_nifti(path) or path.is_dir()


def probe(path: Path) -> Header:
    """Read a header without decoding pixels: cheap enough for every file before anything heavy.

    Raises RadprobeError where the file is missing, empty, of no known format or cut off before its end, where spacing
    or affine make no sense, where it says that it is larger than anything real, and where a folder does not hold
    exactly one gapless DICOM series.
    """
    header: Header = _reader(Path(path)).probe(Path(path))
    check_size(Path(path), header.shape)
    return header


def read_grey(path: Path) -> np.ndarray:
    """Decode an image to grey [H, W]: uint8, or int16 where its source is deeper than 8 bits.

    What is done to the values is said by `raster.read_grey`, `dicom.read_grey` and `matlab.read_grey`.
    Raises RadprobeError where it cannot be decoded.
    """
    path = Path(path)
    if is_volume(path):
        raise RadprobeError(path, "is a volume, where an image is wanted", "list it as a volume")
    image: np.ndarray = _reader(path).read_grey(path)
    return image


def read_volume(path: Path, relative: bool = False) -> Volume:
    """Read a volume as stored: values [X, Y, Z] uint8 or int16 (rescaled: HU in CT), affine to RAS mm, spacing in mm.

    `relative` grey values have no unit: a NIfTI's are multiplied to fill 16 bits where they would not fit.
    Raises RadprobeError where it is damaged, holds NaN or values beyond 16 bits, or is no single gapless volume.
    """
    path = Path(path)
    reader = _reader(path)
    if not is_volume(path):
        raise RadprobeError(path, "is an image, where a volume is wanted", "give NIfTI, or a folder of one series")
    volume: Volume = reader.read(path, relative) if nifti.is_nifti(path) else reader.read(path)
    return volume


def read_labels(path: Path) -> np.ndarray:
    """Read a mask: uint8 [H, W], or [X, Y, Z] as stored.

    Values are those stored: 1-bit images give 0 and 1, palettes their indices, floats must be whole.
    Raises RadprobeError where it cannot be read, or holds what is no label: fractions, colours, below 0, above 255.
    """
    path = Path(path)
    reader = _reader(path)
    if reader is nifti:
        return nifti.read_labels(path)
    if reader is not raster:
        raise RadprobeError(path, "is no mask that can be read", "write masks as PNG, TIFF or NIfTI label maps")
    return Labels(path).take(raster.read_stored(path))


def _reader(path: Path) -> ModuleType:
    """Return the module that reads a path; DICOM files are known by their content too, as they often have no suffix."""
    if path.is_dir():
        from radprobe.imaging import series

        return series
    if not path.is_file():
        raise RadprobeError(path, "is missing", REMEDY)
    if not path.stat().st_size:
        raise RadprobeError(path, "is empty", REMEDY)
    if nifti.is_nifti(path):
        return nifti
    if path.suffix.lower() == MATLAB:
        from radprobe.imaging import matlab

        return matlab
    if is_dicom(path):
        from radprobe.imaging import dicom

        return dicom
    return raster


def text_possible(path: Path) -> bool:
    """Say whether a DICOM file, or a folder of them, may have text burned into its pixels; see `dicom.describe`."""
    path = Path(path)
    if not (path.is_dir() or is_dicom(path)):
        return False
    from radprobe.imaging import dicom

    return dicom.describe(path)["text_possible"]
