"""What can be asked of somebody's images, by their masks, the columns of their table or the folders around them."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from radprobe.datasets import raw
from radprobe.datasets.folder import PARTS, Line
from radprobe.datasets.matching import IMAGE_WORDS, Listing, words
from radprobe.datasets.survey import Survey
from radprobe.files import RadprobeError

# names of columns, without case and marks between their words; the first that is there is taken
PATIENT = ("patient", "patientid", "patientidentifier", "patientnumber", "patientno", "patientkey", "pid", "mrn")
PATIENT += ("subject", "subjectid", "participant", "participantid", "person", "personid", "caseid", "case")
SPLIT = {"split", "set", "subset", "part", "partition", "fold", "phase", "datasplit", "usage"}
SURELY = {"label", "labels", "class", "classes", "target", "targets"}
LABEL = SURELY | {"diagnosis", "diagnoses", "dx", "finding", "findings", "category", "y", "pathology", "pathologies"}
LABEL |= {"disease", "diseases", "outcome", "status", "result", "grade"}
# words in the names of columns that say something else about an image
NO_LABEL = {"id", "uid", "date", "time", "path", "file", "filename", "name", "note", "notes", "comment", "age", "sex"}
NO_LABEL |= {"gender", "view", "position", "width", "height", "spacing", "size", "weight", "follow", "manufacturer"}
NO_LABEL |= {"scanner", "site", "hospital", "device", "modality", "laterality", "side", "slices", "index", "url"}
NO_LABEL |= {"fold", "folds", "kfold", "split", "splits", "subset", "partition", "datasplit", "train", "training"}
PART = {
    "is",
    "in",
    "set",
    "test",
    "testing",
    "val",
    "valid",
    "validation",
    "dev",
    "part",
    "data",
}  # no label if all are
SIGNS = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1}  # as the loader reads labels
WORDED = {**dict.fromkeys(("yes", "true", "positive", "pos", "present", "y"), "1")}
WORDED |= dict.fromkeys(("no", "false", "negative", "neg", "absent", "n"), "0")
SEVERAL = ("|", ";")  # between the findings of one cell
NOTHING = {"no finding", "no findings", "normal", "none", "healthy"}  # of such a cell: no finding
# words in the names of numbered folders that are classes, and of those that are neither classes nor patients
GRADES = LABEL | {"stage", "type", "level", "score", "birads", "rads"}
GROUPS = IMAGE_WORDS | {
    "site",
    "center",
    "centre",
    "hospital",
    "scanner",
    "device",
    "fold",
    "split",
    "part",
    "set",
    "batch",
}
GROUPS |= {"group", "folder", "dir", "study", "visit", "session", "ses", "series", "slice", "slices", "frame", "view"}
MIN_PATIENTS = 3  # numbered folders of which there are fewer are no patients: a study wants one for each part
MAX_CLASSES = 30
LABEL_MAPS = "write one label map an image: 0 background, 1 the first class, 2 the second ..."


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


def question_of(found: Survey, cases: list[Case], task: str | None, notes: Notes) -> Question:
    """Return the question to ask, the user's task or the likeliest. Raises RadprobeError where there is none."""
    masks = _of_masks(found) if task in (None, "segmentation") else []
    questions = [*masks, *_of_table(found.listing), *_of_folders(found, cases)]
    able = [one for one in questions if task in (None, one.task)]
    if not able:
        raise _nothing_asked(found, cases, questions, task)
    chosen, others = able[0], {one.task for one in questions} - {able[0].task}
    notes.decide("task", chosen.task, "as you say" if task else chosen.why)
    notes.decide("classes", ", ".join(chosen.classes), chosen.why)
    if others and not task:
        notes.warn(f"the folder would allow another task too: --task {' or --task '.join(sorted(others))}")
    more = [name for one in able for name in one.columns if name not in chosen.columns]
    if more and chosen.task != "segmentation":
        here = ", ".join(chosen.columns)
        notes.warn(f"the labels are those of {here}; also possible: {', '.join(more)} (call the right column `label`)")
    return chosen


