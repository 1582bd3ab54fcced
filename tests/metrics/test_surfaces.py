import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion, gaussian_filter

from radprobe.metrics.surfaces import METRICS, surface, surfaces

CLASSES = 3


def blobs(shape, seed, classes=CLASSES):
    """Smooth label maps in which classes may be absent, touch the border or be one voxel small."""
    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.normal(size=shape), rng.uniform(0.5, 2)) for _ in range(classes + 1)]
    labels = np.argmax(fields, 0).astype(np.uint8)
    if seed % 3 == 0:
        labels[labels == 1 + seed % classes] = 0
    if seed % 4 == 0:
        labels[tuple(side // 2 for side in shape)] = 1 + seed % classes
    return labels


def monais(truth, prediction, spacing, tolerance):
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    hot = [
        torch.from_numpy(np.stack([labels == k for k in range(CLASSES + 1)])[None]) for labels in (prediction, truth)
    ]
    how = {"include_background": False, "spacing": list(spacing) or None}
    found = {
        "hd95": compute_hausdorff_distance(*hot, percentile=95, **how),
        "assd": compute_average_surface_distance(*hot, symmetric=True, **how),
        "nsd": compute_surface_dice(*hot, class_thresholds=[tolerance] * CLASSES, **how),
    }
    return {name: values[0].numpy() for name, values in found.items()}


SHAPES = st.one_of(
    st.tuples(st.integers(3, 24), st.integers(3, 24)),
    st.tuples(st.integers(3, 14), st.integers(3, 14), st.integers(2, 10)),
)


@pytest.mark.filterwarnings("ignore:the (ground truth|prediction)")
@given(shape=SHAPES, seeds=st.tuples(st.integers(0, 999), st.integers(0, 999)), known=st.booleans(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_they_are_monais(shape, seeds, known, data):
    truth, prediction = (blobs(shape, seed) for seed in seeds)
    sides = st.floats(0.3, 5)
    spacing = [data.draw(sides) for _ in shape] if known else []
    tolerance = data.draw(st.floats(0, 4)) * 1.000123  # MONAI rounds distances to float32, so ties fall either way
    ours, theirs = (
        surfaces(truth, prediction, CLASSES, spacing, tolerance),
        monais(truth, prediction, spacing, tolerance),
    )
    for name, values in theirs.items():
        expected = np.where(np.isfinite(values), values, np.nan)
        np.testing.assert_allclose(ours[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)


@given(shape=SHAPES, seed=st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_surfaces_are_those_of_scipys_erosion(shape, seed):
    mask = blobs(shape, seed) == 2
    np.testing.assert_array_equal(surface(mask), mask & ~binary_erosion(mask))


@given(shape=SHAPES, seeds=st.tuples(st.integers(0, 999), st.integers(0, 999)))
@settings(max_examples=20, deadline=None)
def test_distances_are_the_same_both_ways_and_none_to_itself(shape, seeds):
    truth, prediction = (blobs(shape, seed) for seed in seeds)
    there, back = surfaces(truth, prediction, CLASSES, [], 1), surfaces(prediction, truth, CLASSES, [], 1)
    for name in ("hd95", "assd", "nsd"):
        np.testing.assert_allclose(there[name], back[name])
    itself = surfaces(truth, truth, CLASSES, [], 0)
    present = np.isin(np.arange(1, CLASSES + 1), truth)
    for name, value in {"hd95": 0, "assd": 0, "nsd": 1, "volume_error": 0}.items():
        np.testing.assert_array_equal(itself[name], np.where(present, value, np.nan))


@pytest.mark.parametrize("axis", range(3))
def test_a_slab_that_is_moved_lies_as_far_as_it_was_moved(axis):
    spacing, labels = [0.7, 1.5, 4.0], np.zeros((20, 20, 20), np.uint8)
    one, other = labels.copy(), labels.copy()
    at = [slice(None)] * 3
    for shifted, where in ((one, 5), (other, 8)):
        at[axis] = slice(where, where + 1)
        shifted[tuple(at)] = 1
    found = surfaces(one, other, 1, spacing, 3 * spacing[axis])
    assert found["hd95"][0] == pytest.approx(3 * spacing[axis])
    assert found["assd"][0] == pytest.approx(3 * spacing[axis])
    assert found["nsd"][0] == 1  # just as far as is tolerated
    assert surfaces(one, other, 1, spacing, 3 * spacing[axis] - 1e-6)["nsd"][0] == 0


def test_a_class_that_only_one_has_is_missed_or_a_false_alarm_and_never_a_0_distance():
    truth, prediction = np.zeros((6, 6), np.uint8), np.zeros((6, 6), np.uint8)
    truth[1:3, 1:3], prediction[4, 4] = 1, 2
    found = surfaces(truth, prediction, CLASSES, [], 9)
    expected = {"hd95": [np.nan] * 3, "assd": [np.nan] * 3, "nsd": [0, 0, np.nan], "volume_error": [1, np.nan, np.nan]}
    assert set(found) == set(METRICS)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_volumes_are_compared_whatever_their_place():
    truth, prediction = np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)
    truth[:2], prediction[3] = 1, 1
    assert surfaces(truth, prediction, 1, [1, 1, 3], 1)["volume_error"][0] == 0.5
