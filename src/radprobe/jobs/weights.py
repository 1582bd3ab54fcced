"""What verified weights depend on."""

from typing import Any

from radprobe.catalog import WeightsEntry
from radprobe.jobs import Job, JobPart


class AdapterFacts(JobPart):
    """What an adapter says of itself, and which entry its backbone has."""

    facts: dict[str, Any]  # as the header of its file says
    base: WeightsEntry


class WeightsJob(Job):
    """The weights of one backbone: found, fetched, converted, or made from an adapter."""

    backbone: str
    identity: str  # SHA-256 of the file, or the revision of the hub that holds it
    entry: WeightsEntry
    seed: int | None  # of a random initialisation
    adapter: AdapterFacts | None = None
