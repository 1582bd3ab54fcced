"""Encoding all images of a dataset once, shard by shard, so that a kill loses at most one shard.

A shard is `00000.cls.npy`, `00000.patch_mean.npy`, for each earlier stage of a CNN `00000.stage<l>.npy`, and for each
layer of which decoders want maps `00000.dense<l>.npy`, the l-th from the end (float16; those that the backbone has),
written last `00000.json` with their hashes, the seconds taken and the identity of the inputs. A shard whose json is
there and true is not computed again.

Dense maps beyond the budget are not stored: `Streamed` encodes again what `Cached` would read, bit for bit, because
every forward pass has the same number of images, the last ones filled up, and a row does not depend on its neighbours.
"""

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike

from radprobe import console, files
from radprobe.artifacts import Embeddings, Index, Pixels, Weights
from radprobe.artifacts.tables import write_array
from radprobe.files import RadprobeError
from radprobe.imaging import intensity
from radprobe.jobs.embed import Encoding
from radprobe.learning.augment import Views, moved
from radprobe.learning.device import GB, device_name, peak_gb
from radprobe.manifests import Place, seal
from radprobe.models import backbones
from radprobe.models.backbones import Encoder, grey

USUAL_TOKENS = 1024  # of 448 px in patches of 14
DENSE_BATCH = 8  # images at once where maps are wanted: what a decoder takes, should they be streamed
CPU = torch.device("cpu")
Arrays = dict[str, torch.Tensor]  # by kind: cls, patch_mean, stage2, dense1 ...


