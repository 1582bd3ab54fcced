"""What to ask of somebody's images, and how: decided from a survey of their folder, each decision with its reason."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from radprobe.datasets import matching, raw
from radprobe.datasets.cases import Case, Decision, Notes, Question, cases_of, held
from radprobe.datasets.columns import (
    NOBODY,
    like_patients,
    patient_column,
    plain,
    says_who,
    split_column,
    unread_split,
)
from radprobe.datasets.folder import AGE, METAS, PARTS, sign
from radprobe.datasets.matching import EXACT, Listing
from radprobe.datasets.nesting import are_patients, class_folders, patient_folders
from radprobe.datasets.questions import question_of
from radprobe.datasets.survey import SPREADSHEETS, Seen, Survey
from radprobe.files import RadprobeError

CALLED = {"age": ("age", "patientage"), "sex": ("sex", "gender", "patientsex", "patientgender")}
CALLED["view"] = ("view", "viewposition")
STORED = (128, 256, 448)  # sides in pixels, as the catalog stores its sets
CLASSIFY, SEGMENT = 224, 448  # sides that a backbone gets
FEW, FEW_POSITIVE, TESTED = 10, 10, 0.3  # patients under which no interval is given; share of them in test
VAL_OF_TRAIN = 5  # one of so many train patients is val where a given split has no val
SHOWN = 3  # names in a warning
MANY_BAD = 0.2  # share of images that cannot be used: where it is higher, something is wrong with all
SIZES = 2  # the longest side of one image over that of another: where it is higher, that is told


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
        _bad(found)  # where most images cannot be used, this is what is wrong
        raise
    with_answer = _with_mask if question.task == "segmentation" else _with_label
    cases = with_answer(found, cases, question, notes)
    found = _only(found, cases, notes)
    listing, own = found.listing, _fit(found, cases, question)
    patient_of, by_patient = _patients(found, cases, question, notes)
    part_of, by_part = _parts(listing, cases, patient_of, question, notes)
    own = own and by_patient is not None and (by_part is not None or not part_of)
    own = own and all(listing.table.cells(by_patient))  # the rows of absent images, too
    _tell_listing(found, listing, notes)
    _tell_tables(found, notes)
    folder: dict[str, Any] = {"task": question.task, "classes": question.classes}
    choice: dict[str, Any] = {"folder": folder}
    if own:
        folder = {"table": _place(found, listing), **folder}
        folder |= _columns(question, listing, by_patient, by_part)
        rows, metas = None, _metas(listing, cases, {name: (name,) for name in METAS}, str.lower)
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
    bad = _tell_bad(found, choice, notes)
    _tell_images(found, notes)
    _tell_counts(question, [case for case in cases if case.image not in bad], patient_of, part_of, notes)
    return Proposal({**choice, "folder": folder}, rows, notes.decisions, notes.warnings)


def _only(found: Survey, cases: list[Case], notes: Notes) -> Survey:
    """Return the survey without the images that are no case."""
    asked = {case.image for case in cases}
    if found.listing and (unlisted := sum(path not in found.listed for path in found.forms)):
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


def _fit(found: Survey, cases: list[Case], question: Question) -> bool:
    """Say whether the user's table can be read as it is: it names each file, and its labels, as the loader wants."""
    listing = found.listing
    if not listing or listing.how != EXACT or not question.fit:
        return False
    return len({case.image for case in cases}) == len(listing.lines)  # each image once, each row with its mask


def _place(found: Survey, listing: Listing) -> str:
    path = listing.table.path
    inside = path.is_relative_to(found.root)
    return (path.relative_to(found.root) if inside else path.absolute()).as_posix()


def _columns(question: Question, listing: Listing, patient: str, split: str | None) -> dict[str, Any]:
    key = {"multiclass": "label", "segmentation": "mask"}.get(question.task)
    own = {key: question.columns[0]} if key else {}
    return {"path": listing.column, "patient": patient, **own, "split": split}


