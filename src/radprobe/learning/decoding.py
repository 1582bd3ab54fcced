"""The protocols of segmentation: decoders on dense maps and networks from scratch, selected, refitted and on few shots.

`decoders` trains; here is what it trains, on which images, and what the decoders then predict.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd
import torch

from radprobe import console
from radprobe.artifacts import FewShotScores, Index, LabelMaps, Pixels, Predictions, Split, again
from radprobe.files import RadprobeError
from radprobe.learning import decoders, few_shot, label_maps, loop, selection
from radprobe.learning.device import measured
from radprobe.learning.features import Dense
from radprobe.learning.maps import Maps, masks_of
from radprobe.learning.selection import Candidate
from radprobe.models import decoders as networks
from radprobe.models.decoders import Decoder, DecoderPlan
from radprobe.names import FROM_SCRATCH

USE = {"train": "trained", "val": "chosen"}


class DecoderOptions(Protocol):
    """The options that all decoders have."""

    @property
    def learning_rates(self) -> Sequence[float]: ...  # noqa: D102
    @property
    def epochs(self) -> int: ...  # noqa: D102
    @property
    def patience(self) -> int | None: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def loss(self) -> decoders.LossName: ...  # noqa: D102


@dataclass(frozen=True)
class DecoderProtocol:
    """A decoder, the layers that it reads, the learning rates that are tried, and how it is trained.

    refit_epochs: epochs of the fit on train and val; None: as many as val chose.
    """

    name: str
    layers: tuple[int, ...]
    plan: DecoderPlan
    learning_rates: tuple[float, ...]
    epochs: int
    patience: int | None
    batch_size: int
    loss: decoders.LossName
    refit_epochs: int | None = None

    @classmethod
    def of(
        cls,
        name: str,
        layers: tuple[int, ...],
        plan: DecoderPlan,
        options: DecoderOptions,
        refit_epochs: int | None = None,
    ) -> Self:
        """Return the protocol of some options."""
        return cls(
            name=name,
            layers=layers,
            plan=plan,
            learning_rates=tuple(options.learning_rates),
            epochs=options.epochs,
            patience=options.patience,
            batch_size=options.batch_size,
            loss=options.loss,
            refit_epochs=refit_epochs,
        )

    def recipe(
        self, seed: int, epochs: int, patience: int | None = None, stop: int | None = None
    ) -> decoders.DecoderRecipe:
        """Return how one fit is trained; `stop` leaves its schedule early."""
        schedule = loop.Schedule(epochs=epochs, seed=seed, patience=patience, stop=stop)
        return decoders.DecoderRecipe(self.batch_size, self.loss, schedule)

    def maker(self, maps: Maps) -> Callable[[], Decoder]:
        """Return a function that builds a decoder with new weights, standardised by the statistics of `maps`."""
        statistics = [] if self.name == FROM_SCRATCH else maps.statistics()
        return partial(networks.build, self.plan, statistics)


@dataclass(frozen=True)
class FewShotDecoding:
    """Linear decoders on few patients: the draws, how each is trained, and whether the paper's draw is fitted too."""

    shots: tuple[int, ...]
    draws: int
    learning_rate: float
    steps: int
    paper: bool

    @property
    def facts(self) -> dict[str, Any]:
        """What Predictions hold of it."""
        same = {"draws": self.draws, "learning_rate": self.learning_rate, "steps": self.steps}
        return {"shots": list(self.shots), **same}


@dataclass(frozen=True)
class DecodingTask:
    """What all decoders of a job share: the samples, their split, the seed, and where they are fitted."""

    dataset: str
    backbone: str
    index: Index
    pixels: Pixels
    split: Split
    dense: Dense
    device: torch.device
    seed: int
    repeats: int  # fits of what was chosen, each with its own seed
    folder: Path

    @property
    def labels(self) -> int:
        """Foreground classes and background."""
        return len(self.split.classes) + 1

    def maps(self, layers: tuple[int, ...], *parts: str, split: Split | None = None) -> Maps:
        """Return the maps of some parts, through `layers`."""
        rows = (split or self.split).rows(self.index, *parts)
        cases = self.index.table["volume_id"].to_numpy()[rows]
        return Maps(self.dense, layers, masks_of(self.pixels), rows, cases, self.device)


