"""What the list of raw files and the whole Index depend on."""

from typing import Literal

from radprobe.catalog import RawEntry
from radprobe.jobs import Job
from radprobe.params import Phantom


class RetrieveJob(Job):
    """The raw download of a dataset, wherever it lies: its files, and one row per sample."""

    fingerprint: str  # of the files; datasets.identity
    entry: RawEntry
    phantom: Phantom | None  # it is generated
    allow_missing: bool
    uncertain: Literal["zeros", "ones", "ignore"]  # what a label of -1 means
