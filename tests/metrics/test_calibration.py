import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import brier_score_loss, log_loss

from radprobe.metrics import calibration
from radprobe.metrics.classification import MACRO
from radprobe.metrics.options import Bootstrap
from radprobe.metrics.resampling import counts

HOW = Bootstrap(resamples=100, seed=0, min_patients=5)
LOGITS, SOFTMAX = {}, {"softmax": True}
SHARES = {"scale": "probability"}


def made(n=80, classes=3, seed=0, unknown=0.1):
    """Logits, targets (some unknown) and patients of several labels."""
    generator = np.random.default_rng(seed)
    targets = (generator.random((n, classes)) < 0.4).astype(float)
    targets[generator.random((n, classes)) < unknown] = np.nan
    scores = np.round(np.nan_to_num(targets) + generator.normal(size=(n, classes)), 1)  # with ties
    return scores, targets, generator.integers(0, n // 2, n).astype(str)


def one_of(n=200, classes=4, seed=0):
    """Log softmax scores and one-hot targets that are drawn from the softmax itself."""
    generator = np.random.default_rng(seed)
    scores = log_softmax(generator.normal(0, 1.5, (n, classes)), axis=1)
    drawn = [generator.choice(classes, p=each) for each in np.exp(scores)]
    return scores, np.eye(classes)[drawn]


def rows_of(scores, targets, patients, facts=LOGITS, **more):
    names = [f"c{column}" for column in range(scores.shape[1])]
    exclusive = calibration.exclusive(facts)
    stated = calibration.Stated(calibration.probability(scores, facts), targets, patients, exclusive)
    return {(row["metric"], row["class"]): row for row in calibration.rows(stated, names, HOW, **more)}


def kumar(probability, true, bins=15, fewest=10):
    """The debiased estimator, bin by bin, as the paper writes it: sum of p (gap^2 - y (1 - y) / (n - 1)).

    Samples have distinct probabilities; each bin has the next n / bins of them, the rest joins the last one.
    """
    order = np.argsort(probability)
    size = max(int(np.ceil(len(order) / bins)), fewest)
    starts = list(range(0, len(order) - size + 1, size)) or [0]
    total = 0.0
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        p, y = probability[order[start:stop]], true[order[start:stop]]
        total += len(p) / len(order) * ((p.mean() - y.mean()) ** 2 - y.mean() * (1 - y.mean()) / (len(y) - 1))
    return total


def plain_ece(probability, true):
    """The usual estimate: 15 bins of equal width, mean absolute gap."""
    bins = np.minimum((probability * 15).astype(int), 14)
    return np.abs(np.bincount(bins, probability - true, 15)).sum() / len(true)


# --- the debiased error -----------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.integers(2, 400))
@settings(max_examples=60, deadline=None)
def test_the_square_is_that_of_the_papers_formula(seed, n):
    generator = np.random.default_rng(seed)
    probability = generator.permutation(np.linspace(0.01, 0.99, n))
    true = (generator.random(n) < 0.5).astype(float)
    found = calibration.reliability(probability, true, np.arange(n))
    assert found.square == pytest.approx(kumar(probability, true), abs=1e-12)


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_bins_part_no_equal_probabilities_and_hold_as_many_as_they_should(seed):
    generator = np.random.default_rng(seed)
    n = int(generator.integers(2, 300))
    probability = generator.integers(0, generator.integers(1, 40) + 1, n) / 40
    found = calibration.reliability(probability, np.ones(n), np.arange(n))
    size = max(-(-n // 15), 10)
    assert found.n.sum() == n
    assert (found.n >= min(size, n)).all()
    assert len(found.n) <= 15
    assert (np.diff(found.probability) > 0).all()
    again = calibration.reliability(probability[::-1], np.ones(n), np.arange(n)[::-1])
    np.testing.assert_allclose(again.probability, found.probability)


@pytest.mark.parametrize("of_patient", [1, 3])
@pytest.mark.parametrize("n", [60, 300, 1500])
def test_of_a_calibrated_model_the_square_is_0_on_average_where_the_plain_estimate_is_not(n, of_patient):
    generator = np.random.default_rng(n)
    squares, plain = [], []
    for _ in range(600):
        probability = expit(generator.normal(-1, 1.2, n // of_patient))
        true = (generator.random(n // of_patient) < probability).astype(float)
        probability, true = (each.repeat(of_patient) for each in (probability, true))  # alike images of a patient
        units = np.arange(n // of_patient).repeat(of_patient)
        squares.append(calibration.reliability(probability, true, units).square)
        plain.append(plain_ece(probability, true))
    error = np.std(squares, ddof=1) / np.sqrt(len(squares))
    assert abs(np.mean(squares)) < 3 * error
    assert np.mean(plain) > 0.02
    assert 0.3 < np.mean(np.array(squares) <= 0) < 0.75  # about half of such models show an error of 0


def test_a_known_error_is_found():
    generator = np.random.default_rng(0)
    probability = generator.uniform(0.2, 0.8, 20_000)
    true = (generator.random(20_000) < probability - 0.1).astype(float)
    found = calibration.reliability(probability, true, np.arange(20_000))
    assert calibration.shown(found.square) == pytest.approx(0.1, abs=0.01)


def test_a_negative_square_is_shown_as_0_and_what_is_undefined_is_missing():
    assert calibration.shown(-0.1) == 0
    assert np.isnan(calibration.shown(np.nan))
    lone = np.array([0.5])
    assert np.isnan(calibration.reliability(lone, lone, np.zeros(1, int)).square)
    one_patient = calibration.reliability(np.linspace(0, 1, 30), np.ones(30), np.zeros(30, int))
    assert np.isnan(one_patient.square)


# --- rows -------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_brier_is_scikit_learns(seed):
    scores, targets, patients = made(seed=seed)
    found = rows_of(scores, targets, patients)
    for column in range(3):
        known = ~np.isnan(targets[:, column])
        expected = brier_score_loss(targets[known, column], expit(scores[known, column]))
        assert found["brier", f"c{column}"]["value"] == pytest.approx(expected)
    assert found["brier", MACRO]["value"] == pytest.approx(
        np.mean([found["brier", f"c{c}"]["value"] for c in range(3)])
    )


def test_the_interval_of_brier_is_that_of_plainly_repeated_patients():
    scores, targets, patients = made(n=120, unknown=0)
    names, units = np.unique(patients, return_inverse=True)
    weights = counts(len(names), HOW.resamples, HOW.seed)
    errors = (expit(scores[:, 0]) - targets[:, 0]) ** 2
    drawn = [errors[np.repeat(np.arange(120), weights[units, r])].mean() for r in range(HOW.resamples)]
    row = rows_of(scores, targets, patients)["brier", "c0"]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (row["low"], row["high"]) == pytest.approx((low, high), abs=0.2 * (high - low))


def test_ece_of_several_labels_is_by_class_and_macro_is_the_root_of_the_mean_square():
    scores, targets, patients = made(n=300)
    found, (names, units) = rows_of(scores, targets, patients), np.unique(patients, return_inverse=True)
    squares = [calibration.reliability(expit(scores[:, c]), targets[:, c], units).square for c in range(3)]
    for column, square in enumerate(squares):
        assert found["ece", f"c{column}"]["value"] == pytest.approx(np.sqrt(max(square, 0)))
    assert found["ece", MACRO]["value"] == pytest.approx(np.sqrt(max(np.mean(squares), 0)))
    for row in found.values():
        assert np.isnan(row["low"]) == (row["metric"] == "ece")
        assert (calibration.NO_INTERVAL in row["note"]) == (row["metric"] == "ece")
    assert len(names) == found["ece", MACRO]["n_patients"]


def test_ece_of_classes_of_which_one_is_true_is_of_the_likeliest():
    scores, targets = one_of(n=300)
    found = rows_of(scores, targets, np.arange(300).astype(str), SOFTMAX)
    said, right = np.exp(scores).max(1), targets[np.arange(300), scores.argmax(1)]
    assert found["ece", MACRO]["value"] == pytest.approx(np.sqrt(max(kumar(said, right), 0)))
    assert {name for metric, name in found if metric == "ece"} == {MACRO}
    assert "likeliest class" in found["ece", MACRO]["note"]


def test_a_class_without_a_label_is_missing_and_left_out_of_macro():
    scores, targets, patients = made(n=100, unknown=0)
    targets[:, 1] = np.nan
    found = rows_of(scores, targets, patients)
    for metric in ("brier", "ece"):
        assert np.isnan(found[metric, "c1"]["value"])
        assert "undefined" in found[metric, "c1"]["note"]
        assert found[metric, MACRO]["n_classes"] == 2
        assert "left out, undefined: c1" in found[metric, MACRO]["note"]


# --- temperature ------------------------------------------------------------------------------------------------------


class Logits(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose logits are its input."""

    def __init__(self, classes=2):
        self.classes = classes

    def fit(self, x, y):
        """Know the classes."""
        self.classes_ = np.arange(self.classes)
        return self

    def decision_function(self, x):
        """Return the logits."""
        return x[:, 0] if self.classes == 2 else x

    def predict(self, x):
        """Return the likeliest class."""
        return (x[:, 0] > 0).astype(int) if self.classes == 2 else x.argmax(1)


def by_scikit_learn(val, true, test, classes=2):
    fitted = FrozenEstimator(Logits(classes).fit(val, true))
    return CalibratedClassifierCV(fitted, method="temperature").fit(val, true).predict_proba(test)


@given(st.integers(0, 10_000), st.floats(0.2, 5))
@settings(max_examples=15, deadline=None)
def test_the_temperature_is_scikit_learns(seed, sharp):
    generator = np.random.default_rng(seed)
    scores, targets = one_of(seed=seed)
    scores = log_softmax(scores * sharp, axis=1)
    by = calibration.temperature(scores, targets, SOFTMAX)
    expected = by_scikit_learn(scores, targets.argmax(1), scores, classes=4)
    np.testing.assert_allclose(calibration.recalibrated(scores, SOFTMAX, by), expected, atol=1e-4)
    logits = generator.normal(size=(300, 2)) * sharp
    labels = (generator.random((300, 2)) < expit(logits / sharp)).astype(float)
    by = calibration.temperature(logits, labels, LOGITS)
    flat = logits.reshape(-1, 1)
    expected = by_scikit_learn(flat, labels.ravel().astype(int), flat)[:, 1].reshape(logits.shape)
    np.testing.assert_allclose(calibration.recalibrated(logits, LOGITS, by), expected, atol=1e-4)


@pytest.mark.parametrize("true", [0.5, 1.0, 4.0])
def test_a_temperature_that_was_put_in_is_found(true):
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(20_000, 2))
    labels = (generator.random(logits.shape) < expit(logits)).astype(float)
    assert calibration.temperature(logits * true, labels, LOGITS) == pytest.approx(true, rel=0.05)


def test_shares_of_neighbours_are_recalibrated_through_clipped_logits():
    generator = np.random.default_rng(2)
    shares = generator.binomial(5, 0.3, (400, 2)) / 5  # 0 and 1 among them
    labels = (generator.random(shares.shape) < 0.2 + 0.4 * shares).astype(float)
    by = calibration.temperature(shares, labels, SHARES)
    found = calibration.recalibrated(shares, SHARES, by)
    assert np.isfinite(found).all()
    assert log_loss(labels.ravel(), found.ravel()) < log_loss(labels.ravel(), shares.clip(1e-3, 1 - 1e-3).ravel())
    exclusive = {**SHARES, "exclusive": True}
    of_one = np.column_stack([shares[:, 0], 1 - shares[:, 0]])
    hot = np.column_stack([labels[:, 0], 1 - labels[:, 0]])
    by = calibration.temperature(of_one, hot, exclusive)
    clipped = np.log(of_one.clip(1e-3, 1 - 1e-3))
    np.testing.assert_allclose(calibration.recalibrated(of_one, exclusive, by), softmax(clipped / by, axis=1))


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_no_other_temperature_has_a_smaller_loss_and_the_order_of_samples_stays(seed):
    logits, labels, _ = made(n=100, seed=seed)
    by, known = calibration.temperature(logits, labels, LOGITS), ~np.isnan(labels)

    def loss(temperature):
        return log_loss(labels[known], calibration.recalibrated(logits, LOGITS, temperature)[known])

    assert loss(by) <= min(loss(by * 0.98), loss(by * 1.02)) + 1e-12
    found = calibration.recalibrated(logits, LOGITS, by)
    for column in range(3):
        assert (np.argsort(found[:, column], kind="stable") == np.argsort(logits[:, column], kind="stable")).all()


def test_without_labels_or_without_a_minimum_there_is_no_temperature():
    logits = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    assert np.isnan(calibration.temperature(logits, np.full((4, 1), np.nan), LOGITS))
    assert np.isnan(calibration.temperature(logits, (logits > 0).astype(float), LOGITS))  # separated perfectly
    assert np.isnan(calibration.temperature(logits, (logits < 0).astype(float), LOGITS))  # the wrong way round
    scores, targets = one_of(n=20)
    assert np.isnan(calibration.temperature(scores, np.full_like(targets, np.nan), SOFTMAX))
