"""score: metrics with patient-clustered intervals from predictions, and paired comparisons between backbones."""

import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import pandas as pd

from radprobe import catalog, console
from radprobe.artifacts import (
    COMPARISON_SCHEMA,
    SCORES_SCHEMA,
    VARIANTS_SCHEMA,
    Comparison,
    Index,
    LeakCertificate,
    Predictions,
    Scores,
    Truth,
    again,
)
from radprobe.catalog import PAPER
from radprobe.files import RadprobeError
from radprobe.metrics import classification, comparison, delong, operating, segmentation
from radprobe.metrics.resampling import Bootstrap, Resampled, resampled
from radprobe.metrics.surfaces import METRICS, surfaces
from radprobe.names import FLOOR, STANDING
from radprobe.study import Step, Study

PARTS = ("val", "test")
POINT = Bootstrap(resamples=1, seed=0, min_patients=sys.maxsize)  # values alone
ALL_NEAR = {"value": np.nan, "low": np.nan, "high": np.nan, "n_patients": 0, "n_samples": 0, "n_classes": 0}
ALL_NEAR["note"] = "undefined: every test case looks like a copy of one in another part"
ONE_FIT = {"n_fits": 1, "seed_sd": np.nan, "seed_low": np.nan, "seed_high": np.nan}


def run(study: Study, step: Step) -> None:
    """Read Predictions (and Truth); write Scores of every protocol and metric on val and test, and per-case values."""
    source = next(need for need in step.needs if need.backbone)
    metric = catalog.PRIMARY_METRIC[study.dataset(step.dataset).task]
    cell = Cell(Predictions.load(source.folder), _truth(study, step), metric, _how(step), step.knobs.get("tolerance"))
    predictions, near = cell.predictions, _near_cases(step)
    tables, cases = [], []
    for protocol in _protocols(predictions):
        of_parts = {part: cell.scored(protocol, part) for part in PARTS}
        if cell.truth:
            cases += [each.cases().assign(protocol=protocol, part=part) for part, each in of_parts.items()]
        val = _over_fits(of_parts["val"].rows(cell.how), [])
        test = [*_of_test(cell, protocol, **of_parts), *_without_near(cell, protocol, of_parts["test"], near)]
        costs = _costs(predictions.facts["embedding"], predictions.facts["protocols"][protocol])
        tables += [pd.DataFrame(val).assign(protocol=protocol, part="val", **costs)]
        tables += [pd.DataFrame(test).assign(protocol=protocol, part="test", **costs)]
    draws = None
    if predictions.few_shot:
        draws = _draws(predictions, metric, study.dataset(step.dataset).task == "multiclass")
        costs = _costs(predictions.facts["embedding"], predictions.facts["few_shot"])
        tables.append(_over_draws(draws, predictions).assign(part="test", **costs))
    shared = {"dataset": step.dataset, "backbone": step.backbone, "seed": study.params.seed, "spec": source.spec}
    table = pd.concat(tables, ignore_index=True).assign(**shared)[list(SCORES_SCHEMA.columns)]
    Scores(table, pd.concat(cases, ignore_index=True) if cases else None, draws).save(step.folder, step.spec)
    _say(table, metric)


@dataclass(frozen=True)
class Cell:
    """The predictions of a backbone on a dataset, and by what they are scored: `truth` of label maps, `tolerance`."""

    predictions: Predictions
    truth: Truth | None
    metric: str  # the primary one
    how: Bootstrap
    tolerance: float | None = None

    def scored(self, protocol: str, part: str, without: Collection[str] = ()) -> "Classified | Segmented":
        """Return one protocol's predictions of one part, to be scored; cases in `without` are left out."""
        if self.truth:
            return Segmented(self.predictions, protocol, part, self.truth, without, self.tolerance)
        return Classified(self.predictions, protocol, part, without)


