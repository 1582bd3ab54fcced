"""Few-shot curves as plain data: the score of each backbone by the number of training patients, over draws of them."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from radprobe.catalog import PAPER, PRIMARY_METRIC
from radprobe.report.collect import Findings
from radprobe.report.ranking import FEW_SHOT, Estimate, estimate

SINGLE = FEW_SHOT + PAPER  # the study's single draw
ALL = 0  # every training patient
NOTES = 8  # that are told in full


@dataclass(frozen=True)
class Curves:
    """The few-shot scores (macro, test) of a dataset.

    `means` and `single` map a backbone to its Estimate by shots, ALL last: the mean over draws with their range, and
    the study's single draw. `draws` has a row a draw and backbone, as Scores.draws.
    """

    dataset: str
    metric: str
    shots: list[int]
    means: dict[str, dict[int, Estimate]]
    single: dict[str, dict[int, Estimate]]
    draws: pd.DataFrame
    controls: frozenset[str]
    head: str  # what was fitted to each draw, and what was fixed

    @property
    def ours(self) -> pd.DataFrame:
        """The draws without the study's."""
        return self.draws[self.draws["protocol"] == FEW_SHOT]

    @property
    def n_draws(self) -> int:
        """How many draws a mean is over, at most: all patients can be drawn in one way only."""
        return int(self.ours.groupby(["backbone", "shots"])["draw"].nunique().max())

    @property
    def has_single(self) -> bool:
        """Was the study's draw scored too?"""
        return any(self.single.values())

    @property
    def varying(self) -> bool:
        """Do draws differ in the number of classes that their macro score is over?"""
        return bool(self.ours["n_classes"].nunique() > 1)

    def drawn(self, shots: int, column: str) -> str:
        """Return the least and the most of a column (n_patients, n_samples, n_classes) over our draws, as "3–5"."""
        values = sorted(set(self.ours.loc[self.ours["shots"] == shots, column]))
        return "–".join(f"{int(each):,}" for each in dict.fromkeys((values[0], values[-1])))


def curves(findings: Findings, dataset: str) -> Curves | None:
    """Return the curves of a dataset, None where no draw was scored."""
    draws = findings.draws(dataset)
    if draws.empty or FEW_SHOT not in set(draws["protocol"]):
        return None
    ours = draws[draws["protocol"] == FEW_SHOT]
    shots = sorted({int(each) for each in ours["shots"]}, key=lambda each: (each == ALL, each))
    order = [name for name in findings.study.backbones if name in set(draws["backbone"])]
    facts = [
        findings.facts(findings.study.predicting(dataset, name), dataset, name).get("few_shot", {}) for name in order
    ]
    return Curves(
        dataset=dataset,
        metric=draws["metric"].iloc[0],
        shots=shots,
        means=_estimates(findings, dataset, order, shots, ""),
        single=_estimates(findings, dataset, order, shots, PAPER),
        draws=draws,
        controls=frozenset(name for name in order if findings.family(name) == "control"),
        head=" and ".join(dict.fromkeys(head_of(each) for each in facts if each)) or "a linear head",
    )


def chance(draws: int) -> str:
    """Say how likely a new draw falls inside the range of so many, which are exchangeable; "" of fewer than two."""
    if draws < 2:
        return ""
    share = (draws - 1) / (draws + 1)
    return f"A new draw would fall inside the range of {draws} draws with probability {share:.2f}."


def head_of(fixed: dict[str, Any]) -> str:
    """Return what is fitted to each draw, and what is fixed."""
    if "mode" in fixed:
        return f"a backbone with its head (first learning rates, {fixed['steps']} steps)"
    if "c" in fixed:
        return f"a logistic regression (C = {fixed['c']:g})"
    if "steps" in fixed:
        return f"a linear decoder (learning rate {fixed['learning_rate']:g}, {fixed['steps']} steps)"
    return "a linear head"


def _estimates(
    findings: Findings, dataset: str, order: list[str], shots: list[int], variant: str
) -> dict[str, dict[int, Estimate]]:
    """Return by backbone and shots what the rows `few-shot <shots><variant>` of the scores say."""
    names = {f"{FEW_SHOT} {text(each)}{variant}": each for each in shots}
    table = findings.scores
    rows = table[(table["dataset"] == dataset) & table["protocol"].isin(names)]
    rows = rows[rows["metric"] == PRIMARY_METRIC[findings.datasets[dataset].task]].to_dict("records")
    found: dict[str, dict[int, Estimate]] = {name: {} for name in order}
    for row in rows:
        found[row["backbone"]][names[row["protocol"]]] = estimate(row, "value")
    return {name: {each: by[each] for each in shots if each in by} for name, by in found.items()}


def text(shots: int) -> str:
    """Return a number of shots as it stands on an axis."""
    return "all" if shots == ALL else str(shots)


def leader(found: Curves) -> tuple[str, bool] | None:
    """Return the backbone with the highest mean at every number of shots, and whether every single draw agrees.

    They are compared draw by draw, over the draws that every backbone saw. None where there is no such backbone, where
    nothing else but controls was drawn, or where a control is above it.
    """
    sets = found.ours.groupby(["shots", "draw"])["backbone"].nunique()
    values = found.ours.pivot(index=["shots", "draw"], columns="backbone", values="value")
    values = values[sets == values.shape[1]]  # trained backbones may see fewer draws
    pretrained = [name for name in values if name not in found.controls]
    if len(pretrained) < 2 or values.empty or values.isna().any(axis=None):
        return None
    means = values.groupby(level="shots").mean()
    first = means.columns[means.to_numpy().argmax(axis=1)[0]]
    if first in found.controls or not _above_all(means, first):
        return None
    return str(first), _above_all(values, first)


def _above_all(values: pd.DataFrame, first: str) -> bool:
    return bool(values.drop(columns=first).lt(values[first], axis=0).all(axis=None))


def notes(found: Curves) -> list[str]:
    """Return what the draws say of themselves, each once with how many draws say it, and the scores left undefined."""
    noted = found.draws[found.draws["note"] != ""].drop_duplicates(["protocol", "shots", "draw", "note"])
    counts = noted.groupby(["protocol", "shots", "note"], sort=False).size()
    lines = [f"{_place(*key[:2])}: {key[2]}{_times(count)}" for key, count in counts.items()]
    left = [f"and {len(lines) - NOTES} more such notes"] if len(lines) > NOTES else []
    undefined = found.draws[found.draws["value"].isna()].groupby(["protocol", "shots"], sort=False).size()
    gone = [f"{_place(*key)}: {count} undefined scores are left out" for key, count in undefined.items()]
    return lines[:NOTES] + left + gone


def _place(protocol: str, shots: int) -> str:
    return f"Shots {text(shots)}" + (", the study's draw" if protocol == SINGLE else "")


def _times(count: int) -> str:
    return f" ({count} draws)" if count > 1 else ""
