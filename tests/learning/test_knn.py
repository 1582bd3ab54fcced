import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier
from torch.testing import assert_close

from radprobe.learning import knn


def data(seed=0, n=40, m=15, classes=3, unknown=0.0):
    rng = np.random.default_rng(seed)
    x, q = rng.normal(size=(n, 6)), rng.normal(size=(m, 6))
    y = (x[:, :classes] + rng.normal(size=(n, classes)) > 0).astype(float)
    y[rng.random(y.shape) < unknown] = np.nan
    return [torch.from_numpy(array).float() for array in (x, y, q)]


def nearest(train, one, k, but=None):
    train, one = train.numpy().astype(float), one.numpy().astype(float)
    similarity = train @ one / np.linalg.norm(train, axis=1) / np.linalg.norm(one)
    order = [i for i in np.argsort(-similarity) if i != but][:k]
    return order, similarity[order]


def loop_knn(x, y, q, k, temperature):
    scores = np.empty((len(q), y.shape[1]))
    for i, one in enumerate(q):
        order, similarity = nearest(x, one, k)
        for c in range(y.shape[1]):
            pairs = [(np.exp(s / temperature), float(y[j, c])) for j, s in zip(order, similarity, strict=True)]
            pairs = [(w, label) for w, label in pairs if not np.isnan(label)]
            total = sum(w for w, _ in pairs)
            scores[i, c] = sum(w * label for w, label in pairs) / total if pairs else np.nanmean(y[:, c])
    return scores


def loop_mlknn(x, y, q, k, s):
    """Zhang & Zhou 2007, figure 1, step by step; log of the odds that its posterior is made of."""
    n, scores = len(x), np.empty((len(q), y.shape[1]))
    for c in range(y.shape[1]):
        have = [sum(float(y[j, c]) == 1 for j in nearest(x, x[i], k, but=i)[0]) for i in range(n)]
        count = {1: [0] * (k + 1), 0: [0] * (k + 1)}
        for i in range(n):
            if not np.isnan(float(y[i, c])):
                count[int(y[i, c])][have[i]] += 1
        known = sum(count[0]) + sum(count[1])
        prior = (s + sum(count[1])) / (2 * s + known)
        for i, one in enumerate(q):
            found = sum(float(y[j, c]) == 1 for j in nearest(x, one, k)[0])
            like = {h: (s + count[h][found]) / (s * (k + 1) + sum(count[h])) for h in (0, 1)}
            scores[i, c] = np.log(prior * like[1]) - np.log((1 - prior) * like[0])
    return scores


@pytest.mark.parametrize("unknown", [0.0, 0.4])
def test_knn_is_the_plain_loop(unknown):
    x, y, q = data(unknown=unknown)
    found = knn.knn_scores(x, y, q, [1, 5, 12], 0.07)
    for k, scores in zip([1, 5, 12], found, strict=True):
        np.testing.assert_allclose(scores, loop_knn(x, y, q, k, 0.07), atol=1e-5)


def test_knn_is_sklearns_where_they_agree():
    x, y, q = data()
    model = KNeighborsClassifier(7, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.1))
    expected = np.stack([p[:, 1] for p in model.fit(x, y.int()).predict_proba(q)], 1)
    np.testing.assert_allclose(knn.knn_scores(x, y, q, [7], 0.1)[0], expected, atol=1e-5)


@pytest.mark.parametrize("unknown", [0.0, 0.3])
@pytest.mark.parametrize("smoothing", [1.0, 0.5])
def test_mlknn_is_the_plain_loop(smoothing, unknown):
    x, y, q = data(unknown=unknown)
    found = knn.MlKnn.fit(x, y, [3, 10], smoothing).scores(q)
    for k, scores in zip([3, 10], found, strict=True):
        np.testing.assert_allclose(scores, loop_mlknn(x, y, q, k, smoothing), atol=1e-9)


@given(seed=st.integers(0, 1000), rows=st.integers(1, 20))
@settings(max_examples=15, deadline=None)
def test_chunks_change_nothing_and_one_sample_is_never_its_own_neighbour(seed, rows):
    x, y, q = data(seed, n=20)
    whole, model = knn.knn_scores(x, y, q, [4], 0.07), knn.MlKnn.fit(x, y, [4], 1.0)
    before = knn.CHUNK_ELEMENTS
    try:
        knn.CHUNK_ELEMENTS = rows * len(x)
        assert_close(knn.knn_scores(x, y, q, [4], 0.07), whole, atol=1e-5, rtol=1e-5)
        assert_close(knn.MlKnn.fit(x, y, [4], 1.0).scores(q), model.scores(q))
        positions = torch.cat([position for _, position in knn.neighbours(x, x, 4, itself=True)])
    finally:
        knn.CHUNK_ELEMENTS = before
    assert not (positions == torch.arange(len(x))[:, None]).any()


def test_length_of_the_features_does_not_matter():
    x, y, q = data()
    assert_close(knn.knn_scores(x * 7, y, q * 0.1, [5], 0.07), knn.knn_scores(x, y, q, [5], 0.07), atol=1e-5, rtol=1e-5)
