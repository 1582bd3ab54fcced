"""adapt: a backbone trained with its head on one dataset, in one way: every bias, LoRA, or end to end."""

import shutil
from dataclasses import dataclass
from itertools import chain, product
from typing import Any

import numpy as np
import pandas as pd
import torch

from radprobe import console
from radprobe.artifacts import (
    Adapter,
    FewShot,
    Index,
    LabelMaps,
    LeakCertificate,
    Pixels,
    Predictions,
    Split,
    Weights,
)
from radprobe.files import RadprobeError
from radprobe.imaging import intensity
from radprobe.learning import decoders, draws, label_maps, loop, selection, tuning
from radprobe.learning.augment import Views
from radprobe.learning.cases import Cases, ranking
from radprobe.learning.device import device, measured
from radprobe.learning.features import Grey
from radprobe.learning.maps import Maps, channel_statistics
from radprobe.models import adapters, backbones
from radprobe.models.tuned import Classifier, Segmenter, encode, vectors
from radprobe.study import Step, Study, frozen

NO_COST = {"seconds": 0.0, "peak_gb": 0.0}
PARTS = ("train", "val", "test")
Rates = tuple[float, float]  # of the backbone, of the head


@dataclass(frozen=True)
class Job:
    """What every fit of a job shares."""

    study: Study
    step: Step
    index: Index
    pixels: Pixels
    split: Split
    weights: Weights
    where: torch.device

    @property
    def knobs(self) -> dict[str, Any]:
        """The options of this way to adapt."""
        return self.step.knobs

    def grey(self, kind: str) -> Grey:
        """Return the images as grey values; each epoch sees its own views: `crop`, or `turn`."""
        scale = self.study.dataset(self.step.dataset).intensity
        ranges = intensity.ranges(self.pixels.images, self.index.table["volume_id"], scale)
        views = Views(kind, len(self.pixels.images), self.knobs["seed"], None)
        return Grey(self.pixels.images, ranges, self.knobs["size"], views, self.where)

    def encoder(self, dense: tuple[int, ...] = ()) -> backbones.Encoder:
        """Build the backbone with its weights, of which those parameters move that the mode names."""
        entry = self.study.backbone(self.step.backbone)
        encoder = backbones.build(entry, self.weights, self.knobs["size"], 1, dense, frozen=False)
        adapters.adapt(encoder.to(self.where), self.knobs["mode"], lora_of(self.knobs))
        return encoder.to(self.where)

    def schedule(self, epochs: int, patience: int | None = None, stop: int | None = None) -> loop.Schedule:
        """Return the schedule of a fit; `stop` leaves it early."""
        same = {key: self.knobs[key] for key in ("seed", "warmup", "accumulate", "precision")}
        return loop.Schedule(epochs=epochs, patience=patience, stop=stop, **same)


class Classification:
    """Adapting to classify; the interface that it shares with Segmentation is `fit`, `save` and `test`."""

    chosen_by = "macro AUROC"

    def __init__(self, job: Job):
        self.job, self.cases = job, Cases(job.index)
        self.exclusive = job.knobs["task"] == "multiclass"
        self.labels = self.cases.labels(job.index, job.split, self.exclusive)
        self.grey = job.grey("crop")
        for part in ("train", "val"):
            if not selection.both_present(self.labels[self._of(job.split, part)].numpy()).any():
                reason = f"no class has both a positive and a negative in {part}"
                raise RadprobeError("the split", reason, "choose another split of this dataset")

    def _of(self, split: Split, *parts: str) -> np.ndarray:
        return self.cases.of(split.rows(self.job.index, *parts))

    def _images(self, split: Split, *parts: str) -> tuning.Images:
        cases = self._of(split, *parts)
        return tuning.Images(self.grey, self.cases.rows(cases), self.labels[cases], self.job.where)

    def size(self, split: Split, *parts: str) -> int:
        """Return the number of cases in some parts."""
        return len(self._of(split, *parts))

    def fit(self, rates: Rates, schedule, parts, split: Split, val: bool = False, **how) -> tuning.Fitted:
        """Train on `parts` of a split."""
        train, knobs = self._images(split, *parts), self.job.knobs
        recipe = tuning.Recipe(knobs["batch_size"], knobs["slices"], self.exclusive, *rates, schedule)

        def make() -> Classifier:
            encoder = self.job.encoder().eval()
            statistics = channel_statistics([vectors(encoder, each)] for each in train.in_order())
            return Classifier(encoder, statistics, len(split.classes))

        return tuning.fit(make, train, recipe, self._images(split, "val") if val else None, **how)

    def save(self, networks: dict[str, Classifier], facts: dict[str, Any], **more) -> Predictions:
        """Return what the networks say of val and of test, as Predictions."""
        split, tables = self.job.split, []
        for part, network in networks.items():
            cases = self._of(split, part)
            found = tuning.logits(network, self._images(split, part))
            told = (self.job.knobs["mode"], part, split.classes, found, self.labels[cases], self.exclusive)
            tables.append(self.cases.table(cases, *told))
        return Predictions(split.classes, pd.concat(tables, ignore_index=True), facts=facts, **more)

    def test(self, networks: list[Classifier]) -> np.ndarray:
        """Return the scores of test of networks that saw few patients, [networks, cases by id, classes]."""
        cases = self._of(self.job.split, "test")
        order = np.argsort(self.cases.ids[cases])
        images = self._images(self.job.split, "test")
        found = [ranking(tuning.logits(network, images), self.exclusive).numpy()[order] for network in networks]
        return np.stack(found).astype(np.float32)


