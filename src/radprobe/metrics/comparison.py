"""Is a difference real? Two backbones on the same resampled patients: what both find hard cancels out."""

import itertools
from collections.abc import Callable

import numpy as np

from radprobe.metrics.resampling import Bootstrap, draws, interval

Statistic = Callable[[np.ndarray], np.ndarray]  # patient weights [patients, r] -> values [r]


def pairs(statistics: dict[str, Statistic], patients: int, how: Bootstrap) -> list[dict]:
    """Return, for every two names, the difference of their statistics with a paired 95 % interval.

    The statistics must number the same patients alike; every one sees the same resamples. Intervals are per pair, not
    corrected for the number of pairs.
    """
    once = np.ones((patients, 1))
    point = {name: statistic(once)[0] for name, statistic in statistics.items()}
    drawn = {name: draws(statistic, patients, how) for name, statistic in statistics.items()}
    found = []
    for name, other in itertools.combinations(statistics, 2):
        difference = float(point[name] - point[other])
        low, high, note = interval(drawn[name] - drawn[other], patients, how)
        if np.isnan(difference):
            low, high, note = np.nan, np.nan, "undefined: a score is undefined"
        row = {"backbone": name, "other": other, "difference": difference, "low": low, "high": high}
        found.append({**row, "n_patients": patients, "note": note})
    return found
