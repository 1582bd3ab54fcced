"""The job of `external`: what Predictions that were made elsewhere depend on, besides the split and the truth."""

from typing import Literal, Self

from radprobe.catalog import Dataset
from radprobe.jobs import Job

Scale = Literal["auto", "probability", "logit", "score"]


class ScoreColumns(Job):
    """How the columns of a CSV of scores are read."""

    classes: tuple[str, ...]  # of the dataset, in order
    other_classes: tuple[str, ...]  # of lists that other studies choose: their columns are no mistake
    scale: Scale
    is_exclusive: bool  # one class is true of each case


class ExternalJob(Job):
    """The predictions of one row from elsewhere."""

    dataset: str
    backbone: str
    content: str | None  # identity of the file or folder; None if nothing is there
    columns: ScoreColumns | None  # None: label maps

    @classmethod
    def of(cls, dataset: str, backbone: str, entry: Dataset, scale: Scale, content: str | None) -> Self:
        """Return the job of a row whose scores are on a scale."""
        columns = None
        if entry.task != "segmentation":
            others = [name for names in entry.class_sets.values() for name in names]
            columns = ScoreColumns(
                classes=tuple(entry.classes),
                other_classes=tuple(dict.fromkeys(name for name in others if name not in entry.classes)),
                scale=scale,
                is_exclusive=entry.task == "multiclass",
            )
        return cls(dataset=dataset, backbone=backbone, content=content, columns=columns)