@dataclass(frozen=True)
class Source:
    """Images [n, H, W] (memory-mapped), their names, and the encoder that they go through.

    layers: those whose maps each decoder reads. ranges: the grey values [n, 2] that become 0 and 1, or None for each
    image's own minimum and maximum. Rows count the images and then, view by view, their augmented copies.
    """

    encoder: Encoder
    layers: dict[str, tuple[int, ...]]
    images: np.ndarray
    ranges: np.ndarray | None
    views: Views
    names: Sequence[str]
    precision: str  # bf16 | fp32
    most: int  # images at once, at most
    where: torch.device

    def __post_init__(self) -> None:
        if len(self.images) != len(self.names):
            raise ValueError(f"{len(self.images)} images for {len(self.names)} rows of the index")

    def __len__(self) -> int:
        return len(self.images) * (1 + (self.views.count or 0))

    @property
    def batch(self) -> int:
        """Images in every forward pass: fewer than `most` for many tokens, as SAM has at 1,024 px, and for few images.

        It depends on nothing but the dataset and the backbone.
        """
        tokens = (self.encoder.size // (self.encoder.recipe.patch or self.encoder.size)) ** 2
        most = min(self.most, DENSE_BATCH) if self.encoder.dense else self.most
        most = max(1, min(most, most * USUAL_TOKENS**2 // tokens**2))  # attention grows with their square
        passes = -(-len(self.images) // most)
        return -(-len(self.images) // passes)

    def take(self, rows: ArrayLike) -> Arrays:
        """Encode some rows; return float16 by kind, on the device.

        Raises RadprobeError that names the sample where a feature is NaN, infinite or beyond float16.
        """
        rows = np.atleast_1d(rows)
        found = [self._pass(rows[start : start + self.batch]) for start in range(0, len(rows), self.batch)]
        return {kind: torch.cat([each[kind] for each in found]) for kind in found[0]}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each kind's features of one image."""
        return {kind: tuple(values.shape[1:]) for kind, values in self._forward(np.zeros(1, int)).items()}

    def _pass(self, rows: np.ndarray) -> Arrays:
        filled = np.concatenate([rows, np.full(self.batch - len(rows), rows[-1])])
        found = self._forward(filled)
        for kind, values in found.items():
            if len(values) != len(filled):  # rows that are lacking would stay 0 in a shard
                reason = f"gives {len(values)} {kind} features for {len(filled)} images"
                raise RadprobeError(self.encoder.recipe.title, reason, "mend the recipe of the backbone")
        return {kind: self._halves(kind, values[: len(rows)], rows) for kind, values in found.items()}

    @torch.inference_mode()
    def _forward(self, rows: np.ndarray) -> Arrays:
        view, image = np.divmod(rows, len(self.images))
        pixels = torch.from_numpy(self.images[image]).to(self.where, non_blocking=True)
        ranges = None if self.ranges is None else torch.from_numpy(self.ranges[image]).to(self.where)
        if view.any():
            ranges = extremes(pixels) if ranges is None else ranges  # of the whole image, not of what is left of it
            pixels = self._moved(pixels, image, view)
        with torch.autocast(self.where.type, torch.bfloat16, enabled=self.precision == "bf16"):
            features = self.encoder(pixels, ranges)
        dense = {dense_kind(layer): map_ for layer, map_ in zip(self.encoder.dense, features.dense, strict=True)}
        stages = {f"stage{-layer}": values for layer, values in features.stages.items()}
        found = {"cls": features.cls, "patch_mean": features.patch_mean, **stages, **dense}
        return {kind: values for kind, values in found.items() if values is not None}

    def _moved(self, pixels: torch.Tensor, image: np.ndarray, view: np.ndarray) -> torch.Tensor:
        pixels = pixels.float()
        for each in np.unique(view[view > 0]):
            at = np.flatnonzero(view == each)
            pixels[at] = moved(pixels[at], self.views.matrices(image[at], each), nearest=False)
        return pixels

    def _halves(self, kind: str, values: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        halves = values.to(torch.float16)
        bad = ~torch.isfinite(halves).flatten(1).all(1)
        if bad.any():
            first = int(bad.nonzero()[0, 0])
            raise _not_finite(self.names[rows[first] % len(self.images)], kind, values[first])
        return halves


def extremes(pixels: torch.Tensor) -> torch.Tensor:
    """Return the least and the largest value of each image [B, H, W], float32 [B, 2]."""
    return torch.stack([pixels.amin((1, 2)), pixels.amax((1, 2))], 1).float()


def source(
    encoding: Encoding, weights: Weights, index: Index, pixels: Pixels, most: int, where: torch.device
) -> Source:
    """Return the images of a dataset and the encoder that they go through, on a device."""
    layers = backbones.layers(encoding.encoder, encoding.decoders)
    every = sorted({layer for each in layers.values() for layer in each}, reverse=True)
    return Source(
        encoder=backbones.build(encoding.encoder, weights, encoding.size, encoding.blocks, every).to(where),
        layers=layers,
        images=pixels.images,
        ranges=intensity.ranges(pixels.images, index.table["volume_id"], encoding.intensity),
        views=Views("turn" if encoding.decoders else "crop", len(pixels.images), encoding.seed, encoding.views),
        names=index.table["sample_id"].tolist(),
        precision=encoding.precision,
        most=most,
        where=where,
    )


def dense_kind(layer: int) -> str:
    """Return the kind of the maps of a layer, counted from the last one, -1."""
    return f"dense{-layer}"


def _not_finite(sample: str, kind: str, values: torch.Tensor) -> RadprobeError:
    over = bool(torch.isfinite(values).all())
    reason = f"its {kind} features are {'beyond the range of float16' if over else 'NaN or infinite'}"
    return RadprobeError(f"sample {sample}", reason, "look at the image and the weights; try embed.precision: fp32")


# --- maps, read or made again -----------------------------------------------------------------------------------------


class Dense(Protocol):
    """Dense maps of a dataset, by layer, in several views; `shapes` are of one image: [C, h, w]."""

    shapes: dict[int, tuple[int, ...]]
    views: Views

    def take(self, rows: np.ndarray, layers: Sequence[int], view: int = 0) -> list[torch.Tensor]:
        """Return [len(rows), C, h, w] for each of `layers`; view 0 is the image as it is."""


class Cached:
    """Dense maps that `embed` stored."""

    def __init__(self, embeddings: Embeddings):
        facts = embeddings.facts
        self.shards, self.views = embeddings.dense, Views("turn", embeddings.n, facts["seed"], facts["views"])
        self.shapes = {layer: shards.shape[1:] for layer, shards in self.shards.items()}

    def take(self, rows: np.ndarray, layers: Sequence[int], view: int = 0) -> list[torch.Tensor]:
        """Return float16 [len(rows), C, h, w] for each of `layers`."""
        return [torch.from_numpy(self.shards[layer][view * self.views.n + rows]) for layer in layers]


class Streamed:
    """Dense maps encoded again whenever they are asked for."""

    def __init__(self, source: Source):
        self.source, self.views = source, source.views
        shapes = source.shapes
        self.shapes = {layer: shapes[dense_kind(layer)] for layer in source.encoder.dense}

    def take(self, rows: np.ndarray, layers: Sequence[int], view: int = 0) -> list[torch.Tensor]:
        """Return float16 [len(rows), C, h, w] for each of `layers`."""
        found = self.source.take(view * self.views.n + rows)
        return [found[dense_kind(layer)] for layer in layers]


class Grey:
    """No backbone: the images themselves, from 0 to 1, as the one layer of one channel."""

    def __init__(
        self, images: np.ndarray, ranges: np.ndarray | None, size: int, views: Views, where: torch.device = CPU
    ):
        self.images, self.ranges, self.size, self.views, self.where = images, ranges, size, views, where
        self.shapes: dict[int, tuple[int, ...]] = {-1: (1, size, size)}

    def take(self, rows: np.ndarray, layers: Sequence[int], view: int = 0) -> list[torch.Tensor]:
        """Return float32 [len(rows), 1, size, size] for each of `layers`, on the device."""
        pixels = torch.from_numpy(self.images[rows]).to(self.where, non_blocking=True)
        ranges = extremes(pixels) if self.ranges is None else torch.from_numpy(self.ranges[rows]).to(self.where)
        if view:
            pixels = moved(pixels, self.views.matrices(rows, view), nearest=False)
        return [grey(pixels, ranges, self.size) for _ in layers]


# --- shards -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Store:
    """Where shards lie: their folder, rows in each, and the identity of everything upstream."""

    folder: Path
    shard_rows: int
    identity: object  # as JSON
    max_dense_cache_gb: float

    def shards(self, n: int) -> Iterator[tuple[str, slice]]:
        """Yield the name and rows of each shard of n rows."""
        for number, start in enumerate(range(0, n, self.shard_rows)):
            yield f"{number:05d}", slice(start, min(start + self.shard_rows, n))

    def key(self, rows: slice) -> str:
        """Return the identity of one shard: the rows that it holds of these inputs."""
        return files.digest([self.identity, rows.start, rows.stop])


def encode(source: Source, store: Store) -> tuple[dict[str, Any], list[str]]:
    """Encode every image of `source` into `store`; return the facts of the manifest and the names of the files.

    Raises RadprobeError where a feature is NaN, infinite or beyond float16, naming the sample, and where the backbone
    changes meanwhile.
    """
    shapes = source.shapes
    dense = {layer: shapes[dense_kind(layer)] for layer in source.encoder.dense}
    needed = sum(len(source) * int(np.prod(shape)) * 2 / GB for shape in dense.values())
    if streamed := needed > store.max_dense_cache_gb:
        shapes = {kind: shape for kind, shape in shapes.items() if not kind.startswith("dense")}
        console.say(
            f"embed: dense maps of {needed:.3g} GB are over max_dense_cache_gb: segment encodes anew as it goes"
        )
    kept = {name for name, rows in store.shards(len(source)) if _is_whole(store, name, rows)}
    todo = [(name, rows) for name, rows in store.shards(len(source)) if name not in kept]
    if kept:
        console.say(f"embed: {len(kept)} of {len(kept) + len(todo)} shards are there already, and are kept")
    with backbones.held(source.encoder, made=[store.folder / f"{name}.json" for name, _ in todo]):
        _compute(source, store, shapes, todo)
    logs = {shard: json.loads((store.folder / f"{shard}.json").read_text()) for shard, _ in store.shards(len(source))}
    names = [file for log in logs.values() for file in log["files"]]
    _remove_others(store.folder, {*names, *(f"{shard}.json" for shard in logs)})
    seconds = sum(log["seconds"] for log in logs.values())
    facts = source_facts(source) | {
        "shard_rows": store.shard_rows,
        "batch": source.batch,
        "seconds": seconds,
        "peak_gb": peak_gb(source.where),
        "images_per_second": len(source) / max(seconds, 1e-9),
        "device": device_name(source.where),
        "streamed": streamed,
    }
    return facts, names


def source_facts(source: Source) -> dict[str, Any]:
    """Return the facts of embeddings that follow from their source alone, whatever machine computes them."""
    shapes = source.shapes
    return {
        "n": len(source.images),
        "views": source.views.count,
        "seed": source.views.seed,
        "size": source.encoder.size,
        "dtype": "float16",
        "precision": source.precision,
        "dense": {str(layer): list(shapes[dense_kind(layer)]) for layer in source.encoder.dense},
        "decoders": {decoder: list(layers) for decoder, layers in source.layers.items()},
        "dim": shapes["cls"][-1],
        "blocks": shapes["cls"][0],
        "stages": {kind: shape[0] for kind, shape in shapes.items() if kind.startswith("stage")},
        "parameters": source.encoder.parameters_count,
    }


def write_vectors(vectors: np.ndarray, place: Place) -> None:
    """Write Embeddings that no backbone made: `vectors` [n, C] in the place of the CLS token."""
    file = "00000.cls.npy"
    write_array(place.folder / file, vectors[:, None].astype(np.float16))
    facts = {"n": len(vectors), "dim": vectors.shape[1], "blocks": 1, "parameters": 0, "dtype": "float16"}
    facts |= {
        "seconds": 0.0,
        "peak_gb": 0.0,
        "device": "cpu",
        "precision": "fp32",
        "dense": {},
        "streamed": False,
        "decoders": {},
    }
    seal(place, Embeddings.KIND, facts, [file])


def _compute(source: Source, store: Store, shapes: dict[str, tuple[int, ...]], todo: list[tuple[str, slice]]) -> None:
    """Encode shards; a thread brings a batch to disk while the device works on the next one.

    It waits for the batch before, and so for the shard before: a kill loses one shard, and memory is bounded.
    """
    size = source.batch
    batches = [(shard, start) for shard in todo for start in range(shard[1].start, shard[1].stop, size)]
    written: Future[None] = Future()
    written.set_result(None)
    begun = time.perf_counter()
    try:
        with ThreadPoolExecutor(1) as writer:
            for (name, rows), start in console.track(batches, "embed (batches)", len(batches)):
                if start == rows.start:
                    shard = _Shard(store, name, rows, shapes)
                stop = min(start + size, rows.stop)
                found = source.take(np.arange(start, stop))
                written.result()
                seconds = None
                if stop == rows.stop:
                    now = time.perf_counter()
                    seconds, begun = now - begun, now
                written = writer.submit(shard.add, found, seconds)
            written.result()
    except BaseException:
        for leftover in store.folder.glob(f"*{files.TEMPORARY}"):
            leftover.unlink()
        raise


class _Shard:
    """A shard on its way to disk: its arrays grow batch by batch, and get their names when it is whole."""

    def __init__(self, store: Store, name: str, rows: slice, shapes: dict[str, tuple[int, ...]]):
        self.store, self.name, self.rows, self.at = store, name, rows, 0
        store.folder.mkdir(parents=True, exist_ok=True)
        self.arrays = {
            kind: np.lib.format.open_memmap(self._partial(kind), "w+", np.float16, (rows.stop - rows.start, *shape))
            for kind, shape in shapes.items()
        }
        for kind in shapes:
            files.reserve(self._partial(kind))

    def _partial(self, kind: str) -> Path:
        return self.store.folder / f"{self.name}.{kind}{files.TEMPORARY}"

    def add(self, found: Arrays, seconds: float | None) -> None:
        """Write the next rows; with the last ones come the seconds that all have taken."""
        n = len(found["cls"])
        for kind, array in self.arrays.items():
            array[self.at : self.at + n] = found[kind].cpu().numpy()
        self.at += n
        if seconds is not None:
            self._close(seconds)

    def _close(self, seconds: float) -> None:
        written = {}
        for kind, array in self.arrays.items():
            array.flush()
            file = self.store.folder / f"{self.name}.{kind}.npy"
            files.put_in_place(self._partial(kind), file)
            written[file.name] = files.sha256(file)
        log = {"key": self.store.key(self.rows), "seconds": seconds, "files": written}
        files.write_json(self.store.folder / f"{self.name}.json", log)


def _is_whole(store: Store, name: str, rows: slice) -> bool:
    try:
        log = json.loads((store.folder / f"{name}.json").read_text())
        true = all(files.sha256(store.folder / file) == sha for file, sha in log["files"].items())
        return log["key"] == store.key(rows) and true
    except (OSError, ValueError, KeyError):
        return False


def _remove_others(folder: Path, names: set[str]) -> None:
    """Remove shards of other inputs or of another shard size, and what a kill left."""
    for path in folder.glob("[0-9][0-9][0-9][0-9][0-9].*"):
        if path.name not in names:
            path.unlink()
