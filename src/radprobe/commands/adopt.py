"""adopt: take over frozen features that lie under another key, if they are those that the study would compute.

A key changes when the job of a step gets a field, and an old key proves nothing about the content. These four do:

1. The record of each shard holds a digest of the key, the sha256 of images.npy and the sha256 of the weights. It must
   equal the digest for the images and weights that are here, and the records must list the files of the manifest.
2. The facts that follow from the images and the encoder must be equal: counts, size, precision, layers, shapes.
3. Every file must have the sha256 that the manifest lists.
4. A sample of images, encoded again by the present code, must give the features that lie there.

Files get a second name (a hard link) in the folder of the new key; its manifest is written last. Until then the old
folder is the artifact, so a kill loses nothing.
"""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from radprobe import files
from radprobe.artifacts import Embeddings, Index, Pixels, Weights
from radprobe.artifacts.embeddings import Shards
from radprobe.artifacts.tables import read_array
from radprobe.commands import gc
from radprobe.console import say
from radprobe.files import RadprobeError
from radprobe.jobs.embed import EmbedJob
from radprobe.learning import features
from radprobe.learning.device import device
from radprobe.manifests import KEY, Manifest, faults, seal
from radprobe.study import Step, Study

SAMPLE = 16  # images that are encoded again, the first and the last among them
# Largest |new - old| / |old| of the features of one image, by precision. Measured on a CPU with real films and weights
# (a DINOv2-derived ViT-S at 224 and 448 px, EfficientNet-Lite0). Another batch size changes no bit, except 0.0061 in
# bf16 with one image at once; rounding to float16 stays below 0.001. Wrong recipes differ by more: 0.03 without
# antialiasing, 0.016 with positions resized by the other rule, 0.15 with another mean. Another device in bf16 may too:
# features are then refused.
TOLERANCE = {"fp32": 0.001, "bf16": 0.008}
MANIFEST = f"{Embeddings.KIND}.json"


class Refused(Exception):
    """Why features are not adopted."""


class ShardRecord(TypedDict):
    """What `embed` writes beside a shard: a digest of its inputs, seconds, and the sha256 of its files by name."""

    key: str
    seconds: float
    files: dict[str, str]


@dataclass(frozen=True)
class Wanted:
    """What a step would encode: its source, the sha256 of images.npy and that of the weights (None: random)."""

    source: features.Source
    images: str
    weights: str | None

    def store(self, folder: Path, key: str, shard_rows: int) -> features.Store:
        """Return the store of these inputs under a key."""
        return features.Store(folder, shard_rows, [key, self.images, self.weights], max_dense_cache_gb=0)


@dataclass(frozen=True)
class Adoption:
    """A step, and features under another key that equal what it would compute."""

    step: Step
    folder: Path
    manifest: Manifest
    records: dict[str, ShardRecord]  # of each shard, under the key of the step
    images: int  # that were compared
    difference: float  # the largest of them, relative


def run(study: Study, confirmed: Callable[[str], bool], gpu: Callable[[], AbstractContextManager[object]]) -> None:
    """List the features that `embed` steps can adopt, and why others are refused; adopt them if `confirmed` says so.

    `gpu` holds a GPU while images are encoded.
    """
    study = study.as_if_skipping()
    undone = [step for step in study.steps.values() if step.verb == "embed" and not step.done]
    places = [(step, folders) for step in undone if (folders := _candidates(step))]
    found = []
    if places:
        with gpu():
            found = [one for step, folders in places if (one := _choose(study, step, folders))]
    if not found:
        say("there is nothing to adopt")
    elif confirmed(f"Adopt them ({len(found)})?"):
        for one in found:
            _adopt(one)
    else:
        say("nothing was adopted")
    _say_left(study)


