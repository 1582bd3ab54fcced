"""The learning rates that a backbone is adapted with: val chooses among pairs that were tried on train."""

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from radprobe import console
from radprobe.files import RadprobeError
from radprobe.learning import loop, tuning
from radprobe.learning.adapting import Network, Rates, Task

REMEDY = "lower adapt's learning rates, or look at the images"


@dataclass
class Candidate:
    """A pair of learning rates: the fit on train, None where it diverged, and whether it diverged when fitted again."""

    number: int
    rates: Rates
    fitted: tuning.Fitted | None
    diverged_again: bool = False

    @property
    def value(self) -> float | None:
        """The best value on val, None where it is undefined."""
        return None if self.fitted is None or np.isnan(self.fitted.value) else self.fitted.value

    @property
    def settings(self) -> dict[str, Any]:
        """The learning rates and the best epoch; no rate of the backbone where nothing in it moves."""
        backbone_rate, head_rate = self.rates
        settings = {"backbone_rate": backbone_rate} if backbone_rate else {}
        return settings | {"head_rate": head_rate, "epochs": self.fitted.epochs if self.fitted else 0}


@dataclass(frozen=True)
class Choice:
    """The best by val of all candidates; the networks that speak of val (before it was fitted again) and of test.

    curves: of both of its fits, by phase.
    """

    best: Candidate
    candidates: list[Candidate]
    networks: dict[str, Network]
    curves: pd.DataFrame

    @property
    def seconds(self) -> float:
        """The seconds of all its epochs, those before a kill among them."""
        return float(self.curves.drop_duplicates(["phase", "epoch"])["seconds"].sum())

    @property
    def facts(self) -> dict[str, Any]:
        """What Predictions hold of it."""
        return {
            "chosen": self.best.settings,
            "value": self.best.value,
            "selected_on": "val",
            "candidates": [{**each.settings, "value": each.value} for each in self.candidates],
            "diverged_when_refitted": [each.settings for each in self.candidates if each.diverged_again],
        }


def choose(task: Task) -> Choice:
    """Fit every candidate on train, and the best by val again on train and val.

    One that diverges then gives way to the next best. Raises RadprobeError where none is left.
    """
    candidates = _search(task)
    defined = [each for each in candidates if each.value is not None]
    for candidate in sorted(defined, key=lambda each: -each.value):
        try:
            again = _refit(task, candidate)
        except loop.Diverged as error:
            console.say(f"{error}")
            candidate.diverged_again = True
            continue
        searched = candidate.fitted
        if searched.network is None:  # its checkpoint has it
            searched = _fit(task, candidate.number, candidate.rates, len(candidates))
        curves = pd.concat([searched.history.assign(phase="search"), again.history.assign(phase="refit")])
        return Choice(candidate, candidates, {"val": searched.network, "test": again.network}, curves)
    reason = "every pair of learning rates diverged when it was fitted again on train and val"
    raise RadprobeError(task.job.name, reason, REMEDY)


def _search(task: Task) -> list[Candidate]:
    """Train on train with every pair of learning rates, one after the other. Raises where all have diverged."""
    grid = list(product(task.job.knobs["backbone_rates"], task.job.knobs["head_rates"]))
    candidates, best = [], None
    for number, rates in enumerate(grid):
        candidate = Candidate(number, rates, _fit(task, number, rates, len(grid)))
        candidates.append(candidate)
        if candidate.value is None:
            continue
        if best is None or candidate.value > best.value:
            best, candidate = candidate, best
        if candidate:  # one network is kept; the others are in their checkpoints
            candidate.fitted = replace(candidate.fitted, network=None)
    if best is None:
        raise RadprobeError(task.job.name, "no pair of learning rates has a defined value on val", REMEDY)
    return candidates


def _fit(task: Task, number: int, rates: Rates, of: int) -> tuning.Fitted | None:
    job, what = task.job, task.job.name + (f", learning rates {number + 1} of {of}" if of > 1 else "")
    schedule = job.schedule(job.knobs["epochs"], job.knobs["patience"])
    how = {"folder": job.training / f"search{number}", "what": what}
    try:
        return task.fit(rates, schedule, ("train",), job.split, val=True, **how)
    except loop.Diverged as error:
        if of == 1:
            raise
        console.say(f"{error}")
        return None


def _refit(task: Task, candidate: Candidate) -> tuning.Fitted:
    job = task.job
    schedule = job.schedule(job.knobs["epochs"], stop=candidate.fitted.epochs)
    how = {"folder": job.training / f"refit{candidate.number}", "what": f"{job.name}, again with val"}
    return task.fit(candidate.rates, schedule, ("train", "val"), job.split, **how)
