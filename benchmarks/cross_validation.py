"""Bias of an out-of-fold AUROC, and how often its 95 % interval holds the truth: the table of docs/methodology.md.

    python benchmarks/cross_validation.py [trials] [resamples]

Samples of two normal distributions in some dimensions, one sample a patient, 5 folds. As in a study, each fold's val
chooses the C of a logistic regression, which is fitted again on train and val. The truth is the mean over folds of the
true AUROC of the five fitted heads. Three ways to an AUROC and its interval are compared: pooled scores, ranks within
folds, and ranks within folds with resamples of fewer patients, which is what a study does.
"""

import sys
import warnings

import numpy as np
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from radprobe.metrics.classification import Classifier
from radprobe.metrics.options import Bootstrap
from radprobe.metrics.resampling import resampled

FOLDS = 5
CS = (1e-3, 1e-2, 1e-1, 1, 10)
CONDITIONS = (  # patients, dimensions, AUROC of the best possible head, share of positives
    (60, 20, 0.8, 1 / 3),
    (100, 20, 0.5, 1 / 3),
    (100, 20, 0.8, 1 / 3),
    (100, 100, 0.85, 1 / 3),
    (250, 100, 0.85, 1 / 3),
)
WAYS = {"pooled": (False, 1), "within": (True, 1), "within, fewer drawn": (True, FOLDS)}  # ranks in folds, Bootstrap's


def stratified_folds(generator: np.random.Generator, targets: np.ndarray) -> np.ndarray:
    """Return folds 0 ... FOLDS - 1 [n] that hold as many of each label."""
    folds = np.empty(len(targets), int)
    for label in (0, 1):
        rows = generator.permutation(np.flatnonzero(targets == label))
        folds[rows] = np.arange(len(rows)) % FOLDS
    return folds


def fitted(x: np.ndarray, targets: np.ndarray, folds: np.ndarray, fold: int) -> LogisticRegression:
    """Return the head of a fold: C by val, fitted again on train and val."""
    val = folds == (fold + 1) % FOLDS
    rest = folds != fold
    train = rest & ~val

    def value(c: float) -> float:
        head = LogisticRegression(C=c, max_iter=300).fit(x[train], targets[train])
        return roc_auc_score(targets[val], head.decision_function(x[val]))

    return LogisticRegression(C=max(CS, key=value), max_iter=300).fit(x[rest], targets[rest])


def trial(
    generator: np.random.Generator, n: int, width: int, best: float, share: float, resamples: int
) -> tuple[float, dict[str, tuple[float, float, float]]]:
    """Return the truth, and by way the value, low and high."""
    direction = np.zeros(width)
    direction[: max(1, width // 4)] = 1
    direction *= np.sqrt(2) * norm.ppf(best) / np.linalg.norm(direction)
    targets = (np.arange(n) < round(share * n)).astype(float)
    x = generator.normal(size=(n, width)) + np.outer(targets, direction)
    folds = stratified_folds(generator, targets)
    scores = np.empty(n)
    truths = []
    for fold in range(FOLDS):
        head = fitted(x, targets, folds, fold)
        tested = folds == fold
        scores[tested] = head.decision_function(x[tested])
        (weights,) = head.coef_
        truths.append(norm.cdf(weights @ direction / np.sqrt(2) / np.linalg.norm(weights)))
    seed = int(generator.integers(2**31))
    found = {}
    for name, (within, drawn) in WAYS.items():
        classifier = Classifier(scores[:, None], targets[:, None], np.arange(n), folds if within else None)
        how = Bootstrap(resamples, seed, min_patients=5, folds=drawn)
        one = resampled(classifier.auroc, n, how)
        low, high, _ = one.interval()
        found[name] = (float(one.point), low, high)
    return float(np.mean(truths)), found


def main(trials: int = 400, resamples: int = 500) -> None:
    """Print a line for each condition and way."""
    warnings.filterwarnings("ignore")
    print(f"{trials} simulated sets, {resamples} resamples, {FOLDS} folds")
    for n, width, best, share in CONDITIONS:
        generator = np.random.default_rng(n + width)
        every = [trial(generator, n, width, best, share, resamples) for _ in range(trials)]
        truth = np.array([each for each, _ in every])
        print(f"{n} patients, {width} features: true AUROC {truth.mean():.3f}")
        for name in WAYS:
            value, low, high = np.array([found[name] for _, found in every]).T
            inside = np.mean((low <= truth) & (truth <= high))
            print(
                f"  {name}: bias {np.mean(value - truth):+.3f}, coverage {inside:.3f}, width {np.mean(high - low):.3f}"
            )
        sys.stdout.flush()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
