"""Which files the cells of a table mean, and which mask belongs to which image, by their names alone."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from radprobe.datasets.csv_table import Line, Table
from radprobe.files import RadprobeError

# As the table should say it: its path below the root. Beside the table, up to its suffix. By its name, wherever it
# lies. By a folder around it.
EXACT, BESIDE, NAME, FOLDER = range(4)
ENOUGH = 0.5  # share of the rows whose cells have to be names of files, or of the files that have to be named
IMAGE_WORDS = {"image", "images", "img", "imgs", "scan", "scans", "volume", "volumes"}
MASK_WORDS = {"mask", "masks", "label", "labels", "lbl", "seg", "segs", "segmentation", "segmentations", "gt"}
MASK_WORDS |= {"groundtruth", "manual", "annotation", "annotations", "contour", "contours"}
CALLED = {"path", "paths", "file", "files", "filename", "image", "images", "img"}  # columns that name images
CHANNEL = "0000"  # of the only channel, as nnU-Net's conversions write it


def words(text: str) -> list[str]:
    """Return the words and numbers of a name, in lower case: `labelsTr` is labels and tr."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^\W\d_]+", text)]


def stem(path: str) -> str:
    """Return a path without the suffix of its format."""
    return re.sub(r"(\.nii)?\.[A-Za-z]\w*$", "", path) or path


def last(path: str) -> str:
    """Return the last part of a path."""
    return path.rpartition("/")[2]


# --- cells of a table -------------------------------------------------------------------------------------------------


class Names:
    """Finds the paths, of those given, that a cell means. `base`: the folder of its table below the root, or ""."""

    def __init__(self, root: Path, paths: Iterable[str]):
        self.root, self.exact = root, dict.fromkeys(paths)
        self._stems: dict[str, set[str]] = defaultdict(set)
        self._ends: dict[str, set[str]] = defaultdict(set)  # a path's last parts, with and without suffix -> paths
        self._under: dict[str, list[str]] = defaultdict(list)
        folders: dict[str, set[str]] = defaultdict(set)
        for path in self.exact:
            self._stems[stem(path)].add(path)
            for end in {*_ends(path), *_ends(stem(path))}:
                self._ends[end].add(path)
            for folder in map(PurePosixPath.as_posix, [*PurePosixPath(path).parents][:-1]):
                self._under[folder].append(path)
                folders[last(folder)].add(folder)
        self._folder = {name: next(iter(found)) for name, found in folders.items() if len(found) == 1}

    def file(self, cell: str, base: str) -> tuple[int, str] | None:
        """Return how a cell names an image, and which; None where it names none, or a name that several have."""
        text, beside = self._texts(cell, base)
        if base and beside in self.exact:
            return BESIDE, beside
        if text in self.exact:
            return EXACT, text
        if len(found := self._stems.get(stem(beside), ())) == 1:
            return BESIDE, next(iter(found))
        found = self.several(cell, base)
        return (NAME, next(iter(found))) if len(found) == 1 else None

    def several(self, cell: str, base: str) -> set[str]:
        """Return the images whose path ends as the cell does, or with whose path the cell ends, but for suffixes."""
        text, _ = self._texts(cell, base)
        for end in (text, stem(text)):
            if found := self._ends.get(end):
                return found
        return next((self._stems[end] for end in _ends(stem(text)) if end in self._stems), set())

    def folder(self, cell: str, base: str) -> tuple[int, tuple[str, ...]] | None:
        """Return how a cell names a folder (BESIDE, FOLDER), and the images in it; None as `file` does."""
        text, beside = self._texts(cell, base)
        for how, path in ((BESIDE, beside), (FOLDER, text), (FOLDER, self._folder.get(text, ""))):
            if path and path in self._under:
                return how, tuple(self._under[path])
        return None

    def _texts(self, cell: str, base: str) -> tuple[str, str]:
        """Return what a cell says below the root, as it is, and as its table would mean it beside itself."""
        text = cell.replace("\\", "/").strip()
        if text.startswith("/"):
            text = os.path.relpath(text, self.root.absolute())
        if "/" in text:
            text = os.path.normpath(text)
        return text, os.path.normpath(f"{base}/{text}") if base else text


def _ends(path: str) -> list[str]:
    """Return the last parts of a path, the longest first: a/b/1, b/1, 1."""
    parts = PurePosixPath(path).parts
    return ["/".join(parts[k:]) for k in range(len(parts))]


