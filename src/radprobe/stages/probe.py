"""probe: all cheap heads on the frozen features of one dataset and backbone, in one job."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from radprobe import console
from radprobe.artifacts import Embeddings, Index, LeakCertificate, Predictions, Split, again
from radprobe.artifacts import FewShot as FewShotScores
from radprobe.files import RadprobeError
from radprobe.learning import draws, folds, grid, knn, logistic, selection
from radprobe.learning.cases import Cases, ranking
from radprobe.learning.device import measured
from radprobe.params import FewShot
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
        width = self.table.columns(grid.Recipe(1, False, 0.0))
        self.cls, self.classes, self.exclusive = self.table.x[:, width], split.classes, exclusive
        self.rows = {part: self.cases.of(split.rows(index, part)) for part in ("train", "val", "test")}
        self.rows["train+val"] = self.cases.of(split.rows(index, "train", "val"))
        self.neighbours = neighbours

    def _table(self, tokens: np.ndarray, patch_mean: np.ndarray | None) -> grid.Table:
        mean = None if patch_mean is None else self.cases.mean(patch_mean)
        return grid.Table.of(self.cases.mean(tokens), mean)

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
    """Scores of val and of test, facts; what fits the chosen head with another seed, where chance takes part."""

    val: torch.Tensor
    test: torch.Tensor
    facts: dict[str, Any]
    refit: Callable[[int], torch.Tensor] | None = None  # seed -> scores of test


def run(study: Study, step: Step) -> None:
    """Read Index, Split, its LeakCertificate and Embeddings; write Predictions of every head that params ask for."""
    source = step.need("split").folder
    LeakCertificate.load(source)
    index, split = Index.load(step.need("prepare").folder), Split.load(source)
    embeddings = Embeddings.load(step.need("embed").folder)
    found = folds.over(split, step.folder, lambda each, _: _fit(step, index, each, embeddings))
    found.save(step.folder, step.spec)


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
            val, test, found, refit = protocol(samples, wanted, knobs["seed"])
        if "knn" in name:  # each would need the search
            took["seconds"] += search["seconds"]
        facts[name] = {"selected_on": "val", "exclusive": samples.exclusive, **found, **took}
        facts[name] |= {f"n_{part}": len(samples.rows[part]) for part in ("train", "val", "test")}
        softmax = found.get("softmax", False)
        tables += [_rows(samples, name, part, scores, softmax) for part, scores in (("val", val), ("test", test))]
        if refit and "repeats" in knobs:
            others = {seed: refit(seed) for seed in range(knobs["seed"] + 1, knobs["seed"] + knobs["repeats"])}
            kept = {seed: scores for seed, scores in others.items() if scores.isfinite().all()}
            for number, scores in enumerate(kept.values(), 1):
                tables.append(_rows(samples, again(name, number), "test", scores, softmax))
            facts[name] |= {"seeds": [knobs["seed"], *kept], "seeds_diverged": len(others) - len(kept)}
        best = samples.value(ranking(val, softmax))
        console.say(f"{step.dataset} {step.backbone} {name}: val AUROC {best:.4f} with {found['chosen']}")
    if not tables:
        raise RadprobeError(
            "params: probe",
            "every protocol is null",
            "leave at least one of knn, linear, logistic (or mlknn, of several labels)",
        )
    facts = {"protocols": facts, "embedding": embeddings.costs}
    few_shot = None
    if knobs["few_shot"]:
        took = {}
        with measured(took, CPU):
            few_shot = _few_shot(samples, index, split, task, knobs)
        facts["few_shot"] = {**knobs["few_shot"], **took}
        console.say(f"{step.dataset} {step.backbone} few-shot: {len(few_shot.table)} draws")
    table = pd.concat(tables, ignore_index=True)
    return Predictions(split.classes, table, facts=facts, few_shot=few_shot)


def _wanted(name: str, task: str, knobs: dict[str, Any]) -> dict[str, Any] | None:
    """Return the options of a protocol, None where params leave it out or the task has no use for it."""
    kind, _, variant = name.partition("@")
    multilabel = task == "multilabel"
    if (variant and not knobs["paper"]) or (kind == "mlknn" and not multilabel) or (name == "knn@paper" and multilabel):
        return None  # the study's kNN is ML-kNN where several classes may hold
    if kind == "shuffled":
        return knobs["few_shot"] or FewShot().model_dump() if knobs["shuffled"] else None
    return knobs[kind]


def _rows(samples: Samples, protocol: str, part: str, scores: torch.Tensor, softmax: bool) -> pd.DataFrame:
    rows, targets = samples.rows[part], samples.y(part)
    return samples.cases.table(rows, protocol, part, samples.classes, scores, targets, softmax)


# --- protocols: candidates are fitted on train, val chooses, the chosen one is fitted again on train + val ------------


def _knn(samples: Samples, knobs: dict[str, Any], seed: int) -> Result:
    ks = _possible(knobs["k"], len(samples.rows["train"]))

    def scores(source: str, query: str, ks: list[int]) -> torch.Tensor:
        return knn.weighted_scores(samples.near[query, source], samples.labels, ks, knobs["temperature"])

    val, test, facts, _ = _of_k(samples, ks, knobs["k"], scores)
    return Result(val, test, {**facts, "scale": "probability"})


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


def _linear(samples: Samples, knobs: dict[str, Any], seed: int, summed: bool = False) -> Result:
    table = samples.table
    recipes, impossible = grid.recipes(table, knobs["learning_rates"], knobs["blocks"], knobs["patch_mean"])
    if not recipes:
        raise RadprobeError("params: probe.linear", "no head suits this backbone", "allow blocks: 1 without patch_mean")

    def fit(part: str, heads: list[grid.Recipe], seed: int) -> list[grid.Head]:
        how = (knobs["epochs"], knobs["batch_size"], seed, samples.exclusive, summed)
        return grid.fit(table.rows(samples.rows[part]), samples.y(part), heads, *how, samples.views_of(part))

    heads = fit("train", recipes, seed)
    val, test = (table.rows(samples.rows[part]) for part in ("val", "test"))
    logits = [head.logits(val) for head in heads]
    values = [samples.value(ranking(each, samples.exclusive)) for each in logits]
    diverged = [vars(recipe) for recipe, value in zip(recipes, values, strict=True) if np.isnan(value)]
    late = []  # chosen, and then diverged on train + val
    while True:
        best = selection.best(values, "linear heads")
        (refitted,) = fit("train+val", [recipes[best]], seed)
        if (found := refitted.logits(test)).isfinite().all():
            break
        late.append(vars(recipes[best]))
        values[best] = float("nan")
    candidates = [
        {**vars(recipe), "value": None if np.isnan(value) else value}
        for recipe, value in zip(recipes, values, strict=True)
    ]
    counts = {"heads": len(recipes), "heads_left_out": impossible, "heads_diverged": len(diverged)}
    counts |= {"diverged_when_refitted": late, "softmax": samples.exclusive}
    counts["parameters"] = refitted.weight.numel() + refitted.bias.numel()
    facts = {"chosen": vars(recipes[best]), "candidates": candidates, **counts}
    return Result(logits[best], found, facts, lambda seed: fit("train+val", [recipes[best]], seed)[0].logits(test))


def _linear_paper(samples: Samples, knobs: dict[str, Any], seed: int) -> Result:
    return _linear(samples, knobs, seed, summed=True)


def _logistic(samples: Samples, knobs: dict[str, Any], seed: int) -> Result:
    cs = np.geomspace(knobs["low"], knobs["high"], knobs["values"]).tolist()
    x, y = samples.cls, samples.y
    sweep = logistic.fit(x[samples.rows["train"]], y("train"), cs, samples.exclusive)
    val = sweep.logits(x[samples.rows["val"]])
    values = [samples.value(ranking(each, samples.exclusive)) for each in val]
    best = selection.best(values, "values of C")
    refitted = logistic.fit(x[samples.rows["train+val"]], y("train+val"), [cs[best]], samples.exclusive)
    test = refitted.logits(x[samples.rows["test"]])[0]
    candidates = [{"c": c, "value": None if np.isnan(value) else value} for c, value in zip(cs, values, strict=True)]
    facts = {"chosen": {"c": cs[best]}, "candidates": candidates, "softmax": samples.exclusive}
    facts["parameters"] = (x.shape[1] + 1) * len(samples.classes)
    return Result(val[best], test, {**facts, "not_converged": sweep.not_converged})


def _shuffled(samples: Samples, knobs: dict[str, Any], seed: int) -> Result:
    """Fit on labels that are permuted among the cases of train: nothing is to be learnt."""
    labels = samples.y("train")
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    fitted = logistic.fit(samples.cls[samples.rows["train"]], labels, [knobs["c"]], samples.exclusive)
    val, test = (fitted.logits(samples.cls[samples.rows[part]])[0] for part in ("val", "test"))
    facts = {"chosen": {"c": knobs["c"]}, "selected_on": "nothing: C is fixed", "softmax": samples.exclusive}
    return Result(val, test, facts)


def _few_shot(samples: Samples, index: Index, split: Split, task: str, knobs: dict[str, Any]) -> FewShotScores:
    """Fit one head a draw, C fixed, on the drawn cases alone; score the test part, its cases sorted by id.

    A class without a positive and a negative in a draw cannot be learnt from it: its scores there are NaN.
    """
    wanted, tests = knobs["few_shot"], samples.rows["test"]
    tests = tests[np.argsort(samples.cases.ids[tests])]
    every = draws.every(index, split, task, wanted, knobs["seed"], knobs["paper"])
    rows, scores = [], np.full((len(every), len(tests), len(samples.classes)), np.nan, np.float32)
    for number, (protocol, draw) in enumerate(console.track(every, "few-shot (draws)", len(every))):
        train = samples.cases.of(draw.split.rows(index, "train"))
        labels = samples.labels[train]
        if (taught := selection.both_present(labels.numpy())).any():
            fitted = logistic.fit(samples.cls[train], labels[:, taught], [wanted["c"]], samples.exclusive)
            scores[number][:, taught] = ranking(fitted.logits(samples.cls[tests])[0], samples.exclusive).numpy()
        rows.append(draw.row(protocol))
    return FewShotScores(pd.DataFrame(rows, columns=FewShotScores.COLUMNS), scores)


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
