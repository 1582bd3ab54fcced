"""Names of tasks, metrics and protocols, numbers and intervals, as the pages show them."""

import math
from collections.abc import Callable, Iterable, Sequence

from radprobe.report.ranking import Estimate

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
OTHERS |= {"dsc_by_case": "DSC, mean by case"}
OTHERS |= {"brier_recalibrated": "Brier score, recalibrated", "ece_recalibrated": "ECE, recalibrated"}
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
    "head": "the head alone, in adapt's loop",
    "bitfit": "all biases trained (BitFit)",
    "lora": "low-rank adapters (LoRA)",
    "end_to_end": "end-to-end fine-tuning",
    "external": "predictions from elsewhere",
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
    "head": f"{FROZEN} A linear head is trained in the loop that also trains backbones: the reference for their gains. "
    f"{AGAIN}",
    "bitfit": f"Every bias of the backbone is trained, with a linear head. {AGAIN}",
    "lora": f"Low-rank adapters in the backbone are trained, with a linear head. {AGAIN}",
    "end_to_end": f"The whole backbone is trained, with a linear head. {AGAIN}",
    "ceiling": "No model: the truth itself, brought to the size at which decoders work and back to the original grid.",
}
ELSEWHERE = "predictions from elsewhere: radprobe has not checked what they were trained on"
EXPLAINED["external"] = f"{ELSEWHERE[0].upper()}{ELSEWHERE[1:]}. They are scored as all others are."
Name = Callable[[str], str]
NAMED = 4  # rows that a sentence names before it counts the others


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


def listed(names: Sequence[str], last: str = "and") -> str:
    """Return names as "a, b and c"."""
    names = list(names)
    return f"{', '.join(names[:-1])} {last} {names[-1]}" if len(names) > 1 else names[0]


def some(names: Iterable[str], last: str) -> str:
    """Return names as `listed` does; of many the first NAMED, and how many others."""
    names = list(names)
    return listed([*names[:NAMED], f"{len(names) - NAMED} others"] if len(names) > NAMED + 1 else names, last)


def p_value(p: float) -> str:
    """Return "p = 0.012"; "p < 0.001" where it is smaller."""
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"
