import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import tiny
from safetensors.torch import save_file
from torch.testing import assert_close

from radprobe import catalog
from radprobe.files import RadprobeError
from radprobe.models import backbones, weights
from radprobe.study import Study

VIT = catalog.backbones()["test_vit"]


def encoder(entry=VIT, size=160, blocks=4, seed=0):
    return tiny.encoder(entry, size, blocks, seed)


def plain(images, entry):
    """The recipe in NumPy: min-max, three channels, the backbone's mean and standard deviation."""
    x = images.numpy().astype(np.float64)
    low, high = x.min((1, 2), keepdims=True), x.max((1, 2), keepdims=True)
    x = np.repeat(((x - low) / (high - low))[:, None], 3, 1)
    mean, std = (np.array(values).reshape(1, 3, 1, 1) for values in (entry.mean, entry.std))
    return torch.from_numpy((x - mean) / std).float()


@torch.no_grad()
def check(enc, model, images):
    """Compare the input with what NumPy makes of it, and the features with those of a plain model of timm."""
    features, given = enc(images), enc.normalise(images)
    assert_close(given, plain(images, enc.recipe), atol=1e-5, rtol=1e-5)
    if enc.recipe.pool == "library":
        assert_close(features.cls[:, 0], model(given), atol=1e-5, rtol=1e-5)
        return
    found = model.forward_intermediates(given, enc.vectors[0] * -1, return_prefix_tokens=True, norm=True)[1]
    for number, (_, prefix) in enumerate(found):
        assert_close(features.cls[:, number], prefix[:, 0], atol=1e-5, rtol=1e-5)
    map_ = found[-1][0]
    assert_close(features.patch_mean, map_.mean((2, 3)), atol=1e-5, rtol=1e-5)
    assert_close(features.dense[0], map_, atol=1e-5, rtol=1e-5)


def test_stored_pixels_are_encoded_as_plain_timm_encodes_normalised_images():
    enc = encoder(size=192)
    model = timm.create_model(VIT.name, num_classes=0, img_size=192).eval()
    model.load_state_dict(enc.tower.model.state_dict())
    check(enc, model, tiny.pixels(side=192))


def test_random_twins_depend_on_their_seed_only(tmp_path):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one, same, other = encoder(seed=3), encoder(seed=3), encoder(seed=4)
    assert torch.equal(torch.rand(3), expected)  # the global generator was left alone
    assert torch.equal(one(tiny.pixels()).cls, same(tiny.pixels()).cls)
    assert not torch.allclose(one(tiny.pixels()).cls, other(tiny.pixels()).cls)
    save_file(other.tower.model.state_dict(), tmp_path / "w.safetensors")
    entry = VIT.model_copy(update={"random": False})
    found = weights.obtain("x", entry, tmp_path / "w.safetensors", tmp_path, "", 3, False)
    loaded = tiny.encoder(entry, 160, 4, weights=found)
    assert torch.equal(loaded(tiny.pixels()).cls, other(tiny.pixels()).cls)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.bool, torch.int64])
def test_one_changed_number_of_a_frozen_network_is_seen(kind):
    enc = encoder()
    enc.register_buffer("odd", torch.ones(3, 3).to(kind))
    with pytest.raises(RadprobeError, match="odd changed while it was frozen"), backbones.held(enc):
        enc.odd.data[2, 1] = 0


def test_statistics_of_a_frozen_network_must_stay_and_those_of_one_that_is_trained_may_move(tmp_path):
    images = torch.rand(2, 3, 64, 64)
    for frozen in (True, False):
        enc = tiny.encoder(tiny.STAGES["resnet"], 64, frozen=frozen)
        norm = next(each for each in enc.modules() if getattr(each, "running_mean", None) is not None)
        shard = tmp_path / "00000.json"
        shard.write_text("{}")
        refused = pytest.raises(RadprobeError, match="running_mean changed while it was frozen")
        with refused if frozen else nullcontext(), backbones.held(enc, made=[shard]):
            args = norm.running_mean, norm.running_var
            torch.nn.functional.batch_norm(torch.rand(2, len(args[0]), 4, 4), *args, training=True)
            enc(images[:, 0])
        assert shard.exists() is not frozen


@given(level=st.integers(-1024, 3000), side=st.sampled_from([64, 160, 200]))
@settings(max_examples=15, deadline=None)
def test_d11_a_constant_image_is_black_and_never_nan(level, side):
    enc = ENCODER
    constant = torch.full((1, side, side), level, dtype=torch.int16)
    assert_close(enc.normalise(constant), enc.normalise(torch.zeros((1, 160, 160))))


