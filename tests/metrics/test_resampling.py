import interval_coverage
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from radprobe.metrics.resampling import FEW, Bootstrap, Resampled, counts, patients_of, resampled


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


@pytest.mark.parametrize("n", [12, FEW])
@pytest.mark.parametrize("skew", [False, True])
def test_the_interval_of_few_patients_is_scipys_bca(n, skew):
    generator = np.random.default_rng(n)
    sample = generator.exponential(size=n) if skew else generator.normal(size=n)
    low, high, note = estimate(sample, resamples=20000).interval()
    theirs = stats.bootstrap((sample,), np.mean, n_resamples=20000, method="BCa", rng=generator).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.03 * (theirs.high - theirs.low))
    assert note == f"few patients: {n}"


def test_the_interval_of_many_patients_is_the_percentile_interval():
    found = estimate(np.random.default_rng(0).exponential(size=FEW + 1))
    assert found.without is None
    assert found.interval() == (*np.percentile(found.drawn, [2.5, 97.5]), "")


def test_under_the_least_number_of_patients_there_is_none():
    low, high, note = estimate(np.arange(9.0), min_patients=10).interval()
    assert np.isnan([low, high]).all()
    assert note == "no interval: 9 patients, fewer than 10"
    assert estimate(np.arange(20.0), min_patients=10).interval(4)[2] == "no interval: 4 patients, fewer than 10"


def test_a_sample_that_never_varies_has_an_interval_of_no_width():
    assert estimate(np.ones(12)).interval()[:2] == (1, 1)


LEAST = {"mean": {10: 0.85, 20: 0.89, 50: 0.91, 200: 0.92}, "auroc": {10: 0.78, 20: 0.92, 50: 0.90, 200: 0.92}}


# Of 500 intervals, the share that holds the truth; docs/intervals.md states it as measured on 1,000 of more resamples.
@pytest.mark.slow
@pytest.mark.parametrize("n", interval_coverage.PATIENTS)
@pytest.mark.parametrize("statistic", LEAST)
def test_intervals_of_simulated_test_sets_cover_the_truth(statistic, n):
    ours, _ = interval_coverage.covered(statistic, n, trials=500, resamples=300)
    assert LEAST[statistic][n] <= ours <= 0.985


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
