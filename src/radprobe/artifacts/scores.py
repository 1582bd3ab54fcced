"""Metrics with intervals."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd
import pandera.pandas as pa

from radprobe import manifests
from radprobe.artifacts.split import PARTS
from radprobe.artifacts.tables import read_table, reading, write_table
from radprobe.manifests import Place

NUMBER = {"coerce": True, "nullable": True}
SCORES_SCHEMA = pa.DataFrameSchema(
    {
        "dataset": pa.Column(str),
        "backbone": pa.Column(str),
        "protocol": pa.Column(str),
        "part": pa.Column(str, pa.Check.isin(PARTS)),
        "metric": pa.Column(str),  # auroc, auprc, dsc, dsc_pooled, ...
        "class": pa.Column(str),  # a class, or "macro"
        "value": pa.Column(float, **NUMBER),  # NaN = undefined, never 0
        "low": pa.Column(float, **NUMBER),  # 95 % interval; NaN under 10 patients
        "high": pa.Column(float, **NUMBER),
        "n_patients": pa.Column(int, coerce=True),
        "n_samples": pa.Column(int, coerce=True),
        "n_classes": pa.Column(int, coerce=True),  # classes that are defined, for macro rows
        "note": pa.Column(str),  # why a value or an interval is missing
        "seed": pa.Column(int, coerce=True),
        "seconds": pa.Column(float, **NUMBER),  # of embedding and fitting
        "peak_gb": pa.Column(float, **NUMBER),
        "trained_parameters": pa.Column(float, **NUMBER),  # head and decoder included; NaN where nothing is trained
        "trained_share": pa.Column(float, **NUMBER),  # of all parameters, backbone and head
        "n_fits": pa.Column(int, coerce=True),  # with different seeds; `value` is that of the first
        "seed_sd": pa.Column(float, **NUMBER),  # standard deviation of the value over these fits; NaN where it is one
        "seed_low": pa.Column(float, **NUMBER),  # the least and the most of them
        "seed_high": pa.Column(float, **NUMBER),
        "best_epoch": pa.Column(float, **NUMBER),  # that val chose; NaN where there are no epochs to choose from
        "key": pa.Column(str),  # of the Predictions
    },
    strict=True,
)


@dataclass
class Scores:
    """Tidy scores: one row a metric and class, as SCORES_SCHEMA says. `cases` holds per-case values (segmentation)."""

    KIND: ClassVar[str] = "scores"
    table: pd.DataFrame
    cases: pd.DataFrame | None = None  # protocol, part, case_id, patient_id, metric, class, value
    draws: pd.DataFrame | None = None  # few-shot, on test: FewShot.COLUMNS, metric, value (macro), n_classes
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        self.table = SCORES_SCHEMA.validate(self.table)

    def save(self, place: Place) -> None:
        """Write scores.parquet, where there are any cases.parquet and draws.parquet, and scores.json."""
        tables = {"scores": self.table, "cases": self.cases, "draws": self.draws}
        names = [f"{name}.parquet" for name, table in tables.items() if table is not None]
        for name in names:
            write_table(place.folder / name, tables[Path(name).stem])
        manifests.seal(place, self.KIND, self.facts, names)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read and validate it."""
        manifest = manifests.unseal(folder, cls.KIND)
        names = [f"{name}.parquet" for name in ("scores", "cases", "draws")]
        tables = [read_table(Path(folder) / name) if name in manifest.files else None for name in names]
        with reading(Path(folder) / names[0]):
            return cls(*tables, manifest.facts)
