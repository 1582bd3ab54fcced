"""What the columns of somebody's table are, by their names and cells: patients, parts, labels and what these ask."""

import re

from radprobe.datasets import raw
from radprobe.datasets.cases import MAX_CLASSES, Case, Question
from radprobe.datasets.folder import PARTS, Line, sign
from radprobe.datasets.matching import CALLED, Listing, words

# names of columns, without case and marks between their words; the first that is there is taken
PATIENT = ("patient", "patientid", "patientidentifier", "patientnumber", "patientno", "patientnr", "patientkey")
PATIENT += ("patients", "patientsid", "patid", "patno", "patnr", "patnum", "pat", "pid", "ptid", "ptno", "mrn")
PATIENT += ("patientenid", "patientennr", "patientennummer", "patientin", "pseudonym", "pseudonymid", "pseudoid")
PATIENT += ("subject", "subjectid", "subjectno", "subjectnr", "usubjid", "subjid", "subjno", "subj", "proband")
PATIENT += ("probandid", "probandennr", "participant", "participantid", "person", "personid", "caseid", "case")
NOBODY = {"?", "-", "unknown", "unbekannt", "anonymous", "anonymized", "anonymised", "anonym", "none", "nobody"}
SPLIT = {"split", "set", "subset", "part", "partition", "fold", "phase", "datasplit", "usage"}
SURELY = {"label", "labels", "class", "classes", "target", "targets"}
LABEL = SURELY | {"diagnosis", "diagnoses", "dx", "finding", "findings", "category", "y", "pathology", "pathologies"}
LABEL |= {"disease", "diseases", "outcome", "status", "result", "grade"}
# words in the names of columns that say something else about an image
NO_LABEL = {"id", "uid", "date", "time", "path", "file", "filename", "name", "note", "notes", "comment", "age", "sex"}
NO_LABEL |= {"gender", "view", "position", "width", "height", "spacing", "size", "weight", "follow", "manufacturer"}
NO_LABEL |= {"scanner", "site", "hospital", "device", "modality", "laterality", "side", "slices", "index", "url"}
NO_LABEL |= {"fold", "folds", "kfold", "split", "splits", "subset", "partition", "datasplit", "train", "training"}
# of a patient, whatever else it says: who it is, where a column of PATIENT says that as well
OF_PATIENT = {"patient", "patients", "patienten", "patientin", "pat", "pt", "subject", "subj", "proband", "probanden"}
ID_WORDS = {"id", "uid", "no", "nr", "number", "index", "name", "case", "scan", "study", "accession", "key"}
# a name of such words alone says a part: is_test, but not rapid_test
PART = {"is", "in", "set", "test", "testing", "val", "valid", "validation", "dev", "part", "data"}
SAYS_PART = PART | SPLIT | {"train", "training", "kfold", "folds"}
WORDED = {**dict.fromkeys(("yes", "true", "positive", "pos", "present", "y"), "1")}
WORDED |= dict.fromkeys(("no", "false", "negative", "neg", "absent", "n"), "0")
WORDED |= {"ja": "1", "nein": "0", "+": "1", "-": "0"}
BLANK = {"-", "--", "?", "."}  # cells that people write where nothing is known; beside a + the - is none
DECIMAL = r"-?\d+(?:[.,]\d+)?"
SHOWN = 3  # cells that are named
SEVERAL = ("|", ";")  # between the findings of one cell
# of such a cell: no finding
NOTHING = {
    "no finding",
    "no findings",
    "normal",
    "none",
    "nil",
    "healthy",
    "keine",
    "kein befund",
    "o.b.",
    "ohne befund",
}
UNKNOWN = {"unknown", "unclear", "uncertain", "unklar", "unbekannt", "tbd", "n.a.", "missing"}  # no class


class Column:
    """A column that may hold labels: what its cells mean ("" is not known), and the kind of labels that it holds.

    kind: several in a cell, signs (1, 0, -1), or classes; None where it holds no labels.
    """

    def __init__(self, name: str, cells: list[str]):
        self.name, self._meaning = name, _meaning(cells)
        self.cells = [self._meaning[cell] for cell in cells]
        self.kind = _kind(name, self.cells)
        self.reads = [f"'{cell}' as {meant or 'blank'}" for cell, meant in self._meaning.items() if cell != meant]

    def is_odd(self, cell: str) -> bool:
        """Say whether a cell means neither present nor absent."""
        return bool(self._meaning[cell]) and not _is_sign(self._meaning[cell])

    def of(self, case: Case) -> str:
        """Return what the cell of a case means."""
        return self._meaning[case.line.cells[self.name]]


