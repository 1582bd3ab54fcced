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
