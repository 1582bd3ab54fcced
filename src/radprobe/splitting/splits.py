"""The recipes that give every sample its part: train, val or test. A patient is always in one part."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from radprobe import files
from radprobe.artifacts import PARTS, Index, Split
from radprobe.catalog import (
    FEWEST_FOLDS,
    Folds,
    Named,
    OfficialLists,
    SplitRecipe,
    Stratified,
    Systematic,
)
from radprobe.files import RadprobeError

PILOT = {"train": 0.5, "val": 0.2, "test": 0.3}  # share of a pilot's patients, where the publisher's lists say the part


def make_split(index: Index, recipe: SplitRecipe, name: str, seed: int) -> Split:
    """Give every sample of `index` its part by a recipe of the catalog; the order of the rows does not matter.

    Patients to whom the recipe gives no part are not in the split. `seed` matters to the stratified recipe and to folds
    only. A class is left out where a part (or fold) has fewer positive patients than the recipe wants, or train (each
    fold) no positive or no negative, so that nothing could teach it. facts hold the recipe, counts by part or fold and
    the classes left out.
    """
    table = index.table[["sample_id", "patient_id"]].copy()
    if isinstance(recipe, Folds):
        table["part"] = "test"
        table["fold"] = table["patient_id"].map(_folds(index, recipe, seed))
    else:
        table["part"] = table["patient_id"].map(_parts(index, recipe, seed))
    table = table.dropna(subset="part").sort_values("sample_id", ignore_index=True)
    split = Split(table, index.facts["classes"])
    counts = _counts(split, index)
    left_out = _left_out(split, index, counts, getattr(recipe, "min_positives", 0)) if index.classes else {}
    split.classes = [c for c in split.classes if c not in left_out]
    split.facts = {
        "dataset": index.facts["dataset"],
        "name": name,
        "seed": seed,
        "recipe": recipe.model_dump(),
        "parts": counts,
        "left_out": left_out,
    }
    return split


def _parts(index: Index, recipe: OfficialLists | Systematic | Named | Stratified, seed: int) -> dict[str, str]:
    """Return patient -> part, without the patients to whom the recipe gives none."""
    if isinstance(recipe, OfficialLists):
        return _official_lists(index, recipe)
    if isinstance(recipe, Systematic):
        return _systematic(index, recipe)
    if isinstance(recipe, Named):
        return _named(index, recipe)
    return _stratified(index, recipe, seed)


def _left_out(split: Split, index: Index, counts: dict[str, Any], fewest: int) -> dict[str, dict[str, int]]:
    """Return the classes that cannot be evaluated, with their positive patients by part or fold."""
    positive = {c: {name: each["positive_patients"][c] for name, each in counts.items()} for c in split.classes}
    needed = split.group_names if split.is_folded else ["train"]
    teach = set.intersection(*(_teachable(split, index, name) for name in needed))
    return {c: of for c, of in positive.items() if min(of.values()) < fewest or c not in teach}


def _official_lists(index: Index, recipe: OfficialLists) -> dict[str, str]:
    """Return patient -> part: the publisher's; of a train_val list the last `val_tail` lines are val.

    Where the list at hand is shorter than the complete one (phantoms), the tail is shortened in proportion. Lines are
    counted in the list, absent images included, so a partial copy puts each image where the complete one does. A
    patient of whom any image is in the tail is val as a whole: in NIH's official list the cut splits nobody.
    """
    table, chosen = index.table, index.table["meta:list"].replace({"train_val": "train"})
    if recipe.val_tail:
        n_lines = index.facts["n_train_val"]
        first = n_lines - round(recipe.val_tail * n_lines / recipe.total)
        in_tail = (table["meta:list"] == "train_val") & (table["meta:list_row"].astype(int) >= first)
        chosen = chosen.mask(in_tail, "val")
    parts: dict[str, str] = {}
    for part in PARTS:  # later ones win
        parts |= dict.fromkeys(table.loc[chosen == part, "patient_id"], part)
    return parts


def _systematic(index: Index, recipe: Systematic) -> dict[str, str]:
    """Return patient -> part: evenly spaced patients by name, one part after the other, from those that are left."""
    left = sorted(set(index.table["patient_id"]))
    scale = len(left) / recipe.total
    parts: dict[str, str] = {}
    for part, k in recipe.parts.items():
        chosen = _evenly(left, round(k * scale))
        parts |= dict.fromkeys(chosen, part)
        left = [patient for patient in left if patient not in parts]
    return parts | (dict.fromkeys(left, recipe.rest) if recipe.rest else {})


def _named(index: Index, recipe: Named) -> dict[str, str]:
    """Return patient -> part: a published list is test, evenly spaced ones of the others are val."""
    patients, named = sorted(set(index.table["patient_id"])), set(recipe.test)
    test = [patient for patient in patients if patient in named]
    others = [patient for patient in patients if patient not in named]
    val = _evenly(others, round(recipe.val * len(patients) / recipe.total))
    return dict.fromkeys(others, "train") | dict.fromkeys(val, "val") | dict.fromkeys(test, "test")


def _evenly(items: list[str], k: int) -> list[str]:
    """Return `arange(0, n, n / k).round()` of the items: the study's rule."""
    if not k:
        return []
    positions = np.arange(0, len(items), len(items) / k).round().astype(int)
    return [items[position] for position in positions[:k]]