class Segmentation:
    """Adapting to segment, with a linear decoder."""

    chosen_by = "mean DSC per case over foreground classes, at the stored size"

    def __init__(self, job: Job):
        self.job, self.grey, self.labels = job, job.grey("turn"), len(job.split.classes) + 1
        self.layer = (job.study.backbone(job.step.backbone).dense_layer,)
        for part in PARTS:
            if not self.size(job.split, part):
                raise RadprobeError("the split", f"its part {part} has no sample here", "choose another split")

    def _maps(self, split: Split, *parts: str) -> Maps:
        rows = split.rows(self.job.index, *parts)
        cases = self.job.index.table["volume_id"].to_numpy()[rows]
        return Maps(self.grey, (-1,), self.job.pixels.masks, rows, cases, self.job.where)

    def size(self, split: Split, *parts: str) -> int:
        """Return the number of images in some parts."""
        return len(split.rows(self.job.index, *parts))

    def fit(self, rates: Rates, schedule, parts, split: Split, val: bool = False, **how) -> tuning.Fitted:
        """Train on `parts` of a split."""
        train, (backbone_rate, rate) = self._maps(split, *parts), rates
        recipe = decoders.Recipe(self.job.knobs["batch_size"], self.job.knobs["loss"], schedule)

        def make() -> Segmenter:
            encoder = self.job.encoder(self.layer).eval()
            images = (train.features(batch)[0] for batch in train.in_order())
            statistics = channel_statistics(encode(encoder, each).dense for each in images)
            return Segmenter(encoder, statistics, self.labels, backbone_rate)

        found = decoders.fit(make, train, self.labels, [rate], recipe, self._maps(split, "val") if val else None, **how)
        return tuning.Fitted(found.decoders[0], found.values[0], found.epochs[0], found.history)

    def save(self, networks: dict[str, Segmenter], facts: dict[str, Any], **more) -> Predictions:
        """Write the label maps of val and of test, and return them as Predictions."""
        job, mode = self.job, self.job.knobs["mode"]
        cases = (
            label_maps.predicted(network, self._maps(job.split, part), job.index, job.pixels, part)
            for part, network in networks.items()
        )
        LabelMaps.write(job.step.folder, mode, chain.from_iterable(cases))
        maps = {mode: LabelMaps.read(job.step.folder, mode)}
        return Predictions(job.split.classes, maps=maps, facts=facts, **more)

    def test(self, networks: list[Segmenter]) -> np.ndarray:
        """Return the pixels of every case of test by true and predicted label, [networks, cases, K, K]."""
        return decoders.counts(networks, self._maps(self.job.split, "test"), self.labels)[1]


Task = Classification | Segmentation


