import math
from unittest.mock import ANY

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from radprobe.files import RadprobeError
from radprobe.learning import selection


@given(st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_macro_auroc_is_sklearns_over_the_defined_classes(seed):
    rng = np.random.default_rng(seed)
    targets, scores = rng.integers(0, 2, (8, 3)).astype(float), rng.normal(size=(8, 3)).round(1)
    targets[rng.random((8, 3)) < 0.2] = np.nan
    each = []
    for y, s in zip(targets.T, scores.T, strict=True):
        y, s = y[~np.isnan(y)], s[~np.isnan(y)]
        if len(set(y)) == 2:
            each.append(roc_auc_score(y, s))
    np.testing.assert_allclose(selection.macro_auroc(targets, scores), np.mean(each) if each else np.nan)


def test_best_passes_over_diverged_candidates_and_takes_the_first_of_equals():
    assert selection.best([np.nan, 0.5, 0.7, 0.7], "x") == 2
    with pytest.raises(RadprobeError, match="no candidate"):
        selection.best([np.nan, np.nan], "x")


def tuned(peak, seen, diverges_from=math.inf):
    """Candidates of a rate whose value falls with its distance from `peak`, in decades."""

    def value(rate):
        return math.nan if rate >= diverges_from else -abs(math.log10(rate / peak))

    def fit(rates):
        seen.extend(rates)
        return [selection.Candidate({"rate": rate}, value(rate), None) for rate in rates]

    return fit


@given(peak=st.floats(-7, 7))
def test_a_best_candidate_at_the_edge_widens_the_grid_at_most_three_times(peak):
    found = selection.search([1, 0.1, 10], "rate", tuned(10**peak, seen := []))
    assert sorted(seen) == pytest.approx(np.geomspace(min(seen), max(seen), len(seen)))  # one side, by its own ratio
    assert len(seen) == 3 + found.widened == len(set(seen))
    assert found.widened <= selection.WIDENINGS
    best = max(found.candidates, key=lambda each: each.value)
    assert found.at_edge == (best.settings["rate"] in (min(seen), max(seen)))
    if found.at_edge:
        assert found.widened == selection.WIDENINGS
    if abs(peak) > 5:
        assert found.at_edge
    if abs(peak) < 3:
        assert not found.at_edge


def test_a_grid_is_not_widened_past_a_candidate_that_diverged_nor_where_one_value_is_fixed():
    found = selection.search([1, 10], "rate", tuned(1e4, seen := [], diverges_from=1000))
    assert (sorted(seen), found.at_edge) == ([1, 10, 100, 1000], False)
    assert selection.search([1], "rate", tuned(100, [])) == selection.Search(ANY, 0, False)


def candidates(*values):
    return [selection.Candidate({"rate": number}, value, f"fit {number}") for number, value in enumerate(values)]


def refit_but(*diverging):
    """Return a function that fits candidates again; those of some rates diverge."""

    def refit(candidate):
        if candidate.settings["rate"] in diverging:
            raise selection.Diverged(candidate.fitted, "its loss is not finite", "lower the rate")
        return f"{candidate.fitted}, again"

    return refit


def test_the_best_is_fitted_again_the_first_among_equals_and_undefined_ones_never():
    choice = selection.choose(candidates(0.5, math.nan, 0.7, 0.7), refit_but(), "x")
    assert (choice.best.fitted, choice.refitted, choice.diverged) == ("fit 2", "fit 2, again", [])
    assert choice.facts["chosen"] == {"rate": 2}
    assert [each["value"] for each in choice.facts["candidates"]] == [0.5, None, 0.7, 0.7]


def test_one_that_diverges_when_it_is_fitted_again_gives_way_to_the_next_best(capsys):
    choice = selection.choose(candidates(0.5, 0.6, 0.9, 0.7), refit_but(2, 3), "x")
    assert choice.refitted == "fit 1, again"
    assert choice.facts["diverged_when_refitted"] == [{"rate": 2}, {"rate": 3}]
    assert [each["value"] for each in choice.facts["candidates"]] == [0.5, 0.6, 0.9, 0.7]
    assert "fit 2: its loss is not finite" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "diverging", "why"),
    [
        ((math.nan, math.nan), (), "defined value on val"),
        ((0.5, math.nan), (0, 1), "diverged when it was fitted again"),
    ],
)
def test_where_none_is_left_it_says_why_and_what_to_do(values, diverging, why):
    with pytest.raises(RadprobeError, match=rf"x: .*{why}.*\n.*do this"):
        selection.choose(candidates(*values), refit_but(*diverging), "x", "do this")


def test_other_seeds_follow_the_first_and_those_that_diverge_are_counted(capsys):
    def fit(seed):
        if seed == 6:
            raise selection.Diverged("seed 6", "its loss is not finite", "lower the rate")
        return f"fit {seed}"

    others = dict(selection.with_other_seeds(fit, 5, 4))
    assert others == {7: "fit 7", 8: "fit 8"}
    assert selection.seed_facts(5, list(others), 4) == {"seeds": [5, 7, 8], "seeds_diverged": 1}
    assert "seed 6: its loss is not finite" in capsys.readouterr().out
    assert list(selection.with_other_seeds(fit, 5, 1)) == []
    assert selection.seed_facts(5, [], 1) == {}
