"""One row per sample."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import pandera.pandas as pa

from radprobe import manifests
from radprobe.artifacts.tables import read_table, reading, write_table
from radprobe.manifests import Place

LABEL = "label:"
META = "meta:"

INDEX_SCHEMA = pa.DataFrameSchema(
    {
        "sample_id": pa.Column(str, unique=True),  # one per image or slice, sorted
        "patient_id": pa.Column(str),
        "volume_id": pa.Column(str),  # the case that a slice belongs to; the sample itself for films
        "slice": pa.Column(int, pa.Check.ge(0)),  # position in the volume; 0 for films
        "image": pa.Column(str),  # relative to the raw root
        "masks": pa.Column(object),  # list of paths: [] none, [one] a label map, [k] one binary mask per class
        "spacing": pa.Column(object),  # mm per pixel along each axis of the original grid; [] where unknown
        "affine": pa.Column(object),  # slices of volumes: 4x4 row by row, voxel to RAS mm; [] for films
        f"^{LABEL}.+$": pa.Column(float, nullable=True, required=False, regex=True),  # 1, 0, -1 uncertain, NaN blank
        f"^{META}.+$": pa.Column(object, nullable=True, required=False, regex=True),  # age, sex, view: the controls
    },
    strict=True,
    checks=pa.Check(lambda table: table["sample_id"].is_monotonic_increasing, error="rows sorted by sample_id"),
)


@dataclass
class Index:
    """One row per sample, as INDEX_SCHEMA says; label columns `label:<class>` in the catalog's order."""

    KIND: ClassVar[str] = "index"
    table: pd.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)  # partial, n_listed, n_absent, limit, quarantine, ...

    def __post_init__(self) -> None:
        self.table = INDEX_SCHEMA.validate(self.table)

    @property
    def classes(self) -> list[str]:
        """Names of the label columns, in order."""
        return [name.removeprefix(LABEL) for name in self.table.columns if name.startswith(LABEL)]

    def labels(self) -> np.ndarray:
        """Return the labels 1, 0 or NaN (ignored), float32 [n, classes].

        What uncertain (-1) and blank labels count as is stated in facts: zeros, ones or ignore; by default ignore.
        """
        labels: np.ndarray = self.table[[LABEL + name for name in self.classes]].to_numpy(np.float32, copy=True)
        meaning = {"zeros": 0, "ones": 1, "ignore": np.nan}
        blank, uncertain = np.isnan(labels), labels == -1
        labels[blank] = meaning[self.facts.get("blank", "ignore")]
        labels[uncertain] = meaning[self.facts.get("uncertain", "ignore")]
        return labels

    def save(self, place: Place) -> None:
        """Write index.parquet and index.json."""
        write_table(place.folder / "index.parquet", self.table)
        manifests.seal(place, self.KIND, self.facts, ["index.parquet"])

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read and validate it."""
        facts = manifests.unseal(folder, cls.KIND).facts
        table = read_table(path := Path(folder) / "index.parquet")
        with reading(path):
            for column in ("masks", "spacing", "affine"):
                table[column] = table[column].map(list)
            meta = [column for column in table if column.startswith(META)]
            return cls(table.astype(dict.fromkeys(meta, object)), facts)
