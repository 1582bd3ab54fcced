"""Predictions that were made elsewhere: a CSV of scores or a folder of label maps, and its cases against the split.

No image is decoded here: the graph, `plan` and `doctor` ask in the first seconds, where no reader is installed.
"""

import difflib
import json
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from radprobe import files
from radprobe.catalog import Dataset
from radprobe.datasets.csv_table import PARTS, Line, Table, read_table
from radprobe.files import RadprobeError
from radprobe.names import EXTERNAL, in_files

if TYPE_CHECKING:
    import numpy as np

    from radprobe.artifacts import Index, Split

ID_COLUMNS = ("sample_id", "volume_id", "case_id")
PART_COLUMN = "part"
SUFFIXES = (".nii.gz", ".nii", ".png", ".tif", ".tiff")  # of label maps
MAX_BYTES = 500_000_000  # of a CSV: a million cases of 20 classes
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
NOT_FINITE = re.compile(r"[+-]?(inf|infinity|nan)", re.IGNORECASE)
SHOWN = 5  # ids in a message
PREDICTED = ("val", "test")
IN_NO_PART = ""


# --- what is expected -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expected:
    """The cases and classes that a split has.

    `parts`: the part of each case of the dataset, IN_NO_PART for those that the split leaves out. `slices`: the slices
    of its volumes, and the volume of each. `is_whole`: does the index list the whole dataset? Not in a pilot, a
    partial copy, or after files were set aside.
    """

    parts: dict[str, str]
    classes: list[str]
    slices: dict[str, str]
    is_whole: bool

    @classmethod
    def of(cls, index: "Index", split: "Split") -> "Expected":
        """Return what the predictions of a split have to hold."""
        table, facts = index.table, index.facts
        part_of = dict(zip(split.table["sample_id"], split.table["part"], strict=True))
        rows = list(zip(table["sample_id"], table["volume_id"], strict=True))
        parts: dict[str, str] = {}
        for sample, case in rows:
            parts[case] = part_of.get(sample) or parts.get(case, IN_NO_PART)
        slices = {sample: case for sample, case in rows if sample != case}
        is_whole = not (facts.get("limit") or facts.get("partial") or facts.get("quarantine"))
        return cls(parts, split.classes, slices, is_whole)

    @classmethod
    def load(cls, prepared: Path, split: Path) -> "Expected":
        """Return the same of what lies in the folders of a `prepare` and a `split`."""
        from radprobe.artifacts import Index, Split  # the graph of a study without such rows needs no table

        return cls.of(Index.load(prepared), Split.load(split))

    def cases(self, part: str) -> list[str]:
        """Return the cases of a part, in the order of the index."""
        return [case for case, own in self.parts.items() if own == part]


@dataclass(frozen=True)
class Matched:
    """Which parts are predicted, test and perhaps val, and which cases of a file are ignored."""

    parts: tuple[str, ...]
    ignored: dict[str, list[str]]  # cases by what they are

    @property
    def notes(self) -> list[str]:
        """What is ignored, a line a kind, with examples."""
        return [f"ignored, {kind}: {len(cases)} (first: {_first(cases)})" for kind, cases in self.ignored.items()]


def match(path: Path, given: Mapping[str, str | None], expected: Expected) -> Matched:
    """Compare the cases of a file, each with the part that it states (None: no part stated), with those of the split.

    Every test case is needed. Val is needed as a whole or not at all: a threshold of some of its cases is not that of
    val. Cases of train, and of no part, are ignored. A case that the dataset does not have is an error, because ids
    that do not match are rarely meant; if only a part of the dataset is here, it is ignored.
    Raises RadprobeError that counts and names the first of the missing, unknown or contradicting cases.
    """
    _refuse_slices(path, given, expected)
    unknown = [case for case in given if case not in expected.parts]
    missing = [case for case in expected.cases("test") if case not in given]
    of_both = f"; unknown cases: {len(unknown)} (first: {_first(unknown)})" if unknown else ""
    if missing:
        n = len(expected.cases("test"))
        reason = f"test cases are missing: {len(missing)} of {n} (first: {_first(missing)}){of_both}"
        raise RadprobeError(path, reason, "add them: every test case needs a prediction, named by its id")
    if unknown and expected.is_whole:
        reason = f"cases unknown to the dataset: {len(unknown)} (first: {_first(unknown)})"
        raise RadprobeError(path, reason, f"correct their ids, or remove them; ids look like {_first(expected.parts)}")
    _refuse_other_parts(path, given, expected)
    val = expected.cases("val")
    absent = [case for case in val if case not in given]
    if 0 < len(absent) < len(val):
        reason = f"val cases are missing: {len(absent)} of {len(val)} (first: {_first(absent)})"
        raise RadprobeError(path, reason, "predict all of val, or none of it: val sets the thresholds")
    parts = PREDICTED if val and not absent else ("test",)
    return Matched(parts, _ignored(given, expected, unknown))


