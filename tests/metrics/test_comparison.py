import numpy as np

from radprobe.metrics.comparison import pairs
from radprobe.metrics.resampling import Bootstrap

HOW = Bootstrap(resamples=500, seed=0, min_patients=10)


def mean_of(values):
    return lambda weights: weights.T @ values / len(values)


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