def _nothing_asked(found: Survey, cases: list[Case], questions: list[Question], task: str | None) -> RadprobeError:
    if task and questions:
        able = ", ".join(dict.fromkeys(one.task for one in questions))
        return RadprobeError(found.root, f"nothing in it says that the task is {task}", f"it allows: {able}")
    n = len(found.forms)
    put = "put a CSV with the columns path, patient and your labels into the folder, or name one: --table FILE"
    if found.tables and not found.listing:
        table, image = found.tables[0], next(iter(found.forms))
        reason = f"no column of it ({', '.join(table.columns)}) names the {n} image(s), as {image}"
        return RadprobeError(table.path, reason, "write the paths of the images into a column `path`")
    if found.listing:
        listed = ", ".join(found.listing.table.columns)
        reason = f"has no column of labels among {listed}"
        return RadprobeError(found.listing.table.path, reason, "add a column of 0 and 1, or of class names: label")
    reason = f"holds {n} image(s), but no table, masks or folders of classes say what is asked of them"
    if numbered := sorted(_numbered_level(cases), key=raw.natural):
        reason += f"; folders that differ only by a number, as {' and '.join(numbered[:2])}, are no classes"
        put += "; if the folders are classes, name them so: class 0, class 1"
    return RadprobeError(found.root, reason, put)


# --- by masks ---------------------------------------------------------------------------------------------------------


def _of_masks(found: Survey) -> list[Question]:
    if not found.masks:
        return []
    several = {image: each for image, each in found.masks.items() if len(each) > 1}
    if several:
        image, masks = next(iter(several.items()))
        reason = f"has {len(masks)} masks ({', '.join(masks)}); {len(several)} such image(s)"
        raise RadprobeError(found.root / image, reason, LABEL_MAPS)
    values = [value for value in found.labels if value]
    listed = f"column '{found.listing.mask}'" if found.listing and found.listing.mask else "by name"
    n = len(found.masks)
    read = f"; {n - found.unread_masks} of {n} were looked at" if found.unread_masks else ""
    why = f"{n} images have a mask ({listed}), with the labels {', '.join(map(str, values)) or 'none'}{read}"
    if not values:
        bad = next(iter(found.bad_masks.items()), None)
        what, reason = (found.root / bad[0], bad[1]) if bad else (found.root, "all masks that were looked at are empty")
        raise RadprobeError(what, reason, LABEL_MAPS)
    n = 1 if len(values) == 1 else values[-1]  # one class may be drawn as 255
    if n > MAX_CLASSES:
        reason = f"masks hold the labels {', '.join(map(str, values[:10]))} ...: grey values, or no label maps"
        raise RadprobeError(found.root, reason, LABEL_MAPS)
    classes = [found.names.get(label, "foreground" if n == 1 else f"label {label}") for label in range(1, n + 1)]
    listing = found.listing
    fit = bool(listing and listing.mask and listing.masks_exact)
    columns = (listing.mask,) if listing and listing.mask else ()
    return [Question("segmentation", classes, why, lambda case: {"mask": case.mask or ""}, fit, columns)]


# --- by the columns of a table ----------------------------------------------------------------------------------------


def _of_table(listing: Listing | None) -> list[Question]:
    """Return what the columns of a table allow to ask, the likeliest first."""
    if not listing:
        return []
    columns = {name: listing.values(name) for name in _label_columns(listing)}
    kinds = {name: kind for name, values in columns.items() if (kind := _kind(name, values))}
    alone = [_several(name, columns[name]) for name, kind in kinds.items() if kind == "several"]
    alone += [_classes(name, columns[name]) for name, kind in kinds.items() if kind == "classes"]
    signs = [name for name, kind in kinds.items() if kind in ("signs", "worded")]
    sure, more = [name for name in signs if _surely(name)], [name for name in signs if not _surely(name)]
    together = {names[0]: _signs(names, kinds, columns) for names in (sure, more) if names}
    by_name = {one.columns[0]: one for one in alone} | together
    # 0 and 1 without a name of a label come before other columns without one, as those rather describe the image
    return sorted(by_name.values(), key=lambda one: _rank(one.columns[0], one.columns[0] in together))


