"""What has been made: every manifest of the study that is there, and for each cell how far it came."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from radprobe import catalog
from radprobe.artifacts import (
    SCORES_SCHEMA,
    VARIANTS_SCHEMA,
    Comparison,
    Index,
    Pixels,
    Scores,
    Truth,
)
from radprobe.files import RadprobeError
from radprobe.manifests import Manifest
from radprobe.names import is_further_init, slug, with_weights
from radprobe.study import Step, Study

Artifact = TypeVar("Artifact")

LOG_LINES = 3
HELD = 8  # datasets of which tables and mapped images are kept


@dataclass(frozen=True)
class Cell:
    """A dataset x backbone (None: the comparison of the dataset's backbones), and how far it came."""

    dataset: str
    backbone: str | None
    state: str  # done | failed | not run
    step: Step  # the last one, or the first that is not there
    why: str = ""


class Findings:
    """A study and what of it exists. Nothing that is missing or broken is fatal: it is told."""

    def __init__(self, study: Study):
        self.study = study
        self._images = lru_cache(HELD)(self._load_images)
        self._facts: dict[Path, dict[str, Any]] = {}  # of the manifests that were asked for
        self._broken: dict[Path, str] = {}  # manifests that are there and cannot be read
        self._scores = self._all("score", Scores.load)
        self._comparisons = self._all("compare", Comparison.load)

    def _all(self, verb: str, load: Callable[[Path], Artifact]) -> dict[tuple[str | None, str | None], Artifact]:
        steps = [step for step in self.study.steps.values() if step.verb == verb]
        found = {(step.dataset, step.backbone): self._load(load, step) for step in steps if _is_whole(step)}
        return {key: each for key, each in found.items() if each}

    def _load(self, load: Callable[[Path], Artifact], step: Step) -> Artifact | None:
        try:
            return load(step.folder)
        except RadprobeError as error:
            self._broken[step.folder] = str(error)
            return None

    # --- names --------------------------------------------------------------------------------------------------------

    @property
    def datasets(self) -> dict[str, catalog.Dataset]:
        """The datasets of the study that are here."""
        return {name: self.study.dataset(name) for name in self.study.datasets_here}

    def title(self, backbone: str) -> str:
        """Return how a backbone is called; derived weights are named as such."""
        entry = self.study.backbone(backbone)
        return f"{entry.title} (derived weights)" if entry.derived else entry.title

    def family(self, backbone: str) -> str:
        """Return the family of a backbone."""
        return self.study.backbone(backbone).family

    # --- results ------------------------------------------------------------------------------------------------------

    @cached_property
    def scores(self) -> pd.DataFrame:
        """All scores, as SCORES_SCHEMA says."""
        tables = [each.table for each in self._scores.values()]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(SCORES_SCHEMA.columns))

    def comparison(self, dataset: str) -> Comparison | None:
        """Return the paired differences of a dataset, None where they have not been made."""
        return self._comparisons.get((dataset, None))

    @cached_property
    def shown(self) -> pd.DataFrame:
        """The scores of the rows of the report: all but those of further random initialisations."""
        return self.scores[~self.scores["backbone"].map(is_further_init).astype(bool)]

    @cached_property
    def variants(self) -> pd.DataFrame:
        """All paired differences of what is made as the study did from ours, as VARIANTS_SCHEMA says."""
        tables = [each.variants for each in self._comparisons.values()]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(VARIANTS_SCHEMA.columns))

    def draws(self, dataset: str) -> pd.DataFrame:
        """Return the few-shot draws of all backbones of a dataset: Scores.draws and the column backbone."""
        tables = [
            scores.draws.assign(backbone=backbone)
            for (name, backbone), scores in self._scores.items()
            if name == dataset and scores.draws is not None
        ]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["backbone"])

    def scored(self, dataset: str, backbone: str) -> Scores | None:
        """Return the scores of a cell with its cases and draws, or None."""
        return self._scores.get((dataset, backbone))

    def cases(self, dataset: str, backbone: str) -> pd.DataFrame | None:
        """Return the per-case values of a cell, or None."""
        found = self._scores.get((dataset, backbone))
        return found.cases if found else None

    def facts(
        self, verb: str, dataset: str | None, backbone: str | None = None, kind: str | None = None
    ) -> dict[str, Any]:
        """Return the facts of a manifest that a step made, {} where it is not there."""
        step = self.study.steps.get((verb, dataset, backbone))
        if step is None:
            return {}
        path = step.folder / f"{kind}.json" if kind else step.outputs[0]
        if path not in self._facts:
            try:
                self._facts[path] = Manifest.read(path).facts
            except RadprobeError:
                self._facts[path] = {}
        return self._facts[path]

    def device(self, dataset: str, backbone: str) -> str:
        """Return what computed the features of a cell, or trained it where it has no features of its own."""
        verb = self.study.predicting(dataset, backbone) or "embed"
        found = self.facts("embed", dataset, backbone).get("device") or self.facts(verb, dataset, backbone).get(
            "device"
        )
        return found or "an unknown device"

    def images(self, dataset: str) -> tuple[Index, Pixels, Truth | None]:
        """Return a dataset's index, images and, of a map task, truth; of a few datasets they are kept, once checked.

        Raises RadprobeError where one is absent or broken.
        """
        return self._images(dataset)

    def _load_images(self, dataset: str) -> tuple[Index, Pixels, Truth | None]:
        folder = self.study.step("prepare", dataset).folder
        is_map = self.datasets[dataset].task == "segmentation"
        return Index.load(folder), Pixels.load(folder), Truth.load(folder) if is_map else None

    # --- how far it came ----------------------------------------------------------------------------------------------

    @cached_property
    def cells(self) -> list[Cell]:
        """Every cell of the study, and every comparison, with its state."""
        return [self._cell(dataset, backbone) for dataset, backbone in self._all_cells()]

    def _all_cells(self) -> Iterator[tuple[str, str | None]]:
        for name, entry in self.datasets.items():
            applied = (backbone for backbone in self.study.backbones_here if self.study.applies(name, backbone))
            yield from ((name, backbone) for backbone in applied)
            if entry.task != "look":
                yield name, None

    def _cell(self, dataset: str, backbone: str | None) -> Cell:
        keys: list[tuple[str, str | None, str | None]] = [("weights", None, with_weights(backbone))] if backbone else []
        keys += [(verb, dataset, None) for verb in ("retrieve", "prepare", "split")]
        if backbone:
            keys += [(verb, dataset, backbone) for verb in ("embed", self.study.predicting(dataset, backbone), "score")]
        else:
            keys.append(("compare", dataset, None))
        steps = [self.study.steps[key] for key in keys if key in self.study.steps]
        for step in steps:
            if why := self._broken.get(step.folder):
                return Cell(dataset, backbone, "failed", step, why)
            if not step.done:
                log = log_tail(self.study, step)
                lacking = [need for need in step.dependencies if not need.done]
                waits = f"needs {lacking[0].verb} of {lacking[0].backbone or dataset}" if lacking else "not started"
                return Cell(dataset, backbone, "failed" if log else "not run", step, log or waits)
        return Cell(dataset, backbone, "done", steps[-1])


def _is_whole(step: Step) -> bool:
    """Is a step made, and all that it was made from? Else its result is of something that is no more."""
    return step.done and all(_is_whole(need) for need in step.dependencies)


def log_tail(study: Study, step: Step, most: int = LOG_LINES) -> str:
    """Return the last lines of a step's log, "" where it has none."""
    middle = filter(None, (step.verb, step.dataset, slug(step.backbone or "")))
    path = study.path("work").joinpath("logs", *middle, f"{step.key}.log")
    if not path.is_file():
        return ""
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-most:]) or "ended without a word"
