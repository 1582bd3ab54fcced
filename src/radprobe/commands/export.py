"""export: predictions as files that other programs open, and that `external` reads: label maps, or a CSV of scores."""

import colorsys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from radprobe import console, files
from radprobe.artifacts import Index, Predictions
from radprobe.files import RadprobeError
from radprobe.names import in_files, slug
from radprobe.study import Step, Study


def run(study: Study, step: Step, folder: Path, protocol: str | None = None) -> None:
    """Write the predictions of a step under `folder`, as `external` reads them.

    To classify: <protocol>.csv with sample_id, part, and a column per class. Scores are as the head gives them: logits,
    or probabilities of kNN. To segment: <protocol>/<part>/<case>, and labels.csv; volumes become .nii.gz with the
    affine of their image, films .png whose palette shows each label in a colour of its own: both hold the label
    numbers. Raises RadprobeError where there is no such protocol.
    """
    predictions = Predictions.load(step.folder)
    known = list(predictions.facts["protocols"])
    if protocol and protocol not in known:
        remedy = f"name one of {', '.join(known)}"
        raise RadprobeError(f"{step.command} --protocol {protocol}", "was not made", remedy)
    if predictions.table is not None:
        for name in [protocol] if protocol else known:
            rows = predictions.table[predictions.table["protocol"] == name]
            _write_scores(folder / f"{slug(name)}.csv", rows, predictions.classes)
        console.say(f"{1 if protocol else len(known)} tables in {folder}")
        return
    table = Index.load(step.dependency("prepare").folder).table.groupby("volume_id", sort=False)["affine"].first()
    numbers = range(1, len(predictions.classes) + 1)
    labels = pd.DataFrame({"label": numbers, "class": predictions.classes})
    with files.atomic(folder / "labels.csv") as temporary:
        labels.to_csv(temporary, index=False)
    total = 0
    for name in [protocol] if protocol else known:
        for part, maps in predictions.maps[name].by_part().items():
            for case in console.track(maps, f"{name}, {part}", len(maps)):
                _write(folder / name / part / in_files(case), maps[case], table[case])
            total += len(maps)
    console.say(f"{total} label maps in {folder}")


def _write_scores(path: Path, rows: pd.DataFrame, classes: list[str]) -> None:
    logits = [f"logit:{name}" for name in classes]
    of_softmax = set(logits) <= set(rows) and rows[logits].notna().all(axis=None)
    kind = "logit" if of_softmax else "score"
    columns = {f"{kind}:{name}": name for name in classes}
    with files.atomic(path) as temporary:
        rows[["sample_id", "part", *columns]].rename(columns=columns).to_csv(temporary, index=False)


def _write(path: Path, labels: np.ndarray, affine: list[float]) -> None:
    if labels.ndim == 3:
        import nibabel

        with files.atomic(path.with_name(f"{path.name}.nii.gz")) as temporary:
            image = nibabel.Nifti1Image(labels, np.reshape(affine, (4, 4)))
            temporary.write_bytes(_gzipped(image.to_bytes()))
        return
    picture = Image.fromarray(labels)
    picture.putpalette(_palette())
    with files.atomic(path.with_name(f"{path.name}.png")) as temporary:
        picture.save(temporary, "PNG")


def _gzipped(content: bytes) -> bytes:
    from isal import igzip

    return igzip.compress(content, mtime=0)


def _palette() -> list[int]:
    """Return black, and then colours that lie far from each other: hues by the golden ratio."""
    hues = (label * 0.618034 % 1 for label in range(255))
    return [0, 0, 0] + [round(255 * each) for hue in hues for each in colorsys.hsv_to_rgb(hue, 0.75, 1)]
