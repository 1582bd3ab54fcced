import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate
from torch.testing import assert_close

from radprobe.artifacts import Shards
from radprobe.files import RadprobeError
from radprobe.learning import decoders

CPU = torch.device("cpu")
RATES = [0.001, 0.01, 0.1]


def maps(n=12, channels=6, grid=8, size=30, seed=0, scale=1.0):
    """Blobs whose dense features say where they are, and label maps of 0, 1, 2."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.integers(0, 3, (n, 2, 2)), np.ones((grid // 2, grid // 2), int))
    where = (np.arange(size) * grid) // size
    masks = coarse[:, where][:, :, where].astype(np.uint8)
    dense = rng.normal(size=(n, channels, grid, grid))
    for label in range(3):
        dense[:, label] += 3 * (coarse == label)
    dense = (dense * scale).astype(np.float16)
    return decoders.Maps(Shards([dense[:5], dense[5:]]), masks, np.arange(n), np.arange(n), CPU)


@given(n=st.integers(2, 9), m=st.integers(2, 9), height=st.integers(2, 40), width=st.integers(2, 40))
@settings(max_examples=30, deadline=None)
def test_upsampling_is_torchs_bilinear_and_its_transpose_the_adjoint(n, m, height, width):
    g = torch.Generator().manual_seed(n * m)
    z, full = torch.randn((2, n, m), generator=g), torch.randn((2, height, width), generator=g)
    up = decoders.Upsampling((n, m), (height, width), CPU)
    expected = interpolate(z[None], (height, width), mode="bilinear", align_corners=False)[0]
    assert_close(up(z), expected, atol=1e-5, rtol=1e-5)
    assert_close((up(z) * full).sum(), (z * up.transpose(full)).sum(), atol=1e-3, rtol=1e-4)


def test_dice_and_its_gradient_are_monais():
    from monai.losses import DiceLoss

    g = torch.Generator().manual_seed(0)
    heads, classes, n = 2, 3, 4
    z = torch.randn((n, heads * classes, 6, 7), generator=g)
    labels = torch.randint(0, classes, (n, 24, 31), generator=g)
    labels[0] = 0  # classes that are absent, too
    up = decoders.Upsampling((6, 7), (24, 31), CPU)
    losses, slope = decoders.dice_slope(z, labels, heads, up)
    leaf, monai = z.clone().requires_grad_(), DiceLoss(softmax=True, to_onehot_y=True)
    full = interpolate(leaf, (24, 31), mode="bilinear", align_corners=False).chunk(heads, 1)
    expected = torch.stack([monai(each, labels[:, None]) for each in full])
    expected.sum().backward()
    assert_close(losses, expected.detach(), atol=1e-6, rtol=1e-5)
    assert_close(slope, leaf.grad, atol=1e-8, rtol=1e-4)


def alone(data, rate, epochs, batch_size, seed):
    """One 1x1 convolution trained by torch.optim.Adam, autograd and MONAI's loss."""
    from monai.losses import DiceLoss

    every = np.arange(len(data))
    x = data.features(every)
    x = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), correction=0, keepdim=True)
    g = torch.Generator().manual_seed(seed)
    layer, loss = torch.nn.Conv2d(x.shape[1], 3, 1), DiceLoss(softmax=True, to_onehot_y=True)
    with torch.no_grad():
        layer.weight.copy_((torch.randn((3, x.shape[1]), generator=g) * 0.01)[:, :, None, None])
        layer.bias.zero_()
    adam = torch.optim.Adam(layer.parameters(), lr=rate)
    for _ in range(epochs):
        for batch in torch.randperm(len(data), generator=g).split(batch_size):
            adam.zero_grad()
            logits = interpolate(layer(x[batch]), data.masks.shape[1:], mode="bilinear", align_corners=False)
            loss(logits, data.labels(batch.numpy())[:, None]).backward()
            adam.step()
    return layer


def test_decoders_trained_together_are_decoders_trained_alone():
    data = maps()
    for found in decoders.fit(data, 3, RATES, 3, 5, seed=2):
        layer = alone(data, found.learning_rate, 3, 5, seed=2)
        assert_close(found.weight, layer.weight.detach()[:, :, 0, 0], atol=1e-5, rtol=1e-4)
        assert_close(found.bias, layer.bias.detach(), atol=1e-5, rtol=1e-4)


def test_the_number_of_threads_changes_no_bit():
    found, before = [], torch.get_num_threads()
    try:
        for n in (1, 2, 2):
            torch.set_num_threads(n)
            found.append(decoders.fit(maps(), 3, RATES, 2, 5, 0))
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(a.weight, b.weight) for a, b in zip(found[0], others, strict=True))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_it_learns_whatever_the_scale_of_the_features(scale):
    data = maps(n=16, scale=scale)
    (decoder,) = decoders.fit(data, 3, [0.1], 15, 4, 0)
    assert decoders.mean_dsc(decoder, data, 3) > 0.75  # a third is chance; the noise leaves no more than about 0.82


def test_mean_dsc_is_the_plain_definition():
    data = maps(n=4)
    data.masks[0] = 0  # nothing there: undefined where nothing is found
    data.masks[1] = 2
    (decoder,) = decoders.fit(data, 3, [0.1], 5, 4, 0)
    by_class = []
    for label in (1, 2):
        cases = []
        for i in range(4):
            found = decoder.logits(data.features([i]), (30, 30))[0].argmax(0).numpy() == label
            truth = data.masks[i] == label
            if found.any() or truth.any():
                cases.append(2 * (found & truth).sum() / (found.sum() + truth.sum()))
        by_class.append(np.mean(cases))
    np.testing.assert_allclose(decoders.mean_dsc(decoder, data, 3), np.mean(by_class))


def test_the_slices_of_a_volume_are_one_case():
    data = maps(n=6)
    volumes = dataclasses.replace(data, cases=np.array(["a", "a", "a", "b", "b", "c"]))
    (decoder,) = decoders.fit(data, 3, [0.1], 5, 4, 0)
    found = np.stack([decoder.logits(data.features([i]), (30, 30))[0].argmax(0).numpy() for i in range(6)])
    values = [
        [
            2
            * ((found[rows] == label) & (data.masks[rows] == label)).sum()
            / ((found[rows] == label).sum() + (data.masks[rows] == label).sum())
            for rows in ([0, 1, 2], [3, 4], [5])
        ]
        for label in (1, 2)
    ]
    np.testing.assert_allclose(decoders.mean_dsc(decoder, volumes, 3), np.nanmean(np.nanmean(values, axis=1)))


def test_logits_that_are_not_finite_stop_it_with_the_step_named():
    with pytest.raises(RadprobeError, match=r"epoch 1, step 3, learning rate 3e\+37"):
        decoders.fit(maps(), 3, [0.001, 3e37], 2, 5, 0)
