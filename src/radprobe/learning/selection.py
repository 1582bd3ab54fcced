"""Selection: candidates are fitted on train, val chooses, and the best is fitted again on train and val.

One way for all verbs. A candidate that diverges has no value (NaN). One that diverges when it is fitted again gives way
to the next best. The chosen one may be fitted with other seeds too.

Heads are valued by macro AUROC over the classes that are defined on val, ranked on logits (D23). A grid that is too
narrow handicaps a backbone that needs a value outside it. So a best candidate at the edge of the grid widens the grid
in that direction, by the ratio of its two outermost values, at most `WIDENINGS` times.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from sklearn.metrics import roc_auc_score

from radprobe import console
from radprobe.files import RadprobeError

WIDENINGS = 3
REMEDY = "lower the learning rates, or look at the features and the labels"

F = TypeVar("F")  # what was fitted on train
R = TypeVar("R")  # what was fitted again on train and val


class Diverged(RadprobeError):
    """The loss or the scores of a fit are not finite."""


@dataclass(frozen=True, eq=False)
class Candidate(Generic[F]):
    """Something that val may choose: its settings, its value on val (NaN: it diverged), what was fitted on train."""

    settings: dict[str, float]
    value: float
    fitted: F

    @property
    def facts(self) -> dict[str, float | None]:
        """Settings and value as Predictions hold them; None for an undefined value."""
        return {**self.settings, "value": None if math.isnan(self.value) else self.value}


@dataclass(frozen=True)
class Choice(Generic[F, R]):
    """The candidate that val chose, what was fitted again, and all candidates.

    diverged: the candidates that are better on val and diverged when they were fitted again.
    """

    best: Candidate[F]
    refitted: R
    candidates: Sequence[Candidate[F]]
    diverged: Sequence[Candidate[F]]

    @property
    def facts(self) -> dict[str, Any]:
        """What Predictions hold of the choice."""
        return {
            "chosen": self.best.settings,
            "candidates": [each.facts for each in self.candidates],
            "diverged_when_refitted": [each.settings for each in self.diverged],
        }


def choose(
    candidates: Sequence[Candidate[F]], refit: Callable[[Candidate[F]], R], what: str, remedy: str = REMEDY
) -> Choice[F, R]:
    """Fit the best candidate by val again; if it diverges, the next best.

    refit: fits a candidate on train and val, raises Diverged. what: the name of the candidates' fit in an error.
    Raises RadprobeError if no candidate has a value, or if all that have one diverge.
    """
    order = ranked(candidates)
    if not order:
        raise RadprobeError(what, "no candidate has a defined value on val", remedy)
    diverged: list[Candidate[F]] = []
    for candidate in order:
        try:
            refitted = refit(candidate)
        except Diverged as error:
            console.say(f"{error}")
            diverged.append(candidate)
        else:
            return Choice(candidate, refitted, candidates, diverged)
    raise RadprobeError(what, "every candidate diverged when it was fitted again on train and val", remedy)


def ranked(candidates: Sequence[Candidate[F]]) -> list[Candidate[F]]:
    """Return the candidates that have a value, the largest first, equal ones in the order given."""
    defined = [each for each in candidates if not math.isnan(each.value)]
    return sorted(defined, key=lambda each: -each.value)


def with_other_seeds(fit: Callable[[int], R], seed: int, fits: int) -> Iterator[tuple[int, R]]:
    """Yield the seeds after `seed`, and what `fit` makes of each: `fits` in all, with the one of `seed`.

    A seed whose fit diverges is left out.
    """
    for other in range(seed + 1, seed + fits):
        try:
            fitted = fit(other)
        except Diverged as error:
            console.say(f"{error}")
            continue
        yield other, fitted


def seed_facts(seed: int, others: Sequence[int], fits: int) -> dict[str, Any]:
    """Return the seeds of all fits of a protocol and how many diverged; {} if there is one fit."""
    if fits < 2:
        return {}
    return {"seeds": [seed, *others], "seeds_diverged": fits - 1 - len(others)}


# --- a grid that is widened -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Search(Generic[F]):
    """All candidates, how often the grid was widened, and whether the best one still lies at its edge."""

    candidates: list[Candidate[F]]
    widened: int
    at_edge: bool


def search(values: Sequence[float], name: str, fit: Callable[[list[float]], list[Candidate[F]]]) -> Search[F]:
    """Fit the candidates of a grid of `values` of the setting `name`; widen the grid while the best is at its edge.

    `fit` returns the candidates of some values. A grid of one value was fixed on purpose: it is never widened.
    """
    tried = sorted(set(values))
    found = fit(tried)
    widened = 0
    while (outside := _beyond(tried, found, name)) is not None and widened < WIDENINGS:
        found = found + fit([outside])
        tried = sorted([*tried, outside])
        widened += 1
    return Search(found, widened, outside is not None)


def _beyond(tried: list[float], found: list[Candidate[F]], name: str) -> float | None:
    """Return the next value beyond the edge at which the best candidate lies; None if it lies inside."""
    order = ranked(found)
    if len(tried) < 2 or not order:
        return None
    at = order[0].settings[name]
    if at == tried[0]:
        return at * at / tried[1]
    if at == tried[-1]:
        return at * at / tried[-2]
    return None


# --- the value of a candidate -----------------------------------------------------------------------------------------


def both_present(targets: np.ndarray) -> np.ndarray:
    """Return for each class of targets [n, classes] (1, 0, NaN) whether it has a positive and a negative."""
    both: np.ndarray = (targets == 1).any(0) & (targets == 0).any(0)
    return both


def macro_auroc(targets: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean AUROC over the classes with a positive and a negative; NaN if there is none.

    targets, scores: [n, classes]; samples whose target is NaN do not count for that class.
    """
    values = []
    for column in np.flatnonzero(both_present(targets)):
        defined = ~np.isnan(targets[:, column])
        values.append(roc_auc_score(targets[defined, column], scores[defined, column]))
    return float(np.mean(values)) if values else float("nan")


def best(values: Sequence[float], what: str) -> int:
    """Return the position of the largest value, the first among equals; NaN (diverged) never wins."""
    known = np.asarray(values, float)
    if np.isnan(known).all():
        raise RadprobeError(what, "no candidate has a defined value on val", "look at the features and the labels")
    return int(np.nanargmax(known))
