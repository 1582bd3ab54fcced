"""What a cell page says from manifests and scores alone: cards, settings, scores by class, draws, training, costs."""

import math
from typing import Any

import numpy as np
import pandas as pd

from radprobe.artifacts import PARTS, Predictions, Scores
from radprobe.artifacts.tables import Record
from radprobe.catalog import PRIMARY_METRIC
from radprobe.catalog.describe import recipe, restriction
from radprobe.metrics.classification import MACRO
from radprobe.names import EXTERNAL, FLOOR, with_weights
from radprobe.report import few_shot, trust, words
from radprobe.report.cells import charts
from radprobe.report.collect import Findings
from radprobe.report.ranking import FEW_SHOT, Estimate, estimate

Rows = list[dict[str, Any]]  # of Scores
CANDIDATES = 40  # that are told one by one
IN_PIXELS = "in pixels"  # how the note of a distance begins that is not in mm


def cards(findings: Findings, dataset: str, backbone: str) -> dict[str, list[tuple[str, str]]]:
    """Return what the dataset and the backbone are, as lines."""
    entry, model = findings.datasets[dataset], findings.study.backbone(backbone)
    split = findings.facts("split", dataset)
    of_dataset = {"what": f"{words.TASKS[entry.task]}, {entry.modality}", "classes": len(entry.classes)}
    of_dataset |= {"split": f"{split.get('name', 'study')}, {split.get('recipe', {}).get('recipe', 'recipe unknown')}"}
    of_dataset |= {part: _people(split["parts"][part]) for part in trust.part_names(split)}
    of_dataset |= {"licence": entry.licence, "access": entry.access}
    card_of_dataset = trust.flat({**of_dataset, "citation": entry.citation})
    if backbone in findings.study.external:
        return {"Dataset": card_of_dataset, "Row": trust.flat(trust.elsewhere(findings, backbone))}
    cost = findings.study.cost(backbone)
    features, weights = (
        findings.facts("embed", dataset, backbone),
        findings.facts("weights", None, with_weights(backbone)),
    )
    parameters = cost.parameters if cost else weights.get("parameters")
    of_backbone = {"family": findings.family(backbone), "derived weights": model.derived, "licence": model.licence}
    of_backbone |= {"restricted": restriction(model.licence, model.gated), "citation": model.citation}
    of_backbone |= {"parameters": words.millions(parameters) if parameters else None}
    of_backbone |= {"notes": model.notes, **recipe(model, features.get("dim", cost.dim if cost else None))}
    return {"Dataset": card_of_dataset, "Backbone": trust.flat(of_backbone)}


def _people(part: dict[str, Any]) -> str:
    return f"{part['patients']:,} patients, {part['samples']:,} samples"


def notes(findings: Findings, dataset: str, backbone: str) -> list[str]:
    """Return what must be known before a number of the cell is read."""
    lines = []
    if trust.is_phantom(findings, dataset):
        lines.append("Generated data: these numbers say nothing about radiology.")
    if findings.study.params.limit:
        lines.append(f"A pilot: at most {findings.study.params.limit} patients.")
    lines += trust.partial(findings, dataset)
    lines += trust.scope(findings, dataset)
    model = findings.study.backbone(backbone)
    if model.derived:
        lines.append(f"{model.title} has derived weights, not the published ones: {model.derived}.")
    if backbone in findings.study.external:
        lines.append(f"{words.EXPLAINED[EXTERNAL]}")
        lines += [f"{model.notes}"] if model.notes else []
    if findings.family(backbone) == "control":
        lines.append("A control row, not a candidate: what others are measured against.")
    return lines


def of(rows: Rows, metric: str) -> dict[str, dict[str, Any]]:
    """Return the rows of a metric by class, MACRO among them."""
    return {row["class"]: row for row in rows if row["metric"] == metric}


# --- how it was chosen ------------------------------------------------------------------------------------------------