def run(study: Study, step: Step) -> None:
    """Read Index, Pixels, Split, its LeakCertificate and Weights; write Predictions and the Adapter."""
    prepared, parted = step.need("prepare").folder, step.need("split").folder
    LeakCertificate.load(parted)
    weights, where = Weights.load(step.need("weights").folder), device(study.params.device)
    job = Job(study, step, Index.load(prepared), Pixels.load(prepared), Split.load(parted), weights, where)
    task = Segmentation(job) if step.knobs["task"] == "segmentation" else Classification(job)
    took: dict[str, Any] = {}
    with measured(took, where):
        searched, facts = _search(job, task)
        chosen = facts["chosen"]
        rates = chosen["backbone_rate"], chosen["head_rate"]
        schedule = job.schedule(step.knobs["epochs"], stop=chosen["epochs"])
        folder = step.folder / "training"
        how = {"folder": folder / "refit", "what": f"{step.backbone}, again with val"}
        again = task.fit(rates, schedule, ("train", "val"), job.split, **how)
    facts |= _counts(again.network) | took | {f"n_{part}": task.size(job.split, part) for part in PARTS}
    everything = {"protocols": {step.knobs["mode"]: facts}, "embedding": NO_COST}
    few_shot = None
    if step.knobs["few_shot"]:
        took = {}
        with measured(took, where):
            few_shot = _few_shot(job, task)
        everything["few_shot"] = {**step.knobs["few_shot"], "mode": step.knobs["mode"], **took}
    training = pd.concat([searched.history.assign(phase="search"), again.history.assign(phase="refit")])
    training["protocol"] = step.knobs["mode"]
    networks = {"val": searched.network, "test": again.network}
    predictions = task.save(networks, everything, few_shot=few_shot, training=training)
    _save_adapter(job, again.network)
    predictions.save(step.folder, step.spec)
    shutil.rmtree(folder, ignore_errors=True)
    console.say(f"{step.dataset} {step.backbone}: val {task.chosen_by} {facts['value']:.4f} with {chosen}")


def _search(job: Job, task: Task) -> tuple[tuning.Fitted, dict[str, Any]]:
    """Train with every pair of learning rates, one after the other; return the best by val, and what was chosen."""
    knobs, best, candidates = job.knobs, None, []
    grid = list(product(knobs["backbone_rates"], knobs["head_rates"]))
    for number, rates in enumerate(grid):
        of = f", learning rates {number + 1} of {len(grid)}" if len(grid) > 1 else ""
        how = {"folder": job.step.folder / "training" / f"search{number}", "what": job.step.backbone + of}
        schedule = job.schedule(knobs["epochs"], knobs["patience"])
        try:
            found = task.fit(rates, schedule, ("train",), job.split, val=True, **how)
        except loop.Diverged as error:
            if len(grid) == 1:
                raise
            console.say(f"{error}")
            found = None
        value = found.value if found and not np.isnan(found.value) else None
        named = {"backbone_rate": rates[0], "head_rate": rates[1]}
        candidates.append({**named, "value": value, "epochs": found.epochs if found else 0})
        if value is not None and (best is None or value > best.value):
            best, chosen = found, {**named, "epochs": found.epochs}
    if best is None:
        reason = "no pair of learning rates has a defined value on val"
        raise RadprobeError(job.step.backbone, reason, "lower adapt's learning rates, or look at the images")
    facts = {"chosen": chosen, "value": best.value, "selected_on": "val", "selected_by": task.chosen_by}
    return best, {**facts, "candidates": candidates}


def _few_shot(job: Job, task: Task) -> FewShot:
    """Adapt to each draw with the first learning rates and fixed steps; say what each makes of test."""
    knobs, wanted = job.knobs, job.knobs["few_shot"]
    every = draws.every(job.index, job.split, knobs["task"], wanted, knobs["seed"], paper=False)
    rates, rows, scores = (knobs["backbone_rates"][0], knobs["head_rates"][0]), [], []
    for protocol, draw in console.track(every, "few-shot (draws)", len(every)):
        epochs = max(1, round(wanted["steps"] * knobs["batch_size"] / task.size(draw.split, "train")))
        found = task.fit(rates, job.schedule(epochs), ("train",), draw.split)
        scores.append(task.test([found.network])[0])
        rows.append(draw.row(protocol))
    return FewShot(pd.DataFrame(rows, columns=FewShot.COLUMNS), np.stack(scores))


def _counts(network: Classifier | Segmenter) -> dict[str, int]:
    """Return how many parameters were trained, the head's among them, and how many there are."""
    head = sum(each.numel() for each in network.head.parameters())
    moved = sum(each.numel() for each in adapters.trained(network.encoder).values())
    return {"parameters": moved + head, "parameters_of_all": network.encoder.parameters_count + head}


def _save_adapter(job: Job, network: Classifier | Segmenter) -> None:
    facts = {"backbone": frozen(job.step.backbone), "dataset": job.step.dataset, "mode": job.knobs["mode"]}
    facts |= {"base_sha256": job.weights.sha256, "lora": lora_of(job.knobs), "classes": job.split.classes}
    adapters.save(
        job.step.folder / Adapter.FILE, network.encoder, network.head.state_dict(), {**facts, "spec": job.step.spec}
    )
    Adapter.seal(job.step.folder, job.step.spec)


def lora_of(knobs: dict[str, Any]) -> dict[str, Any] | None:
    """Return the settings of LoRA, None for another mode."""
    keys = ("rank", "alpha", "dropout", "targets")
    return {key: knobs[key] for key in keys} if knobs["mode"] == adapters.LORA else None
