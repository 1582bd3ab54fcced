"""What prepared images depend on."""

from radprobe.catalog import Dataset, DecodeEntry, OfficialLists, PublishedCounts
from radprobe.jobs import Job, JobPart


class Limit(JobPart):
    """The patients of a pilot."""

    patients: int
    lists: OfficialLists | None  # the publisher's lists of parts, of each of which a pilot holds some


class PrepareJob(Job):
    """The images of a dataset, decoded and packed."""

    entry: DecodeEntry
    stored: int  # side of the stored images, pixels
    limit: Limit | None
    max_quarantine: int
    published: PublishedCounts | None


def limit(patients: int | None, entry: Dataset) -> Limit | None:
    """Return the limit of a pilot of `patients`; None for the whole dataset."""
    if patients is None:
        return None
    study = entry.splits.get("study")
    return Limit(patients=patients, lists=study if isinstance(study, OfficialLists) else None)