def _say_left(study: Study) -> None:
    """Print in one line what is still to be made: cells to embed by name, steps of other verbs by number."""
    left = [step for step in study.steps.values() if not step.done]
    named = [f"`{step.command}`" for step in left if step.verb == "embed"]
    others = Counter(step.verb for step in left if step.verb != "embed")
    named += [f"{count} {verb}" for verb, count in others.items()]
    say(f"still to be made: {', '.join(named)}" if named else "everything is made")


def _candidates(step: Step) -> list[Path]:
    """Return the folders of other keys beside that of a step that encodes images; the newest first."""
    if not isinstance(step.job, EmbedJob) or step.job.encoding is None:
        return []
    manifests = [path for path in step.folder.parent.glob(f"*/{MANIFEST}") if KEY.fullmatch(path.parent.name)]
    manifests.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.parent for path in manifests if path.parent.name != step.key]


def _choose(study: Study, step: Step, folders: list[Path]) -> Adoption | None:
    """Return the first of some folders that the step can adopt; print why those before it are refused."""
    try:
        wanted = _wanted(study, step)
    except (Refused, RadprobeError) as error:
        say(f"{step.command}: {len(folders)} folder(s) of other keys cannot be compared: {error}")
        return None
    for folder in folders:
        try:
            found = _checked(step, wanted, folder)
        except (Refused, RadprobeError) as error:
            say(f"{step.command}: {folder} is refused: {error}")
            continue
        say(f"{step.command}: {folder} can be adopted ({found.images} images differ by {found.difference:.2g} at most)")
        return found
    return None


def _wanted(study: Study, step: Step) -> Wanted:
    """Load what a step would encode. Raises Refused if it is not made yet, RadprobeError if it is damaged."""
    if needs := [f"`radprobe {need.command}`" for need in step.dependencies if not need.done]:
        raise Refused(f"run {' and '.join(needs)} first")
    if not isinstance(step.job, EmbedJob) or step.job.encoding is None:
        raise Refused("it encodes no images")
    prepared = step.dependency("prepare").folder
    weights = Weights.load(step.dependency("weights").folder)
    runtime = study.runtime(step)
    index, pixels, where = Index.load(prepared), Pixels.load(prepared), device(runtime.device)
    images = Manifest.read(prepared / f"{Pixels.KIND}.json").files["images.npy"]["sha256"]
    source = features.source(step.job.encoding, weights, index, pixels, runtime.batch_size, where)
    return Wanted(source, images, weights.sha256)


# --- are they the same ------------------------------------------------------------------------------------------------


def _checked(step: Step, wanted: Wanted, folder: Path) -> Adoption:
    """Return how to adopt the features in a folder. Raises Refused if they are not what the step would compute."""
    manifest = Manifest.read(folder / MANIFEST)
    source, facts = wanted.source, manifest.facts
    for name, value in features.source_facts(source).items():
        if facts.get(name) != value:
            raise Refused(f"{name} is {facts.get(name)}, and would be {value}")
    records = _records(step, wanted, folder, manifest)
    if broken := faults(folder, manifest):
        raise Refused(f"{broken[0]} is missing or damaged ({len(broken)} of {len(manifest.files)} files)")
    images = np.unique(np.linspace(0, len(source.images) - 1, SAMPLE).round().astype(int))
    difference = _difference(source, folder, manifest, images)
    limit = TOLERANCE[source.precision]
    if not difference <= limit:  # NaN too
        made = f"made on {facts.get('device')} in batches of {facts.get('batch')}, compared on {source.where.type}"
        reason = f"features of {len(images)} images, encoded again, differ by {difference:.2g} (at most {limit})"
        raise Refused(f"{reason}; {made} in batches of {source.batch}")
    return Adoption(step, folder, manifest, records, len(images), difference)