def candidates(facts: dict[str, Any]) -> dict[str, Any] | None:
    """Return the candidates as a table, best first, the chosen one marked; None where nothing was chosen from."""
    every, chosen = facts.get("candidates", []), facts.get("chosen", {})
    if len(every) < 2:
        return None
    names = [name for name in every[0] if name != "value"]
    ranked = sorted(every, key=lambda each: -math.inf if each["value"] is None else each["value"], reverse=True)
    rows = [
        {
            "chosen": bool(chosen) and all(each.get(name) == chosen[name] for name in chosen),
            "settings": [trust.inline(each[name]) for name in names],
            "value": "diverged" if each["value"] is None else words.number(each["value"]),
        }
        for each in ranked
    ]
    shown = [row for place, row in enumerate(rows) if place < CANDIDATES or row["chosen"]]
    return {"names": [name.replace("_", " ") for name in names], "rows": shown, "left": len(rows) - len(shown)}


def folds(facts: dict[str, Any]) -> dict[str, Any] | None:
    """Return what each fold of a cross-validation chose, as a table: its settings, their value on val, its parts."""
    every = facts.get("folds", [])
    if not every:
        return None
    names = list(dict.fromkeys(name for each in every for name in each["chosen"]))
    heads = ["fold", *(name.replace("_", " ") for name in names), "value on val", *PARTS]
    lines = []
    for number, each in enumerate(every, 1):
        settings = [trust.inline(each["chosen"].get(name, "–")) for name in names]
        sizes = [f"{each[f'n_{part}']:,}" if f"n_{part}" in each else "–" for part in PARTS]
        lines.append([str(number), *settings, _value_on_val(each), *sizes])
    return {"heads": heads, "lines": lines}


def _value_on_val(facts: dict[str, Any]) -> str:
    """Return the value on val of the candidate that was chosen; a dash where nothing was chosen."""
    of_chosen = [
        each["value"]
        for each in facts.get("candidates", [])
        if all(each.get(name) == value for name, value in facts["chosen"].items())
    ]
    value = facts.get("value", of_chosen[0] if of_chosen else None)
    return "–" if value is None else words.number(value)


# --- scores -----------------------------------------------------------------------------------------------------------


