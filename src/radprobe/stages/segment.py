"""segment: decoders on the frozen dense maps of one dataset and backbone, networks from scratch, and the ceiling."""

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import one_hot

from radprobe import console
from radprobe.artifacts import (
    Embeddings,
    FewShot,
    Index,
    LabelMaps,
    LeakCertificate,
    Pixels,
    Predictions,
    Split,
    Weights,
    again,
)
from radprobe.files import RadprobeError
from radprobe.imaging import intensity
from radprobe.imaging.resize import to_original
from radprobe.learning import decoders, features, few_shot, folds, label_maps, loop, selection
from radprobe.learning.augment import Views
from radprobe.learning.device import device, device_name, measured
from radprobe.learning.maps import Maps
from radprobe.models import backbones
from radprobe.models import decoders as networks
from radprobe.names import CEILING, FROM_SCRATCH, SCRATCH
from radprobe.study import Step, Study

USE = {"train": "trained", "val": "chosen"}
NO_COST = {"seconds": 0.0, "peak_gb": 0.0}


@dataclass(frozen=True)
class Job:
    """What all decoders of a job share: the samples, their split, and where they are fitted."""

    index: Index
    pixels: Pixels
    split: Split
    dense: features.Dense
    where: torch.device
    seed: int
    folder: Path
    facts: dict[str, Any]  # what its decoders say of themselves

    @property
    def labels(self) -> int:
        """Foreground classes and background."""
        return len(self.split.classes) + 1

    def maps(self, layers: tuple[int, ...], *parts: str, split: Split | None = None) -> Maps:
        """Return the maps of some parts, through `layers`."""
        rows = (split or self.split).rows(self.index, *parts)
        cases = self.index.table["volume_id"].to_numpy()[rows]
        return Maps(self.dense, layers, self.pixels.masks, rows, cases, self.where)


@dataclass(frozen=True)
class Protocol:
    """A decoder to be fitted: the layers that it reads, its plan, and how it is trained."""

    name: str
    layers: tuple[int, ...]
    plan: dict[str, Any]
    knobs: dict[str, Any]

    def maker(self, maps: Maps) -> Callable[[], torch.nn.Module]:
        """Return a function that builds a decoder with new weights, standardised as `maps` are."""
        statistics = [] if self.name == FROM_SCRATCH else maps.statistics()
        return lambda: networks.build(self.plan, statistics)


def run(study: Study, step: Step) -> None:
    """Read Index, Pixels, Split, its LeakCertificate and what the backbone gives; write Predictions."""
    source = step.dependency("prepare").folder
    LeakCertificate.load(step.dependency("split").folder)
    index, pixels, split = Index.load(source), Pixels.load(source), Split.load(step.dependency("split").folder)
    for each in split.folds:
        _check(step.dataset, index, pixels, each)
    if step.backbone == CEILING:
        found = folds.over(split, step.folder, partial(_ceiling, index, pixels))
        _save(found, step)
        return
    where = device(study.params.device)
    dense, costs, layers = _dense(study, step, index, pixels, where)
    told = {"dataset": step.dataset, "backbone": step.backbone, "classes": split.classes}

    def fit(split: Split, folder: Path) -> Predictions:
        job = Job(index, pixels, split, dense, where, step.knobs["seed"], folder, told)
        return _fit_all(step, job, layers)

    frozen = [dense.source.encoder] if isinstance(dense, features.Streamed) else []
    with backbones.held(*frozen, made=[step.folder / "training"]):
        found = folds.over(split, step.folder, fit)
    found.facts |= {"embedding": costs, "device": device_name(where)}
    _save(found, step)


def _save(found: Predictions, step: Step) -> None:
    """Save the predictions, and remove what was needed to resume."""
    found.save(step.place)
    shutil.rmtree(step.folder / "training", ignore_errors=True)


