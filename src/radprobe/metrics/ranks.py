"""Backbones across tasks: mean ranks with the critical difference of their test, and a score on a common scale.

Demsar 2006, "Statistical comparisons of classifiers over multiple data sets", JMLR 7:1-30: the Friedman test asks
whether any order holds over the tasks, and the Nemenyi test how far apart two mean ranks have to be.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import friedmanchisquare, rankdata, studentized_range
from scipy.stats import t as student

from radprobe.metrics.resampling import LEVEL

FEWEST_BACKBONES, FEWEST_TASKS = 3, 2  # of which ranks say anything
FEWEST_FOR_INTERVAL = 6  # tasks
ALPHA = 1 - LEVEL / 100

Scores = dict[str, dict[str, float]]  # by task and backbone, higher is better; NaN where undefined


@dataclass(frozen=True)
class Ranking:
    """The ranks of backbones, [tasks, backbones]: 1 is the highest score of a task, ties share their mean rank."""

    tasks: list[str]
    backbones: list[str]
    ranks: np.ndarray
    p: float  # of the Friedman test: that the order is the luck of the tasks
    critical_difference: float  # of two mean ranks, by the Nemenyi test

    @property
    def mean(self) -> dict[str, float]:
        """The mean rank of every backbone, best first."""
        means = dict(zip(self.backbones, self.ranks.mean(axis=0).tolist(), strict=True))
        return dict(sorted(means.items(), key=lambda item: item[1]))

    @property
    def is_resolved(self) -> bool:
        """Does the Friedman test find any difference?"""
        return self.p < ALPHA

    @property
    def can_resolve(self) -> bool:
        """Could so few tasks resolve anything, even if every one of them had the same order?"""
        return self.critical_difference < len(self.backbones) - 1

    @property
    def groups(self) -> list[list[str]]:
        """The longest runs of two or more backbones, best first, whose mean ranks differ by less than is critical."""
        means, names = list(self.mean.values()), list(self.mean)
        ends = [sum(other < mean + self.critical_difference for other in means) for mean in means]
        longest = [(at, end) for at, end in enumerate(ends) if end > at + 1 and end not in ends[:at]]
        return [names[at:end] for at, end in longest]


def complete(scores: Scores) -> list[str]:
    """Return the backbones that have a defined score on every task, in the order of the first task."""
    tasks = list(scores.values())
    names = tasks[0] if tasks else []
    return [name for name in names if not any(math.isnan(task.get(name, math.nan)) for task in tasks)]


def lacking(scores: Scores) -> str:
    """Return why the backbones of these tasks cannot be ranked, "" where they can."""
    found = complete(scores)
    if len(scores) < FEWEST_TASKS:
        return f"{_count(len(scores), 'task')}, and ranks across tasks need {FEWEST_TASKS} or more"
    if len(found) < FEWEST_BACKBONES:
        return (
            f"{_count(len(found), 'backbone')} scored on all of {len(scores)} tasks, and ranks need "
            f"{FEWEST_BACKBONES} or more"
        )
    return ""


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def rank(scores: Scores) -> Ranking:
    """Rank the backbones that are complete; `lacking` says whether there are enough of them."""
    tasks, names = list(scores), complete(scores)
    values = np.array([[scores[task][name] for name in names] for task in tasks])
    ranks = rankdata(-values, axis=1)
    return Ranking(tasks, names, ranks, friedman(ranks), critical_difference(len(names), len(tasks)))


def friedman(ranks: np.ndarray) -> float:
    """Return the p-value of the Friedman test, corrected for ties, of [tasks, backbones]; 1 where all are tied."""
    if (ranks == ranks[:, :1]).all():
        return 1.0
    return float(friedmanchisquare(*ranks.T).pvalue)


def critical_difference(backbones: int, tasks: int) -> float:
    """Return how far two mean ranks have to be apart to differ at the 5 % level, whichever two are looked at."""
    q = studentized_range.ppf(1 - ALPHA, backbones, math.inf) / math.sqrt(2)
    return float(q * math.sqrt(backbones * (backbones + 1) / (6 * tasks)))


def scaled(value: float, control: float, best: float) -> float:
    """Return a score on the scale of its task, 0 at the control and 1 at the best backbone; NaN where there is none."""
    return (value - control) / (best - control) if best > control else math.nan


def mean_over_tasks(values: list[float]) -> tuple[float, float, float, str]:
    """Return the mean of a backbone's scaled scores with its 95 % t interval over tasks, and a note.

    The interval speaks of other tasks like these. Under FEWEST_FOR_INTERVAL tasks it is refused: no interval of so few
    values covers at its rate unless they are normal, which so few cannot show.
    """
    scores = np.asarray(values, float)
    n = len(scores)
    if n == 0:
        return math.nan, math.nan, math.nan, "undefined: no task has a scale"
    mean = float(scores.mean())
    if n < FEWEST_FOR_INTERVAL:
        return mean, math.nan, math.nan, f"no interval: {_count(n, 'task')}, fewer than {FEWEST_FOR_INTERVAL}"
    half = float(student.ppf(1 - ALPHA / 2, n - 1) * scores.std(ddof=1) / math.sqrt(n))
    return mean, mean - half, mean + half, ""
