import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interval_coverage import Condition, covered
from scipy import stats

from radprobe.metrics.resampling import (
    FEW,
    JACKKNIFE,
    Bootstrap,
    Resampled,
    Support,
    average,
    counts,
    patients_of,
    resampled,
)


def mean_of(sample):
    return lambda weights: weights.T @ sample / weights.sum(0)


def estimate(sample, resamples=300, seed=0, min_patients=5):
    return resampled(mean_of(sample), len(sample), Bootstrap(resamples, seed, min_patients))


@given(st.integers(1, 300), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_each_resample_draws_as_many_patients_as_there_are(patients, seed):
    drawn = counts(patients, 20, seed)
    assert (drawn.sum(0) == patients).all()
    assert (drawn == counts(patients, 20, seed)).all()


def test_patients_are_drawn_evenly():
    mean = counts(50, 4000, 1).mean(axis=1)
    assert np.abs(mean - 1).max() < 0.08  # standard error 0.016


def test_resamples_do_not_depend_on_the_order_of_samples():
    names = np.array(["c", "a", "b", "a", "c"])
    codes, n = patients_of(names)
    assert n == 3
    assert patients_of(names[::-1])[0].tolist() == codes[::-1].tolist()


def test_chunks_give_what_one_call_gives():
    values = np.arange(12.0)
    got = resampled(lambda weights: weights.T @ values / 12, 12, Bootstrap(150, 3, 2))
    assert np.allclose(got.drawn, counts(12, 150, 3).T @ values / 12)
    assert np.allclose(got.without, (values.sum() - values) / 12)
    assert got.point == values.mean()


@pytest.mark.parametrize("n", [12, FEW, JACKKNIFE])
@pytest.mark.parametrize("skew", [False, True])
def test_the_interval_is_scipys_bca_with_the_tails_of_students_t(n, skew):
    generator = np.random.default_rng(n)
    sample = generator.exponential(size=n) if skew else generator.normal(size=n)
    low, high, note = estimate(sample, resamples=20000).interval()
    level = 2 * stats.norm.cdf(stats.t.ppf(0.975, n - 1) * np.sqrt(n / (n - 1))) - 1
    theirs = stats.bootstrap(
        (sample,), np.mean, n_resamples=20000, method="BCa", confidence_level=level, rng=generator
    ).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.04 * (theirs.high - theirs.low))
    assert note == (f"few patients: {n}" if n <= FEW else "")


def test_the_interval_of_many_patients_is_the_percentile_interval():
    found = estimate(np.random.default_rng(0).exponential(size=JACKKNIFE + 1))
    assert found.without is None
    assert found.interval()[:2] == pytest.approx(np.percentile(found.drawn, [2.5, 97.5]), rel=1e-3)


def auroc_of(point, drawn, support, patients=100):
    how = Bootstrap(len(drawn), 0, 10)
    return Resampled(np.float64(point), np.asarray(drawn, float), None, patients, how, support)


def test_an_auroc_far_from_its_ends_has_the_wilson_interval_of_its_variance():
    error, generator = 0.04, np.random.default_rng(0)
    drawn = generator.normal(0.8, error, 4000)
    low, high, _ = auroc_of(0.8, drawn, Support(50, 1e6, most=1000, rarer=True)).interval()
    theirs = stats.binomtest(80, 100).proportion_ci(method="wilson")  # 0.8 x 0.2 / 0.04^2 = 100 cases
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.004)


def test_a_perfect_auroc_has_an_interval_of_the_cases_that_it_can_stand_for():
    support = Support(40, 1e6, most=120, rarer=True)
    low, high, note = auroc_of(1.0, np.ones(100), support).interval()
    theirs = stats.binomtest(120, 120).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((theirs.low, 1.0))
    assert note == ""
    nearly = auroc_of(0.9999, np.r_[np.ones(99), 0.999], support).interval()
    assert nearly[0] < 0.98
    assert nearly[1] <= 1


def test_under_the_least_number_of_patients_there_is_none():
    low, high, note = estimate(np.arange(9.0), min_patients=10).interval()
    assert np.isnan([low, high]).all()
    assert note == "no interval: 9 patients, fewer than 10"
    assert estimate(np.arange(20.0), min_patients=10).interval(4)[2] == "no interval: 4 patients, fewer than 10"


def test_a_sample_that_never_varies_has_no_interval():
    low, high, note = estimate(np.ones(12)).interval()
    assert np.isnan([low, high]).all()
    assert note == "no interval: the same in every resample"


COVERED = [
    Condition("mean", 20),
    Condition("mean", 100),
    Condition("mean_with_failures", 40),
    Condition("auroc", 40, 0.33, 0.8),
    Condition("auroc", 100, 0.1, 0.95),
    Condition("auroc", 100, 0.33, 0.995),
    Condition("auprc", 100, 0.33, 0.8),
    Condition("balanced_accuracy", 40),
]


# 0.93 less two standard errors of 400 trials; docs/intervals.md has the table of more trials
@pytest.mark.slow
@pytest.mark.parametrize("condition", COVERED, ids=lambda condition: condition.name)
def test_intervals_of_simulated_test_sets_hold_the_truth(condition):
    covers, width, _ = covered(condition, trials=400, resamples=300)
    assert covers >= 0.905
    assert width <= 1.4 or condition.auroc > 0.98


@pytest.mark.parametrize("scale", [1e-17, 1e-120, 1e-200])
def test_values_that_hardly_vary_have_an_interval(scale):
    point, drawn = 0.5 * scale, np.random.default_rng(0).normal(0.5, 0.01, 200) * scale
    without = np.array([0.4, 0.5, 0.6, 0.5, 0.5]) * scale
    low, high, _ = Resampled(np.float64(point), drawn, without, 5, Bootstrap(200, 0, 5)).interval()
    assert drawn.min() <= low < high <= drawn.max()
    noise = 0.5 + np.array([0, 0, 1, 0, 0]) * np.finfo(float).eps  # equal but for rounding
    low, high, _ = Resampled(np.float64(0.5), 0.5 + drawn / scale, noise, 5, Bootstrap(200, 0, 5)).interval()
    assert np.isfinite([low, high]).all()


def test_undefined_resamples_are_left_out_and_counted():
    how = Bootstrap(resamples=100, seed=0, min_patients=10)
    values = np.r_[np.full(7, np.nan), np.linspace(0, 1, 93)]
    low, high, note = Resampled(np.array(0.5), values, None, 40, how).interval()
    assert 0 < low < high < 1
    assert note == "undefined in 7 of 100 resamples"
    gone = Resampled(np.array(0.5), np.full(100, np.nan), None, 40, how)
    assert np.isnan(gone.interval()[:2]).all()
    assert np.isnan(gone.standard_error)


def test_the_standard_error_is_that_of_the_mean():
    sample = np.random.default_rng(1).normal(size=400)
    assert estimate(sample, 2000).standard_error == pytest.approx(sample.std() / 20, rel=0.06)


def test_the_mean_of_statistics_is_that_of_each_resample():
    generator = np.random.default_rng(0)
    samples = generator.normal(size=(3, 20))
    found = average([estimate(sample) for sample in samples])
    whole = estimate(samples.mean(0))
    assert found.point == pytest.approx(whole.point)
    assert found.drawn == pytest.approx(whole.drawn)
    assert found.without == pytest.approx(whole.without)
