"""What the folders around somebody's images are, by their names: parts, classes, patients."""

import re

from radprobe.datasets import raw
from radprobe.datasets.csv_table import PARTS
from radprobe.survey.cases import MAX_CLASSES, Case, Question
from radprobe.survey.columns import LABEL
from radprobe.survey.matching import IMAGE_WORDS, MASK_WORDS, words

# words in the names of numbered folders that are classes, and of those that are neither classes nor patients
GRADES = LABEL | {"stage", "type", "level", "score", "birads", "rads"}
GROUPS = IMAGE_WORDS | {"site", "center", "centre", "hospital", "scanner", "device", "fold", "split", "part", "set"}
GROUPS |= {"batch", "group", "folder", "dir", "study", "visit", "session", "ses", "series", "slice", "slices", "frame"}
GROUPS |= {"view"}
MIN_PATIENTS = 3  # numbered folders of which there are fewer are no patients: a study wants one for each part
PART_WORDS = IMAGE_WORDS | {"set", "data", "dataset", "split"}  # beside the part in the name of a folder: training_set


def of_folders(cases: list[Case]) -> list[Question]:
    """Return the question that folders of classes ask: <class>/<image>, or <part>/<class>/<patient>/<image>."""
    inner = class_folders(cases)
    classes = sorted({folders[0] for folders in inner.values() if folders}, key=raw.natural)
    if (
        any(map(_no_class, classes))
        or _mostly_numbered({*classes})
        or not 2 <= len(classes) <= MAX_CLASSES
        or not all(inner.values())
    ):
        return []
    why = f"the images lie in {len(classes)} folders, taken as classes"
    return [Question("multiclass", classes, why, lambda case: {"label": inner[case.image][0]}, False)]


def _no_class(folder: str) -> bool:
    """Say whether a folder is called as parts, images (imagesTr) or masks are: one of `label 1` may be a class."""
    found = {*words(folder)}
    return bool(part_of(folder) or IMAGE_WORDS & found or (found and found <= MASK_WORDS))


def part_of(folder: str) -> str | None:
    """Return the part that a folder is called by: train, Training Set, 1_test."""
    left = [word for word in words(folder) if word not in PART_WORDS and len(word) > 1 and not word.isdigit()]
    return PARTS.get(left[0]) if len(left) == 1 else None


def class_folders(cases: list[Case]) -> dict[str, tuple[str, ...]]:
    """Return the folders around each image, from that of its class, if there are classes: below parts and patients."""
    folders = _below_parts(cases)
    while all(folders.values()) and _numbered({each[0] for each in folders.values()}):
        folders = {image: each[1:] for image, each in folders.items()}
    return folders


def _below_parts(cases: list[Case]) -> dict[str, tuple[str, ...]]:
    """Return the folders around each image, without those that all images share, and without parts (train ...)."""
    folders = {case.image: case.folders for case in cases}
    while all(folders.values()) and len({each[0] for each in folders.values()}) == 1:
        folders = {image: each[1:] for image, each in folders.items()}
    if all(each and part_of(each[0]) for each in folders.values()):
        folders = {image: each[1:] for image, each in folders.items()}
    return folders


def numbered_folders(cases: list[Case]) -> set[str]:
    """Return the names of the outermost folders below parts where they differ only by a number; else none."""
    inner = _below_parts(cases).values()
    names = {folders[0] for folders in inner if folders}
    return _mostly_numbered(names) or (names if _numbered(names) else set()) if all(inner) else set()


def _mostly_numbered(names: set[str]) -> set[str]:
    """Return most of the names where these, at least as many as patients have to be, differ only by a number."""
    alike: dict[str, set[str]] = {}
    for name in names:
        alike.setdefault(re.sub(r"\d+", "0", name), set()).add(name)
    most = max(alike.values(), key=len, default=set())
    return most if len(most) >= MIN_PATIENTS and 2 * len(most) > len(names) and _numbered(most) else set()


def _numbered(names: set[str]) -> bool:
    """Say whether names are alike but for a number, as P001 and P002, and not called classes, as grade 1."""
    alike = len(names) > 1 and len({re.sub(r"\d+", "0", name) for name in names}) == 1
    return alike and not any(GRADES & {*words(name)} for name in names)


def patient_folders(cases: list[Case]) -> dict[str, str]:
    """Return the folder of each image that is its patient's, the outermost that is numbered; {} if none is."""
    inner = _below_parts(cases)
    for level in zip(*inner.values(), strict=False):  # as many as are around all images
        names = set(level)
        if _numbered(names) and are_patients(names):
            return dict(zip(inner, level, strict=True))
    return {}


def same_inside(cases: list[Case]) -> list[str]:
    """Return the names of folders, without numbers, that all folders of classes have: may these be the classes?"""
    inside: dict[str, set[str]] = {}
    for folders in class_folders(cases).values():
        inside.setdefault(folders[0], set()).add("".join(folders[1:2]))
    names = set.union(*inside.values())
    same = all(each == names for each in inside.values()) and len(names) > 1
    return sorted(names) if same and not any(map(str.isdigit, "".join(names))) and "" not in names else []


def are_patients(names: set[str]) -> bool:
    """Say whether folders may be patients: each image has one (no name is ""), they are enough, and none is a group."""
    return len(names) >= MIN_PATIENTS and "" not in names and not any(GROUPS & {*words(name)} for name in names)
