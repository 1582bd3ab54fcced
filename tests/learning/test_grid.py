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
    table = grid.Table.of(tokens, mean)
    recipe = grid.Recipe(4, True, 0.05)
    (head,) = grid.fit(table, one_hot, [recipe], 6, 16, seed=5, exclusive=True)
    layer = alone(tokens, mean, one_hot, recipe, 6, 16, seed=5, exclusive=True)
    assert_close(head.weight, layer.weight.detach(), atol=1e-5, rtol=1e-5)
    assert_close(head.bias, layer.bias.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_sixteen_heads_together_are_sixteen_heads_alone(unknown):
    tokens, mean, y = data(unknown=unknown)
    table = grid.Table.of(tokens, mean)
    recipes, dropped = grid.recipes(table, RATES, [1, 4], [False, True])
    assert (len(recipes), dropped) == (16, 0)
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
    table = grid.Table.of(tokens, mean)
    recipes, _ = grid.recipes(table, RATES, [1, 4], [False, True])
    some = [recipes[i] for i in chosen]
    everyone = dict(zip(recipes, grid.fit(table, y, recipes, 2, 16, 0), strict=True))
    for head in grid.fit(table, y, some, 2, 16, 0):
        assert_close(head.weight, everyone[head.recipe].weight, atol=1e-6, rtol=1e-6)


def test_a_cnn_has_no_duplicate_heads():
    tokens, _, _ = data(blocks=1, patch=False)
    recipes, dropped = grid.recipes(grid.Table.of(tokens, None), RATES, [1, 4], [False, True])
    assert [(r.blocks, r.patch_mean) for r in recipes] == [(1, False)] * 4
    assert dropped == 12


def test_a_diverging_head_leaves_its_neighbours_alone():
    tokens, mean, y = data()
    table = grid.Table.of(tokens * 100, mean)
    wild, tame = grid.Recipe(1, False, 1e38), grid.Recipe(1, False, 1e-5)
    heads = grid.fit(table, y, [wild, tame], 3, 16, 0)
    assert not heads[0].logits(table).isfinite().all()
    assert_close(heads[1].weight, grid.fit(table, y, [tame], 3, 16, 0)[0].weight)


def test_the_number_of_threads_changes_no_bit():
    tokens, mean, y = data(n=300, width=64)
    table, before = grid.Table.of(tokens, mean), torch.get_num_threads()
    recipes, _ = grid.recipes(table, RATES, [1, 4], [True])
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
    table = grid.Table.of(tokens, mean)
    (head,) = grid.fit(table, y, [grid.Recipe(1, False, 0.05)], 30, 32, 0)
    assert ((head.logits(table) > 0) == (y == 1)).float().mean() > 0.95


def test_a_loss_that_is_summed_over_the_batch_is_a_learning_rate_times_its_size():
    tokens, mean, labels = data(n=48)
    table = grid.Table.of(tokens, mean)
    summed = [grid.Recipe(1, False, 0.001)]
    averaged = [grid.Recipe(1, False, 0.016)]
    one = grid.fit(table, labels, summed, 3, 16, 0, summed=True)[0]
    two = grid.fit(table, labels, averaged, 3, 16, 0)[0]
    assert_close(one.weight, two.weight, atol=1e-5, rtol=1e-4)
