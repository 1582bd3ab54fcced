"""Results in plain words, never more than the intervals support."""

import math
from collections.abc import Callable

from radprobe.names import STANDING
from radprobe.report.ranking import Column, Estimate, controls_of

TASKS = {
    "multilabel": "Multi-label classification",
    "binary": "Classification, two classes",
    "multiclass": "Classification",
    "segmentation": "Segmentation",
    "look": "To look at",
}
METRICS = {"auroc": "AUROC", "auprc": "AUPRC", "dsc": "DSC", "iou": "IoU"}
METRICS |= {"balanced_accuracy": "balanced accuracy", "f1": "F1", "brier": "Brier score", "ece": "ECE"}
# Beside the primary ones and their kin: what else a cell page tells.
OTHERS = {"hd95": "HD95", "assd": "ASSD", "nsd": "NSD", "volume_error": "volume error", "dsc_pooled": "DSC, pooled"}
OTHERS |= {"jaccard_study": "Jaccard as in the study", "auroc_study": "AUROC as in the study"}
DISTANCES = ("hd95", "assd")  # in mm, or in pixels where spacing is unknown
WITHOUT_NEAR = "_without_near"  # a metric without the test cases that have a near-duplicate in another part
PROTOCOLS = {
    "linear": "a linear probe",
    "linear@paper": "a linear probe as in the study",
    "logistic": "logistic regression",
    "knn": "k nearest neighbours",
    "knn@paper": "k nearest neighbours as in the study",
    "mlknn": "ML-kNN",
    "mlknn@paper": "ML-kNN as in the study",
    "shuffled": "shuffled labels (floor)",
    "linear-decoder": "a linear decoder",
    "unet-decoder": "a U-Net decoder",
    "unet-decoder@paper": "a U-Net decoder as in the study",
    "from-scratch": "training from scratch",
    "bitfit": "all biases trained (BitFit)",
    "lora": "low-rank adapters (LoRA)",
    "end_to_end": "end-to-end fine-tuning",
}
# What each protocol does, for a reader who sees one of its pages only.
FROZEN = "The backbone stays frozen."
AGAIN = "Learning rate and epoch are chosen on val; then it is trained again on train and val."
INPUTS = (
    "Every backbone offers as many inputs: a transformer the CLS tokens of its last blocks, with or without the mean "
    "patch token, a CNN its pooled output with those of earlier stages."
)
EXPLAINED = {
    "linear": f"{FROZEN} Linear heads of several learning rates are trained by gradient descent on train, on centred "
    f"features of length 1. {INPUTS} The best on val is trained again on train and val.",
    "linear@paper": f"{FROZEN} The study's own grid of linear heads: on features as they are, a CNN with its pooled "
    "output alone, and with the loss summed over the batch.",
    "logistic": f"{FROZEN} Logistic regressions of several penalties are fitted on train, on standardised features. "
    f"{INPUTS} The best on val is fitted again on train and val.",
    "knn": f"{FROZEN} Nothing is trained: the nearest training cases vote, each weighed by its similarity; val chooses "
    "how many.",
    "knn@paper": f"{FROZEN} Nothing is trained: the nearest training cases vote, as many as in the study.",
    "mlknn": f"{FROZEN} How many of the nearest training cases have a class becomes a probability, by how often that "
    "happens within train (ML-kNN); val chooses how many neighbours.",
    "mlknn@paper": f"{FROZEN} ML-kNN with as many neighbours as in the study.",
    "shuffled": f"{FROZEN} Logistic regressions on train labels that were permuted among the patients, again and "
    "again: nothing is to be learnt, so the mean and the range of the shuffles show what chance gives here.",
    "linear-decoder": f"{FROZEN} One linear layer turns each place of its feature map into a label. {AGAIN}",
    "unet-decoder": f"{FROZEN} A U-Net decoder reads several of its layers. {AGAIN}",
    "unet-decoder@paper": f"{FROZEN} The study's U-Net decoder reads several of its layers. {AGAIN}",
    "from-scratch": "The whole network starts from random weights. The learning rate is chosen on val; then it is "
    "trained again on train and val, for as many epochs as params fix, whatever epoch was best on val.",
    "bitfit": f"Every bias of the backbone is trained, with a linear head. {AGAIN}",
    "lora": f"Low-rank adapters in the backbone are trained, with a linear head. {AGAIN}",
    "end_to_end": f"The whole backbone is trained, with a linear head. {AGAIN}",
    "ceiling": "No model: the truth itself, brought to the size at which decoders work and back to the original grid.",
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


def millions(parameters: float) -> str:
    """Return a number of parameters, in millions where there are many."""
    return f"{parameters / 1e6:.3g} M" if parameters >= 1e5 else f"{parameters:,.0f}"


def metric(name: str) -> str:
    """Return a metric as a label."""
    whole = name.removesuffix(WITHOUT_NEAR)
    label = METRICS.get(whole) or OTHERS.get(whole, whole.replace("_", " "))
    return label if whole == name else f"{label} without near-duplicates"


def protocol(name: str) -> str:
    """Return a protocol in words."""
    return PROTOCOLS.get(name, name)


def label(name: str) -> str:
    """Return a protocol as a label."""
    return protocol(name).removeprefix("a ")


def verdict(column: Column, task: str, name: Name, device: str) -> list[str]:
    """Return the sentences of a verdict card: the score, the others, the random twin, the cost."""
    best = column.best
    if best is None:
        return ["No score is defined: " + "; ".join(sorted({score.note for score in column.scores.values()})) + "."]
    score = column.scores[best]
    whole, metric = column.protocol_of(best) in STANDING, METRICS[column.metric]  # its name says how it was trained
    how = "" if whole else f" with {protocol(column.protocol)}"
    first = f"{name(best)}{how}: {metric} {text(score)}."
    if not interval(score):
        first += f" No interval: {score.note.rpartition('no interval: ')[2]}."
    doubt = [f"{score.note[0].upper()}{score.note[1:]}."] if interval(score) and score.note else []
    sentences = [first, *doubt]
    if best in column.controls:
        sentences.append("Every scored backbone is a control: nothing pretrained was tested.")
    sentences += [*against_others(column, name), *against_controls(column)]
    work = "train" if whole else "embed and fit"
    return [*sentences, f"Costs {duration(column.seconds.get(best, math.nan))} of {device} to {work}."]


def against_others(column: Column, name: Name) -> list[str]:
    """Return what the paired differences say of the best backbone and its rivals, then of the other control rows."""
    best = column.best
    others = [other for other in column.order if other not in (best, *controls_of(best))]
    rivals = [other for other in others if other not in column.controls]
    controls = [other for other in others if other in column.controls]
    sentences = _by_outcome(column, rivals, name) if rivals else ["No other pretrained backbone was scored."]
    outcomes = [_outcome(column.difference(best, other)) for other in controls]
    if controls and set(outcomes) == {"above"}:
        rows = "the other control row" if len(controls) == 1 else f"the {len(controls)} other control rows"
        return [*sentences, f"Resolvably above {rows}."]
    doubtful = [other for other, outcome in zip(controls, outcomes, strict=True) if outcome != "above"]
    return sentences + [f"Control rows: {each[0].lower()}{each[1:]}" for each in _by_outcome(column, doubtful, name)]


OPENINGS = {
    "tied": "Not resolvable from",
    "above": "Resolvably above",
    "below": "Resolvably below",
    "unknown": "Without an interval, so unresolved, against",
    "none": "Not compared, so no order is claimed, with",
}


def _outcome(difference: Estimate | None) -> str:
    if difference is None:
        return "none"
    return {1: "above", -1: "below", 0: "tied", None: "unknown"}[difference.sign]


def _by_outcome(column: Column, others: list[str], name: Name) -> list[str]:
    found = {other: column.difference(column.best, other) for other in others}
    sentences = []
    for outcome, opening in OPENINGS.items():
        group = {other: each for other, each in found.items() if _outcome(each) == outcome}
        notes = {each.note for each in group.values() if each}
        shared = f"; {notes.pop()}" if len(group) > 1 and len(notes) == 1 and all(notes) else ""  # said once
        names = [_against(name(other), each, note=not shared) for other, each in group.items()]
        sentences += [f"{opening} {_list(names)}{shared}."] if names else []
    return sentences


def _against(label: str, difference: Estimate | None, note: bool) -> str:
    if difference is None:
        return label
    why = f"; {difference.note}" if note and difference.note else ""
    return f"{label} (difference {text(difference)}{why})"


# The control rows of a backbone, in the order of `controls_of`: their name, what it means not to beat one, its absence.
CONTROLS = (
    ("its random twin", "no benefit of pretraining is shown", "No random twin was scored."),
    ("raw pixels", "no benefit of a network is shown", "Raw pixels were not scored."),
)


def against_controls(column: Column) -> list[str]:
    """Return whether the best backbone beats its random twin and raw pixels: if not, it is flagged."""
    best = column.best
    if best in column.controls:
        return []
    controls = dict(zip(controls_of(best), CONTROLS, strict=True))
    scored = {control: said for control, said in controls.items() if control in column.scores}
    if not scored:
        return ["No control was scored: neither a random twin nor raw pixels."]
    beaten = [
        f"{called} by {text(column.difference(best, control))}"
        for control, (called, *_) in scored.items()
        if not _doubted(column, control)
    ]
    others = [_unbeaten(column, control, *said[:2]) for control, said in scored.items() if _doubted(column, control)]
    absent = [said for control, (*_, said) in controls.items() if control not in scored]
    return [*([f"Beats {_list(beaten)}."] if beaten else []), *others, *absent]


def against(difference: Estimate | None) -> str:
    """Return what a paired difference from a control says, in a few words."""
    if difference is None:
        return "not compared"
    outcome = {
        1: "beats it by",
        -1: "flagged: below it",
        0: "flagged: not resolvably above it",
        None: "not established",
    }
    return f"{outcome[difference.sign]}, {text(difference)}".replace("by,", "by")


def _doubted(column: Column, control: str) -> bool:
    found = column.difference(column.best, control)
    return found is None or found.sign != 1


def _unbeaten(column: Column, control: str, called: str, moral: str) -> str:
    found = column.difference(column.best, control)
    if found is None:
        return f"Not compared with {called}."
    if found.sign is None:
        return f"Against {called} nothing is established (difference {text(found)}; {found.note})."
    how = "scores below" if found.sign < 0 else "does not beat"
    return f"Flagged: {how} {called} (difference {text(found)}); {moral}."


def finding(column: Column, name: Name) -> str:
    """Return a figure's title: its finding in a line."""
    best = column.best
    if best is None:
        return "No score is defined"
    rivals = [other for other in column.order if other != best and other not in column.controls]
    outcomes = [_outcome(column.difference(best, other)) for other in rivals]
    if not rivals:
        return f"{name(best)}: the only backbone that was scored, controls apart"
    if set(outcomes) == {"above"}:
        return f"{name(best)} scores resolvably highest"
    unresolved = len(rivals) - outcomes.count("above")
    return f"{name(best)} scores highest, but is not resolvable from {unresolved} of {len(rivals)} others"


def _list(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
