"""prepare: verify all samples cheaply, then decode each file once and pack it as Index, Truth and Pixels."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from radprobe import files
from radprobe.artifacts import Index, Pixels, RawManifest, Truth
from radprobe.artifacts.label_maps import LabelCase
from radprobe.console import say, track
from radprobe.datasets import decoding, verification
from radprobe.datasets.decoding import Bad, Decoded, Picture, RowWriter
from radprobe.datasets.raw_files import RawFiles
from radprobe.datasets.verification import DecodingFindings
from radprobe.files import RadprobeError
from radprobe.jobs import Inputs, Runtime
from radprobe.jobs.prepare import PrepareJob
from radprobe.manifests import Place
from radprobe.splitting import splits

Good = TypeVar("Good")


@dataclass
class Preparation:
    """A job in progress: the raw files that it decodes, and what is found on the way."""

    job: PrepareJob
    threads: int
    raw: RawFiles
    findings: DecodingFindings

    def usable(self, results: Iterable[Good | Bad]) -> Iterator[Good]:
        """Yield what is not Bad; raise RadprobeError at the first Bad beyond `max_quarantine`."""
        for result in results:
            if isinstance(result, Bad):
                self.findings.bad.append(result)
                decoding.refuse(self.findings.bad, self.job.max_quarantine)
            else:
                yield result


def run(job: PrepareJob, inputs: Inputs, runtime: Runtime) -> None:
    """Write Index, Truth (segmentation) and Pixels, their manifests in this order.

    Raises RadprobeError, before anything is decoded, if the study's split cannot be made of the samples, if a raw file
    changed since it was retrieved, or if more than `max_quarantine` files have no sound header; and later if a raw file
    changes while it is decoded.
    """
    source = inputs.folder("retrieve")
    raw = RawFiles(RawManifest.load(source), source / "raw.json", runtime.raw)
    index = Index.load(source)
    if job.limit:
        index = splits.limited(index, job.limit.patients, job.limit.lists)
    check_split = runtime.check_split or (lambda index: None)
    check_split(index)
    findings = DecodingFindings()
    preparation = Preparation(job, runtime.threads, raw, findings)
    sound = _check_files(preparation, decoding.pictures(index, raw.root))
    if findings.bad:
        check_split(_without(index, findings.bad))
    dtype = np.uint8 if all(dtype == np.uint8 for _, dtype in sound) else np.int16
    pixels = _pack(preparation, [picture for picture, _ in sound], dtype, inputs.place)
    index = _without(index, findings.bad)
    index.facts["quarantine"] = [decoding.described(bad, raw.root) for bad in findings.bad]
    pixels.facts = verification.report(index, findings, job.stored, job.published)
    for line in pixels.facts["warnings"]:
        say(f"warning: {line}")
    index.save(inputs.place)
    pixels.save(inputs.place)


def _check_files(preparation: Preparation, pictures: list[Picture]) -> list[tuple[Picture, type]]:
    """Return the pictures whose headers are sound, with the dtype of their pixels."""
    preparation.raw.check_sizes(pictures)
    checked = files.stream_in_threads(decoding.check, pictures, preparation.threads)
    return list(preparation.usable(track(checked, "check headers", len(pictures))))


def _without(index: Index, bad: list[Bad]) -> Index:
    gone = {name for one in bad for name in one.names}
    return Index(index.table[~index.table["sample_id"].isin(gone)].reset_index(drop=True), dict(index.facts))


def _pack(preparation: Preparation, pictures: list[Picture], dtype: type, place: Place) -> Pixels:
    """Stream images, masks and Truth to disk in one pass, in the order of the Index."""
    job, folder = preparation.job, place.folder
    square, segmentation = (job.stored, job.stored), job.entry.task == "segmentation"
    with ExitStack() as stack:

        def writer(name: str, dtype: type) -> RowWriter:
            return stack.enter_context(RowWriter(stack.enter_context(files.atomic(folder / name)), square, dtype))

        images = writer("images.npy", dtype)
        masks = writer("masks.npy", np.uint8) if segmentation else None

        def cases() -> Iterator[LabelCase]:
            for decoded in _decode(preparation, pictures):
                for image in decoded.images:
                    images.append(image)
                if masks is None:
                    continue
                if decoded.labels is None:
                    raise RadprobeError(decoded.picture.image, "has no mask", "give it one, or leave it out")
                for mask in decoded.masks:
                    masks.append(mask)
                first = decoded.picture.rows[0]
                yield first.volume_id, first.patient_id, "", decoded.labels, first.spacing

        Truth.write(place, cases(), job.entry.classes)
    if not preparation.findings.shapes:
        decoding.refuse(preparation.findings.bad, 0)
    mapped = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "masks")[: 1 + segmentation]]
    return Pixels(mapped[0], mapped[1] if segmentation else None, np.array(preparation.findings.shapes, np.int32))


def _decode(preparation: Preparation, pictures: list[Picture]) -> Iterator[Decoded]:
    # a volume is large: no more of them are held than threads work on
    ahead = 1 if any(len(picture.rows) > 1 for picture in pictures) else 2
    job = preparation.job

    def decode(picture: Picture) -> Decoded | Bad:
        decoded = decoding.decode(picture, job.entry, job.stored)
        preparation.raw.check_content(picture)
        return decoded

    stream = files.stream_in_threads(decode, pictures, preparation.threads, ahead)
    for decoded in preparation.usable(track(stream, "decode", len(pictures))):
        first = decoded.picture.rows[0]
        name = first.sample_id if len(decoded.picture.rows) == 1 else first.volume_id
        preparation.findings.oddities += [(kind, name, pixels) for kind, pixels in decoded.oddities.items()]
        preparation.findings.shapes += decoded.shapes
        yield decoded
