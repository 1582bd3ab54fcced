"""Tables (parquet) and arrays (.npy) on disk: written atomically, read with an error that names the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa

from radprobe import files
from radprobe.files import RadprobeError

Record = dict[str, Any]  # a row of a table, by column; or what a manifest records of a protocol


def number() -> pa.Column:
    """Return a column of numbers, where NaN means undefined."""
    return pa.Column(float, coerce=True, nullable=True)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a parquet table, atomically."""
    with files.atomic(path) as temporary:
        table.to_parquet(temporary, index=False)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy array, atomically (no pickle)."""
    with files.atomic(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, array, allow_pickle=False)


def read_table(path: Path, schema: pa.DataFrameSchema | None = None) -> pd.DataFrame:
    """Read a parquet table. Raises RadprobeError where it is none, or not as its schema says."""
    with reading(path):
        table = pd.read_parquet(path)
        return schema.validate(table) if schema else table


def read_array(path: Path, mapped: bool = True) -> np.ndarray:
    """Read a .npy array, or map it (or its copy on scratch) read-only; no pickle. RadprobeError where it is none."""
    with reading(path):
        return np.lib.format.open_memmap(files.near(path), mode="r") if mapped else np.load(path, allow_pickle=False)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise whatever goes wrong while a file is read as a RadprobeError that names it.

    What is sealed was whole when it was written; a file that somebody else sealed may still be anything.
    """
    try:
        yield
    except RadprobeError:
        raise
    except Exception as error:  # pyarrow and NumPy document no errors for damage
        if isinstance(error, pa.errors.SchemaError | pa.errors.SchemaErrors):
            why = _first_finding(error)
        else:
            why = str(error).partition("\n")[0]
        why = why[:200] or type(error).__name__
        raise RadprobeError(
            path, f"cannot be read ({why})", "remove the folder, and run again: it is re-made"
        ) from None


def _first_finding(error: pa.errors.SchemaError | pa.errors.SchemaErrors) -> str:
    """Say which column fails which check, and a value that does; the text of several findings is JSON."""
    findings = error
    if isinstance(error, pa.errors.SchemaError):
        findings = pa.errors.SchemaErrors(error.schema, [error], error.data)
    column, check, value = findings.failure_cases.iloc[0][["column", "check", "failure_case"]]
    if check in ("column_in_dataframe", "column_in_schema"):  # of those the value is the column's name
        return f"column '{value}' {'is missing' if check == 'column_in_dataframe' else 'is none of the table'}"
    return f"column '{column}' fails {check}: {str(value)!r}" if isinstance(column, str) else f"fails {check}"
