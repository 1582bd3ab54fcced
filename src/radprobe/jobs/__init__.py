"""Jobs: for each verb a frozen model of exactly what its output depends on, catalog facts included.

`study` builds them from params and catalog, and a digest of a job is its key. A stage is `run(job, inputs, runtime)`:
`inputs` are the folders of what it reads and the place it writes to, `runtime` is what its output must not depend on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from radprobe.catalog import Dataset
from radprobe.manifests import Place

if TYPE_CHECKING:  # the graph needs no table
    from radprobe.artifacts import Index

Task = Literal["multilabel", "binary", "multiclass", "segmentation", "look"]


class JobPart(BaseModel):
    """A part of a job."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Job(JobPart):
    """What the output of one verb depends on. Two equal jobs of a verb, on equal inputs, write the same bytes."""


@dataclass(frozen=True)
class Input:
    """The folder that an earlier job filled."""

    verb: str
    backbone: str | None
    folder: Path


@dataclass(frozen=True)
class Inputs:
    """Where a job reads and writes."""

    place: Place
    steps: tuple[Input, ...]

    def folder(self, verb: str) -> Path:
        """Return the folder of the one input of a verb."""
        (found,) = (each.folder for each in self.steps if each.verb == verb)
        return found

    def by_backbone(self) -> dict[str, Path]:
        """Return the folders of the inputs that belong to a backbone."""
        return {each.backbone: each.folder for each in self.steps if each.backbone is not None}


@dataclass(frozen=True)
class Runtime:
    """What a job may use and its output must not depend on: devices, batches of inference, paths, the network."""

    device: Literal["auto", "cpu", "cuda"]
    threads: int
    batch_size: int  # images per forward pass of a frozen backbone
    shard_rows: int
    max_dense_cache_gb: float
    raw: Path | None  # the raw folder of the job's dataset
    weights_file: Path | None  # the local file of the job's backbone
    remedy: str  # how a person gets the raw data of the job's dataset, or the weights of its backbone
    predictions: Path | None  # the file or folder of a row from elsewhere
    may_fetch: bool  # may weights be fetched from the hub
    download: Dataset | None  # the entry of a benchmark that is to be fetched
    check_split: Callable[["Index"], None] | None  # raises RadprobeError if the split cannot be made
