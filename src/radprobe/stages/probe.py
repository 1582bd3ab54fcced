"""probe: all cheap heads on the frozen features of one dataset and backbone, in one job."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from radprobe import console
from radprobe.artifacts import Embeddings, Index, LeakCertificate, Predictions, Split, again
from radprobe.artifacts import FewShot as FewShotScores
from radprobe.files import RadprobeError
from radprobe.learning import few_shot, folds, grid, knn, logistic, selection
from radprobe.learning.cases import Cases, permuted, ranking
from radprobe.learning.device import measured
from radprobe.params import FewShot, Linear
from radprobe.study import Step, Study

CPU = torch.device("cpu")


class Samples:
    """Features and labels of the cases in the three parts of a split: films, or volumes as the mean of their slices."""

    def __init__(
        self, index: Index, split: Split, embeddings: Embeddings, task: str, neighbours: int, within: bool = False
    ):
        exclusive, self.within = task == "multiclass", within
        self.cases = Cases(index)
        self.labels = self.cases.labels(index, split, exclusive)
        self.table, *self.views = (self._table(*view) for view in embeddings.views())
        self.tokens = embeddings.tokens.shape[1]
        self.cls = self.table.x[:, self.table.columns(1, False)]
        self.classes, self.exclusive = split.classes, exclusive
        self.rows = {part: self.cases.of(split.rows(index, part)) for part in ("train", "val", "test")}
        self.rows["train+val"] = self.cases.of(split.rows(index, "train", "val"))
        self.neighbours = neighbours

    def _table(self, vectors: list[np.ndarray], patch_mean: np.ndarray | None) -> grid.Table:
        mean = None if patch_mean is None else self.cases.mean(patch_mean)
        return grid.Table.of([self.cases.mean(each) for each in vectors], mean)

    @cached_property
    def near(self) -> dict[tuple[str, str], knn.Neighbours]:
        """The lists that kNN and ML-kNN share, by (query, source): searched once."""
        pairs = [("val", "train"), ("test", "train+val")]
        if self.within:  # ML-kNN is fitted on the neighbours within its source
            pairs += [("train", "train"), ("train+val", "train+val")]
        parts = {part: self.rows[part] for part in ("train", "val", "test")}
        return knn.nearest(self.cls, parts, pairs, self.neighbours)

    def check(self, dataset: str) -> None:
        """Raise RadprobeError where a part has no sample, or where train or val has no class with both labels."""
        for part in ("train", "val", "test"):
            if not len(self.rows[part]):
                reason = f"part {part} has no sample here, so no head can be {_USE[part]}"
                remedy = "choose another split of this dataset, or get the whole download"
                raise RadprobeError(f"{dataset}, its split", reason, remedy)
        for part in ("train", "val"):
            if not selection.both_present(self.y(part).numpy()).any():
                reason = f"no class has both a positive and a negative in {part}, so no head can be {_USE[part]}"
                raise RadprobeError(f"{dataset}, its split", reason, "choose another split of this dataset")

    def y(self, part: str) -> torch.Tensor:
        """Return the labels [n, classes] of a part."""
        return self.labels[self.rows[part]]

    def views_of(self, part: str) -> list[grid.Table]:
        """Return the augmented copies of a part, a table for each view."""
        return [view.rows(self.rows[part]) for view in self.views]

    def value(self, scores: torch.Tensor) -> float:
        """Return the macro AUROC of scores [n val, classes]; NaN where they are not finite."""
        return selection.macro_auroc(self.y("val").numpy(), scores.numpy()) if scores.isfinite().all() else float("nan")


_USE = {"train": "trained", "val": "chosen", "test": "evaluated"}


class Result(NamedTuple):
    """Scores of val and of test, facts; what fits the chosen head with another seed, where chance takes part.

    `fits`: of how many seeds the protocol consists; None: of one, and params may ask for `repeats`.
    """

    val: torch.Tensor
    test: torch.Tensor
    facts: dict[str, Any]
    refit: Callable[[int], dict[str, torch.Tensor]] | None = None  # seed -> scores by part
    fits: int | None = None


def run(study: Study, step: Step) -> None:
    """Read Index, Split, its LeakCertificate and Embeddings; write Predictions of every head that params ask for."""
    source = step.dependency("split").folder
    LeakCertificate.load(source)
    index, split = Index.load(step.dependency("prepare").folder), Split.load(source)
    embeddings = Embeddings.load(step.dependency("embed").folder)
    found = folds.over(split, step.folder, lambda each, _: _fit(step, index, each, embeddings))
    found.save(step.place)


def _fit(step: Step, index: Index, split: Split, embeddings: Embeddings) -> Predictions:
    """Fit every head that params ask for on one split."""
    task, knobs, tables, facts = step.knobs["task"], step.knobs, [], {}
    asked = {name: wanted for name in PROTOCOLS if (wanted := _wanted(name, task, knobs)) is not None}
    samples = Samples(index, split, embeddings, task, _neighbours(knobs), within=any("mlknn" in name for name in asked))
    samples.check(step.dataset)
    search: dict[str, Any] = {}
    with measured(search, CPU):
        if any("knn" in name for name in asked):
            _ = samples.near  # here, so that no head is said to take its time alone
    for name, wanted in asked.items():
        protocol = PROTOCOLS[name]
        took: dict[str, Any] = {}
        with measured(took, CPU):
            result = protocol(samples, wanted, knobs["seed"])
            others = _fits(result, knobs["seed"], result.fits or 1)
        val, test, found = result.val, result.test, result.facts
        if "knn" in name:  # each would need the search
            took["seconds"] += search["seconds"]
        facts[name] = {"selected_on": "val", "exclusive": samples.exclusive, **found, **took}
        facts[name] |= {f"n_{part}": len(samples.rows[part]) for part in ("train", "val", "test")}
        softmax = found.get("softmax", False)
        tables += [_rows(samples, name, part, scores, softmax) for part, scores in (("val", val), ("test", test))]
        if not result.fits:
            others = _fits(result, knobs["seed"], knobs.get("repeats", 1))
        if others:
            kept = {seed: fit for seed, fit in others.items() if fit["test"].isfinite().all()}
            for number, fit in enumerate(kept.values(), 1):
                tables += [_rows(samples, again(name, number), part, scores, softmax) for part, scores in fit.items()]
            facts[name] |= {"seeds": [knobs["seed"], *kept], "seeds_diverged": len(others) - len(kept)}
        best = samples.value(ranking(val, softmax))
        edge = _said(found)
        console.say(f"{step.dataset} {step.backbone} {name}: val AUROC {best:.4f} with {found['chosen']}{edge}")
    if not tables:
        raise RadprobeError(
            "params: probe",
            "every protocol is null",
            "leave at least one of knn, linear, logistic (or mlknn, of several labels)",
        )
    facts = {"protocols": facts, "embedding": embeddings.costs}
    curve = None
    if knobs["few_shot"]:
        took = {}
        with measured(took, CPU):
            curve = _few_shot(samples, index, split, task, knobs)
        facts["few_shot"] = {**knobs["few_shot"], **took}
        console.say(f"{step.dataset} {step.backbone} few-shot: {len(curve.table)} draws")
    table = pd.concat(tables, ignore_index=True)
    return Predictions(split.classes, table, facts=facts, few_shot=curve)


def _wanted(name: str, task: str, knobs: dict[str, Any]) -> dict[str, Any] | None:
    """Return the options of a protocol, None where params leave it out or the task has no use for it."""
    kind, _, variant = name.partition("@")
    multilabel = task == "multilabel"
    if (variant and not knobs["paper"]) or (kind == "mlknn" and not multilabel) or (name == "knn@paper" and multilabel):
        return None  # the study's kNN is ML-kNN where several classes may hold
    if kind == "shuffled":
        fixed = knobs["few_shot"] or FewShot().model_dump()
        return {"c": fixed["c"], "shuffles": knobs["shuffled"]} if knobs["shuffled"] else None
    if kind == "logistic" and knobs["logistic"]:
        linear = knobs["linear"] or Linear().model_dump()
        return {**knobs["logistic"], "blocks": linear["blocks"], "patch_mean": linear["patch_mean"]}
    return knobs[kind]


def _fits(result: Result, seed: int, fits: int) -> dict[int, dict[str, torch.Tensor]]:
    """Return the scores of the seeds that follow `seed`, `fits` in all; none where no chance takes part."""
    return {other: result.refit(other) for other in range(seed + 1, seed + fits)} if result.refit else {}


def _said(facts: dict[str, Any]) -> str:
    """Return what the log says of a grid that was widened, "" where it was not."""
    said = f"; the grid was widened {facts['widened']} times" if facts.get("widened") else ""
    if name := facts.get("at_edge"):
        said += f"; the chosen {name.replace('_', ' ')} lies at the edge of the grid"
    return said


def _rows(samples: Samples, protocol: str, part: str, scores: torch.Tensor, softmax: bool) -> pd.DataFrame:
    rows, targets = samples.rows[part], samples.y(part)
    return samples.cases.table(rows, protocol, part, samples.classes, scores, targets, softmax)


# --- protocols: candidates are fitted on train, val chooses, the chosen one is fitted again on train + val ------------


def _knn(samples: Samples, knobs: dict[str, Any], seed: int) -> Result:
    ks = _possible(knobs["k"], len(samples.rows["train"]))

    def scores(source: str, query: str, ks: list[int]) -> torch.Tensor:
        return knn.weighted_scores(samples.near[query, source], samples.labels, ks, knobs["temperature"])

    result = _of_k(samples, ks, knobs["k"], scores)
    return result._replace(facts={**result.facts, "scale": "probability"})


def _knn_paper(samples: Samples, knobs: dict[str, Any], seed: int) -> Result:
    return _fixed(_knn(samples, {**knobs, "k": [knn.PAPER_K]}, seed))


def _fixed(result: Result) -> Result:
    """Say that nothing was chosen: the study's k is the only candidate."""
    return result._replace(facts={**result.facts, "selected_on": "nothing: k is fixed"})


