"""The one training loop: of decoders on frozen features, of networks from scratch, of backbones that are adapted.

Plain torch, because heads of different learning rates share each batch here and each keeps its own best epoch, and
because a run that was killed goes on bit for bit: frameworks give neither without as much code around them.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
import torch

from radprobe import console, files
from radprobe.files import RadprobeError
from radprobe.learning.device import fits
from radprobe.learning.selection import Diverged
from radprobe.models import backbones
from radprobe.models.decoders import ParameterGroup

B = TypeVar("B")  # a batch
Precision = Literal["fp32", "bf16"]
Losses = Callable[[B], Iterator[torch.Tensor]]
Batches = Callable[[int, torch.Generator], Iterable[B]]
Validate = Callable[[], Sequence[float]]
COLUMNS = ["epoch", "head", "loss", "value", "learning_rate", "seconds"]


@dataclass(frozen=True)
class Schedule:
    """How long Adam trains; after the warm-up, learning rates follow a cosine to 0 over all steps."""

    epochs: int
    seed: int
    warmup: float = 0.0  # epochs of linear warm-up
    accumulate: int = 1  # batches per step
    patience: int | None = None  # stop when no head has improved on val for so many epochs
    precision: Precision = "fp32"  # bf16: autocast
    stop: int | None = None  # leave after so many epochs of the schedule


@dataclass(frozen=True)
class Trainee:
    """Something that is trained: its module and its parameter groups."""

    name: str
    module: torch.nn.Module
    groups: list[ParameterGroup]


@dataclass(frozen=True)
class LoopResult:
    """For each head its best value on val (NaN without val) and epoch (from 1); the curves; the heads that diverged."""

    values: list[float]
    epochs: list[int]
    history: pd.DataFrame  # COLUMNS
    diverged: list[str]


@dataclass
class _State:
    """State needed to resume training, besides modules and optimizer."""

    epoch: int = 0  # whole epochs done
    best: list[dict[str, torch.Tensor] | None] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    off: list[bool] = field(default_factory=list)  # heads that have diverged
    history: list[dict[str, Any]] = field(default_factory=list)


def fit(
    heads: Sequence[Trainee],
    batches: Batches[B],
    losses: Losses[B],
    schedule: Schedule,
    device: torch.device,
    *,
    steps_per_epoch: int,
    validate: Validate | None = None,
    folder: Path | None = None,
    what: str | None = None,
) -> LoopResult:
    """Train `heads` side by side over one pass of the batches in each epoch, each as if it were alone.

    batches: gets the epoch (0 is the first) and a generator that depends on seed and epoch only; yields
    `steps_per_epoch` batches. losses: yields tensors that, one after the other, are one loss per head; each is
    backpropagated as it comes, so that one graph lives at a time. validate: returns a value per head, higher is better,
    NaN undefined; the best state of each head is put back at the end, the last one where there is no validation.
    A head whose loss is not finite is switched off, named in `diverged`; Diverged if no other is left.

    With `folder`, every epoch ends in a checkpoint there and in history.csv, and a run that was killed goes on after
    its last whole epoch, to the same weights. Another schedule or other heads than the checkpoint's are refused.
    What is frozen of a backbone must stay as it is: else RadprobeError, and the checkpoint is removed.
    Progress is shown under the name `what`, if given.
    """
    run = _Run(heads, schedule, device, steps_per_epoch, folder)
    last = min(schedule.epochs, schedule.stop or schedule.epochs)
    frozen = backbones.held(*(head.module for head in heads), made=[folder] if folder else [])
    with frozen, _deterministic(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        run.restore()
        remaining = range(run.state.epoch, last)
        for epoch in console.track(remaining, f"{what} (epochs)", len(remaining)) if what else remaining:
            if run.has_stopped():
                break
            with fits(heads[0].name, device):
                run.epoch(epoch, batches, losses, validate)
        return run.finish(validate is not None)


class _Run:
    """Modules, optimizer and state of one call of `fit`."""

    def __init__(
        self, heads: Sequence[Trainee], schedule: Schedule, device: torch.device, steps: int, folder: Path | None
    ):
        self.heads = heads
        self.schedule = schedule
        self.device = device
        self.folder = folder
        self.steps = math.ceil(steps / schedule.accumulate)
        groups = [{**group, "head": number} for number, head in enumerate(heads) for group in head.groups]
        self.optimizer = torch.optim.Adam(groups)
        self.rates = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._share)
        n = len(heads)
        self.state = _State(best=[None] * n, values=[math.nan] * n, epochs=[0] * n, off=[False] * n)
        self.identity = {
            "schedule": vars(schedule),
            "steps an epoch": self.steps,
            "heads": [head.name for head in heads],
            "rates": [group["lr"] for head in heads for group in head.groups],
            "shapes": [[list(p.shape) for p in group["params"]] for head in heads for group in head.groups],
        }

    def _share(self, step: int) -> float:
        """Return the share of its learning rate that every group has at a step."""
        total, warm = self.schedule.epochs * self.steps, self.schedule.warmup * self.steps
        if step < warm:
            return (step + 1) / (warm + 1)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1.0, total - warm))))

    # --- an epoch -----------------------------------------------------------------------------------------------------

    def epoch(self, epoch: int, batches: Batches[B], losses: Losses[B], validate: Validate | None) -> None:
        """Train for an epoch, validate, keep what is best, write the checkpoint."""
        begun, seed = time.perf_counter(), [self.schedule.seed, epoch]
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence([*seed, 1]).generate_state(1)[0]))
        rates = self._rates()
        for head in self.heads:
            head.module.train()
        total, count = np.zeros(len(self.heads)), 0
        pending = 0
        for number, batch in enumerate(batches(epoch, generator)):
            found = self._backward(losses(batch), epoch, number)
            total, count, pending = total + found, count + 1, pending + 1
            if pending == self.schedule.accumulate:
                self._step(pending)
                pending = 0
        if pending:
            self._step(pending)
        values = self._validate(validate)
        self._keep(epoch, values)
        seconds = time.perf_counter() - begun
        for number, head in enumerate(self.heads):
            row = (epoch + 1, head.name, total[number] / max(count, 1), values[number], rates[number], seconds)
            self.state.history.append(dict(zip(COLUMNS, row, strict=True)))
        self.state.epoch = epoch + 1
        self._save()

    def _backward(self, losses: Iterator[torch.Tensor], epoch: int, number: int) -> np.ndarray:
        found: list[float] = []
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.schedule.precision == "bf16")
        with autocast:
            for loss in losses:
                each = loss.detach().flatten().tolist()
                self._switch_off(range(len(found), len(found) + len(each)), each, epoch, number)
                kept = [not self.state.off[len(found) + place] for place in range(len(each))]
                found += each
                if any(kept):  # a head that is off adds no gradient, not even NaN times 0
                    loss.flatten()[torch.tensor(kept, device=loss.device)].sum().backward()
        return np.array(found)

    def _switch_off(self, places: range, losses: list[float], epoch: int, number: int) -> None:
        for place, loss in zip(places, losses, strict=True):
            if math.isfinite(loss) or self.state.off[place]:
                continue
            self.state.off[place], self.state.best[place] = True, None
            self.state.values[place], self.state.epochs[place] = math.nan, 0
            head = self.heads[place]
            for group in head.groups:
                for parameter in group["params"]:
                    parameter.requires_grad_(False)
                    parameter.grad = None
            reason = f"its loss is not finite at epoch {epoch + 1}, step {number + 1}"
            if all(self.state.off):
                raise Diverged(head.name, reason, "lower the learning rate, or look at the features and images")
            console.say(f"{head.name}: {reason}; the others go on")

    def _step(self, batches: int) -> None:
        for number, head in enumerate(self.heads):
            if self.state.off[number] or batches == 1:
                continue
            for parameter in (parameter for group in head.groups for parameter in group["params"]):
                if parameter.grad is not None:
                    parameter.grad /= batches
        self.optimizer.step()
        self.rates.step()
        self.optimizer.zero_grad()

    def _rates(self) -> list[float]:
        rates: dict[int, float] = {}
        for group in self.optimizer.param_groups:
            rates.setdefault(group["head"], group["lr"])
        return [rates[number] for number in range(len(self.heads))]

    # --- what is best -------------------------------------------------------------------------------------------------

    def _validate(self, validate: Validate | None) -> list[float]:
        if validate is None:
            return [math.nan] * len(self.heads)
        for head in self.heads:
            head.module.eval()
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.schedule.precision == "bf16")
        with torch.inference_mode(), autocast:
            values = [float(value) for value in validate()]
        return [math.nan if off else value for off, value in zip(self.state.off, values, strict=True)]

    def _keep(self, epoch: int, values: list[float]) -> None:
        for number, value in enumerate(values):
            best = self.state.values[number]
            if not math.isnan(value) and (math.isnan(best) or value > best):
                self.state.values[number], self.state.epochs[number] = value, epoch + 1
                self.state.best[number] = _snapshot(self.heads[number])

    def has_stopped(self) -> bool:
        """Has no head improved for as long as patience lasts?"""
        known = [epoch for epoch in self.state.epochs if epoch]
        return bool(self.schedule.patience and known and self.state.epoch - max(known) >= self.schedule.patience)

    def finish(self, validated: bool) -> LoopResult:
        """Put the best states back and return what is known of them."""
        for head, best in zip(self.heads, self.state.best, strict=True):
            if best is not None:
                head.module.load_state_dict(best, strict=False)
            head.module.eval()
        off = [head.name for head, gone in zip(self.heads, self.state.off, strict=True) if gone]
        epochs = self.state.epochs if validated else [0 if gone else self.state.epoch for gone in self.state.off]
        return LoopResult(self.state.values, epochs, pd.DataFrame(self.state.history, columns=COLUMNS), off)

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        if self.folder is None:
            return
        content = {
            "heads": [_snapshot(head) for head in self.heads],
            "optimizer": self.optimizer.state_dict(),
            "rates": self.rates.state_dict(),
            "state": {**vars(self.state), "history": json.dumps(self.state.history)},
        }
        path = self.folder / f"epoch{self.state.epoch:05d}.pt"
        with files.atomic(path) as temporary:
            torch.save(content, temporary)
        # this one names the checkpoint that counts: a kill leaves the one before, or this one
        facts = {"file": path.name, "sha256": files.sha256(path), "identity": self.identity}
        files.write_json(self.folder / "checkpoint.json", facts)
        for old in self.folder.glob("epoch*.pt"):
            if old != path:
                old.unlink()
        history = pd.DataFrame(self.state.history, columns=COLUMNS)
        with files.atomic(self.folder / "history.csv") as temporary:
            history.to_csv(temporary, index=False)

    def restore(self) -> None:
        """Go on from the checkpoint of the folder, where there is one."""
        if self.folder is None or not (self.folder / "checkpoint.json").is_file():
            return
        path = self.folder / "checkpoint.json"
        try:
            known = json.loads(path.read_text())
            path = self.folder / known["file"]
            whole = path.is_file() and files.sha256(path) == known["sha256"]
        except (ValueError, KeyError):
            whole = False
        if not whole:
            console.say(f"{path}: is broken; training starts anew")
            return
        _check_same(path, known["identity"], json.loads(json.dumps(self.identity)))
        content = torch.load(path, map_location="cpu", weights_only=True)
        for head, state in zip(self.heads, content["heads"], strict=True):
            head.module.load_state_dict(state, strict=False)
        self.optimizer.load_state_dict(content["optimizer"])
        self.rates.load_state_dict(content["rates"])
        state = content["state"]
        self.state = _State(**{**state, "history": json.loads(state["history"])})
        for head, off in zip(self.heads, self.state.off, strict=True):
            for parameter in (parameter for group in head.groups for parameter in group["params"] if off):
                parameter.requires_grad_(False)
        console.say(f"{path}: goes on after epoch {self.state.epoch}")


def _snapshot(head: Trainee) -> dict[str, torch.Tensor]:
    """Return what training may have changed: parameters of its groups, and buffers, on the CPU."""
    trained = {id(parameter) for group in head.groups for parameter in group["params"]}
    state = head.module.state_dict(keep_vars=True)
    names = {name for name, _ in head.module.named_buffers()}
    kept = {name: value for name, value in state.items() if id(value) in trained or name in names}
    return {name: value.detach().to("cpu", copy=True) for name, value in kept.items()}


def _check_same(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    for name, value in ours.items():
        if theirs.get(name) == value:
            continue
        was, now = theirs.get(name), value
        if isinstance(value, dict) and isinstance(was, dict):
            name = next(key for key in value if was.get(key) != value[key])
            was, now = was.get(name), value[name]
        reason = f"was made with another {name} ({was}, now {now})"
        raise RadprobeError(path, reason, "remove its folder to train anew, or put the params back")


@contextmanager
def _deterministic() -> Iterator[None]:
    before, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)
