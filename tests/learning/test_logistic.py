import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from radprobe.learning import logistic
from radprobe.learning.device import threads


def features(n, d, seed, condition=1.0):
    """Correlated features whose scales differ by `condition`."""
    generator = np.random.default_rng(seed)
    mix = np.linalg.qr(generator.normal(size=(d, d)))[0] * np.geomspace(1, 1 / condition, d)
    return (generator.normal(size=(n, d)) @ mix + generator.normal(size=d)).astype(np.float32)


def labels(x, classes, seed, exclusive=False, share=1.0):
    generator = np.random.default_rng(seed)
    logits = StandardScaler().fit_transform(x) @ generator.normal(size=(x.shape[1], classes)) / np.sqrt(x.shape[1])
    noisy = 2 * logits + generator.logistic(size=logits.shape)
    y = np.eye(classes)[noisy.argmax(1)] if exclusive else (noisy > 0.5).astype(float)
    if share < 1:
        y[generator.random(y.shape) > share] = np.nan
    return y


def sklearn_logits(x, y, c, exclusive, query, solver="lbfgs"):
    """scikit-learn's, converged, on features standardised by the rows that it is fitted on, of length 1."""
    how = {"C": c / x.shape[1], "tol": 1e-10, "max_iter": 20000, "solver": solver}
    if exclusive:
        scaler = StandardScaler().fit(x)
        model = LogisticRegression(**how).fit(scaler.transform(x).astype(float), y.argmax(1))
        return model.decision_function(scaler.transform(query).astype(float))
    scaler, columns = StandardScaler().fit(x), []
    for target in y.T:
        known = ~np.isnan(target)
        model = LogisticRegression(**how).fit(scaler.transform(x)[known].astype(float), target[known])
        columns.append(model.decision_function(scaler.transform(query).astype(float)))
    return np.stack(columns, 1)


