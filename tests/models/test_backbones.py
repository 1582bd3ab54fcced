import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.testing import assert_close

from radprobe import catalog
from radprobe.artifacts import Weights
from radprobe.models import backbones, weights

VIT = catalog.backbones()["test_vit"]
CNN = catalog.backbones()["tf_efficientnet_lite0"].model_copy(update={"name": "test_efficientnet.r160_in1k"})


def random_weights(seed=0):
    return Weights(None, None, "random", {"seed": seed})


def encoder(entry=VIT, size=160, blocks=4, seed=0):
    return backbones.build(entry, random_weights(seed), size, blocks, True)


def pixels(n=2, side=160, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, side, side), np.uint8))


def plain(images, entry):
    """The recipe in NumPy: min-max, three channels, the backbone's mean and standard deviation."""
    x = images.numpy().astype(np.float64)
    low, high = x.min((1, 2), keepdims=True), x.max((1, 2), keepdims=True)
    x = np.repeat(((x - low) / (high - low))[:, None], 3, 1)
    mean, std = (np.array(values).reshape(1, 3, 1, 1) for values in (entry.mean, entry.std))
    return torch.from_numpy((x - mean) / std).float()


def check_vit(enc, model, entry, images, atol=1e-5):
    features = enc(images)
    with torch.no_grad():
        tokens = model.forward_features(plain(images, entry))
    n = model.num_prefix_tokens
    assert_close(features.cls[:, -1], tokens[:, 0], atol=atol, rtol=1e-5)
    assert_close(features.patch_mean, tokens[:, n:].mean(1), atol=atol, rtol=1e-5)
    assert_close(features.dense.flatten(2).transpose(1, 2), tokens[:, n:], atol=atol, rtol=1e-5)
    for block in range(1, enc.blocks + 1):  # an earlier block, by cutting the later ones off
        cut = torch.nn.Sequential(*model.blocks[: len(model.blocks) - block + 1])
        with torch.no_grad():
            earlier = model.norm(cut(model.norm_pre(model._pos_embed(model.patch_embed(plain(images, entry))))))
        assert_close(features.cls[:, -block], earlier[:, 0], atol=atol, rtol=1e-5)


def test_vit_features_are_those_of_plain_timm():
    enc = encoder(size=192)
    model = timm.create_model(VIT.name, num_classes=0, dynamic_img_size=True).eval()
    model.load_state_dict(enc.model.state_dict())
    check_vit(enc, model, VIT, pixels(side=192))


def test_cnn_features_are_those_of_plain_timm():
    enc = encoder(CNN)
    model = timm.create_model(CNN.name, num_classes=0).eval()
    model.load_state_dict(enc.model.state_dict())
    images, stages = pixels(), {}
    for number, block in enumerate(model.blocks):
        block.register_forward_hook(lambda _, __, out, number=number: stages.update({number: out}))
    with torch.no_grad():
        pooled = model(plain(images, CNN))
    features = enc(images)
    assert features.patch_mean is None
    assert features.cls.shape == (2, 1, enc.dim)
    assert_close(features.cls[:, 0], pooled, atol=1e-5, rtol=1e-5)
    assert features.dense.shape == (2, 48, 10, 10)  # stride 16
    assert any(
        out.shape == features.dense.shape and torch.allclose(out, features.dense, atol=1e-5) for out in stages.values()
    )


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_grid_lies_as_the_image_does(row, column):
    images = torch.zeros((1, 160, 160), dtype=torch.uint8)
    images[:, row * 80 : row * 80 + 80, column * 80 : column * 80 + 80] = 255
    for enc in (encoder(), encoder(CNN)):
        dense = enc(images).dense[0]
        half = dense.shape[1] // 2
        far = dense[:, (1 - row) * (dense.shape[1] - 1), (1 - column) * (dense.shape[2] - 1)]
        contrast = (dense - far[:, None, None]).norm(dim=0).unfold(0, half, half).unfold(1, half, half).mean((2, 3))
        assert contrast.argmax() == row * 2 + column


