"""What a table says besides the image, as features: the shortcut that a good score may hide behind."""

import numpy as np
import pandas as pd
from sklearn.preprocessing import StandardScaler

from radprobe.artifacts import META
from radprobe.files import RadprobeError


def features(table: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """Return columns `meta:<name>` of an Index's table as float32 [n, C].

    Numbers are standardised, and 0 where they are missing; text becomes one column a value. Each has a column that says
    where it is missing, if it is anywhere. Raises RadprobeError on a column that is not there.
    """
    found = []
    for name in columns:
        if META + name not in table:
            known = sorted(column.removeprefix(META) for column in table if column.startswith(META))
            raise RadprobeError(f"metadata {name}", "is no column of this dataset", f"its columns: {', '.join(known)}")
        found += _columns(table[META + name])
    return np.stack(found, 1).astype(np.float32)


def _columns(values: pd.Series) -> list[np.ndarray]:
    missing = values.isna().to_numpy()
    known = values[~missing]
    numbers = pd.to_numeric(known, errors="coerce")
    if len(known) and numbers.notna().all():
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(float)[:, None]
        columns = [np.nan_to_num(StandardScaler().fit_transform(numbers)[:, 0])]
    else:
        columns = [(values == value).to_numpy(float) for value in sorted(known.astype(str).unique())]
    return [*columns, missing.astype(float)] if missing.any() or not columns else columns
