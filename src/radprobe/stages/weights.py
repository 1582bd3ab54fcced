"""weights: find, fetch or convert the weights of a backbone, and verify them."""

import json
from pathlib import Path

from radprobe import files
from radprobe.artifacts import Weights
from radprobe.console import say
from radprobe.files import RadprobeError
from radprobe.jobs import Inputs, Runtime
from radprobe.jobs.weights import AdapterFacts, WeightsJob


def run(job: WeightsJob, inputs: Inputs, runtime: Runtime) -> None:
    """Write Weights. Raises RadprobeError if there are none, or other ones than those known or first used."""
    from radprobe.models.weights import obtain  # it needs torch and timm: a subcommand's help does not

    folder = inputs.place.folder
    if job.adapter and runtime.weights_file:
        found = _merged(job, job.adapter, inputs, runtime.weights_file)
    else:
        seed = job.seed or 0
        found = obtain(job.backbone, job.entry, runtime.weights_file, folder, runtime.remedy, seed, runtime.may_fetch)
        say(f"{job.backbone}: {found.source}" + (f", sha256 {found.sha256}" if found.sha256 else ""))
        if found.file and not found.facts["sha256_known"]:
            _as_at_first_use(found, folder.parent / "first-use.json")
    found.facts["identity"] = job.identity
    found.save(inputs.place)


def _merged(job: WeightsJob, adapter: AdapterFacts, inputs: Inputs, file: Path) -> Weights:
    from radprobe.models.adapters import merged

    known = files.sha256(file)
    if job.entry.sha256 not in (None, known):
        reason = f"sha256 is {known}, not the known {job.entry.sha256}"
        raise RadprobeError(file, reason, "get it again, or correct params")
    found = merged(adapter.base, Weights.load(inputs.folder("weights")), file, adapter.facts, inputs.place.folder)
    found.facts |= {"derived": job.entry.derived, "sha256_known": job.entry.sha256 is not None}
    return found


def _as_at_first_use(found: Weights, record: Path) -> None:
    """Compare weights without a known hash with those of their first use, or record these as the first."""
    if not record.is_file():
        files.write_json(record, {"sha256": found.sha256, "source": found.source})
        return
    first = json.loads(record.read_text(encoding="utf-8"))["sha256"]
    if found.sha256 != first:
        reason = f"sha256 is {found.sha256}, but it was {first} when first used: other weights under the same name"
        raise RadprobeError(
            str(found.file), reason, f"put the first file back, or accept this one by removing {record}"
        )