ENCODER = encoder()


@given(scale=st.integers(1, 8), shift=st.integers(-1000, 1000))
@settings(max_examples=15, deadline=None)
def test_only_relative_intensity_matters(scale, shift):
    images = tiny.pixels(1, 200).to(torch.int16)
    assert_close(ENCODER.normalise(images * scale + shift), ENCODER.normalise(images), atol=1e-5, rtol=0)


def test_a_range_of_grey_values_is_cut_and_becomes_0_to_1():
    images = torch.tensor([[-2000, -1024, -212, 600, 3000]], dtype=torch.int16).repeat(2, 5, 1)
    images[1] = images[1] // 2
    ranges = torch.tensor([[-1024.0, 600.0], [-512.0, 300.0]])
    found = ENCODER.normalise(images, ranges) * ENCODER.std + ENCODER.mean
    expected = torch.tensor([0, 0, 0.5, 1, 1]).expand(2, 1, 5, 5)
    resized = torch.nn.functional.interpolate(expected, (160, 160), mode="bilinear", antialias=True)
    assert_close(found, resized.expand(2, 3, 160, 160), atol=1e-5, rtol=0)
    assert_close(ENCODER.normalise(images[:1], torch.tensor([[5.0, 5.0]])), ENCODER.normalise(torch.zeros(1, 5, 5)))


def test_a_sample_does_not_depend_on_its_batch():
    images = tiny.pixels(5)
    assert_close(ENCODER(images).cls[3], ENCODER(images[3:4]).cls[0], atol=1e-5, rtol=1e-5)


MOBILENET = {
    "architecture": {"name": "mobilenetv2_100"},
    "recipe": {**VIT.model_dump(include={"mean", "std"}), "patch": None, "native_size": 224, "pool": "library"},
}
DERIVED = {"like": "vit_small_patch14_dinov2", "derived": "fp16, from another package"}
REAL = {
    "tf_efficientnet_lite0.in1k": {"like": "tf_efficientnet_lite0"},
    "mobilenetv2_100.tv_in1k": MOBILENET,
    "vit_small_patch14_dinov2.derived_fp16": DERIVED,
}


@pytest.mark.real
@pytest.mark.skipif(not os.environ.get("RADPROBE_REAL_WEIGHTS"), reason="RADPROBE_REAL_WEIGHTS is not set")
@pytest.mark.parametrize("size", [224, 448])
@pytest.mark.parametrize("name", REAL)
def test_real_weights_give_what_plain_timm_gives(tmp_path, name, size):
    path = Path(os.environ["RADPROBE_REAL_WEIGHTS"]) / f"{name}.safetensors"
    own = {"mine": {"title": name, "file": str(path), **REAL[name]}}
    study = Study({"study": "s", "datasets": {"montgomery": {}}, "backbones": ["mine"], "own_backbones": own})
    entry = study.backbone("mine").model_copy(update={"positions": "library"})  # timm's rule, to compare with timm
    found = weights.obtain("mine", entry, study.weights_file("mine"), tmp_path, "", 0, False)
    enc = tiny.encoder(entry, size, 4, weights=found)
    options = {"dynamic_img_size": True} if entry.patch else {}  # img_size would resize positions in half precision
    overlay = {"file": path}
    model = timm.create_model(entry.name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay, **options)
    check(enc, model.eval(), tiny.pixels(side=size))


@pytest.mark.real
@pytest.mark.skipif(not os.environ.get("RADPROBE_REAL_WEIGHTS"), reason="RADPROBE_REAL_WEIGHTS is not set")
@torch.no_grad()
def test_the_official_position_rule_changes_real_features(tmp_path):
    path = Path(os.environ["RADPROBE_REAL_WEIGHTS"]) / "vit_small_patch14_dinov2.derived_fp16.safetensors"
    entry = catalog.backbones()["vit_small_patch14_dinov2"]
    found = weights.obtain("x", entry, path, tmp_path, "", 0, False)
    official, timms = (
        tiny.encoder(entry.model_copy(update={"positions": rule}), 224, 1, weights=found)(tiny.pixels()).cls
        for rule in ("dinov2", "library")
    )
    assert not torch.allclose(official, timms, atol=1e-3)