def _mlknn(samples: Samples, knobs: dict[str, Any], seed: int) -> Result:
    ks = _possible(knobs["k"], len(samples.rows["train"]) - 1)

    def scores(source: str, query: str, ks: list[int]) -> torch.Tensor:
        within, near = samples.near[source, source], samples.near[query, source]
        return knn.mlknn_scores(within, near, samples.labels, ks, knobs["smoothing"])

    return _of_k(samples, ks, knobs["k"], scores)


def _neighbours(knobs: dict[str, Any]) -> int:
    """Return the largest k that any protocol may ask for."""
    return max([knn.PAPER_K] + [k for kind in ("knn", "mlknn") if knobs[kind] for k in knobs[kind]["k"]])


def _possible(ks: list[int], most: int) -> list[int]:
    return sorted({k for k in ks if k <= most}) or [max(most, 1)]


def _of_k(samples: Samples, ks: list[int], asked: list[int], scores: Callable) -> Result:
    val = scores("train", "val", ks)
    values = [samples.value(each) for each in val]
    best = selection.best(values, "k")
    test = scores("train+val", "test", [ks[best]])
    candidates = [{"k": k, "value": value} for k, value in zip(ks, values, strict=True)]
    facts = {"chosen": {"k": ks[best]}, "candidates": candidates, "left_out": sorted(set(asked) - set(ks))}
    return Result(val[best], test[0], facts)


