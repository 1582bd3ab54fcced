"""What the scores of the cheap heads on one backbone's features of one dataset depend on."""

from radprobe.catalog import Dataset
from radprobe.jobs import Job, Task
from radprobe.params import Params, Probe


class ProbeJob(Job):
    """All cheap heads on the frozen features of one dataset and backbone."""

    dataset: str
    backbone: str
    task: Task
    seed: int
    threads: int
    repeats: int  # fits of the chosen linear heads, each with a seed of its own
    heads: Probe

    @classmethod
    def of(cls, params: Params, entry: Dataset, backbone: str, *, few_shot: bool) -> "ProbeJob":
        """Return the job of a backbone on a dataset, with few-shot draws or without."""
        left_out: dict[str, None] = {} if few_shot else {"few_shot": None}
        if entry.task != "multilabel":
            left_out["mlknn"] = None
        return cls(
            dataset=entry.id,
            backbone=backbone,
            task=entry.task,
            seed=params.seed,
            threads=params.threads,
            repeats=params.repeats,
            heads=params.probe.model_copy(update=left_out),
        )
