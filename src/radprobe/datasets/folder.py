"""Your own images, as a CSV in the raw folder describes them: films, NIfTI volumes and folders of one DICOM series."""

import difflib
import os
import re
import textwrap
from collections import Counter
from itertools import chain
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from radprobe.artifacts import LABEL, META, Index
from radprobe.catalog import RawEntry
from radprobe.console import say
from radprobe.datasets import Layout, raw
from radprobe.datasets.csv_table import PARTS, Line, Table, read_table
from radprobe.files import RadprobeError, digest, in_threads

MAX_NAME, MAX_PATH = 255, 4000  # bytes: no disk takes longer ones
SHOWN = 3  # ids or files in a warning
AGE = re.compile(r"0*(\d{1,3}(?:[.,]\d+)?)\s*([YyMmWwDd]?)")  # DICOM writes 058Y, 006M
YEARS = {"": 1, "y": 1, "m": 1 / 12, "w": 7 / 365.25, "d": 1 / 365.25}
METAS = ("age", "sex", "view")  # columns of the control that sees no image


def locate(entry: RawEntry, raw_folder: Path) -> Layout | None:
    """Find the CSV that params name."""
    table = raw_folder / entry.columns.table
    return Layout(raw_folder, "csv", tables=(table,)) if table.is_file() else None


def listed(layout: Layout, entry: RawEntry) -> set[Path]:
    """Return the images and masks that the CSV lists, as far as it can be read."""
    columns = [entry.columns.path, entry.columns.mask]
    try:
        table = read_table(layout.tables[0], columns)
    except RadprobeError:  # said when the samples are read
        return set()
    cells = (line.cells[column] for column in columns if column in table.columns for line in table.lines)
    return {path for text in cells if text and (path := _inside(layout.root, text))}


def samples(layout: Layout, entry: RawEntry, allow_missing: bool) -> Index:
    """Return one row per film, and one per slice of a volume (labels repeated), as the CSV lists them.

    meta: list (train, val, test) where the CSV gives the split; age, sex and view where it has such columns. Rows
    whose image or mask is absent are left out and counted with `allow_missing`. Ids that may be one patient, and masks
    of several patients, are said with examples; facts["warnings"] has no examples: the report tells no ids.
    Raises RadprobeError, naming the line and column, on a column that is missing, a file that is absent, outside the
    raw folder or listed twice, an empty patient, a label, class, part or age that is none, and a patient whom the given
    split puts into two parts.
    """
    from radprobe.imaging import reading  # the graph is built where no reader is installed

    table = _read(layout.tables[0], entry)
    found = {line.number: _files(layout, entry, table, line, allow_missing) for line in table.lines}
    _refuse_twice(table, entry, found)
    present = [line for line in table.lines if found[line.number]]
    n_absent = len(table.lines) - len(present)
    described = [_described(entry, table, line) for line in table.lines]  # labels of absent files are checked as well
    if entry.columns.split:
        _refuse_shared_patients(table, entry, entry.columns.split, described)
    doubts = _alike_patients(described) | _shared_masks(layout, table, entry, found)
    for doubt, examples in doubts.items():
        more = "; ..." if examples[SHOWN:] else ""
        say(f"warning: {doubt} ({'; '.join(examples[:SHOWN])}{more})")
    names = _names([found[line.number][0].relative_to(layout.root) for line in present])
    stacks = {name for path, name in names.items() if reading.is_volume(layout.root / path)}
    cases = _clear_of_slices(raw.ids(list(names.values())), stacks)

    def rows(pair: tuple[Line, dict[str, Any]]) -> list[dict[str, Any]]:
        line, row = pair
        image, *masks = found[line.number]
        row = {**row, "masks": [path.relative_to(layout.root).as_posix() for path in masks]}
        case = cases[names[image.relative_to(layout.root)]]
        if reading.is_volume(image):
            return raw.slices(layout.root, image, entry.slices, **row, volume_id=case)
        return [{**row, "sample_id": case, "image": image.relative_to(layout.root).as_posix()}]

    pairs = [(line, row) for line, row in zip(table.lines, described, strict=True) if found[line.number]]
    listed = {"n_listed": len(table.lines), "n_absent": n_absent, "partial": n_absent > 0}
    facts = {**listed, "phantom": raw.is_phantom(layout), "label_table": entry.columns.table, "warnings": list(doubts)}
    return raw.index(entry, list(chain.from_iterable(in_threads(rows, pairs))), facts)


# --- the CSV ----------------------------------------------------------------------------------------------------------


