"""Cross-validation: all of a stage's fitting, choices included, once for each fold; then their predictions as one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from radprobe import console
from radprobe.artifacts import LabelMaps, Predictions, Split, again
from radprobe.files import RadprobeError

Fit = Callable[[Split, Path], Predictions]  # split, folder for what the fit writes -> its predictions
Facts = dict[str, Any]
FOLDER = "training"  # with the folders of the folds, beside checkpoints; the stage removes it in the end
# facts of what val chose: they differ from fold to fold, and stay with their fold
CHOICES = ("chosen", "candidates", "value", "heads_diverged", "diverged_when_refitted", "not_converged", "left_out")
LARGEST = ("peak_gb", "parameters", "parameters_of_all")


def over(split: Split, folder: Path, fit: Fit) -> Predictions:
    """Return what `fit` makes of a split; of folds, what it makes of each, merged.

    Every fold has a folder of its own, so that a fit that was killed goes on with its own checkpoints.
    """
    if not split.is_folded:
        return fit(split, folder)
    splits = split.folds
    found = []
    for number, each in enumerate(splits, 1):
        console.say(f"fold {number} of {len(splits)}")
        found.append(fit(each, folder_of(folder, number)))
    return merged(found, folder)


def folder_of(folder: Path, number: int) -> Path:
    """Return the folder of a fold, 1 ... k, below that of its step."""
    return folder / FOLDER / f"fold{number}"


def merged(found: list[Predictions], folder: Path) -> Predictions:
    """Return the predictions of all folds as one: each sample is in test once and in val once.

    Label maps are written to `folder`. Decoders are not kept: no single one of them made these predictions. Raises
    RadprobeError where the folds did not fit the same protocols.
    """
    protocols = list(found[0].facts["protocols"])
    if any(list(each.facts["protocols"]) != protocols for each in found):
        raise RadprobeError(folder, "its folds fitted different protocols", "remove this folder, and run it again")
    seeds = {name: _common_seeds(found, name) for name in protocols}
    facts = {name: _facts([each.facts["protocols"][name] for each in found], seeds[name]) for name in protocols}
    names = [_names(each, seeds) for each in found]
    return Predictions(
        found[0].classes,
        _table(found, names),
        _maps(found, names, folder),
        {**found[0].facts, "protocols": facts},
        training=_training(found),
    )


def _common_seeds(found: list[Predictions], protocol: str) -> list[int]:
    """Return the seeds whose fits diverged in no fold; [] where a protocol was fitted with one seed."""
    first, *others = (each.facts["protocols"][protocol].get("seeds", []) for each in found)
    return [seed for seed in first if all(seed in seeds for seeds in others)]


def _names(of_fold: Predictions, common: dict[str, list[int]]) -> dict[str, str]:
    """Return what each protocol, and each of its fits with another seed, is called when merged."""
    names = {}
    for protocol, seeds in common.items():
        names[protocol] = protocol
        own = of_fold.facts["protocols"][protocol].get("seeds", [])
        names |= {again(protocol, own.index(seed)): again(protocol, number) for number, seed in enumerate(seeds)}
    return names


def _facts(folds: list[Facts], seeds: list[int]) -> Facts:
    """Return the facts of a protocol: those that all folds share, and those of each fold under `folds`."""
    first, *others = folds
    shared = {key: value for key, value in first.items() if all(each.get(key) == value for each in others)}
    facts = {key: value for key, value in shared.items() if key not in CHOICES}
    facts["seconds"] = sum(each["seconds"] for each in folds)
    facts |= {key: max(each[key] for each in folds) for key in LARGEST if key in first}
    if seeds:
        facts["seeds"] = seeds
        facts["seeds_diverged"] = len(first["seeds"]) + first["seeds_diverged"] - len(seeds)
    return facts | {"folds": folds}


def _table(found: list[Predictions], names: list[dict[str, str]]) -> pd.DataFrame | None:
    tables = []
    for number, (each, called) in enumerate(zip(found, names, strict=True), 1):
        if each.table is None:
            return None
        table = each.table.assign(protocol=each.table["protocol"].map(called), fold=number)
        tables.append(table.dropna(subset="protocol"))
    return pd.concat(tables, ignore_index=True)


def _maps(found: list[Predictions], names: list[dict[str, str]], folder: Path) -> dict[str, LabelMaps]:
    """Write the label maps of all folds under their merged names."""
    if not found[0].maps:
        return {}
    maps = {}
    for merged_name in dict.fromkeys(names[0].values()):
        of_folds = [
            each.maps[name]
            for each, called in zip(found, names, strict=True)
            for name, new in called.items()
            if new == merged_name
        ]
        LabelMaps.write(folder, merged_name, (case for each in of_folds for case in each.cases()))
        maps[merged_name] = LabelMaps.read(folder, merged_name)
    return maps


def _training(found: list[Predictions]) -> pd.DataFrame | None:
    tables = [each.training.assign(fold=number) for number, each in enumerate(found, 1) if each.training is not None]
    return pd.concat(tables, ignore_index=True) if tables else None
