"""What is doubtful in somebody's images: files that cannot be used, mixtures, few patients."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from radprobe.files import RadprobeError
from radprobe.survey.cases import Case, Notes, Question, held
from radprobe.survey.survey import SPREADSHEETS, Survey

FEW, FEW_POSITIVE, TESTED = 10, 10, 0.3  # patients under which no interval is given; share of them in test
SHOWN = 3  # names in a warning
MANY_BAD = 0.2  # share of images that cannot be used: where it is higher, something is wrong with all
SIZES = 2  # the longest side of one image over that of another: where it is higher, that is told


def tell_unusable(
    found: Survey, cases: list[Case], question: Question, choice: dict[str, Any], notes: Notes
) -> dict[str, RadprobeError]:
    """Let images that cannot be used be set aside, and return why. Raises RadprobeError where they are many."""
    bad = unreadable(found)
    if question.task == "segmentation":
        errors = {case.image: found.bad_masks.get(case.mask or "") for case in cases}
        bad = {image: error for image, error in errors.items() if error} | bad
    refuse_many(found, bad)
    if not bad:
        return bad
    n, more = len(found.seen), ""
    choice["max_quarantine"] = -(-len(bad) * len(found.forms) // n)
    if n < len(found.forms):
        more = f" {n} of {len(found.forms)} were looked at: raise it if a run finds more."
    first, named = next(iter(bad.values())), [*bad.values()][:SHOWN]
    shown = "; ".join(f"{Path(error.what).name}: {error.reason}" for error in named)
    notes.warn(
        f"{len(bad)} file(s) cannot be used and will be set aside (max_quarantine): {shown}. {first.remedy}.{more}"
    )
    return bad


def unreadable(found: Survey) -> dict[str, RadprobeError]:
    """Return the images whose header cannot be read, and why."""
    return {one.path: one.error for one in found.seen if one.error}


def refuse_many(found: Survey, bad: dict[str, RadprobeError]) -> None:
    """Raise the first of errors, with its remedy, where many of the images that were looked at have one."""
    if len(bad) > MANY_BAD * len(found.seen):
        first, n = next(iter(bad.values())), len(found.seen)
        remedy = f"{first.remedy}; or list the images that you mean in a CSV"
        raise RadprobeError(first.what, f"{first.reason}; {len(bad)} of {n} images cannot be used", remedy)


def tell_images(found: Survey, notes: Notes) -> None:
    """Tell of images that are unlike others, that may show a name, and of files that are not read."""
    sound = [one for one in found.seen if one.header]
    if len(modalities := Counter(one.modality for one in sound if one.modality)) > 1:
        notes.warn(f"several modalities are mixed: {_counted(modalities)}")
    if len(forms := Counter(found.forms.values())) > 1:
        notes.warn(f"several formats are mixed: {_counted(forms)}")
    types = [one.header.dtype for one in found.seen if one.header]
    if len(depths := Counter("8 bits" if dtype == np.uint8 else "16 bits" for dtype in types)) > 1:
        notes.warn(f"several depths are mixed: {_counted(depths)}")
    ratios = [max(one.plane) / min(one.plane) for one in sound]
    if ratios and max(ratios) > 1.5 * min(ratios):
        notes.warn("images are of several shapes: all are made square, so their contents are stretched differently")
    sides = [max(one.plane) for one in sound]
    if sides and max(sides) > SIZES * min(sides):
        notes.warn(
            f"images are of several sizes, {min(sides)} to {max(sides)} pixels: small ones show less detail. Where one "
            "class has mostly small ones, a model may learn that"
        )
    if text := sum(one.text_possible for one in sound):
        notes.warn(f"{text} file(s) may have a name burned into the pixels: look before you share pictures")
    if found.no_images:
        notes.warn(f"{len(found.no_images)} DICOM file(s) hold no image, as {found.no_images[0]}, and are left out")
    for error in found.unread_tables:
        notes.warn(f"a table cannot be read, and is not used: {error.what}: {error.reason}")
    if tables := sum(found.others[suffix] for suffix in SPREADSHEETS):
        notes.warn(f"{tables} spreadsheet(s) are not read: save them as CSV")
    if packed := sum(found.others[suffix] for suffix in (".zip", ".gz", ".tar", ".tgz", ".rar", ".7z")):
        notes.warn(f"{packed} archive(s) are not unpacked")


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def tell_counts(
    question: Question,
    cases: list[Case],
    patient_of: dict[str, str],
    part_of: dict[str, str],
    is_folded: bool,
    notes: Notes,
) -> None:
    """Tell where patients are too few for an interval, all of them or those of a class."""
    n = len({patient_of[case.image] for case in cases})
    given = {patient_of[image] for image, part in part_of.items() if part == "test"}
    tested = n if is_folded else len(given) or round(n * TESTED)
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
