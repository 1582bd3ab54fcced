"""What a cell page shows of the predictions of a classifier on test, at the thresholds of val."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from radprobe.artifacts import Predictions
from radprobe.metrics import calibration, curves, operating
from radprobe.metrics.classification import MACRO
from radprobe.metrics.resampling import patients_of
from radprobe.metrics.scoring import Classified
from radprobe.report import words
from radprobe.report.cells import charts
from radprobe.report.cells.told import Rows
from radprobe.report.ranking import Estimate, estimate

PANELS = 20  # classes that have curves, at most: a page is to stay small
WORST = 10  # mistakes of each kind
CASES = 300  # that are listed one by one, at most
LARGEST = 9.0  # radius of the dot of a bin that holds every sample


class Test:
    """One protocol's scores of test [n, classes]: how likely each class is said to be, and which are called."""

    def __init__(self, predictions: Predictions, protocol: str):
        facts = predictions.protocol(protocol)
        test = Classified(predictions, protocol, "test")
        val = None if predictions.rows(protocol, "val").empty else Classified(predictions, protocol, "val")
        made = test.called(val, facts)
        self.classes = predictions.classes
        self.ids = test.samples["id"].to_numpy()
        self.patients = test.samples["patient_id"].to_numpy()
        self.scores = test.scores
        self.targets = test.targets
        self.folds = np.ones(len(test.samples), int) if test.folds is None else test.folds
        self.at = made.at
        self.probability = made.probability
        self.positive = made.positive
        self.has_val = val is not None
        is_probability = not np.isnan(made.probability).all()
        self.said = made.probability if is_probability else self.scores  # scores from elsewhere may be on any scale
        self.said_as = "probability stated" if is_probability else "score"
        self.undecided = made.undecided
        self.exclusive = calibration.exclusive(facts)
        self.known = (self.targets == 0) | (self.targets == 1)


def show(predictions: Predictions, protocol: str, rows: Rows, few: Sequence[str]) -> dict[str, Any]:
    """Return what the page shows of a protocol whose scores on test are `rows`; `few`: classes of too few patients."""
    test = Test(predictions, protocol)
    said = {(row["metric"], row["class"]): estimate(row, "value") for row in rows}
    shown = _shown(test)
    return {
        "curves": [_curves(test, column, said) for column in shown],
        "calibration": [*_of_likeliest(test, said), *(_of_class_said(test, column, said) for column in shown)],
        "recalibrated": _recalibrated(said),
        "left": len(test.classes) - len(shown),
        "matrix": _matrix(test) if test.exclusive else None,
        "counts": None if test.exclusive else _counts(test),
        "mistakes": _mistakes(test),
        "cases": _cases(test, few) if few else None,
    }


def _shown(test: Test) -> list[int]:
    """Return the classes that have curves: all, or those with most positives."""
    order = np.argsort(-(test.targets == 1).sum(0), kind="stable")[:PANELS]
    return sorted(order.tolist())


def _curves(test: Test, column: int, said: dict[tuple[str, str], Estimate]) -> dict[str, Any]:
    """Return the ROC and precision-recall curve of a class, or why there is none."""
    name, scores, targets = test.classes[column], test.scores[:, column], test.targets[:, column]
    found = {key: said[key, name] for key in ("auroc", "auprc")}
    ranked = [test.folds == fold for fold in np.unique(test.folds)]  # together: they are scores of one fit
    rocs = [roc for rows in ranked if len(roc := curves.roc(scores[rows], targets[rows]))]
    panel: dict[str, Any] = {"name": name, "auroc": words.text(found["auroc"]), "auprc": words.text(found["auprc"])}
    panel |= {"roc": None, "pr": None, "why": ""}
    if not rocs:
        return {**panel, "why": found["auroc"].note}
    chart = charts.Chart(charts.share("1 − specificity"), charts.share("sensitivity"))
    chart.line(np.array([[0, 0], [1, 1]]), "ref")
    for roc in rocs:
        chart.line(roc)
    panel["roc"] = chart.svg(f"ROC curve of {name}: AUROC {panel['auroc']}")
    share = (targets == 1).sum() / test.known[:, column].sum()
    chart = charts.Chart(charts.share("recall"), charts.share("precision"))
    chart.line(np.array([[0, share], [1, share]]), "ref")
    for rows in ranked:
        chart.line(curves.precision_recall(scores[rows], targets[rows]))
    panel["pr"] = chart.svg(f"Precision and recall of {name}: AUPRC {panel['auprc']}, share of positives {share:.3f}")
    return panel


