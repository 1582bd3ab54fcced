"""Which labels the columns of somebody's table hold, by their names and cells, and what can be asked of them."""

import re

from radprobe.datasets import raw
from radprobe.datasets.folder import sign
from radprobe.survey.cases import MAX_CLASSES, Case, Question
from radprobe.survey.headers import NO_LABEL, OF_PATIENT, PART, of_patient, patient_columns, plain, split_column
from radprobe.survey.matching import Listing, words

# words in the names of columns of labels
SURELY = {"label", "labels", "class", "classes", "target", "targets"}
LABEL = SURELY | {"diagnosis", "diagnoses", "dx", "finding", "findings", "category", "y", "pathology", "pathologies"}
LABEL |= {"diagnose", "diagnosen", "befund", "befunde", "klasse", "level", "severity", "stage"}
LABEL |= {"disease", "diseases", "outcome", "status", "result", "grade"}
WORDED = {**dict.fromkeys(("yes", "true", "positive", "pos", "present", "y"), "1")}
WORDED |= dict.fromkeys(("no", "false", "negative", "neg", "absent", "n"), "0")
WORDED |= {"ja": "1", "nein": "0", "+": "1", "-": "0", "positiv": "1", "negativ": "0", "wahr": "1", "falsch": "0"}
WORDED |= {"vorhanden": "1", "nicht vorhanden": "0"}
# values of columns of sex and side, whatever these are called
PERSON_OR_SIDE = {"m", "f", "w", "d", "male", "female", "männlich", "weiblich", "divers"}
PERSON_OR_SIDE |= {"l", "r", "left", "right", "links", "rechts", "li", "re"}
BLANK = {"-", "--", "?", "."}  # cells that people write where nothing is known; beside a + the - is none
DECIMAL = r"-?\d+(?:[.,]\d+)?"
SHOWN = 3  # cells that are named
FEW_CLASSES = 10  # more states of a patient hardly anybody tells apart
SEVERAL = ("|", ";")  # between the findings of one cell
LIST = re.compile(r"\[.*\]")  # findings as Python writes them: ['a', 'b']
# of such a cell: no finding
NOTHING = {"no finding", "no findings", "normal", "none", "nil", "healthy"}
NOTHING |= {"keine", "kein befund", "o.b.", "ohne befund"}
UNKNOWN = {"unknown", "unclear", "uncertain", "unklar", "unbekannt", "tbd", "n.a.", "missing"}  # no class


class LabelColumn:
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
        return self._meaning[case.cell(self.name)]


def of_table(listing: Listing) -> list[Question]:
    """Return what the columns of a table allow to ask, the likeliest first."""
    columns = _label_columns(listing)
    alone = [_several(each) for each in columns if each.kind == "several"]
    alone += [_classes(each) for each in columns if each.kind == "classes"]
    signs = [each for each in columns if each.kind == "signs"]
    sure, more = [each for each in signs if surely(each.name)], [each for each in signs if not surely(each.name)]
    together = {some[0].name: _signs(some) for some in (sure, more) if some}
    by_name = {one.columns[0]: one for one in alone} | together
    # 0 and 1 without a name of a label come before other columns without one, as those rather describe the image
    return sorted(by_name.values(), key=lambda one: _rank(one, one.columns[0] in together))


def _rank(question: Question, of_signs: bool) -> int:
    column = question.columns[0]
    if of_patient(column) and len(question.classes) > FEW_CLASSES:  # subject_label may number the subjects
        return 4
    if surely(column):
        return 0
    if of_signs:
        return 2
    return 1 if _called(column) else 3


def _label_columns(listing: Listing) -> list[LabelColumn]:
    """Return the columns that may be labels: none that names files, patients, parts or what is no label."""
    used = {listing.column, listing.mask, split_column(listing), *patient_columns(listing)}
    names = [name for name in listing.table.columns if name and listing.table.columns.count(name) == 1]
    columns = [LabelColumn(name, listing.values(name)) for name in names if name not in used]
    return [each for each in columns if _called(each.name) or not _says_else(each.name) or _of_patients_state(each)]


def _of_patients_state(column: LabelColumn) -> bool:
    """Say whether a column tells of each patient whether something holds: patient_died, and not patient."""
    more = {*words(column.name)} - OF_PATIENT
    return column.kind == "signs" and bool(more) and not NO_LABEL & more and of_patient(column.name)


def _called(column: str) -> bool:
    return bool(LABEL & {*words(column)})


def surely(column: str) -> bool:
    """Say whether a column is called `label` or the like; `No Finding` and `Other disease` are one label of many."""
    return plain(column) in LABEL or bool(SURELY & {*words(column)} and not _says_else(column))


def _says_else(column: str) -> bool:
    found = {word for word in words(column) if not word.isdigit()}
    return bool(NO_LABEL & found) or (bool(found) and found <= PART) or of_patient(column)


def _meaning(cells: list[str]) -> dict[str, str]:
    """Return what each cell means: "" where nothing is known, 1 and 0 for words of these, a point for a comma."""
    blank = BLANK - {"-"} if "+" in cells else BLANK
    values = sorted({*cells} - {"", *blank}, key=raw.natural)
    meant = {value: WORDED.get(value.casefold(), value.replace(",", ".")) for value in values}
    if any(sign(each) is None for each in meant.values()) or all(sign(value) is not None for value in values):
        meant = {value: value for value in values}
    return meant | dict.fromkeys({*cells} - {*values}, "")


