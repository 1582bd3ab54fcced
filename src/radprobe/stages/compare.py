"""compare: paired differences between the backbones of a dataset, from the predictions of all of them."""

from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
import pandas as pd

from radprobe import catalog, console
from radprobe.artifacts import COMPARISON_SCHEMA, VARIANTS_SCHEMA, Comparison, Predictions, Truth
from radprobe.catalog import PAPER
from radprobe.files import RadprobeError
from radprobe.metrics import comparison, delong
from radprobe.metrics.resampling import Bootstrap, Resampled, resampled
from radprobe.metrics.scoring import Cell, Classified, Segmented, protocols_of
from radprobe.names import FLOOR, STANDING
from radprobe.study import Step, Study


def run(study: Study, step: Step) -> None:
    """Read the Predictions of all backbones of a dataset; write the paired differences of the primary macro metric.

    And of each backbone that is no control those of ours and what is made as the study did.
    """
    how, truth = _how(step), _truth(study, step)
    predictions = {need.backbone: Predictions.load(need.folder) for need in step.needs if need.backbone}
    metric = catalog.PRIMARY_METRIC[study.dataset(step.dataset).task]
    cells = {backbone: Cell(each, truth, metric, how) for backbone, each in predictions.items()}
    controls = {backbone for backbone in predictions if study.backbone(backbone).family == "control"}
    others = {name for of, *names in step.knobs["variants"] if of == "metric" for name in names} - {metric}
    found, of_variants, samples = [], {}, {}
    standing: dict[tuple[str, str], Tested] = {}  # those that stand beside every protocol, made once for all

    def tested(backbone: str, name: str) -> Tested:
        made = standing.get((backbone, name)) or Tested(cells[backbone].scored(name, "test"), how)
        if name in STANDING:
            standing[backbone, name] = made
        return made

    protocols = list(dict.fromkeys(name for each in predictions.values() for name in protocols_of(each)))
    for protocol in [name for name in protocols if name not in STANDING] or protocols[:1]:
        having = {backbone: name for backbone, each in predictions.items() if (name := _named(each, protocol))}
        scored = {backbone: tested(backbone, name) for backbone, name in having.items()}
        _same_samples(step.dataset, protocol, {name: each.scored.samples for name, each in scored.items()})
        samples |= {protocol: next(iter(scored.values())).scored.samples}
        rows = comparison.pairs({backbone: each.macro(metric) for backbone, each in scored.items()})
        found += [{**row, "protocol": protocol, "p_delong": _delong(scored, row)} for row in rows]
        for backbone, name in having.items():
            if backbone not in controls and name != FLOOR and (backbone, name) not in of_variants:
                of_variants[backbone, name] = {each: scored[backbone].macro(each) for each in (metric, *sorted(others))}
    _same_samples(step.dataset, "all protocols", samples)
    table = pd.DataFrame(found, columns=list(COMPARISON_SCHEMA.columns)).assign(dataset=step.dataset, metric=metric)
    table = table.astype(dict.fromkeys(("protocol", "backbone", "other", "note"), "str"))  # also when it is empty
    rows = [row for pair in step.knobs["variants"] for row in _variants(of_variants, pair, metric)]
    variants = pd.DataFrame(rows, columns=list(VARIANTS_SCHEMA.columns)).assign(dataset=step.dataset)
    variants = variants.astype(dict.fromkeys((*SIDES, "note"), "str"))
    Comparison(table, variants).save(step.folder, step.spec)
    console.say(f"{step.dataset}: {len(table)} paired differences, {len(variants)} from what the study did")


class Tested:
    """One protocol of a backbone on test, with its macro metrics on resampled patients, each made once."""

    def __init__(self, scored: "Classified | Segmented", how: Bootstrap):
        self.scored, self._how, self._macros = scored, how, {}

    def macro(self, metric: str) -> Resampled:
        """Return a macro metric of all patients and of every resample."""
        if metric not in self._macros:
            patients = self.scored.samples["patient_id"].nunique()
            found = resampled(self.scored.macro(metric), patients, self._how)
            self._macros[metric] = replace(found, rarer=self.scored.rarer)
        return self._macros[metric]


Key = tuple[str, str, str]  # backbone, protocol, metric
SIDES = ("backbone", "protocol", "metric", "other_backbone", "other_protocol", "other_metric")


def _variants(known: dict[tuple[str, str], dict[str, Resampled]], pair: list[str], metric: str) -> Iterator[dict]:
    """Yield the paired differences of the study's way from ours, of [what tells them apart, ours, theirs]."""
    every = {(*cell, name): each for cell, of_metric in known.items() for name, each in of_metric.items()}
    for ours, one in every.items():
        theirs = _theirs(ours, pair, metric)
        if theirs in every:
            names = dict(zip(SIDES, (*ours, *theirs), strict=True))
            yield {**names, **comparison.difference(every[theirs].minus(one))}


def _theirs(ours: Key, pair: list[str], metric: str) -> Key | None:
    """Return what is ours as the study did it, by a pair; None where the pair is not about it."""
    (of, one, other), (backbone, protocol, name) = pair, ours
    if of == "metric":
        return (backbone, protocol, other) if name == one else None
    if name != metric:
        return None
    if of == "protocol":
        return (backbone, other, name) if protocol == one else None
    return (backbone + PAPER, protocol, name) if of == "backbone" else None


def _delong(scored: dict[str, Tested], row: dict) -> float:
    """Return DeLong's p-value of a pair; NaN for label maps, out-of-fold scores and patients with several samples."""
    one, other = scored[row["backbone"]].scored, scored[row["other"]].scored
    if isinstance(one, Segmented) or one.folds is not None or one.samples["patient_id"].duplicated().any():
        return np.nan
    return delong.p_value(one.scores, other.scores, one.targets)


def _how(step: Step) -> Bootstrap:
    return Bootstrap(**{each.name: step.knobs[each.name] for each in fields(Bootstrap) if each.name in step.knobs})


def _truth(study: Study, step: Step) -> Truth | None:
    task = study.dataset(step.dataset).task
    return Truth.load(step.need("prepare").folder) if task == "segmentation" else None


def _named(predictions: Predictions, protocol: str) -> str | None:
    """Return the protocol, or what was trained as a whole, which stands beside each; None where there is neither."""
    return next((name for name in (protocol, *STANDING) if name in protocols_of(predictions)), None)


def _same_samples(dataset: str, protocol: str, samples: dict[str, pd.DataFrame]) -> None:
    """Raise unless every backbone predicted the same samples of the same patients."""
    (first, expected), *others = samples.items()
    for backbone, each in others:
        if not np.array_equal(expected.to_numpy(), each.to_numpy()):
            reason = f"{first} and {backbone} were tested on different samples, so no paired difference exists"
            raise RadprobeError(f"{dataset}, {protocol}", reason, "run both on the same split")
