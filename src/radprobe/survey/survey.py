"""What lies in a folder of somebody's images, as names, headers and tables say it. Nothing in it is changed.

Of DICOM files no tag is read that says who a patient is.
"""

import json
import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from radprobe.console import track
from radprobe.datasets import decoding
from radprobe.datasets.csv_table import Table, read_table
from radprobe.files import RadprobeError, stream_in_threads
from radprobe.imaging import dicom, nifti, reading
from radprobe.imaging.dicom import NoImage
from radprobe.imaging.values import DICOM, Header, is_dicom
from radprobe.survey import matching
from radprobe.survey.matching import Listing

RASTERS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"}
TABLES, SPREADSHEETS = (".csv", ".tsv"), (".xlsx", ".xls", ".ods")
# files that are no images, whatever they hold: they are not opened
OTHERS = {".txt", ".json", ".xml", ".html", ".md", ".pdf", ".yaml", ".yml", ".py", ".ipynb", ".log", ".npy", ".npz"}
OTHERS |= {".zip", ".gz", ".tar", ".tgz", ".rar", ".7z", ".xls", ".xlsx", ".ods", ".parquet", ".mha", ".nrrd", ".h5"}
SERIES = "DICOM series"
# what DICOM calls a modality -> what people call it
MODALITIES = {**dict.fromkeys(("CR", "DX", "DR", "RG", "PX"), "X-ray"), "CT": "CT", "MR": "MRI", "MRI": "MRI"}
MODALITIES |= {"MG": "mammography", "US": "ultrasound", "PT": "PET", "NM": "scintigraphy"}
MAX_HEADERS = 5000  # that are read; of more images evenly spaced ones
FEW_FILES = 32  # of a folder that are looked at: where it holds fewer series, two of them are of one
ENOUGH_MASKS, MASK_PIXELS = 40, 10**9  # masks are looked at until there were so many, and so many pixels
AIR_HU = -900  # grey values below it are Hounsfield units


@dataclass(frozen=True)
class Seen:
    """An image file, a volume, or a folder that holds one DICOM series. `header` None: `error` says what is wrong."""

    path: str  # below the root
    form: str  # PNG, DICOM, DICOM series, NIfTI ...
    header: Header | None = None
    error: RadprobeError | None = None
    modality: str | None = None
    text_possible: bool = False  # a name may be burned into the pixels

    @property
    def plane(self) -> tuple[int, ...]:
        """The sides of the image, or of a slice, in pixels."""
        return self.header.shape[:2] if self.header else ()


@dataclass(frozen=True)
class Survey:
    """A folder of images as it was found.

    masks: image -> its masks, by the table or by name. labels: the values of the masks that were read; `bad_masks`
    those that could not be read or do not lie on their image, and why; `unread_masks`: how many were not looked at.
    lone_masks: those that no image has the name of. no_images: DICOM files without pixels, in no other field. names:
    what a dataset.json calls the labels. modality: that of most images. hounsfield: all grey values are HU.
    """

    root: Path
    forms: dict[str, str]  # image -> PNG, DICOM ...
    seen: list[Seen]  # all images, or evenly spaced ones of many
    masks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    labels: tuple[int, ...] = ()
    bad_masks: dict[str, RadprobeError] = field(default_factory=dict)
    unread_masks: int = 0
    lone_masks: tuple[str, ...] = ()
    no_images: tuple[str, ...] = ()
    names: dict[int, str] = field(default_factory=dict)
    listing: Listing | None = None
    tables: list[Table] = field(default_factory=list)
    unread_tables: list[RadprobeError] = field(default_factory=list)  # what is wrong with each
    modality: str | None = None
    hounsfield: bool = False
    others: Counter[str] = field(default_factory=Counter)  # suffix -> files that are not read

    @property
    def volumes(self) -> bool:
        """Are the images volumes."""
        return any(form in (SERIES, "NIfTI") for form in self.forms.values())


