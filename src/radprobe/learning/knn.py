"""k nearest neighbours by cosine, exact, in bounded memory: similarity-weighted kNN, and ML-kNN.

Labels are [n, classes] of 1, 0 or NaN (blank or uncertain): a neighbour without a label says nothing of that class.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

CHUNK_ELEMENTS = 2**25  # similarities held at once
PAPER_K, PAPER_SMOOTHING = 5, 1.0  # of the study's ML-kNN (arXiv 2312.02366, authors' code)


def neighbours(
    train: torch.Tensor, query: torch.Tensor, k: int, itself: bool = False
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (similarities, positions in train), each [chunk, k], of the nearest of train [n, C] to query [m, C].

    Most similar first. With `itself`, query is train and no sample is its own neighbour (leave one out).
    """
    train, query = normalize(train.float(), dim=1), normalize(query.float(), dim=1)
    rows = max(1, CHUNK_ELEMENTS // len(train))
    for start in range(0, len(query), rows):
        similarity = query[start : start + rows] @ train.T
        if itself:
            chunk = torch.arange(len(similarity))
            similarity[chunk, chunk + start] = -torch.inf
        yield tuple(similarity.topk(k, dim=1))


def knn_scores(
    train_x: torch.Tensor, train_y: torch.Tensor, query_x: torch.Tensor, ks: Sequence[int], temperature: float
) -> torch.Tensor:
    """Return the softmax(similarity / temperature)-weighted mean label of the k nearest, [len(ks), m, classes].

    The weighting of Wu et al., Unsupervised feature learning via non-parametric instance discrimination (CVPR 2018).
    Where no neighbour has a label, the score is the class's mean in train.
    """
    known = ~train_y.isnan()
    labels, known, prior = train_y.nan_to_num(0.0), known.float(), train_y.nanmean(0)
    at = torch.as_tensor(ks) - 1
    parts = []
    for similarity, position in neighbours(train_x, query_x, max(ks)):
        weight = ((similarity - similarity[:, :1]) / temperature).exp()[:, :, None]
        summed = (weight * labels[position]).cumsum(1)[:, at]
        total = (weight * known[position]).cumsum(1)[:, at]
        parts.append(torch.where(total > 0, summed / total, prior))
    return torch.cat(parts).transpose(0, 1)


@dataclass(frozen=True)
class MlKnn:
    """ML-kNN, Zhang & Zhou, Pattern Recognition 40 (2007) 2038-2048, with cosine similarity; one model per k.

    For each class, with C the number of its positives among the k neighbours: posterior odds = prior odds x
    P(C | positive) / P(C | negative), each estimated on train (neighbours leave one out) with Laplace smoothing s.
    """

    train_x: torch.Tensor
    train_y: torch.Tensor
    ks: tuple[int, ...]
    prior: torch.Tensor  # [classes], log odds
    likelihood: tuple[torch.Tensor, ...]  # for each k: [k + 1, classes], log P(C | 1) - log P(C | 0)

    @classmethod
    def fit(cls, train_x: torch.Tensor, train_y: torch.Tensor, ks: Sequence[int], smoothing: float) -> "MlKnn":
        """Fit on train_x [n, C] and train_y [n, classes]; every k < n. Samples without a label do not count."""
        positive, negative = (train_y == 1).double(), (train_y == 0).double()
        prior = ((positive.sum(0) + smoothing) / (negative.sum(0) + smoothing)).log()
        counts = _counts(train_x, train_y, train_x, ks, itself=True)
        likelihood = []
        for k, count in zip(ks, counts, strict=True):
            one, zero = (_histogram(count, who, k) + smoothing for who in (positive, negative))
            likelihood.append((one / one.sum(0) / (zero / zero.sum(0))).log())
        return cls(train_x, train_y, tuple(ks), prior, tuple(likelihood))

    def scores(self, query_x: torch.Tensor) -> torch.Tensor:
        """Return the posterior log odds, float64 [len(ks), m, classes] (probabilities would saturate into ties)."""
        counts = _counts(self.train_x, self.train_y, query_x, self.ks)
        tables = zip(self.likelihood, counts, strict=True)
        return torch.stack([self.prior + table.gather(0, count) for table, count in tables])


def _counts(
    train_x: torch.Tensor, train_y: torch.Tensor, query_x: torch.Tensor, ks: Sequence[int], itself: bool = False
) -> torch.Tensor:
    """Return the number of positives among the k nearest, int64 [len(ks), m, classes]."""
    positive, at = (train_y == 1).to(torch.int16), torch.as_tensor(ks) - 1
    nearest = neighbours(train_x, query_x, max(ks), itself)
    return torch.cat([positive[position].cumsum(1)[:, at] for _, position in nearest]).transpose(0, 1)


def _histogram(count: torch.Tensor, who: torch.Tensor, k: int) -> torch.Tensor:
    """Return [k + 1, classes]: how many samples of `who` [n, classes] (1 or 0) have each count."""
    classes = count.shape[1]
    cell = count * classes + torch.arange(classes)
    return torch.bincount(cell.flatten(), who.flatten(), (k + 1) * classes).view(k + 1, classes)