def _of_test(cell: Cell, protocol: str, val: "Classified | Segmented", test: "Classified | Segmented") -> list[dict]:
    """Return the rows of test: all metrics, those at val's thresholds, and how far they move over fits with seeds."""
    facts = cell.predictions.facts["protocols"][protocol]

    def rows(scored: "Classified | Segmented", how: Bootstrap) -> list[dict]:
        return scored.rows(how) + scored.operating(val, facts, how)

    others = range(1, len(facts.get("seeds", [0])))
    fits = [rows(cell.scored(again(protocol, number), "test"), POINT) for number in others]
    return _over_fits(rows(test, cell.how), fits)


def _without_near(cell: Cell, protocol: str, test: "Classified | Segmented", near: set[str]) -> list[dict]:
    """Return the rows of the primary metric without near-duplicates, named `<metric>_without_near`; [] without any."""
    ids = {*test.samples["id"]}
    if not near & ids:
        return []
    left, nothing = (test, ALL_NEAR) if ids <= near else (cell.scored(protocol, "test", near), {})
    rows = [row for row in left.rows(POINT if nothing else cell.how) if row["metric"] == cell.metric]
    return [{**row, **ONE_FIT, "metric": f"{cell.metric}_without_near", **nothing} for row in rows]


def _over_fits(rows: list[dict], others: list[list[dict]]) -> list[dict]:
    """Return rows with how far their values move over fits with other seeds, whose rows are in the same order."""
    found = []
    for row, *of_others in zip(rows, *others, strict=True):
        values = np.array([row["value"], *(each["value"] for each in of_others)])
        moved = {"seed_sd": values.std(ddof=1), "seed_low": values.min(), "seed_high": values.max()} if others else {}
        found.append({**row, **ONE_FIT, **moved, "n_fits": len(values)})
    return found


def compare(study: Study, step: Step) -> None:
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

    protocols = list(dict.fromkeys(name for each in predictions.values() for name in _protocols(each)))
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
    """Return DeLong's p-value of a pair; NaN for label maps, and where a patient has several samples."""
    one, other = scored[row["backbone"]].scored, scored[row["other"]].scored
    if isinstance(one, Segmented) or one.samples["patient_id"].duplicated().any():
        return np.nan
    return delong.p_value(one.scores, other.scores, one.targets)


def _how(step: Step) -> Bootstrap:
    return Bootstrap(**{each.name: step.knobs[each.name] for each in fields(Bootstrap)})


def _draws(predictions: Predictions, metric: str, exclusive: bool) -> pd.DataFrame:
    """Return the macro score on test of every few-shot draw, over the classes that the draw could learn.

    `auroc_study` is by the study's definition, where several classes may hold and the draw could learn all of them.
    """
    if predictions.table is None:
        found = [_overlap(counts, metric) for counts in predictions.few_shot.scores]
        return pd.concat([predictions.few_shot.table.reset_index(drop=True), pd.DataFrame(found)], axis=1)
    tests = Classified(predictions, _protocols(predictions)[0], "test")
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
    """Return the macro score of a draw's counts [cases, k, k]: the mean over cases, whoever they belong to."""
    segmenter = segmentation.Segmenter(counts, np.arange(len(counts)))
    values = segmenter.estimate(metric, np.ones((len(counts), 1)))[0]
    return {"metric": metric, "value": float(values[-1]), "n_classes": int((~np.isnan(values[:-1])).sum())}


def _over_draws(draws: pd.DataFrame, predictions: Predictions) -> pd.DataFrame:
    """Return a row for each number of shots: the mean over draws, and between which values 95 % of them lie."""
    first = _protocols(predictions)[0]
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
    """Return the mean over draws, and between which values 95 % of them lie."""
    known, n = values.dropna().to_numpy(), len(values)
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) > 1 else (np.nan, np.nan)
    note = f"over {n} draws, not over patients" if n > 1 else "one draw: no interval"
    note += f"; undefined in {n - len(known)} of them" if len(known) < n else ""
    return {"value": known.mean() if len(known) else np.nan, "low": low, "high": high, "note": note}


