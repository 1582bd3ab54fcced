from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from radprobe.files import RadprobeError
from radprobe.learning import candidates, tuning
from radprobe.learning.selection import Diverged

NAN = float("nan")


class FakeTask:
    """In the place of a backbone that is trained: pairs of learning rates have a value on val; some diverge."""

    def __init__(self, values, diverge=(), again=()):
        self.values, self.diverge, self.again, self.fits = values, diverge, again, []
        options = SimpleNamespace(backbone_rates=[1, 2], head_rates=[3, 4], epochs=9, patience=2)
        shared = {"options": options, "name": "vit+lora", "training": Path("training"), "split": "split"}
        self.adaptation = SimpleNamespace(**shared)
        self.adaptation.schedule = lambda epochs, patience=None, stop=None: (epochs, patience, stop)

    def fit(self, rates, schedule, parts, split, val=False, folder=None, what=None):
        self.fits.append((rates, schedule, parts, folder.name))
        if rates in (self.diverge if val else self.again):
            raise Diverged("loss", f"{rates} is not finite", "lower it")
        curves = pd.DataFrame({"epoch": [1, 2], "seconds": [1.0, 2.0]})
        return tuning.TunedNetwork(f"{'+'.join(parts)} {rates}", self.values[rates], sum(rates), curves)


VALUES = {(1, 3): 0.6, (1, 4): 0.9, (2, 3): 0.8, (2, 4): 0.7}


def test_the_best_by_val_is_fitted_again_on_train_and_val_for_its_epochs():
    task = FakeTask(VALUES)
    found = candidates.choose(task)
    assert found.networks == {"val": "train (1, 4)", "test": "train+val (1, 4)"}
    assert task.fits[-1] == ((1, 4), (9, None, 5), ("train", "val"), "refit1")
    assert [fit[1:3] for fit in task.fits[:-1]] == [((9, 2, None), ("train",))] * 4
    assert found.facts["chosen"] == {"backbone_rate": 1, "head_rate": 4, "epochs": 5}
    assert [each["value"] for each in found.facts["candidates"]] == list(VALUES.values())
    assert found.curves["phase"].tolist() == ["search", "search", "refit", "refit"]
    assert found.seconds == 6


def test_only_the_best_keeps_its_network_while_others_are_tried():
    held = [each.fitted.fitted.network for each in candidates._search(FakeTask(VALUES))]
    assert held == [None, "train (1, 4)", None, None]


def test_one_that_diverges_when_it_is_fitted_again_gives_way_to_the_next_best_from_its_checkpoint(capsys):
    task = FakeTask(VALUES, again=[(1, 4), (2, 3)])
    found = candidates.choose(task)
    assert found.networks == {"val": "train (2, 4)", "test": "train+val (2, 4)"}
    assert task.fits[-1] == ((2, 4), (9, 2, None), ("train",), "search3")  # read again: the best had taken its place
    assert [each["head_rate"] for each in found.facts["diverged_when_refitted"]] == [4, 3]
    assert "(1, 4) is not finite" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"values": VALUES, "again": list(VALUES)}, "diverged when it was fitted again"),
        ({"values": dict.fromkeys(VALUES, NAN)}, "defined value on val"),
        ({"values": VALUES, "diverge": list(VALUES)}, "defined value on val"),
    ],
)
def test_where_none_is_left_it_says_why(given, why):
    with pytest.raises(RadprobeError, match=why):
        candidates.choose(FakeTask(**given))


def test_what_diverges_or_is_undefined_is_never_chosen():
    task = FakeTask({**VALUES, (2, 3): NAN}, diverge=[(1, 4)])
    found = candidates.choose(task)
    assert found.choice.best.fitted.rates == (2, 4)
    assert [each["value"] for each in found.facts["candidates"]] == [0.6, None, None, 0.7]
    assert not np.isnan(found.facts["value"])


def test_a_single_pair_that_diverges_says_where():
    task = FakeTask(VALUES, diverge=[(1, 3)])
    task.adaptation.options = SimpleNamespace(backbone_rates=[1], head_rates=[3], epochs=9, patience=2)
    with pytest.raises(Diverged, match="not finite"):
        candidates.choose(task)
