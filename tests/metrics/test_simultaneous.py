import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from radprobe.metrics.options import Bootstrap
from radprobe.metrics.resampling import Support, resampled
from radprobe.metrics.simultaneous import Chance, Family, paired, pooled

HOW = Bootstrap(resamples=500, seed=0, min_patients=10)


def row_of(values, how=HOW):
    return resampled(lambda weights: weights.T @ values / weights.sum(0), len(values), how)


def family(chance=None, how=HOW, **values):
    return Family({name: row_of(each, how) for name, each in values.items()}, chance or {})


def test_pairing_finds_a_small_difference_between_noisy_scores():
    generator = np.random.default_rng(0)
    hard = generator.normal(size=100)  # what both find hard
    shifted = hard + 0.05 + generator.normal(scale=0.02, size=100)
    (found,) = family(x=shifted, y=hard).differences
    assert 0 < found.low < found.value < found.high < 0.1
    assert found.sign == 1
    (unpaired,) = family(x=shifted, y=generator.permutation(hard)).differences
    assert unpaired.sign == 0


def test_equal_rows_differ_by_nothing_and_claim_no_width():
    values = np.random.default_rng(0).normal(size=30)
    (found,) = family(x=values, y=values).differences
    assert found.value == 0
    assert np.isnan(found.low)
    assert found.note == "equal in every resample"


def test_every_two_are_compared_once_and_few_patients_give_no_interval():
    found = family(**dict.fromkeys("abc", np.arange(9.0))).differences
    assert [(each.one, each.other) for each in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert all(np.isnan(each.low) and each.note == "no interval: 9 patients, fewer than 10" for each in found)


def test_an_undefined_score_gives_no_difference_and_leaves_the_others():
    generator = np.random.default_rng(0)
    values = {"x": generator.normal(size=20), "y": generator.normal(size=20)}
    both = family(gone=np.full(20, np.nan), **values).differences
    assert [each.note for each in both[:2]] == ["undefined: a score is undefined"] * 2
    (alone,) = family(**values).differences
    assert both[2].value == alone.value
    assert both[2].standard_error == alone.standard_error


def test_a_pair_alone_is_a_paired_t_test():
    generator, found, expected = np.random.default_rng(0), [], []
    how = Bootstrap(2000, 0, 10)
    for shift in np.repeat([0.0, 0.2], 40):
        one = generator.normal(size=25)
        other = one + shift + generator.normal(scale=0.5, size=25)
        (difference,) = family(how=how, x=other, y=one).differences
        theirs = stats.ttest_rel(other, one)
        ends = theirs.confidence_interval()
        assert (difference.low, difference.high) == pytest.approx(
            (ends.low, ends.high), abs=0.06 * (ends.high - ends.low)
        )
        found.append(difference.p)
        expected.append(theirs.pvalue)
    assert np.corrcoef(found, expected)[0, 1] > 0.98


def test_the_critical_value_of_independent_rows_is_that_of_the_studentized_range():
    values = np.random.default_rng(1).normal(size=(2000, 8))
    found = family(how=Bootstrap(2000, 0, 10), **{str(n): column for n, column in enumerate(values.T)})
    expected = stats.studentized_range.ppf(0.95, 8, np.inf) / np.sqrt(2)
    assert found.critical == pytest.approx(expected, rel=0.04)
    assert len(found.differences) == 28


def test_intervals_and_p_values_agree():
    generator = np.random.default_rng(3)
    for _ in range(20):
        values = generator.normal(size=(30, 6)) + np.linspace(0, 0.9, 6)
        found = family(**{str(n): column for n, column in enumerate(values.T)})
        for each in found.differences:
            assert (each.p <= 0.05) == (each.sign != 0)


def test_more_rows_make_every_interval_wider_and_claims_rarer():
    values = np.random.default_rng(5).normal(size=(60, 12))
    few, many = (family(**{str(n): values[:, n] for n in range(k)}) for k in (2, 12))
    assert many.critical > 1.4 * few.critical
    assert many.differences[0].p > few.differences[0].p


def test_a_false_claim_anywhere_in_the_family_is_rare():
    generator = np.random.default_rng(7)
    false = 0
    for _ in range(200):
        values = generator.normal(size=(40, 1)) + generator.normal(size=(40, 10))
        rows = {str(n): column for n, column in enumerate(values.T)}
        false += any(each.sign for each in family(how=Bootstrap(300, 0, 10), **rows).differences)
    assert false / 200 <= 0.09


def test_the_winner_of_equal_rows_is_corrected_towards_the_truth_and_its_interval_holds_it():
    generator = np.random.default_rng(11)
    measured, corrected, inside = [], [], 0
    for _ in range(150):
        values = generator.normal(size=(50, 10))
        found = family(how=Bootstrap(300, 0, 10), **{str(n): column for n, column in enumerate(values.T)})
        winner = found.winner(list(found.rows))
        measured.append(float(found.rows[winner.name].point))
        corrected.append(winner.value)
        inside += winner.low <= 0 <= winner.high
    assert np.mean(corrected) < 0.6 * np.mean(measured)
    assert inside / 150 >= 0.93


def test_a_winner_without_rivals_is_not_corrected():
    generator = np.random.default_rng(0)
    low = generator.normal(size=50)
    found = family(x=low + 5, y=low + generator.normal(scale=0.1, size=50))
    winner = found.winner(["x", "y"])
    assert found.beaten(["x", "y"]) == {"y"}
    assert winner.value == found.rows["x"].point
    assert (winner.low, winner.high) == found.rows["x"].interval()[:2]
    assert found.winner([]) is None


def test_chance_of_seeds_and_inits_widens_the_difference():
    generator = np.random.default_rng(0)
    values = {"x": generator.normal(size=50), "y": generator.normal(size=50)}
    (without,) = family(**values).differences
    (with_seeds,) = family({"x": Chance(0.3**2, 4)}, **values).differences
    assert with_seeds.standard_error > without.standard_error
    assert with_seeds.standard_error == pytest.approx((without.standard_error**2 + 0.3**2) ** 0.5, rel=0.05)
    assert with_seeds.high - with_seeds.low > 1.3 * (without.high - without.low)
    (few_fits,) = family({"x": Chance(0.3**2, 1)}, **values).differences
    assert few_fits.standard_error == with_seeds.standard_error
    assert few_fits.high - few_fits.low > with_seeds.high - with_seeds.low  # Welch and Satterthwaite
    assert with_seeds.value == without.value


def test_the_variance_of_inits_is_pooled_over_backbones():
    found = pooled([[1.0, 3.0], [10.0, 10.0, 13.0], [5.0]])
    assert found == Chance((2 + 6) / 3, 3)
    assert pooled([[1.0], []]) is None


@pytest.mark.parametrize("n", [400, 1000])
def test_as_many_patients_as_are_needed_have_the_stated_power(n):
    generator = np.random.default_rng(n)
    found = family(how=Bootstrap(2000, 0, 10), x=generator.normal(size=n), y=generator.normal(size=n))
    needed, low, high = found.patients_needed(found.differences[0], 0.5)
    expected = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) ** 2 * 2 / 0.25  # of two independent normal means
    assert needed == pytest.approx(expected, rel=0.25)
    assert low < needed < high
    assert high / low == pytest.approx({400: 1.32, 1000: 1.2}[n], abs=0.1)


