import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from radprobe.metrics.curves import precision_recall, roc, thinned


def made(seed, n=60, decimals=1):
    generator = np.random.default_rng(seed)
    targets = (generator.random(n) < 0.3).astype(float)
    targets[:2] = 0, 1
    return np.round(targets + generator.normal(size=n), decimals), targets  # with ties


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_points_of_roc_are_scikit_learns(seed):
    scores, targets = made(seed)
    points = roc(scores, targets)
    np.testing.assert_allclose(points.T, roc_curve(targets, scores, drop_intermediate=False)[:2], atol=1e-12)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_points_of_precision_and_recall_are_scikit_learns_and_the_area_under_the_steps_is_average_precision(seed):
    scores, targets = made(seed)
    points = precision_recall(scores, targets)
    precision, recall, _ = precision_recall_curve(targets, scores)
    np.testing.assert_allclose(points[1::2], np.column_stack([recall, precision])[-2::-1], atol=1e-12)
    np.testing.assert_allclose(np.diff(points[:, 0]) @ points[1:, 1], average_precision_score(targets, scores))


def test_samples_without_a_label_are_left_out():
    scores, targets = made(0)
    unknown = np.r_[targets, np.nan, -1]
    for curve in (roc, precision_recall):
        np.testing.assert_array_equal(curve(np.r_[scores, 9, -9], unknown), curve(scores, targets))


@pytest.mark.parametrize("targets", [[], [0, 0], [1, 1], [np.nan, 0]])
def test_what_has_no_curve_has_no_points(targets):
    scores = np.arange(len(targets), dtype=float)
    assert roc(scores, np.array(targets, float)).shape == (0, 2)
    if 1 not in targets:
        assert precision_recall(scores, np.array(targets, float)).shape == (0, 2)


def farthest(points, line):
    """Return the largest distance of any point to a line through others."""
    start, way = line[:-1], np.diff(line, axis=0)
    length = np.maximum((way**2).sum(1), 1e-300)
    off = points[:, None] - start
    along = np.clip((off * way).sum(2) / length, 0, 1)
    return np.hypot(*(off - along[..., None] * way).transpose(2, 0, 1)).min(axis=1).max()


@pytest.mark.parametrize(("n", "allowed"), [(30, 0.001), (300, 0.006), (25_596, 0.006)])
@pytest.mark.parametrize("curve", [roc, precision_recall])
def test_a_hundred_points_draw_the_curve(curve, n, allowed):
    points = curve(*made(1, n, 4))
    few = thinned(points, 100)
    assert len(few) <= 100
    assert {tuple(each) for each in few} <= {tuple(each) for each in points}
    np.testing.assert_array_equal(few[[0, -1]], points[[0, -1]])
    assert farthest(points, few) < 0.01  # of the side of the plot: under two pixels of a chart
    if curve is roc:
        assert abs(auc(*few.T) - auc(*points.T)) < allowed
        between = np.interp(points[:, 0], *few.T)
        assert np.median(np.abs(between - points[:, 1])) < allowed


def test_thinning_keeps_corners_and_drops_what_lies_on_a_line():
    line = np.column_stack([np.linspace(0, 1, 50), np.linspace(0, 2, 50)])
    np.testing.assert_array_equal(thinned(line, 10), line[[0, -1]])
    corner = np.array([[0.0, 0], [0, 0.5], [0, 1], [0.5, 1], [1, 1]])
    np.testing.assert_array_equal(thinned(corner, 10), corner[[0, 2, 4]])
    repeated = np.array([[0.0, 0], [0, 0], [1, 0], [1, 0], [1, 0], [1, 1], [1, 1]])
    np.testing.assert_array_equal(thinned(repeated, 10), [[0, 0], [1, 0], [1, 1]])
    assert thinned(np.empty((0, 2)), 10).shape == (0, 2)
    loop = np.array([[0.0, 0], [1, 1], [0, 0]])
    np.testing.assert_array_equal(thinned(loop, 10), loop)
