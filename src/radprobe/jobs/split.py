"""What a split depends on."""

from pydantic import Field

from radprobe.catalog import SplitRecipe
from radprobe.jobs import Job
from radprobe.params import LeakException


class SplitJob(Job):
    """The parts (or folds) of a dataset, and what they may share."""

    dataset: str
    name: str
    recipe: SplitRecipe
    seed: int
    leaks_allowed: list[LeakException]
    published: dict[str, int]  # cases of each part of the study's split; {} if none is published
    others: list[str] = Field(exclude=True)  # the other splits of the dataset, for messages
    own: bool = Field(exclude=True)  # an own folder, for messages
