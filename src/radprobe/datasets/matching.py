"""Which files the cells of a table mean, and which mask belongs to which image, by their names alone."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from radprobe.datasets.folder import Line, Table
from radprobe.files import RadprobeError

# As the table should say it: its path below the folder. By its name, with or without suffix. By a folder around it.
EXACT, NAME, FOLDER = range(3)
ENOUGH = 0.5  # share of the rows whose cells have to be names of files, or of the files that have to be named
IMAGE_WORDS = {"image", "images", "img", "imgs", "scan", "scans", "volume", "volumes"}
MASK_WORDS = {"mask", "masks", "label", "labels", "lbl", "seg", "segs", "segmentation", "segmentations", "gt"}
MASK_WORDS |= {"groundtruth", "annotation", "annotations", "contour", "contours"}
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
        self.named: dict[str, set[str]] = defaultdict(set)
        self._under: dict[str, list[str]] = defaultdict(list)
        folders: dict[str, set[str]] = defaultdict(set)
        for path in self.exact:
            for name in {stem(path), last(path), stem(last(path))}:
                self.named[name].add(path)
            for folder in map(PurePosixPath.as_posix, [*PurePosixPath(path).parents][:-1]):
                self._under[folder].append(path)
                folders[last(folder)].add(folder)
        self._folder = {name: next(iter(found)) for name, found in folders.items() if len(found) == 1}

    def file(self, cell: str, base: str) -> tuple[int, str] | None:
        """Return how a cell names an image, and which; None where it names none, or a name that several have."""
        text, beside = self._texts(cell, base)
        if base and beside in self.exact:
            return NAME, beside
        if text in self.exact:
            return EXACT, text
        for name in (beside, text, last(text), stem(last(text))):
            if len(found := [path for path in self.named.get(name, ()) if _same_end(text, path)]) == 1:
                return NAME, found[0]
        return None

    def folder(self, cell: str, base: str) -> tuple[str, ...]:
        """Return the images in the folder that a cell names; none where it names none, or a name that several have."""
        text, beside = self._texts(cell, base)
        for path in (beside, text, self._folder.get(text, "")):
            if path and path in self._under:
                return tuple(self._under[path])
        return ()

    def _texts(self, cell: str, base: str) -> tuple[str, str]:
        """Return what a cell says below the root, as it is, and as its table would mean it beside itself."""
        text = cell.replace("\\", "/").strip()
        if text.startswith("/"):
            text = os.path.relpath(text, self.root.absolute())
        if "/" in text:
            text = os.path.normpath(text)
        return text, os.path.normpath(f"{base}/{text}") if base else text


def _same_end(cell: str, path: str) -> bool:
    """Say whether one of two paths ends with the other, but for suffixes: b/1.png does not mean a/1.png."""
    pairs = zip(reversed(PurePosixPath(stem(cell)).parts), reversed(PurePosixPath(stem(path)).parts), strict=False)
    return all(one == other for one, other in pairs)


@dataclass(frozen=True)
class Listing:
    """A table whose rows name images: by which column, which images each row means; likewise masks, where it has them.

    `how` is the loosest way in which a cell names its images: EXACT, NAME or FOLDER. rivals: other columns that name as
    many images, in another order. beside: how many other images another table lists, by its path.
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
    best = max(found, key=lambda one: (len(one.paths), -one.how, bool(CALLED & {*words(one.column)})))
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


def _refuse_another(best: Listing, found: list[Listing]) -> None:
    """Raise RadprobeError where another table names most of the same images, and is no copy: which one is meant?"""
    for one in found:
        same = len(one.paths & best.paths)
        if 2 * same > len(best.paths) and [line.cells for line in one.table.lines] != [
            line.cells for line in best.table.lines
        ]:
            reason = f"names {same} images that {one.table.path.name} in {one.table.path.parent} names, too"
            remedy = "say which table has the labels: --table FILE. What is wanted of both has to stand in one"
            raise RadprobeError(best.table.path, reason, remedy)


def _with_others(root: Path, best: Listing, found: list[Listing]) -> Listing:
    """Return a listing with what else names images: columns of its table, other tables."""
    same = [one for one in found if one.table is best.table and len(one.paths) == len(best.paths)]
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
    as_file = {cell: (how, (path,)) for cell in texts for how, path in filter(None, [names.file(cell, base)])}
    as_folder = {cell: (FOLDER, paths) for cell in texts if (paths := names.folder(cell, base))}
    # a folder 2 beside a file 1/2.png: one column means files, or folders
    both = as_file.keys() & as_folder.keys()
    elsewhere = any(as_file[cell][1][0] not in as_folder[cell][1] for cell in both)
    folders = len(as_folder) > len(as_file) or (len(as_folder) == len(as_file) and elsewhere)
    known = as_file | as_folder if folders else as_folder | as_file
    found = {number: known[cell] for number, cell in cells.items() if cell in known}
    if not found or len(found) < ENOUGH * min(len(table.lines), len(names.exact)):
        return None
    how = max(way for way, _ in found.values())
    if len({cells[number] for number in found}) < len(found) and how != EXACT:  # a class, or a number, of many rows
        return None
    return Listing(table, column, {number: paths for number, (_, paths) in found.items()}, how)


# --- masks ------------------------------------------------------------------------------------------------------------


def is_mask(path: str) -> bool:
    """Say whether a file is a mask by its name, or by that of a folder around it: labelsTr, masks, case1_seg."""
    return bool(MASK_WORDS & {word for part in PurePosixPath(stem(path)).parts for word in words(part)})


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
            if len(named := by_key.get(key(mask), ())) == 1:
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
