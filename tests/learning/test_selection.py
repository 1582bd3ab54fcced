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
