import pytest

from radprobe import catalog
from radprobe.names import MODES, frozen, mode_of, slug, with_weights


@pytest.mark.parametrize(
    ("name", "before", "mode", "weights", "in_paths"),
    [
        ("mae_large", "mae_large", None, "mae_large", "mae_large"),
        ("mae_large@paper", "mae_large@paper", None, "mae_large", "mae_large-paper"),
        ("mae_large+lora", "mae_large", "lora", "mae_large", "mae_large-lora"),
        ("random:mae_large", "random:mae_large", None, "random:mae_large", "random-mae_large"),
        ("random:mae_large@paper", "random:mae_large@paper", None, "random:mae_large", "random-mae_large-paper"),
        ("random:mae_large+bitfit", "random:mae_large", "bitfit", "random:mae_large", "random-mae_large-bitfit"),
    ],
)
def test_a_name_says_what_is_trained_which_weights_and_where(name, before, mode, weights, in_paths):
    assert (frozen(name), mode_of(name), with_weights(name), slug(name)) == (before, mode, weights, in_paths)


def test_no_two_rows_of_the_catalog_share_a_path():
    ids = [f"{first}{name}" for name in catalog.backbones() for first in ("", "random:")]
    names = [f"{one}{last}" for one in ids for last in ("", catalog.PAPER, *(f"+{mode}" for mode in MODES))]
    assert len({slug(name) for name in names}) == len(names)
