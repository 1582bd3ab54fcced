"""adapt: a backbone trained with its head on one dataset, in one way: every bias, LoRA, or end to end."""

import shutil
from dataclasses import dataclass, replace
from itertools import chain, product
from pathlib import Path
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
from radprobe.learning.device import device, device_name, fits, measured
from radprobe.learning.features import Grey
from radprobe.learning.maps import EVERY, Maps, channel_statistics
from radprobe.models import adapters, backbones
from radprobe.models.decoders import Decoder, Linear, Statistics, UNet
from radprobe.models.tuned import Classifier, Segmenter, encode, vectors
from radprobe.study import Step, Study, frozen

NO_COST = {"seconds": 0.0, "peak_gb": 0.0}
PARTS = ("train", "val", "test")
STATISTICS = 512  # images of train, at most, by which heads standardise what they read
Rates = tuple[float, float]  # of the backbone, of the head
Network = Classifier | Segmenter


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
    def training(self) -> Path:
        """The folder of checkpoints, removed in the end."""
        return self.step.folder / "training"

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
        return encoder.to(self.where).eval()

    def schedule(self, epochs: int, patience: int | None = None, stop: int | None = None) -> loop.Schedule:
        """Return the schedule of a fit; `stop` leaves it early. A quarter of it, at most, is warm-up."""
        same = {key: self.knobs[key] for key in ("seed", "accumulate", "precision")}
        warmup = min(self.knobs["warmup"], epochs / 4)
        return loop.Schedule(epochs=epochs, patience=patience, stop=stop, warmup=warmup, **same)


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
                raise RadprobeError(f"{job.step.dataset}, its split", reason, "choose another split of this dataset")

    def _of(self, split: Split, *parts: str) -> np.ndarray:
        return self.cases.of(split.rows(self.job.index, *parts))

    def _images(self, split: Split, *parts: str) -> tuning.Images:
        cases = self._of(split, *parts)
        every = min(tuning.EVERY, self.job.knobs["batch_size"])
        return tuning.Images(self.grey, self.cases.rows(cases), self.labels[cases], self.job.where, every)

    def size(self, split: Split, *parts: str) -> int:
        """Return the number of cases in some parts."""
        return len(self._of(split, *parts))

    def steps(self, split: Split) -> float:
        """Return the batches of an epoch over train."""
        train = self._images(split, "train")
        return len(train) / train.together(self.job.knobs["batch_size"], self.job.knobs["slices"])

    def fit(self, rates: Rates, schedule, parts, split: Split, val: bool = False, **how) -> tuning.Fitted:
        """Train on `parts` of a split."""
        train, knobs = self._images(split, *parts), self.job.knobs
        recipe = tuning.Recipe(knobs["batch_size"], knobs["slices"], self.exclusive, *rates, schedule)

        def make() -> Classifier:
            encoder, some = self.job.encoder(), _some(np.concatenate(train.rows))
            adapters.rest(encoder, vectors(encoder, train.take(some[:1])))
            statistics = channel_statistics([vectors(encoder, each)] for each in train.in_order(some))
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

    def test(self, network: Classifier | None, split: Split) -> np.ndarray:
        """Return the scores of test, [cases by id, classes], of a network that was trained on the few of a split.

        NaN for a class that they could not teach; all of it where there is no network.
        """
        cases = self._of(self.job.split, "test")
        scores = np.full((len(cases), len(split.classes)), np.nan, np.float32)
        if network:
            taught = selection.both_present(self.labels[self._of(split, "train")].numpy())
            found = tuning.logits(network, self._images(self.job.split, "test"))
            scores[:, taught] = ranking(found, self.exclusive).numpy()[:, taught]
        return scores[np.argsort(self.cases.ids[cases])]


