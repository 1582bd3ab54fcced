"""What to ask of somebody's images, and how: decided from a survey of their folder, each decision with its reason."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from radprobe.datasets.folder import AGE, METAS, sign
from radprobe.files import RadprobeError
from radprobe.survey import doubts, patients
from radprobe.survey.cases import Case, Decision, Notes, Question, cases_of
from radprobe.survey.headers import plain, says_who
from radprobe.survey.matching import EXACT, Listing, like_row_numbers
from radprobe.survey.questions import not_listed, question_of
from radprobe.survey.survey import Survey

CALLED = {"age": ("age", "patientage"), "sex": ("sex", "gender", "patientsex", "patientgender")}
CALLED["view"] = ("view", "viewposition")
STORED = (128, 256, 448)  # sides in pixels, as the catalog stores its sets
CLASSIFY, SEGMENT = 224, 448  # sides that a backbone gets


@dataclass(frozen=True)
class Proposal:
    """A dataset of params as it is proposed.

    choice: datasets.<id>, without `raw`, and without folder.table where `rows` are a table that is to be written:
    the user's own is fit as it is where they are None.
    """

    choice: dict[str, Any]
    rows: list[dict[str, str]] | None
    decisions: list[Decision]
    warnings: list[str]


def decide(found: Survey, task: str | None = None) -> Proposal:
    """Propose a dataset; `task` is the user's, else what the folder suggests.

    Raises RadprobeError where nothing in the folder says what is asked of the images, or not the task that is wanted;
    where masks are no label maps, two rows mean one image, a patient is blank, or no image can be read.
    """
    notes = Notes()
    cases = cases_of(found)
    try:
        question = question_of(found, cases, task, notes)
    except RadprobeError:
        doubts.refuse_many(found, doubts.unreadable(found))  # where most images cannot be used, this is what is wrong
        raise
    with_answer = _with_mask if question.task == "segmentation" else _with_label
    cases = with_answer(found, cases, question, notes)
    found = _only(found, cases, notes)
    listing = found.listing
    patient_of, by_patient = patients.of_images(found, cases, question, notes)
    part_of, by_part = patients.parts(listing, cases, patient_of, question, notes)
    has_parts = by_part is not None or not part_of
    _tell_listing(found, listing, notes)
    _tell_tables(found, notes)
    folder: dict[str, Any] = {"task": question.task, "classes": question.classes}
    choice: dict[str, Any] = {"folder": folder}
    folds = None if part_of else patients.folds(cases, patient_of, question)
    if folds:
        choice["split"] = {"folds": folds}
    rows: list[dict[str, str]] | None = None
    if listing and by_patient and has_parts and _fit(listing, cases, question, by_patient):
        folder = {"table": _place(found, listing), **folder}
        folder |= _columns(question, listing, by_patient, by_part)
        metas = _metas(listing, cases, {name: (name,) for name in METAS}, str.lower)
        if absent := len(listing.table.lines) - len(listing.lines):
            choice["allow_missing"] = True
            notes.warn(f"{absent} of {len(listing.table.lines)} rows of the table name a file that is not here")
    else:
        metas = _metas(listing, cases, CALLED, plain)
        rows = [_row(case, question, patient_of, part_of, metas) for case in cases]
        folder |= {"split": "split"} if part_of else {}
        _tell_left_out(found, cases, notes)
    folder["metadata"] = list(metas)
    folder |= _imaging(found, question, notes)
    if doubtful := sum(sign(cell) == -1 for case in cases for cell in question.cells(case).values()):
        choice["uncertain"] = "ignore"
        notes.decide("uncertain", "ignore", f"{doubtful} label(s) are -1: not known; `zeros` would take them as 0")
    bad = doubts.tell_unusable(found, cases, question, choice, notes)
    doubts.tell_images(found, notes)
    sound = [case for case in cases if case.image not in bad]
    doubts.tell_counts(question, sound, patient_of, part_of, bool(folds), notes)
    return Proposal({**choice, "folder": folder}, rows, notes.decisions, notes.warnings)


def _only(found: Survey, cases: list[Case], notes: Notes) -> Survey:
    """Return the survey without the images that are no case."""
    asked = {case.image for case in cases}
    if found.listing and (unlisted := len(found.forms.keys() - found.listing.paths)):
        notes.warn(f"{unlisted} of {len(found.forms)} images are in no row of the table, and are left out")
    forms = {path: form for path, form in found.forms.items() if path in asked}
    return replace(found, forms=forms, seen=[one for one in found.seen if one.path in asked])


def _with_mask(found: Survey, cases: list[Case], question: Question, notes: Notes) -> list[Case]:
    drawn = [case for case in cases if case.mask]
    if without := len(cases) - len(drawn):
        notes.warn(f"{without} of {len(cases)} images have no mask, and are left out")
    if lone := found.lone_masks:
        notes.warn(f"{len(lone)} mask(s), as {lone[0]}, belong to no image by their names, and are left out")
    absent = [name for label, name in enumerate(question.classes, 1) if label not in found.labels]
    if absent and question.classes[1:]:
        notes.warn(f"{', '.join(absent)}: no mask that was looked at has this label")
    if found.unread_masks:
        n = len(found.masks)
        notes.warn(
            f"{n - found.unread_masks} of {n} masks were looked at: if others hold more labels, add their classes"
        )
    return drawn


def _with_label(_: Survey, cases: list[Case], question: Question, notes: Notes) -> list[Case]:
    """Return the cases of a known class; all where there are several labels, as some of them may be known."""
    blank = {case.image for case in cases if "" in question.cells(case).values()}
    if not blank:
        return cases
    counted = f"{len(blank)} of {len(cases)} images have a blank label or NA ({', '.join(question.columns)})"
    if question.task == "multiclass":
        notes.warn(f"{counted}, and are left out")
        return [case for case in cases if case.image not in blank]
    notes.warn(f"{counted}: taken as not known, never as 0. Where nothing was found, write that: 0, or No Finding")
    return cases


# --- the table --------------------------------------------------------------------------------------------------------


def _fit(listing: Listing, cases: list[Case], question: Question, by_patient: str) -> bool:
    """Say whether the user's table can be read as it is: it names files, labels and patients as the loader wants."""
    if listing.how != EXACT or not question.fit:
        return False
    if len({case.image for case in cases}) != len(listing.lines):  # each image once, each row with its mask
        return False
    return all(listing.table.cells(by_patient))  # the rows of absent images, too


