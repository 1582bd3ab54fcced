"""Paired differences between backbones."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd
import pandera.pandas as pa

from radprobe import manifests
from radprobe.artifacts.tables import number, read_table, write_table
from radprobe.manifests import Place

COMPARISON_SCHEMA = pa.DataFrameSchema(
    {
        "dataset": pa.Column(str),
        "protocol": pa.Column(str),
        "metric": pa.Column(str),  # the dataset's primary metric, macro, test part
        "backbone": pa.Column(str),
        "other": pa.Column(str),
        "difference": number(),  # backbone minus other, on the same test patients
        "low": number(),  # 95 % interval, simultaneous over all pairs of the dataset and protocol
        "high": number(),
        "p": number(),  # two-sided, corrected for all pairs of the dataset and protocol (max-T)
        "p_delong": number(),  # not corrected; AUROC where each patient has one sample, else NaN
        "standard_error": number(),  # of the difference, seeds and inits included
        "needed": number(),  # test patients that detect facts["margin"] at 80 % power
        "needed_low": number(),  # 95 % range of that number
        "needed_high": number(),
        "n_patients": pa.Column(int, coerce=True),
        "note": pa.Column(str),
    },
    strict=True,
)


ROWS_SCHEMA = pa.DataFrameSchema(
    {
        "dataset": pa.Column(str),
        "protocol": pa.Column(str),
        "metric": pa.Column(str),
        "backbone": pa.Column(str),  # random:<id> stands for the mean of its inits
        "value": number(),
        "low": number(),  # 95 % interval of this row alone
        "high": number(),
        "corrected": number(),  # of the best row: corrected for having been chosen; else NaN
        "corrected_low": number(),
        "corrected_high": number(),
        "may_be_best": pa.Column(bool, coerce=True),  # no candidate is significantly higher; controls never
        "n_inits": pa.Column(int, coerce=True),
        "init_sd": number(),  # between inits; NaN where there is one
        "n_patients": pa.Column(int, coerce=True),
        "note": pa.Column(str),
    },
    strict=True,
)


VARIANTS_SCHEMA = pa.DataFrameSchema(
    {
        "dataset": pa.Column(str),
        "backbone": pa.Column(str),  # ours ...
        "protocol": pa.Column(str),
        "metric": pa.Column(str),
        "other_backbone": pa.Column(str),  # ... and made as the study did
        "other_protocol": pa.Column(str),
        "other_metric": pa.Column(str),
        "difference": number(),  # the other less ours, macro, on the same test patients
        "low": number(),
        "high": number(),
        "n_patients": pa.Column(int, coerce=True),
        "note": pa.Column(str),
    },
    strict=True,
)


@dataclass
class Comparison:
    """Paired differences on the same resampled test patients of a dataset.

    `table` holds those of every two rows, `rows` the rows themselves, `variants` the differences between ours and what
    is made as the paper did (the pairs of deviations.yaml; no controls). facts["margin"]: the difference that
    `needed` patients detect.
    """

    KIND: ClassVar[str] = "comparison"
    table: pd.DataFrame
    variants: pd.DataFrame
    rows: pd.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.table = COMPARISON_SCHEMA.validate(self.table)
        self.variants = VARIANTS_SCHEMA.validate(self.variants)
        self.rows = ROWS_SCHEMA.validate(self.rows)

    def save(self, place: Place) -> None:
        """Write comparison.parquet, variants.parquet, rows.parquet and comparison.json."""
        tables = {"comparison": self.table, "variants": self.variants, "rows": self.rows}
        for name, table in tables.items():
            write_table(place.folder / f"{name}.parquet", table)
        manifests.seal(place, self.KIND, self.facts, [f"{name}.parquet" for name in tables])

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read and validate it."""
        facts = manifests.unseal(folder, cls.KIND).facts
        table = read_table(Path(folder) / "comparison.parquet", COMPARISON_SCHEMA)
        variants = read_table(Path(folder) / "variants.parquet", VARIANTS_SCHEMA)
        rows = read_table(Path(folder) / "rows.parquet", ROWS_SCHEMA)
        return cls(table, variants, rows, facts)
