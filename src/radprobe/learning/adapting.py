"""Adapting a backbone with its head to one dataset: what every fit of a job shares, and two tasks of one interface.

`tuning` and `decoders` train; here is what they train, on which images, and what the networks then say.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch

from radprobe.artifacts import PARTS, FewShotScores, Index, LabelMaps, Pixels, Predictions, Split, Weights
from radprobe.catalog import EncoderEntry, Intensity
from radprobe.files import RadprobeError
from radprobe.imaging import intensity
from radprobe.learning import decoders, few_shot, label_maps, loop, selection, tuning
from radprobe.learning.augment import Views
from radprobe.learning.cases import Cases, ranking
from radprobe.learning.features import Grey
from radprobe.learning.maps import EVERY, Maps, channel_statistics, masks_of
from radprobe.learning.tuning import Network
from radprobe.models import adapters, backbones
from radprobe.models.adapters import LoraOptions
from radprobe.models.decoders import Decoder, PixelwiseLinear, Statistics, UNet
from radprobe.models.tuned import BackboneClassifier, BackboneSegmenter, encode, vectors

STATISTICS = 512  # images of train, at most, by which heads standardise what they read
Rates = tuple[float, float]  # of the backbone, of the head


@dataclass(frozen=True)
class AdaptingOptions:
    """How a backbone is adapted: in which mode, with which learning rates, for how long, with which head.

    task: multilabel, binary, multiclass or segmentation. slices: those of a volume in a step, to classify. loss and
    unet_widths (None: a linear decoder) are of the decoder, to segment.
    """

    mode: str
    task: str
    seed: int
    size: int  # side of the images, pixels
    intensity: Intensity
    backbone_rates: tuple[float, ...]
    head_rates: tuple[float, ...]
    lora: LoraOptions | None
    epochs: int
    batch_size: int
    warmup: float  # epochs
    patience: int | None
    accumulate: int
    precision: loop.Precision
    slices: int = 1
    loss: decoders.LossName = "dice"
    unet_widths: tuple[int, ...] | None = None


@dataclass(frozen=True)
class FewShotAdapting:
    """Adapting to few patients: the draws, and about how many steps each is trained."""

    shots: tuple[int, ...]
    draws: int
    steps: int


@dataclass(frozen=True)
class Adaptation:
    """What every fit of a job shares: the backbone and its weights, the images, and the options."""

    dataset: str
    name: str  # the backbone and the mode: <id>+<mode>
    encoder_facts: EncoderEntry
    weights: Weights
    index: Index
    pixels: Pixels
    split: Split
    options: AdaptingOptions
    folder: Path
    device: torch.device

    @property
    def training(self) -> Path:
        """The folder of checkpoints, removed in the end."""
        return self.folder / "training"

    def grey(self, kind: str) -> Grey:
        """Return the images as grey values; each epoch sees its own views: `crop`, or `turn`."""
        ranges = intensity.ranges(self.pixels.images, self.index.table["volume_id"], self.options.intensity)
        views = Views(kind, len(self.pixels.images), self.options.seed, None)
        return Grey(self.pixels.images, ranges, self.options.size, views, self.device)

    def encoder(self, dense: tuple[int, ...] = ()) -> backbones.Encoder:
        """Build the backbone with its weights, of which those parameters move that the mode names."""
        encoder = backbones.build(self.encoder_facts, self.weights, self.options.size, 1, dense, frozen=False)
        adapters.adapt(encoder.to(self.device), self.options.mode, self.options.lora)
        return encoder.to(self.device).eval()

    def schedule(self, epochs: int, patience: int | None = None, stop: int | None = None) -> loop.Schedule:
        """Return the schedule of a fit; `stop` leaves it early. A quarter of it, at most, is warm-up."""
        return loop.Schedule(
            epochs=epochs,
            seed=self.options.seed,
            warmup=min(self.options.warmup, epochs / 4),
            accumulate=self.options.accumulate,
            patience=patience,
            precision=self.options.precision,
            stop=stop,
        )


class Classification:
    """Adapting to classify; the interface that it shares with Segmentation is `fit`, `predict` and `test`."""

    chosen_by = "macro AUROC"

    def __init__(self, adaptation: Adaptation):
        self.adaptation = adaptation
        self.cases = Cases(adaptation.index)
        self.exclusive = adaptation.options.task == "multiclass"
        self.labels = self.cases.labels(adaptation.index, adaptation.split, self.exclusive)
        self.grey = adaptation.grey("crop")
        for part in ("train", "val"):
            if not selection.both_present(self.labels[self._of(adaptation.split, part)].numpy()).any():
                reason = f"no class has both a positive and a negative in {part}"
                raise RadprobeError(f"{adaptation.dataset}, its split", reason, "choose another split of this dataset")

    def _of(self, split: Split, *parts: str) -> np.ndarray:
        return self.cases.of(split.rows(self.adaptation.index, *parts))

    def _images(self, split: Split, *parts: str) -> tuning.Images:
        cases = self._of(split, *parts)
        every = min(tuning.EVERY, self.adaptation.options.batch_size)
        return tuning.Images(self.grey, self.cases.rows(cases), self.labels[cases], self.adaptation.device, every)

    def size(self, split: Split, *parts: str) -> int:
        """Return the number of cases in some parts."""
        return len(self._of(split, *parts))

    def batches(self, split: Split) -> int:
        """Return the batches of an epoch over train."""
        train, options = self._images(split, "train"), self.adaptation.options
        return math.ceil(len(train) / train.together(options.batch_size, options.slices))

    def fit(
        self,
        rates: Rates,
        schedule: loop.Schedule,
        parts: tuple[str, ...],
        split: Split,
        *,
        val: bool = False,
        folder: Path | None = None,
        what: str | None = None,
    ) -> tuning.TunedNetwork:
        """Train on `parts` of a split, and keep the best epoch by its val or, without `val`, the last one.

        folder and what: as in `loop.fit`. Raises Diverged.
        """
        train = self._images(split, *parts)
        options = self.adaptation.options
        backbone_rate, head_rate = rates
        recipe = tuning.TuningRecipe(
            batch_size=options.batch_size,
            slices=options.slices,
            exclusive=self.exclusive,
            backbone_rate=backbone_rate,
            head_rate=head_rate,
            schedule=schedule,
        )

        def make() -> BackboneClassifier:
            encoder, some = self.adaptation.encoder(), _some(np.concatenate(train.rows))
            adapters.rest(encoder, vectors(encoder, train.take(some[:1])))
            statistics = channel_statistics([vectors(encoder, each)] for each in train.in_order(some))
            return BackboneClassifier(encoder, statistics, len(split.classes))

        validation = self._images(split, "val") if val else None
        return tuning.fit(make, train, recipe, validation, folder=folder, what=what)

    def predict(self, networks: Mapping[str, Network]) -> Predictions:
        """Return what the networks of val and of test predict of their part."""
        split, mode = self.adaptation.split, self.adaptation.options.mode
        tables = []
        for part, network in networks.items():
            cases = self._of(split, part)
            found = tuning.logits(cast(BackboneClassifier, network), self._images(split, part))
            tables.append(self.cases.table(cases, mode, part, split.classes, found, self.labels[cases], self.exclusive))
        return Predictions(split.classes, table=pd.concat(tables, ignore_index=True))

    def test(self, network: Network | None, split: Split) -> np.ndarray:
        """Return the scores of test, [cases by id, classes], of a network that was trained on the few of a split.

        NaN for a class that they could not teach; all of it without a network.
        """
        cases = self._of(self.adaptation.split, "test")
        scores = np.full((len(cases), len(split.classes)), np.nan, np.float32)
        if network:
            taught = selection.both_present(self.labels[self._of(split, "train")].numpy())
            tests = self._images(self.adaptation.split, "test")
            found = tuning.logits(cast(BackboneClassifier, network), tests)
            scores[:, taught] = ranking(found, self.exclusive).numpy()[:, taught]
        return scores[np.argsort(self.cases.ids[cases])]


class Segmentation:
    """Adapting to segment, with a linear or a U-Net decoder."""

    chosen_by = decoders.CHOSEN_BY

    def __init__(self, adaptation: Adaptation):
        self.adaptation = adaptation
        self.grey = adaptation.grey("turn")
        self.labels = len(adaptation.split.classes) + 1
        kind = "unet" if adaptation.options.unet_widths else "linear"
        self.layers = backbones.layers(adaptation.encoder_facts, [kind])[kind]
        for part in PARTS:
            if not self.size(adaptation.split, part):
                reason = f"part {part} has no sample here"
                raise RadprobeError(f"{adaptation.dataset}, its split", reason, "choose another split")

    def _maps(self, split: Split, *parts: str) -> Maps:
        shared = self.adaptation
        rows = split.rows(shared.index, *parts)
        cases = shared.index.table["volume_id"].to_numpy()[rows]
        return Maps(self.grey, (-1,), masks_of(shared.pixels), rows, cases, shared.device)

    def size(self, split: Split, *parts: str) -> int:
        """Return the number of images in some parts."""
        return len(split.rows(self.adaptation.index, *parts))

    def batches(self, split: Split) -> int:
        """Return the batches of an epoch over train."""
        return math.ceil(self.size(split, "train") / self.adaptation.options.batch_size)

    def fit(
        self,
        rates: Rates,
        schedule: loop.Schedule,
        parts: tuple[str, ...],
        split: Split,
        *,
        val: bool = False,
        folder: Path | None = None,
        what: str | None = None,
    ) -> tuning.TunedNetwork:
        """Train as Classification does. Raises Diverged."""
        train = self._maps(split, *parts)
        backbone_rate, head_rate = rates
        options = self.adaptation.options
        recipe = decoders.DecoderRecipe(options.batch_size, options.loss, schedule)

        def make() -> BackboneSegmenter:
            encoder, some = self.adaptation.encoder(self.layers), _some(np.arange(len(train)))
            adapters.rest(encoder, *encode(encoder, train.features(some[:1])[0]).dense)
            images = (train.features(some[start : start + EVERY])[0] for start in range(0, len(some), EVERY))
            statistics = channel_statistics(encode(encoder, each).dense for each in images)
            return BackboneSegmenter(encoder, self._head(statistics), backbone_rate)

        validation = self._maps(split, "val") if val else None
        found = decoders.fit(make, train, self.labels, [head_rate], recipe, validation, folder=folder, what=what)
        (network,) = found.decoders
        return tuning.TunedNetwork(network, found.values[0], found.epochs[0], found.history)

    def _head(self, statistics: Statistics) -> Decoder:
        widths = self.adaptation.options.unet_widths
        return UNet(statistics, self.labels, widths) if widths else PixelwiseLinear(statistics, self.labels)

    def predict(self, networks: Mapping[str, Network]) -> Predictions:
        """Write the label maps that the networks of val and of test predict of their part."""
        shared, mode = self.adaptation, self.adaptation.options.mode
        cases = (
            label_maps.predicted(
                cast(BackboneSegmenter, network), self._maps(shared.split, part), shared.index, shared.pixels, part
            )
            for part, network in networks.items()
        )
        LabelMaps.write(shared.folder, mode, chain.from_iterable(cases))
        return Predictions(shared.split.classes, maps={mode: LabelMaps.read(shared.folder, mode)})

    def test(self, network: Network | None, split: Split) -> np.ndarray:
        """Return the pixels of every case of test by true and predicted label, [cases, K, K]; 0 without a network."""
        tests = self._maps(self.adaptation.split, "test")
        if network is None:
            return np.zeros((len(np.unique(tests.cases)), self.labels, self.labels), np.int64)
        counts: np.ndarray = decoders.counts([cast(BackboneSegmenter, network)], tests, self.labels)[1][0]
        return counts


Task = Classification | Segmentation


def few_shot_curve(task: Task, options: FewShotAdapting) -> FewShotScores:
    """Adapt to each draw with the first learning rates and fixed steps; return what each predicts of test."""
    shared, how = task.adaptation, task.adaptation.options
    every = few_shot.every(shared.index, shared.split, how.task, options.shots, options.draws, how.seed, paper=False)
    rates = (how.backbone_rates[0], how.head_rates[0])

    def fit(draw: few_shot.Draw) -> np.ndarray:
        epochs = max(1, round(options.steps / math.ceil(task.batches(draw.split) / how.accumulate)))
        folder = shared.training / draw.name
        fitted = task.fit(rates, shared.schedule(epochs), ("train",), draw.split, folder=folder)
        return task.test(fitted.network, draw.split)

    found = few_shot.fit_each(every, fit)
    scores = [task.test(None, draw.split) if own is None else own for draw, own in zip(every, found, strict=True)]
    return few_shot.scored(every, np.stack(scores))


def _some(rows: np.ndarray) -> np.ndarray:
    """Return rows for the statistics that heads standardise by: evenly spaced, all of them where they are few."""
    chosen: np.ndarray = rows[np.linspace(0, len(rows) - 1, min(len(rows), STATISTICS)).round().astype(int)]
    return chosen
