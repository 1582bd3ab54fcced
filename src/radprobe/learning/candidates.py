"""The learning rates that a backbone is adapted with: val chooses among pairs that were tried on train."""

from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import pandas as pd

from radprobe import console
from radprobe.learning import selection, tuning
from radprobe.learning.adapting import Rates, Task
from radprobe.learning.selection import Candidate, Diverged
from radprobe.learning.tuning import Network

NAN = float("nan")
REMEDY = "lower adapt's learning rates, or look at the images"


@dataclass(frozen=True)
class Trial:
    """A pair of learning rates and its fit on train, None if it diverged."""

    number: int
    rates: Rates
    fitted: tuning.TunedNetwork | None


@dataclass(frozen=True)
class TunedChoice:
    """What val chose, the networks that predict val (fitted on train) and test (on train and val), and their curves."""

    choice: selection.Choice[Trial, tuning.TunedNetwork]
    networks: dict[str, Network]
    curves: pd.DataFrame

    @property
    def seconds(self) -> float:
        """The seconds of all its epochs, those before a kill among them."""
        return float(self.curves.drop_duplicates(["phase", "epoch"])["seconds"].sum())

    @property
    def facts(self) -> dict[str, Any]:
        """What Predictions hold of it."""
        return {**self.choice.facts, "value": self.choice.best.value, "selected_on": "val"}


def choose(task: Task) -> TunedChoice:
    """Fit every pair of learning rates on train, and the best by val again on train and val.

    One that diverges then gives way to the next best. Raises RadprobeError if none is left.
    """
    candidates = _search(task)
    choice = selection.choose(candidates, partial(_refit, task), task.adaptation.name, REMEDY)
    trial = choice.best.fitted
    searched = trial.fitted
    if searched is None or searched.network is None:  # its checkpoint has it
        searched = _fit(task, trial.number, trial.rates, len(candidates))
    curves = pd.concat([searched.history.assign(phase="search"), choice.refitted.history.assign(phase="refit")])
    return TunedChoice(choice, {"val": searched.trained, "test": choice.refitted.trained}, curves)


def _search(task: Task) -> list[Candidate[Trial]]:
    """Train on train with every pair of learning rates, one after the other; the best keeps its network.

    The networks of the others are in their checkpoints. Raises Diverged if the only pair diverges.
    """
    options = task.adaptation.options
    grid = list(product(options.backbone_rates, options.head_rates))
    candidates: list[Candidate[Trial]] = []
    for number, rates in enumerate(grid):
        try:
            fitted = _fit(task, number, rates, len(grid))
        except Diverged as error:
            if len(grid) == 1:
                raise
            console.say(f"{error}")
            fitted = None
        candidates.append(_candidate(Trial(number, rates, fitted)))
        best = next(iter(selection.ranked(candidates)), None)
        candidates = [each if each is best else _without_network(each) for each in candidates]
    return candidates


def _candidate(trial: Trial) -> Candidate[Trial]:
    """Return a trial with its settings, the rate of the backbone only if some of it moves, and its value."""
    backbone_rate, head_rate = trial.rates
    settings = {"backbone_rate": backbone_rate} if backbone_rate else {}
    settings |= {"head_rate": head_rate, "epochs": trial.fitted.epochs if trial.fitted else 0}
    return Candidate(settings, trial.fitted.value if trial.fitted else NAN, trial)


def _without_network(candidate: Candidate[Trial]) -> Candidate[Trial]:
    trial = candidate.fitted
    if trial.fitted is None or trial.fitted.network is None:
        return candidate
    return replace(candidate, fitted=replace(trial, fitted=replace(trial.fitted, network=None)))


def _fit(task: Task, number: int, rates: Rates, of: int) -> tuning.TunedNetwork:
    adaptation = task.adaptation
    return task.fit(
        rates,
        adaptation.schedule(adaptation.options.epochs, adaptation.options.patience),
        ("train",),
        adaptation.split,
        val=True,
        folder=adaptation.training / f"search{number}",
        what=adaptation.name + (f", learning rates {number + 1} of {of}" if of > 1 else ""),
    )


def _refit(task: Task, candidate: Candidate[Trial]) -> tuning.TunedNetwork:
    adaptation = task.adaptation
    return task.fit(
        candidate.fitted.rates,
        adaptation.schedule(adaptation.options.epochs, stop=int(candidate.settings["epochs"])),
        ("train", "val"),
        adaptation.split,
        folder=adaptation.training / f"refit{candidate.fitted.number}",
        what=f"{adaptation.name}, again with val",
    )