def _stratified(index: Index, recipe: Stratified, seed: int) -> dict[str, str]:
    """Return patient -> part, stratified by label."""
    shares = np.array([1 - recipe.val - recipe.test, recipe.val, recipe.test])
    return {patient: PARTS[part] for patient, part in _stratify(_held(index), shares, seed).items()}


def _folds(index: Index, recipe: Folds, seed: int) -> dict[str, int]:
    """Return patient -> fold, 1 ... k, stratified by label; patients without any class count as a class of their own.

    So each fold has a negative patient where there are k of them.
    """
    labels = _held(index)
    labels["none"] = ~labels.any(axis=1)
    shares = np.full(recipe.folds, 1 / recipe.folds)
    return {patient: fold + 1 for patient, fold in _stratify(labels, shares, seed).items()}


def _held(index: Index) -> pd.DataFrame:
    """Return which classes each patient has, bool, by patient id: those that any image has."""
    return pd.DataFrame(index.labels() == 1).groupby(index.table["patient_id"].to_numpy()).any()


def _stratify(labels: pd.DataFrame, shares: np.ndarray, seed: int) -> dict[str, int]:
    """Return patient -> group by iterative stratification (Sechidis et al., ECML PKDD 2011), over patients.

    labels: bool, by patient id and class. shares: of the patients, by group. The class with the fewest patients not yet
    placed goes first; each of its patients goes to the group that still wants that class most, then to the group that
    wants patients most.
    """
    labels = labels.iloc[np.random.default_rng(seed).permutation(len(labels))]  # groupby has sorted the patients
    positive = labels.to_numpy(bool)
    wanted, wanted_classes = shares * len(positive), shares[:, None] * positive.sum(0)
    placed = np.full(len(positive), -1)

    def place(row: int, want: np.ndarray) -> None:
        group = np.lexsort((wanted, want))[-1]
        placed[row] = group
        wanted[group] -= 1
        wanted_classes[group] -= positive[row]

    while (left := positive[placed < 0].sum(0)).any():
        rarest = np.where(left > 0, left, np.inf).argmin()
        for row in np.flatnonzero((placed < 0) & positive[:, rarest]):
            place(int(row), wanted_classes[:, rarest])
    for row in np.flatnonzero(placed < 0):
        place(int(row), wanted)
    return dict(zip(labels.index, placed.tolist(), strict=True))


def _teachable(split: Split, index: Index, group: str) -> set[str]:
    """Return the classes of which a part or fold has a positive and a negative."""
    labels = index.labels()[split.rows(index, group)]
    both = (labels == 1).any(0) & (labels == 0).any(0)
    return {name for name, known in zip(index.classes, both, strict=True) if known}


def _counts(split: Split, index: Index) -> dict[str, dict[str, Any]]:
    """Return the counts of each part, or of each fold."""
    table_of, labels = index.table.set_index("sample_id"), index.labels()  # -1 and blank count as the study says
    positive_of = pd.DataFrame(labels == 1, columns=index.classes, index=table_of.index)
    counts = {}
    for name in split.group_names:
        rows = split.table[split.groups == name]
        here = table_of.loc[rows["sample_id"]]
        positive = {c: here.loc[positive_of.loc[here.index, c], "patient_id"] for c in index.classes}
        counts[name] = {
            "samples": len(rows),
            "cases": int(here["volume_id"].nunique()),
            "patients": int(rows["patient_id"].nunique()),
            "positives": {c: len(who) for c, who in positive.items()},
            "positive_patients": {c: int(who.nunique()) for c, who in positive.items()},
        }
    return counts


def limited(index: Index, limit: int, lists: OfficialLists | None) -> Index:
    """Return the samples of `limit` patients (all, if there are no more), and say so in facts.

    They are evenly spaced in the order of their labels, then names, so that each label has its share. Of each part of
    the publisher's `lists` there are as many as PILOT says, as far as it has them: of CheXpert's patients 1 % are in
    val and test, and a pilot would miss them.
    """
    if limit >= index.table["patient_id"].nunique():
        return index
    held = pd.DataFrame(index.labels() == 1).groupby(index.table["patient_id"]).max()
    ordered = [patient for *_, patient in sorted(zip(*held.to_numpy().T, held.index, strict=True))]
    part_of = _official_lists(index, lists) if lists else {}
    by_part: dict[str | None, list[str]] = {}
    for patient in ordered:
        by_part.setdefault(part_of.get(patient), []).append(patient)
    quotas = _quotas({part: len(some) for part, some in by_part.items()}, limit)
    chosen = {patient for part, some in by_part.items() for patient in _evenly(some, quotas[part])}
    table = index.table[index.table["patient_id"].isin(chosen)].reset_index(drop=True)
    return Index(table, {**index.facts, "limit": {"patients": limit, "of": len(ordered)}})


