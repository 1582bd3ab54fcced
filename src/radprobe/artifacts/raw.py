"""The raw files of a dataset."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd

from radprobe import manifests
from radprobe.artifacts.tables import read_table, write_table
from radprobe.manifests import Place


@dataclass
class RawManifest:
    """The raw files of a dataset: `table` has path (relative to `root`), bytes, sha256."""

    KIND: ClassVar[str] = "raw"
    root: Path
    variant: str  # the layout found: official, flat, ...
    source: str  # user | download | phantom | package:<name>==<version>
    table: pd.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)  # downloads: url, bytes, sha256 of each file

    def save(self, place: Place) -> None:
        """Write raw.parquet and raw.json."""
        write_table(place.folder / "raw.parquet", self.table)
        facts = {"root": str(self.root), "variant": self.variant, "source": self.source, "n_files": len(self.table)}
        facts["bytes"] = int(self.table["bytes"].sum())
        manifests.seal(place, self.KIND, {**self.facts, **facts}, ["raw.parquet"])

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read it; the raw files themselves are not touched."""
        facts = manifests.unseal(folder, cls.KIND).facts
        table = read_table(Path(folder) / "raw.parquet")
        return cls(Path(facts["root"]), facts["variant"], facts["source"], table, facts)