def _fit_all(step: Step, job: Job, layers: dict[str, tuple[int, ...]]) -> Predictions:
    """Fit every decoder, and those of few-shot draws."""
    maps, facts, training = {}, {}, []
    for protocol in _protocols(step, job, layers):
        found, facts[protocol.name], history = _fit(job, protocol, step.knobs.get("repeats", 1))
        maps |= found
        training.append(history.assign(protocol=protocol.name))
        chosen, val = facts[protocol.name]["chosen"], facts[protocol.name]["value"]
        console.say(f"{step.dataset} {step.backbone} {protocol.name}: val DSC {val:.4f} with {chosen}")
    facts, curve = {"protocols": facts}, None
    if "linear" in layers and step.knobs["few_shot"]:
        took: dict[str, Any] = {}
        with measured(took, job.where):
            curve = _few_shot(job, step.knobs, layers["linear"])
        facts["few_shot"] = {**step.knobs["few_shot"], **took}
    found = Predictions(job.split.classes, maps=maps, facts=facts, few_shot=curve, training=pd.concat(training))
    found.decoders = list(facts["protocols"])
    return found


# --- what decoders read, and which there are --------------------------------------------------------------------------


def _dense(study: Study, step: Step, index: Index, pixels: Pixels, where: torch.device):
    """Return the maps that decoders read, what they cost, and the layers of each decoder."""
    if step.backbone in SCRATCH:
        ranges = intensity.ranges(pixels.images, index.table["volume_id"], study.dataset(step.dataset).intensity)
        views = Views("turn", len(pixels.images), step.knobs["seed"], None if step.knobs["scratch"]["augment"] else 0)
        return features.Grey(pixels.images, ranges, step.knobs["size"], views, where), NO_COST, {}
    embeddings = Embeddings.load(folder := step.dependency("embed").folder)
    if embeddings.n != len(index.table):  # augmented copies would be those of other images
        reason = f"holds features of {embeddings.n} images, and the index has {len(index.table)} rows"
        raise RadprobeError(folder, reason, "remove this folder, and run it again")
    layers = {name: tuple(found) for name, found in embeddings.facts["decoders"].items()}
    streamed = embeddings.facts["streamed"]
    dense = features.Streamed(source_of(study, step)) if streamed else features.Cached(embeddings)
    return dense, embeddings.costs, layers


def source_of(study: Study, step: Step) -> features.Source:
    """Return what `embed` encoded, to be encoded again: its maps were too many to be stored."""
    prepared, weights = step.dependency("prepare").folder, Weights.load(step.dependency("weights").folder)
    index, pixels, knobs = Index.load(prepared), Pixels.load(prepared), step.dependency("embed").knobs
    return features.source(
        study.backbone(step.backbone),
        weights,
        index,
        pixels,
        study.dataset(step.dataset).intensity,
        knobs,
        study.params.embed.batch_size,
        device(study.params.device),
    )


def _protocols(step: Step, job: Job, layers: dict[str, tuple[int, ...]]) -> list[Protocol]:
    knobs = step.knobs
    if step.backbone in SCRATCH:
        options = {"width": knobs["scratch"]["width"], "side": job.dense.shapes[-1][-1]}
        plan = {"kind": f"scratch-{step.backbone}", "labels": job.labels, **options}
        return [Protocol(FROM_SCRATCH, (-1,), plan, knobs["scratch"])]
    found = []
    for kind, read in layers.items():
        options = {"widths": knobs["unet"]["widths"]} if kind == "unet" else {}
        how = knobs["linear" if kind == "linear" else "unet"]
        found.append(Protocol(decoder_name(kind), read, {"kind": kind, "labels": job.labels, **options}, how))
    return found


def decoder_name(kind: str) -> str:
    """Return the protocol of a decoder: linear-decoder, unet-decoder, unet-decoder@paper."""
    name, at, variant = kind.partition("@")
    return f"{name}-decoder{at}{variant}"


# --- fitting ----------------------------------------------------------------------------------------------------------


