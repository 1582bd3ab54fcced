import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, ttest_1samp

from radprobe.metrics import ranks

# Demsar 2006, table 6: AUC of four variants of C4.5 on 14 data sets. One value of the last row but one is 0.0001 above
# the printed one: by the paper's ranks it is no tie.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def tables(values):
    return {f"t{row}": {f"b{at}": float(each) for at, each in enumerate(line)} for row, line in enumerate(values)}


def plain_rank(line, at):
    """1 + how many are above, + half of the others that are level."""
    above = sum(other > line[at] for other in line)
    level = sum(other == line[at] for other in line) - 1
    return 1 + above + level / 2


def plain_friedman(values):
    """The tie-corrected statistic, written out from the sums of squares of ranks (Conover 1999, 5.8)."""
    table = [[plain_rank(line, at) for at in range(len(line))] for line in values]
    n, k = len(table), len(table[0])
    sums = [sum(line[at] for line in table) for at in range(k)]
    squares = sum(each**2 for line in table for each in line)
    constant = n * k * (k + 1) ** 2 / 4
    statistic = (k - 1) * (sum(each**2 for each in sums) - n * constant) / (squares - constant)
    return chi2.sf(statistic, k - 1)


def test_the_example_of_demsar():
    found = ranks.rank(tables(DEMSAR))
    assert [round(found.mean[f"b{at}"], 3) for at in range(4)] == [3.143, 2.0, 2.893, 1.964]
    assert found.critical_difference == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 14)), abs=5e-4)
    assert found.is_resolved  # and yet, as the paper says, no two of them are critically apart
    assert found.groups == [["b3", "b1", "b2", "b0"]]


@pytest.mark.parametrize(("k", "q"), [(3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (8, 3.031), (10, 3.164)])
def test_critical_values_are_those_of_demsars_table(k, q):
    for tasks in (2, 7, 30):
        assert ranks.critical_difference(k, tasks) == pytest.approx(q * math.sqrt(k * (k + 1) / (6 * tasks)), abs=2e-3)


grids = st.integers(2, 6).flatmap(
    lambda tasks: st.integers(3, 6).flatmap(
        lambda names: st.lists(
            st.lists(st.integers(0, 4), min_size=names, max_size=names), min_size=tasks, max_size=tasks
        )
    )
)


@given(grids)
def test_ranks_and_their_test_agree_with_a_plain_second_implementation(values):
    found = ranks.rank(tables(values))
    expected = [[plain_rank(line, at) for at in range(len(line))] for line in values]
    assert found.ranks.tolist() == expected
    if all(len(set(line)) == 1 for line in values):
        assert found.p == 1
    else:
        assert found.p == pytest.approx(plain_friedman(values), abs=1e-12)


@given(grids, st.randoms())
def test_the_order_of_tasks_and_backbones_and_any_rising_scale_change_nothing(values, random):
    found = ranks.rank(tables(values))
    shuffled = list(tables([[math.exp(each) * 3 - 7 for each in line] for line in values]).items())
    random.shuffle(shuffled)
    moved = {}
    for task, by in shuffled:
        names = list(by)
        random.shuffle(names)
        moved[task] = {name: by[name] for name in names}
    again = ranks.rank(moved)
    assert again.mean == pytest.approx(found.mean)
    assert again.p == pytest.approx(found.p)
    assert again.critical_difference == found.critical_difference


@given(grids)
def test_ranks_of_a_task_sum_to_the_same_whatever_is_tied(values):
    found = ranks.rank(tables(values))
    k = len(found.backbones)
    assert found.ranks.sum(axis=1) == pytest.approx(np.full(len(values), k * (k + 1) / 2))


@given(grids)
def test_a_group_holds_what_is_not_resolved_and_no_group_lies_in_another(values):
    found = ranks.rank(tables(values))
    groups = found.groups
    together = {frozenset(pair) for group in groups for pair in itertools.combinations(group, 2)}
    for one, other in itertools.combinations(found.backbones, 2):
        near = abs(found.mean[one] - found.mean[other]) < found.critical_difference
        assert (frozenset((one, other)) in together) == near
    assert not [1 for one in groups for other in groups if one is not other and set(one) <= set(other)]


def test_backbones_that_miss_a_task_are_left_out_and_too_few_are_no_ranking():
    scores = tables([[0.9, 0.8, 0.7, 0.6], [0.5, 0.6, math.nan, 0.9]])
    assert ranks.complete(scores) == ["b0", "b1", "b3"]
    assert ranks.lacking(scores) == ""
    del scores["t1"]["b0"]
    assert ranks.lacking(scores) == "2 backbones scored on all of 2 tasks, and ranks need 3 or more"
    assert ranks.lacking({"t0": scores["t0"]}) == "1 task, and ranks across tasks need 2 or more"
    assert ranks.lacking({}) == "0 tasks, and ranks across tasks need 2 or more"


def test_two_tasks_can_resolve_nothing_of_three_backbones():
    found = ranks.rank(tables([[3, 2, 1]] * 2))
    assert not found.can_resolve
    assert not found.is_resolved
    assert found.groups == [["b0", "b1", "b2"]]
    assert ranks.rank(tables([[3, 2, 1]] * 6)).can_resolve


def test_the_scale_of_a_task_runs_from_its_control_to_its_best():
    assert ranks.scaled(0.6, 0.6, 0.8) == 0
    assert ranks.scaled(0.8, 0.6, 0.8) == 1
    assert ranks.scaled(0.7, 0.6, 0.8) == pytest.approx(0.5)
    assert ranks.scaled(0.5, 0.6, 0.8) == pytest.approx(-0.5)  # below its control: no clipping
    assert math.isnan(ranks.scaled(0.6, 0.6, 0.6))


def test_few_tasks_have_a_mean_and_no_interval():
    value, low, high, note = ranks.mean_over_tasks([0.2, 0.4, 0.9, 1, 0.5])
    assert value == pytest.approx(0.6)
    assert math.isnan(low)
    assert math.isnan(high)
    assert note == "no interval: 5 tasks, fewer than 6"
    assert math.isnan(ranks.mean_over_tasks([])[0])


@given(st.lists(st.floats(-2, 1), min_size=6, max_size=20))
def test_the_interval_is_scipys_t_interval(values):
    value, low, high, note = ranks.mean_over_tasks(values)
    expected = ttest_1samp(values, 0).confidence_interval(0.95) if np.ptp(values) > 0 else (value, value)
    assert value == pytest.approx(np.mean(values))
    assert (low, high) == pytest.approx(tuple(expected), abs=1e-9)
    assert note == ""


@pytest.mark.parametrize("tasks", [6, 9, 14])
@pytest.mark.parametrize("of", ["normal", "uniform", "heavy"])
def test_the_interval_covers_the_mean_of_tasks(tasks, of):
    generator = np.random.default_rng(tasks)
    drawn = {
        "normal": lambda: generator.normal(0.5, 0.2, tasks),
        "uniform": lambda: generator.uniform(0, 1, tasks),
        "heavy": lambda: 0.5 + 0.2 * generator.standard_t(4, tasks),
    }[of]
    inside = 0
    for _ in range(3000):
        _, low, high, _ = ranks.mean_over_tasks(drawn().tolist())
        inside += low <= 0.5 <= high
    assert inside / 3000 >= 0.93
