"""external: predictions that were made elsewhere become Predictions, checked against the split and the truth."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from radprobe import console
from radprobe.artifacts import Index, LabelMaps, LeakCertificate, Predictions, Split, Truth
from radprobe.datasets import external
from radprobe.datasets.external import Expected, Matched
from radprobe.files import RadprobeError
from radprobe.imaging import reading, volumes
from radprobe.names import EXTERNAL
from radprobe.study import Step, Study

WRITE_AGAIN = "write it again, or copy it again from where it was made"


def run(study: Study, step: Step) -> None:
    """Read Index, Split, its LeakCertificate, Truth and the file of the row; write Predictions of test, and of val.

    Raises RadprobeError where the file does not fit the split or the truth, or changes while it is read.
    """
    source = step.dependency("split").folder
    LeakCertificate.load(source)
    index, split = Index.load(step.dependency("prepare").folder), Split.load(source)
    path = study.predictions_file(step.backbone)
    expected = Expected.of(index, split)
    if step.knobs["task"] == "segmentation":
        predictions, matched = _of_maps(step, path, index, split, expected)
    else:
        predictions, matched = _of_scores(study, step, path, index, split, expected)
    if external.identity(path) != step.knobs["content"]:
        raise RadprobeError(path, "changed while it was read", "run again")
    predictions.facts["embedding"] = {}
    predictions.facts["protocols"][EXTERNAL] |= _facts(path, expected, matched) | {"content": step.knobs["content"]}
    predictions.save(step.place)
    counts = ", ".join(f"{len(expected.cases(part))} of {part}" for part in matched.parts)
    console.say(f"{step.dataset} {step.backbone}: {counts} from {path}")
    for line in matched.notes:
        console.say(f"note: {line}")
    if "val" not in matched.parts:
        console.say("note: no predictions for val, so no threshold is chosen")


def _facts(path: Path, expected: Expected, matched: Matched) -> dict[str, Any]:
    """Return what is known of the predictions; what they cost, and how they were made, is not."""
    counts = {f"n_{part}": len(expected.cases(part)) for part in matched.parts}
    shared = {"external": path.name, "selected_on": "nothing: made elsewhere", "chosen": {}}
    ignored = {kind: len(cases) for kind, cases in matched.ignored.items()}  # the report shows no ids
    return {**shared, **counts, "ignored": ignored}


# --- scores -----------------------------------------------------------------------------------------------------------


def _of_scores(study: Study, step: Step, path: Path, index: Index, split: Split, expected: Expected):
    """Return Predictions of a CSV; of logits of which one class is true the log softmax ranks, as for our own rows."""
    scores = external.read_scores(path, study.dataset(step.dataset), split.classes, step.knobs["scale"])
    matched = external.match(path, scores.cases, expected)
    exclusive = step.knobs["task"] == "multiclass"
    softmax = exclusive and scores.scale == "logit"
    tables = []
    for part in matched.parts:
        cases = expected.cases(part)
        values = scores.of(cases, split.classes)
        tables.append(_table(index, split, cases, part, values, exclusive, softmax))
    facts = {"scale": scores.scale, "exclusive": exclusive, "softmax": softmax}
    table = pd.concat(tables, ignore_index=True)
    return Predictions(split.classes, table, facts={"protocols": {EXTERNAL: facts}}), matched


def _table(
    index: Index, split: Split, cases: list[str], part: str, values: np.ndarray, exclusive: bool, softmax: bool
) -> pd.DataFrame:
    """Return scores [len(cases), classes] as rows of Predictions."""
    first = index.table["volume_id"].drop_duplicates()
    row_of = dict(zip(first, first.index, strict=True))
    rows = [row_of[case] for case in cases]
    targets = split.targets(index, exclusive)[rows]
    ranked = _log_softmax(values) if softmax else values
    table = pd.DataFrame({"protocol": EXTERNAL, "part": part, "sample_id": cases})
    table["patient_id"] = index.table["patient_id"].to_numpy()[rows]
    for column, name in enumerate(split.classes):
        table[f"score:{name}"] = ranked[:, column]
        table[f"target:{name}"] = targets[:, column].astype(np.float64)
        if softmax:
            table[f"logit:{name}"] = values[:, column]
    return table


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


# --- label maps -------------------------------------------------------------------------------------------------------


def _of_maps(step: Step, path: Path, index: Index, split: Split, expected: Expected):
    """Return Predictions of a folder of label maps, on the grid of the truth."""
    truth = Truth.load(step.dependency("prepare").folder)
    of_case, matched = external.map_folder(path).match(expected)
    affines = index.table.groupby("volume_id", sort=False)["affine"].first()
    total = sum(len(expected.cases(part)) for part in matched.parts)

    def cases() -> Iterator[tuple]:
        for part in matched.parts:
            for case in expected.cases(part):
                row = truth.maps.table.loc[case]
                labels = _map(of_case[case], tuple(row["shape"]), affines[case], split.classes)
                yield case, row["patient_id"], part, labels, truth.maps.spacing(case)

    names = LabelMaps.write(step.folder, EXTERNAL, console.track(cases(), "read label maps", total))
    maps = {EXTERNAL: LabelMaps.read(step.folder, Path(names[0]).stem)}
    return Predictions(split.classes, maps=maps, facts={"protocols": {EXTERNAL: {}}}), matched


def _map(path: Path, shape: tuple[int, ...], affine: list[float], classes: list[str]) -> np.ndarray:
    """Return the label map of a file on the grid of the truth [H, W] or [X, Y, Z]; axes of a volume are brought there.

    Raises RadprobeError where it is unreadable, on another grid, or has a label that is no class.
    """
    try:
        labels = reading.read_labels(path)
        if labels.ndim != len(shape):
            found, needed = ("a volume", "an image") if labels.ndim == 3 else ("an image", "a volume")
            remedy = "write PNG for images, and NIfTI for volumes"
            raise RadprobeError(path, f"is {found}, and the truth of its case is {needed}", remedy)
        if labels.ndim == 3:
            own = reading.probe(path).affine
            labels = volumes.same_grid(path, labels, own, shape, np.reshape(affine, (4, 4)))
    except RadprobeError as error:
        remedy = WRITE_AGAIN if "max_quarantine" in error.remedy else error.remedy
        raise RadprobeError(error.what, error.reason, remedy) from None
    if labels.shape != shape:
        found, needed = (" x ".join(map(str, each)) for each in (labels.shape, shape))
        reason = f"is {found} pixels, and the truth of its case {needed} (height x width)"
        raise RadprobeError(path, reason, "write it on the grid of the original image (nearest neighbour)")
    if (most := int(labels.max())) > len(classes):
        known = ", ".join(f"{label} {name}" for label, name in enumerate(classes, 1))
        reason = f"holds label {most}; known are 0 background, {known}"
        raise RadprobeError(path, reason, "number the labels as the classes of the dataset are, from 1")
    return labels
