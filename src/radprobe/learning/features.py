"""Encoding all images of a dataset once, shard by shard, so that a kill loses at most one shard.

A shard is `00000.cls.npy`, `00000.patch_mean.npy`, `00000.dense.npy` (float16; those that the backbone has) and,
written last, `00000.json` with their hashes, the seconds taken and the identity of the inputs. A shard whose json is
there and true is not computed again.
"""

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from radprobe import artifacts, console, files
from radprobe.files import RadprobeError
from radprobe.learning.device import GB, peak_gb
from radprobe.models.backbones import Encoder, Features

USUAL_TOKENS = 1024  # of 448 px in patches of 14


@dataclass(frozen=True)
class Job:
    """What is encoded: `images` [n, H, W] (memory-mapped), their names, and an identity of everything upstream.

    ranges: the grey values [n, 2] that become 0 and 1, or None for each image's own minimum and maximum.
    """

    images: np.ndarray
    ranges: np.ndarray | None
    names: Sequence[str]
    identity: Any
    folder: Path
    shard_rows: int
    batch_size: int
    precision: str  # bf16 | fp32
    max_dense_cache_gb: float

    def shards(self) -> Iterator[tuple[str, slice]]:
        """Yield each shard's name and rows."""
        n = len(self.images)
        for number, start in enumerate(range(0, n, self.shard_rows)):
            yield f"{number:05d}", slice(start, min(start + self.shard_rows, n))

    def key(self, rows: slice) -> str:
        """Return the identity of one shard: the rows that it holds of these inputs."""
        return files.digest([self.identity, rows.start, rows.stop])


def encode(encoder: Encoder, job: Job, where: torch.device) -> tuple[dict[str, Any], list[str]]:
    """Encode every image of `job` into its folder; return the facts of the manifest and the names of the files.

    Raises RadprobeError before any work when the dense maps would exceed the budget, and when a feature is NaN,
    infinite or beyond float16, naming the sample.
    """
    encoder.to(where)
    job = replace(job, batch_size=_batch(encoder, job.batch_size))
    shapes = _shapes(encoder, job, where)
    _check_budget(shapes, job)
    kept = {name for name, rows in job.shards() if _is_whole(job.folder, name, job.key(rows))}
    todo = [(name, rows) for name, rows in job.shards() if name not in kept]
    if kept:
        console.say(f"embed: {len(kept)} of {len(kept) + len(todo)} shards are there already, and are kept")
    _compute(encoder, job, todo, where)
    n, names, seconds = len(job.images), [], 0.0
    for shard, _ in job.shards():
        log = json.loads((job.folder / f"{shard}.json").read_text())
        seconds += log["seconds"]
        names += list(log["files"])
    _remove_others(job.folder, {*names, *(f"{shard}.json" for shard, _ in job.shards())})
    facts = {
        "n": n,
        "shard_rows": job.shard_rows,
        "size": encoder.size,
        "dtype": "float16",
        "precision": job.precision,
        "seconds": seconds,
        "peak_gb": peak_gb(where),
        "images_per_second": n / max(seconds, 1e-9),
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "grid": list(shapes["dense"][1:]) if "dense" in shapes else None,
        "dense_dim": shapes["dense"][0] if "dense" in shapes else None,
        "dim": shapes["cls"][-1],
        "blocks": shapes["cls"][0],
        "parameters": encoder.parameters_count,
    }
    return facts, names


def write_vectors(vectors: np.ndarray, folder: Path, spec: str) -> None:
    """Write Embeddings that no backbone made: `vectors` [n, C] in the place of the CLS token."""
    file = "00000.cls.npy"
    artifacts.write_array(folder / file, vectors[:, None].astype(np.float16))
    facts = {"n": len(vectors), "dim": vectors.shape[1], "blocks": 1, "parameters": 0, "dtype": "float16"}
    facts |= {"seconds": 0.0, "peak_gb": 0.0, "device": "cpu", "precision": "fp32", "grid": None}
    artifacts.seal(folder, artifacts.Embeddings.KIND, spec, facts, [file])


@torch.inference_mode()
def forward(encoder: Encoder, job: Job, rows: slice, where: torch.device) -> Features:
    """Encode the images of some rows, under bf16 autocast or in float32."""
    pixels = torch.from_numpy(np.array(job.images[rows])).to(where, non_blocking=True)
    ranges = None if job.ranges is None else torch.from_numpy(job.ranges[rows]).to(where)
    with torch.autocast(where.type, torch.bfloat16, enabled=job.precision == "bf16"):
        return encoder(pixels, ranges)


