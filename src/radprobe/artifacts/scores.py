"""Metrics with intervals."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd
import pandera.pandas as pa

from radprobe import manifests
from radprobe.artifacts.split import PARTS
from radprobe.artifacts.tables import number, read_table, reading, write_table
from radprobe.manifests import Place

SCORES_SCHEMA = pa.DataFrameSchema(
    {
        "dataset": pa.Column(str),
        "backbone": pa.Column(str),
        "protocol": pa.Column(str),
        "part": pa.Column(str, pa.Check.isin(PARTS)),
        "metric": pa.Column(str),  # auroc, auprc, dsc, dsc_pooled, ...
        "class": pa.Column(str),  # a class, or "macro"
        "value": number(),  # NaN = undefined, never 0
        "low": number(),  # 95 % interval; NaN under 10 patients
        "high": number(),
        "n_patients": pa.Column(int, coerce=True),
        "n_samples": pa.Column(int, coerce=True),
        "n_classes": pa.Column(int, coerce=True),  # classes that are defined, for macro rows
        "note": pa.Column(str),  # why a value or an interval is missing
        "seed": pa.Column(int, coerce=True),
        "seconds": number(),  # of embedding and fitting
        "peak_gb": number(),
        "trained_parameters": number(),  # head and decoder included; NaN where nothing is trained
        "trained_share": number(),  # of all parameters, backbone and head
        "n_fits": pa.Column(int, coerce=True),  # with different seeds; `value` is that of the first
        "seed_sd": number(),  # standard deviation of the value over these fits; NaN where it is one
        "seed_low": number(),  # the least and the most of them
        "seed_high": number(),
        "best_epoch": number(),  # that val chose; NaN where there are no epochs to choose from
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
    draws: pd.DataFrame | None = None  # few-shot, on test: FewShotScores.COLUMNS, metric, value (macro), n_classes
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
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
        tables = {name: read_table(Path(folder) / name) for name in manifest.files}
        with reading(path := Path(folder) / "scores.parquet"):
            return cls(
                tables[path.name], tables.get("cases.parquet"), tables.get("draws.parquet"), facts=manifest.facts
            )