def _read(path: Path, entry: RawEntry) -> Table:
    needed = _needed(entry)
    table = read_table(path, needed)
    for name in needed:
        if table.columns.count(name) != 1:
            how = "has no column" if name not in table.columns else "has twice the column"
            listed = textwrap.shorten(", ".join(table.columns), 300)
            near = difflib.get_close_matches(name, table.columns, 1, 0.5) or [f"one of {listed}"]
            remedy = f"its columns are {listed}; datasets.{entry.id}.folder names those to use"
            raise RadprobeError(path, f"{how} '{name}'", f"did you mean {near[0]}? {remedy}")
    if not table.lines:
        raise RadprobeError(path, "has no row below its header", "list your images in it, one a row")
    return table


def _needed(entry: RawEntry) -> list[str]:
    folder = entry.columns
    of_task = {"multiclass": [folder.label], "segmentation": [folder.mask]}.get(entry.task, entry.classes)
    return [folder.path, folder.patient, *of_task, *([folder.split] if folder.split else [])]


# --- files ------------------------------------------------------------------------------------------------------------


def _files(layout: Layout, entry: RawEntry, table: Table, line: Line, allow_missing: bool) -> list[Path]:
    """Return image and mask of a row; an empty list where one is absent and that is allowed."""
    columns = [entry.columns.path, *([entry.columns.mask] if entry.task == "segmentation" else [])]
    found = []
    for column in columns:
        text = line.cells[column]
        if not text and column == entry.columns.path:
            raise table.error(line, column, "is empty", "write the path of the image, or remove the row")
        path = _inside(layout.root, text) if text else None
        if text and path is None:
            reason = f"'{text[:200]}' is outside the raw folder {layout.root}, or no name of a file"
            raise table.error(line, column, reason, f"put it below, or name another folder: datasets.{entry.id}.raw")
        if path is None or not path.exists():
            if allow_missing:
                return []
            reason = f"'{text}' is not there" if text else "is empty"
            remedy = f"correct it, or leave such rows out: datasets.{entry.id}.allow_missing: true"
            raise table.error(line, column, reason, remedy)
        found.append(path)
    return found


def _inside(root: Path, text: str) -> Path | None:
    """Return the path below `root` that a cell means (Windows' separators, too), or None where it leads out."""
    if PureWindowsPath(text).drive or "\0" in text or len(text.encode()) > MAX_PATH:
        return None
    if any(len(part.encode()) > MAX_NAME for part in re.split(r"[\\/]", text)):
        return None
    path = Path(os.path.normpath(root / text.replace("\\", "/")))
    for base in (Path(os.path.normpath(root)), root.absolute(), root.resolve()):
        if path != base and path.is_relative_to(base):
            return root / path.relative_to(base)
    return None


def _refuse_twice(table: Table, entry: RawEntry, found: dict[int, list[Path]]) -> None:
    first: dict[Path, Line] = {}
    for line in table.lines:
        if not found[line.number]:
            continue
        image = found[line.number][0]
        if (other := first.setdefault(image, line)) is not line:
            reason = f"'{line.cells[entry.columns.path]}' is also in line {other.number}"
            raise table.error(line, entry.columns.path, reason, "remove one of the two rows")


def _names(paths: list[Path]) -> dict[Path, str]:
    """Return each path without the suffix of its format, but with it where two would be the same."""
    stems = {path: re.sub(r"(\.nii)?\.[A-Za-z]\w*$", "", path.as_posix()) or path.as_posix() for path in paths}
    times = Counter(stems.values())
    return {path: stem if times[stem] == 1 else path.as_posix() for path, stem in stems.items()}


def _clear_of_slices(ids: dict[str, str], stacks: set[str]) -> dict[str, str]:
    """Return the ids; a volume's with a hash where another id starts as its slices are named (scan beside scan_0001).

    Else two samples could have one name, or slices of another volume stand among those of the first when sorted.
    """
    starts = {text[: match.start()].lower() for text in ids.values() for match in re.finditer(r"_\d", text)}
    unclear = {name for name in stacks if ids[name].lower() in starts}
    return {name: f"{text}-{digest(name)}" if name in unclear else text for name, text in ids.items()}


# --- cells ------------------------------------------------------------------------------------------------------------


def _described(entry: RawEntry, table: Table, line: Line) -> dict[str, Any]:
    """Return patient, labels and meta of a row."""
    patient = line.cells[entry.columns.patient]
    if not patient:
        remedy = "write an id for each patient: it keeps a patient's images in one part"
        raise table.error(line, entry.columns.patient, "is empty, or NA", remedy)
    return {"patient_id": patient, **_labels(entry, table, line), **_meta(entry, table, line)}


