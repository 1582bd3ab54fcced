import numpy as np
import pandas as pd
import pytest

from radprobe.catalog import MinMax, Percentiles, Window
from radprobe.imaging.intensity import ranges

IMAGES = np.random.default_rng(0).integers(-1000, 2000, (7, 12, 9)).astype(np.int16)
CASES = pd.Series(["a", "a", "a", "b", "c", "c", "c"])


def test_a_window_is_the_same_for_every_image():
    found = ranges(IMAGES, CASES, Window(kind="window", low=-160, high=240))
    assert found.shape == (7, 2)
    assert (found == [-160, 240]).all()


def test_extremes_are_left_to_the_device():
    assert ranges(IMAGES, CASES, MinMax()) is None


@pytest.mark.parametrize("of", ["slice", "volume"])
def test_percentiles_are_those_of_the_slice_or_of_its_volume(of):
    found = ranges(IMAGES, CASES, Percentiles(kind="percentiles", low=5, high=95, of=of))
    for row, case in enumerate(CASES):
        pixels = IMAGES[row] if of == "slice" else IMAGES[CASES.eq(case).to_numpy()]
        np.testing.assert_allclose(found[row], np.percentile(pixels, [5, 95]), rtol=1e-6)
