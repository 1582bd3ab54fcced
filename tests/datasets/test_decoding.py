import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from radprobe import catalog
from radprobe.catalog import Window
from radprobe.datasets import decoding
from radprobe.imaging import reading


@pytest.mark.parametrize("rows", [0, 1, 12345])
def test_rows_that_are_streamed_are_a_plain_npy_file(tmp_path, rows):
    expected = np.random.default_rng(0).integers(-9, 9, (rows, 2, 3)).astype(np.int16)
    with decoding.RowWriter(tmp_path / "rows.npy", (2, 3), np.int16) as writer:
        for row in expected:
            writer.append(row)
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), expected)


def test_a_row_of_another_shape_is_refused(tmp_path):
    with (
        decoding.RowWriter(tmp_path / "rows.npy", (2, 3), np.uint8) as writer,
        pytest.raises(ValueError, match="shape"),
    ):
        writer.append(np.zeros((3, 2), np.uint8))


@given(st.integers(0, 99), st.sampled_from([1, 255]))
def test_disjoint_masks_become_labels_whatever_their_foreground_value(seed, value):
    truth = np.random.default_rng(seed).integers(0, 3, (9, 11), dtype=np.uint8)
    truth[0, :3] = [0, 1, 2]
    labels, oddities = decoding.label_map([np.where(truth == k, value, 0).astype(np.uint8) for k in (1, 2)])
    np.testing.assert_array_equal(labels, truth)
    assert not oddities


def test_what_looks_wrong_in_masks_is_counted():
    left, right = np.zeros((2, 4, 4), np.uint8)
    left[:2], right[1:3] = 255, 255
    left[3, 0] = 90
    labels, oddities = decoding.label_map([left, right])
    assert oddities == {"mask 1 has more than two values": 1, "masks overlap": 4}
    assert labels[3, 0] == 0
    _, oddities = decoding.label_map([np.zeros((4, 4), np.uint8), right])
    assert oddities == {"mask 1 is empty": 16}


def test_masks_of_16_bits_keep_their_foreground(tmp_path):
    mask = np.zeros((4, 5), np.uint16)
    mask[1:3, 2:4] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    labels, oddities = decoding.label_map([reading.read_grey(tmp_path / "mask.png")])
    np.testing.assert_array_equal(labels, mask > 0)
    assert oddities == {}


@pytest.mark.parametrize(("dtype", "shift"), [(np.uint8, 0), (np.uint16, -32768)])
def test_grey_values_that_all_lie_outside_the_window_are_warned_of(tmp_path, dtype, shift):
    """Black for every model: a 16-bit PNG is stored less 32,768, a CT without its intercept is off by 1,024."""
    values = np.arange(40, 200, dtype=dtype).reshape(16, 10)
    Image.fromarray(values).save(tmp_path / "film.png")
    picture = decoding.Picture(tmp_path / "film.png", (), ("row",))

    def oddities(low, high):
        entry = catalog.datasets()["amos"].model_copy(update={"intensity": Window(kind="window", low=low, high=high)})
        return decoding.decode(picture, entry.decoding, 8).oddities

    assert oddities(shift + 100, shift + 150) == {}
    assert oddities(shift + 200, shift + 300) == {f"{decoding.OUTSIDE} {shift + 200} to {shift + 300}": values.size}
    assert oddities(shift, shift + 40) == {f"{decoding.OUTSIDE} {shift} to {shift + 40}": values.size}
