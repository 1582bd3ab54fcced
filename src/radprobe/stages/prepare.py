"""prepare: verify all samples cheaply, then decode each file once and pack it as Index, Truth and Pixels."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd

from radprobe import files
from radprobe.artifacts import Index, Pixels, RawManifest, Truth
from radprobe.catalog import Dataset
from radprobe.console import say, track
from radprobe.datasets import decoding
from radprobe.datasets.decoding import Bad, Decoded, Picture, RowWriter
from radprobe.files import RadprobeError
from radprobe.manifests import set_aside
from radprobe.splitting import splits
from radprobe.study import Step, Study


@dataclass
class Job:
    """One preparation: what it is told, and the findings that grow as it goes."""

    entry: Dataset
    side: int
    threads: int
    max_quarantine: int
    compare: Callable[[Picture], None]
    bad: list[Bad] = field(default_factory=list)
    oddities: list[tuple[str, str, int]] = field(default_factory=list)  # what looks wrong, sample, pixels
    shapes: list[tuple[int, int]] = field(default_factory=list)

    def usable(self, results: Iterator[Any]) -> Iterator[Any]:
        """Yield what is not Bad; raise RadprobeError at the first Bad beyond `max_quarantine`."""
        for result in results:
            if isinstance(result, Bad):
                self.bad.append(result)
                decoding.refuse(self.bad, self.max_quarantine)
            else:
                yield result


def run(study: Study, step: Step) -> None:
    """Write Index, Truth (segmentation) and Pixels, their manifests in this order.

    Raises RadprobeError, before anything is decoded, where the study's split cannot be made of the samples, where a raw
    file changed since it was retrieved, or where more than `max_quarantine` files have no sound header; and later where
    a raw file changes while it is decoded.
    """
    entry, source = study.dataset(step.dataset), step.dependency("retrieve").folder
    raw, layout, choice = RawManifest.load(source), study.layout(step.dataset), study.params.datasets[step.dataset]
    if layout is None or layout.root.resolve() != raw.root.resolve():
        raise _changed(source / "raw.json", raw.root, "is no longer where the raw files are")
    how = (step.knobs[name] for name in ("allow_missing", "limit", "uncertain"))
    index = splits.checked_samples(entry, layout, *how, choice.split_name, study.params.seed)
    index.facts["slices"] = entry.slices
    compare = _comparison(raw, source / "raw.json")
    job = Job(entry, step.knobs["stored"], study.params.threads, step.knobs["max_quarantine"], compare)
    sound = _check_files(job, decoding.pictures(index, raw.root), raw, source / "raw.json")
    if job.bad:
        splits.check_split(_without(index, job.bad), entry, choice.split_name, study.params.seed)
    dtype = np.uint8 if all(dtype == np.uint8 for _, dtype in sound) else np.int16
    pixels = _pack(job, [picture for picture, _ in sound], dtype, step)
    index = _without(index, job.bad)
    index.facts["quarantine"] = [decoding.described(bad, raw.root) for bad in job.bad]
    pixels.facts = _report(job, index)
    for line in pixels.facts["warnings"]:
        say(f"warning: {line}")
    index.save(step.place)
    pixels.save(step.place)


def _check_files(job: Job, pictures: list[Picture], raw: RawManifest, manifest: Path) -> list[tuple[Picture, type]]:
    """Return the pictures whose headers are sound, with the dtype of their pixels."""
    known = dict(zip(raw.table["path"], raw.table["bytes"], strict=True))
    for path in (path for picture in pictures for path in picture.files):
        if not path.is_file() or known.get(path.relative_to(raw.root).as_posix()) != path.stat().st_size:
            raise _changed(manifest, path, "changed since it was retrieved")
    checked = files.stream_in_threads(decoding.check, pictures, job.threads)
    return list(job.usable(track(checked, "check headers", len(pictures))))


def _comparison(raw: RawManifest, manifest: Path) -> Callable[[Picture], None]:
    """Return what raises RadprobeError where a file of a picture is not the one that was hashed.

    It is asked after the file was decoded, so that a file which changes under this stage is noticed as well.
    """
    known = dict(zip(raw.table["path"], raw.table["sha256"], strict=True))

    def compare(picture: Picture) -> None:
        for path in picture.files:
            if not path.is_file() or files.sha256(path) != known.get(path.relative_to(raw.root).as_posix()):
                raise _changed(manifest, path, "changed since it was retrieved")

    return compare


def _changed(manifest: Path, what: Path, how: str) -> RadprobeError:
    set_aside(manifest)
    reason = f"{how}; the manifest of the raw files is set aside"
    return RadprobeError(what, reason, "run again: the raw files are found and hashed anew")


def _without(index: Index, bad: list[Bad]) -> Index:
    gone = {name for one in bad for name in one.names}
    return Index(index.table[~index.table["sample_id"].isin(gone)].reset_index(drop=True), dict(index.facts))


def _pack(job: Job, pictures: list[Picture], dtype: type, step: Step) -> Pixels:
    """Stream images, masks and Truth to disk in one pass, in the order of the Index."""
    folder, square, segmentation = step.folder, (job.side, job.side), job.entry.task == "segmentation"
    with ExitStack() as stack:

        def writer(name: str, dtype: type) -> RowWriter:
            return stack.enter_context(RowWriter(stack.enter_context(files.atomic(folder / name)), square, dtype))

        images = writer("images.npy", dtype)
        masks = writer("masks.npy", np.uint8) if segmentation else None

        def cases() -> Iterator[tuple]:
            for decoded in _decode(job, pictures):
                for image in decoded.images:
                    images.append(image)
                for mask in decoded.masks:
                    masks.append(mask)
                if segmentation:
                    first = decoded.picture.rows[0]
                    yield first.volume_id, first.patient_id, "", decoded.labels, first.spacing

        Truth.write(step.place, cases(), job.entry.classes)
    if not job.shapes:
        decoding.refuse(job.bad, 0)
    mapped = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "masks")[: 1 + segmentation]]
    return Pixels(mapped[0], mapped[1] if segmentation else None, np.array(job.shapes, np.int32))


def _decode(job: Job, pictures: list[Picture]) -> Iterator[Decoded]:
    # a volume is large: no more of them are held than threads work on
    ahead = 1 if any(len(picture.rows) > 1 for picture in pictures) else 2

    def decode(picture: Picture) -> Decoded | Bad:
        decoded = decoding.decode(picture, job.entry, job.side)
        job.compare(picture)
        return decoded

    stream = files.stream_in_threads(decode, pictures, job.threads, ahead)
    for decoded in job.usable(track(stream, "decode", len(pictures))):
        first = decoded.picture.rows[0]
        name = first.sample_id if len(decoded.picture.rows) == 1 else first.volume_id
        job.oddities += [(kind, name, pixels) for kind, pixels in decoded.oddities.items()]
        job.shapes += decoded.shapes
        yield decoded


def _report(job: Job, index: Index) -> dict[str, Any]:
    """Return the verification report: what was checked, what looks wrong, and the published counts beside ours."""
    table, facts = index.table, index.facts
    counts = {"samples": len(table), "cases": table["volume_id"].nunique(), "patients": table["patient_id"].nunique()}
    # slices are published along the last stored axis: cut otherwise, a volume may have another number of them
    cut_otherwise = facts["slices"] != "paper" and table["affine"].map(len).any()
    compared = set(counts) - ({"samples"} if cut_otherwise else set())
    published = job.entry.published.model_dump(include=compared, exclude_none=True) if job.entry.published else None
    whole = not (facts["partial"] or facts["limit"] or facts["phantom"] or job.bad)
    equal = published.items() <= counts.items() if published and whole else None
    warnings = decoding.warnings(job.oddities)
    if equal is False:
        warnings.append(f"counts {counts} differ from the published {published}")
    warnings += [f"set aside: {bad.file.name}: {bad.why}" for bad in job.bad]
    return {
        "checked": len(table) + sum(len(bad.names) for bad in job.bad),
        "counts": counts,
        "published": published,
        "equals_published": equal,
        "constant": [name for kind, name, _ in job.oddities if kind == decoding.CONSTANT],
        "warnings": warnings,
        "quarantined": facts["quarantine"],
        "stored": job.side,
        "original_sizes": _range(job.shapes),
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
