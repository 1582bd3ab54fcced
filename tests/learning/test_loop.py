import copy
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from radprobe.files import RadprobeError
from radprobe.learning import loop
from radprobe.learning.loop import Schedule, Trainee

CPU, N, BATCH = torch.device("cpu"), 24, 6
X = torch.randn((N, 5), generator=torch.Generator().manual_seed(0))
Y = (X @ torch.tensor([1.0, -2, 0.5, 0, 3]))[:, None]


def network(seed=0, dropout=0.2):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 1))


def heads(rates, **how):
    made = [network(**how) for _ in rates]
    return [
        Trainee(f"rate {rate:g}", each, [{"params": list(each.parameters()), "lr": rate}])
        for rate, each in zip(rates, made, strict=True)
    ]


def batches(epoch, generator):
    return ((X[rows], Y[rows]) for rows in torch.randperm(N, generator=generator).split(BATCH))


def fit(of, schedule, validated=True, source=batches, steps=N // BATCH, **more):
    def losses(batch):
        x, y = batch
        for head in of:
            yield ((head.module(x) - y) ** 2).mean()

    def validate():
        return [-float(((head.module(X) - Y) ** 2).mean()) for head in of]

    how = {"validate": validate if validated else None, "steps_per_epoch": steps, **more}
    return loop.fit(of, source, losses, schedule, CPU, **how)


def weights(of):
    return [parameter.detach().clone() for head in of for parameter in head.module.parameters()]


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_heads_trained_together_are_heads_trained_alone():
    schedule = Schedule(3, seed=1)
    rates = [0.001, 0.02]
    together = heads(rates, dropout=0.0)
    found = fit(together, schedule)
    for number, rate in enumerate(rates):
        alone = heads([rate], dropout=0.0)
        single = fit(alone, schedule)
        assert same(weights(alone), weights([together[number]]))
        assert (single.values, single.epochs) == ([found.values[number]], [found.epochs[number]])


def test_adam_is_torchs(tmp_path):
    """One head is a plain loop over the same batches, with torch's cosine."""
    ours, plain, seen = heads([0.01], dropout=0.0), network(dropout=0.0), []

    def source(epoch, generator):
        for batch in batches(epoch, generator):
            seen.append(batch)
            yield batch

    fit(ours, Schedule(4, seed=0), validated=False, source=source)
    adam = torch.optim.Adam(plain.parameters(), lr=0.01)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 4 * N // BATCH)
    assert len(seen) == 4 * N // BATCH
    for x, y in seen:
        adam.zero_grad()
        ((plain(x) - y) ** 2).mean().backward()
        adam.step()
        cosine.step()
    for one, two in zip(weights(ours), plain.parameters(), strict=True):
        torch.testing.assert_close(one, two.detach())


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.survives("fault", "a kill during training", "the same weights and curves")
@pytest.mark.parametrize("at", range(4))
def test_a_run_that_was_killed_goes_on_to_the_same_weights_and_curves(tmp_path, at):
    schedule = Schedule(4, seed=3, warmup=0.5, patience=3)
    undisturbed = heads([0.01, 0.001])
    expected = fit(undisturbed, schedule)

    def dying(epoch, generator):
        for number, batch in enumerate(batches(epoch, generator)):
            if (epoch, number) == (at, 2):
                raise Killed
            yield batch

    with pytest.raises(Killed):
        fit(heads([0.01, 0.001]), schedule, source=dying, folder=tmp_path)
    again = heads([0.01, 0.001], seed=99)  # what they start from is not what counts
    if at == 0:
        again = heads([0.01, 0.001])  # nothing was done yet
    found = fit(again, schedule, folder=tmp_path)
    assert same(weights(again), weights(undisturbed))
    assert (found.values, found.epochs) == (expected.values, expected.epochs)
    columns = ["epoch", "head", "loss", "value", "learning_rate"]
    assert found.history[columns].equals(expected.history[columns])
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 1 + 2 * 4
    finished = heads([0.01, 0.001], seed=5)
    assert fit(finished, schedule, folder=tmp_path).values == expected.values  # nothing is left to do
    assert same(weights(finished), weights(undisturbed))


@pytest.mark.survives("fault", "a checkpoint that is broken", "never used; training starts anew")
@pytest.mark.parametrize("what", ["pt", "json"])
def test_a_broken_checkpoint_is_not_used(tmp_path, what, capsys):
    schedule, expected = Schedule(2, seed=0), heads([0.01])
    fit(expected, schedule)
    fit(heads([0.01]), schedule, folder=tmp_path)
    (path,) = tmp_path.glob(f"*.{what}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    again = heads([0.01])
    fit(again, schedule, folder=tmp_path)
    assert "training starts anew" in capsys.readouterr().out
    assert same(weights(again), weights(expected))


@pytest.mark.parametrize(
    ("change", "name"),
    [({"epochs": 9}, "epochs"), ({"seed": 5}, "seed"), ({"accumulate": 2}, "accumulate")],
)
def test_a_checkpoint_of_another_schedule_is_refused_by_name(tmp_path, change, name):
    schedule = Schedule(2, seed=0)
    fit(heads([0.01]), schedule, folder=tmp_path)
    with pytest.raises(RadprobeError, match=f"another {name}"):
        fit(heads([0.01]), dataclasses.replace(schedule, **change), folder=tmp_path)
    with pytest.raises(RadprobeError, match="another steps an epoch"):
        fit(heads([0.01]), schedule, steps=2 * N // BATCH, folder=tmp_path)
    with pytest.raises(RadprobeError, match="another heads"):
        fit(heads([0.02]), schedule, folder=tmp_path)


def test_accumulated_batches_are_one_batch():
    def halves(epoch, generator):
        for x, y in batches(epoch, generator):
            yield x[: BATCH // 2], y[: BATCH // 2]
            yield x[BATCH // 2 :], y[BATCH // 2 :]

    whole, parts = heads([0.01], dropout=0.0), heads([0.01], dropout=0.0)
    fit(whole, Schedule(3, seed=0))
    fit(parts, Schedule(3, seed=0, accumulate=2), source=halves, steps=2 * N // BATCH)
    for one, two in zip(weights(whole), weights(parts), strict=True):
        torch.testing.assert_close(one, two)


def test_learning_rates_rise_and_follow_torchs_cosine():
    found = fit(heads([0.1, 0.001]), Schedule(6, seed=0, warmup=2)).history
    steps, warm = N // BATCH, 2 * (N // BATCH)
    plain = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(plain, 4 * steps)
    expected = [0.1 * (step + 1) / (warm + 1) for step in range(warm)]
    for _ in range(4 * steps):
        expected.append(plain.param_groups[0]["lr"])
        plain.step()
        cosine.step()
    rates = found[found["head"] == "rate 0.1"]["learning_rate"]
    np.testing.assert_allclose(rates, expected[::steps], rtol=1e-6)
    np.testing.assert_allclose(found[found["head"] == "rate 0.001"]["learning_rate"], rates / 100, rtol=1e-6)


def test_it_stops_when_val_no_longer_improves_and_the_best_comes_back():
    of, values = heads([0.01]), iter([0.1, 0.5, 0.4, math.nan, 0.3, 0.9])
    states = []

    def validate():
        states.append(copy.deepcopy(of[0].module.state_dict()))
        return [next(values)]

    found = loop.fit(
        of,
        batches,
        lambda batch: iter([((of[0].module(batch[0]) - batch[1]) ** 2).mean()]),
        Schedule(9, seed=0, patience=3),
        CPU,
        steps_per_epoch=N // BATCH,
        validate=validate,
    )
    assert (found.values, found.epochs, len(states)) == ([0.5], [2], 5)
    for name, value in of[0].module.state_dict().items():
        assert torch.equal(value, states[1][name])


def test_stop_leaves_a_longer_schedule_early():
    long, short = heads([0.01]), heads([0.01])
    curves = fit(long, Schedule(6, seed=0), validated=False).history
    found = fit(short, Schedule(6, seed=0, stop=2), validated=False)
    assert found.history["loss"].tolist() == curves["loss"][:2].tolist()
    assert found.epochs == [2]


def test_a_head_that_diverges_is_switched_off_and_the_others_are_untouched():
    def train(rates):
        of = heads(rates, dropout=0.0)
        return of, fit(of, Schedule(3, seed=0))

    of, found = train([0.01, 1e30, 0.02])
    assert found.diverged == ["rate 1e+30"]
    assert math.isnan(found.values[1])
    alone, _ = train([0.01])
    assert same(weights(of[:1]), weights(alone))
    with pytest.raises(RadprobeError, match=r"rate 1e\+30.*not finite at epoch 1, step \d"):
        train([1e30])


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), "CPU"])
def test_a_batch_that_does_not_fit_says_what_to_do(error):
    def losses(batch):
        if error == "CPU":
            torch.empty(2**48)  # torch's own words
        raise error

    of = heads([0.01])
    with pytest.raises(RadprobeError, match=r"does not fit into the memory[\s\S]*halve batch_size"):
        loop.fit(of, batches, losses, Schedule(1, seed=0), CPU, steps_per_epoch=1)


def test_other_errors_are_left_as_they_are():
    with pytest.raises(RuntimeError, match="shapes"):
        loop.fit(heads([0.01]), batches, _broken, Schedule(1, seed=0), CPU, steps_per_epoch=1)


def _broken(batch):
    raise RuntimeError("shapes do not match")


def test_what_is_in_no_group_does_not_move():
    of = heads([0.1])
    frozen = of[0].module[0]
    of[0].groups[0]["params"] = list(of[0].module[3].parameters())
    before, moving = copy.deepcopy(frozen.state_dict()), copy.deepcopy(of[0].module[3].state_dict())
    fit(of, Schedule(2, seed=0))
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    assert not any(torch.equal(value, moving[name]) for name, value in of[0].module[3].state_dict().items())


def test_the_generators_of_others_are_left_alone():
    torch.manual_seed(4)
    before = torch.random.get_rng_state()
    fit(heads_without_seed(), Schedule(1, seed=0))
    assert torch.equal(before, torch.random.get_rng_state())
    assert not torch.are_deterministic_algorithms_enabled()


def heads_without_seed():
    with torch.random.fork_rng():
        return heads([0.01])


@pytest.mark.survives("attack", "a pickle in a checkpoint that would run code", "no code runs")
def test_the_checkpoint_is_read_without_pickled_code(tmp_path):
    fit(heads([0.01]), Schedule(1, seed=0), folder=tmp_path)
    (path,) = tmp_path.glob("*.pt")
    assert json.loads((tmp_path / "checkpoint.json").read_text())["file"] == path.name
    assert torch.load(path, weights_only=True)["state"]["epoch"] == 1
