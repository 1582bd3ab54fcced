"""Is a difference real? Two backbones on the same resampled patients: what both find hard cancels out."""

import itertools
from collections.abc import Sequence

import numpy as np

from radprobe.metrics.resampling import Resampled


def pairs(every: dict[str, Resampled]) -> list[dict]:
    """Return, for every two names, the difference of their statistics with a paired 95 % interval.

    The statistics must be of the same patients, numbered alike, in the same resamples. Intervals are per pair, not
    corrected for the number of pairs; `p` is two-sided, from the same resamples, and `p_holm` is corrected (Holm 1979)
    within this family of pairs. `effect` is the difference in standard deviations of a single patient's: the
    difference over its standard error and the root of the number of patients (Cohen's d of paired samples).
    """
    found = [_pair(name, other, every[name].minus(every[other])) for name, other in itertools.combinations(every, 2)]
    for row, adjusted in zip(found, holm([row["p"] for row in found]), strict=True):
        row["p_holm"] = adjusted
    return found


def _pair(name: str, other: str, apart: Resampled) -> dict:
    found, error = difference(apart), apart.standard_error
    known = not np.isnan(found["low"])
    return {
        "backbone": name,
        "other": other,
        **found,
        "effect": found["difference"] / error / np.sqrt(apart.patients) if known and error > 0 else np.nan,
        "p": p_value(apart.drawn) if known else np.nan,
    }


def difference(apart: Resampled) -> dict:
    """Return a difference of two statistics (`Resampled.minus`) with its interval, as a row."""
    low, high, note = apart.interval()
    note = "undefined: a score is undefined" if np.isnan(apart.point) else note
    return {"difference": float(apart.point), "low": low, "high": high, "n_patients": apart.patients, "note": note}


def p_value(drawn: np.ndarray) -> float:
    """Return the two-sided bootstrap p-value that a difference is 0: twice the rarer side of it, never 0.

    (1 + the resamples at or beyond 0 on that side) / (1 + all resamples), as Davison and Hinkley 1997, ch. 4, count.
    """
    defined = drawn[~np.isnan(drawn)]
    rarer = min((defined <= 0).sum(), (defined >= 0).sum())
    return float(min(1.0, 2 * (1 + rarer) / (1 + len(defined))))


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down rule (1979); NaN counts for none and stays."""
    values = np.asarray(values, float)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    stepped = np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1))
    adjusted = np.full(len(values), np.nan)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted.tolist()
