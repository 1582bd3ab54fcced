"""Scores of few-shot draws."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pandas as pd

from radprobe.artifacts.tables import read_array, read_table, write_array, write_table


@dataclass
class FewShotScores:
    """What heads that saw few patients say of the test part, draw by draw.

    table: one row a draw: protocol, shots (patients, or patients a class; 0 means all), draw, n_patients and n_samples
    that were drawn, note. scores: of classification float32 [draws, n test cases, classes], cases in the order of
    sample_id, NaN where a class could not be learnt from a draw; of segmentation pixels at the stored size by true
    (row) and predicted (column) label, int64 [draws, n test cases, K, K], cases sorted.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = ("protocol", "shots", "draw", "n_patients", "n_samples", "note")
    table: pd.DataFrame
    scores: np.ndarray

    def write(self, folder: Path) -> list[str]:
        """Write few_shot.parquet and few_shot.npy; return their names."""
        write_table(folder / "few_shot.parquet", self.table)
        write_array(folder / "few_shot.npy", self.scores)
        return ["few_shot.parquet", "few_shot.npy"]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the table, map the scores."""
        return cls(read_table(folder / "few_shot.parquet"), read_array(folder / "few_shot.npy"))
