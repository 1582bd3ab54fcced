"""Results in plain words, never more than the intervals support."""

import math
from collections.abc import Callable

from radprobe.report.ranking import Column, Estimate, twin

TASKS = {"multilabel": "Multi-label classification", "segmentation": "Segmentation", "look": "To look at"}
METRICS = {"auroc": "AUROC", "auprc": "AUPRC", "dsc": "DSC", "iou": "IoU"}
PROTOCOLS = {
    ("multilabel", "linear"): "a linear probe",
    ("multilabel", "knn"): "k nearest neighbours",
    ("multilabel", "mlknn"): "ML-kNN",
    ("segmentation", "linear"): "a linear decoder",
}
Name = Callable[[str], str]


def number(value: float) -> str:
    """Return three decimals, without a negative zero."""
    return f"{round(value, 3) + 0.0:.3f}"


def interval(estimate: Estimate) -> str:
    """Return "[low, high]", "" where there is none."""
    return "" if math.isnan(estimate.low) else f"[{number(estimate.low)}, {number(estimate.high)}]"


def text(estimate: Estimate) -> str:
    """Return "value [low, high]"; a dash where the value is undefined."""
    return f"{number(estimate.value)} {interval(estimate)}".strip() if estimate.defined else "–"


def duration(seconds: float) -> str:
    """Return a time that a person would say."""
    if math.isnan(seconds):
        return "unknown"
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"


def protocol(task: str, name: str) -> str:
    """Return a protocol in words."""
    return PROTOCOLS.get((task, name), name)


def verdict(column: Column, task: str, name: Name, device: str) -> list[str]:
    """Return the sentences of a verdict card: the score, the others, the random twin, the cost."""
    best = column.best
    if best is None:
        return ["No score is defined: " + "; ".join(sorted({score.note for score in column.scores.values()})) + "."]
    score = column.scores[best]
    how, metric = protocol(task, column.protocol), METRICS[column.metric]
    first = f"{name(best)} with {how}: {metric} {text(score)}."
    if not interval(score):
        first += f" No interval: {score.note.removeprefix('no interval: ')}."
    sentences = [first]
    if best in column.controls:
        sentences.append("Every scored backbone is a control: nothing pretrained was tested.")
    sentences += [*against_others(column, name), against_twin(column)]
    return [*sentences, f"Costs {duration(column.seconds.get(best, math.nan))} of {device} to embed and fit."]


def against_others(column: Column, name: Name) -> list[str]:
    """Return what the paired differences say of the best backbone and every other one, its twin excepted."""
    best = column.best
    others = [other for other in column.order if other not in (best, twin(best))]
    if not others:
        return ["No other backbone was scored."]
    groups: dict[str, list[str]] = {"not": [], "above": [], "below": [], "unknown": [], "none": []}
    for other in others:
        label = name(other) + (" (control)" if other in column.controls else "")
        found = column.difference(best, other)
        if found is None:
            groups["none"].append(label)
        elif found.sign is None:
            groups["unknown"].append(f"{label} (difference {text(found)}; {found.note})")
        else:
            kind = {0: "not", 1: "above", -1: "below"}[found.sign]
            groups[kind].append(f"{label} (difference {text(found)})")
    openings = {
        "not": "Not resolvable from",
        "above": "Resolvably above",
        "below": "Resolvably below",
        "unknown": "Without an interval, so unresolved, against",
        "none": "Not compared, so no order is claimed, with",
    }
    return [f"{openings[kind]} {_list(names)}." for kind, names in groups.items() if names]


def against_twin(column: Column) -> str:
    """Return whether the best backbone beats its random-initialised twin: if not, its pretraining shows no benefit."""
    best = column.best
    if twin(best) not in column.scores:
        return "No random twin was scored."
    found = column.difference(best, twin(best))
    if found is None:
        return "Not compared with its random twin."
    if found.sign is None:
        return f"Against its random twin nothing is established (difference {text(found)}; {found.note})."
    if found.sign > 0:
        return f"Beats its random twin by {text(found)}."
    how = "scores below" if found.sign < 0 else "does not beat"
    return f"Flagged: {how} its random twin (difference {text(found)}); no benefit of pretraining is shown."


def finding(column: Column, name: Name) -> str:
    """Return a figure's title: its finding in a line."""
    best = column.best
    if best is None:
        return "No score is defined"
    rivals = [other for other in column.order if other not in (best, twin(best)) and other not in column.controls]
    signs = [found.sign if (found := column.difference(best, other)) else None for other in rivals]
    if not rivals:
        return f"{name(best)} was scored"
    if all(sign == 1 for sign in signs):
        return f"{name(best)} is resolvably best"
    if None in signs:
        return f"{name(best)} scores highest; not all differences have an interval"
    return f"{name(best)} scores highest; not resolvable from {signs.count(0)} of {len(rivals)} others"


def _list(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