def survey(root: Path, table: Path | None = None) -> Survey:
    """Look at a folder, and at a table that may lie elsewhere; without one, at all CSV files in the folder.

    Raises RadprobeError where it is no folder, holds no image, or slices of volumes without folders, or where a table
    that was named cannot be read.
    """
    if not root.is_dir():
        raise RadprobeError(root, "is no folder", "name the folder that holds your images")
    if table and not table.is_file():
        raise RadprobeError(table, "is no file", "name the CSV of your images: --table FILE")
    paths = _files(root)
    tables, unread = ([read_table(table)], []) if table else _tables(root, paths)
    forms, others = _forms(root, paths)
    forms = _with_series(root, forms, tables)
    if not forms:
        raise _no_image(root, others)
    images, masks = _apart(forms)
    listing = matching.listing(root, tables, images, masks)
    if unread and not listing:
        remedy = f"{unread[0].remedy}; or move it elsewhere, if it does not list your images"
        raise RadprobeError(unread[0].what, unread[0].reason, remedy)
    of_image = _masks_of(listing, images, masks)
    paired = {*of_image, *(mask for each in of_image.values() for mask in each)}
    images = [path for path in images if path in of_image or path not in paired]
    asked = listing.paths if listing else {*images}
    seen = _headers(root, {path: forms[path] for path in images if path in asked})
    no_images = {one.path for one in seen if isinstance(one.error, NoImage) and one.form == "DICOM"}
    images = [path for path in images if path not in no_images]
    seen = [one for one in seen if one.path not in no_images]
    listing = matching.without(listing, no_images) if listing else None
    names, modality = _dataset_json(root)
    drawn = {each[0]: image for image, each in of_image.items() if len(each) == 1 and image in asked}
    labels, bad, not_looked_at = _labels(root, drawn, {one.path: one.header for one in seen})
    told = Counter(one.modality for one in seen if one.modality)
    modality = modality or next((name for name, _ in told.most_common(1)), None)
    return Survey(
        root=root,
        forms={path: forms[path] for path in images},
        seen=seen,
        masks=of_image,
        labels=labels,
        bad_masks=bad,
        unread_masks=not_looked_at,
        no_images=tuple(sorted(no_images)),
        lone_masks=tuple(path for path in forms if matching.is_mask(path) and path not in paired),
        names=names,
        listing=listing,
        tables=tables,
        unread_tables=unread,
        modality=modality,
        hounsfield=(modality == "CT" and len(told) < 2) or (modality is None and _is_hounsfield(root, seen)),
        others=others,
    )


def _masks_of(listing: Listing | None, images: list[str], masks: list[str]) -> dict[str, tuple[str, ...]]:
    """Return the masks of each image that has some, as a table says, or names do."""
    if listing and listing.mask:
        return {paths[0]: (listing.masks[n],) for n, paths in listing.images.items() if n in listing.masks}
    return matching.pairs(images, masks)


# --- files ------------------------------------------------------------------------------------------------------------


def _no_image(root: Path, others: Counter[str]) -> RadprobeError:
    what = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in others.most_common(5)) or "nothing"
    remedy = "images are PNG, JPEG, TIFF, BMP, DICOM or NIfTI; unpack archives first"
    return RadprobeError(root, f"holds no image that can be read ({what})", remedy)


