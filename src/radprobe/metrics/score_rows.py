"""The rows of Scores of one protocol: over fits with other seeds, shuffles of labels, and without near-duplicates."""

from collections.abc import Collection

import numpy as np

from radprobe.artifacts.tables import Record
from radprobe.metrics.options import Bootstrap
from radprobe.metrics.scoring import Classified, ScoredCell, Segmented
from radprobe.names import FLOOR

Scored = Classified | Segmented
ONE_FIT: Record = {"n_fits": 1, "seed_sd": np.nan, "seed_low": np.nan, "seed_high": np.nan}
ALL_NEAR: Record = {
    "value": np.nan,
    "low": np.nan,
    "high": np.nan,
    "n_patients": 0,
    "n_samples": 0,
    "n_classes": 0,
    "note": "undefined: every test case looks like a copy of one in another part",
}


def of_test(cell: ScoredCell, protocol: str, test: Scored, val: Scored | None = None) -> list[Record]:
    """Return the rows of test: all metrics, those at val's thresholds, and how far they move over fits with seeds."""
    facts = cell.predictions.protocol(protocol)
    others = cell.predictions.other_fits(protocol)

    def rows(scored: Scored, val: Scored | None, how: Bootstrap) -> list[Record]:
        return scored.rows(how) + _operating(scored, val, facts, how)

    fits = []
    for name in others:
        own_val = cell.scored(name, "val") if protocol == FLOOR else val  # every shuffle has its own thresholds
        fits.append(rows(cell.scored(name, "test"), own_val, cell.how.alone))
    found = over_fits(rows(test, val, cell.how), fits)
    return over_shuffles(found, fits) if protocol == FLOOR and others else found


def _operating(scored: Scored, val: Scored | None, facts: Record, how: Bootstrap) -> list[Record]:
    """Return the rows at the thresholds of val; label maps have none."""
    if not isinstance(scored, Classified):
        return []
    return scored.operating(val if isinstance(val, Classified) else None, facts, how)


def of_val(cell: ScoredCell, protocol: str, val: Scored) -> list[Record]:
    """Return the rows of val: those of the fit that chose, or of all shuffles of the labels."""
    others = cell.predictions.other_fits(protocol) if protocol == FLOOR else []
    fits = [cell.scored(name, "val").rows(cell.how.alone) for name in others]
    rows = over_fits(val.rows(cell.how), fits)
    return over_shuffles(rows, fits) if others else rows


def without_near(cell: ScoredCell, protocol: str, test: Scored, near: Collection[str]) -> list[Record]:
    """Return the rows of the primary metric without near-duplicates, named `<metric>_without_near`; [] without any."""
    ids = set(test.samples["id"])
    if ids.isdisjoint(near):
        return []
    name = f"{cell.metric}_without_near"
    if ids <= set(near):
        rows = _primary(cell, test.rows(cell.how.alone))
        return [{**row, **ONE_FIT, "metric": name, **ALL_NEAR} for row in rows]
    rows = _primary(cell, cell.scored(protocol, "test", near).rows(cell.how))
    others = cell.predictions.other_fits(protocol) if protocol == FLOOR else []
    if others:
        fits = [cell.scored(other, "test", near).rows(cell.how.alone) for other in others]
        rows = over_shuffles(rows, [_primary(cell, fit) for fit in fits])
    return [{**row, **ONE_FIT, "metric": name} for row in rows]


def _primary(cell: ScoredCell, rows: list[Record]) -> list[Record]:
    return [row for row in rows if row["metric"] == cell.metric]


def over_fits(rows: list[Record], others: list[list[Record]]) -> list[Record]:
    """Return rows with how far their values move over fits with other seeds, whose rows are in the same order."""
    found = []
    for row, *of_others in zip(rows, *others, strict=True):
        values = np.array([row["value"], *(each["value"] for each in of_others)])
        moved = {"seed_sd": values.std(ddof=1), "seed_low": values.min(), "seed_high": values.max()} if others else {}
        found.append({**row, **ONE_FIT, **moved, "n_fits": len(values)})
    return found


def over_shuffles(rows: list[Record], others: list[list[Record]]) -> list[Record]:
    """Return rows whose value is the mean over shuffles of the labels, and whose interval is their range.

    `rows` are of the first shuffle, with how far values move over all; `others` are the rows of the other shuffles.
    """
    found = []
    for row, *of_others in zip(rows, *others, strict=True):
        values = np.array([row["value"], *(each["value"] for each in of_others)])
        known = values[~np.isnan(values)]
        if not len(known):
            found.append({**row, "value": np.nan, "low": np.nan, "high": np.nan})
            continue
        note = f"range of {len(values)} shuffles, not over patients"
        if len(known) < len(values):
            note += f"; undefined in {len(values) - len(known)} of them"
        found.append({**row, "value": known.mean(), "low": known.min(), "high": known.max(), "note": note})
    return found


def costs(embedding: Record, protocol: Record) -> Record:
    """Return the seconds of embedding and fitting, the larger of their peaks of memory in GB, and what was trained.

    NaN where a cost is not known, as of predictions from elsewhere.
    """
    trained = protocol.get("parameters", np.nan)
    every = protocol.get("parameters_of_all", embedding.get("parameters", np.nan) + trained)
    return {
        "seconds": embedding.get("seconds", np.nan) + protocol.get("seconds", np.nan),
        "peak_gb": max(embedding.get("peak_gb", np.nan), protocol.get("peak_gb", np.nan)),
        "trained_parameters": trained,
        "trained_share": trained / every if every else np.nan,
        "best_epoch": protocol.get("chosen", {}).get("epochs", np.nan),
    }
