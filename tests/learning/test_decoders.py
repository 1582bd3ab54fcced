import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate
from torch.testing import assert_close

from radprobe.files import RadprobeError
from radprobe.learning import decoders, loop
from radprobe.learning.augment import Views, moved
from radprobe.learning.maps import Maps, channel_statistics
from radprobe.models.decoders import PixelwiseLinear, UNet

CPU = torch.device("cpu")
RATES = [0.001, 0.01, 0.1]


class Stored:
    """Maps of one layer in memory, as `features.Cached` gives them."""

    def __init__(self, dense):
        self.dense, self.shapes = torch.from_numpy(dense), {-1: dense.shape[1:]}
        self.views, self.taken = Views("turn", len(dense), 0, 0), []

    def take(self, rows, layers, view=0):
        self.taken.append(rows)
        return [self.dense[rows] for _ in layers]


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
    return Maps(Stored(dense), (-1,), masks, np.arange(n), np.arange(n), CPU)


def fit(data, rates, epochs, batch_size, seed=0, loss="dice", kind=PixelwiseLinear, **more):
    """Fit one kind of decoder."""
    how = decoders.DecoderRecipe(batch_size, loss, loop.Schedule(epochs=epochs, seed=seed))
    statistics = data.statistics()
    return decoders.fit(lambda: kind(statistics, 3), data, 3, rates, how, **more)


@given(n=st.integers(2, 9), m=st.integers(2, 9), height=st.integers(2, 40), width=st.integers(2, 40))
@settings(max_examples=30, deadline=None)
def test_upsampling_is_torchs_bilinear_and_its_transpose_the_adjoint(n, m, height, width):
    g = torch.Generator().manual_seed(n * m)
    z, full = torch.randn((2, n, m), generator=g), torch.randn((2, height, width), generator=g)
    up = decoders.Upsampling((n, m), (height, width), CPU)
    expected = interpolate(z[None], (height, width), mode="bilinear", align_corners=False)[0]
    assert_close(up(z), expected, atol=1e-5, rtol=1e-5)
    assert_close((up(z) * full).sum(), (z * up.transpose(full)).sum(), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("cross_entropy", [False, True])
@pytest.mark.parametrize("grid", [(6, 7), (24, 31)])
def test_the_loss_and_its_gradient_are_monais(cross_entropy, grid):
    from monai.losses import DiceCELoss, DiceLoss

    g = torch.Generator().manual_seed(0)
    heads, classes, n = 2, 3, 4
    z = torch.randn((n, heads * classes, *grid), generator=g)
    labels = torch.randint(0, classes, (n, 24, 31), generator=g)
    labels[0] = 0  # classes that are absent, too
    leaf = z.clone().requires_grad_()
    loss = decoders.Loss(decoders.Upsampling(grid, (24, 31), CPU), cross_entropy)
    losses = loss(leaf, labels, heads)
    (slope,) = torch.autograd.grad((losses * torch.tensor([1.0, 3.0])).sum(), leaf)
    leaf = z.clone().requires_grad_()
    monai = (DiceCELoss if cross_entropy else DiceLoss)(softmax=True, to_onehot_y=True)
    full = interpolate(leaf, (24, 31), mode="bilinear", align_corners=False).chunk(heads, 1)
    expected = torch.stack([monai(each, labels[:, None]) for each in full])
    (expected * torch.tensor([1.0, 3.0])).sum().backward()
    assert_close(losses.detach(), expected.detach(), atol=1e-6, rtol=1e-5)
    assert_close(slope, leaf.grad, atol=1e-8, rtol=1e-4)


def alone(data, rate, epochs, batch_size, seed):
    """One 1x1 convolution trained by torch.optim.Adam, autograd and MONAI's loss, from the same weights."""
    from monai.losses import DiceLoss

    every, statistics = np.arange(len(data)), data.statistics()
    data.dense.taken.clear()
    fit(data, [rate], epochs, batch_size, seed)
    orders = data.dense.taken[-(-len(data) // 8) :]  # after the pass for the statistics
    x = data.features(every)[0]
    x = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), correction=0, keepdim=True)
    torch.manual_seed(seed)
    start = PixelwiseLinear(statistics, 3)
    layer, loss = torch.nn.Conv2d(x.shape[1], 3, 1), DiceLoss(softmax=True, to_onehot_y=True)
    with torch.no_grad():
        layer.weight.copy_(start.weight[:, :, None, None])
        layer.bias.zero_()
    adam = torch.optim.Adam(layer.parameters(), lr=rate)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, len(orders))
    for batch in orders:
        adam.zero_grad()
        logits = interpolate(layer(x[batch]), data.masks.shape[1:], mode="bilinear", align_corners=False)
        loss(logits, data.labels(batch)[:, None]).backward()
        adam.step()
        cosine.step()
    assert sorted(np.concatenate(orders)) == sorted([*range(len(data))] * epochs)
    return layer