def _files(root: Path) -> list[str]:
    """Return all files below a folder, without hidden ones and what lies in hidden folders, sorted."""
    found = []
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if not name.startswith(".")]
        place = Path(folder).relative_to(root)
        found += [(place / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(found)


def _tables(root: Path, paths: list[str]) -> tuple[list[Table], list[RadprobeError]]:
    """Return the tables that can be read, and what is wrong with others."""
    found, unread = [], []
    for path in paths:
        if Path(path).suffix.lower() in TABLES:
            try:
                found.append(read_table(root / path))
            except RadprobeError as error:
                unread.append(error)
    return found, unread


def _forms(root: Path, paths: list[str]) -> tuple[dict[str, str], Counter[str]]:
    forms: dict[str, str] = {}
    others: Counter[str] = Counter()
    for path in paths:
        suffix = Path(path).suffix.lower()
        if form := _form(root / path, suffix):
            forms[path] = form
        elif suffix not in TABLES:
            others[suffix] += 1
    return forms, others


def _form(path: Path, suffix: str) -> str | None:
    if nifti.is_nifti(path):
        return "NIfTI"
    if suffix in RASTERS:
        return RASTERS[suffix]
    if suffix in (*TABLES, *OTHERS) or path.name.upper() == "DICOMDIR" or not path.is_file():
        return None
    return "DICOM" if suffix in DICOM or (os.access(path, os.R_OK) and is_dicom(path)) else None


def _with_series(root: Path, forms: dict[str, str], tables: list[Table]) -> dict[str, str]:
    """Put the folder in the place of its DICOM files where they are slices of series, and no table names them.

    Raises RadprobeError where such slices lie in the root itself, or all images in one such folder.
    """
    columns = [{cell.replace("\\", "/") for cell in table.cells(name)} for table in tables for name in table.columns]
    by_folder = defaultdict(list)
    for path, form in forms.items():
        if form == "DICOM":
            by_folder[path.rpartition("/")[0]].append(path)
    names = _unlike([path for inside in by_folder.values() for path in inside])
    apart = {folder: inside for folder, inside in by_folder.items() if not _named(inside, names, columns)}
    looked_at = track(apart.items(), "look for series", len(apart))
    series = {folder: inside for folder, inside in looked_at if _of_series(root, inside)}
    if alone := [folder for folder, inside in series.items() if not folder or len(inside) == len(forms)]:
        folder, inside = alone[0], series[alone[0]]
        reason = f"holds {len(inside)} DICOM files that are slices of series, as {matching.last(inside[0])}"
        remedy = "give each series a folder of its own; or list them in a CSV, if each slice is an image of its own"
        raise RadprobeError(root / folder, reason, remedy)
    slices = {path for inside in series.values() for path in inside}
    forms = {path: form for path, form in forms.items() if path not in slices} | dict.fromkeys(series, SERIES)
    return dict(sorted(forms.items()))


def _unlike(paths: list[str]) -> dict[str, set[str]]:
    """Return by which names each file can be told from all others and from folders: its path, perhaps its own name."""
    names = {path: {path, matching.last(path), matching.stem(matching.last(path))} for path in paths}
    times = Counter(name for each in names.values() for name in each)
    folders = {part for path in paths for part in path.split("/")[:-1]}
    return {path: {name for name in each if times[name] == 1 and name not in folders} for path, each in names.items()}


def _named(paths: list[str], names: dict[str, set[str]], columns: list[set[str]]) -> bool:
    """Say whether a column names most of the files one by one; one of numbers names those that are called so."""
    return any(2 * sum(bool(names[path] & cells) for path in paths) > len(paths) for cells in columns)


def _of_series(root: Path, paths: list[str]) -> bool:
    """Say whether two of the files are slices of one series. Their UIDs are only compared."""
    seen = set()
    some = paths[:: max(1, len(paths) // FEW_FILES)] if len(paths) > 1 else []
    for path in dict.fromkeys([*some[:1], *paths[1:2], *some]):
        try:
            data = dicom.header(root / path)
        except RadprobeError:
            continue
        series = data.get("SeriesInstanceUID") if data.get("ImagePositionPatient") else None
        if series and series in seen:
            return True
        seen.add(series)
    return False


def _apart(forms: dict[str, str]) -> tuple[list[str], list[str]]:
    """Return images and masks, by their names; one that no image has the name of is an image, but among others."""
    masks = [path for path, form in forms.items() if form != SERIES and matching.is_mask(path)]
    named = set(masks)
    images = [path for path in forms if path not in named]
    if matching.pairs(images, masks):
        return images, masks
    folders = {path.rpartition("/")[0] for path in images}
    drawn = {path for path in masks if matching.ends_as_mask(path) and path.rpartition("/")[0] in folders}
    return [path for path in forms if path not in drawn], sorted(drawn)


# --- what is in them --------------------------------------------------------------------------------------------------


def _headers(root: Path, forms: dict[str, str]) -> list[Seen]:
    chosen = list(forms)
    if len(chosen) > MAX_HEADERS:
        chosen = [chosen[k * len(chosen) // MAX_HEADERS] for k in range(MAX_HEADERS)]

    def look(path: str) -> Seen:
        try:
            header = reading.probe(root / path)
            modality: str | None = None
            text = False
            if forms[path] in ("DICOM", SERIES):
                described = dicom.describe(root / path)
                modality = MODALITIES.get(described["modality"] or "", described["modality"])
                text = described["text_possible"]
            return Seen(path, forms[path], header, None, modality, text)
        except RadprobeError as error:
            return Seen(path, forms[path], None, error)

    return list(track(stream_in_threads(look, chosen), "look at headers", len(chosen)))


def _labels(
    root: Path, masks: dict[str, str], headers: dict[str, Header | None]
) -> tuple[tuple[int, ...], dict[str, RadprobeError], int]:
    """Return the values of masks (mask -> image), what is wrong with some, and how many of many were not looked at.

    headers: those of images that are known; None where one is damaged, which is told where images are.
    """

    def look(path: str) -> tuple[np.ndarray, int, RadprobeError | None]:
        values = np.zeros(256, bool)
        try:
            image = masks[path]
            header = headers[image] if image in headers else reading.probe(root / image)
            if header:
                decoding.check_mask(root / path, reading.probe(root / path), header)
            labels = reading.read_labels(root / path)
        except RadprobeError as error:
            return values, 0, error
        values[labels] = True
        return values, labels.size, None

    if not masks:
        return (), {}, 0
    found = np.zeros(256, bool)
    bad: dict[str, RadprobeError] = {}
    n = 0
    pixels = 0
    names = list(masks)
    chosen = [names[k] for k in np.random.default_rng(0).permutation(len(names))]  # no period can hide a label
    looks = track(stream_in_threads(look, chosen, threads=2), "look at masks", len(chosen))
    for path, (values, size, error) in zip(chosen, looks, strict=False):
        found |= values
        bad |= {path: error} if error else {}
        n += 1
        pixels += size
        if n >= ENOUGH_MASKS and pixels > MASK_PIXELS:
            break
    return tuple(int(value) for value in np.flatnonzero(found)), bad, len(masks) - n


def _dataset_json(root: Path) -> tuple[dict[int, str], str | None]:
    """Return the names of the labels and the modality as the dataset.json of MSD or nnU-Net states them."""
    try:
        content = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
        given = {str(key): str(value) for key, value in content.get("labels", {}).items()}
        names = {int(k): v for k, v in given.items() if k.isdigit()} or {int(v): k for k, v in given.items()}
        channels = content.get("modality") or content.get("channel_names") or {}
        first = str(channels.get("0", "")).upper()
    except (OSError, ValueError, AttributeError):
        return {}, None
    return names, MODALITIES.get(first)


def _is_hounsfield(root: Path, seen: list[Seen]) -> bool:
    """Say whether the grey values of a volume in the middle of the list reach down to air in Hounsfield units."""
    volumes = [one.path for one in seen if one.form == "NIfTI" and one.header]
    if not volumes:
        return False
    try:
        return bool(reading.read_volume(root / volumes[len(volumes) // 2], relative=True).values.min() <= AIR_HU)
    except RadprobeError:
        return False