def test_patients_do_not_reduce_the_variance_of_seeds():
    generator = np.random.default_rng(0)
    values = {"x": generator.normal(size=400), "y": generator.normal(size=400)}
    plain, some, much = (
        family({"x": Chance(variance, 20)} if variance else None, **values) for variance in (0, 0.01, 1)
    )
    of_plain, of_some, of_much = (each.patients_needed(each.differences[0], 0.5)[0] for each in (plain, some, much))
    assert of_plain < of_some < np.inf
    assert of_much == np.inf


def test_a_family_without_any_defined_row_has_no_difference():
    found = family(x=np.full(20, np.nan), y=np.full(20, np.nan))
    (difference,) = found.differences
    assert np.isnan(found.patients_needed(difference, 0.02)).all()
    assert found.winner(["x", "y"]) is None


def test_a_single_pair_has_an_interval_of_its_own():
    generator = np.random.default_rng(2)
    one, other = generator.normal(size=40), generator.normal(0.5, size=40)
    found = paired(row_of(other).minus(row_of(one)))
    ends = stats.ttest_rel(other, one).confidence_interval()
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high), abs=0.1)


@given(st.floats(1, 5), st.integers(2, 500))
@settings(max_examples=50, deadline=None)
def test_the_multiplier_has_the_tail_of_students_t(z, df):
    assert stats.t.sf(Support(10, df).multiplier(z), df) == pytest.approx(stats.norm.sf(z), rel=1e-6)
