"""One recommendation for the whole study: who is significantly exceeded on no task, corrected over tasks too."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from radprobe.metrics.simultaneous import ALPHA
from radprobe.report.ranking import Column
from radprobe.report.words import Name, duration, listed, some

FEWEST_TASKS = 2  # below them the card of the task says all


@dataclass(frozen=True)
class Recommendation:
    """The sentences above the cards, and for each row the tasks on which it is significantly exceeded."""

    sentences: list[str]
    exceeded: dict[str, list[str]]


def recommend(heads: Mapping[str, Column], name: Name, title: Name) -> Recommendation | None:
    """Return the recommendation from the columns that the verdicts speak of, by dataset; None under FEWEST_TASKS.

    name, title: of backbones and of datasets. Only rows that were compared on every task are candidates.
    """
    tasks = {dataset: column for dataset, column in heads.items() if _is_compared(column)}
    if len(tasks) < FEWEST_TASKS:
        return None
    first, *others = tasks.values()
    candidates = [each for each in first.candidates if all(each in column.candidates for column in others)]
    if len(candidates) < 2:
        return None
    significant = set(_significant(tasks))
    exceeded = {each: [task for task in tasks if (task, each) in significant] for each in candidates}
    fewest = min(map(len, exceeded.values()))
    left = [each for each in candidates if len(exceeded[each]) == fewest]
    left.sort(key=lambda each: _mean_place(tasks, each))
    return Recommendation(_sentences(tasks, left, exceeded, name, title), exceeded)


def _is_compared(column: Column) -> bool:
    """Has any difference of the column an interval?"""
    return bool(column.contenders) and any(each.sign is not None for each in column.differences.values())


def _significant(tasks: Mapping[str, Column]) -> Iterator[tuple[str, str]]:
    """Yield (task, row) where a candidate scores significantly higher than the row, by Holm's rule over tasks.

    The p-values of a task hold for all of its pairs already (max-T), so only the number of tasks is corrected for.
    """
    found = {task: dict(_exceeding(column)) for task, column in tasks.items()}
    ordered = sorted(found, key=lambda task: min(found[task].values(), default=1.0))
    for place, task in enumerate(ordered):
        factor = len(ordered) - place
        below = [row for row, p in found[task].items() if p * factor <= ALPHA]
        if not below:
            return
        yield from ((task, row) for row in below)


def _exceeding(column: Column) -> Iterator[tuple[str, float]]:
    """Yield each candidate that another one exceeds, with the smallest p-value of these differences."""
    for row in column.candidates:
        contrasts = [column.difference(other, row) for other in column.candidates if other != row]
        above = [each.p for each in contrasts if each and each.value > 0 and not math.isnan(each.p)]
        if above:
            yield row, min(above)


def _mean_place(tasks: Mapping[str, Column], row: str) -> float:
    return sum(column.candidates.index(row) / len(column.candidates) for column in tasks.values()) / len(tasks)


def _sentences(
    tasks: Mapping[str, Column], left: list[str], exceeded: dict[str, list[str]], name: Name, title: Name
) -> list[str]:
    n = len(tasks)
    fewest = len(exceeded[left[0]])
    costs = {each: sum(column.seconds.get(each, math.nan) for column in tasks.values()) for each in left}
    if len(left) == len(exceeded) and fewest == 0:
        opening = f"No recommendation: on none of the {n} tasks is any backbone significantly exceeded by another."
    elif len(left) == len(exceeded):
        opening = f"No recommendation: each backbone is significantly exceeded on {fewest} of the {n} tasks."
    elif fewest == 0:
        opening = f"Recommended: {some(map(name, left), 'or')}, significantly exceeded on none of the {n} tasks."
    else:
        where = f" ({listed(list(map(title, exceeded[left[0]])))})" if len(left) == 1 else ""
        opening = (
            f"Recommended: {some(map(name, left), 'or')}, significantly exceeded on {fewest} of the {n} tasks{where}."
        )
    known = {each: cost for each, cost in costs.items() if not math.isnan(cost)}
    sentences = [opening, "All differences are corrected for the number of pairs and tasks."]
    if len(left) > 1 and known:
        cheapest = min(known, key=known.__getitem__)
        sentences.insert(1, f"Of these {name(cheapest)} costs least, {duration(known[cheapest])} over all tasks.")
    return sentences
