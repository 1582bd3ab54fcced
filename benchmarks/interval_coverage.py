"""How often the 95 % interval of a score holds the truth in simulated test sets, and how wide it is.

    python benchmarks/interval_coverage.py [trials] [resamples]

Each statistic has a known truth: the mean of skewed scores, Beta(9, 1), as DSC may be, with failures and without; AUROC
and AUPRC of two normal distributions; balanced accuracy, F1 and Brier score of them at a fixed threshold. Widths are
over those of the plain percentile interval of the same resamples.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from radprobe.metrics import classification, operating
from radprobe.metrics.options import Bootstrap
from radprobe.metrics.resampling import resampled

MANY = 1_000_000  # samples that stand for the truth
FEWEST = 10  # patients, with the rarer label where there are two, under which there is no interval


@dataclass(frozen=True)
class Condition:
    """A statistic of a simulated test set."""

    statistic: str
    patients: int
    prevalence: float = 0.33
    auroc: float = 0.8

    @property
    def name(self) -> str:
        """The condition in one word."""
        labels = "" if self.statistic in MEANS else f"_prevalence{self.prevalence:g}_auroc{self.auroc:g}"
        return f"{self.statistic}_n{self.patients}{labels}"

    @property
    def truth(self) -> float:
        """The value over all patients that there could be."""
        return _truth(self.statistic, self.prevalence, self.auroc)


def skewed(generator: np.random.Generator, patients: int) -> np.ndarray:
    """Return scores like DSC."""
    return generator.beta(9, 1, patients)


def failing(generator: np.random.Generator, patients: int) -> np.ndarray:
    """Return scores like DSC of which one in ten is a failure."""
    failed = generator.random(patients) < 0.1
    return np.where(failed, generator.uniform(0, 0.6, patients), generator.beta(30, 2, patients))


MEANS: dict[str, Callable] = {"mean": skewed, "mean_with_failures": failing}
RANKED = {"auroc": 0, "auprc": 1}


def labelled(
    generator: np.random.Generator, patients: int, prevalence: float, auroc: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and labels [patients, 1]; the logit of a score is calibrated where labels are even."""
    targets = generator.random(patients) < prevalence
    scores = generator.normal(size=patients) + targets * np.sqrt(2) * norm.ppf(auroc)
    return scores[:, None], targets[:, None].astype(float)


def rows(condition: Condition, generator: np.random.Generator, how: Bootstrap) -> dict:
    """Return the row of the statistic of a simulated test set, as Scores have it, and the width of its percentiles."""
    n = condition.patients
    if condition.statistic in MEANS:
        sample = MEANS[condition.statistic](generator, n)
        found = resampled(lambda weights: weights.T @ sample / weights.sum(0), n, how)
        low, high, _ = found.interval()
        return {"low": low, "high": high, "plain": np.ptp(np.quantile(found.drawn, [0.025, 0.975]))}
    scores, targets = labelled(generator, n, condition.prevalence, condition.auroc)
    ids = np.arange(n)
    if condition.statistic in RANKED:
        of_class = classification.rows(scores, scores, targets, ["one"], ids, how)
        areas = resampled(classification.Classifier(scores, targets, ids).areas, n, how)
        drawn = areas.drawn[:, 0, RANKED[condition.statistic]]
    else:
        of_class = operating.rows(_operating(scores, targets, ids, condition.auroc), ["one"], how)
        values = resampled(_operating(scores, targets, ids, condition.auroc).values, n, how)
        drawn = values.drawn[:, 0, operating.METRICS.index(condition.statistic)]
    row = next(each for each in of_class if each["metric"] == condition.statistic and each["class"] == "one")
    return {"low": row["low"], "high": row["high"], "plain": np.ptp(np.nanquantile(drawn, [0.025, 0.975]))}


def _operating(scores: np.ndarray, targets: np.ndarray, ids: np.ndarray, auroc: float) -> operating.Operating:
    at = np.array([norm.ppf(auroc) / np.sqrt(2)])
    return operating.Operating(operating.called(scores, expit(scores), at), targets, ids)


@cache
def _truth(statistic: str, prevalence: float, auroc: float) -> float:
    generator = np.random.default_rng(0)
    if statistic in MEANS:
        return float(MEANS[statistic](generator, MANY).mean())
    if statistic == "auroc":
        return auroc
    scores, targets = labelled(generator, MANY, prevalence, auroc)
    one = np.ones((MANY, 1))
    if statistic == "auprc":
        return float(classification.Classifier(scores, targets, np.arange(MANY)).areas(one)[0, 0, 1])
    values = _operating(scores, targets, np.arange(MANY), auroc).values(one)
    return float(values[0, 0, operating.METRICS.index(statistic)])


def covered(condition: Condition, trials: int, resamples: int) -> tuple[float, float, float]:
    """Return the share of shown intervals that hold the truth, their mean width over percentiles', the share shown."""
    generator, inside, widths = np.random.default_rng(list(condition.name.encode())), [], []
    for trial in range(trials):
        row = rows(condition, generator, Bootstrap(resamples, trial, FEWEST))
        if not np.isnan(row["low"]):
            inside.append(row["low"] <= condition.truth <= row["high"])
            widths.append((row["high"] - row["low"]) / row["plain"] if row["plain"] else np.nan)
    return float(np.mean(inside)), float(np.nanmedian(widths)), len(inside) / trials


CONDITIONS = [
    *(Condition("mean", n) for n in (10, 20, 40, 100, 400)),
    *(Condition("mean_with_failures", n) for n in (10, 20, 40, 100, 400)),
    *(Condition("auroc", n, p, a) for a in (0.6, 0.8, 0.95, 0.995) for n, p in ((40, 0.33), (100, 0.1), (400, 0.1))),
    *(Condition("auprc", n, p, a) for a in (0.6, 0.8, 0.95) for n, p in ((40, 0.33), (100, 0.33), (400, 0.1))),
    *(Condition(name, n, 0.33) for name in ("balanced_accuracy", "f1", "brier") for n in (40, 100, 400)),
]


def main(trials: int = 1000, resamples: int = 1000) -> None:
    """Print the measures of every condition."""
    for condition in CONDITIONS:
        covers, width, shown = covered(condition, trials, resamples)
        print(f"measure covers:{condition.name} {covers:.3f}")
        print(f"measure width:{condition.name} {width:.2f}")
        print(f"measure shown:{condition.name} {shown:.2f}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
