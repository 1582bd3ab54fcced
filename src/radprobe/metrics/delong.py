"""DeLong's test of two AUROCs on the same samples (DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44:837-845).

It takes samples as independent, so it is for tests in which each patient has one; a check of the bootstrap's p-value.
"""

import numpy as np
from scipy.stats import norm, rankdata


def components(scores: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the AUROC of scores [n] for targets [n] (1, 0, NaN), and what each sample adds to its error [n].

    The variance of the AUROC is the sum of squares of the latter: DeLong's estimate, by ranks (Sun and Xu 2014, IEEE
    Signal Processing Letters 21:1389-1393). NaN without positives or negatives, zeros where there is only one of them.
    """
    positive, negative = np.flatnonzero(targets == 1), np.flatnonzero(targets == 0)
    m, n = len(positive), len(negative)
    added = np.zeros(len(scores))
    if not m or not n:
        return np.nan, added
    ranks = rankdata(np.concatenate([scores[positive], scores[negative]]))
    above = (ranks[:m] - rankdata(scores[positive])) / n  # of the negatives, below each positive
    below = 1 - (ranks[m:] - rankdata(scores[negative])) / m  # of the positives, above each negative
    area = above.mean()
    for rows, share, count in ((positive, above, m), (negative, below, n)):
        if count > 1:
            added[rows] = (share - area) / np.sqrt(count * (count - 1))
    return float(area), added


def p_value(scores: np.ndarray, others: np.ndarray, targets: np.ndarray) -> float:
    """Return the two-sided p-value that two macro AUROCs are equal, for scores and targets [n, classes].

    The errors of classes on the same samples go together, so what a sample adds is summed over the defined classes.
    """
    pairs = [
        (components(one, target), components(other, target))
        for one, other, target in zip(scores.T, others.T, targets.T, strict=True)
    ]
    defined = [(a, b) for a, b in pairs if not np.isnan(a[0])]
    if not defined:
        return np.nan
    difference = np.mean([a[0] - b[0] for a, b in defined])
    error = np.sqrt((np.mean([a[1] - b[1] for a, b in defined], axis=0) ** 2).sum())
    if error == 0:
        return 1.0 if difference == 0 else np.nan
    return float(2 * norm.sf(abs(difference) / error))