def _refuse_slices(path: Path, given: Mapping[str, str | None], expected: Expected) -> None:
    slices = [case for case in given if case in expected.slices and case not in expected.parts]
    if slices:
        reason = f"ids of slices: {len(slices)} (first: {_first(slices)}); volumes are what is scored"
        raise RadprobeError(path, reason, f"predict each volume once, by its id: {expected.slices[slices[0]]}")


def _refuse_other_parts(path: Path, given: Mapping[str, str | None], expected: Expected) -> None:
    stated = {case: (part, expected.parts[case]) for case, part in given.items() if part and expected.parts.get(case)}
    other = [f"{case} ({part}, not {own})" for case, (part, own) in stated.items() if part != own]
    if other:
        reason = f"cases in another part than in the split: {len(other)} (first: {_first(other)})"
        raise RadprobeError(path, reason, "predict the parts of this study's split: `radprobe split DATASET --listing`")


def _ignored(given: Mapping[str, str | None], expected: Expected, unknown: list[str]) -> dict[str, list[str]]:
    train = [case for case in given if expected.parts.get(case) == "train"]
    no_part = [case for case in given if expected.parts.get(case) == IN_NO_PART]
    kinds = {"of train": train, "in no part of the split": no_part, "not in this part of the dataset": unknown}
    return {kind: cases for kind, cases in kinds.items() if cases}


def _first(names: Iterable[str]) -> str:
    shown = list(names)[:SHOWN]
    return ", ".join(textwrap.shorten(name, 80) for name in shown)


# --- scores -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoreTable:
    """The scores of a CSV: `values` [n, classes], `cases` with the part that each row states (None: none stated)."""

    cases: dict[str, str | None]
    classes: list[str]
    values: "np.ndarray"
    scale: str  # probability | logit | score

    def of(self, cases: list[str], classes: list[str]) -> "np.ndarray":
        """Return the scores [len(cases), len(classes)] of some cases and classes."""
        row = {case: number for number, case in enumerate(self.cases)}
        columns = [self.classes.index(name) for name in classes]
        return self.values[[row[case] for case in cases]][:, columns]


def read_scores(
    path: Path, classes: Sequence[str], others: Sequence[str], needed: Sequence[str], scale: str = "auto"
) -> ScoreTable:
    """Read a CSV: an id column (ID_COLUMNS), a column per class of the dataset, and perhaps `part`.

    `others`: classes of the dataset's other lists; columns of them are not read. `needed`: the classes that must have
    a column.
    Raises RadprobeError, naming line and column, on a column that is missing, unknown or there twice, an id that is
    blank or there twice, and a score that is no finite number.
    """
    import numpy as np  # the graph of a study without such rows needs no numbers

    _check_file(path)
    known = list(dict.fromkeys([*needed, *classes, *others]))
    table = read_table(path, (*ID_COLUMNS, *known))
    id_column = _check_columns(table, known, needed)
    if not table.lines:
        raise RadprobeError(path, "has no row below its header", "write one row per case")
    read = [name for name in classes if name in table.columns]
    read += [name for name in needed if name not in read]
    values = np.array([[_number(table, line, name) for name in read] for line in table.lines], np.float64)
    return ScoreTable(_ids(table, id_column), read, values, _scale(table, read, values, scale))


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise RadprobeError(path, "is no file", "to classify, name a CSV with one row per case")
    size = path.stat().st_size
    if not size:
        raise RadprobeError(path, "is empty", "write one row per case, below a header")
    if size > MAX_BYTES:
        reason = f"has {size / 1e6:,.0f} MB; at most {MAX_BYTES / 1e6:,.0f} MB are read"
        raise RadprobeError(path, reason, "write one row per case and one column per class, and nothing else")


