"""What the gate takes for copies: generated films here, real ones where they are at hand."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from radprobe.splitting import duplicates

BENCHMARK = Path(__file__).parents[2] / "benchmarks/near_duplicates.py"
REAL = pytest.mark.skipif(not os.environ.get("RADPROBE_REAL_DATA"), reason="RADPROBE_REAL_DATA is not set")


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("near_duplicates", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scenes():
    """Smooth random pictures over a common shape, as alike as films of several people: uint8 [150, 256, 256]."""
    draw = torch.Generator().manual_seed(0)
    x = torch.linspace(-1, 1, 256)
    grey = 60 + 120 * torch.exp(-3 * (x[None] ** 2 + x[:, None] ** 2)).expand(150, 1, 256, 256)
    for side, amplitude in ((8, 25), (24, 15), (64, 8)):
        waves = torch.randn((150, 1, side, side), generator=draw)
        grey = grey + amplitude * interpolate(waves, 256, mode="bicubic")
    return grey.clamp(0, 255).to(torch.uint8)[:, 0].numpy()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_thumbnails_do_not_see_brightness_and_contrast(scenes, dtype):
    images = scenes[:4].astype(dtype)
    changed = (images * 0.5 + 20).astype(dtype)
    a, b = duplicates.thumbnails(images).float(), duplicates.thumbnails(changed).float()
    assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] > 0.99


@pytest.mark.parametrize("shape", [(64, 64), (96, 80), (300, 256), (40, 50)])
def test_thumbnails_have_their_size_whatever_the_picture_s(shape):
    image = np.random.default_rng(0).integers(0, 255, (2, *shape), dtype=np.uint8)
    assert duplicates.thumbnails(image).shape == (2, 64, 64)


def test_a_flat_picture_has_no_structure():
    images = np.stack([np.full((64, 64), 7, np.uint8), np.eye(64, dtype=np.uint8) * 200])
    images[1] += np.random.default_rng(0).integers(0, 50, (64, 64), dtype=np.uint8)
    assert duplicates.structured(duplicates.thumbnails(images)).tolist() == [False, True]


@pytest.mark.parametrize("motion", [[0.03, 0, 0, 0], [0, 0.04, 0, -0.03], [-0.02, 0.02, 0.04, 0.04]])
def test_registration_finds_how_a_picture_was_moved(scenes, motion):
    moving = duplicates.thumbnails(scenes[:10], 128)
    fixed = duplicates._warp(moving.float(), torch.tensor([motion] * 10)).round().to(torch.int8)
    found = torch.zeros(10, 4)
    for side in duplicates.LEVELS:
        correlation, found = duplicates.confirm(fixed, moving, found, side)
    assert correlation.min() > 0.97
    assert (found - torch.tensor(motion)).abs().max() < 0.01


def test_copies_of_every_kind_are_found_and_nothing_else(benchmark, scenes):
    kinds = [kind for kind in benchmark.KINDS if kind != "16 grey levels"]  # found for most only, and said so
    rng = np.random.default_rng(1)
    copies = [benchmark.KINDS[kind](image, rng) for kind, image in zip(kinds, scenes, strict=False)]
    images = np.concatenate([scenes[:130], copies])
    part = np.array(["train"] * 100 + ["val"] * 30 + ["test"] * len(kinds))
    thumbs = duplicates.thumbnails(images)
    pairs = duplicates.candidates(thumbs, part, np.ones(len(images), bool))
    pairs = duplicates.confirmed(pairs, thumbs, images, np.arange(len(images)))
    found = {(min(a, b), max(a, b)) for a, b in zip(pairs.a.tolist(), pairs.b.tolist(), strict=True)}
    assert found == {(row, 130 + row) for row in range(len(kinds))}
    mirrored = kinds.index("mirrored, JPEG 60")
    assert {row for row, flag in zip(pairs.a.tolist(), pairs.mirrored.tolist(), strict=True) if flag} == {mirrored}


def test_few_pictures_are_searched_too(scenes):
    images = np.stack([scenes[0], scenes[1], scenes[2], scenes[0] // 2 + 30])
    part = np.array(["train", "train", "val", "test"])
    thumbs = duplicates.thumbnails(images)
    pairs = duplicates.candidates(thumbs, part, np.ones(4, bool))
    pairs = duplicates.confirmed(pairs, thumbs, images, np.arange(4))
    assert sorted(zip(pairs.a.tolist(), pairs.b.tolist(), strict=True)) == [(0, 3)]


@pytest.mark.parametrize("usable", [0, 1, 2])
def test_nothing_to_compare_is_no_error(scenes, usable):
    thumbs = duplicates.thumbnails(scenes[:3])
    pairs = duplicates.candidates(thumbs, np.array(["train", "val", "test"]), np.arange(3) < usable)
    assert len(duplicates.confirmed(pairs, thumbs, scenes[:3], np.arange(3))) == 0


@pytest.mark.parametrize("size", [5, 60, 150])
def test_the_answer_for_a_pair_does_not_hang_on_the_size_of_the_set(benchmark, scenes, size):
    rng = np.random.default_rng(2)
    images = np.concatenate([scenes[:size], [benchmark.several(image, rng) for image in scenes[:3]]])
    part = np.array(["train"] * size + ["test"] * 3)
    thumbs = duplicates.thumbnails(images)
    pairs = duplicates.candidates(thumbs, part, np.ones(len(images), bool))
    pairs = duplicates.confirmed(pairs, thumbs, images, np.arange(len(images)))
    assert sorted(zip(pairs.a.tolist(), pairs.b.tolist(), strict=True)) == [(row, size + row) for row in range(3)]


@pytest.fixture(scope="module")
def real_sets(benchmark):
    return {name: (images, patients) for name, images, patients in benchmark.real_sets()}


@REAL
@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("name", ["nih_chestxray14", "montgomery", "msd_hippocampus"])
@pytest.mark.parametrize("kind", ["JPEG, quality 50", "half the size and back", "gamma 1.4", "cropped by up to 2 %"])
def test_copies_of_real_images_are_found_and_nothing_else(benchmark, real_sets, name, kind):
    planted, hits, other, _ = benchmark.found(*real_sets[name], kind, seed=1)
    assert hits >= 0.98 * planted
    assert other <= (name == "montgomery")  # a few films there look like one person under several ids
