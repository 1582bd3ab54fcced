"""Whether a split can be made of the samples at hand: said in seconds, before anything is hashed or decoded."""

from collections.abc import Callable

from radprobe.artifacts import Index
from radprobe.catalog import Dataset, OfficialLists
from radprobe.splitting import splits


def checker(entry: Dataset, name: str, seed: int, limit: int | None) -> Callable[[Index], None]:
    """Return a function that raises RadprobeError if a split, whole or of a pilot, cannot be made of an Index."""

    def check(index: Index) -> None:
        lists = entry.splits.get("study")
        wholes = [index]
        if limit is not None:
            wholes.append(splits.limited(index, limit, lists if isinstance(lists, OfficialLists) else None))
        for each in wholes if entry.splits else []:
            split = splits.make_split(each, entry.splits[name], name, seed)
            splits.check_parts(split, each, entry.splits, entry.folder is not None)

    return check