def _row(case: Case, question: Question, patient_of: dict, part_of: dict, metas: dict[str, str]) -> dict[str, str]:
    row = {"path": case.image, "patient": patient_of[case.image], **question.cells(case)}
    if part_of:
        row["split"] = part_of[case.image]
    return row | {name: case.line.cells[column] for name, column in metas.items()}


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
        cells = [cell for case in cases if (cell := case.line.cells[column])]
        if cells and (name != "age" or all(map(AGE.fullmatch, cells))):
            found[name] = column
    return found


def _tell_listing(found: Survey, listing: Listing | None, notes: Notes) -> None:
    if not listing:
        return
    named, table = f"{len(listing.paths)} images", os.path.relpath(listing.table.path, found.root)
    notes.decide("path", f"column '{listing.column}' of {table}", f"its cells name {named}")
    first = listing.lines[0]
    if not says_who(listing.column) and all(cell.isdigit() for cell in listing.values(listing.column)):
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
            name = os.path.relpath(table.path, found.root)
            notes.warn(f"{name} is not used: no column of it names the images, as {next(iter(found.forms))}")


def _tell_left_out(found: Survey, cases: list[Case], notes: Notes) -> None:
    listing = found.listing
    if listing:
        if absent := len(listing.table.lines) - len(listing.lines):
            notes.warn(f"{absent} of {len(listing.table.lines)} rows of the table name no image, and are left out")
        why = f"{listing.table.path.name} is not as it is read, so its rows are written anew beside the params"
        notes.decide("table", "a new one", f"{why}: change it there from now on")
    else:
        notes.decide("table", "a new one", "there is none that names the images: it is written beside the params")


# --- patients and parts -----------------------------------------------------------------------------------------------


def _patients(found: Survey, cases: list[Case], question: Question, notes: Notes) -> tuple[dict[str, str], str | None]:
    """Return the patient of each image, and the column that says so; None where none does."""
    listing = found.listing
    if listing and (column := patient_column(listing)):
        notes.decide("patient", f"column '{column}'", "by its name; no patient is in two parts")
        if nobody := next((case.line for case in cases if case.line.cells[column].casefold() in {"", *NOBODY}), None):
            remedy = "write an id for each patient: it keeps a patient's images in one part"
            told = nobody.cells[column]
            raise listing.table.error(nobody, column, f"is '{told}': no patient" if told else "is empty, or NA", remedy)
        if like := like_patients(listing):
            notes.warn(
                f"column '{column}' has another patient in each row, and {', '.join(like)} has not: if that says who "
                "is who, call it `patient`. Else patients may leak from train to test"
            )
        return {case.image: case.line.cells[column] for case in cases}, column
    if listing and listing.how == matching.FOLDER:
        notes.decide("patient", f"column '{listing.column}'", "each row names a folder, taken as a patient")
        return {case.image: case.line.cells[listing.column] for case in cases}, None
    if folder_of := patient_folders(cases):
        shown = " and ".join(sorted(set(folder_of.values()), key=raw.natural)[:2])
        notes.decide("patient", "the folder", f"folders that differ only by a number ({shown}) are taken as patients")
        return folder_of, None
    inner = class_folders(cases)
    if not listing and not found.masks and are_patients({"".join(folders[1:2]) for folders in inner.values()}):
        notes.decide("patient", "the folder below the class", "images in one folder are taken as one patient's")
        return {image: folders[1] for image, folders in inner.items()}, None
    each = "volume" if found.volumes else "image"
    where = f"columns are {', '.join(listing.table.columns)}" if listing else "no table names the images"
    notes.decide("patient", f"each {each} its own", f"nothing says who is who ({where})")
    like = [name for name in like_patients(listing) if name not in question.columns] if listing else []
    name = f"call the right one of {', '.join(like)} `patient`" if like else "add a column `patient`"
    notes.warn(
        f"no patient column: each {each} is taken as a patient of its own. If some patients have several, they leak "
        f"from train to test, and every score is too high: {name}"
    )
    return {case.image: matching.stem(case.image) for case in cases}, None


