"""Who is who in somebody's images, and which part each patient is in: by a column, by folders, or nothing says so."""

from collections import defaultdict
from functools import partial

from radprobe.datasets import raw
from radprobe.datasets.csv_table import PARTS
from radprobe.survey import matching
from radprobe.survey.cases import Case, Notes, Question, held
from radprobe.survey.headers import NOBODY, like_patients, of_patient, patient_column, split_column, unread_split
from radprobe.survey.matching import Listing
from radprobe.survey.nesting import are_patients, class_folders, part_of, patient_folders
from radprobe.survey.survey import Survey

VAL_OF_TRAIN = 5  # one of so many train patients is val where a given split has no val
FOLDS, FEW = 5, 300  # folds that are proposed under so many patients


def of_images(found: Survey, cases: list[Case], question: Question, notes: Notes) -> tuple[dict[str, str], str | None]:
    """Return the patient of each image, and the column that says so; None where none does."""
    listing = found.listing
    if listing and (column := patient_column(listing)):
        notes.decide("patient", f"column '{column}'", "by its name; no patient is in two parts")
        if nobody := next((case.line for case in cases if case.cell(column).casefold() in {"", *NOBODY}), None):
            remedy = "write an id for each patient: it keeps a patient's images in one part"
            told = nobody.cells[column]
            raise listing.table.error(nobody, column, f"is '{told}': no patient" if told else "is empty, or NA", remedy)
        if like := like_patients(listing):
            notes.warn(
                f"column '{column}' has another patient in each row, and {', '.join(like)} has not: if that says who "
                "is who, call it `patient`. Else patients may leak from train to test"
            )
        return {case.image: case.cell(column) for case in cases}, column
    if listing and listing.how == matching.FOLDER:
        notes.decide("patient", f"column '{listing.column}'", "each row names a folder, taken as a patient")
        if not of_patient(listing.column):
            notes.warn(
                f"each folder that '{listing.column}' names is taken as a patient of its own. If some are of one "
                "patient, they leak from train to test, and every score is too high: add a column `patient`"
            )
        return {case.image: case.cell(listing.column) for case in cases}, None
    if folder_of := patient_folders(cases):
        shown = " and ".join(sorted(set(folder_of.values()), key=raw.natural)[:2])
        notes.decide("patient", "the folder", f"folders that differ only by a number ({shown}) are taken as patients")
        return folder_of, None
    inner = class_folders(cases)
    if not listing and not found.masks and _patients_in_classes(inner):
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


def _patients_in_classes(folders_of: dict[str, tuple[str, ...]]) -> bool:
    """Say whether the folders in those of classes are patients: no kinds (AP, lateral) that several classes have."""
    classes_of: dict[str, set[str]] = defaultdict(set)
    for folders in folders_of.values():
        classes_of["".join(folders[1:2])].add("".join(folders[:1]))
    kinds = sum(len(classes) > 1 and not any(map(str.isdigit, name)) for name, classes in classes_of.items())
    return are_patients({*classes_of}) and 2 * kinds <= len(classes_of)


def parts(
    listing: Listing | None, cases: list[Case], patient_of: dict[str, str], question: Question, notes: Notes
) -> tuple[dict[str, str], str | None]:
    """Return the part of each image where a split is given ({}: we split), and the column that has it as it is."""
    ours = partial(_ours, patients=len({*patient_of.values()}), folds=folds(cases, patient_of, question), notes=notes)
    column = split_column(listing) if listing else None
    if column:
        given = {case.image: PARTS[case.cell(column).lower()] for case in cases}
        where = f"column '{column}'"
    else:
        given, where = _parts_of_folders(cases), "the folders train, val, test"
    if not given and listing and (unread := unread_split(listing)):
        name, line = unread
        notes.warn(
            f"column '{name}' is not used as the split: '{line.cells[name]}' in line {line.number} is none of "
            f"{', '.join(sorted(PARTS))}. If it says the split, write these words and call init again"
        )
        return ours(f"column '{name}' cannot be used")
    if not given:
        return ours("there is no split column")
    parts_of: dict[str, set[str]] = defaultdict(set)
    for image, part in given.items():
        parts_of[patient_of[image]].add(part)
    if shared := sorted(patient for patient, several in parts_of.items() if len(several) > 1):
        notes.warn(f"{where} puts {len(shared)} patient(s) into two parts, as {shared[0]}: it leaks, and is not used")
        return ours(f"{where} puts patients into two parts")
    here = set(given.values())
    if not {"train", "test"} <= here:
        notes.warn(f"{where}: there is only {' and '.join(sorted(here))}, so it is not used")
        return ours(f"{where} has no train and test")
    if "val" in here:
        notes.decide("split", where, "it gives train, val and test, and puts no patient into two")
        return given, column
    train = [case for case in cases if given[case.image] == "train"]
    val = _val_of(train, patient_of, question)
    n_train = len({patient_of[case.image] for case in train})
    why = f"test stays as given; there is no val: {len(val)} of {n_train} train patients become it"
    notes.decide("split", where, why)
    return {image: "val" if patient_of[image] in val else part for image, part in given.items()}, None


def _val_of(train: list[Case], patient_of: dict[str, str], question: Question) -> set[str]:
    """Return one of five patients, evenly spaced among those of the same labels, at least one of each that has two.

    Where no two are alike, of all of them; the first is left to train.
    """
    labels: dict[str, set[str]] = defaultdict(set)
    for case in train:
        labels[patient_of[case.image]].update(held(question, case))
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for patient in sorted(labels, key=raw.natural):
        alike[tuple(sorted(labels[patient]))].append(patient)
    several = [group for group in alike.values() if len(group) > 1]
    alone = [patient for group in alike.values() if len(group) == 1 for patient in group]
    return {patient for group in several or [alone[1:]] for patient in group[::VAL_OF_TRAIN]}


def _ours(why: str, patients: int, folds: int | None, notes: Notes) -> tuple[dict[str, str], None]:
    how = "seeded, stratified by label"
    if folds:
        few = f"{patients} patients are fewer than {FEW}, so each is to be tested once"
        notes.decide("split", f"cross-validation in {folds} folds, by patient", f"{why}, and {few}; {how}")
    else:
        notes.decide("split", "by patient: 50 % train, 20 % val, 30 % test", f"{why}; {how}")
    return {}, None


def folds(cases: list[Case], patient_of: dict[str, str], question: Question) -> int | None:
    """Return in how many folds few patients should be cross-validated where no split is given.

    None for many patients, and where a class has too few patients with it, or without it, for one in each fold.
    """
    having: dict[str, set[str]] = {name: set() for name in question.classes}
    for case in cases:
        for name in held(question, case):
            having[name].add(patient_of[case.image])
    patients = len({patient_of[case.image] for case in cases})
    counts = [patients]
    if question.task != "segmentation":
        counts += [count for who in having.values() for count in (len(who), patients - len(who))]
    return FOLDS if patients < FEW and min(counts) >= FOLDS else None


def _parts_of_folders(cases: list[Case]) -> dict[str, str]:
    """Return the part of each image where one of the folders around each is called by it."""
    found = {case.image: next(filter(None, map(part_of, case.folders)), None) for case in cases}
    return {image: part for image, part in found.items() if part} if all(found.values()) else {}