def _fit(job: Job, protocol: Protocol, repeats: int) -> tuple[dict[str, LabelMaps], dict[str, Any], pd.DataFrame]:
    """Choose learning rate and epochs on val, fit again on train and val, write the label maps of val and test.

    Where knobs fix `refit_epochs`, the fit again takes so many epochs instead of those that val chose.
    With `repeats` what was chosen is fitted with other seeds too; the label maps of test stand beside by `again`.
    """
    knobs, took = protocol.knobs, {}
    parts = {part: job.maps(protocol.layers, *part.split("+")) for part in ("train", "val", "test", "train+val")}
    folder = job.folder / "training" / protocol.name
    with measured(took, job.where):
        how = _recipe(knobs, job.seed, knobs["epochs"], knobs["patience"])
        fitted = decoders.fit(
            protocol.maker(parts["train"]),
            parts["train"],
            job.labels,
            knobs["learning_rates"],
            how,
            val=parts["val"],
            folder=folder / "search",
            what=protocol.name,
        )
        best = selection.best(fitted.values, f"learning rates of {protocol.name}")
        total = knobs.get("refit_epochs")  # the study trains networks from scratch longer when they are tested
        chosen = {"learning_rate": knobs["learning_rates"][best], "epochs": fitted.epochs[best]}
        make = protocol.maker(parts["train+val"])

        def refit(seed: int, name: str, how: str = "") -> decoders.Fitted:
            recipe = _recipe(knobs, seed, total or knobs["epochs"], stop=total or chosen["epochs"])
            what = f"{protocol.name}, again with val{how}"
            rates = [chosen["learning_rate"]]
            return decoders.fit(make, parts["train+val"], job.labels, rates, recipe, folder=folder / name, what=what)

        refitted = refit(job.seed, "refit")
    cases = chain(
        label_maps.predicted(fitted.decoders[best], parts["val"], job.index, job.pixels, "val"),
        label_maps.predicted(refitted.decoders[0], parts["test"], job.index, job.pixels, "test"),
    )
    LabelMaps.write(job.folder, protocol.name, cases)
    told = {**job.facts, "protocol": protocol.name, "layers": list(protocol.layers)}
    networks.save(job.folder / f"{protocol.name}.safetensors", refitted.decoders[0], protocol.plan, told)
    facts = {
        "chosen": chosen,
        "value": fitted.values[best],
        "selected_on": "val",
        "selected_by": decoders.CHOSEN_BY,
        "candidates": _candidates(knobs["learning_rates"], fitted),
        "parameters": sum(each.numel() for each in refitted.decoders[0].parameters()),
        "layers": list(protocol.layers),
        **{f"n_{part}": len(parts[part]) for part in ("train", "val", "test")},
        **({"refit_epochs": total} if total else {}),
        **took,
    }
    seeds, diverged = [job.seed], 0
    for seed in range(job.seed + 1, job.seed + repeats):
        try:
            (decoder,) = refit(seed, f"seed{seed}", f" and seed {seed}").decoders
        except loop.Diverged as error:
            console.say(f"{error}")
            diverged += 1
            continue
        maps = label_maps.predicted(decoder, parts["test"], job.index, job.pixels, "test")
        LabelMaps.write(job.folder, again(protocol.name, len(seeds)), maps)
        seeds.append(seed)
    facts |= {"seeds": seeds, "seeds_diverged": diverged} if repeats > 1 else {}
    names = [again(protocol.name, number) for number in range(len(seeds))]
    history = pd.concat([fitted.history.assign(phase="search"), refitted.history.assign(phase="refit")])
    return {name: LabelMaps.read(job.folder, name) for name in names}, facts, history


def _recipe(knobs: dict[str, Any], seed: int, epochs: int, patience: int | None = None, stop: int | None = None):
    schedule = loop.Schedule(epochs=epochs, seed=seed, patience=patience, stop=stop)
    return decoders.Recipe(knobs["batch_size"], knobs["loss"], schedule)


