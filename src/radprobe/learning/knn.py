"""k nearest neighbours by cosine, exact, in bounded memory: similarity-weighted kNN, and ML-kNN.

The search costs far more than what is made of it, so it runs once (`nearest`) and every head reads the same lists.
Labels are [n, classes] of 1, 0 or NaN (blank or uncertain): a neighbour without a label says nothing of that class.
"""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import torch
from numpy.typing import ArrayLike
from torch.nn.functional import normalize

from radprobe.learning.device import threads

CHUNK_ELEMENTS = 2**24  # similarities held at once by each thread, 64 MB
CHUNK_ROWS = 512  # queries searched at once, at most: enough work for every thread
GROUP = 16  # columns that share one maximum
PAPER_K, PAPER_SMOOTHING = 5, 1.0  # of the study's ML-kNN (arXiv 2312.02366, authors' code)


@dataclass(frozen=True)
class Neighbours:
    """The nearest k of `source` to each of `query`, most similar first; all of them name rows of one table."""

    query: torch.Tensor  # [m]
    source: torch.Tensor  # [n]
    similarity: torch.Tensor  # [m, k]
    row: torch.Tensor  # [m, k]


# --- the search -------------------------------------------------------------------------------------------------------


def nearest(
    x: torch.Tensor, parts: Mapping[str, ArrayLike], wanted: Collection[tuple[str, str]], k: int
) -> dict[tuple[str, str], Neighbours]:
    """Return the Neighbours of each wanted (query, source), by cosine in float32, without a sample itself.

    x is [N, C], of any precision; `parts` names disjoint sets of its rows. A query or source is a part, or several
    joined by "+" (a joined query is the whole source or no part of it): parts are searched one by one and their lists
    merged, so "train" costs nothing more beside "train+val". A list is shorter than k where the source is. Each chunk
    is searched by one thread, so the lists are the same for any number of them.
    """
    rows_of = {name: torch.as_tensor(rows) for name, rows in parts.items()}
    pairs = {pair for query, source in wanted for pair in product(query.split("+"), source.split("+"))}
    found, workers = {}, torch.get_num_threads()
    with threads(1), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for source in sorted({source for _, source in pairs}):
            vectors = _unit(x, rows_of[source])
            for query in sorted(query for query, of in pairs if of == source):
                found[query, source] = _search(pool, x, rows_of[query], vectors, rows_of[source], k, query == source)
        return {(query, source): _joined(found, query.split("+"), source.split("+"), k) for query, source in wanted}


