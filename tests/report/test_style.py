"""Colours that people tell apart, whatever their eyes and the paper."""

import itertools

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, xyz2lab

from radprobe.report import style, templating

# Dichromats as Machado, Oliveira and Fernandes 2009 simulate them (severity 1.0), on linear RGB.
EYES = {
    "all cones": np.eye(3),
    "no L cones": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no M cones": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no S cones": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
PAPERS = {"light": (style.PAPER, style.INK, style.ACCENT), "dark": ("#15171c", "#e8eaee", style.ACCENT_DARK)}
SHADE = 0.28  # of the accent in the best cell of the map


def rgb(colour):
    return np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])


def linear(values):
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(values, eyes):
    return xyz2lab(np.clip(np.array(TO_XYZ) @ (np.array(EYES[eyes]) @ linear(values)), 0, 1))


def contrast(one, other):
    """The ratio of WCAG: 3 is asked of signs, 4.5 of text."""
    light = [0.05 + linear(each) @ [0.2126, 0.7152, 0.0722] for each in (one, other)]
    return max(light) / min(light)


@pytest.mark.parametrize("eyes", EYES)
def test_families_are_told_apart(eyes):
    for one, other in itertools.combinations(style.FAMILIES, 2):
        distance = deltaE_ciede2000(*(lab(rgb(style.FAMILIES[each]), eyes) for each in (one, other)))
        assert distance > 10, (one, other)  # 1 is just noticeable


@pytest.mark.parametrize("paper", PAPERS)
def test_the_shade_of_the_map_is_seen_by_all_and_hides_no_number(paper):
    blank, ink, accent = map(rgb, PAPERS[paper])
    shaded = SHADE * accent + (1 - SHADE) * blank
    assert contrast(ink, shaded) > 4.5
    assert contrast(accent, shaded) > 3  # the star of the best
    for eyes in EYES:
        assert abs(lab(shaded, eyes)[0] - lab(blank, eyes)[0]) > 10, eyes  # lightness alone tells it
    css = templating.source("style.css")
    assert f"calc(var(--shade) * {SHADE:.0%})" in css
    assert all(each.lower() in css for each in PAPERS["dark"][:2])
