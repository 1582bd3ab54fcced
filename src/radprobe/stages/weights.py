"""weights: find (or fetch, or convert) the weights of a backbone, and verify them."""

import json
from pathlib import Path

from radprobe import files
from radprobe.artifacts import Weights
from radprobe.console import say
from radprobe.files import RadprobeError
from radprobe.models.adapters import merged
from radprobe.models.weights import obtain
from radprobe.study import Step, Study


def run(study: Study, step: Step) -> None:
    """Save the Weights of a backbone. Raises RadprobeError if they are not those that are known or were used first."""
    found = _merged(study, step) if study.adapter(step.backbone) else _own(study, step)
    found.facts["identity"] = step.knobs["identity"]
    found.save(step.place)


def _own(study: Study, step: Step) -> Weights:
    """Return the weights of a backbone that has no adapter."""
    name = step.backbone
    seed = step.knobs.get("seed", study.params.seed)  # each random initialisation has its own
    local, folder = study.weights_file(name), study.path("weights")
    found = obtain(name, study.backbone(name), local, step.folder, folder, seed, study.may_fetch)
    say(f"{name}: {found.source}" + (f", sha256 {found.sha256}" if found.sha256 else ""))
    if found.file and not found.facts["sha256_known"]:
        _as_at_first_use(found, step.folder.parent / "first-use.json")
    return found


def _merged(study: Study, step: Step) -> Weights:
    """Return the weights of a backbone with its adapter merged into them."""
    entry = study.backbone(step.backbone)
    facts = study.adapter(step.backbone)
    file = study.weights_file(step.backbone)
    known = files.sha256(file)
    if entry.sha256 not in (None, known):
        raise RadprobeError(file, f"sha256 is {known}, not the known {entry.sha256}", "get it again, or mend params")
    base = Weights.load(step.dependency("weights").folder)
    found = merged(study.backbone(facts["backbone"]), base, file, facts, step.folder)
    found.facts |= {"derived": entry.derived, "sha256_known": entry.sha256 is not None}
    return found


def _as_at_first_use(found: Weights, record: Path) -> None:
    """Record the hash of weights whose hash is not known, or compare it with the one recorded at their first use."""
    if not record.is_file():
        files.write_json(record, {"sha256": found.sha256, "source": found.source})
        return
    first = json.loads(record.read_text(encoding="utf-8"))["sha256"]
    if found.sha256 != first:
        reason = f"sha256 is {found.sha256}, but it was {first} when first used: other weights under the same name"
        raise RadprobeError(found.file, reason, f"put the first file back, or accept this one by removing {record}")
