"""split: give every sample its part, and certify that the parts share no patient, study, volume or picture."""

from pathlib import Path
from typing import Any

import pandas as pd

from radprobe import files
from radprobe.artifacts import Index, LeakCertificate, Pixels, Split
from radprobe.console import say
from radprobe.files import RadprobeError
from radprobe.jobs import Inputs, Runtime
from radprobe.jobs.split import SplitJob
from radprobe.learning.device import threads
from radprobe.splitting import leaks, splits

SHOWN = 3  # near-duplicates that are named on the console; the certificate has them all
SHARED = {
    "patient": "show the same patient",
    "study": "are of the same study",
    "volume": "are slices of the same volume",
    "pixels": "have the same pixels, under two names",
}
REFUSED = "overlaps.csv"


def run(job: SplitJob, inputs: Inputs, runtime: Runtime) -> None:
    """Write Split and LeakCertificate; warn about near-duplicates.

    Raises RadprobeError on an empty part, or on anything shared between parts for which params give no exception; then
    overlaps.csv in the step's folder lists all of it.
    """
    source, place = inputs.folder("prepare"), inputs.place
    index, pixels = Index.load(source), Pixels.load(source)
    split = splits.make_split(index, job.recipe, job.name, job.seed)
    splits.check_parts(split, index, job.others, job.own)
    split.facts["published"] = splits.against_published(split, index, job.published)
    with threads(runtime.threads):
        certificate = leaks.compare(index, split, pixels.images, [each.model_dump() for each in job.leaks_allowed])
    _refuse(job.dataset, certificate, place.folder / REFUSED, split.group_names)
    split.save(place)
    certificate.save(place)
    sizes = ", ".join(f"{split.facts['parts'][part]['samples']} {part}" for part in split.facts["parts"])
    shared = f"{len(certificate.excepted)} known overlap(s) excepted" if certificate.excepted else "nothing is shared"
    between = "folds" if split.is_folded else "parts"
    say(f"{job.dataset}, split '{job.name}': {sizes}; {shared} between {between}")
    for warning in _warnings(certificate):
        say(f"warning: {warning}")
    if split.facts["published"]["equal"] is False:
        say(f"warning: the published sizes are {split.facts['published']['parts']}")
    if split.facts["left_out"]:
        say(f"left out, too few positive or negative patients: {', '.join(split.facts['left_out'])}")


def write_listing(prepared: Path, parted: Path, path: Path) -> None:
    """Write a split that is made as a small CSV: patient, case, split (or fold)."""
    splits.write_listing(Split.load(parted), Index.load(prepared), path)
    say(f"written: {path}")


def _refuse(dataset: str, certificate: LeakCertificate, listing: Path, parts: list[str]) -> None:
    """Raise RadprobeError that names the first two samples that share something across parts; list all in a CSV."""
    listing.unlink(missing_ok=True)
    if not certificate.overlaps:
        return
    columns = ("kind", "what", "samples", "parts")
    table = pd.DataFrame([{key: overlap[key] for key in columns} for overlap in certificate.overlaps])
    with files.atomic(listing) as temporary:
        table.explode(["samples", "parts"]).to_csv(temporary, index=False)
    first = certificate.overlaps[0]
    part_of = dict(zip(reversed(first["parts"]), reversed(first["samples"]), strict=True))  # the first one of each part
    pairs = [f"{part_of[part]} ({part})" for part in parts if part in part_of]
    kinds = pd.Series([overlap["kind"] for overlap in certificate.overlaps]).value_counts(sort=False)
    counts = ", ".join(f"{kind}: {count}" for kind, count in kinds.items())
    raise RadprobeError(
        f"{dataset}: {' and '.join(pairs)}",
        f"{_shared(first)}: a model would be tested on what it was trained on (all such: {counts}; see {listing})",
        f"remove one of the two from the raw copy (then datasets.{dataset}.allow_missing: true), or, if they may be "
        f"shared, name all samples of the overlap with a reason in datasets.{dataset}.leaks_allowed",
    )


def _shared(overlap: dict[str, Any]) -> str:
    pictures = overlap.get("pictures", 1)
    if pictures == 1:
        return SHARED[overlap["kind"]]
    return f"have the same pixels, as {'all' if overlap['whole'] else 'some'} slices of their cases ({pictures})"


def _warnings(certificate: LeakCertificate) -> list[str]:
    lines = [
        f"leaks_allowed names {', '.join(unused['samples'])}, which share nothing across parts: remove it from params"
        for unused in certificate.unused
    ]
    if not certificate.near:
        return lines
    lines.append(
        f"{len(certificate.near)} pair(s) in different parts look like copies of each other, with "
        f"{len(certificate.near_test_samples)} test sample(s): the report shows them, and the score without them"
    )
    for near in certificate.near[:SHOWN]:
        pair = " and ".join(f"{name} ({part})" for name, part in zip(near["samples"], near["parts"], strict=True))
        slices = f", {near['pairs']} slices alike" if near["pairs"] > 1 else ""
        lines.append(f"  {pair}: correlation {near['correlation']:.3f}, {near['change']}{slices}")
    return lines