@pytest.mark.parametrize("c", [1e-4, 1e-2, 1.0, 100.0])
@pytest.mark.parametrize("condition", [1.0, 1e3])
@pytest.mark.parametrize(("exclusive", "share"), [(False, 1.0), (False, 0.7), (True, 1.0)])
def test_it_is_scikit_learns(c, condition, exclusive, share):
    x = features(400, 20, 0, condition)
    y, query = labels(x, 3, 1, exclusive, share), features(100, 20, 0, condition)
    found = logistic.fit(torch.from_numpy(x), torch.from_numpy(y), [c], exclusive)
    expected = sklearn_logits(x, y, c, exclusive, query)
    ours = found.logits(torch.from_numpy(query))[0].numpy()
    if exclusive:  # logits are known up to a constant
        ours, expected = (each - each.mean(1, keepdims=True) for each in (ours, expected))
    assert found.not_converged == []
    np.testing.assert_allclose(ours, expected, atol=2e-3 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("exclusive", [False, True])
def test_fewer_samples_than_features_and_separable_classes(exclusive):
    x = features(30, 60, 3)
    y, query = labels(x, 3, 4, exclusive), features(50, 60, 5)
    for c in (0.01, 10.0):
        expected = sklearn_logits(x, y, c, exclusive, query)
        ours = logistic.fit(torch.from_numpy(x), torch.from_numpy(y), [c], exclusive).logits(torch.from_numpy(query))[0]
        ours = ours.numpy()
        if exclusive:
            ours, expected = (each - each.mean(1, keepdims=True) for each in (ours, expected))
        np.testing.assert_allclose(ours, expected, atol=5e-3 * max(1, np.abs(expected).max()))


@given(seed=st.integers(0, 50), order=st.permutations([1e-3, 0.1, 3.0, 50.0]))
@settings(max_examples=10, deadline=None)
def test_a_value_of_a_sweep_is_what_it_is_alone_in_any_order(seed, order):
    x = torch.from_numpy(features(120, 8, seed))
    y = torch.from_numpy(labels(x.numpy(), 2, seed + 1))
    sweep = logistic.fit(x, y, order, False)
    assert sweep.values == tuple(order)
    for index, c in enumerate(order):
        alone = logistic.fit(x, y, [c], False).logits(x)[0]
        torch.testing.assert_close(sweep.logits(x)[index], alone, atol=2e-2, rtol=1e-2)


def test_a_class_with_one_label_only_gets_a_constant_logit():
    x = torch.from_numpy(features(50, 4, 0))
    y = torch.from_numpy(labels(x.numpy(), 3, 0))
    y[:, 1] = 1
    found = logistic.fit(x, y, [1.0], False).logits(x)[0]
    assert found[:, 1].std() == 0
    assert found[0, 1] == pytest.approx(np.log(50.5 / 0.5))
    others = logistic.fit(x, y[:, [0, 2]], [1.0], False).logits(x)[0]
    torch.testing.assert_close(found[:, [0, 2]], others, atol=1e-3, rtol=1e-3)


@given(factor=st.floats(0.02, 50), size=st.floats(1e-7, 1e4))
@settings(max_examples=20, deadline=None)
def test_the_unit_of_the_features_changes_nothing(factor, size):
    x = torch.from_numpy(features(80, 12, 2)) * size
    y = torch.from_numpy(labels(x.numpy() / size, 2, 3))
    one = logistic.fit(x, y, [1e-2, 1.0, 100.0], False).logits(x)
    two = logistic.fit(x * factor, y, [1e-2, 1.0, 100.0], False).logits(x * factor)
    torch.testing.assert_close(one, two, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("n", [40, 300])
def test_repeated_and_constant_features_do_not_change_how_strongly_c_regularises(n):
    x, query = (torch.from_numpy(features(rows, 10, 2)) for rows in (n, 100))
    y = torch.from_numpy(labels(x.numpy(), 2, 3))
    cs = [0.1, 5.0, 500.0]
    one = logistic.fit(x, y, cs, False).logits(query)
    two = logistic.fit(x.repeat(1, 16), y, cs, False).logits(query.repeat(1, 16))
    torch.testing.assert_close(one, two, atol=1e-2, rtol=1e-2)
    still = torch.cat([x, torch.full((n, 30), 0.7)], 1)
    three = logistic.fit(still, y, cs, False).logits(torch.cat([query, torch.full((100, 30), 0.7)], 1))
    torch.testing.assert_close(one, three, atol=1e-2, rtol=1e-2)


def test_features_that_are_prepared_once_are_fitted_to_other_labels_as_if_alone():
    x = torch.from_numpy(features(80, 12, 2))
    prepared = logistic.EigenFeatures(x)
    for seed in (3, 4):
        y = torch.from_numpy(labels(x.numpy(), 2, seed))
        expected = logistic.fit(x, y, [1.0], False)
        assert torch.equal(prepared.fit(y, [1.0], False).weight, expected.weight)


def test_nothing_to_learn_is_no_error_and_constant_features_are_left_out():
    x = torch.ones((10, 3))
    found = logistic.fit(x, torch.zeros((10, 2), dtype=torch.double), [1.0], False)
    assert found.logits(x).isfinite().all()
    y = torch.tensor([[1.0, 0.0]] * 5 + [[0.0, 1.0]] * 5)
    assert logistic.fit(x, y, [1.0], False).logits(x).std() < 1e-6


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("shape", [(60, 90), (300, 20)])
def test_the_whole_range_of_c_is_scikit_learns_warm_or_cold(exclusive, shape):
    """Separable or not: the loss of weak regularisation is next to nothing, and still has one minimum."""
    x = features(*shape, 6, 30.0)
    y, cs = labels(x, 3, 7, exclusive), np.geomspace(1e-6, 1e5, 45).tolist()
    data = torch.from_numpy(x), torch.from_numpy(y)
    sweep = logistic.fit(*data, cs, exclusive)
    for index in (0, 11, 22, 33, 44):
        expected = sklearn_logits(x, y, cs[index], exclusive, x, "newton-cholesky")
        cold = logistic.fit(*data, [cs[index]], exclusive)
        for ours in (sweep.logits(data[0])[index].numpy(), cold.logits(data[0])[0].numpy()):
            if exclusive:
                ours, expected = (each - each.mean(1, keepdims=True) for each in (ours, expected))
            np.testing.assert_allclose(ours, expected, atol=1e-2 * max(1e-2, np.abs(expected).max()))


def test_a_fit_that_runs_out_of_steps_is_reported(monkeypatch):
    x = torch.from_numpy(features(200, 20, 8, 30.0))
    y = torch.from_numpy(labels(x.numpy(), 2, 9))
    assert logistic.fit(x, y, [1e-2, 10.0], False).not_converged == []
    monkeypatch.setattr(logistic, "STEPS", 2)
    assert 10.0 in logistic.fit(x, y, [1e-2, 10.0], False).not_converged


@pytest.mark.parametrize("shape", [(90, 12), (30, 60)])
def test_chunks_and_threads_change_nothing(monkeypatch, shape):
    x = torch.from_numpy(features(*shape, 10)).half()
    y = torch.from_numpy(labels(x.float().numpy(), 2, 11))
    one = logistic.fit(x, y, [1e-3, 1.0], False)
    with threads(2):
        two = logistic.fit(x, y, [1e-3, 1.0], False)
    assert torch.equal(one.weight, two.weight)
    monkeypatch.setattr(logistic, "CHUNK", 7)
    torch.testing.assert_close(logistic.fit(x, y, [1e-3, 1.0], False).logits(x), one.logits(x), atol=1e-3, rtol=1e-3)
