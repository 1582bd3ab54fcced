"""A folder that holds one DICOM series, as a volume."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from radprobe.files import RadprobeError
from radprobe.imaging import dicom
from radprobe.imaging.values import Header, Volume

IRREGULAR = 0.2  # of the usual gap: gaps between slices may differ by so much (positions are rounded when written)
TILT_MM = 0.5  # how far slices may lie beside the line through the first, at right angles to it
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
REMEDY = "export the series again, or convert it to NIfTI"


@dataclass(frozen=True)
class Slice:
    """What one file of a series says: grid, direction cosines of its rows and columns, position (LPS mm)."""

    path: Path
    series: str  # only to be compared, never shown
    shape: tuple[int, int]
    dtype: type
    spacing: tuple[float, float]  # between rows, between columns
    cosines: np.ndarray  # [2, 3]: along a row, along a column
    position: np.ndarray  # [3], of the first pixel's centre
    thickness: float

    @property
    def height(self) -> float:
        """Where the slice lies along the normal, in mm."""
        return float(self.position @ np.cross(*self.cosines))


def probe(folder: Path) -> Header:
    """Read the headers of a series: shape [X, Y, Z] (columns, rows, slices by position), spacing and affine.

    Raises RadprobeError where the folder holds no or several series, slices of several sizes, directions or spacings,
    a gap, two slices at one place, or a tilted stack.
    """
    return _header(folder, _slices(folder))


def read(folder: Path) -> Volume:
    """Read a series as values [X, Y, Z], uint8 or int16, each slice rescaled by its own tags; see `probe`."""
    slices = _slices(folder)
    header = _header(folder, slices)
    affine, shape = header.of_volume
    x, y, between = header.spacing
    values: np.ndarray = np.empty(shape, header.dtype, order="F")
    for z, one in enumerate(slices):
        values[:, :, z] = dicom.read_grey(one.path).T
    return Volume(values, affine, (x, y, between))


def _header(folder: Path, slices: list[Slice]) -> Header:
    affine, between = _affine(folder, slices)
    rows, columns = slices[0].spacing
    height, width = slices[0].shape
    dtype = np.uint8 if all(one.dtype == np.uint8 for one in slices) else np.int16
    return Header((width, height, len(slices)), dtype, (columns, rows, between), affine)


def _slices(folder: Path) -> list[Slice]:
    slices = [_slice(path) for path in dicom.files(folder)]
    _refuse_mixture(folder, slices)
    return sorted(slices, key=lambda one: one.height)


def _slice(path: Path) -> Slice:
    data = dicom.header(path)
    spacing = dicom.pixel_spacing(path, data)
    cosines, position = _numbers(data, "ImageOrientationPatient", 6), _numbers(data, "ImagePositionPatient", 3)
    if cosines is None or position is None or not spacing:  # or of 0 mm
        reason = "lacks a place in the patient (ImagePositionPatient, ImageOrientationPatient, PixelSpacing above 0)"
        raise RadprobeError(path, reason, "list it as a single image, or export the series again")
    cosines = cosines.reshape(2, 3)
    if np.abs(cosines @ cosines.T - np.eye(2)).max() > 0.01:
        raise RadprobeError(path, "has directions of rows and columns that are not at right angles", REMEDY)
    thickness = _numbers(data, "SliceThickness", 1)
    return Slice(
        path,
        str(data.get("SeriesInstanceUID", "")),
        (data.Rows, data.Columns),
        dicom.stored_dtype(data),
        (spacing[0], spacing[1]),
        cosines,
        position,
        0.0 if thickness is None else float(thickness[0]),
    )


def _numbers(data: pydicom.Dataset, name: str, n: int) -> np.ndarray | None:
    try:
        numbers = np.array(data.get(name), float).reshape(n)
    except (TypeError, ValueError):
        return None
    return numbers if np.isfinite(numbers).all() else None


def _refuse_mixture(folder: Path, slices: list[Slice]) -> None:
    """Raise RadprobeError where not all slices are of one series and one grid. No UID is shown: it identifies."""
    groups: dict[str, list[str]] = {}
    for one in slices:
        groups.setdefault(one.series, []).append(one.path.name)
    if len(groups) > 1:
        counted = "; ".join(f"{len(names)} files, as {names[0]}" for names in groups.values())
        raise RadprobeError(folder, f"holds {len(groups)} series ({counted})", "give each series a folder of its own")
    first = slices[0]
    for one in slices:
        for what, same in (
            ("sizes", one.shape == first.shape),
            ("pixel spacings", np.allclose(one.spacing, first.spacing, rtol=1e-3)),
            ("directions", np.allclose(one.cosines, first.cosines, atol=1e-3)),
        ):
            if not same:
                reason = f"holds slices of several {what}: {first.path.name} and {one.path.name}"
                raise RadprobeError(folder, reason, "give each of them a folder of its own, or export the series again")


def _affine(folder: Path, slices: list[Slice]) -> tuple[np.ndarray, float]:
    """Return the voxel-to-RAS affine [4, 4] of sorted slices and the mm between them.

    The columns are the steps along a row, along a column and to the next slice, and the first pixel (DICOM PS3.3
    C.7.6.2.1.1); DICOM's axes point to the left, back and head, so the first two are turned.
    """
    first, last = slices[0], slices[-1]
    normal = np.cross(*first.cosines)
    if len(slices) == 1:
        if first.thickness <= 0:
            raise RadprobeError(folder, "holds one slice, which does not say how thick it is", "list it as an image")
        step = normal * first.thickness
    else:
        _refuse_gaps(folder, slices)
        step = (last.position - first.position) / (len(slices) - 1)
    affine = np.eye(4)
    affine[:3, 0] = first.cosines[0] * first.spacing[1]
    affine[:3, 1] = first.cosines[1] * first.spacing[0]
    affine[:3, 2], affine[:3, 3] = step, first.position
    return LPS_TO_RAS @ affine, float(np.linalg.norm(step))


def _refuse_gaps(folder: Path, slices: list[Slice]) -> None:
    gaps = np.diff([one.height for one in slices])
    usual = float(np.median(gaps))
    for gap, one, following in zip(gaps, slices, slices[1:], strict=False):
        pair = f"{one.path.name} and {following.path.name}"
        if gap < 0.01:
            reason = f"holds two slices at one place: {pair}"
            raise RadprobeError(folder, reason, "give each volume a folder of its own")
        if abs(gap - usual) > IRREGULAR * usual:
            reason = (
                f"misses a slice, or they are not evenly apart: {gap:.3g} mm between {pair}, usually {usual:.3g} mm"
            )
            raise RadprobeError(folder, reason, "complete the series, or let it be set aside: max_quarantine")
    even = np.linspace(slices[0].height, slices[-1].height, len(slices))
    if np.abs(even - [one.height for one in slices]).max() > usual / 2:
        raise RadprobeError(folder, "holds slices whose distances drift", "convert it to NIfTI with even slices")
    beside = np.array([one.position - slices[0].position for one in slices])
    beside -= np.outer(beside @ np.cross(*slices[0].cosines), np.cross(*slices[0].cosines))
    if np.linalg.norm(beside, axis=1).max() > TILT_MM:
        raise RadprobeError(folder, "is a tilted stack (gantry tilt)", "convert it to NIfTI with the tilt corrected")
