"""The scores of few-shot draws on test, and their rows of Scores: one for each number of shots."""

import numpy as np
import pandas as pd

from radprobe.artifacts import FewShotScores, Predictions
from radprobe.artifacts.tables import Record
from radprobe.metrics import classification, segmentation
from radprobe.metrics.score_rows import ONE_FIT
from radprobe.metrics.scoring import Classified


def scores(predictions: Predictions, few_shot: FewShotScores, metric: str, exclusive: bool) -> pd.DataFrame:
    """Return the macro score on test of every few-shot draw, over the classes that the draw could learn.

    `auroc_study` is by the study's definition, if several classes may hold and the draw could learn all of them.
    """
    if predictions.table is None:
        found = [_overlap(counts, metric) for counts in few_shot.scores]
    else:
        tests = Classified(predictions, predictions.protocols[0], "test")
        found = [_ranked(tests, drawn, metric, exclusive) for drawn in few_shot.scores]
    return pd.concat([few_shot.table.reset_index(drop=True), pd.DataFrame(found)], axis=1)


def _ranked(tests: Classified, drawn: np.ndarray, metric: str, exclusive: bool) -> Record:
    """Return the macro AUROC of the scores of a draw [cases, classes]; NaN columns are classes not learnt."""
    patients = tests.table["patient_id"]
    learnt = ~np.isnan(drawn).all(axis=0)
    if not learnt.any():
        return {"metric": metric, "value": np.nan, "n_classes": 0, "auroc_study": np.nan}
    ranked = classification.Classifier(drawn[:, learnt], tests.targets[:, learnt], patients)
    value = float(ranked.auroc(np.ones((ranked.patients, 1)))[0])
    by_study = np.nan
    if learnt.all() and not exclusive:  # if one class is true, the log softmax is kept, which has no logits
        study = classification.Classifier(classification.sigmoid32(drawn), tests.targets, patients)
        by_study = float(study.auroc_study(np.ones((study.patients, 1)))[0])
    return {"metric": metric, "value": value, "n_classes": int(ranked.defined.sum()), "auroc_study": by_study}


def _overlap(counts: np.ndarray, metric: str) -> Record:
    """Return the macro score of a draw's counts [cases, k, k], as `segmentation.macro_over_cases` defines it."""
    segmenter = segmentation.Segmenter(counts, np.arange(len(counts)))
    values = segmenter.estimate(metric, np.ones((len(counts), 1)))[0]
    return {"metric": metric, "value": float(values[-1]), "n_classes": int((~np.isnan(values[:-1])).sum())}


def over_draws(draws: pd.DataFrame, predictions: Predictions) -> pd.DataFrame:
    """Return a row for each number of shots: the mean over draws, and their range."""
    first = predictions.protocols[0]
    if predictions.table is None:
        cases = predictions.maps[first].table
        tests = cases[cases["part"] == "test"]
    else:
        tests = Classified(predictions, first, "test").samples
    sizes = {"n_patients": tests["patient_id"].nunique(), "n_samples": len(tests), "class": classification.MACRO}
    rows = []
    for (protocol, shots), each in draws.groupby(["protocol", "shots"], sort=False):
        kind, _, variant = protocol.partition("@")
        name = "@".join(filter(None, (f"{kind} {shots or 'all'}", variant)))
        ours = (each["metric"].iloc[0], "value", int(each["n_classes"].max()))
        for metric, column, n_classes in (ours, ("auroc_study", "auroc_study", len(predictions.classes))):
            if column == "value" or (column in each and each[column].notna().any()):
                row = {"protocol": name, "metric": metric, **_spread(each[column])}
                rows.append({**row, **ONE_FIT, **sizes, "n_classes": n_classes})
    return pd.DataFrame(rows)


def _spread(values: pd.Series) -> Record:
    """Return the mean over draws and their range, from the least to the most; no range of a single draw.

    A new draw from the same distribution falls inside the range of n with probability (n - 1) / (n + 1).
    """
    known = values.dropna().to_numpy()
    undefined = len(values) - len(known)
    low, high = (known.min(), known.max()) if len(known) > 1 else (np.nan, np.nan)
    notes = [f"range of {len(known)} draws, not over patients"] if len(known) > 1 else []
    notes += ["one draw: no interval"] if len(known) == 1 else []
    notes += [f"undefined in {undefined} of {len(values)} draws"] if undefined else []
    value = known.mean() if len(known) else np.nan
    return {"value": value, "low": low, "high": high, "note": "; ".join(notes)}
