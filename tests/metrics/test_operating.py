import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score

from radprobe.metrics import operating
from radprobe.metrics.operating import METRICS, Operating, called, thresholds
from radprobe.metrics.options import Bootstrap
from radprobe.metrics.resampling import counts


def made(n=80, classes=3, seed=0, unknown=0.1):
    generator = np.random.default_rng(seed)
    targets = (generator.random((n, classes)) < 0.4).astype(float)
    targets[generator.random((n, classes)) < unknown] = np.nan
    scores = np.round(np.nan_to_num(targets) + generator.normal(size=(n, classes)), 1)  # with ties
    patients = generator.integers(0, n // 2, n).astype(str)
    return scores, targets, patients


def of(scores, targets, patients, at=None, exclusive=False):
    at = thresholds(scores, targets) if at is None and not exclusive else at
    probability = 1 / (1 + np.exp(-scores))
    return Operating(called(scores, probability, at), targets, patients), at


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_values_are_scikit_learns(seed):
    scores, targets, patients = made(seed=seed)
    found, at = of(scores, targets, patients)
    once = found.values(np.ones((found.patients, 1)))[0]
    for column in range(3):
        known = ~np.isnan(targets[:, column])
        y = targets[known, column]
        calls = scores[known, column] >= at[column]
        expected = [balanced_accuracy_score(y, calls), f1_score(y, calls)]
        np.testing.assert_allclose(once[column], expected, atol=1e-12)


def test_a_resample_is_the_samples_of_the_patients_it_draws():
    scores, targets, patients = made(unknown=0)
    found, at = of(scores, targets, patients)
    weights = counts(found.patients, 3, 0)
    values = found.values(weights.astype(float))
    for resample in range(3):
        rows = np.repeat(np.arange(len(scores)), weights[found.units, resample])
        again, *_ = of(scores[rows], targets[rows], patients[rows], at)
        np.testing.assert_allclose(values[resample], again.values(np.ones((again.patients, 1)))[0], atol=1e-12)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_no_threshold_has_a_larger_balanced_accuracy(seed):
    scores, targets, _ = made(seed=seed, classes=1, unknown=0)
    y, x = targets[:, 0], scores[:, 0]
    best = balanced_accuracy_score(y, x >= thresholds(scores, targets)[0])
    every = np.unique(np.append(x, x.max() + 1))
    assert best == pytest.approx(max(balanced_accuracy_score(y, x >= t) for t in every))


def test_a_class_without_a_threshold_has_neither_and_the_macro_says_so():
    scores, targets, patients = made(unknown=0)
    at = thresholds(scores, targets)
    at[1] = np.nan
    found, *_ = of(scores, targets, patients, at)
    rows = {(row["metric"], row["class"]): row for row in operating.rows(found, ["a", "b", "c"], Bootstrap(100, 0, 5))}
    assert np.isnan(rows["f1", "b"]["value"])
    assert rows["f1", "b"]["note"] == "undefined: no threshold from val"
    assert rows["balanced_accuracy", "macro"]["note"].startswith("left out, undefined or few patients: b")
    assert rows["balanced_accuracy", "macro"]["n_classes"] == 2
    assert {metric for metric, _ in rows} == set(METRICS)


def test_of_classes_of_which_one_is_true_the_likeliest_is_called():
    scores = np.log([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.35, 0.25]])
    targets = np.eye(3)[[0, 2, 1]]
    found = Operating(called(scores, np.exp(scores), None), targets, ["a", "b", "c"])
    once = found.values(np.ones((3, 1)))[0]
    assert once[:, 1].tolist() == [pytest.approx(2 / 3), 0, 1]  # F1 of each class


def test_a_threshold_lies_between_scores_and_not_on_one():
    scores, targets = np.array([[0.0], [1.0], [4.0], [5.0]]), np.array([[0.0], [0.0], [1.0], [1.0]])
    assert thresholds(scores, targets).tolist() == [2.5]
    assert np.isnan(thresholds(scores, np.zeros((4, 1)))).all()


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=25, deadline=None)
def test_each_fold_is_called_by_its_own_val(seed, exclusive):
    scores, _, _ = made(seed=seed, unknown=0)
    val_scores, val_targets, _ = made(seed=seed + 1, unknown=0)
    generator = np.random.default_rng(seed)
    fold_of, val_fold_of = (generator.permutation(np.arange(80) % 4) for _ in range(2))
    facts = {"exclusive": exclusive}
    found = operating.called_by_val(scores, facts, val_scores, val_targets, (fold_of, val_fold_of))
    for number in range(4):
        rows, val = fold_of == number, val_fold_of == number
        alone = operating.called_by_val(scores[rows], facts, val_scores[val], val_targets[val])
        np.testing.assert_array_equal(found.positive[rows], alone.positive)
        np.testing.assert_array_equal(found.probability[rows], alone.probability)
        if not exclusive:
            np.testing.assert_array_equal(found.at[number], alone.at)


def test_a_class_without_a_threshold_in_one_fold_has_none():
    scores, targets, patients = made(unknown=0)
    folds = np.arange(80) % 2
    targets_of_val = targets.copy()
    targets_of_val[folds == 1, 0] = 0
    found = operating.called_by_val(scores, {}, scores, targets_of_val, (folds, folds))
    assert found.undecided.tolist() == [True, False, False]
    values = Operating(found, targets, patients).values(np.ones((len(np.unique(patients)), 1)))[0]
    assert np.isnan(values[0, :2]).all()
    assert not np.isnan(values[1:]).any()
