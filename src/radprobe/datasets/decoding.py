"""From raw files to stored pixels and label maps: headers first, then one file at a time, with what looks wrong."""

from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from radprobe.artifacts import Index
from radprobe.catalog import DecodeEntry
from radprobe.datasets import raw
from radprobe.files import RadprobeError
from radprobe.imaging import reading, resize, volumes
from radprobe.imaging.volumes import Slicing

FLAT = (
    1  # an image whose grey values differ by no more than this shows nothing (an equality would miss noise of one step)
)
CONSTANT = "the image is constant"
OUTSIDE = "all grey values lie outside the window, so a model sees black or white:"
BURNED_IN = "a name may be burned into the pixels: look before you share pictures"
SHOWN = 5  # names in a warning


class IndexRow(Protocol):
    """A row of the Index, as `itertuples` gives it."""

    sample_id: str
    patient_id: str
    volume_id: str
    slice: int
    spacing: list[float]


@dataclass(frozen=True)
class Picture:
    """One image or volume, the masks drawn on it, and the rows of the Index that it holds (slices, or the one film)."""

    image: Path
    masks: tuple[Path, ...]
    rows: tuple[IndexRow, ...]

    @property
    def files(self) -> list[Path]:
        """All files that are read; of a DICOM series each file in its folder."""
        return [file for path in (self.image, *self.masks) for file in raw.files_of(path)]

    @property
    def names(self) -> tuple[str, ...]:
        """The sample ids."""
        return tuple(row.sample_id for row in self.rows)


@dataclass
class Decoded:
    """A picture: images and masks of its rows at the stored size, its label map on the original grid, what is odd."""

    picture: Picture
    images: list[np.ndarray]  # [side, side] for each row
    masks: list[np.ndarray]  # likewise, or empty
    labels: np.ndarray | None  # [H, W], or [X, Y, Z] as stored
    shapes: list[tuple[int, int]]  # height and width of each row's image before it was resized
    oddities: dict[str, int] = field(default_factory=dict)  # what looks wrong -> in how many pixels


@dataclass(frozen=True)
class Bad:
    """A file that cannot be used, and why."""

    file: Path
    why: str
    names: tuple[str, ...]  # the samples that go with it
    remedy: str


def pictures(index: Index, root: Path) -> list[Picture]:
    """Group the rows of an Index by image file, in order."""
    rows = index.table[["sample_id", "patient_id", "volume_id", "slice", "spacing", "image", "masks"]].itertuples(
        index=False
    )
    groups = [(image, tuple(group)) for image, group in groupby(rows, key=lambda row: row.image)]
    return [Picture(root / image, tuple(root / mask for mask in rows[0].masks), rows) for image, rows in groups]


def check(picture: Picture) -> tuple[Picture, type] | Bad:
    """Read the headers of a picture's files; return it with the dtype of its pixels, or why it cannot be used."""
    try:
        header = reading.probe(picture.image)
        for path in picture.masks:
            check_mask(path, reading.probe(path), header)
    except RadprobeError as error:
        return Bad(Path(error.what), error.reason, picture.names, error.remedy)
    return picture, header.dtype


def check_mask(path: Path, mask: reading.Header, image: reading.Header) -> None:
    """Raise RadprobeError unless a mask lies on its image's grid (volumes: but for turned axes)."""
    if image.affine is None:
        if mask.shape != image.shape:
            reason = f"the mask is {mask.shape}, its image {image.shape}"
            raise RadprobeError(path, reason, "draw the mask on the image as it is")
    elif mask.affine is None:
        raise RadprobeError(path, "is an image, but what it belongs to is a volume", "give the mask as a NIfTI volume")
    else:
        nothing = np.broadcast_to(np.uint8(0), mask.shape)  # takes no memory
        volumes.same_grid(path, nothing, mask.affine, image.shape, image.affine)


def decode(picture: Picture, entry: DecodeEntry, side: int) -> Decoded | Bad:
    """Decode and resize all rows of a picture, or say why it cannot be used."""
    try:
        read = _decode_volume if reading.is_volume(picture.image) else _film
        decoded = read(picture, entry, side)
        if entry.own and reading.text_possible(picture.image):
            decoded.oddities[BURNED_IN] = decoded.images[0].size
        return decoded
    except RadprobeError as error:
        return Bad(Path(error.what), error.reason, picture.names, error.remedy)


def _film(picture: Picture, entry: DecodeEntry, side: int) -> Decoded:
    image = reading.read_grey(picture.image)
    decoded = Decoded(picture, [resize.resize_image(image, side)], [], None, [image.shape], _odd_values(image, entry))
    if picture.masks:
        decoded.labels, oddities = _labels(picture, entry)
        decoded.masks = [resize.resize_mask(decoded.labels, side)]
        decoded.oddities |= oddities
    return decoded


def _odd_values(values: np.ndarray, entry: DecodeEntry) -> dict[str, int]:
    """Return what looks wrong with the grey values of an image or volume: how many there are of it."""
    low, high, window = int(values.min()), int(values.max()), entry.window
    if high - low <= FLAT:
        return {CONSTANT: values.size}
    if window and (high <= window.low or low >= window.high):
        return {f"{OUTSIDE} {window.low:g} to {window.high:g}": values.size}
    return {}


