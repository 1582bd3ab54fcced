"""The job of `score`: what the scores of a backbone on a dataset depend on, besides its predictions and the truth."""

from typing import Self

from radprobe.catalog import PRIMARY_METRIC, Dataset, Task
from radprobe.jobs import Job
from radprobe.metrics.options import Bootstrap
from radprobe.params import Params


class ScoreJob(Job):
    """The statistics of one backbone on one dataset."""

    dataset: str
    backbone: str
    task: Task
    metric: str  # the primary one
    tolerance: float | None  # of surface metrics; None unless label maps are scored
    intervals: Bootstrap
    seed: int  # of the fits, which the scores state

    @classmethod
    def of(cls, dataset: str, backbone: str, entry: Dataset, params: Params) -> Self:
        """Return the job of a cell."""
        tolerance = entry.tolerance.value if entry.task == "segmentation" and entry.tolerance else None
        return cls(
            dataset=dataset,
            backbone=backbone,
            task=entry.task,
            metric=PRIMARY_METRIC[entry.task],
            tolerance=tolerance,
            intervals=intervals(dataset, params),
            seed=params.seed,
        )


def intervals(dataset: str, params: Params) -> Bootstrap:
    """Return how the intervals of a dataset are made."""
    split = params.datasets[dataset].split
    return Bootstrap(
        resamples=params.score.resamples,
        seed=params.score.seed,
        min_patients=params.score.min_patients,
        folds=1 if isinstance(split, str) else split.folds,
    )
