"""segment: decoders on the frozen dense maps of one dataset and backbone, networks from scratch, and the ceiling."""

import shutil
from functools import partial
from pathlib import Path

import torch

from radprobe.artifacts import Embeddings, Index, LeakCertificate, Pixels, Predictions, Split, Weights
from radprobe.files import RadprobeError
from radprobe.imaging import intensity
from radprobe.jobs import Inputs, Runtime
from radprobe.jobs.embed import Encoding
from radprobe.jobs.segment import DecoderTraining, ScratchTraining, SegmentJob
from radprobe.learning import ceiling, decoding, features, folds
from radprobe.learning.augment import Views
from radprobe.learning.decoding import DecoderProtocol, DecodingTask, FewShotDecoding
from radprobe.learning.device import device, device_name
from radprobe.models import backbones
from radprobe.models.decoders import DecoderPlan
from radprobe.names import FROM_SCRATCH

Layers = dict[str, tuple[int, ...]]  # by decoder, those that it reads


def run(job: SegmentJob, inputs: Inputs, runtime: Runtime) -> None:
    """Read Index, Pixels, Split, its LeakCertificate and the Embeddings or their weights; write Predictions."""
    prepared = inputs.folder("prepare")
    parted = inputs.folder("split")
    LeakCertificate.load(parted)
    index = Index.load(prepared)
    pixels = Pixels.load(prepared)
    split = Split.load(parted)
    for each in split.folds:
        decoding.check(job.dataset, index, pixels, each)
    folder = inputs.place.folder
    if job.training is None:
        found = folds.over(split, folder, partial(ceiling.predictions, index, pixels))
    else:
        found = _fitted(job, job.training, inputs, runtime, index, pixels, split)
    found.save(inputs.place)
    shutil.rmtree(folder / "training", ignore_errors=True)


def _fitted(
    job: SegmentJob,
    training: DecoderTraining,
    inputs: Inputs,
    runtime: Runtime,
    index: Index,
    pixels: Pixels,
    split: Split,
) -> Predictions:
    """Return what the decoders of a job predict, each fitted on the split or on its folds."""
    on = device(runtime.device)
    dense: features.Dense
    cost = {"seconds": 0.0, "peak_gb": 0.0}
    layers: Layers = {}
    if job.scratch:
        dense = _grey(job.scratch, training.seed, index, pixels, on)
    else:
        embeddings = _embeddings(inputs.folder("embed"), index)
        layers = {name: tuple(found) for name, found in embeddings.facts["decoders"].items()}
        cost = embeddings.costs
        dense = features.Cached(embeddings)
        if embeddings.facts["streamed"] and job.embed:
            dense = features.Streamed(source_of(job.embed, inputs, runtime))

    def fit(of: Split, folder: Path) -> Predictions:
        task = DecodingTask(
            dataset=job.dataset,
            backbone=job.backbone,
            index=index,
            pixels=pixels,
            split=of,
            dense=dense,
            device=on,
            seed=training.seed,
            repeats=training.repeats,
            folder=folder,
        )
        return decoding.predictions(task, _protocols(job, task.labels, layers), _draws(job))

    frozen = [dense.source.encoder] if isinstance(dense, features.Streamed) else []
    with backbones.held(*frozen, made=[inputs.place.folder / "training"]):
        found = folds.over(split, inputs.place.folder, fit)
    found.facts |= {"embedding": cost, "device": device_name(on)}
    return found


# --- what decoders read, and which there are --------------------------------------------------------------------------


def _grey(scratch: ScratchTraining, seed: int, index: Index, pixels: Pixels, on: torch.device) -> features.Grey:
    ranges = intensity.ranges(pixels.images, index.table["volume_id"], scratch.intensity)
    views = Views("turn", len(pixels.images), seed, None if scratch.options.augment else 0)
    return features.Grey(pixels.images, ranges, scratch.size, views, on)


def _embeddings(folder: Path, index: Index) -> Embeddings:
    embeddings = Embeddings.load(folder)
    if embeddings.n != len(index.table):  # augmented copies would be those of other images
        reason = f"holds features of {embeddings.n} images, and the index has {len(index.table)} rows"
        raise RadprobeError(folder, reason, "remove this folder, and run it again")
    return embeddings


def source_of(encoding: Encoding, inputs: Inputs, runtime: Runtime) -> features.Source:
    """Return the images and the encoder of `embed`: it stored no maps, so they are encoded again."""
    prepared = inputs.folder("prepare")
    weights = Weights.load(inputs.folder("weights"))
    index = Index.load(prepared)
    return features.source(encoding, weights, index, Pixels.load(prepared), runtime.batch_size, device(runtime.device))


def _protocols(job: SegmentJob, labels: int, layers: Layers) -> list[DecoderProtocol]:
    if job.scratch:
        options = job.scratch.options
        plan = DecoderPlan(f"scratch-{job.backbone}", labels, width=options.width, side=job.scratch.size)
        return [DecoderProtocol.of(FROM_SCRATCH, (-1,), plan, options, options.refit_epochs)]
    protocols = []
    for kind, read in layers.items():
        how = job.linear if kind == "linear" else job.unet
        widths = tuple(job.unet.widths) if job.unet and kind == "unet" else None
        if how:
            protocols.append(DecoderProtocol.of(_name(kind), read, DecoderPlan(kind, labels, widths), how))
    return protocols


def _name(kind: str) -> str:
    """Return the protocol of a decoder: linear-decoder, unet-decoder, unet-decoder@paper."""
    name, at, variant = kind.partition("@")
    return f"{name}-decoder{at}{variant}"


def _draws(job: SegmentJob) -> FewShotDecoding | None:
    if job.few_shot is None:
        return None
    options = job.few_shot.options
    return FewShotDecoding(
        tuple(options.shots), options.draws, options.learning_rate, options.steps, job.few_shot.paper
    )