def _place(found: Survey, listing: Listing) -> str:
    path = listing.table.path
    inside = path.is_relative_to(found.root)
    return (path.relative_to(found.root) if inside else path.absolute()).as_posix()


def _columns(question: Question, listing: Listing, patient: str, split: str | None) -> dict[str, Any]:
    key = {"multiclass": "label", "segmentation": "mask"}.get(question.task)
    own = {key: question.columns[0]} if key else {}
    return {"path": listing.column, "patient": patient, **own, "split": split}


def _row(
    case: Case, question: Question, patient_of: dict[str, str], part_of: dict[str, str], metas: dict[str, str]
) -> dict[str, str]:
    row = {"path": case.image, "patient": patient_of[case.image], **question.cells(case)}
    if part_of:
        row["split"] = part_of[case.image]
    return row | {name: case.cell(column) for name, column in metas.items()}


def _metas(
    listing: Listing | None, cases: list[Case], called: dict[str, tuple[str, ...]], read: Callable[[str], str]
) -> dict[str, str]:
    """Return which columns say age, sex and view, as far as they can be read, and of at least one case.

    read: from a column's name to what is called.
    """
    columns = {read(name): name for name in listing.table.columns} if listing else {}
    there = {name: columns[each] for name, names in called.items() for each in names if each in columns}
    found = {}
    for name, column in there.items():
        cells = [cell for case in cases if (cell := case.cell(column))]
        if cells and (name != "age" or all(map(AGE.fullmatch, cells))):
            found[name] = column
    return found


