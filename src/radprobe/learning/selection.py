"""How val chooses among candidates: macro AUROC over the classes that are defined there, ranked on logits (D23)."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import roc_auc_score

from radprobe.files import RadprobeError


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
