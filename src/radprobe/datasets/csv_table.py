"""CSV tables as people's programs write them: any usual delimiter, blank cells in all spellings, errors by line."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from radprobe.files import RadprobeError

DELIMITERS = ",;\t|"
FORMULA = re.compile(r'^="(.*)"$')  # as Excel is made to keep 007
# cells that R, pandas, Excel and SQL write where nothing is known: read as blank, as pandas does
NOT_KNOWN = {"NA", "N/A", "n/a", "#N/A", "#NA", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "<NA>"}
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class Line:
    """A row of the CSV: the number of its line, and its cells by column, without spaces around them, NA as blank."""

    number: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """The CSV. `error` names file, line and column."""

    path: Path
    columns: list[str]
    lines: list[Line]

    def cells(self, column: str) -> list[str]:
        """Return the cells of a column, from top to bottom."""
        return [line.cells[column] for line in self.lines]

    def error(self, line: Line, column: str, reason: str, remedy: str) -> RadprobeError:
        """Return an error about a cell."""
        return RadprobeError(f"{self.path}, line {line.number}, column '{column}'", reason, remedy)


def read_table(path: Path, needed: Sequence[str] = ("path", "patient", "label")) -> Table:
    """Read a CSV of any usual dialect: its delimiter is the one by which the header has most `needed` columns, or most.

    Raises RadprobeError where it is empty, is no UTF-8 text, or has rows of another number of cells than its header.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RadprobeError(path, f"is no UTF-8 text ({error})", "save it as CSV UTF-8") from None
    text, delimiter = _delimiter(text, needed)
    try:
        (_, columns), *rows = _cells(io.StringIO(text, newline=None), delimiter)
    except csv.Error as error:
        raise RadprobeError(path, f"is no CSV table ({error})", "save it as CSV UTF-8") from None
    if not columns:
        raise RadprobeError(path, "is empty", f"write one row per image or case, under the columns {', '.join(needed)}")
    return Table(path, columns, [_line(path, number, columns, cells, delimiter) for number, cells in rows])


def _delimiter(text: str, needed: Sequence[str]) -> tuple[str, str]:
    """Return the text of a table, and its delimiter: the one that Excel's first line names, else that of the header."""
    first, *others = text.lstrip().splitlines(keepends=True) or [""]
    if named := re.fullmatch(rf"sep=([{DELIMITERS}])[{DELIMITERS}]*", first.strip('\r\n" ')):
        return "\n" + "".join(others), named[1]  # a line each, as errors name them
    pieces = {mark: [cell.strip(' "') for cell in first.strip("\r\n").split(mark)] for mark in DELIMITERS}
    return text, max(DELIMITERS, key=lambda mark: (len({*pieces[mark]} & {*needed}), len(pieces[mark])))


def _cells(lines: Iterable[str], delimiter: str) -> list[tuple[int, list[str]]]:
    """Return the number of the (last) line and the cells of each row that is not blank; the first is the header."""
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    rows = [(reader.line_num, [FORMULA.sub(r"\1", cell.strip()) for cell in row]) for row in reader]
    return [row for row in rows if any(row[1])] or [(1, [])]


def _line(path: Path, number: int, columns: list[str], cells: list[str], delimiter: str) -> Line:
    while len(cells) > len(columns) and not cells[-1]:  # separators at the end of the line
        cells = cells[:-1]
    if len(cells) != len(columns):
        reason = f"has {len(cells)} cells, the header {len(columns)}"
        other = next((mark for mark in DELIMITERS if cells[0].count(mark) == len(columns) - 1 > 0), None)
        remedy = f"put quotes around cells that hold '{delimiter}', which separates the columns of the header"
        if len(cells) == 1 and other:
            remedy = f"separate its cells by '{delimiter}', as those of the header: they have '{other}'"
        raise RadprobeError(f"{path}, line {number}", reason, remedy)
    known = ("" if cell in NOT_KNOWN else cell for cell in cells)
    return Line(number, dict(zip(columns, known, strict=True)))