def _tell_listing(found: Survey, listing: Listing | None, notes: Notes) -> None:
    if not listing:
        return
    named, table = f"{len(listing.paths)} images", os.path.relpath(listing.table.path, found.root)
    notes.decide("path", f"column '{listing.column}' of {table}", f"its cells name {named}")
    first = listing.lines[0]
    if not says_who(listing.column) and like_row_numbers(listing.values(listing.column)):
        reason = f"is a number, and {listing.images[first.number][0]} is called so: nothing says that this is meant"
        raise listing.table.error(first, listing.column, reason, "call the column that names the files `path`")
    if rivals := [name for name in listing.rivals if name != listing.mask]:
        notes.warn(
            f"column(s) {', '.join(rivals)} name as many images in another order: '{listing.column}' is taken. Rename "
            "those that are no file names if that is wrong: else labels go to other images"
        )
    for name, more in listing.beside.items():
        notes.warn(
            f"{name} lists {more} other image(s), and is not used: put both into one CSV, with a column `split` if "
            "that is what tells them apart"
        )


def _tell_tables(found: Survey, notes: Notes) -> None:
    """Tell of tables that name no image; where none does, what is asked comes from folders and names alone."""
    if not found.listing:
        for table in found.tables:
            error = not_listed(found, table)
            notes.warn(f"{os.path.relpath(table.path, found.root)} is not used: {error.reason}. {error.remedy}")


def _tell_left_out(found: Survey, cases: list[Case], notes: Notes) -> None:
    listing = found.listing
    if listing:
        if absent := len(listing.table.lines) - len(listing.lines):
            notes.warn(f"{absent} of {len(listing.table.lines)} rows of the table name no image, and are left out")
        why = f"{listing.table.path.name} is not as it is read, so its rows are written anew beside the params"
        notes.decide("table", "a new one", f"{why}: change it there from now on")
    else:
        notes.decide("table", "a new one", "there is none that names the images: it is written beside the params")


# --- how they are fed -------------------------------------------------------------------------------------------------


def _imaging(found: Survey, question: Question, notes: Notes) -> dict[str, Any]:
    size = SEGMENT if question.task == "segmentation" else CLASSIFY
    longest = max((max(one.plane) for one in found.seen if one.header), default=size)
    enough = [side for side in STORED if side >= min(longest, size)]
    stored = min(enough, default=STORED[-1])
    notes.decide("size", f"{size} pixels", "to segment" if question.task == "segmentation" else "to classify")
    notes.decide("stored", f"{stored} pixels", f"the longest side is {longest} pixels, and {size} are used")
    modality = "CT" if found.hounsfield else found.modality  # air in Hounsfield units says so, too
    if modality is None:
        notes.warn("nothing in the files says the modality: write it in the params, it stands in the report")
    intensity, why = _intensity(found, modality)
    notes.decide("intensity", " ".join(str(value) for value in intensity.values()), why)
    return {"modality": modality or "not stated", "size": size, "stored": stored, "intensity": intensity}


def _intensity(found: Survey, modality: str | None) -> tuple[dict[str, Any], str]:
    deep = any(one.header.dtype == np.int16 for one in found.seen if one.header)
    if found.hounsfield and deep:
        window = {"kind": "window", "low": -1024, "high": 600}
        return window, "CT in Hounsfield units: the window of the catalog; narrow it to what you look for"
    if modality == "MRI" or found.volumes:
        percentiles = {"kind": "percentiles", "low": 5, "high": 95, "of": "slice"}
        return percentiles, "grey values have no unit: percentiles of each slice, as the catalog has it for MRI"
    return {"kind": "minmax"}, "films: each image from its own minimum to its own maximum"
