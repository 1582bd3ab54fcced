"""Adapting a backbone with its head to one dataset: what every fit of a job shares, and two tasks of one interface.

`tuning` and `decoders` train; here is what they train, on which images, and what the networks then say.
"""

import math
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from radprobe.artifacts import PARTS, Index, LabelMaps, Pixels, Split, Weights
from radprobe.catalog import Backbone, Intensity
from radprobe.files import RadprobeError
from radprobe.imaging import intensity
from radprobe.learning import decoders, label_maps, loop, selection, tuning
from radprobe.learning.augment import Views
from radprobe.learning.cases import Cases, ranking
from radprobe.learning.features import Grey
from radprobe.learning.maps import EVERY, Maps, channel_statistics
from radprobe.models import adapters, backbones
from radprobe.models.decoders import Decoder, Linear, Statistics, UNet
from radprobe.models.tuned import Classifier, Segmenter, encode, vectors

STATISTICS = 512  # images of train, at most, by which heads standardise what they read
Rates = tuple[float, float]  # of the backbone, of the head
Network = Classifier | Segmenter


@dataclass(frozen=True)
class Job:
    """What every fit of a job shares: the backbone and its weights, the images, and the options (`knobs`)."""

    dataset: str
    entry: Backbone
    weights: Weights
    index: Index
    pixels: Pixels
    split: Split
    scale: Intensity
    knobs: dict[str, Any]
    folder: Path
    where: torch.device

    @property
    def name(self) -> str:
        """The backbone and the way to adapt it: <id>+<mode>."""
        return self.entry.id

    @property
    def training(self) -> Path:
        """The folder of checkpoints, removed in the end."""
        return self.folder / "training"

    @property
    def lora(self) -> dict[str, Any] | None:
        """The settings of LoRA, None for another mode."""
        keys = ("rank", "alpha", "dropout", "targets")
        return {key: self.knobs[key] for key in keys} if self.knobs["mode"] == adapters.LORA else None

    def grey(self, kind: str) -> Grey:
        """Return the images as grey values; each epoch sees its own views: `crop`, or `turn`."""
        ranges = intensity.ranges(self.pixels.images, self.index.table["volume_id"], self.scale)
        views = Views(kind, len(self.pixels.images), self.knobs["seed"], None)
        return Grey(self.pixels.images, ranges, self.knobs["size"], views, self.where)

    def encoder(self, dense: tuple[int, ...] = ()) -> backbones.Encoder:
        """Build the backbone with its weights, of which those parameters move that the mode names."""
        encoder = backbones.build(self.entry, self.weights, self.knobs["size"], 1, dense, frozen=False)
        adapters.adapt(encoder.to(self.where), self.knobs["mode"], self.lora)
        return encoder.to(self.where).eval()

    def schedule(self, epochs: int, patience: int | None = None, stop: int | None = None) -> loop.Schedule:
        """Return the schedule of a fit; `stop` leaves it early. A quarter of it, at most, is warm-up."""
        same = {key: self.knobs[key] for key in ("seed", "accumulate", "precision")}
        warmup = min(self.knobs["warmup"], epochs / 4)
        return loop.Schedule(epochs=epochs, patience=patience, stop=stop, warmup=warmup, **same)


