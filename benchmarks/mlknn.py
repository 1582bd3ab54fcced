"""ML-kNN from features to probabilities, against scikit-multilearn's and against the bare search that it needs.

    python benchmarks/mlknn.py [samples [columns [classes]]]
    python benchmarks/mlknn.py nih [columns [share]]

The first is fitted on so many generated samples and asked about a quarter as many, k = 10, cosine, on 2 threads. Its
reference is scikit-multilearn 0.2.0 where that can be imported, else the same algorithm written as plainly (sparse
matrices, Python loops, a brute force search by scikit-learn). The bare search is one matrix product and one topk of all
samples, for the fit, and of all queries. All take turns in one process, so that they meet the same other load; ratios
are the median over the turns. The study's own code excludes no sample from its own neighbours, and nor does
scikit-multilearn by default: here it is told to when it is fitted.

`nih` makes all lists that kNN and ML-kNN need of as many rows as NIH ChestX-ray14 has, k = 100, and scores 14 classes.
With a share below 1 it does so with that share of the rows, and says what all of them would take (quadratic).
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from radprobe.learning import knn
from radprobe.learning.device import peak_gb, threads

K, SMOOTHING, TURNS, THREADS = 10, 1.0, 5, 2
NIH = {"train": 76_522, "val": 10_002, "test": 25_596}
KNN_KS, ML_KS, NIH_CLASSES = (5, 10, 20, 50, 100), (5, 10, 20, 50), 14


def generated(rows: int, columns: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of 32 hidden causes under noise, as float16, and labels that depend on the causes."""
    rng = torch.Generator().manual_seed(0)
    causes = torch.randn(rows, 32, generator=rng)
    mixing = torch.randn(32, columns, generator=rng)
    x = torch.empty(rows, columns, dtype=torch.float16)
    for part, of in zip(x.split(8192), causes.split(8192), strict=True):
        part.copy_(of @ mixing + 3 * torch.randn(len(of), columns, generator=rng))
    y = causes @ torch.randn(32, classes, generator=rng) > torch.linspace(2, 12, classes)
    return x, y.float()


# --- the reference ----------------------------------------------------------------------------------------------------


def brute(k: int) -> NearestNeighbors:
    return NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute")


class Plain:
    """ML-kNN as Zhang & Zhou (2007) write it, cell by cell; the names are scikit-multilearn's."""

    def __init__(self, k: int, s: float, ignore_first_neighbours: int):
        self.k, self.s, self.ignore_first_neighbours = k, s, ignore_first_neighbours

    def fit(self, x: np.ndarray, y: np.ndarray) -> None:
        n, classes = y.shape
        self.labels, self.knn_ = sparse.lil_matrix(y, dtype="i8"), brute(self.k).fit(x)
        self._prior_prob_true = (self.s + y.sum(0)) / (2 * self.s + n)
        self._prior_prob_false = 1 - self._prior_prob_true
        count = {truth: sparse.lil_matrix((classes, self.k + 1), dtype="i8") for truth in (0, 1)}
        for i, found in enumerate(self.counts(x)):
            for label in range(classes):
                count[self.labels[i, label]][label, found[0, label]] += 1
        self._cond_prob_false, self._cond_prob_true = (self.likelihood(count[truth]) for truth in (0, 1))

    def likelihood(self, count: sparse.lil_matrix) -> sparse.lil_matrix:
        result, total = sparse.lil_matrix(count.shape, dtype="float"), count.sum(axis=1)
        for label in range(count.shape[0]):
            for c in range(self.k + 1):
                result[label, c] = (self.s + count[label, c]) / (self.s * (self.k + 1) + total[label, 0])
        return result

    def counts(self, x: np.ndarray):
        for row in self.knn_.kneighbors(x, self.k + self.ignore_first_neighbours, return_distance=False):
            yield self.labels[row[self.ignore_first_neighbours :]].sum(axis=0)

    def predict_proba(self, x: np.ndarray) -> sparse.lil_matrix:
        result = sparse.lil_matrix((len(x), self.labels.shape[1]), dtype="float")
        for i, found in enumerate(self.counts(x)):
            for label in range(result.shape[1]):
                result[i, label] = self._prior_prob_true[label] * self._cond_prob_true[label, found[0, label]]
        return result


def reference() -> tuple[type, str]:
    """Return scikit-multilearn's MLkNN, made to run with today's scikit-learn and by cosine, or the plain one."""
    try:
        from skmultilearn.adapt import mlknn
    except ImportError:
        return Plain, "a plain transcription (scikit-multilearn is not installed)"
    mlknn.NearestNeighbors = brute
    return mlknn.MLkNN, "scikit-multilearn"