def _batch(encoder: Encoder, wanted: int) -> int:
    """Return how many images to take at once: fewer where there are more tokens than usual, as SAM has at 1,024 px."""
    tokens = (encoder.size // (encoder.recipe.patch or encoder.size)) ** 2
    return max(1, min(wanted, wanted * USUAL_TOKENS**2 // tokens**2))  # attention grows with their square


def _shapes(encoder: Encoder, job: Job, where: torch.device) -> dict[str, tuple[int, ...]]:
    features = forward(encoder, job, slice(0, 1), where)
    return {kind: tuple(values.shape[1:]) for kind, values in _arrays(features).items()}


def _arrays(features: Features) -> dict[str, torch.Tensor]:
    """Return what is written of a batch, by kind."""
    found = {"cls": features.cls, "patch_mean": features.patch_mean, "dense": next(iter(features.dense), None)}
    return {kind: values for kind, values in found.items() if values is not None}


def _check_budget(shapes: dict[str, tuple[int, ...]], job: Job) -> None:
    needed = len(job.images) * int(np.prod(shapes.get("dense", (0,)))) * 2 / GB
    if needed > job.max_dense_cache_gb:
        reason = (
            f"the dense maps of {len(job.images)} images need {needed:.3g} GB, over the {job.max_dense_cache_gb} GB"
        )
        remedy = (
            f"raise max_dense_cache_gb to {np.ceil(needed):.0f} if the disk has room, or embed fewer images (limit)"
        )
        raise RadprobeError("params: embed.max_dense_cache_gb", reason + " allowed", remedy)


def _compute(encoder: Encoder, job: Job, todo: list[tuple[str, slice]], where: torch.device) -> None:
    """Encode shards; a thread brings each one to disk while the device works on the next."""
    total = sum(-(-(rows.stop - rows.start) // job.batch_size) for _, rows in todo)
    batches = ((shard, start) for shard in todo for start in range(shard[1].start, shard[1].stop, job.batch_size))
    done: list[Features] = []
    writing: Future | None = None
    begun = time.perf_counter()
    with ThreadPoolExecutor(1) as writer:
        for (name, rows), start in console.track(batches, "embed (batches)", total):
            stop = min(start + job.batch_size, rows.stop)
            done.append(forward(encoder, job, slice(start, stop), where))
            if stop < rows.stop:
                continue
            if writing:
                writing.result()  # at most one shard waits, so memory is bounded
            now = time.perf_counter()
            writing, done, begun = writer.submit(_write, job, name, rows, done, now - begun), [], now
        if writing:
            writing.result()


def _write(job: Job, name: str, rows: slice, batches: list[Features], seconds: float) -> None:
    written = {}
    arrays = [_arrays(batch) for batch in batches]
    for kind in arrays[0]:
        values = torch.cat([batch[kind] for batch in arrays])
        halves = values.to(torch.float16)
        bad = ~torch.isfinite(halves).flatten(1).all(1)
        if bad.any():
            first = int(bad.nonzero()[0, 0])
            raise _not_finite(job.names[rows.start + first], kind, values[first], int(bad.sum()))
        file = f"{name}.{kind}.npy"
        artifacts.write_array(job.folder / file, halves.cpu().numpy())
        written[file] = files.sha256(job.folder / file)
    log = {"key": job.key(rows), "seconds": seconds, "files": written}
    files.write_json(job.folder / f"{name}.json", log)


def _not_finite(sample: str, kind: str, values: torch.Tensor, n: int) -> RadprobeError:
    over = bool(torch.isfinite(values).all())
    reason = (
        f"its {kind} features are {'beyond the range of float16' if over else 'NaN or infinite'} ({n} such in shard)"
    )
    return RadprobeError(f"sample {sample}", reason, "look at the image and the weights; try embed.precision: fp32")


def _is_whole(folder: Path, name: str, key: str) -> bool:
    try:
        log = json.loads((folder / f"{name}.json").read_text())
        return log["key"] == key and all(files.sha256(folder / file) == sha for file, sha in log["files"].items())
    except (OSError, ValueError, KeyError):
        return False


def _remove_others(folder: Path, names: set[str]) -> None:
    """Remove shards of other inputs or of another shard size."""
    for path in folder.glob("[0-9][0-9][0-9][0-9][0-9].*"):
        if path.name not in names:
            path.unlink()