def test_decoders_trained_together_are_decoders_trained_alone():
    data = maps()
    for rate, found in zip(RATES, fit(data, RATES, 3, 5, seed=2).decoders, strict=True):
        layer = alone(data, rate, 3, 5, seed=2)
        assert_close(found.weight.detach(), layer.weight.detach()[:, :, 0, 0], atol=1e-5, rtol=1e-4)
        assert_close(found.bias.detach(), layer.bias.detach(), atol=1e-5, rtol=1e-4)


def unet(statistics, classes):
    return UNet(statistics, classes, [12, 8])


def test_unets_trained_together_are_unets_trained_alone():
    data = maps(n=6)
    together = fit(data, [0.001, 0.01], 2, 4, kind=unet).decoders
    for rate, found in zip([0.001, 0.01], together, strict=True):
        (single,) = fit(data, [rate], 2, 4, kind=unet).decoders
        for one, two in zip(found.parameters(), single.parameters(), strict=True):
            assert torch.equal(one, two)


def test_the_number_of_threads_changes_no_bit_of_the_linear_decoder():
    found, before = [], torch.get_num_threads()
    try:
        for n in (1, 2, 2):
            torch.set_num_threads(n)
            found.append(fit(maps(), RATES, 2, 5).decoders)
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(a.weight, b.weight) for a, b in zip(found[0], others, strict=True))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("kind", [PixelwiseLinear, unet])
@pytest.mark.parametrize("loss", ["dice", "dice_ce"])
def test_it_learns_whatever_the_scale_of_the_features(scale, kind, loss):
    data = maps(n=16, scale=scale)
    rate = 0.1 if kind is PixelwiseLinear else 0.01
    found = fit(data, [rate], 15, 4, loss=loss, kind=kind).decoders
    assert decoders.macro_dsc(found, data, 3)[0] > 0.75  # a third is chance; linearly, the noise leaves about 0.82


def test_val_chooses_the_epoch_and_its_weights_come_back():
    data = maps(n=16)
    found = fit(data, [0.01, 0.1], 8, 4, val=data)
    curve = found.history.pivot(index="epoch", columns="head", values="value")
    assert found.values == pytest.approx(list(curve.max()))
    assert found.epochs == list(curve.idxmax())
    assert decoders.macro_dsc(found.decoders, data, 3) == pytest.approx(found.values)


def test_macro_dsc_is_the_plain_definition():
    data = maps(n=4)
    data.masks[0] = 0  # nothing there: undefined where nothing is found
    data.masks[1] = 2
    (decoder,) = fit(data, [0.1], 5, 4).decoders
    by_class = []
    for label in (1, 2):
        cases = []
        for i in range(4):
            found = decoder(data.features([i]), (30, 30))[0].argmax(0).numpy() == label
            truth = data.masks[i] == label
            if found.any() or truth.any():
                cases.append(2 * (found & truth).sum() / (found.sum() + truth.sum()))
        by_class.append(np.mean(cases))
    np.testing.assert_allclose(decoders.macro_dsc([decoder], data, 3)[0], np.mean(by_class))


def test_the_slices_of_a_volume_are_one_case():
    data = maps(n=6)
    volumes = dataclasses.replace(data, cases=np.array(["a", "a", "a", "b", "b", "c"]))
    (decoder,) = fit(data, [0.1], 5, 4).decoders
    found = np.stack([decoder(data.features([i]), (30, 30))[0].argmax(0).numpy() for i in range(6)])
    values = [
        [
            2
            * ((found[rows] == label) & (data.masks[rows] == label)).sum()
            / ((found[rows] == label).sum() + (data.masks[rows] == label).sum())
            for rows in ([0, 1, 2], [3, 4], [5])
        ]
        for label in (1, 2)
    ]
    np.testing.assert_allclose(decoders.macro_dsc([decoder], volumes, 3)[0], np.nanmean(np.nanmean(values, axis=1)))