def _quotas(sizes: dict[str | None, int], limit: int) -> dict[str | None, int]:
    """Return how many patients to take of each part, `limit` together: each time one of the part that lacks most."""
    quotas = dict.fromkeys(sizes, 0)
    for _ in range(limit):
        room = [part for part, n in quotas.items() if n < sizes[part]]
        quotas[min(room, key=lambda part: quotas[part] / PILOT.get(part or "", 1))] += 1
    return quotas


def check_parts(split: Split, index: Index, others: Iterable[str] = (), own: bool = False) -> None:
    """Raise RadprobeError if a part is empty, or if val or test has no class with positives and negatives.

    Of folds, each must hold what val and test must. The remedy names the `others`, splits of the dataset by name, and
    what else can be done with an `own` folder.
    """
    dataset, name = split.facts["dataset"], split.facts["name"]
    remedy = _remedy(split, index, others, own)
    what = "fold" if split.is_folded else "part"
    patients = split.table["patient_id"].nunique()
    if split.is_folded and patients < (folds := split.facts["recipe"]["folds"]):
        reason = f"has {folds} folds, and there are {patients} patients"
        raise RadprobeError(f"{dataset}, split '{name}'", reason, remedy)
    if not split.classes:
        wanted = split.facts["recipe"].get("min_positives")
        each = f"{wanted} positive patients in each {what}" if wanted else "a positive and a negative in train"
        each += ", and a negative one" if split.is_folded else ""
        reason = f"no class has {each}"
        raise RadprobeError(f"{dataset}, split '{name}'", reason, remedy)
    for part in split.group_names:
        rows, where = split.rows(index, part), f"{dataset}, split '{name}', {what} '{part}'"
        if not rows.size:
            sizes = ", ".join(f"{counts['samples']} {p}" for p, counts in split.facts["parts"].items())
            raise RadprobeError(where, f"has no sample ({sizes})", remedy)
        if part != "train" and index.classes and not _defined(split, index, rows):
            reason = f"none of the {len(split.classes)} classes has both positives and negatives"
            raise RadprobeError(where, f"{reason} among its {rows.size} samples: no AUROC is defined", remedy)


def _defined(split: Split, index: Index, rows: np.ndarray) -> bool:
    labels = index.labels()[rows][:, [index.classes.index(name) for name in split.classes]]
    return bool(((labels == 1).any(0) & (labels == 0).any(0)).any())


def _remedy(split: Split, index: Index, others: Iterable[str], own: bool) -> str:
    ways = []
    dataset, name = split.facts["dataset"], split.facts["name"]
    if split.is_folded and split.facts["recipe"]["folds"] > FEWEST_FOLDS:
        ways.append("ask for fewer folds")
    if index.facts["limit"]:
        ways.append("raise limit")
    if index.facts["partial"]:
        ways.append("complete the copy")
    if index.facts["phantom"]:
        ways.append(f"raise datasets.{dataset}.phantom.patients")
    if own:
        ways.append(f"add patients; or give a split of your own: datasets.{dataset}.folder.split")
    ways += [f"datasets.{dataset}.split: {other}" for other in others if other != name]
    return "; or ".join(ways) or "check the raw copy against its publisher's list"


def against_published(split: Split, index: Index, expected: dict[str, int]) -> dict[str, Any]:
    """Return the published numbers of cases by part, and whether ours equal them (None where they need not).

    They must where the copy is complete, nothing was left out, and the split is the study's.
    """
    facts = index.facts
    whole = not (facts["partial"] or facts["limit"] or facts["phantom"] or facts.get("quarantine"))
    if not expected or not whole or split.facts["name"] != "study":
        return {"parts": expected, "equal": None}
    return {"parts": expected, "equal": {part: split.facts["parts"][part]["cases"] for part in expected} == expected}


def write_listing(split: Split, index: Index, path: Path) -> None:
    """Write a split as the small CSV that is kept under splits/: patient, case (film or volume), split; or fold."""
    case = index.table.set_index("sample_id")["volume_id"]
    listing = split.table.assign(case=split.table["sample_id"].map(case))
    which = "fold" if split.is_folded else "split"
    listing = listing.rename(columns={"patient_id": "patient", "part": "split"})[["patient", "case", which]]
    with files.atomic(path) as temporary:
        listing.drop_duplicates().to_csv(temporary, index=False, lineterminator="\n")