def _rank(column: str, of_signs: bool) -> int:
    if _surely(column):
        return 0
    if of_signs:
        return 2
    return 1 if _called(column) else 3


def _label_columns(listing: Listing) -> list[str]:
    """Return the columns that may be labels: none that names files, patients, parts or what is no label."""
    used = {listing.column, listing.mask, patient_column(listing), split_column(listing)}
    names = [name for name in listing.table.columns if name and listing.table.columns.count(name) == 1]
    return [name for name in names if name not in used and (_called(name) or not _says_else(name))]


def _called(column: str) -> bool:
    return bool(LABEL & {*words(column)})


def _surely(column: str) -> bool:
    """Say whether a column is called `label` or the like; `No Finding` and `Other disease` are one label of many."""
    return plain(column) in LABEL or bool(SURELY & {*words(column)} and not _says_else(column))


def _says_else(column: str) -> bool:
    found = {word for word in words(column) if not word.isdigit()}
    return bool(NO_LABEL & found) or (bool(found) and found <= PART)


def _kind(name: str, cells: list[str]) -> str | None:
    """Return how a column holds labels: several in a cell, signs (1, 0, -1), words for them, or classes; else None."""
    values = {cell for cell in cells if cell}
    signs = {SIGNS.get(value) for value in values}
    if None not in signs:
        return "signs" if {0, 1} <= signs else None
    if {value.casefold() for value in values} <= WORDED.keys():
        return "worded" if len({WORDED[value.casefold()] for value in values}) == 2 else None
    if any(mark in value for value in values for mark in SEVERAL):
        apart = {part for cell in values for part in _found(cell)}
        return "several" if 1 <= len(apart) <= MAX_CLASSES else None
    enough = 2 <= len(values) <= MAX_CLASSES and (_called(name) or "" not in cells)
    numbers = all(re.fullmatch(r"-?\d+(\.\d+)?", value) for value in values)
    return "classes" if enough and (_called(name) or (not numbers and len(values) * 2 <= len(cells))) else None


def _parts_of(cell: str) -> list[str]:
    parts = [part.strip() for part in re.split("|".join(map(re.escape, SEVERAL)), cell)]
    return [part for part in parts if part]


def _found(cell: str) -> set[str]:
    return {part for part in _parts_of(cell) if part.casefold() not in NOTHING}


def _several(column: str, cells: list[str]) -> Question:
    classes = sorted({part for cell in cells for part in _found(cell)})

    def of(case: Case) -> dict[str, str]:
        cell = case.line.cells[column]
        return {name: str(int(name in _found(cell))) if _parts_of(cell) else "" for name in classes}

    why = f"column '{column}' holds several findings in a cell"
    return Question("multilabel" if len(classes) > 1 else "binary", classes, why, of, False, (column,))


def _signs(names: list[str], kinds: dict[str, str], columns: dict[str, list[str]]) -> Question:
    def of(case: Case) -> dict[str, str]:
        return {name: WORDED.get(case.line.cells[name].casefold(), case.line.cells[name]) for name in names}

    worded = [name for name in names if kinds[name] == "worded"]
    why = f"column(s) of 0 and 1: {', '.join(names)}" + (f" (words in {', '.join(worded)})" if worded else "")
    rows = zip(*(columns[name] for name in names), strict=True)
    if len(names) > 2 and all([SIGNS.get(cell) for cell in row].count(1) == 1 for row in rows):
        why += "; each image has exactly one: if they exclude each other, one column `label` makes it multiclass"
    return Question("binary" if len(names) == 1 else "multilabel", names, why, of, not worded, tuple(names))


