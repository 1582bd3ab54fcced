"""How val chooses among candidates: macro AUROC over the classes that are defined there, ranked on logits (D23).

A grid that is too narrow handicaps whoever needs a value outside it. So a best candidate at the edge of the grid widens
the grid in that direction, by the ratio of its two outermost values, at most `WIDENINGS` times.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from radprobe.files import RadprobeError

WIDENINGS = 3


@dataclass
class Candidate:
    """Something that val may choose: its settings, its value on val (NaN: it diverged), and its scores of val."""

    settings: dict[str, Any]
    value: float
    scores: torch.Tensor  # [n val, classes]


@dataclass(frozen=True)
class Search:
    """All candidates, how often the grid was widened, and whether the best one still lies at its edge."""

    candidates: list[Candidate]
    widened: int
    at_edge: bool


def search(values: Sequence[float], name: str, fit: Callable[[list[float]], list[Candidate]]) -> Search:
    """Fit the candidates of a grid of `values` of the setting `name`; widen the grid while the best is at its edge.

    `fit` returns the candidates of some values. A grid of one value is what somebody fixed: it is never widened.
    """
    tried = sorted(set(values))
    found = fit(tried)
    widened = 0
    while (outside := _beyond(tried, found, name)) is not None and widened < WIDENINGS:
        found = found + fit([outside])
        tried = sorted([*tried, outside])
        widened += 1
    return Search(found, widened, outside is not None)


def _beyond(tried: list[float], found: list[Candidate], name: str) -> float | None:
    """Return the next value beyond the edge at which the best candidate lies; None where it lies inside."""
    values = [each.value for each in found]
    if len(tried) < 2 or np.isnan(values).all():
        return None
    at = found[best(values, name)].settings[name]
    if at == tried[0]:
        return at * at / tried[1]
    if at == tried[-1]:
        return at * at / tried[-2]
    return None


def both_present(targets: np.ndarray) -> np.ndarray:
    """Return for each class of targets [n, classes] (1, 0, NaN) whether it has a positive and a negative."""
    return (targets == 1).any(0) & (targets == 0).any(0)


def macro_auroc(targets: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean AUROC over the classes with a positive and a negative; NaN when there is none.

    targets, scores: [n, classes]; samples whose target is NaN do not count for that class.
    """
    values = []
    for column in np.flatnonzero(both_present(targets)):
        defined = ~np.isnan(targets[:, column])
        values.append(roc_auc_score(targets[defined, column], scores[defined, column]))
    return float(np.mean(values)) if values else float("nan")


def best(values: Sequence[float], what: str) -> int:
    """Return the position of the largest value, the first among equals; NaN (diverged) never wins."""
    values = np.asarray(values, float)
    if np.isnan(values).all():
        raise RadprobeError(what, "no candidate has a defined value on val", "look at the features and the labels")
    return int(np.nanargmax(values))
