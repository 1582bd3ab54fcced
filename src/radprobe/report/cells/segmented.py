"""What a cell page shows of the label maps of test: DSC case by case, and the worst cases with their pictures."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from radprobe.metrics.classification import MACRO
from radprobe.report import words
from radprobe.report.cells import charts
from radprobe.report.cells.classified import CASES, PANELS

WORST = 6  # cases
DOTTED = 60  # cases up to which each has a dot
METRIC = "dsc"


def show(
    cases: pd.DataFrame, classes: Sequence[str], few: Sequence[str], picture: Callable[[str], str] | None, pictures: int
) -> dict[str, Any]:
    """Return what the page shows of the per-case values of one protocol on test.

    few: classes of too few patients. picture: makes the picture of a case, None where none may be shown; `pictures`
    is how many.
    """
    values = cases[cases["metric"] == METRIC].pivot(index="case_id", columns="class", values="value")
    patients = cases.drop_duplicates("case_id").set_index("case_id")["patient_id"]
    names = [name for name in classes if name in values and name != MACRO]
    worst = values[MACRO].dropna().sort_values(kind="stable").index[:WORST]
    lines = [_line(values, patients, case, [MACRO, *names]) for case in worst]
    drawn = (
        [(case, picture(case), words.number(values.loc[case, MACRO])) for case in worst[:pictures]] if picture else []
    )
    return {
        "panels": [_panel(values[name], name) for name in (MACRO, *names[:PANELS])],
        "left": len(names) - len(names[:PANELS]),
        "worst": {"heads": ["case", "patient", MACRO, *names], "lines": lines},
        "pictures": drawn,
        "cases": _cases(values, patients, names, few) if few else None,
    }


def _panel(values: pd.Series, name: str) -> dict[str, Any]:
    """Return the DSC of each case that has one, sorted."""
    known = np.sort(values.dropna().to_numpy())
    if not len(known):
        return {"name": name, "svg": None, "why": "absent from truth and prediction in every case"}
    chart = charts.Chart(charts.fitted("cases, sorted", np.array([1, len(known)]), is_count=True), charts.share("DSC"))
    points = np.column_stack([np.arange(1, len(known) + 1), known])
    chart.line(points)
    if len(known) <= DOTTED:
        chart.dots(points)
    low, middle, high = (words.number(each) for each in (known[0], np.median(known), known[-1]))
    panel = {"name": name, "why": "", "ends": f"{low} – {middle} – {high}", "n": len(known), "of": len(values)}
    return {
        **panel,
        "svg": chart.svg(f"DSC of {name} in {len(known)} cases, sorted: from {low}, median {middle}, to {high}"),
    }


def _line(values: pd.DataFrame, patients: pd.Series, case: str, names: Sequence[str]) -> tuple[str, ...]:
    numbers = (values.loc[case, name] for name in names)
    return case, patients[case], *("–" if np.isnan(each) else words.number(each) for each in numbers)


def _cases(values: pd.DataFrame, patients: pd.Series, names: Sequence[str], few: Sequence[str]) -> dict[str, Any]:
    """Return every test case with the DSC of the classes that are of too few patients."""
    wanted = [name for name in (MACRO, *names) if MACRO in few or name in few]
    there = values.index[values[wanted].notna().any(axis=1)]
    lines = [_line(values, patients, case, wanted) for case in there[:CASES]]
    return {"heads": ["case", "patient", *wanted], "lines": lines, "left": len(there) - len(lines), "what": "DSC."}
