"""score: metrics with patient-clustered intervals from predictions."""

import numpy as np
import pandas as pd

from radprobe import catalog, console
from radprobe.artifacts import SCORES_SCHEMA, Index, LeakCertificate, Predictions, Scores, Truth, again
from radprobe.metrics import classification, segmentation
from radprobe.metrics.resampling import Bootstrap
from radprobe.metrics.scoring import Cell, Classified, Segmented, protocols_of
from radprobe.names import FLOOR
from radprobe.study import Step, Study

PARTS = ("val", "test")
ALL_NEAR = {"value": np.nan, "low": np.nan, "high": np.nan, "n_patients": 0, "n_samples": 0, "n_classes": 0}
ALL_NEAR["note"] = "undefined: every test case looks like a copy of one in another part"
ONE_FIT = {"n_fits": 1, "seed_sd": np.nan, "seed_low": np.nan, "seed_high": np.nan}


def run(study: Study, step: Step) -> None:
    """Read Predictions (and Truth); write Scores of every protocol and metric on val and test, and per-case values."""
    source = next(need for need in step.dependencies if need.backbone)
    metric = catalog.PRIMARY_METRIC[study.dataset(step.dataset).task]
    cell = Cell(
        Predictions.load(source.folder),
        _truth(study, step),
        metric,
        Bootstrap.of(step.knobs),
        step.knobs.get("tolerance"),
    )
    predictions, near = cell.predictions, _near_cases(step)
    tables, cases = [], []
    for protocol in protocols_of(predictions):
        of_parts = {part: cell.scored(protocol, part) for part in _parts(predictions, protocol)}
        if cell.truth:
            cases += [each.cases().assign(protocol=protocol, part=part) for part, each in of_parts.items()]
        val = _of_val(cell, protocol, of_parts["val"]) if "val" in of_parts else []
        test = [*_of_test(cell, protocol, **of_parts), *_without_near(cell, protocol, of_parts["test"], near)]
        of_protocol = predictions.facts["protocols"][protocol]
        costs = _costs(predictions.facts["embedding"], of_protocol)
        tables += [pd.DataFrame(val).assign(protocol=protocol, part="val", **costs)]
        tables += [pd.DataFrame(test).assign(protocol=protocol, part="test", **costs)]
    draws = None
    if predictions.few_shot:
        draws = _draws(predictions, metric, study.dataset(step.dataset).task == "multiclass")
        costs = _costs(predictions.facts["embedding"], predictions.facts["few_shot"])
        tables.append(_over_draws(draws, predictions).assign(part="test", **costs))
    shared = {"dataset": step.dataset, "backbone": step.backbone, "seed": study.params.seed, "key": source.key}
    table = pd.concat(tables, ignore_index=True).assign(**shared)[list(SCORES_SCHEMA.columns)]
    every_case = pd.concat(cases, ignore_index=True) if cases else None
    Scores(table, every_case, draws).save(step.place)
    _say(table, metric)


def _parts(predictions: Predictions, protocol: str) -> list[str]:
    """Return the parts that a protocol predicts: of predictions from elsewhere, val may be missing."""
    facts = predictions.facts["protocols"][protocol]
    return [part for part in PARTS if "external" not in facts or f"n_{part}" in facts]


def _of_test(
    cell: Cell, protocol: str, test: "Classified | Segmented", val: "Classified | Segmented | None" = None
) -> list[dict]:
    """Return the rows of test: all metrics, those at val's thresholds, and how far they move over fits with seeds."""
    facts, others = cell.predictions.facts["protocols"][protocol], _other_fits(cell, protocol)
    # every shuffle has its own thresholds
    vals = {name: cell.scored(name, "val") if protocol == FLOOR else val for name in others}

    def rows(scored: "Classified | Segmented", val: "Classified | Segmented", how: Bootstrap) -> list[dict]:
        return scored.rows(how) + scored.operating(val, facts, how)

    fits = [rows(cell.scored(name, "test"), vals[name], cell.how.alone) for name in others]
    found = _over_fits(rows(test, val, cell.how), fits)
    return _over_shuffles(found, fits) if protocol == FLOOR and others else found


def _other_fits(cell: Cell, protocol: str) -> list[str]:
    """Return the names under which Predictions hold the fits of a protocol with other seeds, or other shuffles."""
    seeds = cell.predictions.facts["protocols"][protocol].get("seeds", [0])
    return [again(protocol, number) for number in range(1, len(seeds))]


def _of_val(cell: Cell, protocol: str, val: "Classified | Segmented") -> list[dict]:
    """Return the rows of val: those of the fit that chose, or of all shuffles of the labels."""
    others = _other_fits(cell, protocol) if protocol == FLOOR else []
    fits = [cell.scored(name, "val").rows(cell.how.alone) for name in others]
    rows = _over_fits(val.rows(cell.how), fits)
    return _over_shuffles(rows, fits) if others else rows


