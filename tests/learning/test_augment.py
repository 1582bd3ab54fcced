import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from radprobe.learning.augment import Views, moved


def images(n=3, side=12, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 5, (n, side, side)).astype(np.uint8))


def matrix(rows, n=3):
    return torch.tensor(rows, dtype=torch.float32).expand(n, 2, 3)


EXACT = {
    "nothing": ([[1, 0, 0], [0, 1, 0]], lambda x: x),
    "sideways": ([[-1, 0, 0], [0, 1, 0]], lambda x: np.flip(x, 2)),
    "upside down": ([[1, 0, 0], [0, -1, 0]], lambda x: np.flip(x, 1)),
    "a quarter": ([[0, -1, 0], [1, 0, 0]], lambda x: np.rot90(x, 1, (1, 2))),
    "three quarters": ([[0, 1, 0], [-1, 0, 0]], lambda x: np.rot90(x, -1, (1, 2))),
}


@pytest.mark.parametrize("which", EXACT)
@pytest.mark.parametrize("nearest", [True, False])
def test_flips_and_quarter_turns_are_exact(which, nearest):
    rows, expected = EXACT[which]
    found = moved(images(), matrix(rows), nearest)
    np.testing.assert_allclose(found, expected(images().numpy()), atol=1e-5)
    assert found.dtype == (torch.uint8 if nearest else torch.float32)


@given(kind=st.sampled_from(["crop", "turn"]), seed=st.integers(0, 99), view=st.integers(1, 50))
@example(kind="turn", seed=33, view=2)
@settings(max_examples=25, deadline=None)
def test_image_and_mask_move_together(kind, seed, view):
    """Where the moved image of a label alone is that label whole, the moved mask has it: edges are interpolated."""
    labels = torch.kron(images(3, 4, seed), torch.ones((8, 8), dtype=torch.uint8))
    matrices = Views(kind, 3, seed, None).matrices([0, 1, 2], view)
    mask = moved(labels, matrices, nearest=True)
    assert set(np.unique(mask)) <= {0, *np.unique(labels)}
    seen = torch.zeros(mask.shape, dtype=torch.bool)
    for label in np.unique(labels):
        whole = moved((labels == int(label)).to(torch.uint8), matrices, nearest=False) > 0.999
        assert (mask[whole] == int(label)).all()
        seen |= whole
    assert seen.float().mean() > 0.3


def test_a_view_is_the_same_whoever_asks_and_views_differ():
    views = Views("turn", 10, 1, 3)
    assert torch.equal(views.matrices([2, 7], 2), Views("turn", 10, 1, 3).matrices(np.arange(10), 2)[[2, 7]])
    assert not torch.equal(views.matrices([2], 1), views.matrices([2], 2))
    assert not torch.equal(views.matrices([2], 1), Views("turn", 10, 2, 3).matrices([2], 1))


def test_epochs_go_round_the_stored_views_or_take_a_new_one_each():
    assert [Views("turn", 4, 0, 2).of_epoch(epoch) for epoch in range(5)] == [0, 1, 2, 0, 1]
    assert [Views("turn", 4, 0, 0).of_epoch(epoch) for epoch in range(3)] == [0, 0, 0]
    assert [Views("turn", 4, 0, None).of_epoch(epoch) for epoch in range(3)] == [1, 2, 3]


def test_turns_flip_both_ways_and_turn_up_to_a_right_angle():
    drawn = Views("turn", 4000, 0, None).matrices(range(4000), 1).numpy()
    turn, move = drawn[:, :, :2], drawn[:, :, 2]
    np.testing.assert_allclose(turn @ turn.transpose(0, 2, 1), np.tile(np.eye(2), (4000, 1, 1)), atol=1e-5)
    assert (move == 0).all()
    sideways, upside = np.sign(turn[:, 0, 0]), np.sign(turn[:, 1, 1])  # the cosine of an angle under 90 is positive
    for first in (-1, 1):
        for second in (-1, 1):
            assert 0.22 < ((sideways == first) & (upside == second)).mean() < 0.28
    angle = np.degrees(np.arctan2(turn[:, 1, 0] * upside, turn[:, 1, 1] * upside))
    assert (angle >= -90).all()
    assert (angle <= 90).all()
    assert angle.min() < -85
    assert angle.max() > 85


def test_crops_stay_inside_and_have_the_studys_size():
    drawn = Views("crop", 4000, 0, None).matrices(range(4000), 1).numpy()
    width, height = np.abs(drawn[:, 0, 0]), drawn[:, 1, 1]
    assert (np.abs(drawn[:, 0, 2]) + width <= 1 + 1e-6).all()
    assert (np.abs(drawn[:, 1, 2]) + height <= 1 + 1e-6).all()
    assert (width * height).min() > 0.64  # 0.75, but where one side was cut at the image's
    assert (width * height).max() <= 1
    assert 0.45 < (drawn[:, 0, 0] < 0).mean() < 0.55
    assert (drawn[:, [0, 1], [1, 0]] == 0).all()


def test_outside_of_an_image_lies_its_least_value():
    image = torch.full((1, 9, 9), 7.0)
    image[0, 4, 4] = -3
    angle = np.radians(45)
    rows = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]]
    assert moved(image, matrix(rows, 1), False)[0, 0, 0] == -3
    assert moved(torch.ones((1, 9, 9), dtype=torch.uint8), matrix(rows, 1), True)[0, 0, 0] == 0