def _check_columns(table: Table, known: Sequence[str], needed: Sequence[str]) -> str:
    """Return the name of the id column."""
    for name in table.columns:
        if table.columns.count(name) > 1:
            raise RadprobeError(table.path, f"has twice the column '{name}'", "remove one of them")
    ids = [name for name in ID_COLUMNS if name in table.columns]
    listed = textwrap.shorten(", ".join(table.columns), 300)
    if len(ids) != 1:
        how = "no column of ids" if not ids else f"{len(ids)} columns of ids ({', '.join(ids)})"
        remedy = f"name one column sample_id (of volumes: volume_id); its columns are {listed}"
        raise RadprobeError(table.path, f"has {how}", remedy)
    missing = [name for name in needed if name not in table.columns]
    if missing:
        reason = f"has no column for {len(missing)} of {len(needed)} classes (first: {_first(missing)})"
        raise RadprobeError(table.path, reason, f"write one column per class, named as it is; its columns are {listed}")
    for name in table.columns:
        if name not in (*ids, PART_COLUMN, *known):
            near = difflib.get_close_matches(name, known, 1, 0.5)
            remedy = f"did you mean '{near[0]}'?" if near else f"remove it; classes are {_first(known)}"
            raise RadprobeError(table.path, f"has a column '{name}', which is no class of the dataset", remedy)
    return ids[0]


def _ids(table: Table, column: str) -> dict[str, str | None]:
    first: dict[str, Line] = {}
    for line in table.lines:
        case = line.cells[column]
        if not case:
            raise table.error(line, column, "is blank", "write the id of the case")
        if (other := first.setdefault(case, line)) is not line:
            reason = f"'{textwrap.shorten(case, 80)}' is also in line {other.number}"
            raise table.error(line, column, reason, "write one row per case")
    return {case: _part(table, line) for case, line in first.items()}


def _part(table: Table, line: Line) -> str | None:
    if PART_COLUMN not in table.columns:
        return None
    text = line.cells[PART_COLUMN]
    if text.lower() not in PARTS:
        reason = f"unknown part '{textwrap.shorten(text, 80)}'" if text else "is blank"
        raise table.error(line, PART_COLUMN, reason, f"known are {', '.join(PARTS)}")
    return PARTS[text.lower()]


def _number(table: Table, line: Line, column: str) -> float:
    text = line.cells[column]
    if NUMBER.fullmatch(text) and math.isfinite(value := float(text)):
        return value
    shown = f"'{textwrap.shorten(text, 80)}'"
    if not text:
        reason, remedy = "is blank or NaN", "write a number for every case and class"
    elif text.startswith("="):
        reason, remedy = f"is a formula, {shown}", "save the values of the formulas"
    elif NOT_FINITE.fullmatch(text) or NUMBER.fullmatch(text):
        reason, remedy = f"is {shown}, which is not finite", "write a finite number: its rank among the cases is scored"
    elif NUMBER.fullmatch(text.replace(",", ".", 1)):
        reason, remedy = f"is {shown}, with a decimal comma", "write a decimal point"
    else:
        reason, remedy = f"is {shown}, which is no number", "write a number: higher is more likely"
    raise table.error(line, column, reason, remedy)


def _scale(table: Table, classes: list[str], values: "np.ndarray", scale: str) -> str:
    outside = (values < 0) | (values > 1)
    if scale == "auto":
        return "score" if outside.any() else "probability"
    if scale == "probability" and outside.any():
        row, column = (int(each[0]) for each in outside.nonzero())
        reason = f"is {values[row, column]:g}, and scale says that it is a probability"
        raise table.error(table.lines[row], classes[column], reason, "say scale: logit, or scale: score")
    return scale


# --- label maps -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MapFolder:
    """The label maps of a folder by the name that each has without its suffix, and the part of its folder, if any."""

    path: Path
    files: dict[str, Path]
    parts: dict[str, str | None]

    def cases(self, expected: Expected) -> dict[str, Path]:
        """Return the files by the case that each is named for; unknown names stay as they are.

        A file has the id of its case, or that id as `export` writes it, with _ for what no file name may have.
        """
        written: dict[str, list[str]] = {}
        for case in expected.parts:
            written.setdefault(in_files(case), []).append(case)
        found: dict[str, Path] = {}
        for name, path in self.files.items():
            cases = [name] if name in expected.parts else written.get(name, [name])
            if len(cases) > 1:
                reason = f"may be of {len(cases)} cases: {_first(cases)}"
                raise RadprobeError(path, reason, "give the cases of the dataset ids that differ as file names too")
            if cases[0] in found:
                reason = f"is a second label map of case {cases[0]}, beside {found[cases[0]].name}"
                raise RadprobeError(path, reason, "keep one label map per case")
            found[cases[0]] = path
        return found

    def match(self, expected: Expected) -> tuple[dict[str, Path], Matched]:
        """Return the file of each case, and what `match` says of the cases."""
        of_case = self.cases(expected)
        names = {path: name for name, path in self.files.items()}
        stated = {case: self.parts[names[path]] for case, path in of_case.items()}
        return of_case, match(self.path, stated, expected)


