"""Which figures a study has, known before anything has run: the graph and the stage both ask here."""

from collections.abc import Iterator
from dataclasses import dataclass

from radprobe.names import mode_of
from radprobe.study import Study

FORMATS = ("svg", "pdf")
# How each kind of figure is called; of every kind but the last two there is one a dataset.
KINDS = {
    "scores": "Scores of the backbones",
    "few_shot": "Few-shot curves",
    "adaptation": "Trained share and score",
    "frontier": "Time and score",
    "features": "Patch features (PCA)",
    "ranks": "Ranks across tasks, frozen",
    "ranks_trained": "Ranks across tasks, trained",
}
PICTURED = ("segmentation", "look")  # tasks whose images are looked at


@dataclass(frozen=True)
class Figure:
    """One figure: its kind, and the dataset it is of, None where it is of all."""

    kind: str
    dataset: str | None = None

    @property
    def name(self) -> str:
        """Its file in the folder figures, without the ending."""
        return f"{self.dataset}_{self.kind}" if self.dataset else self.kind


def of(study: Study) -> list[Figure]:
    """Return the figures of a study, by kind and then by dataset."""
    return list(_figures(study))


def _figures(study: Study) -> Iterator[Figure]:
    tasks = {name: study.dataset(name).task for name in study.datasets_here}
    scored = [name for name, task in tasks.items() if task != "look"]
    yield from (Figure("scores", name) for name in scored)
    yield from (Figure("few_shot", name) for name in _drawn(study))
    yield from (Figure("adaptation", name) for name in scored if any(map(mode_of, study.backbones)))
    yield from (Figure("frontier", name) for name in scored)
    pictured = [name for name, task in tasks.items() if task in PICTURED]
    yield from (Figure("features", name) for name in pictured if not hidden(study, name))
    yield Figure("ranks")
    if any(map(mode_of, study.backbones)):
        yield Figure("ranks_trained")


def _drawn(study: Study) -> list[str]:
    """Return the datasets of which the study wants few-shot curves."""
    return list(dict.fromkeys(step.dataset for step in study.steps.values() if step.dataset and step.has_few_shot))


def hidden(study: Study, dataset: str) -> str:
    """Return why pictures of a dataset are not shown, "" where they are."""
    images = study.params.report.images
    if images == "none":
        return "report.images is none"
    return "access to this dataset is gated" if images == "auto" and study.dataset(dataset).gated else ""