def _kind(name: str, cells: list[str]) -> str | None:
    values = {cell for cell in cells if cell}
    if {value.casefold() for value in values} <= PERSON_OR_SIDE and plain(name) not in LABEL:
        return None
    signs = {sign(value) for value in values}
    if None not in signs:
        return "signs" if {0, 1} <= signs else None
    if any(mark in value for value in values for mark in SEVERAL) or all(map(LIST.fullmatch, values)):
        apart = {part for cell in values for part in _found(cell)}
        return "several" if 1 <= len(apart) <= MAX_CLASSES else None
    enough = 2 <= len(values) <= min(MAX_CLASSES, max(2, len(cells) // 2)) and (_called(name) or "" not in cells)
    numbers = all(re.fullmatch(DECIMAL, value) for value in values)
    return "classes" if enough and (_called(name) or not numbers) else None


def _parts_of(cell: str) -> list[str]:
    if LIST.fullmatch(cell):
        return [part for part in (part.strip(" '\"") for part in cell[1:-1].split(",")) if part]
    parts = [part.strip() for part in re.split("|".join(map(re.escape, SEVERAL)), cell)]
    return [part for part in parts if part]


def _found(cell: str) -> set[str]:
    return {part for part in _parts_of(cell) if part.casefold() not in NOTHING}


def _several(column: LabelColumn) -> Question:
    classes = sorted({part for cell in column.cells for part in _found(cell)})

    def of(case: Case) -> dict[str, str]:
        cell = column.of(case)
        found, known = _found(cell), bool(_parts_of(cell))
        return {name: str(int(name in found)) if known else "" for name in classes}

    why = f"column '{column.name}' holds several findings in a cell"
    return Question("multilabel" if len(classes) > 1 else "binary", classes, why, of, False, (column.name,))


def _signs(columns: list[LabelColumn]) -> Question:
    names = [each.name for each in columns]
    why = f"column(s) of 0 and 1: {', '.join(names)}"
    rows = zip(*(each.cells for each in columns), strict=True)
    if len(names) > 2 and all([sign(cell) for cell in row].count(1) == 1 for row in rows):
        why += "; each image has exactly one: if they exclude each other, one column `label` makes it multiclass"
    return _question("binary" if len(names) == 1 else "multilabel", names, why, {each.name: each for each in columns})


def _classes(column: LabelColumn) -> Question:
    classes = sorted({cell for cell in column.cells if cell}, key=raw.natural)
    why = f"column '{column.name}' holds one of {len(classes)} classes"
    return _question("multiclass", classes, why, {"label": column})


def _question(task: str, classes: list[str], why: str, columns: dict[str, LabelColumn]) -> Question:
    """Return the question of columns, by the names of its cells; its reason says what is read in other words."""
    for each in columns.values():
        if each.reads:
            more = ", ..." if each.reads[SHOWN:] else ""
            why += f"; in '{each.name}' {', '.join(each.reads[:SHOWN])}{more}"
    fit = not any(each.reads for each in columns.values())
    names = tuple(each.name for each in columns.values())
    return Question(task, classes, why, lambda case: {key: each.of(case) for key, each in columns.items()}, fit, names)


def near_labels(listing: Listing) -> list[str]:
    """Say which columns are nearly labels of 0 and 1, and why they are none."""
    found = []
    for column in _label_columns(listing):
        known = [cell for cell in column.cells if cell]
        signs = {cell for cell in known if _is_sign(cell)}
        blank = len(known) < len(column.cells)
        if column.kind or 2 * sum(cell in signs for cell in known) < len(known):
            continue
        odd = next((line for line in listing.lines if column.is_odd(line.cells[column.name])), None)
        if odd and len(signs) > 1:
            why = f"'{odd.cells[column.name]}' in line {odd.number} is none of 1, 0, -1 and blank"
            found.append(f"'{column.name}': {why}")
        elif signs and blank and not odd:
            only = " and ".join(sorted(signs, key=raw.natural))
            found.append(
                f"'{column.name}': it holds only {only} and blank; write 1 where it is present, 0 where absent"
            )
    return found


def odd_classes(classes: list[str]) -> list[str]:
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
    negated = {name: re.sub("^(no|kein|keine) ", "", name.casefold()) for name in classes}
    if negative := [name for name, rest in negated.items() if rest in held - {name.casefold()}]:
        found.append(f"{_listed(negative)} is a class: if it means that nothing was found, write No Finding")
    parts = {name: [part.strip() for part in re.split("[,/+]", name)] for name in classes}
    if joined := [name for name, each in parts.items() if each[1:] and {*each} & {*classes}]:
        found.append(f"{_listed(joined)} may be several findings in a cell: separate them by |")
    return found


def _is_sign(cell: str) -> bool:
    return sign(cell) is not None or cell.casefold() in {*WORDED, "x"}


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:SHOWN]) + (", ..." if names[SHOWN:] else "")
