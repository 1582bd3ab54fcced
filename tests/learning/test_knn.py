import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier
from torch.testing import assert_close

from radprobe.learning import knn
from radprobe.learning.device import threads

PARTS = ("train", "val", "test")
PAIRS = [
    *((query, source) for query in PARTS for source in ("train", "train+val")),
    ("train+val", "train+val"),
    ("train+val", "test"),
]


def knn_scores(train_x, train_y, query_x, ks, temperature):
    """Weighted kNN of queries among a train set that is its own table."""
    parts = {"train": torch.arange(len(train_x)), "query": torch.arange(len(query_x)) + len(train_x)}
    near = knn.nearest(torch.cat([train_x, query_x]), parts, [("query", "train")], max(ks))
    return knn.weighted_scores(near["query", "train"], train_y, ks, temperature)


def data(seed=0, n=40, m=15, classes=3, unknown=0.0):
    rng = np.random.default_rng(seed)
    x, q = rng.normal(size=(n, 6)), rng.normal(size=(m, 6))
    y = (x[:, :classes] + rng.normal(size=(n, classes)) > 0).astype(float)
    y[rng.random(y.shape) < unknown] = np.nan
    return [torch.from_numpy(array).float() for array in (x, y, q)]


def table(seed, train, val, test):
    """Features, and the rows of three parts in any order; some rows are in none."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(train + val + test + 5)
    parts = np.split(rows, np.cumsum([train, val, test]))[:3]
    return torch.from_numpy(rng.normal(size=(len(rows), 6))).float(), dict(zip(PARTS, parts, strict=True))


def check_against_a_plain_sort(found, x, rows, k):
    """Each list holds the k most similar of its source in order, whichever of equals, and never the query itself."""
    x = x.double() / x.double().norm(dim=1, keepdim=True)
    similarity = (x @ x.T).numpy()
    for pair, near in found.items():
        query, source = (np.concatenate([rows[part] for part in name.split("+")]) for name in pair)
        assert near.query.tolist() == query.tolist()
        assert near.source.tolist() == source.tolist()
        for q, values, listed in zip(query, near.similarity, near.row.tolist(), strict=True):
            best = sorted(similarity[q, source[source != q]], reverse=True)[:k]
            np.testing.assert_allclose(values, best, atol=1e-6)
            np.testing.assert_allclose(similarity[q, listed], best, atol=1e-6)
            assert len(set(listed) - {q}) == len(listed)
            assert set(listed) <= set(source)


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


def mlknn(x, y, q, ks, smoothing):
    rows = {"train": range(len(x)), "test": range(len(x), len(x) + len(q))}
    near = knn.nearest(torch.cat([x, q]), rows, [("train", "train"), ("test", "train")], max(ks))
    return knn.mlknn_scores(near["train", "train"], near["test", "train"], y, ks, smoothing)


@pytest.mark.parametrize("unknown", [0.0, 0.4])
def test_knn_is_the_plain_loop(unknown):
    x, y, q = data(unknown=unknown)
    found = knn_scores(x, y, q, [1, 5, 12], 0.07)
    for k, scores in zip([1, 5, 12], found, strict=True):
        np.testing.assert_allclose(scores, loop_knn(x, y, q, k, 0.07), atol=1e-5)


def test_knn_is_sklearns_where_they_agree():
    x, y, q = data()
    model = KNeighborsClassifier(7, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.1))
    expected = np.stack([p[:, 1] for p in model.fit(x, y.int()).predict_proba(q)], 1)
    np.testing.assert_allclose(knn_scores(x, y, q, [7], 0.1)[0], expected, atol=1e-5)


@pytest.mark.parametrize("unknown", [0.0, 0.3])
@pytest.mark.parametrize("smoothing", [1.0, 0.5])
def test_mlknn_is_the_plain_loop(smoothing, unknown):
    x, y, q = data(unknown=unknown)
    found = mlknn(x, y, q, [3, 10], smoothing)
    for k, scores in zip([3, 10], found, strict=True):
        np.testing.assert_allclose(scores, loop_mlknn(x, y, q, k, smoothing), atol=1e-9)


@given(
    seed=st.integers(0, 1000),
    sizes=st.tuples(*[st.integers(2, 45)] * 3),
    k=st.integers(1, 30),
    chunk=st.tuples(st.integers(1, 20), st.integers(1, 200)),
    group=st.integers(1, 20),
)
@settings(max_examples=30, deadline=None)
def test_lists_are_a_plain_sort_whatever_the_chunks(seed, sizes, k, chunk, group):
    x, rows = table(seed, *sizes)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in zip(("CHUNK_ROWS", "CHUNK_ELEMENTS", "GROUP"), (*chunk, group), strict=True):
            patch.setattr(knn, name, value)
        check_against_a_plain_sort(knn.nearest(x, rows, PAIRS, k), x, rows, k)


@pytest.mark.parametrize("k", [1, 7, 100])
def test_lists_are_a_plain_sort_where_many_samples_are_alike(k):
    x, rows = table(0, 300, 90, 40)
    x = x.sign() + 2  # 64 directions
    check_against_a_plain_sort(knn.nearest(x, rows, PAIRS, k), x, rows, k)


def test_lists_are_those_of_a_search_among_all_sources_at_once():
    x, rows = table(0, 300, 90, 40)
    parts = knn.nearest(x, rows, [("test", "train+val")], 20)["test", "train+val"]
    rows = {"test": rows["test"], "both": np.concatenate([rows["train"], rows["val"]])}
    once = knn.nearest(x, rows, [("test", "both")], 20)["test", "both"]
    assert torch.equal(parts.row, once.row)
    assert_close(parts.similarity, once.similarity, atol=1e-6, rtol=0)


def test_lists_have_the_same_bits_for_any_number_of_threads_and_leave_the_features_alone():
    x, rows = table(0, 3000, 500, 500)
    before = x.clone()
    with threads(1):
        one = knn.nearest(x, rows, PAIRS, 20)
    for count in (2, 5):
        with threads(count):
            more = knn.nearest(x, rows, PAIRS, 20)
            assert torch.get_num_threads() == count
        for pair in PAIRS:
            assert torch.equal(one[pair].row, more[pair].row)
            assert torch.equal(one[pair].similarity, more[pair].similarity)
    assert torch.equal(x, before)


def test_half_precision_is_widened_before_anything_is_computed():
    x, rows = table(0, 100, 50, 30)
    half, wide = (knn.nearest(each, rows, PAIRS, 5) for each in (x.half(), x.half().float()))
    for pair in PAIRS:
        assert torch.equal(half[pair].row, wide[pair].row)
        assert torch.equal(half[pair].similarity, wide[pair].similarity)


@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_scores_of_lists_do_not_depend_on_the_order_of_the_rows(unknown):
    (x, rows), rng = table(3, 60, 30, 20), np.random.default_rng(0)
    labels = torch.from_numpy((rng.random((len(x), 3)) < 0.4).astype(float))
    labels[torch.from_numpy(rng.random(labels.shape) < unknown)] = torch.nan
    order = rng.permutation(len(x))
    back = np.argsort(order)
    pairs = [("test", "train+val"), ("train+val", "train+val")]
    scores = []
    for features, truth, parts in ((x, labels, rows), (x[order], labels[order], {p: back[rows[p]] for p in rows})):
        near, within = (knn.nearest(features, parts, pairs, 9)[pair] for pair in pairs)
        scores.append(knn.mlknn_scores(within, near, truth, [2, 9], 1.0))
        scores.append(knn.weighted_scores(near, truth, [2, 9], 0.07).double())
    assert_close(scores[0], scores[2])
    assert_close(scores[1], scores[3], atol=1e-5, rtol=1e-5)


def test_length_of_the_features_does_not_matter():
    x, y, q = data()
    assert_close(knn_scores(x * 7, y, q * 0.1, [5], 0.07), knn_scores(x, y, q, [5], 0.07), atol=1e-5, rtol=1e-5)


def test_a_class_without_any_label_in_the_source_scores_one_half():
    x, y, q = data()
    y[:, 1] = torch.nan
    (scores,) = knn_scores(x, y, q, [5], 0.07)
    assert (scores[:, 1] == 0.5).all()
    assert scores.isfinite().all()