def scores(rows: Rows) -> dict[str, Any]:
    """Return the scores of one part as a table: macro and a line for each class, a column for each metric."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    found = {(row["metric"], row["class"]): row for row in rows}
    classes = dict.fromkeys([MACRO, *(row["class"] for row in rows)])
    lines = []
    for name in classes if rows else ():
        of_class = [found.get((metric, name)) for metric in metrics]
        sizes = next((row["n_patients"], row["n_samples"]) for row in of_class if row)
        cells = [estimate(row, "value") if row else None for row in of_class]
        lines.append({"name": name, "sizes": sizes, "cells": cells})
    units = {metric: _unit(rows, metric) for metric in metrics}
    heads = [_capital(words.metric(metric)) + (f", {units[metric]}" if units[metric] else "") for metric in metrics]
    whole = [words.metric(metric) for metric in metrics if len(of(rows, metric)) == 1 < len(lines)]
    more = [f"{', '.join(whole)}: of macro only"] if whole else []
    return {"heads": heads, "lines": lines, "reasons": reasons(rows) + more}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _unit(rows: Rows, metric: str) -> str:
    if metric.partition("_")[0] not in words.DISTANCES:
        return ""
    in_pixels = [row["note"].startswith(IN_PIXELS) for row in rows if row["metric"] == metric]
    return "px" if all(in_pixels) else "mm or px" if any(in_pixels) else "mm"


def reasons(rows: Rows) -> list[str]:
    """Return what the notes of scores say, each once, with the metrics and classes that it is about."""
    said: dict[str, dict[str, list[str]]] = {}
    for row in (row for row in rows if row["note"]):
        said.setdefault(row["note"], {}).setdefault(row["metric"], []).append(row["class"])
    lines = []
    for note, by_metric in said.items():
        if sum(map(len, by_metric.values())) == len(rows):
            lines.append(f"Every score: {note}")
            continue
        alike: dict[tuple[str, ...], list[str]] = {}
        for metric, names in by_metric.items():
            alike.setdefault(tuple(names), []).append(words.metric(metric))
        lines += [f"{', '.join(metrics)} of {trust.inline(list(names))}: {note}" for names, metrics in alike.items()]
    return lines


def too_few(primary: dict[str, dict[str, Any]], least: int) -> list[str]:
    """Return the classes (MACRO among them) whose primary score is of some patients, but fewer than intervals need."""
    return [name for name, row in primary.items() if 0 < row["n_patients"] < least]


def fits(row: dict[str, Any]) -> str:
    """Return how far a score moves over fits with other seeds, or shuffles of the labels; "" where there was one."""
    if row["n_fits"] < 2:
        return ""
    if row["protocol"] == FLOOR:
        spread = "" if pd.isna(row["seed_sd"]) else f", SD {words.number(row['seed_sd'])}"
        return f"Above are the mean and the range of {row['n_fits']} shuffles of the labels{spread}."
    if pd.isna(row["seed_sd"]):
        return f"Fitted {row['n_fits']} times with different seeds; not every fit has a value."
    low, high, spread = (words.number(row[name]) for name in ("seed_low", "seed_high", "seed_sd"))
    return f"Fitted {row['n_fits']} times with different seeds: {low} to {high}, SD {spread}; above is the first fit."


def inits(findings: Findings, dataset: str, backbone: str, protocol: str) -> list[tuple[str, str]]:
    """Return the title and the macro test score of each random initialisation of a control row.

    Empty where there is one initialisation only. One without a score has its state instead: failed, not run.
    """
    names = findings.study.inits(dataset, backbone)
    if len(names) < 2:
        return []
    states = {(cell.dataset, cell.backbone): cell.state for cell in findings.cells}
    lines = []
    for name in names:
        scored = findings.scored(dataset, name)
        score = _macro(scored, protocol, findings.datasets[dataset].task) if scored else None
        lines.append((findings.title(name), words.text(score) if score else states[dataset, name]))
    return lines


def _macro(scored: Scores, protocol: str, task: str) -> Estimate | None:
    """Return the primary macro score on test under a protocol, None where there is none."""
    table = scored.table
    rows = table[(table["protocol"] == protocol) & (table["part"] == "test") & (table["class"] == MACRO)]
    rows = rows[rows["metric"] == PRIMARY_METRIC[task]].to_dict("records")
    return estimate(rows[0], "value") if rows else None


# --- draws and training -----------------------------------------------------------------------------------------------


def draws(scored: Scores, facts: dict[str, Any]) -> dict[str, Any] | None:
    """Return the few-shot draws of a backbone: a chart, and a line for each number of shots; None without any."""
    if scored.draws is None or scored.draws.empty:
        return None
    ours = scored.draws[scored.draws["protocol"] == FEW_SHOT]
    ours = scored.draws if ours.empty else ours
    shots = sorted({int(each) for each in ours["shots"]}, key=lambda each: (each == few_shot.ALL, each))
    place = {each: float(number) for number, each in enumerate(shots)}
    metric = words.metric(ours["metric"].iloc[0])
    x = charts.Axis("training patients", -0.4, len(shots) - 0.6, {at: few_shot.text(n) for n, at in place.items()})
    chart = charts.Chart(x, charts.fitted(metric, ours["value"].to_numpy()), charts.WIDE)
    points = np.column_stack([ours["shots"].map(place), ours["value"]])
    means = ours.groupby("shots")["value"].mean()
    chart.line(np.array([[place[each], means[each]] for each in shots]))
    chart.dots(points, 3, "faint")
    table = scored.table[scored.table["protocol"].str.startswith(FEW_SHOT)]
    table = table[table["metric"] == ours["metric"].iloc[0]].to_dict("records")
    lines = [(_shots(row["protocol"]), estimate(row, "value"), row["n_classes"]) for row in table]
    drawn = ours.groupby("shots")[["n_patients", "n_samples"]].agg(["min", "max"])
    label = f"{metric} by the number of training patients, {len(ours)} draws"
    most = int(ours.groupby("shots")["draw"].nunique().max())
    return {
        "svg": chart.svg(label),
        "lines": lines,
        "metric": metric,
        "head": few_shot.head_of(facts),
        "chance": few_shot.chance(most),
        "drawn": [
            (few_shot.text(n), *(_span(drawn.loc[n, name]) for name in ("n_patients", "n_samples"))) for n in shots
        ],
        "notes": sorted(set(ours["note"]) - {""}),
    }


def _shots(protocol: str) -> str:
    shots, _, variant = protocol.removeprefix(FEW_SHOT).strip().partition("@")
    return shots + (", the study's draw" if variant else "")


def _span(ends: pd.Series) -> str:
    return "–".join(dict.fromkeys(f"{int(each):,}" for each in ends))


def training(predictions: Predictions, protocol: str) -> dict[str, Any] | None:
    """Return the curves of loss and of the value on val by epoch: thin while searching, thick when fitted again."""
    if predictions.training is None:
        return None
    history = predictions.training[predictions.training["protocol"] == protocol]
    if history.empty:
        return None
    curve = [name for name in ("fold", "phase", "head") if name in history]
    kinds = {"search": "faint", "refit": "line"}
    shown = []
    for column, title in (("loss", "loss on train"), ("value", "value on val")):
        known = history[np.isfinite(history[column].astype(float))]
        if known.empty:
            continue
        epochs = charts.fitted("epoch", np.append(known["epoch"], 1), is_count=True)
        chart = charts.Chart(epochs, charts.fitted(title, known[column].to_numpy()), charts.WIDE)
        for _, each in known.groupby(curve, sort=False):
            phase = each["phase"].iloc[0]
            points = each[["epoch", column]].to_numpy(float)
            chart.line(points, kinds[phase])
            if len(points) == 1:
                chart.dots(points, 2.5, "dot" if phase == "refit" else "faint")
        again = ", and the fit on train and val" if (known["phase"] == "refit").any() else ""
        n = known.loc[known["phase"] == "search", "head"].nunique()
        shown.append(chart.svg(f"{title} by epoch: {n} learning rate{'s' if n > 1 else ''}{again}"))
    heads = history.loc[history["phase"] == "search", "head"].nunique()
    return {"svgs": shown, "heads": heads, "refitted": (history["phase"] == "refit").any()} if shown else None


# --- costs ------------------------------------------------------------------------------------------------------------


def costs(findings: Findings, dataset: str, backbone: str, row: Record, facts: Record) -> list[tuple[str, str]]:
    """Return seconds, memory and parameters, as lines; `row` is any score of the cell."""
    if backbone in findings.study.external:
        return [(name, "–") for name in ("fitting", "peak memory", "device", "trained parameters")]
    features = findings.facts("embed", dataset, backbone)
    if ("embed", dataset, backbone) in findings.study.steps:
        alone = words.duration(facts["seconds"]) if "seconds" in facts else "unknown"
        lines = {"embedding and fitting": words.duration(row["seconds"]), "fitting alone": alone}
    else:
        lines = {"fitting": words.duration(row["seconds"])}
    lines |= {"peak memory": "–" if pd.isna(row["peak_gb"]) else f"{row['peak_gb']:.2f} GB"}
    lines |= {"device": findings.device(dataset, backbone)}
    if "images_per_second" in features:
        lines["embedding"] = f"{features['images_per_second']:,.1f} images/s at {features['size']:,} px"
    nothing = pd.isna(row["trained_parameters"])
    lines["trained parameters"] = "none" if nothing else words.millions(row["trained_parameters"])
    if not pd.isna(row["trained_share"]):
        lines["their share"] = f"{100 * row['trained_share']:.3g} % of backbone and head"
    if not pd.isna(row["best_epoch"]):
        lines["epochs that val chose"] = f"{row['best_epoch']:.0f}"
    if "refit_epochs" in facts:
        lines["epochs of the last fit"] = f"{facts['refit_epochs']}, fixed by params"
    return list(lines.items())
