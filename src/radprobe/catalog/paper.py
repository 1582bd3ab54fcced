"""What is known of the study: the scores it published (published.csv), what its code did (deviations.yaml).

margins.yaml says how near a score of ours has to be to a published one.
"""

import csv
from functools import cache
from importlib import resources
from typing import Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from radprobe.catalog import Strict, Task

Kind = Literal["metric", "protocol", "bug"]


class PublishedScore(Strict):
    """A number that was published, what it says of itself, and what of ours comes nearest. Nothing is filled in."""

    dataset: str = Field(description="Our id.")
    backbone: str | None = Field(description="Our id; null where its size is not stated.")
    protocol: str | None = Field(description="Ours that comes nearest; null where none is known to be the same.")
    shots: int | None = Field(description="Training patients or images; null: all.")
    metric: str = Field(description="Ours of that definition; `a+b` is the mean of a and b.")
    value: float
    trust: Literal["figure", "low"] = Field(description="Drawn by the authors' own notebook, or second-hand.")
    where: str | None = Field(description="Figure or table; null where it is not known.")
    stated_backbone: str
    stated_protocol: str
    stated_shots: str
    stated_metric: str
    source: str

    @field_validator("backbone", "protocol", "shots", "where", mode="before")
    @classmethod
    def _blank_is_unknown(cls, value: str) -> str | None:
        return value or None

    @property
    def metrics(self) -> list[str]:
        """The metrics of ours whose mean it is."""
        return self.metric.split("+")


class Pair(Strict):
    """Two rows of scores that differ in the deviation: ours, and the one made as the study did."""

    of: Literal["metric", "protocol", "few-shot", "backbone"] = Field(description="What tells the two apart.")
    ours: str = Field(description="Name of the metric or protocol; of a backbone: its id, or `*` for any.")
    theirs: str
    tasks: list[Task] = Field(min_length=1, description="Where it shows.")
    undefined: bool | None = Field(None, description="Only cells with (or without) undefined classes; null: all.")


class Deviation(Strict):
    """Something that the authors' code does otherwise than it should or than its text says, at its last commit."""

    id: str
    kind: Kind = Field(description="metric: ours as well; protocol: a variant of ours; bug: never built.")
    what: str
    effect: str
    ours: str = Field(description="What radprobe does.")
    tests: list[str] = Field(min_length=1, description="path::name of the tests that show it.")
    pairs: list[Pair] = Field([], description="Rows of this study whose scores tell how much it matters.")
    no_pair: str | None = Field(None, description="Why no two rows of one study show it.")
    unmatched: dict[str, str] = Field(
        {}, description="Protocols of published scores that have it and ours never do: what is different in ours."
    )

    @model_validator(mode="after")
    def _shown_or_explained(self) -> Self:
        if self.kind == "bug" and (self.pairs or self.no_pair):
            raise ValueError("a bug is not built, so no row has it")
        if self.kind != "bug" and bool(self.pairs) == bool(self.no_pair):
            raise ValueError("say either the pairs of rows that show it, or why there are none")
        return self


class Margin(Strict):
    """How far two scores of a metric may lie apart and still be called equivalent."""

    value: float = Field(gt=0)
    why: str


@cache
def margins() -> dict[str, Margin]:
    """Return the margins of equivalence, by metric."""
    return {name: Margin.model_validate(entry) for name, entry in yaml.safe_load(_text("margins.yaml")).items()}


@cache
def published() -> list[PublishedScore]:
    """Return every published score that was seen, in the order of the file."""
    return [PublishedScore.model_validate(row) for row in csv.DictReader(_text("published.csv").splitlines())]


@cache
def deviations() -> list[Deviation]:
    """Return the deviations by number."""
    entries = yaml.safe_load(_text("deviations.yaml")).items()
    return [Deviation.model_validate({"id": key, **entry}) for key, entry in entries]


def pairs_of(task: Task) -> list[Pair]:
    """Return the pairs of rows whose scores tell how much deviations matter in a task, each pair of names once."""
    every = (pair for each in deviations() for pair in each.pairs if task in pair.tasks)
    return list({(pair.of, pair.ours, pair.theirs): pair for pair in every}.values())


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