def map_folder(path: Path) -> MapFolder:
    """List the label maps of a folder, or of folders train, val and test in it; other files are not read.

    Raises RadprobeError where there is none, and on two files for one case.
    """
    if not path.is_dir():
        raise RadprobeError(path, "is no folder", "to segment, name a folder with one label map per case")
    found: dict[str, Path] = {}
    parts: dict[str, str | None] = {}
    for file, part in _listed(path):
        suffix = next(each for each in SUFFIXES if file.name.lower().endswith(each))
        name = file.name[: -len(suffix)]
        if name in found:
            reason = f"is a second label map of case {name}, beside {found[name].relative_to(path)}"
            raise RadprobeError(file, reason, "keep one label map per case")
        found[name], parts[name] = file, part
    if not found:
        others = ", ".join(sorted(each.name for each in path.iterdir())[:SHOWN]) or "nothing"
        reason = f"holds no label map ({', '.join(SUFFIXES)}); it holds {others}"
        raise RadprobeError(path, reason, "write one label map per case, named <case id>.png or <case id>.nii.gz")
    return MapFolder(path, found, parts)


def _listed(path: Path) -> Iterator[tuple[Path, str | None]]:
    for each in sorted(path.iterdir()):
        if each.is_dir() and each.name.lower() in PARTS:
            yield from ((file, PARTS[each.name.lower()]) for file in sorted(each.iterdir()) if _is_map(file))
        elif _is_map(each):
            yield each, None


def _is_map(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".") and path.is_file()


# --- both -------------------------------------------------------------------------------------------------------------


def check(path: Path, entry: Dataset, needed: list[str], scale: str, expected: Expected | None) -> list[str]:
    """Check what can be checked without an image; return what is ignored.

    `expected` is None as long as there is no split. Raises RadprobeError.
    """
    if entry.task == "segmentation":
        folder = map_folder(path)
        return folder.match(expected)[1].notes if expected else []
    others = [name for names in entry.class_sets.values() for name in names]
    table = read_scores(path, entry.classes, others, needed, scale)
    return match(path, table.cases, expected).notes if expected else []


def read_files(path: Path) -> list[Path]:
    """Return the files that a row is read from: the CSV, or the label maps of its folder; [] if there are none."""
    if path.is_dir():
        return [file for file, _ in _listed(path)]
    return [path] if path.is_file() else []


def pulled(folder: Path) -> list[str]:
    """Return the content that Predictions under a folder were read from, of those that came through DVC."""
    found = []
    for manifest in filter(files.was_pulled, sorted(folder.glob("*/predictions.json"))):
        try:
            found.append(json.loads(manifest.read_text(encoding="utf-8"))["facts"]["protocols"][EXTERNAL]["content"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # what is broken is no use here, and is said where it is read
    return found


_DIGESTS: dict[tuple[str, int, int], str] = {}  # by path, size and time


def identity(path: Path) -> str | None:
    """Return a digest of what a row is read from, wherever it lies; None where nothing is there.

    A CSV by its bytes. A folder by the names, sizes and bytes of its label maps.
    """
    found = read_files(path)
    hashes = files.in_threads(_sha256, found)
    if not found:
        return None
    if path.is_file():
        return hashes[0]
    named = zip(found, hashes, strict=True)
    return files.digest([[file.relative_to(path).as_posix(), file.stat().st_size, sha256] for file, sha256 in named])


def _sha256(path: Path) -> str:
    state = path.stat()
    key = (str(path.absolute()), state.st_size, state.st_mtime_ns)
    if key not in _DIGESTS:
        _DIGESTS[key] = files.sha256(path)
    return _DIGESTS[key]
