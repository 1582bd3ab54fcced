import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from radprobe.imaging import resize

shapes = st.tuples(st.integers(20, 90), st.integers(20, 90))
quick = settings(max_examples=25, deadline=None)


def half_plane(shape, axis):
    """1 in the lower or right half."""
    mask = np.zeros(shape, np.uint8)
    mask[(slice(shape[0] // 2, None), slice(None)) if axis == 0 else (slice(None), slice(shape[1] // 2, None))] = 1
    return mask


@quick
@given(shapes, st.integers(16, 100), st.integers(0, 9))
def test_masks_keep_their_labels_and_make_up_none(shape, side, seed):
    mask = np.random.default_rng(seed).integers(0, 9, shape, dtype=np.uint8)
    resized = resize.resize_mask(mask, side)
    assert resized.shape == (side, side)
    assert set(np.unique(resized)) <= set(np.unique(mask))


@quick
@given(shapes, st.integers(16, 100), st.integers(0, 1))
def test_image_and_mask_move_together(shape, side, axis):
    mask = half_plane(shape, axis)
    image = resize.resize_image(mask * 200, side)
    disagree = (image > 100) != (resize.resize_mask(mask, side) > 0)
    assert disagree.any(axis=1 - axis).sum() <= 1  # at most the one line in which the edge lies


@quick
@given(shapes, st.integers(16, 100), st.integers(0, 9))
def test_nearest_is_that_of_pil(shape, side, seed):
    for length in shape:  # a centre that falls exactly between two pixels is a matter of rounding
        assume(((2 * np.arange(side) + 1) * length % (2 * side)).all())
    mask = np.random.default_rng(seed).integers(0, 9, shape, dtype=np.uint8)
    expected = np.asarray(Image.fromarray(mask).resize((side, side), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(resize.resize_mask(mask, side), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_the_same_size_changes_nothing(dtype):
    image = np.random.default_rng(0).integers(0, 256, (31, 31)).astype(dtype)
    np.testing.assert_array_equal(resize.resize_image(image, 31), image)
    np.testing.assert_array_equal(resize.resize_mask(image, 31), image)


@quick
@given(shapes, st.integers(16, 100), st.integers(0, 9))
def test_16_bit_images_are_resized_as_8_bit_ones(shape, side, seed):
    image = np.random.default_rng(seed).integers(50, 200, shape, dtype=np.uint8)
    wide = resize.resize_image(image.astype(np.int16) * 100 - 15000, side)
    narrow = np.clip(resize.resize_image(image, side), image.min(), image.max())
    assert wide.dtype == np.int16
    assert np.abs((wide.astype(float) + 15000) / 100 - narrow).max() <= 2  # PIL rounds 8 bits after each axis


def test_shrinking_a_fine_grid_gives_its_mean_and_no_false_pattern():
    grid = np.indices((512, 512)).sum(0) % 2 * 200
    assert np.ptp(resize.resize_image(grid.astype(np.uint8), 100).astype(int)) <= 2


@quick
@given(shapes, st.integers(1, 4))
def test_the_truth_at_its_own_size_comes_back_unchanged(shape, classes):
    labels = np.random.default_rng(classes).integers(0, classes + 1, shape)
    one_hot = np.eye(classes + 1, dtype=np.float32)[labels].transpose(2, 0, 1)
    restored = resize.to_original(one_hot, shape)
    assert restored.dtype == np.uint8
    np.testing.assert_array_equal(restored, labels)


@quick
@given(shapes, st.integers(0, 1))
def test_there_and_back_moves_an_edge_by_less_than_a_model_pixel(shape, axis):
    truth, side = half_plane(shape, axis), 28
    one_hot = np.eye(2, dtype=np.float32)[resize.resize_mask(truth, side)].transpose(2, 0, 1)
    wrong = (resize.to_original(one_hot, shape) != truth).any(axis=1 - axis).sum()
    assert wrong <= np.ceil(shape[axis] / side)


def test_probabilities_are_resized_and_not_labels():
    probabilities = np.array([[[0.9, 0.1]], [[0.1, 0.9]]], np.float32)  # [2, 1, 2]
    probabilities[:, 0, 1] = [0.4, 0.6]  # background is the surer of the two
    labels = resize.to_original(probabilities, (1, 100))[0]
    assert 10 < labels.sum() < 50  # resized labels would give 50