class Segmentation:
    """Adapting to segment, with a linear or a U-Net decoder."""

    chosen_by = "mean DSC per case over foreground classes, at the stored size"

    def __init__(self, job: Job):
        self.job, self.grey, self.labels = job, job.grey("turn"), len(job.split.classes) + 1
        entry, kind = job.study.backbone(job.step.backbone), "unet" if job.knobs["unet_widths"] else "linear"
        self.layers = backbones.layers(entry, [kind])[kind]
        for part in PARTS:
            if not self.size(job.split, part):
                reason = f"part {part} has no sample here"
                raise RadprobeError(f"{job.step.dataset}, its split", reason, "choose another split")

    def _maps(self, split: Split, *parts: str) -> Maps:
        rows = split.rows(self.job.index, *parts)
        cases = self.job.index.table["volume_id"].to_numpy()[rows]
        return Maps(self.grey, (-1,), self.job.pixels.masks, rows, cases, self.job.where)

    def size(self, split: Split, *parts: str) -> int:
        """Return the number of images in some parts."""
        return len(split.rows(self.job.index, *parts))

    def steps(self, split: Split) -> float:
        """Return the batches of an epoch over train."""
        return self.size(split, "train") / self.job.knobs["batch_size"]

    def fit(self, rates: Rates, schedule, parts, split: Split, val: bool = False, **how) -> tuning.Fitted:
        """Train on `parts` of a split."""
        train, (backbone_rate, rate) = self._maps(split, *parts), rates
        recipe = decoders.Recipe(self.job.knobs["batch_size"], self.job.knobs["loss"], schedule)

        def make() -> Segmenter:
            encoder, some = self.job.encoder(self.layers), _some(np.arange(len(train)))
            adapters.rest(encoder, *encode(encoder, train.features(some[:1])[0]).dense)
            images = (train.features(some[start : start + EVERY])[0] for start in range(0, len(some), EVERY))
            statistics = channel_statistics(encode(encoder, each).dense for each in images)
            return Segmenter(encoder, self._head(statistics), backbone_rate)

        found = decoders.fit(make, train, self.labels, [rate], recipe, self._maps(split, "val") if val else None, **how)
        return tuning.Fitted(found.decoders[0], found.values[0], found.epochs[0], found.history)

    def _head(self, statistics: Statistics) -> Decoder:
        widths = self.job.knobs["unet_widths"]
        return UNet(statistics, self.labels, widths) if widths else Linear(statistics, self.labels)

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

    def test(self, network: Segmenter | None, split: Split) -> np.ndarray:
        """Return the pixels of every case of test by true and predicted label, [cases, K, K]; 0 without a network."""
        tests = self._maps(self.job.split, "test")
        if network is None:
            return np.zeros((len(np.unique(tests.cases)), self.labels, self.labels), np.int64)
        return decoders.counts([network], tests, self.labels)[1][0]


Task = Classification | Segmentation


def run(study: Study, step: Step) -> None:
    """Read Index, Pixels, Split, its LeakCertificate and Weights; write Predictions and the Adapter."""
    prepared, parted = step.need("prepare").folder, step.need("split").folder
    LeakCertificate.load(parted)
    weights, where = Weights.load(step.need("weights").folder), device(study.params.device)
    job = Job(study, step, Index.load(prepared), Pixels.load(prepared), Split.load(parted), weights, where)
    task = Segmentation(job) if step.knobs["task"] == "segmentation" else Classification(job)
    with fits(step.backbone, where):
        _run(job, task)
    shutil.rmtree(job.training, ignore_errors=True)


def _run(job: Job, task: Task) -> None:
    step, mode, took = job.step, job.knobs["mode"], {}
    with measured(took, job.where):
        candidates = _search(job, task)
        networks, training = _choose(job, task, candidates)
    chosen = next(each for each in candidates if each.was_chosen)
    took["seconds"] = max(took["seconds"], _seconds(training))
    facts = {"chosen": chosen.settings, "value": chosen.value, "selected_on": "val", "selected_by": task.chosen_by}
    facts |= {"candidates": [each.told for each in candidates], **_counts(networks["test"]), **took}
    facts |= {f"n_{part}": task.size(job.split, part) for part in PARTS}
    facts["diverged_when_refitted"] = [each.settings for each in candidates if each.diverged_again]
    everything = {"protocols": {mode: facts}, "embedding": NO_COST, "device": device_name(job.where)}
    few_shot = None
    if job.knobs["few_shot"]:
        took = {}
        with measured(took, job.where):
            few_shot = _few_shot(job, task)
        everything["few_shot"] = {**job.knobs["few_shot"], "mode": mode, **took}
    predictions = task.save(networks, everything, few_shot=few_shot, training=training.assign(protocol=mode))
    _save_adapter(job, networks["test"])
    predictions.save(step.folder, step.spec)
    console.say(f"{step.dataset} {step.backbone}: val {task.chosen_by} {chosen.value:.4f} with {chosen.settings}")


@dataclass
class Candidate:
    """A pair of learning rates: the fit on train, None where it diverged; how val judged it, and what became of it."""

    number: int
    rates: Rates
    fitted: tuning.Fitted | None
    was_chosen: bool = False
    diverged_again: bool = False

    @property
    def value(self) -> float | None:
        """The best value on val, None where it is undefined."""
        return None if self.fitted is None or np.isnan(self.fitted.value) else self.fitted.value

    @property
    def settings(self) -> dict[str, Any]:
        """The learning rates and the best epoch."""
        rates = dict(zip(("backbone_rate", "head_rate"), self.rates, strict=True))
        return rates | {"epochs": self.fitted.epochs if self.fitted else 0}

    @property
    def told(self) -> dict[str, Any]:
        """What Predictions hold of it."""
        return {**self.settings, "value": self.value}


def _search(job: Job, task: Task) -> list[Candidate]:
    """Train on train with every pair of learning rates, one after the other. Raises where all have diverged."""
    grid = list(product(job.knobs["backbone_rates"], job.knobs["head_rates"]))
    candidates, best = [], None
    for number, rates in enumerate(grid):
        candidate = Candidate(number, rates, _fit(job, task, number, rates, len(grid)))
        candidates.append(candidate)
        if candidate.value is None:
            continue
        if best is None or candidate.value > best.value:
            best, candidate = candidate, best
        if candidate:  # one network is kept; the others are in their checkpoints
            candidate.fitted = replace(candidate.fitted, network=None)
    if best is None:
        reason = "no pair of learning rates has a defined value on val"
        raise RadprobeError(job.step.backbone, reason, "lower adapt's learning rates, or look at the images")
    return candidates