def _parts(
    listing: Listing | None, cases: list[Case], patient_of: dict[str, str], question: Question, notes: Notes
) -> tuple[dict[str, str], str | None]:
    """Return the part of each image where a split is given ({}: we split), and the column that has it as it is."""
    column = split_column(listing) if listing else None
    if column:
        given = {case.image: PARTS[case.line.cells[column].lower()] for case in cases}
        where = f"column '{column}'"
    else:
        given, where = _parts_of_folders(cases), "the folders train, val, test"
    if not given and listing and (unread := unread_split(listing)):
        name, line = unread
        notes.warn(
            f"column '{name}' is not used as the split: '{line.cells[name]}' in line {line.number} is none of "
            f"{', '.join(sorted(PARTS))}. If it says the split, write these words and call init again"
        )
        return _ours(f"column '{name}' cannot be used", notes)
    if not given:
        return _ours("there is no split column", notes)
    of_patient: dict[str, set[str]] = defaultdict(set)
    for image, part in given.items():
        of_patient[patient_of[image]].add(part)
    if shared := sorted(patient for patient, parts in of_patient.items() if len(parts) > 1):
        notes.warn(f"{where} puts {len(shared)} patient(s) into two parts, as {shared[0]}: it leaks, and is not used")
        return _ours(f"{where} puts patients into two parts", notes)
    here = set(given.values())
    if not {"train", "test"} <= here:
        notes.warn(f"{where}: there is only {' and '.join(sorted(here))}, so it is not used")
        return _ours(f"{where} has no train and test", notes)
    if "val" in here:
        notes.decide("split", where, "it gives train, val and test, and puts no patient into two")
        return given, column
    train = [case for case in cases if given[case.image] == "train"]
    val = _val_of(train, patient_of, question)
    n_train = len({patient_of[case.image] for case in train})
    why = f"test stays as given; there is no val: {len(val)} of {n_train} train patients, of all classes, become it"

    notes.decide("split", where, why)
    return {image: "val" if patient_of[image] in val else part for image, part in given.items()}, None


def _val_of(train: list[Case], patient_of: dict[str, str], question: Question) -> set[str]:
    """Return one of five patients, evenly spaced among those of the same labels, at least one of each that has two."""
    labels: dict[str, set[str]] = defaultdict(set)
    for case in train:
        labels[patient_of[case.image]].update(held(question, case))
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for patient in sorted(labels, key=raw.natural):
        alike[tuple(sorted(labels[patient]))].append(patient)
    several = [group for group in alike.values() if len(group) > 1]
    alone = [patient for group in alike.values() if len(group) == 1 for patient in group]
    return {patient for group in several or [alone] for patient in group[::VAL_OF_TRAIN]}


def _ours(why: str, notes: Notes) -> tuple[dict[str, str], None]:
    notes.decide("split", "by patient: 50 % train, 20 % val, 30 % test", f"{why}; seeded, stratified by label")
    return {}, None


def _parts_of_folders(cases: list[Case]) -> dict[str, str]:
    """Return the part of each image where one of the folders around each is called by it."""
    found = {case.image: next((PARTS[f.lower()] for f in case.folders if f.lower() in PARTS), None) for case in cases}
    return {image: part for image, part in found.items() if part} if all(found.values()) else {}


# --- how they are fed -------------------------------------------------------------------------------------------------


def _imaging(found: Survey, question: Question, notes: Notes) -> dict[str, Any]:
    size = SEGMENT if question.task == "segmentation" else CLASSIFY
    longest = max((max(_plane(one)) for one in found.seen if one.header), default=size)
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


def _plane(one: Seen) -> tuple[int, ...]:
    return one.header.shape[:2]


def _intensity(found: Survey, modality: str | None) -> tuple[dict[str, Any], str]:
    deep = any(one.header.dtype == np.int16 for one in found.seen if one.header)
    if found.hounsfield and deep:
        window = {"kind": "window", "low": -1024, "high": 600}
        return window, "CT in Hounsfield units: the window of the catalog; narrow it to what you look for"
    if modality == "MRI" or found.volumes:
        percentiles = {"kind": "percentiles", "low": 5, "high": 95, "of": "slice"}
        return percentiles, "grey values have no unit: percentiles of each slice, as the catalog has it for MRI"
    return {"kind": "minmax"}, "films: each image from its own minimum to its own maximum"


# --- doubts -----------------------------------------------------------------------------------------------------------