class Classification:
    """Adapting to classify; the interface that it shares with Segmentation is `fit`, `predict` and `test`."""

    chosen_by = "macro AUROC"

    def __init__(self, job: Job):
        self.job, self.cases = job, Cases(job.index)
        self.exclusive = job.knobs["task"] == "multiclass"
        self.labels = self.cases.labels(job.index, job.split, self.exclusive)
        self.grey = job.grey("crop")
        for part in ("train", "val"):
            if not selection.both_present(self.labels[self._of(job.split, part)].numpy()).any():
                reason = f"no class has both a positive and a negative in {part}"
                raise RadprobeError(f"{job.dataset}, its split", reason, "choose another split of this dataset")

    def _of(self, split: Split, *parts: str) -> np.ndarray:
        return self.cases.of(split.rows(self.job.index, *parts))

    def _images(self, split: Split, *parts: str) -> tuning.Images:
        cases = self._of(split, *parts)
        every = min(tuning.EVERY, self.job.knobs["batch_size"])
        return tuning.Images(self.grey, self.cases.rows(cases), self.labels[cases], self.job.where, every)

    def size(self, split: Split, *parts: str) -> int:
        """Return the number of cases in some parts."""
        return len(self._of(split, *parts))

    def batches(self, split: Split) -> int:
        """Return the batches of an epoch over train."""
        train = self._images(split, "train")
        return math.ceil(len(train) / train.together(self.job.knobs["batch_size"], self.job.knobs["slices"]))

    def fit(self, rates: Rates, schedule, parts, split: Split, val: bool = False, **how) -> tuning.Fitted:
        """Train on `parts` of a split, and keep the best epoch by its val or, without `val`, the last one.

        how: `folder` and `what`, as of `loop.fit`.
        """
        train, knobs = self._images(split, *parts), self.job.knobs
        recipe = tuning.Recipe(knobs["batch_size"], knobs["slices"], self.exclusive, *rates, schedule)

        def make() -> Classifier:
            encoder, some = self.job.encoder(), _some(np.concatenate(train.rows))
            adapters.rest(encoder, vectors(encoder, train.take(some[:1])))
            statistics = channel_statistics([vectors(encoder, each)] for each in train.in_order(some))
            return Classifier(encoder, statistics, len(split.classes))

        return tuning.fit(make, train, recipe, self._images(split, "val") if val else None, **how)

    def predict(self, networks: dict[str, Classifier]) -> dict[str, pd.DataFrame]:
        """Return the `table` of Predictions: what the networks of val and of test say of their part."""
        split, tables = self.job.split, []
        for part, network in networks.items():
            cases = self._of(split, part)
            found = tuning.logits(network, self._images(split, part))
            told = (self.job.knobs["mode"], part, split.classes, found, self.labels[cases], self.exclusive)
            tables.append(self.cases.table(cases, *told))
        return {"table": pd.concat(tables, ignore_index=True)}

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

    chosen_by = decoders.CHOSEN_BY

    def __init__(self, job: Job):
        self.job, self.grey, self.labels = job, job.grey("turn"), len(job.split.classes) + 1
        kind = "unet" if job.knobs["unet_widths"] else "linear"
        self.layers = backbones.layers(job.entry, [kind])[kind]
        for part in PARTS:
            if not self.size(job.split, part):
                reason = f"part {part} has no sample here"
                raise RadprobeError(f"{job.dataset}, its split", reason, "choose another split")

    def _maps(self, split: Split, *parts: str) -> Maps:
        rows = split.rows(self.job.index, *parts)
        cases = self.job.index.table["volume_id"].to_numpy()[rows]
        return Maps(self.grey, (-1,), self.job.pixels.masks, rows, cases, self.job.where)

    def size(self, split: Split, *parts: str) -> int:
        """Return the number of images in some parts."""
        return len(split.rows(self.job.index, *parts))

    def batches(self, split: Split) -> int:
        """Return the batches of an epoch over train."""
        return math.ceil(self.size(split, "train") / self.job.knobs["batch_size"])

    def fit(self, rates: Rates, schedule, parts, split: Split, val: bool = False, **how) -> tuning.Fitted:
        """Train as Classification does."""
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

    def predict(self, networks: dict[str, Segmenter]) -> dict[str, dict[str, LabelMaps]]:
        """Write the label maps that the networks of val and of test make of their part: the `maps` of Predictions."""
        job, mode = self.job, self.job.knobs["mode"]
        cases = (
            label_maps.predicted(network, self._maps(job.split, part), job.index, job.pixels, part)
            for part, network in networks.items()
        )
        LabelMaps.write(job.folder, mode, chain.from_iterable(cases))
        return {"maps": {mode: LabelMaps.read(job.folder, mode)}}

    def test(self, network: Segmenter | None, split: Split) -> np.ndarray:
        """Return the pixels of every case of test by true and predicted label, [cases, K, K]; 0 without a network."""
        tests = self._maps(self.job.split, "test")
        if network is None:
            return np.zeros((len(np.unique(tests.cases)), self.labels, self.labels), np.int64)
        return decoders.counts([network], tests, self.labels)[1][0]


Task = Classification | Segmentation


def _some(rows: np.ndarray) -> np.ndarray:
    """Return rows for the statistics that heads standardise by: evenly spaced, all of them where they are few."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), STATISTICS)).round().astype(int)]