def _without_near(cell: Cell, protocol: str, test: "Classified | Segmented", near: set[str]) -> list[dict]:
    """Return the rows of the primary metric without near-duplicates, named `<metric>_without_near`; [] without any."""
    ids = {*test.samples["id"]}
    if not near & ids:
        return []
    left, nothing = (test, ALL_NEAR) if ids <= near else (cell.scored(protocol, "test", near), {})
    rows = [row for row in left.rows(cell.how.alone if nothing else cell.how) if row["metric"] == cell.metric]
    if protocol == FLOOR and not nothing and (others := _other_fits(cell, protocol)):
        fits = [cell.scored(name, "test", near).rows(cell.how.alone) for name in others]
        rows = _over_shuffles(rows, [[row for row in fit if row["metric"] == cell.metric] for fit in fits])
    return [{**row, **ONE_FIT, "metric": f"{cell.metric}_without_near", **nothing} for row in rows]


def _over_fits(rows: list[dict], others: list[list[dict]]) -> list[dict]:
    """Return rows with how far their values move over fits with other seeds, whose rows are in the same order."""
    found = []
    for row, *of_others in zip(rows, *others, strict=True):
        values = np.array([row["value"], *(each["value"] for each in of_others)])
        moved = {"seed_sd": values.std(ddof=1), "seed_low": values.min(), "seed_high": values.max()} if others else {}
        found.append({**row, **ONE_FIT, **moved, "n_fits": len(values)})
    return found


def _over_shuffles(rows: list[dict], others: list[list[dict]]) -> list[dict]:
    """Return rows whose value is the mean over shuffles of the labels, and whose interval is their range.

    `rows` are of the first shuffle, with how far values move over all; `others` are the rows of the other shuffles.
    """
    found = []
    for row, *of_others in zip(rows, *others, strict=True):
        values = np.array([row["value"], *(each["value"] for each in of_others)])
        known = values[~np.isnan(values)]
        note = f"range of {len(values)} shuffles, not over patients"
        note += f"; undefined in {len(values) - len(known)} of them" if len(known) < len(values) else ""
        low, high, mean = (known.min(), known.max(), known.mean()) if len(known) else (np.nan, np.nan, np.nan)
        found.append({**row, "value": mean, "low": low, "high": high, "note": note if len(known) else row["note"]})
    return found


def _draws(predictions: Predictions, metric: str, exclusive: bool) -> pd.DataFrame:
    """Return the macro score on test of every few-shot draw, over the classes that the draw could learn.

    `auroc_study` is by the study's definition, where several classes may hold and the draw could learn all of them.
    """
    if predictions.table is None:
        found = [_overlap(counts, metric) for counts in predictions.few_shot.scores]
        return pd.concat([predictions.few_shot.table.reset_index(drop=True), pd.DataFrame(found)], axis=1)
    tests = Classified(predictions, protocols_of(predictions)[0], "test")
    patients, found = tests.table["patient_id"], []
    for scores in predictions.few_shot.scores:
        learnt = ~np.isnan(scores).all(axis=0)
        ranked = classification.Classifier(scores[:, learnt], tests.targets[:, learnt], patients)
        value = float(ranked.auroc(np.ones((ranked.patients, 1)))[0]) if learnt.any() else np.nan
        found.append({"metric": metric, "value": value, "n_classes": int(ranked.defined.sum()) if learnt.any() else 0})
        found[-1]["auroc_study"] = np.nan
        if learnt.all() and not exclusive:  # of one true class the log softmax is kept, and no logit can be told
            study = classification.Classifier(classification.sigmoid32(scores), tests.targets, patients)
            found[-1]["auroc_study"] = float(study.auroc_study(np.ones((study.patients, 1)))[0])
    return pd.concat([predictions.few_shot.table.reset_index(drop=True), pd.DataFrame(found)], axis=1)


def _overlap(counts: np.ndarray, metric: str) -> dict:
    """Return the macro score of a draw's counts [cases, k, k], as `segmentation.macro_over_cases` defines it."""
    segmenter = segmentation.Segmenter(counts, np.arange(len(counts)))
    values = segmenter.estimate(metric, np.ones((len(counts), 1)))[0]
    return {"metric": metric, "value": float(values[-1]), "n_classes": int((~np.isnan(values[:-1])).sum())}


def _over_draws(draws: pd.DataFrame, predictions: Predictions) -> pd.DataFrame:
    """Return a row for each number of shots: the mean over draws, and their range."""
    first = protocols_of(predictions)[0]
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
            if column == "value" or each.get(column, pd.Series()).notna().any():
                row = {"protocol": name, "metric": metric, **_spread(each[column])}
                rows.append({**row, **ONE_FIT, **sizes, "n_classes": n_classes})
    return pd.DataFrame(rows)


def _spread(values: pd.Series) -> dict:
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


def _near_cases(step: Step) -> set[str]:
    """Return the test cases that look like a copy of one in another part."""
    names = LeakCertificate.load(step.dependency("split").folder).near_test_samples
    if not names:
        return set()
    table = Index.load(step.dependency("prepare").folder).table
    return set(table.loc[table["sample_id"].isin(names), "volume_id"])


def _truth(study: Study, step: Step) -> Truth | None:
    task = study.dataset(step.dataset).task
    return Truth.load(step.dependency("prepare").folder) if task == "segmentation" else None


def _costs(embedding: dict, protocol: dict) -> dict[str, float]:
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


def _say(table: pd.DataFrame, metric: str) -> None:
    chosen = table[(table["metric"] == metric) & (table["class"] == classification.MACRO) & (table["part"] == "test")]
    for row in chosen.itertuples():
        console.say(f"{row.protocol}: test {metric} {row.value:.3f} [{row.low:.3f}, {row.high:.3f}]")
