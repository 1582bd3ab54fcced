import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from radprobe.metrics.resampling import Bootstrap, counts, draws, interval, patients_of


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
    how = Bootstrap(resamples=150, seed=3, min_patients=2)
    values = np.arange(12.0)
    got = draws(lambda weights: weights.T @ values / 12, 12, how)
    assert np.allclose(got, counts(12, 150, 3).T @ values / 12)


def test_the_interval_of_a_mean_covers_the_truth_about_95_times_in_100():
    generator, inside = np.random.default_rng(0), 0
    for trial in range(200):
        sample = generator.normal(size=80)
        how = Bootstrap(resamples=300, seed=trial, min_patients=10)
        low, high, _ = interval(draws(lambda w, s=sample: w.T @ s / 80, 80, how), 80, how)
        inside += low <= 0 <= high
    assert 180 <= inside <= 199


def test_undefined_resamples_are_left_out_and_counted():
    how = Bootstrap(resamples=100, seed=0, min_patients=10)
    values = np.r_[np.full(7, np.nan), np.linspace(0, 1, 93)]
    low, high, note = interval(values, 20, how)
    assert 0 < low < high < 1
    assert note == "undefined in 7 of 100 resamples"
    assert np.isnan(interval(np.full(100, np.nan), 20, how)[:2]).all()