def test_a_rate_that_diverges_leaves_the_others_and_alone_stops_it_with_the_step_named():
    found = fit(maps(), [0.01, 3e37], 2, 5)
    assert found.diverged == ["learning rate 3e+37"]
    sound = fit(maps(), [0.01, 0.02], 2, 5)  # as many at once: some processors round one alone otherwise
    assert torch.equal(found.decoders[0].weight, sound.decoders[0].weight)
    with pytest.raises(RadprobeError, match=r"learning rate 3e\+37.*epoch 1, step \d"):
        fit(maps(), [3e37], 2, 5)


def test_the_studys_unet_has_its_channels_and_no_logit_below_0():
    from radprobe.models.decoders import PaperUNet

    g = torch.Generator().manual_seed(0)
    layers = [torch.randn((2, 48, 4, 4), generator=g) for _ in range(5)]
    statistics = [(each.mean((0, 2, 3)), each.std((0, 2, 3))) for each in layers]
    decoder = PaperUNet(statistics, 3)
    assert [block.up.out_channels for block in decoder.blocks] == [24, 12, 6, 3]
    logits = decoder(layers, (50, 40))
    assert logits.shape == (2, 3, 50, 40)
    assert logits.min() >= 0


@pytest.mark.parametrize("kind", [PixelwiseLinear, unet])
def test_logits_that_are_no_numbers_stop_it_with_epoch_and_step_named(kind):
    data, broken = maps(), maps()
    broken.dense.dense[:] = float("nan")
    statistics, how = data.statistics(), decoders.DecoderRecipe(5, "dice", loop.Schedule(epochs=2, seed=0))
    with pytest.raises(RadprobeError, match=r"learning rate 0\.01: its loss is not finite at epoch 1, step 1"):
        decoders.fit(lambda: kind(statistics, 3), broken, 3, [0.01], how)


class Turning(Stored):
    """Maps of labels, one channel each, whose views are turned as those of images are."""

    def __init__(self, masks, views):
        super().__init__(np.stack([masks == label for label in range(3)], 1).astype(np.float16))
        self.views = views

    def take(self, rows, layers, view=0):
        dense = self.dense[rows]
        if view:
            matrices = self.views.matrices(rows, view)
            dense = torch.stack([moved(each, matrices, nearest=False) for each in dense.float().unbind(1)], 1)
        return [dense for _ in layers]


def turning(views=None, n=12, size=32):
    masks = maps(n=n, size=size).masks
    return Maps(Turning(masks, Views("turn", n, 0, views)), (-1,), masks, np.arange(n), np.arange(n), CPU)


@given(view=st.integers(1, 200), rows=st.lists(st.integers(0, 11), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_a_view_moves_maps_and_labels_alike(view, rows):
    data = turning()
    (dense,), labels = data.features(np.array(rows), view), data.labels(np.array(rows), view)
    sure, found = dense[:, 1:].max(1)  # background is also what lies outside
    assert (labels[sure > 0.99] == found[sure > 0.99] + 1).all()
    assert (labels[(dense[:, 1:] < 0.01).all(1)] == 0).all()
    assert not torch.equal(data.labels(np.arange(12), view), data.labels(np.arange(12)))


@pytest.mark.parametrize("views", [3, None])
def test_it_learns_from_views_stored_or_new_in_each_epoch(views):
    found = fit(turning(views), [0.1], 16, 4)
    assert found.history["loss"].tail(4).max() < 0.3  # the last four epochs: every stored view, the image as it is too
    assert decoders.macro_dsc(found.decoders, turning(), 3)[0] > 0.95


def test_a_channel_that_never_changes_where_it_is_fitted_stays_small_elsewhere():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((6, 3, 4, 4), generator=generator)
    x[:, 1], x[:, 2] = 0, 1234.5
    ((mean, std),) = channel_statistics([[x[:2]], [x[2:]]])
    torch.testing.assert_close(mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(std, torch.tensor([x[:, 0].std(correction=0), 1.0, 1.0]))
