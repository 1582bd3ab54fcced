"""How the cost of each head grows with the number of rows.

    python benchmarks/cost_vs_n.py [rows ...]

Generated features of 384 columns, 14 labels. Prints seconds, and ends in the exponent of time over rows (1: linear)
from the smallest to the largest: the grid and the logistic sweep over the rows they are fitted to; kNN over the rows
that are searched for a fixed number of queries.
"""

import sys
import time

import numpy as np
import torch

from radprobe.learning import grid, knn, logistic
from radprobe.learning.device import threads

COLUMNS, CLASSES, QUERIES = 384, 14, 2000


def data(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((n, COLUMNS), generator=generator)
    y = (x[:, :CLASSES] + torch.randn((n, CLASSES), generator=generator) > 1).float()
    return x.half(), y


def linear(x: torch.Tensor, y: torch.Tensor) -> None:
    table = grid.Table.of(x[:, None], None)
    recipes, _ = grid.recipes(table, [0.001, 0.005, 0.01, 0.05], [1], [False])
    grid.fit(table, y, recipes, 2, 64, 0)


def sweep(x: torch.Tensor, y: torch.Tensor) -> None:
    logistic.fit(x, y, np.geomspace(1e-4, 1e2, 5).tolist())


def neighbours(x: torch.Tensor, y: torch.Tensor) -> None:
    knn.nearest(x, {"test": np.arange(QUERIES), "train": np.arange(QUERIES, len(x))}, [("test", "train")], 50)


def main(*rows: str) -> None:
    sizes = [int(each) for each in rows or ("4000", "16000", "64000")]
    heads = {"linear_grid": linear, "logistic_sweep": sweep, "knn_search": neighbours}
    seconds = {name: [] for name in heads}
    with threads(1):
        for name, fit in heads.items():
            fit(*data(2 * QUERIES))  # warm
            for n in sizes:
                x, y = data(n + QUERIES * (name == "knn_search"))
                begun = time.perf_counter()
                fit(x, y)
                seconds[name].append(time.perf_counter() - begun)
            told = ", ".join(f"{n:,} rows {each:.2f} s" for n, each in zip(sizes, seconds[name], strict=True))
            print(f"{name}: {told}")
    for name, each in seconds.items():
        print(f"ratio cost_vs_n_{name} {np.log(each[-1] / each[0]) / np.log(sizes[-1] / sizes[0]):.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