def test_prefix_tokens_never_enter_the_grid():
    model = timm.create_model("test_vit", num_classes=0, dynamic_img_size=True, reg_tokens=4)
    enc = backbones.Encoder(model, VIT, 160, 2, True)
    features = enc(pixels())
    assert features.dense.shape[2:] == (10, 10)
    check_vit(enc, model, VIT, pixels())
    with torch.no_grad():
        model.reg_token += 1
    assert not torch.allclose(enc(pixels()).cls, features.cls)  # the registers are really there


@pytest.mark.parametrize("entry", [VIT, CNN])
def test_frozen_means_no_gradient_and_no_change(entry):
    enc = encoder(entry)
    before = {name: tensor.clone() for name, tensor in enc.state_dict().items()}
    features = enc(pixels())
    assert not features.cls.requires_grad
    assert not any(parameter.requires_grad for parameter in enc.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in enc.state_dict().items())


def test_random_twins_depend_on_their_seed_only(tmp_path):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one, same, other = encoder(seed=3), encoder(seed=3), encoder(seed=4)
    assert torch.equal(torch.rand(3), expected)  # the global generator was left alone
    assert torch.equal(one(pixels()).cls, same(pixels()).cls)
    assert not torch.allclose(one(pixels()).cls, other(pixels()).cls)
    save_file(other.model.state_dict(), tmp_path / "w.safetensors")
    entry = VIT.model_copy(update={"random": False})
    found = weights.obtain("x", entry, tmp_path / "w.safetensors", tmp_path, tmp_path, 3, False)
    loaded = backbones.build(entry, found, 160, 4, True)
    assert torch.equal(loaded(pixels()).cls, other(pixels()).cls)


@given(level=st.integers(-1024, 3000), side=st.sampled_from([64, 160, 200]))
@settings(max_examples=15, deadline=None)
def test_a_constant_image_is_black_and_never_nan(level, side):
    enc = ENCODER
    constant = torch.full((1, side, side), level, dtype=torch.int16)
    assert_close(enc.normalise(constant), enc.normalise(torch.zeros((1, 160, 160))))


ENCODER = encoder()


@given(scale=st.integers(1, 8), shift=st.integers(-1000, 1000))
@settings(max_examples=15, deadline=None)
def test_only_relative_intensity_matters(scale, shift):
    images = pixels(1, 200).to(torch.int16)
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
    images = pixels(5)
    assert_close(ENCODER(images).cls[3], ENCODER(images[3:4]).cls[0], atol=1e-5, rtol=1e-5)


@pytest.mark.real
@pytest.mark.skipif(not os.environ.get("RADPROBE_REAL_WEIGHTS"), reason="RADPROBE_REAL_WEIGHTS is not set")
@pytest.mark.parametrize(
    ("name", "file", "size"),
    [
        ("vit_small_patch14_dinov2", "vit_small_patch14_dinov2.derived_fp16.safetensors", 224),
        ("tf_efficientnet_lite0", "tf_efficientnet_lite0.in1k.safetensors", 224),
    ],
)
def test_real_weights_give_what_plain_timm_gives(tmp_path, name, file, size):
    entry = catalog.backbones()[name]
    path = Path(os.environ["RADPROBE_REAL_WEIGHTS"]) / file
    found = weights.obtain(name, entry, path, tmp_path, tmp_path, 0, False)
    enc = backbones.build(entry, found, size, 4, True)
    options = {"dynamic_img_size": True} if entry.patch else {}
    model = timm.create_model(
        entry.name, pretrained=True, num_classes=0, pretrained_cfg_overlay={"file": path}, **options
    )
    images = pixels(side=size)
    if entry.patch:
        check_vit(enc, model.eval(), entry, images, atol=5e-5)  # float32 noise of values up to 10
    else:
        with torch.no_grad():
            assert_close(enc(images).cls[:, 0], model.eval()(plain(images, entry)), atol=1e-5, rtol=1e-5)