def _near_cases(step: Step) -> set[str]:
    """Return the test cases that look like a copy of one in another part."""
    names = LeakCertificate.load(step.need("split").folder).near_test_samples
    if not names:
        return set()
    table = Index.load(step.need("prepare").folder).table
    return set(table.loc[table["sample_id"].isin(names), "volume_id"])


class Classified:
    """One protocol's scores of one part, ranked; cases in `without` are left out."""

    def __init__(self, predictions: Predictions, protocol: str, part: str, without: Collection[str] = ()):
        table = predictions.rows(protocol, part)
        table = _some(table[~table["sample_id"].isin(without)], protocol, part)
        self.classes, self.table = predictions.classes, table
        self.scores, self.targets = predictions.matrices(table)
        logits = [f"logit:{name}" for name in self.classes]
        has_logits = set(logits) <= set(table) and table[logits].notna().all(axis=None)
        self.logits = table[logits].to_numpy() if has_logits else self.scores
        if np.isnan(self.scores).any():
            name = table["sample_id"].iloc[int(np.isnan(self.scores).any(axis=1).argmax())]
            raise RadprobeError(f"{protocol}, {name}", "has a score that is not a number", "fit the head again")
        self.samples = table[["sample_id", "patient_id"]].rename(columns={"sample_id": "id"})

    @cached_property
    def rarer(self) -> int:
        """The patients with the rarer label, of the class that has most of them."""
        return classification.Classifier(self.scores, self.targets, self.table["patient_id"]).rarer

    def rows(self, how: Bootstrap) -> list[dict]:
        """Return the rows of all metrics."""
        return classification.rows(self.scores, self.logits, self.targets, self.classes, self.table["patient_id"], how)

    def operating(self, val: "Classified", facts: dict, how: Bootstrap) -> list[dict]:
        """Return the rows at the thresholds of val, which are those of the head before its refit; and calibration."""
        made = operating.called_by_val(self.scores, facts, val.scores, val.targets)
        return operating.rows(operating.Operating(made, self.targets, self.table["patient_id"]), self.classes, how)

    def macro(self, metric: str) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function of patient weights: macro auroc, or auroc_study."""
        scores = classification.sigmoid32(self.logits) if metric == "auroc_study" else self.scores
        return getattr(classification.Classifier(scores, self.targets, self.table["patient_id"]), metric)


class Segmented:
    """One protocol's label maps of one part against the truth; cases in `without` are left out.

    Surface metrics take longer than all others, and are there where a `tolerance` is given.
    """

    rarer = None  # overlap compares no two labels

    def __init__(
        self,
        predictions: Predictions,
        protocol: str,
        part: str,
        truth: Truth,
        without: Collection[str] = (),
        tolerance: float | None = None,
    ):
        maps = predictions.maps[protocol]
        table = maps.table[~maps.table["case_id"].isin(without)]
        table = _some(table[table["part"] == part], protocol, part).sort_index()
        self.classes, self.table = predictions.classes, table
        n, matrices, distances = len(self.classes), [], []
        for case in table["case_id"]:
            found = maps[case]
            matrices.append(_confusion(protocol, case, truth, found, n))
            if tolerance:
                distances.append(_distances(truth, case, found, n, tolerance))
        by_name = {name: np.array([each[name] for each in distances]) for name in METRICS} if tolerance else None
        self.in_pixels = sum(not truth.maps.spacing(case) for case in table["case_id"])
        self.segmenter = segmentation.Segmenter(np.reshape(matrices, (-1, n + 1, n + 1)), table["patient_id"], by_name)
        self.samples = table[["case_id", "patient_id"]].rename(columns={"case_id": "id"})

    def rows(self, how: Bootstrap) -> list[dict]:
        """Return the rows of all metrics; those of distances say in which unit they are where it is not mm alone."""
        return segmentation.rows(self.segmenter, self.classes, how, self._unit())

    def operating(self, val: "Segmented", facts: dict, how: Bootstrap) -> list[dict]:
        """Return no row: label maps have no threshold."""
        return []

    def _unit(self) -> str:
        if not self.in_pixels:
            return ""
        n = len(self.table)
        which = "" if self.in_pixels == n else f" in {self.in_pixels} of {n} cases, in mm in the others"
        return f"in pixels{which}: spacing unknown"

    def cases(self) -> pd.DataFrame:
        """Return the per-case values."""
        ids = (self.table[name].to_numpy() for name in ("case_id", "patient_id"))
        return segmentation.case_rows(self.segmenter, self.classes, *ids)

    def macro(self, metric: str) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function of patient weights: a macro metric."""
        return lambda weights: self.segmenter.estimate(metric, weights)[:, -1]


