import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from radprobe.metrics import comparison
from radprobe.metrics.comparison import holm
from radprobe.metrics.resampling import Bootstrap, resampled

HOW = Bootstrap(resamples=500, seed=0, min_patients=10)


def mean_of(values):
    return lambda weights: weights.T @ values / len(values)


def pairs(statistics, patients, how):
    return comparison.pairs({name: resampled(each, patients, how) for name, each in statistics.items()})


def test_pairing_resolves_a_small_difference_between_noisy_scores():
    generator = np.random.default_rng(0)
    hard = generator.normal(size=100)  # what both find hard
    shifted = hard + 0.05 + generator.normal(scale=0.02, size=100)
    (row,) = pairs({"x": mean_of(shifted), "y": mean_of(hard)}, 100, HOW)
    assert 0 < row["low"] < row["difference"] < row["high"] < 0.1
    (unpaired,) = pairs({"x": mean_of(shifted), "y": mean_of(generator.permutation(hard))}, 100, HOW)
    assert unpaired["low"] < 0 < unpaired["high"]


def test_equal_scores_differ_by_nothing():
    values = np.random.default_rng(0).normal(size=30)
    (row,) = pairs({"x": mean_of(values), "y": mean_of(values)}, 30, HOW)
    assert row["difference"] == row["low"] == row["high"] == 0


def test_every_two_are_compared_once_and_few_patients_give_no_interval():
    values = np.arange(9.0)
    found = pairs({name: mean_of(values) for name in "abc"}, 9, HOW)
    assert [(row["backbone"], row["other"]) for row in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert all(np.isnan(row["low"]) and "9 patients" in row["note"] for row in found)


def test_an_undefined_score_gives_no_difference():
    (row,) = pairs({"x": mean_of(np.full(12, np.nan)), "y": mean_of(np.ones(12))}, 12, HOW)
    assert np.isnan(row["difference"])
    assert row["note"].startswith("undefined")


@settings(max_examples=30, deadline=None)  # theirs takes 0.05 s a call
@given(st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), min_size=1, max_size=12))
def test_holm_is_statsmodels(values):
    known = [not np.isnan(value) for value in values]
    adjusted = np.array(holm(values))
    assert (~np.isnan(adjusted)).tolist() == known
    if any(known):
        expected = multipletests(np.array(values)[known], method="holm")[1]
        np.testing.assert_allclose(adjusted[known], expected)


def test_p_values_of_a_mean_are_those_of_a_t_test_and_even_under_no_difference():
    generator, found, expected = np.random.default_rng(0), [], []
    for shift in np.repeat([0.0, 0.2], 100):
        one = generator.normal(size=60)
        other = one + shift + generator.normal(scale=0.5, size=60)
        (row,) = pairs({"x": mean_of(other), "y": mean_of(one)}, 60, HOW)
        found.append(row["p"])
        expected.append(stats.ttest_rel(other, one).pvalue)
    assert np.corrcoef(found, expected)[0, 1] > 0.98
    assert 0.02 < np.mean(np.array(found[:100]) < 0.1) < 0.2
    assert np.mean(np.array(found[100:]) < 0.05) > 0.7


def test_the_effect_is_in_standard_deviations_of_a_patients_difference():
    generator = np.random.default_rng(0)
    one, apart = generator.normal(size=200), generator.normal(0.3, 0.5, size=200)
    (row,) = pairs({"x": mean_of(one + apart), "y": mean_of(one)}, 200, HOW)
    assert row["effect"] == pytest.approx(apart.mean() / apart.std(ddof=1), rel=0.1)
    assert row["p_holm"] == row["p"]  # a family of one
