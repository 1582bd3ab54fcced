"""doctor: what of this machine and this study would stop a run, line by line, each with what to do. Nothing is changed.

It takes seconds: of a study of one's own images the table and the headers of volumes are read, else no image, table or
weights file, and torch is asked only where there seems to be a GPU.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from radprobe.checks import Check, data, external, hardware, installation, places, services, weights
from radprobe.console import say, show_states
from radprobe.files import RadprobeError
from radprobe.study import Study


def run(params_file: Path, default: bool, as_json: bool) -> bool:
    """Print every check (or all as JSON); return whether there is no problem. `default`: nobody named the file."""
    study, said = _study(params_file, default)
    checks = [*_of_machine(study), said, *(_of_study(study) if study else ())]
    problems = sum(check.state == "problem" for check in checks)
    if as_json:
        print(json.dumps({"problems": problems, "checks": [asdict(check) for check in checks]}, indent=1))
        return not problems
    show_states([(check.state, check.check, check.found, check.remedy) for check in checks])
    say(f"{problems} problem(s) would stop a run: see above." if problems else "Nothing here would stop a run.")
    return not problems


def _study(params_file: Path, default: bool) -> tuple[Study | None, Check]:
    if default and not params_file.is_file():
        remedy = "go to the folder of your study, or name it: --params FILE"
        return None, Check("params", "note", f"no {params_file} here: only the machine is looked at", remedy)
    try:
        study = Study(params_file)
    except RadprobeError as error:
        return None, _refused(error)
    return study, Check("params", "ok", f"{params_file}: {study.params.study}")


def _refused(error: RadprobeError) -> Check:
    return Check("params", "problem", f"{error.what}: {error.reason}", error.remedy)


def _of_machine(study: Study | None) -> Iterator[Check]:
    yield installation.python()
    yield from installation.packages()
    yield from hardware.gpus(study.params.device if study else "auto")
    yield from hardware.cpu(study)


def _of_study(study: Study) -> Iterator[Check]:
    fail = study.params.on_missing == "fail"
    study = study.as_if_skipping()  # all that is missing is told, not the first
    try:
        yield from data.datasets(study, fail)
        yield from weights.backbones(study, fail)
        yield from external.predictions(study, fail)
        yield from places.folders(study)
    except RadprobeError as error:
        yield _refused(error)
    yield from services.slurm()
    yield services.dvc()
