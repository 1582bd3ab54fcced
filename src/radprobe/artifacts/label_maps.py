"""Label maps on their original grids, packed in one file."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from radprobe import files
from radprobe.artifacts.tables import read_table, write_table

# case_id, patient_id, part, label map, mm per pixel along each axis ([] where unknown)
LabelCase = tuple[str, str, str, np.ndarray, Sequence[float]]


class LabelMaps:
    """Label maps on their original grids, each deflated, in one file beside a table of offsets.

    Used by Truth and by Predictions of segmentation: `maps[case_id]` is uint8 [H, W] or [X, Y, Z]. Under
    cross-validation a case is in val and in test, with a map in each: `of` one part has each case once.
    """

    def __init__(self, blob: Path, table: pd.DataFrame):
        self.blob, self.table = Path(blob), table.set_index("case_id", drop=False)

    def of(self, part: str) -> Self:
        """Return the maps of one part."""
        return type(self)(self.blob, self.table[self.table["part"] == part].reset_index(drop=True))

    def by_part(self) -> dict[str, Self]:
        """Return the maps of each part that there is."""
        return {part: self.of(part) for part in self.table["part"].unique()}

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[str]:
        return iter(self.table["case_id"])

    def __getitem__(self, case_id: str) -> np.ndarray:
        row = self.table.loc[case_id]
        with self.blob.open("rb") as handle:
            handle.seek(int(row["offset"]))
            packed = handle.read(int(row["bytes"]))
        return np.frombuffer(zlib.decompress(packed), np.uint8).reshape([int(side) for side in row["shape"]])

    def spacing(self, case_id: str) -> list[float]:
        """Return mm per pixel along each axis, [] where unknown."""
        return [float(step) for step in self.table.loc[case_id]["spacing"]]

    def cases(self) -> Iterator[LabelCase]:
        """Yield (case_id, patient_id, part, label map, spacing) as `write` takes them; a case must occur once."""
        for row in self.table.itertuples():
            yield row.case_id, row.patient_id, row.part, self[row.case_id], self.spacing(row.case_id)

    @staticmethod
    def write(folder: Path, name: str, cases: Iterable[LabelCase]) -> list[str]:
        """Stream (case_id, patient_id, part, label map, spacing) to `name`.bin and `name`.parquet; return the names.

        `part` is "" for Truth. A case id occurs once in a part; a Predictions of several protocols writes one `name`
        for each.
        """
        rows, offset = [], 0
        with files.atomic(folder / f"{name}.bin") as temporary, temporary.open("wb") as handle:
            for case_id, patient_id, part, labels, spacing in cases:
                packed = zlib.compress(np.ascontiguousarray(labels, np.uint8).tobytes(), 1)
                handle.write(packed)
                rows.append((case_id, patient_id, part, offset, len(packed), list(labels.shape), list(spacing)))
                offset += len(packed)
        columns = ["case_id", "patient_id", "part", "offset", "bytes", "shape", "spacing"]
        write_table(folder / f"{name}.parquet", pd.DataFrame(rows, columns=columns))
        return [f"{name}.bin", f"{name}.parquet"]

    @classmethod
    def read(cls, folder: Path, name: str) -> Self:
        """Open the maps that `write` made."""
        return cls(Path(folder) / f"{name}.bin", read_table(Path(folder) / f"{name}.parquet"))