def _mlknn_paper(samples: Samples, knobs: dict[str, Any], seed: int) -> Result:
    return _fixed(_mlknn(samples, {"k": [knn.PAPER_K], "smoothing": knn.PAPER_SMOOTHING}, seed))


def _inputs(samples: Samples, knobs: dict[str, Any]) -> list[grid.Input]:
    """Return what heads read: of every backbone that has enough vectors the same number. Raises where none is there."""
    found = grid.inputs(samples.table, knobs["blocks"], knobs["patch_mean"])
    if not found:
        raise RadprobeError("params: probe.linear", "no head suits this backbone", "allow blocks: 1 without patch_mean")
    return found


def _linear(samples: Samples, knobs: dict[str, Any], seed: int) -> Result:
    sgd, inputs = _Sgd(samples, knobs, raw=False), _inputs(samples, knobs)
    rates = knobs["learning_rates"]
    found = selection.search(rates, "learning_rate", lambda values: sgd.candidates(inputs, values, seed))
    lacking = len(knobs["blocks"]) * len(knobs["patch_mean"]) - len(inputs)
    facts = {"heads_left_out": lacking * len(rates), **_widening(found, "learning_rate")}
    return sgd.chosen(found.candidates, seed, facts)


def _linear_paper(samples: Samples, knobs: dict[str, Any], seed: int) -> Result:
    """Fit the study's own grid, which is never widened, on features as they are, with its loss (D17)."""
    sgd, inputs = _Sgd(samples, knobs, raw=True), grid.paper_inputs(samples.table, samples.tokens)
    candidates = sgd.candidates(inputs, grid.PAPER_RATES, seed)
    facts = {"heads_left_out": 2 * len(grid.PAPER_BLOCKS) * len(grid.PAPER_RATES) - len(candidates)}
    return sgd.chosen(candidates, seed, facts)