@dataclass(frozen=True)
class Listing:
    """A table whose rows name images: by which column, which images each row means; likewise masks, where it has them.

    `how` is the loosest way in which a cell names its images: EXACT, BESIDE, NAME or FOLDER. rivals: other columns that
    name as many images, in another order. beside: how many other images another table lists, by its path.
    """

    table: Table
    column: str
    images: dict[int, tuple[str, ...]]  # number of the line -> images
    how: int
    mask: str | None = None
    masks: dict[int, str] = field(default_factory=dict)
    masks_exact: bool = True
    rivals: tuple[str, ...] = ()
    beside: dict[str, int] = field(default_factory=dict)

    @property
    def paths(self) -> set[str]:
        """The images that it names."""
        return {path for each in self.images.values() for path in each}

    @property
    def lines(self) -> list[Line]:
        """The rows whose image is here."""
        return [line for line in self.table.lines if line.number in self.images]

    def values(self, column: str) -> list[str]:
        """Return the cells of a column, of the rows whose image is here."""
        return [line.cells[column] for line in self.lines]


def listing(root: Path, tables: list[Table], images: list[str], masks: list[str]) -> Listing | None:
    """Return the table, and its column, that name most images; None where no column of any names half of its rows'.

    Its column of masks is one that names `masks` (files that are masks by their names), or is called so. Raises
    RadprobeError where it has no header, and where another table names the same images and says something else.
    """
    names, drawn = Names(root, images), Names(root, [*masks, *images])
    found = [one for table in tables for column in _columns(table) if (one := _listed(root, table, column, names))]
    if not found:
        return None
    best = max(found, key=_likely)
    if "." in best.column and names.file(best.column, _base(root, best.table)):
        reason = f"is no header: '{best.column}' is an image"
        raise RadprobeError(f"{best.table.path}, line 1", reason, "write the names of the columns above it")
    _refuse_another(best, found)
    best = _with_others(root, best, found)
    others = [column for column in _columns(best.table) if column != best.column]
    named = [(each, column) for column in others if (each := _listed(root, best.table, column, drawn))]
    named = [(each, column) for each, column in named if each.how < FOLDER and _of_masks(each, best, set(masks))]
    if not named:
        return best
    of_masks, column = max(named, key=lambda pair: len(pair[0].images))
    one_each = {number: paths[0] for number, paths in of_masks.images.items()}
    return replace(best, mask=column, masks=one_each, masks_exact=of_masks.how == EXACT)


def without(listing: Listing, paths: set[str]) -> Listing:
    """Return a listing without some images, and without the rows that have no other."""
    left = {number: tuple(path for path in each if path not in paths) for number, each in listing.images.items()}
    return replace(listing, images={number: each for number, each in left.items() if each})


def _likely(one: Listing) -> tuple[int, int, bool, bool]:
    where = f"{one.table.path.parent.name} {one.table.path.stem}"
    return len(one.paths), -one.how, bool(CALLED & {*words(one.column)}), "train" in words(where)


def _refuse_another(best: Listing, found: list[Listing]) -> None:
    """Raise RadprobeError where another table names most of the same images, and is no copy: which one is meant?"""
    paths, rows = best.paths, _rows(best.table)
    for one in found:
        by_chance = like_row_numbers(one.values(one.column)) and not CALLED & {*words(one.column)}
        if one.table is best.table or by_chance or (one.how == FOLDER and best.how < FOLDER):
            continue
        same = len(one.paths & paths)
        if 2 * same > len(paths) and _rows(one.table) != rows:
            reason = f"names {same} images that {one.table.path.name} in {one.table.path.parent} names, too"
            remedy = "say which table has the labels: --table FILE. What is wanted of both has to stand in one"
            raise RadprobeError(best.table.path, reason, remedy)


def _rows(table: Table) -> list[list[tuple[str, str]]]:
    return sorted(sorted(line.cells.items()) for line in table.lines)


def like_row_numbers(cells: list[str]) -> bool:
    """Say whether cells may number rows: whole numbers, and close together. Files may be called so by chance."""
    if not cells or not all(cell.isdecimal() for cell in cells):
        return False
    numbers = [*map(int, cells)]
    return max(numbers) - min(numbers) < 2 * len(numbers)


def _with_others(root: Path, best: Listing, found: list[Listing]) -> Listing:
    """Return a listing with what else names images: columns of its table, other tables."""
    same = [one for one in found if one.table is best.table and one.how <= best.how]
    same = [one for one in same if len(one.paths) == len(best.paths)]
    beside: dict[str, int] = {}
    for one in found:
        if one.table is not best.table and (more := len(one.paths - best.paths)):
            name = os.path.relpath(one.table.path, root)
            beside[name] = max(more, beside.get(name, 0))
    return replace(best, rivals=tuple(one.column for one in same if one.images != best.images), beside=beside)