def _records(step: Step, wanted: Wanted, folder: Path, manifest: Manifest) -> dict[str, ShardRecord]:
    """Return the records of the shards as the step would write them.

    Raises Refused unless those in the folder say that the shards were made from these images and weights.
    """
    old, new = (
        wanted.store(place, key, manifest.facts["shard_rows"])
        for place, key in ((folder, manifest.key), (step.folder, step.key))
    )
    found = {}
    for name, rows in old.shards(len(wanted.source)):
        record = _read_record(folder / f"{name}.json")
        if record["key"] != old.key(rows):
            raise Refused("it was made from other images or weights than those here")
        found[name] = ShardRecord(key=new.key(rows), seconds=record["seconds"], files=record["files"])
    listed = {name: sha256 for record in found.values() for name, sha256 in record["files"].items()}
    if listed != {name: file["sha256"] for name, file in manifest.files.items()}:
        raise Refused("the records of its shards list other files than its manifest")
    return found


def _read_record(path: Path) -> ShardRecord:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return ShardRecord(key=found["key"], seconds=found["seconds"], files=dict(found["files"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise Refused(f"{path.name}, which says what the shard was made from, is missing or damaged") from None


def _difference(source: features.Source, folder: Path, manifest: Manifest, images: np.ndarray) -> float:
    """Encode images and their augmented copies again; return the largest relative difference of the features of one.

    Raises Refused if the files hold other kinds of features, or arrays of another shape or type.
    """
    views = len(source) // len(source.images)
    rows = np.concatenate([view * len(source.images) + images for view in range(views)])
    arrays: dict[str, list[np.ndarray]] = {}
    for name in sorted(manifest.files):
        arrays.setdefault(name.split(".")[1], []).append(read_array(folder / name))
    stored = {kind: Shards(each) for kind, each in arrays.items()}
    computed = {kind: values.cpu().numpy() for kind, values in source.take(rows).items()}
    if manifest.facts["streamed"]:
        computed = {kind: values for kind, values in computed.items() if not kind.startswith("dense")}
    expected = {kind: (values.dtype, (len(source), *values.shape[1:])) for kind, values in computed.items()}
    if expected != {kind: (each.arrays[0].dtype, each.shape) for kind, each in stored.items()}:
        raise Refused("its arrays are of other kinds, shapes or types than those that would be written")
    return max(_largest(stored[kind][rows], values) for kind, values in computed.items())


def _largest(old: np.ndarray, new: np.ndarray) -> float:
    """Return the largest |new - old| / |old| of any row of two arrays [n, ...]."""
    old, new = (each.reshape(len(each), -1).astype(np.float64) for each in (old, new))
    scale = np.maximum(np.linalg.norm(old, axis=1), np.finfo(np.float16).tiny)
    return float((np.linalg.norm(new - old, axis=1) / scale).max())


# --- adopting ---------------------------------------------------------------------------------------------------------


def _adopt(one: Adoption) -> None:
    """Put the features under the new key.

    The old folder goes if its version named keys otherwise. Another study of this version may need any other: it stays,
    takes no room besides, and `radprobe gc` removes it if no study needs it.
    """
    step, manifest = one.step, one.manifest
    new, old = (files.lock(folder / "lock", on_wait=say) for folder in (step.folder, one.folder))
    with files.writing(step.folder), new, old:
        if step.done or Manifest.read(one.folder / MANIFEST) != manifest:
            say(f"{step.command}: not adopted, as another run has made it or changed {one.folder}")
            return
        for name in manifest.files:
            with files.atomic(step.folder / name) as temporary:
                files.link_or_copy((one.folder / name).resolve(), temporary)
        for name, record in one.records.items():
            files.write_json(step.folder / f"{name}.json", record)
        adopted = {"key": manifest.key, "images": one.images, "difference": one.difference}
        seal(step.place, Embeddings.KIND, manifest.facts | {"adopted": adopted}, list(manifest.files))
        files.keep_twin(step.folder / MANIFEST)
    say(f"{step.command}: adopted, {step.folder}")
    if gc.is_of_other_version(one.folder):
        gc.remove(one.folder)