def theirs(x: np.ndarray, y: np.ndarray, query: np.ndarray):
    """Fit and ask. The first neighbour is the sample itself when fitting, and is to be kept for a query."""
    model = reference()[0](k=K, s=SMOOTHING, ignore_first_neighbours=1)
    model.fit(x, y)
    model.ignore_first_neighbours = 0
    return model, model.predict_proba(query)


def posterior(model, joint: sparse.lil_matrix, y: np.ndarray, query: np.ndarray) -> np.ndarray:
    """P(1 | C): `predict_proba` gives P(1) P(C | 1) alone, the other half is in the fitted model."""
    found = y[model.knn_.kneighbors(query, K, return_distance=False)].sum(1).astype(int)
    other = model._cond_prob_false.toarray()[np.arange(y.shape[1]), found] * np.asarray(model._prior_prob_false)
    return joint.toarray() / (joint.toarray() + other)


# --- ours, and the bare search ----------------------------------------------------------------------------------------


def ours(x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    """Return the probabilities [queries, classes] of rows n and on, from the first n."""
    parts, pairs = {"train": torch.arange(n), "test": torch.arange(n, len(x))}, (("train", "train"), ("test", "train"))
    found = knn.nearest(x, parts, pairs, K)
    return knn.mlknn_scores(*(found[pair] for pair in pairs), y, [K], SMOOTHING)[0].sigmoid()


def bare(x: torch.Tensor, n: int) -> None:
    unit = torch.nn.functional.normalize(x.float(), dim=1)
    for query in (unit[:n], unit[n:]):
        (query @ unit[:n].T).topk(K, dim=1)


def seconds(function: Callable, *given) -> float:
    begun = time.perf_counter()
    function(*given)
    return time.perf_counter() - begun


def against(n: int = 5_000, columns: int = 384, classes: int = 15) -> None:
    x, y = generated(n + n // 4, columns, classes)
    features, labels = x.float().numpy(), y.numpy().astype(int)
    given = features[:n], labels[:n], features[n:]
    model, joint = theirs(*given)
    difference = np.abs(posterior(model, joint, labels[:n], features[n:]) - ours(x, y, n).numpy()).max()
    turns = np.array([(seconds(theirs, *given), seconds(ours, x, y, n), seconds(bare, x, n)) for _ in range(TURNS)])
    for name, took in zip((reference()[1], "radprobe", "bare matmul + topk"), np.median(turns, 0), strict=True):
        print(f"{name}: {took:.3f} s")
    print(f"largest difference of a probability: {difference:.1e} (of {n // 4} x {classes})")
    print(f"ratio mlknn {np.median(turns[:, 0] / turns[:, 1]):.1f}")
    print(f"ratio mlknn_vs_bare {np.median(turns[:, 1] / turns[:, 2]):.2f}")


def nih(columns: int = 1_536, share: float = 1.0) -> None:
    sizes = {part: round(n * share) for part, n in NIH.items()}
    x, y = generated(sum(sizes.values()), columns, NIH_CLASSES)
    rows = dict(zip(sizes, torch.arange(len(x)).split(list(sizes.values())), strict=True))
    choosing, final = (("train", "train"), ("val", "train")), (("train+val", "train+val"), ("test", "train+val"))
    begun, before = time.perf_counter(), peak_gb(torch.device("cpu"))
    found = knn.nearest(x, rows, choosing + final, max(KNN_KS))
    searched = time.perf_counter()
    for within, near in (choosing, final):
        knn.weighted_scores(found[near], y, KNN_KS, 0.07)
        knn.mlknn_scores(found[within], found[near], y, ML_KS, SMOOTHING)
    scored, memory = time.perf_counter(), peak_gb(torch.device("cpu"))
    print(f"{len(x)} rows x {columns}: lists {searched - begun:.1f} s, scores {scored - searched:.1f} s")
    print(f"largest memory {memory:.2f} GB, of which features and imports {before:.2f} GB")
    if share < 1:
        print(
            f"all {sum(NIH.values())} rows: about {(searched - begun) / share**2 + (scored - searched) / share:.0f} s"
        )


if __name__ == "__main__":
    with threads(THREADS):
        if sys.argv[1:2] == ["nih"]:
            nih(*(kind(given) for kind, given in zip((int, float), sys.argv[2:], strict=False)))
        else:
            against(*(int(given) for given in sys.argv[1:]))