class _Sgd:
    """Linear heads trained by SGD: on features in a unit of their own, or (`raw`) as they are, as in the study."""

    def __init__(self, samples: Samples, knobs: dict[str, Any], raw: bool):
        self.samples, self.knobs, self.raw = samples, knobs, raw

    def fit(self, part: str, heads: list[grid.Recipe], seed: int) -> list[grid.Head]:
        samples = self.samples
        table = samples.table.rows(samples.rows[part])
        return grid.fit(
            table,
            samples.y(part),
            heads,
            self.knobs["epochs"],
            self.knobs["batch_size"],
            seed,
            exclusive=samples.exclusive,
            summed=self.raw,
            views=samples.views_of(part),
            unit=None if self.raw else grid.Unit.of(table),
        )

    def candidates(self, inputs: list[grid.Input], rates: Sequence[float], seed: int) -> list[selection.Candidate]:
        samples = self.samples
        recipes = [grid.Recipe(*each, rate) for each in inputs for rate in rates]
        val = samples.table.rows(samples.rows["val"])
        found = []
        for head in self.fit("train", recipes, seed):
            logits = head.logits(val)
            value = samples.value(ranking(logits, samples.exclusive))
            found.append(selection.Candidate(vars(head.recipe), value, logits))
        return found

    def chosen(self, candidates: list[selection.Candidate], seed: int, facts: dict[str, Any]) -> Result:
        """Fit the best of the candidates again; one that diverges then gives way to the next best."""
        samples, values = self.samples, [each.value for each in candidates]
        test = samples.table.rows(samples.rows["test"])
        late = []  # chosen, and then diverged on train + val
        while True:
            best = selection.best(values, "linear heads")
            recipe = grid.Recipe(**candidates[best].settings)
            (refitted,) = self.fit("train+val", [recipe], seed)
            if (scores := refitted.logits(test)).isfinite().all():
                break
            late.append(vars(recipe))
            values[best] = float("nan")
        counts = {"heads": len(candidates), "heads_diverged": sum(math.isnan(each.value) for each in candidates)}
        counts |= {"diverged_when_refitted": late, "softmax": samples.exclusive}
        counts["parameters"] = refitted.weight.numel() + refitted.bias.numel()

        def refit(other: int) -> dict[str, torch.Tensor]:
            return {"test": self.fit("train+val", [recipe], other)[0].logits(test)}

        told = [{**each.settings, "value": _defined(value)} for each, value in zip(candidates, values, strict=True)]
        return Result(
            candidates[best].fitted, scores, {"chosen": vars(recipe), "candidates": told, **counts, **facts}, refit
        )


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else value


def _widening(found: selection.Search, name: str) -> dict[str, Any]:
    """Return how often a grid was widened, and the setting that lies at its edge all the same, "" where none does."""
    return {"widened": found.widened, "at_edge": name if found.at_edge else ""}