def predictions(task: DecodingTask, protocols: Sequence[DecoderProtocol], draws: FewShotDecoding | None) -> Predictions:
    """Fit every decoder, and linear ones to few-shot draws; return what they predict of val and test."""
    maps: dict[str, LabelMaps] = {}
    by_protocol: dict[str, dict[str, Any]] = {}
    curves = []
    for protocol in protocols:
        fit = _Fit(task, protocol)
        by_protocol[protocol.name] = fit.run()
        maps |= fit.maps
        curves.append(fit.curves.assign(protocol=protocol.name))
        chosen, value = (by_protocol[protocol.name][name] for name in ("chosen", "value"))
        console.say(f"{task.dataset} {task.backbone} {protocol.name}: val DSC {value:.4f} with {chosen}")
    facts: dict[str, Any] = {"protocols": by_protocol}
    curve = None
    linear = next((each for each in protocols if each.plan.kind == "linear"), None)
    if draws and linear:
        cost: dict[str, Any] = {}
        with measured(cost, task.device):
            curve = few_shot_curve(task, linear, draws)
        facts["few_shot"] = {**draws.facts, **cost}
    found = Predictions(task.split.classes, maps=maps, facts=facts, few_shot=curve, training=pd.concat(curves))
    found.decoders = list(by_protocol)
    return found


class _Fit:
    """One protocol: its selection, its refits, and the label maps that they predict.

    Of the fits with other seeds only the label maps of test are kept, under the names that `again` gives.
    """

    def __init__(self, task: DecodingTask, protocol: DecoderProtocol):
        self.task = task
        self.protocol = protocol
        self.train, self.val, self.test, self.both = (
            task.maps(protocol.layers, *parts) for parts in (("train",), ("val",), ("test",), ("train", "val"))
        )
        self.folder = task.folder / "training" / protocol.name
        self.maps: dict[str, LabelMaps] = {}
        self.curves = pd.DataFrame()

    def run(self) -> dict[str, Any]:
        """Choose on val, fit again on train and val, predict; return the facts of the protocol."""
        task, protocol = self.task, self.protocol
        cost: dict[str, Any] = {}
        with measured(cost, task.device):
            searched = self._search()
            candidates = [
                Candidate({"learning_rate": rate, "epochs": epochs}, value, decoder)
                for rate, epochs, value, decoder in zip(
                    protocol.learning_rates, searched.epochs, searched.values, searched.decoders, strict=True
                )
            ]
            make = protocol.maker(self.both)
            refit = partial(self._refit, make, task.seed)
            choice = selection.choose(candidates, refit, f"learning rates of {protocol.name}")
        (decoder,) = choice.refitted.decoders
        self._predict(protocol.name, chain(self._cases(choice.best.fitted, "val"), self._cases(decoder, "test")))
        self._save(decoder)
        others = self._other_seeds(make, choice.best)
        phases = {"search": searched.history, "refit": choice.refitted.history}
        self.curves = pd.concat([history.assign(phase=phase) for phase, history in phases.items()])
        return {
            **choice.facts,
            "value": choice.best.value,
            "selected_on": "val",
            "selected_by": decoders.CHOSEN_BY,
            "parameters": sum(each.numel() for each in decoder.parameters()),
            "layers": list(protocol.layers),
            **{f"n_{part}": len(maps) for part, maps in self._parts.items()},
            **({"refit_epochs": protocol.refit_epochs} if protocol.refit_epochs else {}),
            **cost,
            **selection.seed_facts(task.seed, others, task.repeats),
        }

    @property
    def _parts(self) -> dict[str, Maps]:
        return {"train": self.train, "val": self.val, "test": self.test}

    def _search(self) -> decoders.FittedDecoders[Decoder]:
        """Fit every learning rate on train; val says which epoch is the best of each."""
        protocol = self.protocol
        return decoders.fit(
            protocol.maker(self.train),
            self.train,
            self.task.labels,
            protocol.learning_rates,
            protocol.recipe(self.task.seed, protocol.epochs, protocol.patience),
            val=self.val,
            folder=self.folder / "search",
            what=protocol.name,
        )

    def _refit(
        self, make: Callable[[], Decoder], seed: int, candidate: Candidate[Decoder]
    ) -> decoders.FittedDecoders[Decoder]:
        """Fit a candidate on train and val. Raises Diverged."""
        protocol, settings = self.protocol, candidate.settings
        total = protocol.refit_epochs  # the paper trains networks from scratch longer when they are tested
        recipe = protocol.recipe(seed, total or protocol.epochs, stop=total or int(settings["epochs"]))
        of_seed = f" and seed {seed}" if seed != self.task.seed else ""
        rate = settings["learning_rate"]
        return decoders.fit(
            make,
            self.both,
            self.task.labels,
            [rate],
            recipe,
            folder=self.folder / f"refit-{rate:g}-seed{seed}",
            what=f"{protocol.name}, again with val{of_seed}",
        )

    def _other_seeds(self, make: Callable[[], Decoder], best: Candidate[Decoder]) -> list[int]:
        """Fit the chosen candidate with other seeds, and predict test; return the seeds that did not diverge."""
        task = self.task
        seeds: list[int] = []
        fit = partial(self._refit, make, candidate=best)
        for seed, fitted in selection.with_other_seeds(fit, task.seed, task.repeats):
            seeds.append(seed)
            self._predict(again(self.protocol.name, len(seeds)), self._cases(fitted.decoders[0], "test"))
        return seeds

    def _cases(self, decoder: Decoder, part: str) -> "label_maps.Cases":
        return label_maps.predicted(decoder, self._parts[part], self.task.index, self.task.pixels, part)

    def _predict(self, name: str, cases: "label_maps.Cases") -> None:
        LabelMaps.write(self.task.folder, name, cases)
        self.maps[name] = LabelMaps.read(self.task.folder, name)

    def _save(self, decoder: Decoder) -> None:
        task, protocol = self.task, self.protocol
        facts = {
            "dataset": task.dataset,
            "backbone": task.backbone,
            "classes": task.split.classes,
            "protocol": protocol.name,
            "layers": list(protocol.layers),
        }
        networks.save(task.folder / f"{protocol.name}.safetensors", decoder, protocol.plan, facts)


