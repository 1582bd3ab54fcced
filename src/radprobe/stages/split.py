"""split: give every sample its part, and certify that the parts share no patient, volume or picture."""

from radprobe.artifacts import Index, LeakCertificate, Pixels
from radprobe.console import say
from radprobe.datasets import leaks, splits
from radprobe.files import RadprobeError
from radprobe.study import Step, Study


def run(study: Study, step: Step) -> None:
    """Write Split and LeakCertificate. Raises RadprobeError on an empty part or on anything shared between parts."""
    source = step.need("prepare").folder
    index, pixels, entry = Index.load(source), Pixels.load(source), study.dataset(step.dataset)
    name = step.knobs["name"]
    split = splits.make_split(index, entry.splits[name], name, step.knobs["seed"])
    splits.check_parts(split, index, entry)
    split.facts["published"] = splits.against_published(split, index, entry.published)
    certificate = leaks.compare(index, split, pixels.images)
    _refuse(step.dataset, certificate)
    split.save(step.folder, step.spec)
    certificate.save(step.folder, step.spec)
    sizes = ", ".join(f"{split.facts['parts'][part]['samples']} {part}" for part in split.facts["parts"])
    say(f"{step.dataset}, split '{name}': {sizes}; nothing is shared between parts")
    if split.facts["published"]["equal"] is False:
        say(f"warning: the published sizes are {split.facts['published']['parts']}")
    if split.facts["left_out"]:
        say(f"left out, too few positive patients: {', '.join(split.facts['left_out'])}")


def _refuse(dataset: str, certificate: LeakCertificate) -> None:
    """Raise RadprobeError that names the first two samples that share something across parts."""
    if not certificate.overlaps:
        return
    first = certificate.overlaps[0]
    pairs = [f"{sample} ({part})" for sample, part in zip(first["samples"], first["parts"], strict=True)]
    shared = "have the same pixels" if first["kind"] == "pixels" else f"are of the same {first['kind']}"
    raise RadprobeError(
        f"{dataset}: {' and '.join(pairs)}",
        f"{shared}: the parts leak ({len(certificate.overlaps)} such)",
        f"remove one of the two files from the raw copy and set datasets.{dataset}.allow_missing: true",
    )