def _unit(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    vectors = x[rows].float()  # indexing has copied them, so they may be written over
    return normalize(vectors, dim=1, out=vectors)


def _search(
    pool: Executor,
    x: torch.Tensor,
    query: torch.Tensor,
    vectors: torch.Tensor,
    source: torch.Tensor,
    k: int,
    itself: bool,
) -> Neighbours:
    """Search `vectors`, which are those of `source`; where query is source, no sample is its own neighbour."""
    k = min(k, len(source) - itself)
    step = max(1, min(CHUNK_ROWS, CHUNK_ELEMENTS // len(source)))

    def search(start: int) -> tuple[torch.Tensor, torch.Tensor]:
        similarity = _unit(x, query[start : start + step]) @ vectors.T
        if itself:
            similarity.diagonal(start).fill_(-torch.inf)
        best, column = _top(similarity, k)
        return best, source[column]

    chunks = list(pool.map(search, range(0, len(query), step)))
    similarity, row = (torch.cat(each) for each in zip(*chunks, strict=True))
    return Neighbours(query, source, similarity, row)


def _top(similarity: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `similarity.topk(k, dim=1)`, several times as fast on wide rows.

    The k largest lie in the k groups of columns with the largest maxima, so most columns are only read, not ranked.
    """
    groups = similarity.shape[1] // GROUP
    if groups <= k:
        values, columns = similarity.topk(k, dim=1)
        return values, columns
    grouped = groups * GROUP
    maxima = similarity[:, :grouped].reshape(-1, GROUP, groups).amax(1)
    members = maxima.topk(k, dim=1).indices[:, None] + torch.arange(0, grouped, groups)[:, None]
    rest = torch.arange(grouped, similarity.shape[1]).expand(len(similarity), -1)
    columns = torch.cat([members.flatten(1), rest], 1)
    best, at = similarity.gather(1, columns).topk(k, dim=1)
    return best, columns.gather(1, at)


def _joined(
    found: Mapping[tuple[str, str], Neighbours], queries: Sequence[str], sources: Sequence[str], k: int
) -> Neighbours:
    """Merge the lists of several sources, and put those of several queries one after the other."""
    merged = [_merged([found[query, source] for source in sources], k) for query in queries]
    query, similarity, row = (
        torch.cat([getattr(each, name) for each in merged]) for name in ("query", "similarity", "row")
    )
    return Neighbours(query, merged[0].source, similarity, row)


def _merged(lists: Sequence[Neighbours], k: int) -> Neighbours:
    source, similarity, row = (
        torch.cat([each.source for each in lists]),
        *(torch.cat([getattr(each, name) for each in lists], 1) for name in ("similarity", "row")),
    )
    similarity, at = similarity.topk(min(k, similarity.shape[1]), dim=1)
    return Neighbours(lists[0].query, source, similarity, row.gather(1, at))


# --- what is made of it -----------------------------------------------------------------------------------------------


@threads(1)
def weighted_scores(near: Neighbours, labels: torch.Tensor, ks: Sequence[int], temperature: float) -> torch.Tensor:
    """Return the softmax(similarity / temperature)-weighted mean label of the k nearest, [len(ks), m, classes].

    `labels` [N, classes] are those of all rows of the table; no k is larger than the lists are long. The weighting of
    Wu et al., Unsupervised feature learning via non-parametric instance discrimination (CVPR 2018). Where no neighbour
    has a label, the score is the class's mean in the source, or 0.5 where none there has one.
    """
    prior = labels[near.source].nanmean(0).nan_to_num(0.5)
    value, known, at = labels.nan_to_num(0.0), (~labels.isnan()).float(), torch.as_tensor(ks) - 1
    parts = []
    for similarity, row in zip(
        torch.split(near.similarity, CHUNK_ROWS), torch.split(near.row, CHUNK_ROWS), strict=True
    ):
        weight = ((similarity - similarity[:, :1]) / temperature).exp()[:, :, None]
        summed = (weight * value[row]).cumsum(1)[:, at]
        total = (weight * known[row]).cumsum(1)[:, at]
        parts.append(torch.where(total > 0, summed / total, prior))
    return torch.cat(parts).transpose(0, 1)


@threads(1)
def mlknn_scores(
    within: Neighbours, near: Neighbours, labels: torch.Tensor, ks: Sequence[int], smoothing: float
) -> torch.Tensor:
    """Return the posterior log odds of ML-kNN, float64 [len(ks), m, classes]; sigmoid makes them probabilities.

    ML-kNN, Zhang & Zhou, Pattern Recognition 40 (2007) 2038-2048, with cosine similarity. For each class, with C the
    number of its positives among the k neighbours: posterior odds = prior odds x P(C | positive) / P(C | negative),
    estimated with Laplace smoothing on the neighbours `within` the source, then read for those `near` each query.
    `labels` [N, classes] are those of all rows of the table: samples without one do not count. No k is larger than the
    lists are long. Log odds, because probabilities would saturate into ties.
    """
    own = labels[within.query]
    positive, negative = (own == 1).double(), (own == 0).double()
    prior = ((positive.sum(0) + smoothing) / (negative.sum(0) + smoothing)).log()
    scores = []
    for k, here, there in zip(ks, _counts(within, labels, ks), _counts(near, labels, ks), strict=True):
        one, zero = (_histogram(here, who, k) + smoothing for who in (positive, negative))
        likelihood = (one / one.sum(0) / (zero / zero.sum(0))).log()
        scores.append(prior + likelihood.gather(0, there))
    return torch.stack(scores)


def _counts(near: Neighbours, labels: torch.Tensor, ks: Sequence[int]) -> torch.Tensor:
    """Return the number of positives among the k nearest, int64 [len(ks), m, classes]."""
    positive, at = (labels == 1).to(torch.int16), torch.as_tensor(ks) - 1
    parts = [positive[row].cumsum(1, dtype=torch.int16)[:, at].long() for row in torch.split(near.row, CHUNK_ROWS)]
    return torch.cat(parts).transpose(0, 1)


def _histogram(count: torch.Tensor, who: torch.Tensor, k: int) -> torch.Tensor:
    """Return [k + 1, classes]: how many samples of `who` [n, classes] (1 or 0) have each count."""
    classes = count.shape[1]
    cell = count * classes + torch.arange(classes)
    return torch.bincount(cell.flatten(), who.flatten(), (k + 1) * classes).view(k + 1, classes)