def few_shot_curve(task: DecodingTask, linear: DecoderProtocol, options: FewShotDecoding) -> FewShotScores:
    """Fit a linear decoder to each draw, learning rate and steps fixed; count the labels of every test case.

    The counts of a draw whose fit diverged are 0.
    """
    every = few_shot.every(
        task.index, task.split, "segmentation", options.shots, options.draws, task.seed, options.paper
    )

    def fit(draw: few_shot.Draw) -> Decoder:
        maps = task.maps(linear.layers, "train", split=draw.split)
        epochs = max(1, round(options.steps / math.ceil(len(maps) / linear.batch_size)))
        schedule = loop.Schedule(epochs=epochs, seed=task.seed)
        recipe = decoders.DecoderRecipe(min(linear.batch_size, len(maps)), linear.loss, schedule)
        make = partial(networks.build, linear.plan, maps.statistics())
        (decoder,) = decoders.fit(make, maps, task.labels, [options.learning_rate], recipe).decoders
        return decoder

    fitted = few_shot.fit_each(every, fit)
    kept = [number for number, decoder in enumerate(fitted) if decoder is not None]
    whole = [decoder for decoder in fitted if decoder is not None]
    cases, counted = decoders.counts(whole, task.maps(linear.layers, "test"), task.labels)
    counts = np.zeros((len(every), len(cases), task.labels, task.labels), np.int64)
    counts[kept] = counted
    return few_shot.scored(every, counts)


def check(dataset: str, index: Index, pixels: Pixels, split: Split) -> None:
    """Raise RadprobeError if no decoder can be trained on a split, or chosen on it, or if a label has no class."""
    for part in ("train", "val", "test"):
        if not len(split.rows(index, part)):
            reason = f"part {part} has no sample here"
            raise RadprobeError(f"{dataset}, its split", reason, "choose another split, or get the whole download")
    if pixels.masks is None:
        raise RadprobeError(f"{dataset}, its pixels", "have no masks: no decoder can be trained", "run prepare again")
    if (most := int(pixels.masks.max())) > len(split.classes):
        reason = f"have label {most}, but its split has {len(split.classes)} classes"
        raise RadprobeError(f"{dataset}, its masks", reason, "correct the module that reads this dataset")
    for part in ("train", "val"):
        if not pixels.masks[split.rows(index, part)].any():
            reason = f"every mask of part {part} is empty, so no decoder can be {USE[part]}"
            raise RadprobeError(f"{dataset}, its split", reason, "choose another split, or look at the masks")