def of_table(listing: Listing) -> list[Question]:
    """Return what the columns of a table allow to ask, the likeliest first."""
    columns = [Column(name, listing.values(name)) for name in _label_columns(listing)]
    alone = [_several(each) for each in columns if each.kind == "several"]
    alone += [_classes(each) for each in columns if each.kind == "classes"]
    signs = [each for each in columns if each.kind == "signs"]
    sure, more = [each for each in signs if _surely(each.name)], [each for each in signs if not _surely(each.name)]
    together = {some[0].name: _signs(some) for some in (sure, more) if some}
    by_name = {one.columns[0]: one for one in alone} | together
    # 0 and 1 without a name of a label come before other columns without one, as those rather describe the image
    return sorted(by_name.values(), key=lambda one: _rank(one.columns[0], one.columns[0] in together))


def _rank(column: str, of_signs: bool) -> int:
    if _of_patient(column):  # subject_label may number the subjects
        return 4
    if _surely(column):
        return 0
    if of_signs:
        return 2
    return 1 if _called(column) else 3


def _label_columns(listing: Listing) -> list[str]:
    """Return the columns that may be labels: none that names files, patients, parts or what is no label."""
    used = {listing.column, listing.mask, split_column(listing), *_patient_columns(listing)}
    names = [name for name in listing.table.columns if name and listing.table.columns.count(name) == 1]
    return [name for name in names if name not in used and (_called(name) or not _says_else(name))]


def _called(column: str) -> bool:
    return bool(LABEL & {*words(column)})


def _surely(column: str) -> bool:
    """Say whether a column is called `label` or the like; `No Finding` and `Other disease` are one label of many."""
    return plain(column) in LABEL or bool(SURELY & {*words(column)} and not _says_else(column))


def _says_else(column: str) -> bool:
    found = {word for word in words(column) if not word.isdigit()}
    return bool(NO_LABEL & found) or (bool(found) and found <= PART) or _of_patient(column)


def _of_patient(column: str) -> bool:
    return bool(OF_PATIENT & {*words(column)}) or plain(column).startswith(("patient", "subject", "proband"))


def _meaning(cells: list[str]) -> dict[str, str]:
    """Return what each cell means: "" where nothing is known, 1 and 0 for words of these, a point for a comma."""
    blank = BLANK - {"-"} if "+" in cells else BLANK
    values = sorted({*cells} - {"", *blank}, key=raw.natural)
    meant = {value: value for value in values}
    if all(re.fullmatch(DECIMAL, value) for value in values):
        meant = {value: value.replace(",", ".") for value in values}
    elif all(value.casefold() in WORDED for value in values):
        meant = {value: WORDED[value.casefold()] for value in values}
    return meant | dict.fromkeys({*cells} - {*values}, "")


def _kind(name: str, cells: list[str]) -> str | None:
    values = {cell for cell in cells if cell}
    signs = {sign(value) for value in values}
    if None not in signs:
        return "signs" if {0, 1} <= signs else None
    if any(mark in value for value in values for mark in SEVERAL):
        apart = {part for cell in values for part in _found(cell)}
        return "several" if 1 <= len(apart) <= MAX_CLASSES else None
    enough = 2 <= len(values) <= MAX_CLASSES and (_called(name) or "" not in cells)
    numbers = all(re.fullmatch(DECIMAL, value) for value in values)
    return "classes" if enough and (_called(name) or (not numbers and len(values) * 2 <= len(cells))) else None


def _parts_of(cell: str) -> list[str]:
    parts = [part.strip() for part in re.split("|".join(map(re.escape, SEVERAL)), cell)]
    return [part for part in parts if part]


def _found(cell: str) -> set[str]:
    return {part for part in _parts_of(cell) if part.casefold() not in NOTHING}


def _several(column: Column) -> Question:
    classes = sorted({part for cell in column.cells for part in _found(cell)})

    def of(case: Case) -> dict[str, str]:
        cell = column.of(case)
        return {name: str(int(name in _found(cell))) if _parts_of(cell) else "" for name in classes}

    why = f"column '{column.name}' holds several findings in a cell"
    return Question("multilabel" if len(classes) > 1 else "binary", classes, why, of, False, (column.name,))


def _signs(columns: list[Column]) -> Question:
    names = [each.name for each in columns]
    why = f"column(s) of 0 and 1: {', '.join(names)}"
    rows = zip(*(each.cells for each in columns), strict=True)
    if len(names) > 2 and all([sign(cell) for cell in row].count(1) == 1 for row in rows):
        why += "; each image has exactly one: if they exclude each other, one column `label` makes it multiclass"
    return _question("binary" if len(names) == 1 else "multilabel", names, why, {each.name: each for each in columns})


def _classes(column: Column) -> Question:
    classes = sorted({cell for cell in column.cells if cell}, key=raw.natural)
    why = f"column '{column.name}' holds one of {len(classes)} classes"
    return _question("multiclass", classes, why, {"label": column})


def _question(task: str, classes: list[str], why: str, columns: dict[str, Column]) -> Question:
    """Return the question of columns, by the names of its cells; its reason says what is read in other words."""
    for each in columns.values():
        if each.reads:
            more = ", ..." if each.reads[SHOWN:] else ""
            why += f"; in '{each.name}' {', '.join(each.reads[:SHOWN])}{more}"
    fit = not any(each.reads for each in columns.values())
    names = tuple(each.name for each in columns.values())
    return Question(task, classes, why, lambda case: {key: each.of(case) for key, each in columns.items()}, fit, names)