def _candidates(rates: list[float], fitted: decoders.Fitted) -> list[dict[str, Any]]:
    both = zip(rates, fitted.values, fitted.epochs, strict=True)
    return [{"learning_rate": r, "value": None if np.isnan(v) else v, "epochs": e} for r, v, e in both]


def _few_shot(job: Job, knobs: dict[str, Any], layers: tuple[int, ...]) -> FewShot:
    """Fit a linear decoder to each draw, learning rate and steps fixed; count the labels of every test case."""
    wanted, batch_size = knobs["few_shot"], knobs["linear"]["batch_size"]
    every = few_shot.every(
        job.index, job.split, "segmentation", wanted["shots"], wanted["draws"], job.seed, knobs["paper"]
    )

    def fit(draw: few_shot.Draw) -> torch.nn.Module:
        maps = job.maps(layers, "train", split=draw.split)
        epochs = max(1, round(wanted["steps"] / math.ceil(len(maps) / batch_size)))
        how = _recipe({**knobs["linear"], "batch_size": min(batch_size, len(maps))}, job.seed, epochs)
        build = partial(networks.build, {"kind": "linear", "labels": job.labels}, maps.statistics())
        (decoder,) = decoders.fit(build, maps, job.labels, [wanted["learning_rate"]], how).decoders
        return decoder

    fitted = few_shot.fit_each(every, fit)
    kept = [number for number, decoder in enumerate(fitted) if decoder is not None]
    cases, counted = decoders.counts([fitted[number] for number in kept], job.maps(layers, "test"), job.labels)
    counts = np.zeros((len(every), len(cases), job.labels, job.labels), np.int64)
    counts[kept] = counted
    return few_shot.scored(every, counts)


# --- the ceiling, and what is asked of a split ------------------------------------------------------------------------


def _ceiling(index: Index, pixels: Pixels, split: Split, folder: Path) -> Predictions:
    """Return as predictions what is left of the truth at the stored size: the best that any model here could score."""
    labels = len(split.classes) + 1
    truth = lambda mask: torch.from_numpy(mask.copy()).long()  # noqa: E731

    def cases(part: str) -> Iterator[tuple]:
        rows = split.rows(index, part)
        names = index.table["volume_id"].to_numpy()[rows]
        for case in dict.fromkeys(names):
            of_case = rows[names == case]
            slices = [
                to_original(one_hot(truth(pixels.masks[row]), labels).movedim(-1, 0), tuple(pixels.shapes[row]))
                for row in of_case
            ]
            yield case, *label_maps.joined(index, of_case, slices, part)

    LabelMaps.write(folder, CEILING, chain(cases("val"), cases("test")))
    facts = {"protocols": {CEILING: {**NO_COST, "chosen": {}, "selected_on": "nothing"}}, "embedding": NO_COST}
    maps = {CEILING: LabelMaps.read(folder, CEILING)}
    return Predictions(split.classes, maps=maps, facts=facts)


def _check(dataset: str, index: Index, pixels: Pixels, split: Split) -> None:
    for part in ("train", "val", "test"):
        if not len(split.rows(index, part)):
            reason = f"part {part} has no sample here"
            raise RadprobeError(f"{dataset}, its split", reason, "choose another split, or get the whole download")
    if pixels.masks is None:
        raise RadprobeError(f"{dataset}, its pixels", "have no masks: no decoder can be trained", "run prepare again")
    if (most := int(pixels.masks.max())) > len(split.classes):
        reason = f"have label {most}, but its split has {len(split.classes)} classes"
        raise RadprobeError(f"{dataset}, its masks", reason, "mend the module that reads this dataset")
    for part in ("train", "val"):
        if not pixels.masks[split.rows(index, part)].any():
            reason = f"every mask of part {part} is empty, so no decoder can be {USE[part]}"
            raise RadprobeError(f"{dataset}, its split", reason, "choose another split, or look at the masks")