def _classes(column: str, cells: list[str]) -> Question:
    classes = sorted({cell for cell in cells if cell}, key=raw.natural)
    why = f"column '{column}' holds one of {len(classes)} classes"
    return Question("multiclass", classes, why, lambda case: {"label": case.line.cells[column]}, True, (column,))


def plain(column: str) -> str:
    """Return the letters of a column's name."""
    return re.sub(r"[^a-z]", "", column.lower())


def patient_column(listing: Listing) -> str | None:
    """Return the column of the patients, by its name."""
    named = {plain(name): name for name in listing.table.columns if listing.table.columns.count(name) == 1}
    return next((named[name] for name in PATIENT if name in named), None)


def split_column(listing: Listing) -> str | None:
    """Return the column of the parts, by its name and what it holds."""
    for name in listing.table.columns:
        if plain(name) in SPLIT and {cell.lower() for cell in listing.values(name)} <= PARTS.keys():
            return name
    return None


# --- by folders -------------------------------------------------------------------------------------------------------


def _of_folders(found: Survey, cases: list[Case]) -> list[Question]:
    """Return the question that folders of classes ask: <class>/<image>, or <part>/<class>/<patient>/<image>."""
    if found.listing:
        return []
    inner = class_folders(cases)
    classes = sorted({folders[0] for folders in inner.values() if folders}, key=raw.natural)
    of_images = any(IMAGE_WORDS & {*words(name)} for name in classes)  # imagesTr, imagesTs
    if of_images or not 2 <= len(classes) <= MAX_CLASSES or not all(inner.values()):
        return []
    why = f"the images lie in {len(classes)} folders, taken as classes"
    return [Question("multiclass", classes, why, lambda case: {"label": inner[case.image][0]}, False)]


def class_folders(cases: list[Case]) -> dict[str, tuple[str, ...]]:
    """Return the folders around each image, from that of its class, if there are classes: below parts and patients."""
    inner = _below_parts(cases)
    return {image: folders[1:] for image, folders in inner.items()} if _numbered_level(cases) else inner


def _below_parts(cases: list[Case]) -> dict[str, tuple[str, ...]]:
    """Return the folders around each image, without those that all images share, and without parts (train ...)."""
    folders = {case.image: case.folders for case in cases}
    while all(folders.values()) and len({each[0] for each in folders.values()}) == 1:
        folders = {image: each[1:] for image, each in folders.items()}
    if all(each and each[0].lower() in PARTS for each in folders.values()):
        folders = {image: each[1:] for image, each in folders.items()}
    return folders


def _numbered_level(cases: list[Case]) -> set[str]:
    """Return the names of the outermost folders below parts where they differ only by a number; else none."""
    inner = _below_parts(cases).values()
    names = {folders[0] for folders in inner if folders}
    return names if all(inner) and _numbered(names) else set()


def _numbered(names: set[str]) -> bool:
    """Say whether names are alike but for a number, as P001 and P002, and not called classes, as grade 1."""
    alike = len(names) > 1 and len({re.sub(r"\d+", "0", name) for name in names}) == 1
    return alike and not any(GRADES & {*words(name)} for name in names)


def patient_folders(cases: list[Case]) -> dict[str, str]:
    """Return the folder of each image that is its patient's, the outermost that is numbered; {} if none is."""
    inner = _below_parts(cases)
    for level in zip(*inner.values(), strict=False):  # as many as are around all images
        names = set(level)
        if len(names) >= MIN_PATIENTS and _numbered(names) and not any(GROUPS & {*words(name)} for name in names):
            return dict(zip(inner, level, strict=True))
    return {}


def held(question: Question, case: Case) -> list[str]:
    """Return the classes that a case has; none of a segmentation."""
    cells = question.cells(case)
    if question.task == "segmentation":
        return []
    return [cells["label"]] if question.task == "multiclass" else [k for k, v in cells.items() if SIGNS.get(v) == 1]
