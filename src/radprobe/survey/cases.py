"""Somebody's images with what is known of them, what can be asked of them, and what was decided."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from radprobe.datasets.csv_table import Line
from radprobe.datasets.folder import sign
from radprobe.survey.survey import Survey

MAX_CLASSES = 30


@dataclass(frozen=True)
class Decision:
    """What was chosen, and why, in plain words."""

    what: str
    chosen: str
    why: str


@dataclass
class Notes:
    """The decisions and warnings that come together."""

    decisions: list[Decision] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def decide(self, what: str, chosen: str, why: str) -> None:
        """Add a decision."""
        self.decisions.append(Decision(what, chosen, why))

    def warn(self, text: str) -> None:
        """Add a doubt."""
        self.warnings.append(text)


@dataclass(frozen=True)
class Case:
    """An image with what is known of it: its row in the table, its mask, the names of the folders around it."""

    image: str
    line: Line | None
    mask: str | None

    def cell(self, column: str) -> str:
        """Return the cell of its row in a column of the table. Raises ValueError if no row lists it."""
        if self.line is None:
            raise ValueError(f"no row of a table lists {self.image}")
        return self.line.cells[column]

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders around it, from the outermost."""
        return PurePosixPath(self.image).parts[:-1]


@dataclass(frozen=True)
class Question:
    """A task that can be asked: its classes, why, and the label cells of a case.

    `fit`: the user's table has these cells as they are. `columns`: those of its labels, or of its masks.
    """

    task: str
    classes: list[str]
    why: str
    cells: Callable[[Case], dict[str, str]]
    fit: bool
    columns: tuple[str, ...] = ()


def cases_of(found: Survey) -> list[Case]:
    """Return the images that the table lists, or all where there is no table.

    Raises RadprobeError where two rows of it mean the same image.
    """
    masks = {image: each[0] for image, each in found.masks.items()}
    if not found.listing:
        return [Case(image, None, masks.get(image)) for image in found.forms]
    rows: dict[str, Line] = {}
    for line in found.listing.lines:
        for image in found.listing.images[line.number]:
            if (other := rows.setdefault(image, line)) is not line:
                reason = f"'{image}' is also in line {other.number}"
                raise found.listing.table.error(line, found.listing.column, reason, "write one row an image")
    return [Case(image, line, masks.get(image)) for image, line in rows.items()]


def held(question: Question, case: Case) -> list[str]:
    """Return the classes that a case has; none of a segmentation."""
    cells = question.cells(case)
    if question.task == "segmentation":
        return []
    return [cells["label"]] if question.task == "multiclass" else [k for k, v in cells.items() if sign(v) == 1]
