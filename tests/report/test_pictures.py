import base64
import io

import numpy as np
from PIL import Image

from radprobe.report import pictures, style


def test_the_components_paint_what_varies_most():
    generator = np.random.default_rng(0)
    halves = np.where(np.arange(8) < 4, 5.0, -5.0)
    dense = np.zeros((2, 6, 8, 8))
    dense[:, 2] = halves[None, None]  # left against right, in channel 2
    dense += generator.normal(0, 0.1, dense.shape)
    first, second = pictures.components(dense)
    assert first.shape == second.shape == (8, 8, 3)
    assert (first[:, :4, 0] > 200).all()  # the sign is such that the largest loading is positive
    assert (first[:, 4:, 0] < 55).all()
    large = pictures.enlarged(first, (80, 40))
    assert large.shape == (40, 80, 3)
    assert (large[::5, ::10] == first).all()


def test_contours_run_where_truth_and_prediction_end():
    image = np.zeros((224, 224), np.uint8)
    truth, prediction = np.zeros((2, 224, 224), np.uint8)
    truth[50:100, 50:100] = 1
    prediction[50:100, 60:100] = 1
    picture = pictures.overlay(image, truth, prediction, (224, 224))
    assert tuple(picture[75, 50]) == style.TRUTH
    assert tuple(picture[75, 60]) == style.PREDICTION
    assert tuple(picture[75, 99]) == style.BOTH
    assert not picture[70:80, 70:90].any()


def test_a_constant_native_image_is_drawn_without_a_warning():
    assert pictures.grey(np.full((10, 10), 700, np.int16), (20, 20)).shape == (20, 20, 3)


def test_a_uri_is_a_png_of_that_size():
    uri = pictures.uri(np.zeros((30, 40, 3), np.uint8))
    image = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
    assert (image.format, image.size) == ("PNG", (40, 30))
