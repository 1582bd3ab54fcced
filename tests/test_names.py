import pytest

from radprobe import catalog
from radprobe.names import (
    MODES,
    first_init,
    frozen,
    init_number,
    inits,
    is_further_init,
    mode_of,
    original,
    slug,
    with_weights,
)


@pytest.mark.parametrize(
    ("name", "before", "mode", "weights", "in_paths"),
    [
        ("mae_large", "mae_large", None, "mae_large", "mae_large"),
        ("mae_large@paper", "mae_large@paper", None, "mae_large", "mae_large-paper"),
        ("mae_large+lora", "mae_large", "lora", "mae_large", "mae_large-lora"),
        ("random:mae_large", "random:mae_large", None, "random:mae_large", "random-mae_large"),
        ("random:mae_large@paper", "random:mae_large@paper", None, "random:mae_large", "random-mae_large-paper"),
        ("random:mae_large+bitfit", "random:mae_large", "bitfit", "random:mae_large", "random-mae_large-bitfit"),
        ("random:mae_large~2", "random:mae_large~2", None, "random:mae_large~2", "random-mae_large-2"),
        ("random:b@paper~3", "random:b@paper~3", None, "random:b~3", "random-b-paper-3"),
    ],
)
def test_a_name_says_what_is_trained_which_weights_and_where(name, before, mode, weights, in_paths):
    assert (frozen(name), mode_of(name), with_weights(name), slug(name)) == (before, mode, weights, in_paths)


def test_no_two_rows_of_the_catalog_share_a_path():
    ids = [f"{first}{name}" for name in catalog.backbones() for first in ("", "random:")]
    lasts = ("", catalog.PAPER, "~2", "~3", f"{catalog.PAPER}~2", *(f"+{mode}" for mode in MODES))
    names = [f"{one}{last}" for one in ids for last in lasts]
    assert len({slug(name) for name in names}) == len(names)


@pytest.mark.parametrize("n", [0, 1, 3])
@pytest.mark.parametrize("backbone", ["mae_large", "mae_large@paper"])
def test_inits_are_numbered_and_lead_back_to_their_row_and_their_backbone(backbone, n):
    names = inits(f"random:{backbone}", n)
    assert [init_number(name) for name in names] == list(range(1, n + 1))
    assert [is_further_init(name) for name in names] == [False, True, True][:n]
    assert [first_init(name) for name in names] == [f"random:{backbone}"] * n
    assert [original(name) for name in names] == [backbone] * n


def test_what_is_no_random_init_is_its_own_row():
    for name in ("mae_large", "mae_large@paper", "pixels", "mae_large+lora"):
        assert (init_number(name), first_init(name), is_further_init(name)) == (1, name, False)
        assert original(name) == frozen(name)
