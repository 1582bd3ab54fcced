import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.testing import assert_close

from radprobe.learning import grid

RATES = [0.001, 0.005, 0.01, 0.05]


def data(n=50, blocks=4, width=5, classes=3, unknown=0.0, seed=0, patch=True):
    g = torch.Generator().manual_seed(seed)
    tokens, mean = torch.randn((n, blocks, width), generator=g).half(), torch.randn((n, width), generator=g).half()
    y = (tokens[:, -1, :classes] > 0).float()
    y[torch.rand(y.shape, generator=g) < unknown] = torch.nan
    return tokens, mean if patch else None, y


def every(table):
    return [grid.HeadRecipe(*each, rate) for each in grid.inputs(table, [1, 4], [False, True]) for rate in RATES]


def alone(tokens, mean, y, recipe, epochs, batch_size, seed, exclusive=False):
    """One head trained by torch.optim.SGD and autograd."""
    x = tokens[:, -recipe.blocks :].flatten(1)
    x = (torch.cat([x, mean], 1) if recipe.patch_mean else x).float()
    layer = torch.nn.Linear(x.shape[1], y.shape[1])
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(seed)) * 0.01)
        layer.bias.zero_()
    sgd = torch.optim.SGD(layer.parameters(), lr=recipe.learning_rate, momentum=0.9)
    steps = epochs * math.ceil(len(y) / batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(sgd, lambda t: 0.5 * (1 + math.cos(math.pi * t / steps)))
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(y), generator=order).split(batch_size):
            known = ~y[batch].isnan()
            loss = binary_cross_entropy_with_logits(layer(x[batch]), y[batch].nan_to_num(), reduction="none")
            total = (loss * known).sum() / len(batch)
            if exclusive:
                total = cross_entropy(layer(x[batch]), y[batch].argmax(1))
            sgd.zero_grad()
            total.backward()
            sgd.step()
            schedule.step()
    return layer


