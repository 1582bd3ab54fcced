"""How long all pairs of 36 rows take on 2,000 resamples: critical value, intervals, p-values, the corrected winner.

python benchmarks/max_t.py
"""

import time

import numpy as np

from radprobe.metrics.options import Bootstrap
from radprobe.metrics.resampling import resampled
from radprobe.metrics.simultaneous import Family

ROWS, PATIENTS, RESAMPLES = 36, 400, 2000


def main() -> None:
    """Print the seconds of the family alone, its rows being resampled already."""
    values = np.random.default_rng(0).normal(size=(PATIENTS, ROWS))
    how = Bootstrap(RESAMPLES, 0, 10)
    rows = {
        f"row {number}": resampled(lambda weights, column=column: weights.T @ column / weights.sum(0), PATIENTS, how)
        for number, column in enumerate(values.T)
    }
    started = time.perf_counter()
    family = Family(rows, {})
    pairs = len(family.differences)
    family.winner(list(rows))
    print(f"measure max_t_pairs {pairs}")
    print(f"measure max_t_seconds {time.perf_counter() - started:.3f}")


if __name__ == "__main__":
    main()
