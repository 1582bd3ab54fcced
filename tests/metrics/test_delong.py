import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from radprobe.metrics.classification import Classifier
from radprobe.metrics.delong import components, p_value
from radprobe.metrics.options import Bootstrap
from radprobe.metrics.simultaneous import Family


def kernel(scores, y):
    """Psi of every positive and negative, as the paper writes it."""
    apart = scores[y == 1][:, None] - scores[y == 0][None]
    return (apart > 0) + 0.5 * (apart == 0)


def plain(one, other, y):
    """The paper's formulas, with matrices: the areas, and the p-value of their difference."""
    psi = [kernel(scores, y) for scores in (one, other)]
    areas = np.array([each.mean() for each in psi])
    s10, s01 = (np.cov([each.mean(axis) for each in psi]) for axis in (1, 0))
    covariance = s10 / (y == 1).sum() + s01 / (y == 0).sum()
    contrast = np.array([1, -1])
    z = (areas @ contrast) / np.sqrt(contrast @ covariance @ contrast)
    return areas, 2 * norm.sf(abs(z)), covariance


def made(seed, n=60):
    generator = np.random.default_rng(seed)
    y = (generator.random(n) < 0.4).astype(float)
    y[:2], y[2:4] = 1, 0
    one = np.round(y + generator.normal(size=n), 1)  # with ties
    return one, np.round(one + generator.normal(size=n), 1), y


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_it_is_the_papers(seed):
    one, other, y = made(seed)
    areas, p, covariance = plain(one, other, y)
    for scores, area, variance in zip((one, other), areas, np.diag(covariance), strict=True):
        found, added = components(scores, y)
        assert found == pytest.approx(area) == pytest.approx(roc_auc_score(y, scores))
        assert (added**2).sum() == pytest.approx(variance)
    assert p_value(one[:, None], other[:, None], y[:, None]) == pytest.approx(p)


def test_of_several_classes_it_agrees_with_the_bootstrap():
    generator = np.random.default_rng(0)
    targets = (generator.random((300, 4)) < 0.4).astype(float)
    targets[:20, 0] = np.nan
    one = np.nan_to_num(targets) + generator.normal(size=targets.shape)
    other = one + generator.normal(scale=0.6, size=targets.shape) + 0.1 * np.nan_to_num(targets)
    names = [f"p{i:04d}" for i in range(300)]
    how = Bootstrap(4000, 0, 10)
    rows = {
        name: Classifier(each, targets, names, fewest=10).resampled(how) for name, each in (("a", one), ("b", other))
    }
    (difference,) = Family(rows, {}).differences
    assert p_value(one, other, targets) == pytest.approx(difference.p, abs=0.03)


def test_equal_scores_and_undefined_classes():
    one, other, y = made(0)
    assert p_value(one[:, None], one[:, None], y[:, None]) == 1
    assert np.isnan(p_value(one[:, None], other[:, None], np.ones((60, 1))))
    both = np.stack([y, np.ones(60)], 1)
    two = [np.stack([each, each], 1) for each in (one, other)]
    assert p_value(*two, both) == pytest.approx(p_value(one[:, None], other[:, None], y[:, None]))