def plain(column: str) -> str:
    """Return the letters of a column's name."""
    return re.sub(r"[^a-z]", "", column.lower())


def patient_column(listing: Listing) -> str | None:
    """Return the column of the patients, by its name: the first in which some images share one, else the first."""
    found = _patient_columns(listing)
    return next((name for name in found if _repeats(listing, name)), next(iter(found), None))


def _patient_columns(listing: Listing) -> list[str]:
    """Return the columns that are called as patients are, the likeliest first; one of 0 and 1 is a label."""
    names = [name for name in listing.table.columns if name and listing.table.columns.count(name) == 1]
    names = [name for name in names if {sign(cell) for cell in listing.values(name) if cell} - {0, 1}]
    called = {name: re.sub(r"[\W_]", "", name.casefold()) for name in names}
    return sorted((name for name in names if called[name] in PATIENT), key=lambda name: PATIENT.index(called[name]))


def _repeats(listing: Listing, column: str) -> bool:
    values = listing.values(column)
    return len({*values}) < len(values)


def unread_split(listing: Listing) -> tuple[str, Line] | None:
    """Return the column that is called a split, and the first row in which it holds no part."""
    for name in listing.table.columns:
        said = {*words(name)}  # none of a column without a name, as pandas writes its index
        called = plain(name) in SPLIT or (said and said <= SAYS_PART)
        lost = [line for line in listing.lines if line.cells.get(name, "").lower() not in PARTS]
        if called and lost:
            return name, lost[0]
    return None


def split_column(listing: Listing) -> str | None:
    """Return the column of the parts, by its name and what it holds."""
    for name in listing.table.columns:
        if plain(name) in SPLIT and {cell.lower() for cell in listing.values(name)} <= PARTS.keys():
            return name
    return None


def like_patients(listing: Listing) -> list[str]:
    """Return columns that say something of patients by their names, and may say better who they are than the one taken.

    Where that one has another patient in each row, these are columns in which some rows are alike.
    """
    chosen = patient_column(listing)
    like = [name for name in listing.table.columns if name and name not in (chosen, listing.column)]
    like = [name for name in like if _of_patient(name) or name in _patient_columns(listing)]
    if chosen is None:
        return like
    return [] if _repeats(listing, chosen) else [name for name in like if _repeats(listing, name)]


def left_out(listing: Listing) -> list[str]:
    """Say which columns are nearly labels of 0 and 1, and why they are none."""
    found = []
    for name in _label_columns(listing):
        column = Column(name, listing.values(name))
        known = [cell for cell in column.cells if cell]
        signs = [cell for cell in known if _is_sign(cell)]
        if column.kind or 2 * len(signs) < len(known) or not signs:
            continue
        if odd := next((line for line in listing.lines if (cell := line.cells[name]) and column.is_odd(cell)), None):
            found.append(f"'{name}': '{odd.cells[name]}' in line {odd.number} is none of 1, 0, -1 and blank")
        elif len(known) < len(column.cells):
            found.append(f"'{name}': it holds only {known[0]} and blank; write 0 where it is absent")
    return found


def doubts(classes: list[str]) -> list[str]:
    """Return what is odd about the names of classes, as cells gave them."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        number = re.fullmatch(DECIMAL, name)
        alike.setdefault(str(float(name.replace(",", "."))) if number else name.casefold(), []).append(name)
    found = [
        f"{_listed(group)} are taken for different classes: write them alike" for group in alike.values() if group[1:]
    ]
    signs, numbers = [name for name in classes if _is_sign(name)], [re.fullmatch(DECIMAL, name) for name in classes]
    if len(signs) > 1 and len(classes) > 2 and not all(numbers):
        found.append(f"{_listed(signs)} are classes beside others: if they say yes and no, write 1, 0 and else blank")
    if unknown := [name for name in classes if name.casefold() in UNKNOWN]:
        found.append(f"{_listed(unknown)} is a class: leave its cells blank if it means that nothing is known")
    held = {name.casefold() for name in classes}
    if negated := [
        name for name in classes if re.sub("^(no|kein|keine) ", "", name.casefold()) in held - {name.casefold()}
    ]:
        found.append(f"{_listed(negated)} is a class: if it means that nothing was found, write No Finding")
    joined = [name for name in classes if {part.strip() for part in re.split("[,/+]", name)[1:]} & {*classes}]
    if joined:
        found.append(f"{_listed(joined)} may be several findings in a cell: separate them by |")
    return found


def _is_sign(cell: str) -> bool:
    return sign(cell) is not None or cell.casefold() in {*WORDED, "x"}


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:SHOWN]) + (", ..." if names[SHOWN:] else "")


def says_who(column: str) -> bool:
    """Say whether a column is called as files, cases or patients are: image id, No, case."""
    return bool({*words(column)} & (CALLED | OF_PATIENT | ID_WORDS)) or plain(column) in PATIENT