def _tell_bad(found: Survey, choice: dict[str, Any], notes: Notes) -> dict[str, RadprobeError]:
    """Let images that cannot be used be set aside, and return why; see `_bad`."""
    bad = _bad(found)
    if bad:
        n, more = len(found.seen), ""
        choice["max_quarantine"] = -(-len(bad) * len(found.forms) // n)
        if n < len(found.forms):
            more = f" {n} of {len(found.forms)} were looked at: raise it if a run finds more."
        first, named = next(iter(bad.values())), [*bad.values()][:SHOWN]
        shown = "; ".join(f"{Path(error.what).name}: {error.reason}" for error in named)
        text = (
            f"{len(bad)} file(s) cannot be used and will be set aside (max_quarantine): {shown}. {first.remedy}.{more}"
        )
        notes.warn(text)
    return bad


def _bad(found: Survey) -> dict[str, RadprobeError]:
    """Return what is wrong with images, or their masks. Raises RadprobeError, with the first remedy, where many are."""
    bad = {one.path: one.error for one in found.seen if one.error}
    for image, masks in found.masks.items():
        if error := found.bad_masks.get(masks[0]):
            bad.setdefault(image, error)
    if len(bad) > MANY_BAD * len(found.seen):
        first, n = next(iter(bad.values())), len(found.seen)
        raise RadprobeError(first.what, f"{first.reason}; {len(bad)} of {n} images cannot be used", first.remedy)
    return bad


def _tell_images(found: Survey, notes: Notes) -> None:
    sound = [one for one in found.seen if one.header]
    if len(modalities := Counter(one.modality for one in sound if one.modality)) > 1:
        notes.warn(f"several modalities are mixed: {_counted(modalities)}")
    if len(forms := Counter(found.forms.values())) > 1:
        notes.warn(f"several formats are mixed: {_counted(forms)}")
    if len(depths := Counter("8 bits" if one.header.dtype == np.uint8 else "16 bits" for one in sound)) > 1:
        notes.warn(f"several depths are mixed: {_counted(depths)}")
    ratios = [max(_plane(one)) / min(_plane(one)) for one in sound]
    if ratios and max(ratios) > 1.5 * min(ratios):
        notes.warn("images are of several shapes: all are made square, so their contents are stretched differently")
    sides = [max(_plane(one)) for one in sound]
    if sides and max(sides) > SIZES * min(sides):
        notes.warn(
            f"images are of several sizes, {min(sides)} to {max(sides)} pixels: small ones show less detail. Where one "
            "class has mostly small ones, a model may learn that"
        )
    if text := sum(one.text_possible for one in sound):
        notes.warn(f"{text} file(s) may have a name burned into the pixels: look before you share pictures")
    for error in found.unread_tables:
        notes.warn(f"a table cannot be read, and is not used: {error.what}: {error.reason}")
    if tables := sum(found.others[suffix] for suffix in SPREADSHEETS):
        notes.warn(f"{tables} spreadsheet(s) are not read: save them as CSV")
    if packed := sum(found.others[suffix] for suffix in (".zip", ".gz", ".tar", ".tgz", ".rar", ".7z")):
        notes.warn(f"{packed} archive(s) are not unpacked")


def _counted(counts: Counter) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _tell_counts(
    question: Question, cases: list[Case], patient_of: dict[str, str], part_of: dict[str, str], notes: Notes
) -> None:
    n = len({patient_of[case.image] for case in cases})
    tested = len({patient_of[image] for image, part in part_of.items() if part == "test"}) or round(n * TESTED)
    if tested < FEW:
        notes.warn(f"only {n} patients, about {tested} of them in test: under {FEW} no interval can be given")
    if question.task == "segmentation":
        return
    positive: dict[str, set[str]] = {name: set() for name in question.classes}
    for case in cases:
        for name in held(question, case):
            positive[name].add(patient_of[case.image])
    few = [f"{name} ({len(who)})" for name, who in positive.items() if len(who) < FEW_POSITIVE]
    if few:
        notes.warn(f"classes of fewer than {FEW_POSITIVE} patients can hardly be scored: {', '.join(few)}")
