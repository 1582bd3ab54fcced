"""How the cost of each head grows with the number of rows.

    python benchmarks/cost_vs_n.py [rows ...]

Generated features of 384 columns, 14 labels. Prints seconds, and ends in the exponent of time over rows (1: linear)
from the smallest to the largest: the grid and the logistic sweep over the rows they are fitted to; the search for
neighbours over the rows that are searched for a fixed number of queries, and ML-kNN over as many rows once they are
found. (To find the neighbours of all rows among all rows, as ML-kNN is fitted, is quadratic, as any exact search.)
"""

import sys
import time

import numpy as np
import torch

from radprobe.learning import grid, knn, logistic
from radprobe.learning.device import threads

COLUMNS, CLASSES, QUERIES, K = 384, 14, 2000, 50


def data(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((n, COLUMNS), generator=generator)
    y = (x[:, :CLASSES] + torch.randn((n, CLASSES), generator=generator) > 1).float()
    return x.half(), y


def linear(x: torch.Tensor, y: torch.Tensor) -> None:
    table = grid.FeatureTable.of([x])
    recipes = [grid.HeadRecipe(1, False, rate) for rate in (0.03, 0.1, 0.3, 1.0)]
    grid.fit(table, y, recipes, 2, 64, 0, unit=grid.Unit.of(table))


def sweep(x: torch.Tensor, y: torch.Tensor) -> None:
    logistic.fit(x, y, np.geomspace(1e-1, 1e4, 5).tolist(), False)


def neighbours(x: torch.Tensor, y: torch.Tensor) -> None:
    queries, rows = torch.randn((QUERIES, COLUMNS)).half(), np.arange(len(x))
    knn.nearest(torch.cat([x, queries]), {"train": rows, "test": len(x) + np.arange(QUERIES)}, [("test", "train")], K)


def mlknn(x: torch.Tensor, y: torch.Tensor) -> None:
    rows, generator = torch.arange(len(x)), torch.Generator().manual_seed(0)
    near = torch.randint(0, len(x), (len(x), K), generator=generator)
    found = knn.Neighbours(rows, rows, torch.zeros(near.shape), near)
    knn.mlknn_scores(found, found, y, [5, 10, 20, K], 1.0)


HEADS = {"linear_grid": linear, "logistic_sweep": sweep, "knn_search": neighbours, "mlknn_scores": mlknn}


def main(*rows: str) -> None:
    sizes = [int(each) for each in rows or ("1000", "4000", "16000", "64000")]
    seconds = {name: [] for name in HEADS}
    with threads(1):
        for name, fit in HEADS.items():
            fit(*data(sizes[0]))  # warm
            for n in sizes:
                given = data(n)
                begun = time.perf_counter()
                fit(*given)
                seconds[name].append(time.perf_counter() - begun)
            told = ", ".join(f"{n:,} rows {each:.3f} s" for n, each in zip(sizes, seconds[name], strict=True))
            print(f"{name}: {told}")
    for name, each in seconds.items():
        print(f"ratio cost_vs_n_{name} {np.log(each[-1] / each[0]) / np.log(sizes[-1] / sizes[0]):.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
