"""What can be asked of somebody's images, by their masks, the columns of their table or the folders around them."""

import os
from collections import Counter

from radprobe.datasets import raw
from radprobe.datasets.csv_table import Table
from radprobe.files import RadprobeError
from radprobe.survey import matching
from radprobe.survey.cases import MAX_CLASSES, Case, Notes, Question
from radprobe.survey.columns import near_labels, odd_classes, of_table, surely
from radprobe.survey.nesting import class_folders, numbered_folders, of_folders, same_inside
from radprobe.survey.survey import SPREADSHEETS, Survey

LABEL_MAPS = "write one label map an image: 0 background, 1 the first class, 2 the second ..."


def question_of(found: Survey, cases: list[Case], task: str | None, notes: Notes) -> Question:
    """Return the question to ask, the user's task or the likeliest. Raises RadprobeError where there is none."""
    masks = _of_masks(found) if task in (None, "segmentation") else []
    questions = [*masks, *(of_table(found.listing) if found.listing else of_folders(cases))]
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
    if not found.listing and chosen.task != "segmentation" and (inside := same_inside(cases)):
        both = ", ".join(chosen.classes[:2])
        notes.warn(f"the folders {both} ... have the same folders in them: {', '.join(inside)}. Are these the classes?")
    if found.listing and chosen.task != "segmentation":
        for doubt in odd_classes(chosen.classes):
            notes.warn(doubt)
        near = [] if any(map(surely, chosen.columns)) else near_labels(found.listing)
        if near:
            notes.warn(f"not used as labels: column {'; '.join(near)}")
    return chosen


def _nothing_asked(found: Survey, cases: list[Case], questions: list[Question], task: str | None) -> RadprobeError:
    if task and questions:
        able = ", ".join(dict.fromkeys(one.task for one in questions))
        return RadprobeError(found.root, f"nothing in it says that the task is {task}", f"it allows: {able}")
    n = len(found.forms)
    put = "put a CSV with the columns path, patient and your labels into the folder, or name one: --table FILE"
    if found.tables and not found.listing:
        return not_listed(found, found.tables[0])
    if found.listing:
        columns = found.listing.table.columns
        reason = f"has no column of labels among {', '.join(dict.fromkeys(columns))}"
        if nearly := near_labels(found.listing):
            reason += f". Column {nearly[0]}"
        if "" in columns:
            reason += "; its first line is read as the header"
        if twice := [name for name, times in Counter(columns).items() if name and times > 1]:
            reason += f"; {', '.join(twice)} is there twice"
        remedy = "add a column of 0 and 1, or of class names: label. If one of these is the label, call it so"
        return RadprobeError(found.listing.table.path, reason, remedy)
    reason = f"holds {n} image(s), but no table, masks or folders of classes say what is asked of them"
    if numbered := sorted(numbered_folders(cases), key=raw.natural):
        reason += f"; folders that differ only by a number, as {' and '.join(numbered[:2])}, are no classes"
        put += "; if the folders are classes, name them so: class 0, class 1"
    beside = [image for image, folders in class_folders(cases).items() if not folders]
    if beside and 2 * len(beside) < n:
        reason += f"; {len(beside)} image(s), as {beside[0]}, lie beside the folders of the others"
        put = f"put these into a folder too, or elsewhere; else {put}"
    if others := [suffix for suffix in (*SPREADSHEETS, ".txt") if found.others[suffix]]:
        reason += f"; {' and '.join(others)} files are not read"
        put = f"if your table is one of the {' or '.join(others)} files, save it as CSV; else {put}"
    if found.lone_masks and len(found.lone_masks) < n:
        reason += f"; {len(found.lone_masks)} masks, as {found.lone_masks[0]}, have the name of no image"
        put += "; or call each mask as its image: a.png and a_mask.png, images/a.png and masks/a.png"
    return RadprobeError(found.root, reason, put)


def not_listed(found: Survey, table: Table) -> RadprobeError:
    """Return why a table names no images, as an error."""
    n, image = len(found.forms), next(iter(found.forms))
    if clash := matching.ambiguous(found.root, table, found.forms):
        line, column, paths = clash
        reason = f"'{line.cells[column]}' is the name of {len(paths)} images: {', '.join(paths[:2])}"
        return table.error(line, column, reason, "write their paths, with the folders")
    reason = f"no column of it ({', '.join(table.columns)}) names the {n} image(s), as {image}"
    remedy = "write the paths of the images into a column `path`"
    if len(table.columns) == 1:
        remedy = f"separate its columns by a comma, and {remedy}"
    first = [cell for line in table.lines[:1] for cell in line.cells.values() if cell]
    if found.volumes and any(os.path.isfile(found.root / cell) for cell in first):  # noqa: PTH113 - is_file raises on long cells
        remedy = "it names files of series: write the folder of each series into a column `path`"
    return RadprobeError(table.path, reason, remedy)


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
        bad = next(iter(found.bad_masks.values()), None)
        raise bad or RadprobeError(found.root, "all masks that were looked at are empty", LABEL_MAPS)
    n = 1 if len(values) == 1 else values[-1]  # one class may be drawn as 255
    if n > MAX_CLASSES:
        reason = f"masks hold the labels {', '.join(map(str, values[:10]))} ...: grey values, or no label maps"
        raise RadprobeError(found.root, reason, LABEL_MAPS)
    classes = [found.names.get(label, "foreground" if n == 1 else f"label {label}") for label in range(1, n + 1)]
    listing = found.listing
    fit = bool(listing and listing.mask and listing.masks_exact)
    columns = (listing.mask,) if listing and listing.mask else ()
    return [Question("segmentation", classes, why, lambda case: {"mask": case.mask or ""}, fit, columns)]