def _labels(entry: RawEntry, table: Table, line: Line) -> dict[str, float]:
    if entry.task == "segmentation":
        return {}
    if entry.task == "multiclass":
        column = entry.columns.label
        text = line.cells[column]
        if text not in entry.classes:
            near = difflib.get_close_matches(text, entry.classes, 1, 0.5)
            hint = f"did you mean {near[0]}? " if near else ""
            remedy = f"{hint}datasets.{entry.id}.folder.classes are {', '.join(entry.classes)}"
            raise table.error(line, column, f"unknown class '{text}'" if text else "is empty, or NA", remedy)
        return {LABEL + name: float(text == name) for name in entry.classes}
    return {LABEL + name: _label(table, line, name) for name in entry.classes}


def _label(table: Table, line: Line, column: str) -> float:
    text = line.cells[column]
    value = sign(text) if text else np.nan
    if value is None:
        remedy = "write 1 (present), 0 (absent), -1 (uncertain) or leave it blank (not known)"
        raise table.error(line, column, f"unknown label '{text}'", remedy)
    return value


def sign(cell: str) -> float | None:
    """Return 1, 0 or -1 where a cell is this number, however it is written (1.0), else None."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if value in (0, 1, -1) else None


def _meta(entry: RawEntry, table: Table, line: Line) -> dict[str, Any]:
    used = {*_needed(entry)}
    columns = {name.lower(): name for name in table.columns if name.lower() in METAS and name not in used}
    meta: dict[str, Any] = {META + name: line.cells[column] or None for name, column in columns.items()}
    if text := meta.get(f"{META}age"):
        years = AGE.fullmatch(text)
        if not years:
            raise table.error(line, columns["age"], f"unknown age '{text}'", "write years, or leave it blank")
        meta[f"{META}age"] = float(years[1].replace(",", ".")) * YEARS[years[2].lower()]
    if entry.columns.split:
        column = entry.columns.split
        text = line.cells[column]
        if text.lower() not in PARTS:
            reason = f"unknown part '{text}'" if text else "is empty"
            raise table.error(line, column, reason, f"known are {', '.join(PARTS)}")
        meta[f"{META}list"] = PARTS[text.lower()]
    return meta


def _alike_patients(described: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the warning of ids that differ only in case, leading zeros, or a .0 at the end, with all such groups."""
    groups: dict[str, dict[str, None]] = {}
    for patient in (row["patient_id"] for row in described):
        whole = re.sub(r"^(\d+)\.0$", r"\1", patient.casefold())  # as spreadsheets write whole numbers
        plain = re.sub(r"\d+", lambda digits: digits[0].lstrip("0") or "0", whole)
        groups.setdefault(plain, {})[patient] = None
    alike = [" and ".join(group) for group in groups.values() if len(group) > 1]
    doubt = (
        f"{len(alike)} group(s) of patient ids differ only in case or leading zeros, and are taken as different "
        "patients. If they are one, write them alike: else they may leak from train to test"
    )
    return {doubt: alike} if alike else {}


def _shared_masks(layout: Layout, table: Table, entry: RawEntry, found: dict[int, list[Path]]) -> dict[str, list[str]]:
    """Return the warning of masks that rows of several patients name, with all of them; often a slip in the table."""
    lines: dict[Path, dict[str, str]] = {}
    for line in table.lines:
        for mask in found[line.number][1:]:
            lines.setdefault(mask, {}).setdefault(line.cells[entry.columns.patient], str(line.number))
    shared = [
        f"{mask.relative_to(layout.root)} in lines {' and '.join(of_patient.values())}"
        for mask, of_patient in lines.items()
        if len(of_patient) > 1
    ]
    doubt = (
        f"{len(shared)} mask(s) are named for images of several patients: right only where a mask is empty. Look at "
        "them, and correct the table"
    )
    return {doubt: shared} if shared else {}


def _refuse_shared_patients(table: Table, entry: RawEntry, column: str, described: list[dict[str, Any]]) -> None:
    """Raise RadprobeError where the given split puts one patient into two parts: it would leak."""
    first: dict[str, tuple[Line, str]] = {}
    for line, row in zip(table.lines, described, strict=True):
        patient, part = row["patient_id"], row[f"{META}list"]
        other, other_part = first.setdefault(patient, (line, part))
        if part != other_part:
            reason = f"patient {patient} is in {part} here, and in {other_part} in line {other.number}"
            remedy = f"put each patient into one part, or let us split: datasets.{entry.id}.folder.split: null"
            raise table.error(line, column, reason, remedy)
