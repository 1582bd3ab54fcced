"""The rows of a study whose predictions were made elsewhere: are their files there, and do they fit the split."""

from collections.abc import Iterator

from radprobe.checks import Check
from radprobe.files import RadprobeError
from radprobe.study import Study


def predictions(study: Study, fail: bool) -> Iterator[Check]:
    """Check the file of every row from elsewhere; `fail`: one that is missing stops a run."""
    for one in (one for one in study.missing if one.kind == "predictions"):
        then = "stops a run (on_missing: fail)" if fail else "left out"
        yield Check(f"predictions: {one.name}", "problem" if fail else "note", f"{one.why}: {then}", one.remedy)
    for row in study.external_here:
        yield from _readable(study, row)


def _readable(study: Study, row: str) -> Iterator[Check]:
    what = f"predictions: {row}"
    try:
        notes = study.check_predictions(row)
    except RadprobeError as error:
        yield Check(what, "problem", f"{error.what}: {error.reason}", error.remedy)
        return
    split = study.steps.get(("split", study.external[row], None))
    is_split = split is not None and split.done
    compared = "its cases fit the split" if is_split else "its cases are compared with the split once there is one"
    yield Check(what, "ok", f"{study.predictions_file(row)}: {compared}")
    yield from (Check(what, "note", line) for line in notes)