def _logistic(samples: Samples, knobs: dict[str, Any], seed: int) -> Result:
    cs = np.geomspace(knobs["low"], knobs["high"], knobs["values"]).tolist()
    every, of_candidate, late = [], [], []
    for one in _inputs(samples, knobs):
        found, not_converged = _sweep(samples, one, cs)
        every += found.candidates
        of_candidate += [found] * len(found.candidates)
        late += not_converged
    best = selection.best([each.value for each in every], "values of C")
    settings = every[best].settings
    x = samples.table.x[:, samples.table.columns(settings["blocks"], settings["patch_mean"])]
    refitted = logistic.fit(x[samples.rows["train+val"]], samples.y("train+val"), [settings["c"]], samples.exclusive)
    test = refitted.logits(x[samples.rows["test"]])[0]
    facts = {"chosen": settings, "candidates": [{**each.settings, "value": _defined(each.value)} for each in every]}
    facts |= {"softmax": samples.exclusive, "parameters": (x.shape[1] + 1) * len(samples.classes)}
    facts |= {"not_converged": late, **_widening(of_candidate[best], "c")}
    return Result(every[best].fitted, test, facts)


def _sweep(samples: Samples, one: grid.Input, cs: list[float]) -> tuple[selection.Search, list[dict[str, Any]]]:
    """Return the candidates of one input on val, the sweep of C widened where its best lies at the edge.

    And the settings of those that did not converge.
    """
    x, late = samples.table.x[:, samples.table.columns(*one)], []
    features, val = logistic.Features(x[samples.rows["train"]]), x[samples.rows["val"]]
    of_input = {"blocks": one[0], "patch_mean": one[1]}

    def fit(values: list[float]) -> list[selection.Candidate]:
        sweep = features.fit(samples.y("train"), values, samples.exclusive)
        late.extend({**of_input, "c": c} for c in sweep.not_converged)
        scored = zip(values, sweep.logits(val), strict=True)
        return [
            selection.Candidate({**of_input, "c": c}, samples.value(ranking(logits, samples.exclusive)), logits)
            for c, logits in scored
        ]

    return selection.search(cs, "c", fit), late


def _shuffled(samples: Samples, knobs: dict[str, Any], seed: int) -> Result:
    """Fit on labels that are permuted among the patients of train, once for each shuffle: nothing is to be learnt."""
    train = samples.rows["train"]
    features, labels, patients = (
        logistic.Features(samples.cls[train]),
        samples.y("train"),
        samples.cases.patients[train],
    )

    def fit(shuffle: int) -> dict[str, torch.Tensor]:
        others = labels[permuted(patients, shuffle)]
        fitted = features.fit(others, [knobs["c"]], samples.exclusive)
        return {part: fitted.logits(samples.cls[samples.rows[part]])[0] for part in ("val", "test")}

    first = fit(seed)
    facts = {"chosen": {"c": knobs["c"]}, "selected_on": "nothing: C is fixed", "softmax": samples.exclusive}
    return Result(first["val"], first["test"], facts, fit, fits=knobs["shuffles"])


def _few_shot(samples: Samples, index: Index, split: Split, task: str, knobs: dict[str, Any]) -> FewShotScores:
    """Fit one head a draw, C fixed, on the drawn cases alone; score the test part, its cases sorted by id.

    A class without a positive and a negative in a draw cannot be learnt from it: its scores there are NaN.
    """
    wanted, tests = knobs["few_shot"], samples.rows["test"]
    tests = tests[np.argsort(samples.cases.ids[tests])]
    every = few_shot.every(index, split, task, wanted["shots"], wanted["draws"], knobs["seed"], knobs["paper"])
    scores = np.full((len(every), len(tests), len(samples.classes)), np.nan, np.float32)
    for number, draw in enumerate(every):
        train = samples.cases.of(draw.split.rows(index, "train"))
        labels = samples.labels[train]
        if (taught := selection.both_present(labels.numpy())).any():
            fitted = logistic.fit(samples.cls[train], labels[:, taught], [wanted["c"]], samples.exclusive)
            scores[number][:, taught] = ranking(fitted.logits(samples.cls[tests])[0], samples.exclusive).numpy()
    return few_shot.scored(every, scores)


PROTOCOLS = {
    "knn": _knn,
    "knn@paper": _knn_paper,
    "mlknn": _mlknn,
    "mlknn@paper": _mlknn_paper,
    "linear": _linear,
    "linear@paper": _linear_paper,
    "logistic": _logistic,
    "shuffled": _shuffled,
}