def _of_masks(named: Listing, of_images: Listing, masks: set[str]) -> bool:
    called = bool(MASK_WORDS & {*words(named.column)})
    return not named.paths & of_images.paths and (called or named.paths <= masks)


def _columns(table: Table) -> list[str]:
    return [name for name in table.columns if name and table.columns.count(name) == 1]


def _base(root: Path, table: Table) -> str:
    """Return the folder of a table below the root, "" where it is the root or lies elsewhere."""
    folder = table.path.absolute().parent
    below = folder.is_relative_to(root.absolute()) and folder != root.absolute()
    return folder.relative_to(root.absolute()).as_posix() if below else ""


def _listed(root: Path, table: Table, column: str, names: Names) -> Listing | None:
    cells, base = {line.number: line.cells[column] for line in table.lines if line.cells[column]}, _base(root, table)
    texts = set(cells.values())
    as_file = _near({cell: (how, (path,)) for cell in texts for how, path in filter(None, [names.file(cell, base)])})
    as_folder = _near({cell: found for cell in texts if (found := names.folder(cell, base))})
    as_folder = {cell: (FOLDER, paths) for cell, (_, paths) in as_folder.items()}
    # a folder 2 beside a file 1/2.png: one column means files, or folders
    both = as_file.keys() & as_folder.keys()
    elsewhere = any(as_file[cell][1][0] not in as_folder[cell][1] for cell in both)
    folders = len(as_folder) > len(as_file) or (len(as_folder) == len(as_file) and elsewhere)
    known = as_file | as_folder if folders else as_folder | as_file
    matches = {number: known[cell] for number, cell in cells.items() if cell in known}
    if not matches or len(matches) < ENOUGH * min(len(table.lines), len(names.exact)):
        return None
    how = max(way for way, _ in matches.values())
    images = {path for _, paths in matches.values() for path in paths}
    few = how == FOLDER or len(images) < ENOUGH * len(names.exact)
    if few and len({cells[number] for number in matches}) < ENOUGH * len(matches):  # a class, or a number, of many rows
        return None
    return Listing(table, column, {number: paths for number, (_, paths) in matches.items()}, how)


def _near(found: dict[str, tuple[int, tuple[str, ...]]]) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Return what lies where cells say, where most does: a file of the same name elsewhere is another."""
    near = {cell: each for cell, each in found.items() if each[0] <= BESIDE}
    return near if 2 * len(near) > len(found) else found


def ambiguous(root: Path, table: Table, paths: Iterable[str]) -> tuple[Line, str, list[str]] | None:
    """Return a row, a column, and the images that its cell names, where most cells of the column name several."""
    names, base = Names(root, paths), _base(root, table)
    for column in _columns(table):
        several = [(line, names.several(line.cells[column], base)) for line in table.lines if line.cells[column]]
        several = [(line, found) for line, found in several if len(found) > 1]
        if 2 * len(several) > len(table.lines):
            return several[0][0], column, sorted(several[0][1])
    return None


# --- masks ------------------------------------------------------------------------------------------------------------


def is_mask(path: str) -> bool:
    """Say whether a file is a mask by its name, or by that of a folder around it: labelsTr, masks, case1_seg."""
    return bool(MASK_WORDS & {word for part in PurePosixPath(stem(path)).parts for word in words(part)})


def ends_as_mask(path: str) -> bool:
    """Say whether the name of a file itself ends with a word for masks: lesion_mask, but not mask_off."""
    found = [word for word in words(stem(last(path))) if not word.isdigit()]
    return bool(found) and found[-1] in MASK_WORDS


def pairs(images: Iterable[str], masks: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the masks of each image that has some, by names that differ only in words for image and mask.

    Folders that are named for images or masks are not compared; where that finds none, no folder is.
    """
    images, masks = list(images), list(masks)
    for key in (_key, _key_of_name):
        by_key: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for image in images:
            by_key[key(image)].append(image)
        found: dict[str, list[str]] = defaultdict(list)
        for mask in masks:
            if len(named := by_key.get(key(mask), [])) == 1:
                found[named[0]].append(mask)
        if found:
            return {image: tuple(each) for image, each in found.items()}
    return {}


def _key(path: str) -> tuple[str, ...]:
    kinds = MASK_WORDS | IMAGE_WORDS
    folders = [part.lower() for part in PurePosixPath(path).parts[:-1] if not kinds & {*words(part)}]
    return (*folders, *_key_of_name(path))


def _key_of_name(path: str) -> tuple[str, ...]:
    found = words(stem(last(path)))
    plain = [word for word in found if word not in MASK_WORDS | IMAGE_WORDS]
    return tuple(plain[:-1] if plain[-1:] == [CHANNEL] else plain)