def _some(table: pd.DataFrame, protocol: str, part: str) -> pd.DataFrame:
    if table.empty:
        raise RadprobeError(f"{protocol}, {part}", "has no prediction: nothing can be scored", "choose another split")
    return table


def _confusion(protocol: str, case: str, truth: Truth, prediction: np.ndarray, classes: int) -> np.ndarray:
    if case not in truth.maps.table.index:
        raise RadprobeError(f"{protocol}, {case}", "is predicted and has no truth", "run prepare and segment again")
    try:
        return segmentation.confusion(truth.maps[case], prediction, classes)
    except ValueError as error:
        raise RadprobeError(f"{protocol}, {case}", str(error), "run prepare and segment again") from None


def _distances(truth: Truth, case: str, found: np.ndarray, n: int, tolerance: float) -> dict[str, np.ndarray]:
    """Return the surface metrics of a case; the tolerance is in mm, or in thousandths of its longer side."""
    labels, spacing = truth.maps[case], truth.maps.spacing(case)
    return surfaces(labels, found, n, spacing, tolerance if spacing else tolerance / 1000 * max(labels.shape))


def _truth(study: Study, step: Step) -> Truth | None:
    task = study.dataset(step.dataset).task
    return Truth.load(step.need("prepare").folder) if task == "segmentation" else None


def _protocols(predictions: Predictions) -> list[str]:
    return list(predictions.facts["protocols"])


def _named(predictions: Predictions, protocol: str) -> str | None:
    """Return the protocol, or what was trained as a whole, which stands beside each; None where there is neither."""
    return next((name for name in (protocol, *STANDING) if name in _protocols(predictions)), None)


def _costs(embedding: dict, protocol: dict) -> dict[str, float]:
    """Return the seconds of embedding and fitting, the larger of their peaks of memory in GB, and what was trained."""
    trained = protocol.get("parameters", np.nan)
    every = protocol.get("parameters_of_all", embedding.get("parameters", np.nan) + trained)
    return {
        "seconds": embedding["seconds"] + protocol["seconds"],
        "peak_gb": max(embedding["peak_gb"], protocol["peak_gb"]),
        "trained_parameters": trained,
        "trained_share": trained / every if every else np.nan,
        "best_epoch": protocol.get("chosen", {}).get("epochs", np.nan),
    }


def _same_samples(dataset: str, protocol: str, samples: dict[str, pd.DataFrame]) -> None:
    """Raise unless every backbone predicted the same samples of the same patients."""
    (first, expected), *others = samples.items()
    for backbone, each in others:
        if not np.array_equal(expected.to_numpy(), each.to_numpy()):
            reason = f"{first} and {backbone} were tested on different samples, so no paired difference exists"
            raise RadprobeError(f"{dataset}, {protocol}", reason, "run both on the same split")


def _say(table: pd.DataFrame, metric: str) -> None:
    chosen = table[(table["metric"] == metric) & (table["class"] == classification.MACRO) & (table["part"] == "test")]
    for row in chosen.itertuples():
        console.say(f"{row.protocol}: test {metric} {row.value:.3f} [{row.low:.3f}, {row.high:.3f}]")