Said = dict[tuple[str, str], Estimate]  # by metric and class


def _of_likeliest(test: Test, said: Said) -> list[dict[str, Any]]:
    """Return the reliability diagram of the likeliest class, if one class is true of each sample; else none."""
    if not test.exclusive:
        return []
    stated, true = calibration.top_label(test.probability, test.targets)
    return [_diagram(test, "likeliest class", (stated, true), [_told(said, "ece", MACRO), _told(said, "brier", MACRO)])]


def _of_class_said(test: Test, column: int, said: Said) -> dict[str, Any]:
    """Return the reliability diagram of a class; its ECE is told unless one class is true of each sample."""
    name = test.classes[column]
    texts = [_told(said, metric, name) for metric in ("ece", "brier") if (metric, name) in said]
    return _diagram(test, name, (test.probability[:, column], test.targets[:, column]), texts)


def _told(said: Said, metric: str, name: str) -> str:
    return f"{words.metric(metric)} {words.text(said[metric, name])}"


def _diagram(test: Test, name: str, stated: tuple[np.ndarray, np.ndarray], texts: list[str]) -> dict[str, Any]:
    """Return a reliability diagram of probabilities and targets [n]: a dot a bin of ECE, its area by its samples."""
    panel = {"name": name, "texts": texts, "svg": None}
    if test.said is test.scores:
        return {**panel, "texts": [f"–, {calibration.NO_PROBABILITY}"]}
    found = calibration.reliability(*stated, patients_of(test.patients)[0])
    if not len(found.n):
        return {**panel, "texts": ["–, fewer than 2 samples with a label"]}
    chart = charts.Chart(charts.share("probability stated"), charts.share("share that is true"))
    chart.line(np.array([[0, 0], [1, 1]]), "ref")
    points = np.column_stack([found.probability, found.share])
    chart.line(points)
    chart.dots(points, np.maximum(LARGEST * np.sqrt(found.n / found.n.sum()), 1.2), "bin")
    label = f"Reliability of {name}: {', '.join(texts)}; {len(found.n)} bins of equal mass"
    return {**panel, "svg": chart.svg(label)}


def _recalibrated(said: Said) -> str:
    """Return what one temperature, fitted on val, makes of the calibration on test; the notes of its rows state it."""
    brier = said["brier_recalibrated", MACRO]
    if not brier.defined:
        return f"Not recalibrated: {brier.note.removeprefix('undefined: ')}."
    told = [_told(said, metric, MACRO) for metric in ("ece_recalibrated", "brier_recalibrated")]
    return f"With one {brier.note.partition(',')[0]}, fitted on val, for all classes, macro: {'; '.join(told)}."


# --- what is called at the thresholds ---------------------------------------------------------------------------------


def _matrix(test: Test) -> dict[str, Any]:
    """Return the samples by true (row) and called (column) class, and each cell's share of its row."""
    known = test.known.all(axis=1)
    true, called = test.targets[known].argmax(1), test.scores[known].argmax(1)
    k = len(test.classes)
    counts = np.bincount(true * k + called, minlength=k * k).reshape(k, k)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    rows = [list(zip(*each, strict=True)) for each in zip(counts.tolist(), shares.round(2).tolist(), strict=True)]
    return {"names": test.classes, "rows": list(zip(test.classes, rows, strict=True))}


def _counts(test: Test) -> list[dict[str, Any]]:
    """Return by class the threshold, true and false positives and negatives, sensitivity and specificity."""
    return [_of_class(test, column) for column in range(len(test.classes))]


