"""How often a 95 % interval holds the truth, in simulated test sets: the table of docs/intervals.md.

    python benchmarks/interval_coverage.py [trials] [resamples]

Two statistics whose truth is known: the mean of skewed scores, Beta(9, 1) as DSC may be, and the AUROC of two normal
distributions, with a third of the patients positive, or with few positives among 200 patients. Each is given our
interval (BCa of few patients, else percentile), as if none were too few for one, and the percentile interval.
"""

import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.stats import norm

from radprobe.metrics.classification import Ranking
from radprobe.metrics.resampling import Bootstrap, resampled

PATIENTS = (10, 20, 50, 200)
POSITIVES, OF = (1, 3, 5, 10, 20), 200
MEAN, AUROC = 0.9, 0.8  # the truth
Statistic = Callable[[np.ndarray], np.ndarray]


def mean(generator: np.random.Generator, patients: int) -> Statistic:
    """Return the mean of a simulated test set, as a function of patient weights [patients, r]."""
    sample = generator.beta(9, 1, patients)
    return lambda weights: weights.T @ sample / weights.sum(0)


def auroc(generator: np.random.Generator, patients: int, positives: int | None = None) -> Statistic:
    """Return the AUROC of a simulated test set, as a function of patient weights [patients, r]."""
    targets = np.arange(patients) < (positives or round(patients / 3))
    scores = generator.normal(size=patients) + targets * np.sqrt(2) * norm.ppf(AUROC)
    ranking = Ranking(scores, targets, np.arange(patients), patients)
    return lambda weights: ranking.areas(weights)[0]


STATISTICS = {"mean": (mean, MEAN), "auroc": (auroc, AUROC)}


def covered(name: str, patients: int, trials: int, resamples: int, **how: int) -> tuple[float, float]:
    """Return the share of simulated test sets whose interval holds the truth: of our intervals, of percentile ones."""
    simulate, truth = STATISTICS[name]
    generator, inside = np.random.default_rng(patients), np.zeros(2)
    for trial in range(trials):
        found = resampled(simulate(generator, patients, **how), patients, Bootstrap(resamples, trial, min_patients=5))
        # Without its jackknife an interval is the percentile one.
        for kind, each in enumerate((found, replace(found, without=None))):
            low, high, _ = each.interval()
            inside[kind] += low <= truth <= high
    ours, percentile = inside / trials
    return ours, percentile


def main(trials: int = 1000, resamples: int = 2000) -> None:
    """Print a line for each statistic and number of patients."""
    print(f"{trials} simulated test sets, {resamples} resamples")
    for name in STATISTICS:
        for patients in PATIENTS:
            ours, percentile = covered(name, patients, trials, resamples)
            print(f"{name}, {patients} patients: {ours:.3f}, percentile {percentile:.3f}", flush=True)
    for positives in POSITIVES:
        ours, _ = covered("auroc", OF, trials, resamples, positives=positives)
        print(f"auroc, {positives} of {OF} patients positive: {ours:.3f}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