def _fit(job: Job, task: Task, number: int, rates: Rates, of: int) -> tuning.Fitted | None:
    what = job.step.backbone + (f", learning rates {number + 1} of {of}" if of > 1 else "")
    schedule = job.schedule(job.knobs["epochs"], job.knobs["patience"])
    how = {"folder": job.training / f"search{number}", "what": what}
    try:
        return task.fit(rates, schedule, ("train",), job.split, val=True, **how)
    except loop.Diverged as error:
        if of == 1:
            raise
        console.say(f"{error}")
        return None


def _choose(job: Job, task: Task, candidates: list[Candidate]) -> tuple[dict[str, Network], pd.DataFrame]:
    """Fit the best by val again on train and val; one that diverges then gives way to the next best.

    Returns the networks that speak of val (before this fit) and of test, and the curves of both fits.
    """
    defined = sorted((each for each in candidates if each.value is not None), key=lambda each: -each.value)
    for candidate in defined:
        schedule = job.schedule(job.knobs["epochs"], stop=candidate.settings["epochs"])
        how = {"folder": job.training / f"refit{candidate.number}", "what": f"{job.step.backbone}, again with val"}
        try:
            again = task.fit(candidate.rates, schedule, ("train", "val"), job.split, **how)
        except loop.Diverged as error:
            console.say(f"{error}")
            candidate.diverged_again = True
            continue
        candidate.was_chosen = True
        searched = candidate.fitted
        if searched.network is None:  # its checkpoint has it
            searched = _fit(job, task, candidate.number, candidate.rates, len(candidates))
        phases = (searched.history.assign(phase="search"), again.history.assign(phase="refit"))
        return {"val": searched.network, "test": again.network}, pd.concat(phases)
    reason = "every pair of learning rates diverged when it was fitted again on train and val"
    raise RadprobeError(job.step.backbone, reason, "lower adapt's learning rates, or look at the images")


def _seconds(training: pd.DataFrame) -> float:
    """Return the seconds of all epochs, those before a kill among them."""
    return float(training.drop_duplicates(["phase", "epoch"])["seconds"].sum())


def _few_shot(job: Job, task: Task) -> FewShot:
    """Adapt to each draw with the first learning rates and fixed steps; say what each makes of test."""
    knobs, wanted = job.knobs, job.knobs["few_shot"]
    every = draws.every(job.index, job.split, knobs["task"], wanted, knobs["seed"], paper=False)
    rates, rows, scores = (knobs["backbone_rates"][0], knobs["head_rates"][0]), [], []
    for number, (protocol, draw) in enumerate(console.track(every, "few-shot (draws)", len(every))):
        epochs = max(1, round(wanted["steps"] * knobs["accumulate"] / task.steps(draw.split)))
        folder = job.training / f"draw{number}"
        try:
            network = task.fit(rates, job.schedule(epochs), ("train",), draw.split, folder=folder).network
        except loop.Diverged as error:
            console.say(f"{protocol}, draw {number + 1}: {error}")
            network = None
        scores.append(task.test(network, draw.split))
        rows.append(draw.row(protocol))
    return FewShot(pd.DataFrame(rows, columns=FewShot.COLUMNS), np.stack(scores))


def _some(rows: np.ndarray) -> np.ndarray:
    """Return rows for the statistics that heads standardise by: evenly spaced, all of them where they are few."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), STATISTICS)).round().astype(int)]


def _counts(network: Network) -> dict[str, int]:
    """Return how many parameters were trained, the head's among them, and how many backbone and head have."""
    head = sum(each.numel() for each in network.head.parameters())
    moved = sum(each.numel() for each in adapters.trained(network.encoder).values())
    named = network.encoder.tower.model.named_parameters()
    plain = sum(each.numel() for name, each in named if ".lora_" not in name)
    return {"parameters": moved + head, "parameters_of_all": plain + head}


def _save_adapter(job: Job, network: Network) -> None:
    facts = {"backbone": frozen(job.step.backbone), "base": adapters.identity(job.weights), "spec": job.step.spec}
    facts |= {"mode": job.knobs["mode"], "lora": lora_of(job.knobs)}
    facts |= {"dataset": job.step.dataset, "classes": job.split.classes}
    adapters.save(job.step.folder / Adapter.FILE, network.encoder, network.head.state_dict(), facts)
    Adapter.seal(job.step.folder, job.step.spec)


def lora_of(knobs: dict[str, Any]) -> dict[str, Any] | None:
    """Return the settings of LoRA, None for another mode."""
    keys = ("rank", "alpha", "dropout", "targets")
    return {key: knobs[key] for key in keys} if knobs["mode"] == adapters.LORA else None