def _of_class(test: Test, column: int) -> dict[str, Any]:
    if test.undecided[column]:
        one_label = "val has no positive or no negative of it, so no threshold exists"
        why = one_label if test.has_val else operating.WITHOUT_VAL
        return {"name": test.classes[column], "why": why}
    known = test.known[:, column]
    true, called = test.targets[known, column] == 1, test.positive[known, column]
    tp, fn, fp, tn = (int(each.sum()) for each in (true & called, true & ~called, ~true & called, ~true & ~called))
    return {
        "name": test.classes[column],
        "why": "",
        "threshold": _threshold(test, column),
        "counts": [f"{each:,}" for each in (tp, fn, fp, tn)],
        "rates": [_rate(tp, tp + fn), _rate(tn, tn + fp)],
    }


def _threshold(test: Test, column: int) -> str:
    """Return the threshold of a class, of folds the least and the most."""
    if test.at is None:
        return "–"
    at = np.atleast_2d(test.at)[:, column]
    return " to ".join(dict.fromkeys(f"{each:.4g}" for each in (at.min(), at.max())))


def _rate(over: int, under: int) -> str:
    return words.number(over / under) if under else "–"


def _mistakes(test: Test) -> list[dict[str, Any]]:
    """Return the most confident mistakes, surest first, by kind."""
    if test.exclusive:
        called = test.scores.argmax(1)
        rows = np.arange(len(called))
        wrong = test.known.all(axis=1) & (test.targets[rows, called] != 1)
        rows = rows[wrong][np.argsort(-test.scores[rows, called][wrong], kind="stable")][:WORST]
        lines = [(*_case(test, row), *_verdict(test, row, int(called[row]))) for row in rows.tolist()]
        heads = ["case", "patient", "truth", "called", test.said_as]
        return [{"title": "Called wrongly, surest first", "heads": heads, "lines": lines, "n": int(wrong.sum())}]
    undecided = test.undecided
    false = {1: test.positive & (test.targets == 0), 0: ~test.positive & (test.targets == 1)}
    titles = {1: "Called positive, and are not: surest first", 0: "Positive, and not called so: surest first"}
    return [_kind(test, titles[sign], wrong & ~undecided, sign) for sign, wrong in false.items()]


def _verdict(test: Test, row: int, called: int) -> tuple[str, str, str]:
    """Return the true class of a sample, the one that it was called, and how likely that was said to be."""
    return (
        test.classes[int(test.targets[row].argmax())],
        test.classes[called],
        words.number(test.said[row, called]),
    )


def _kind(test: Test, title: str, wrong: np.ndarray, sign: int) -> dict[str, Any]:
    """Return mistakes [n, classes] of one kind, by the probability of what was called, then by id."""
    rows, columns = np.nonzero(wrong)
    sure = test.said[rows, columns] if sign else -test.said[rows, columns]
    order = np.lexsort((rows, -sure))[:WORST]
    lines = [
        (*_case(test, row), test.classes[column], words.number(test.said[row, column]))
        for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True)
    ]
    heads = ["case", "patient", "class", test.said_as]
    return {"title": title, "heads": heads, "lines": lines, "n": len(rows)}


def _case(test: Test, row: int) -> tuple[str, str]:
    return str(test.ids[row]), str(test.patients[row])


def _cases(test: Test, few: Sequence[str]) -> dict[str, Any]:
    """Return every test case with the probability said and the truth of the classes that are of too few patients."""
    columns = [place for place, name in enumerate(test.classes) if MACRO in few or name in few]
    there = np.flatnonzero(test.known[:, columns].any(axis=1))
    lines = [(*_case(test, row), *(_said(test, row, column) for column in columns)) for row in there[:CASES].tolist()]
    heads = ["case", "patient", *(test.classes[column] for column in columns)]
    what = f"In each cell the {test.said_as}, and the truth: + has it, − has it not."
    return {"heads": heads, "lines": lines, "left": len(there) - len(lines), "what": what}


def _said(test: Test, row: int, column: int) -> str | Markup:
    if not test.known[row, column]:
        return "–"
    return f"{words.number(test.said[row, column])} {'+' if test.targets[row, column] == 1 else '−'}"
