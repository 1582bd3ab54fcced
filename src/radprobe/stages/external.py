"""external: predictions that were made elsewhere become Predictions, checked against the split and the truth."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from radprobe import console
from radprobe.artifacts import Index, LabelMaps, LeakCertificate, Predictions, Split, Truth
from radprobe.datasets import external
from radprobe.datasets.external import Expected, Matched, ScoreTable
from radprobe.files import RadprobeError
from radprobe.imaging.label_files import read_on_grid
from radprobe.jobs import Inputs, Runtime
from radprobe.jobs.external import ExternalJob, ScoreColumns
from radprobe.names import EXTERNAL


def run(job: ExternalJob, inputs: Inputs, runtime: Runtime) -> None:
    """Read Index, Split, its LeakCertificate, Truth and the file of the row; write Predictions of test, and of val.

    Raises RadprobeError where the file does not fit the split or the truth, or changes while it is read.
    """
    path = runtime.predictions
    if path is None:
        raise RadprobeError(job.backbone, "has no file with predictions", "name it in params, under `predictions`")
    LeakCertificate.load(inputs.folder("split"))
    cases = ExpectedCases.load(inputs)
    if job.columns is None:
        predictions, matched = _of_maps(inputs, path, cases)
    else:
        predictions, matched = _of_scores(job.columns, path, cases)
    if external.identity(path) != job.content:
        raise RadprobeError(path, "changed while it was read", "run again")
    expected = cases.expected
    predictions.facts["embedding"] = {}
    predictions.protocol(EXTERNAL).update({**_facts(path, expected, matched), "content": job.content})
    predictions.save(inputs.place)
    counts = ", ".join(f"{len(expected.cases(part))} of {part}" for part in matched.parts)
    console.say(f"{job.dataset} {job.backbone}: {counts} from {path}")
    for line in matched.notes:
        console.say(f"note: {line}")
    if "val" not in matched.parts:
        console.say("note: no predictions for val, so no threshold is chosen")


@dataclass(frozen=True)
class ExpectedCases:
    """The cases of a dataset, its split, and what predictions of the split have to hold."""

    index: Index
    split: Split
    expected: Expected

    @classmethod
    def load(cls, inputs: Inputs) -> Self:
        """Read them."""
        index = Index.load(inputs.folder("prepare"))
        split = Split.load(inputs.folder("split"))
        return cls(index, split, Expected.of(index, split))


def _facts(path: Path, expected: Expected, matched: Matched) -> dict[str, Any]:
    """Return what is known of the predictions; what they cost, and how they were made, is not."""
    counts = {f"n_{part}": len(expected.cases(part)) for part in matched.parts}
    shared = {"external": path.name, "selected_on": "nothing: made elsewhere", "chosen": {}}
    ignored = {kind: len(cases) for kind, cases in matched.ignored.items()}  # the report shows no ids
    return {**shared, **counts, "ignored": ignored}


# --- scores -----------------------------------------------------------------------------------------------------------


def _of_scores(columns: ScoreColumns, path: Path, cases: ExpectedCases) -> tuple[Predictions, Matched]:
    """Return Predictions of a CSV; of logits of which one class is true the log softmax ranks, as for our own rows."""
    classes = cases.split.classes
    scores = external.read_scores(path, columns.classes, columns.other_classes, classes, columns.scale)
    matched = external.match(path, scores.cases, cases.expected)
    softmax = columns.is_exclusive and scores.scale == "logit"
    tables = [_table(cases, scores, part, columns.is_exclusive, softmax) for part in matched.parts]
    facts = {"scale": scores.scale, "exclusive": columns.is_exclusive, "softmax": softmax}
    table = pd.concat(tables, ignore_index=True)
    return Predictions(classes, table, facts={"protocols": {EXTERNAL: facts}}), matched


def _table(cases: ExpectedCases, scores: ScoreTable, part: str, exclusive: bool, softmax: bool) -> pd.DataFrame:
    """Return the scores of a part as rows of Predictions."""
    index = cases.index
    split = cases.split
    names = cases.expected.cases(part)
    values = scores.of(names, split.classes)
    first = index.table["volume_id"].drop_duplicates()
    row_of = dict(zip(first, first.index, strict=True))
    rows = [row_of[case] for case in names]
    targets = split.targets(index, exclusive)[rows]
    ranked = _log_softmax(values) if softmax else values
    table = pd.DataFrame({"protocol": EXTERNAL, "part": part, "sample_id": names})
    table["patient_id"] = index.table["patient_id"].to_numpy()[rows]
    for column, name in enumerate(split.classes):
        table[f"score:{name}"] = ranked[:, column]
        table[f"target:{name}"] = targets[:, column].astype(np.float64)
        if softmax:
            table[f"logit:{name}"] = values[:, column]
    return table


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted: np.ndarray = logits - logits.max(axis=1, keepdims=True)
    total: np.ndarray = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    found: np.ndarray = shifted - total
    return found


# --- label maps -------------------------------------------------------------------------------------------------------


def _of_maps(inputs: Inputs, path: Path, cases: ExpectedCases) -> tuple[Predictions, Matched]:
    """Return Predictions of a folder of label maps, on the grid of the truth."""
    truth = Truth.load(inputs.folder("prepare"))
    expected = cases.expected
    classes = cases.split.classes
    of_case, matched = external.map_folder(path).match(expected)
    affines = cases.index.table.groupby("volume_id", sort=False)["affine"].first()
    total = sum(len(expected.cases(part)) for part in matched.parts)

    def maps() -> Iterator[tuple[str, str, str, np.ndarray, list[float]]]:
        for part in matched.parts:
            for case in expected.cases(part):
                row = truth.maps.table.loc[case]
                labels = read_on_grid(of_case[case], tuple(row["shape"]), affines[case], classes)
                yield case, row["patient_id"], part, labels, truth.maps.spacing(case)

    folder = inputs.place.folder
    LabelMaps.write(folder, EXTERNAL, console.track(maps(), "read label maps", total))
    written = {EXTERNAL: LabelMaps.read(folder, EXTERNAL)}
    return Predictions(classes, maps=written, facts={"protocols": {EXTERNAL: {}}}), matched
