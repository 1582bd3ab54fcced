"""retrieved: what raw data and weights of a study are here, for git to keep: `make retrieved` writes it."""

import json

from radprobe.files import RadprobeError
from radprobe.jobs.external import ExternalJob
from radprobe.manifests import Manifest
from radprobe.names import EXTERNAL
from radprobe.params import Params, Paths
from radprobe.study import Study


def found(study: Study) -> str:
    """Return as JSON the SHA-256 of each dataset's list of raw files and of each backbone's weights; null: not here.

    And, by dataset, the content of the predictions that were made elsewhere.
    Raises RadprobeError where dvc.yaml, which asks for it, does not fit the params.
    """
    _check_versioned(study.params)
    raw: dict[str, str | None] = dict.fromkeys(study.params.datasets)
    weights: dict[str, str | None] = {}
    for (verb, dataset, backbone), step in study.steps.items():
        if verb == "retrieve" and dataset and step.done:
            raw[dataset] = Manifest.read(step.outputs[0]).files["raw.parquet"]["sha256"]
        elif verb == "weights" and backbone and step.done:
            weights[backbone] = Manifest.read(step.outputs[0]).facts["sha256"]
    elsewhere: dict[str, dict[str, str | None]] = {name: {} for name in study.params.datasets}
    for row, of in study.external.items():
        made = study.steps.get((EXTERNAL, of, row))
        elsewhere[of][row] = made.job.content if made and isinstance(made.job, ExternalJob) else None
    found = {"datasets": raw, "backbones": weights, "predictions": elsewhere, "identities": study.identities}
    return json.dumps(found, indent=1)


MEND = "list each dataset of the study once, under dvc.push or dvc.keep, and nothing else"


def _check_versioned(params: Params) -> None:
    """Raise RadprobeError where params do not say for each dataset whether it is pushed, or name other folders."""
    listed, known = params.dvc.push + params.dvc.keep if params.dvc else [], list(params.datasets)
    for name in sorted({*listed, *known}):
        if listed.count(name) != known.count(name):
            raise RadprobeError("params: dvc", f"{name} is not once under push or keep, or is no dataset", MEND)
    default = Paths()
    for name in ("root", "work", "results", "reports"):
        if getattr(params.paths, name) != getattr(default, name):
            raise RadprobeError(f"params: paths.{name}", "dvc.yaml names this folder itself", "leave it out")
