"""prepare: verify all samples cheaply, then decode each file once and pack it as Index, Truth and Pixels."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd

from radprobe import files
from radprobe.artifacts import Index, Pixels, RawManifest, Truth
from radprobe.console import say, track
from radprobe.datasets import decoding
from radprobe.datasets.decoding import Bad, Decoded, Picture, RowWriter
from radprobe.files import RadprobeError
from radprobe.jobs import Inputs, Runtime
from radprobe.jobs.prepare import PrepareJob
from radprobe.manifests import Place, set_aside
from radprobe.splitting import splits


class RawFiles:
    """The raw files that were hashed, below their root on this machine."""

    def __init__(self, listed: RawManifest, manifest: Path, folder: Path | None):
        self.manifest = manifest
        self.root = folder / listed.facts["inside"] if folder else listed.root
        self.bytes = dict(zip(listed.table["path"], listed.table["bytes"], strict=True))
        self.sha256 = dict(zip(listed.table["path"], listed.table["sha256"], strict=True))

    def check_sizes(self, pictures: list[Picture]) -> None:
        """Raise RadprobeError if a file of the pictures is missing or has another size than when it was hashed."""
        for path in (path for picture in pictures for path in picture.files):
            if not path.is_file() or self.bytes.get(self._name(path)) != path.stat().st_size:
                raise self._changed(path)

    def check_content(self, picture: Picture) -> None:
        """Raise RadprobeError if a file of a picture is not the one that was hashed.

        It is asked after the file was decoded, so that a file which changes under this stage is noticed as well.
        """
        for path in picture.files:
            if not path.is_file() or files.sha256(path) != self.sha256.get(self._name(path)):
                raise self._changed(path)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _changed(self, what: Path) -> RadprobeError:
        set_aside(self.manifest)
        reason = "changed since it was retrieved; the manifest of the raw files is set aside"
        return RadprobeError(what, reason, "run again: the raw files are found and hashed again")


@dataclass
class Preparation:
    """A job in progress: the raw files that it decodes, and the findings that grow as it goes."""

    job: PrepareJob
    threads: int
    raw: RawFiles
    bad: list[Bad] = field(default_factory=list)
    oddities: list[tuple[str, str, int]] = field(default_factory=list)  # what looks wrong, sample, pixels
    shapes: list[tuple[int, int]] = field(default_factory=list)

    def usable(self, results: Iterator[Any]) -> Iterator[Any]:
        """Yield what is not Bad; raise RadprobeError at the first Bad beyond `max_quarantine`."""
        for result in results:
            if isinstance(result, Bad):
                self.bad.append(result)
                decoding.refuse(self.bad, self.job.max_quarantine)
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
    preparation = Preparation(job, runtime.threads, raw)
    sound = _check_files(preparation, decoding.pictures(index, raw.root))
    if preparation.bad:
        check_split(_without(index, preparation.bad))
    dtype = np.uint8 if all(dtype == np.uint8 for _, dtype in sound) else np.int16
    pixels = _pack(preparation, [picture for picture, _ in sound], dtype, inputs.place)
    index = _without(index, preparation.bad)
    index.facts["quarantine"] = [decoding.described(bad, raw.root) for bad in preparation.bad]
    pixels.facts = _report(preparation, index)
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

        def cases() -> Iterator[tuple]:
            for decoded in _decode(preparation, pictures):
                for image in decoded.images:
                    images.append(image)
                for mask in decoded.masks:
                    masks.append(mask)
                if segmentation:
                    first = decoded.picture.rows[0]
                    yield first.volume_id, first.patient_id, "", decoded.labels, first.spacing

        Truth.write(place, cases(), job.entry.classes)
    if not preparation.shapes:
        decoding.refuse(preparation.bad, 0)
    mapped = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "masks")[: 1 + segmentation]]
    return Pixels(mapped[0], mapped[1] if segmentation else None, np.array(preparation.shapes, np.int32))


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
        preparation.oddities += [(kind, name, pixels) for kind, pixels in decoded.oddities.items()]
        preparation.shapes += decoded.shapes
        yield decoded


def _report(preparation: Preparation, index: Index) -> dict[str, Any]:
    """Return the verification report: what was checked, what looks wrong, and the published counts beside ours."""
    table, facts, job = index.table, index.facts, preparation.job
    counts = {"samples": len(table), "cases": table["volume_id"].nunique(), "patients": table["patient_id"].nunique()}
    # slices are published along the last stored axis: cut otherwise, a volume may have another number of them
    cut_otherwise = facts["slices"] != "paper" and table["affine"].map(len).any()
    compared = set(counts) - ({"samples"} if cut_otherwise else set())
    published = job.published.model_dump(include=compared, exclude_none=True) if job.published else None
    whole = not (facts["partial"] or facts["limit"] or facts["phantom"] or preparation.bad)
    equal = published.items() <= counts.items() if published and whole else None
    warnings = decoding.warnings(preparation.oddities)
    if equal is False:
        warnings.append(f"counts {counts} differ from the published {published}")
    warnings += [f"set aside: {bad.file.name}: {bad.why}" for bad in preparation.bad]
    return {
        "checked": len(table) + sum(len(bad.names) for bad in preparation.bad),
        "counts": counts,
        "published": published,
        "equals_published": equal,
        "constant": [name for kind, name, _ in preparation.oddities if kind == decoding.CONSTANT],
        "warnings": warnings,
        "quarantined": facts["quarantine"],
        "stored": job.stored,
        "original_sizes": _range(preparation.shapes),
        **_geometry(table),
    }


def _range(shapes: list[tuple[int, int]]) -> str:
    """Return the smallest to the largest height and width, in pixels."""
    (low_h, low_w), (high_h, high_w) = np.min(shapes, axis=0), np.max(shapes, axis=0)
    return f"{low_h}-{high_h} x {low_w}-{high_w} pixels"


def _orientation(affine: list[float]) -> str:
    return "".join(nibabel.aff2axcodes(np.reshape(affine, (4, 4))))


def _geometry(table: pd.DataFrame) -> dict[str, Any]:
    """Return the orientations and spacings of the volumes, as stored: how many of each, and the range in mm."""
    volumes = table[table["affine"].map(len) > 0].drop_duplicates("volume_id")
    if volumes.empty:
        return {}
    spacing = np.array(volumes["spacing"].tolist())
    low, high = spacing.min(axis=0), spacing.max(axis=0)
    steps = " x ".join(f"{a:.3g}-{b:.3g}" if a != b else f"{a:.3g}" for a, b in zip(low, high, strict=True))
    return {"orientations": dict(Counter(volumes["affine"].map(_orientation))), "spacing": f"{steps} mm"}