def _decode_volume(picture: Picture, entry: DecodeEntry, side: int) -> Decoded:
    # only a window is stated in the unit of the values (CT); percentiles and extremes mean the same at any scale
    volume = reading.read_volume(picture.image, relative=entry.window is None)
    slicing = Slicing.of(volume.affine, entry.slices)
    cut = slicing.cut(volume.values)
    images = [resize.resize_image(cut[row.slice], side) for row in picture.rows]
    odd = _odd_values(volume.values, entry)
    decoded = Decoded(picture, images, [], None, [cut.shape[1:]] * len(images), odd)
    if picture.masks:
        labels, oddities = _labels(picture, entry)
        decoded.oddities |= oddities
        path = picture.masks[0]
        own, _ = reading.probe(path).of_volume  # a volume too: `check_mask` has seen its header
        decoded.labels = volumes.same_grid(path, labels, own, volume.values.shape, volume.affine)
        cut = slicing.cut(decoded.labels)
        decoded.masks = [resize.resize_mask(cut[row.slice], side) for row in picture.rows]
    return decoded


def _labels(picture: Picture, entry: DecodeEntry) -> tuple[np.ndarray, dict[str, int]]:
    """Read the masks of a picture as one label map, label i + 1 being classes[i]; return it and what looks wrong."""
    if entry.mask == "binary":
        return label_map([reading.read_grey(path) for path in picture.masks])
    (path,) = picture.masks
    labels = reading.read_labels(path)
    found = _values(labels)
    if len(entry.classes) == 1 and len(found) == 2 and found[0] == 0 and found[1] != 1:
        return (labels > 0).astype(np.uint8), {f"mask has {found[1]} for its one class": int((labels > 0).sum())}
    if found[-1] > len(entry.classes):
        known = ", ".join(f"{label} {name}" for label, name in enumerate(entry.classes, 1))
        raise RadprobeError(path, f"holds label {found[-1]}; known are 0 background, {known}", "mend the mask")
    return labels, ({"the mask is empty": labels.size} if found[-1] == 0 else {})


def _values(labels: np.ndarray) -> np.ndarray:
    """Return the labels that occur, slab by slab: NumPy would count all voxels at once as 64-bit integers."""
    occurs = np.zeros(256, bool)
    for slab in labels.T:
        occurs[slab] = True
    return np.flatnonzero(occurs)


def label_map(masks: list[np.ndarray]) -> tuple[np.ndarray, dict[str, int]]:
    """Merge binary masks [H, W], one per class, to a label map uint8 [H, W]; return it and what looks wrong (pixels).

    Foreground is above half of a mask's maximum: 1, 255 and edges blurred by a resizer all work. Where masks overlap
    the later class wins.
    """
    labels = np.zeros(masks[0].shape, np.uint8)
    overlap, oddities = 0, {}
    for label, mask in enumerate(masks, 1):
        mask = mask.astype(np.int32) - min(0, int(mask.min()))  # unsigned 16 bits are stored from -32,768 up
        foreground = mask > mask.max() / 2
        overlap += int((foreground & (labels > 0)).sum())
        labels[foreground] = label
        oddities[f"mask {label} is empty"] = 0 if foreground.any() else mask.size
        oddities[f"mask {label} has more than two values"] = int(((mask > 0) & (mask < mask.max())).sum())
    oddities["masks overlap"] = overlap
    return labels, {kind: pixels for kind, pixels in oddities.items() if pixels}


def refuse(bad: list[Bad], limit: int) -> None:
    """Raise RadprobeError, naming the last of the unusable files, where there are more than `limit`."""
    if len(bad) > limit:
        allowed = f" (unusable file {len(bad)}; max_quarantine is {limit})" if limit else ""
        remedy, aside = bad[-1].remedy, "let such files be set aside by name: max_quarantine"
        known = "max_quarantine" in remedy
        raise RadprobeError(bad[-1].file, f"{bad[-1].why}{allowed}", remedy if known else f"{remedy}, or {aside}")


class RowWriter:
    """Append rows to an .npy file whose number of rows is known only at the end. Memory stays flat, unlike a memmap's.

    NumPy leaves room in the header for a longer first axis, so it is written again in place.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: type):
        self.shape, self.dtype, self.rows = shape, np.dtype(dtype), 0
        self.handle = path.open("wb")
        self._header()

    def _header(self) -> None:
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows, *self.shape)}
        np.lib.format.write_array_header_1_0(self.handle, header)

    def append(self, row: np.ndarray) -> None:
        """Write one row of the shape given."""
        if row.shape != self.shape:
            raise ValueError(f"row of shape {row.shape}, not {self.shape}")
        self.handle.write(np.ascontiguousarray(row, self.dtype).tobytes())
        self.rows += 1

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self.handle.seek(0)
        self._header()
        self.handle.close()


def warnings(oddities: list[tuple[str, str, int]]) -> list[str]:
    """Group (what looks wrong, sample id, pixels) to one line per kind: how many, and the first names."""
    lines = []
    for kind in sorted({kind for kind, _, _ in oddities}):
        names = [name for other, name, _ in oddities if other == kind]
        pixels = sum(pixels for other, _, pixels in oddities if other == kind)
        more = ", ..." if len(names) > SHOWN else ""
        lines.append(f"{kind}: {len(names)} sample(s), {pixels:,} pixels: {', '.join(names[:SHOWN])}{more}")
    return lines


def described(bad: Bad, root: Path) -> dict[str, Any]:
    """Return an unusable file as it stands in facts, its path relative to the raw root."""
    return {"file": bad.file.relative_to(root).as_posix(), "why": bad.why, "samples": list(bad.names)}