def test_of_exclusive_classes_the_loss_is_the_cross_entropy():
    tokens, mean, y = data()
    one_hot = torch.nn.functional.one_hot(y.sum(1).long() % 3, 3).float()
    table = grid.FeatureTable.of(tokens.unbind(1), mean)
    recipe = grid.HeadRecipe(4, True, 0.05)
    (head,) = grid.fit(table, one_hot, [recipe], 6, 16, seed=5, exclusive=True)
    layer = alone(tokens, mean, one_hot, recipe, 6, 16, seed=5, exclusive=True)
    assert_close(head.weight, layer.weight.detach(), atol=1e-5, rtol=1e-5)
    assert_close(head.bias, layer.bias.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_sixteen_heads_together_are_sixteen_heads_alone(unknown):
    tokens, mean, y = data(unknown=unknown)
    table = grid.FeatureTable.of(tokens.unbind(1), mean)
    recipes = every(table)
    assert len(recipes) == 16
    heads = grid.fit(table, y, recipes, 6, 16, seed=5)
    for recipe, head in zip(recipes, heads, strict=True):
        layer = alone(tokens, mean, y, recipe, 6, 16, seed=5)
        assert head.recipe == recipe
        assert_close(head.weight, layer.weight.detach(), atol=1e-5, rtol=1e-5)
        assert_close(head.bias, layer.bias.detach(), atol=1e-5, rtol=1e-5)


@given(st.sets(st.integers(0, 15), min_size=1))
@settings(max_examples=10, deadline=None)
def test_a_head_does_not_depend_on_the_others(chosen):
    tokens, mean, y = data()
    table = grid.FeatureTable.of(tokens.unbind(1), mean)
    recipes = every(table)
    some = [recipes[i] for i in chosen]
    everyone = dict(zip(recipes, grid.fit(table, y, recipes, 2, 16, 0), strict=True))
    for head in grid.fit(table, y, some, 2, 16, 0):
        assert_close(head.weight, everyone[head.recipe].weight, atol=1e-6, rtol=1e-6)


def cnn(widths=(3, 5, 8, 13), n=50):
    """Vectors of stages, wider and wider."""
    g = torch.Generator().manual_seed(1)
    return grid.FeatureTable.of([torch.randn((n, width), generator=g) for width in widths])


def test_stages_give_as_many_inputs_as_blocks_and_the_patch_mean():
    assert grid.inputs(cnn(), [1, 4], [False, True]) == [(number, False) for number in (1, 2, 3, 4)]
    assert grid.inputs(cnn(), [2], [False]) == [(2, False)]
    assert grid.inputs(cnn(), [1, 2], [False]) == [(1, False), (2, False)]
    assert grid.inputs(cnn((7,)), [1, 4], [False, True]) == [(1, False)]  # pixels, metadata
    tokens, mean, _ = data()
    table = grid.FeatureTable.of(tokens.unbind(1), mean)
    assert grid.inputs(table, [1, 4], [False, True]) == [(1, False), (1, True), (4, False), (4, True)]


def test_the_last_stages_are_the_last_columns():
    table = cnn()
    assert [table.columns(number, False) for number in (1, 2, 4)] == [slice(16, 29), slice(8, 29), slice(0, 29)]
    assert grid.paper_inputs(table, tokens=1) == [(1, False)]  # the study has no stages


@given(st.floats(0.02, 50), st.lists(st.floats(0.02, 50), min_size=4, max_size=4))
@settings(max_examples=20, deadline=None)
def test_in_its_unit_a_head_does_not_depend_on_the_scale_of_its_features(factor, factors):
    table = cnn()
    _, _, y = data()
    scale = torch.cat([torch.full((width,), each) for width, each in zip(table.widths, factors, strict=True)])
    logits = []
    for x in (table.x, table.x * factor, table.x * scale, table.x + 7):
        each = grid.FeatureTable(x, table.widths)
        recipes = [grid.HeadRecipe(number, False, 0.3) for number in (1, 4)]
        heads = grid.fit(each, y, recipes, 5, 16, 0, unit=grid.Unit.of(each))
        logits.append(torch.stack([head.logits(each) for head in heads]))
    for other in logits[1:]:
        assert_close(other, logits[0], atol=2e-3, rtol=2e-3)


def test_in_its_unit_a_vector_has_length_1_whatever_its_width_and_a_constant_one_is_0():
    table = cnn()
    table = grid.FeatureTable(torch.cat([table.x * 3 + 2, torch.full((50, 4), 0.3)], 1), (*table.widths, 4))
    x = grid.Unit.of(table).apply(table.x)
    for span in table.spans[:-1]:
        assert (x[:, span] ** 2).sum(1).mean() == pytest.approx(1, abs=1e-4)
    assert (x[:, table.spans[-1]] ** 2).sum(1).mean() < 1e-6


def test_a_diverging_head_leaves_its_neighbours_alone():
    tokens, mean, y = data()
    table = grid.FeatureTable.of((tokens * 100).unbind(1), mean)
    wild, tame = grid.HeadRecipe(1, False, 1e38), grid.HeadRecipe(1, False, 1e-5)
    heads = grid.fit(table, y, [wild, tame], 3, 16, 0)
    assert not heads[0].logits(table).isfinite().all()
    assert_close(heads[1].weight, grid.fit(table, y, [tame], 3, 16, 0)[0].weight)


def test_the_number_of_threads_changes_no_bit():
    tokens, mean, y = data(n=300, width=64)
    table, before = grid.FeatureTable.of(tokens.unbind(1), mean), torch.get_num_threads()
    recipes = every(table)
    try:
        found = []
        for n in (1, 2):
            torch.set_num_threads(n)
            found.append(grid.fit(table, y, recipes, 2, 64, 0))
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one.weight, two.weight) for one, two in zip(*found, strict=True))


def test_it_learns_what_can_be_learnt():
    tokens, mean, y = data(n=400)
    table = grid.FeatureTable.of(tokens.unbind(1), mean)
    (head,) = grid.fit(table, y, [grid.HeadRecipe(1, False, 0.05)], 30, 32, 0)
    assert ((head.logits(table) > 0) == (y == 1)).float().mean() > 0.95


def test_a_loss_that_is_summed_over_the_batch_is_a_learning_rate_times_its_size():
    tokens, mean, labels = data(n=48)
    table = grid.FeatureTable.of(tokens.unbind(1), mean)
    summed = [grid.HeadRecipe(1, False, 0.001)]
    averaged = [grid.HeadRecipe(1, False, 0.016)]
    one = grid.fit(table, labels, summed, 3, 16, 0, summed=True)[0]
    two = grid.fit(table, labels, averaged, 3, 16, 0)[0]
    assert_close(one.weight, two.weight, atol=1e-5, rtol=1e-4)
