"""The heads on frozen features: candidates are fitted on train, val chooses, the best is fitted again on train + val.

Each function takes Samples, its options and a seed, and returns a Result. `stages.probe` says which of them run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from radprobe.artifacts import PARTS, FewShotScores, Index, again
from radprobe.files import RadprobeError
from radprobe.learning import few_shot, grid, knn, logistic, selection
from radprobe.learning.cases import permuted, ranking
from radprobe.learning.device import measured
from radprobe.learning.samples import REFIT, TEST, TRAIN, VAL, Samples
from radprobe.learning.selection import Candidate, Diverged

Scores = dict[str, torch.Tensor]  # logits or scores [n, classes] by part


@dataclass(frozen=True)
class Result:
    """Scores of val and of test, facts, and what fits the chosen head with another seed, if chance takes part.

    `fits`: of how many seeds the protocol consists; None: of one, and params may ask for `repeats`.
    """

    val: torch.Tensor
    test: torch.Tensor
    facts: dict[str, Any]
    refit: Callable[[int], Scores] | None = None  # seed -> scores by part; raises Diverged
    fits: int | None = None


Fit = Callable[[Samples, int], Result]  # samples, seed


@dataclass(frozen=True)
class FittedHeads:
    """The rows of Predictions of one protocol, its facts, and a line for the log."""

    table: pd.DataFrame
    facts: dict[str, Any]
    summary: str


def fitted(samples: Samples, protocol: str, fit: Fit, seed: int, repeats: int) -> FittedHeads:
    """Fit a protocol, and if chance takes part also with other seeds: `repeats` fits in all."""
    took: dict[str, Any] = {}
    others: dict[int, Scores] = {}
    with measured(took, torch.device("cpu")):
        result = fit(samples, seed)
        if result.refit and result.fits:  # the protocol consists of several fits
            others = dict(selection.with_other_seeds(result.refit, seed, result.fits))
    if result.refit and not result.fits:
        others = dict(selection.with_other_seeds(result.refit, seed, repeats))
    facts = {"selected_on": "val", "exclusive": samples.exclusive, **result.facts, **took}
    facts |= {f"n_{part}": len(samples.rows[part]) for part in PARTS}
    if result.refit:
        facts |= selection.seed_facts(seed, list(others), result.fits or repeats)
    softmax = facts.get("softmax", False)
    named = [(protocol, {VAL: result.val, TEST: result.test})]
    named += [(again(protocol, number), scores) for number, scores in enumerate(others.values(), 1)]
    tables = [
        samples.cases.table(samples.rows[part], name, part, samples.classes, own, samples.y(part), softmax)
        for name, scores in named
        for part, own in scores.items()
    ]
    best = samples.value(ranking(result.val, softmax))
    summary = f"val AUROC {best:.4f} with {facts['chosen']}{_edge(facts)}"
    return FittedHeads(pd.concat(tables, ignore_index=True), facts, summary)


def _edge(facts: dict[str, Any]) -> str:
    """Return what the log says of a grid that was widened, "" if it was not."""
    text = f"; the grid was widened {facts['widened']} times" if facts.get("widened") else ""
    if name := facts.get("at_edge"):
        text += f"; the chosen {name.replace('_', ' ')} lies at the edge of the grid"
    return text


@dataclass(frozen=True)
class Tried:
    """An input and its logits of val."""

    input: grid.Input
    val: torch.Tensor


def _checked(scores: torch.Tensor, what: str) -> torch.Tensor:
    """Return the scores of test. Raises Diverged if they are not finite."""
    if not scores.isfinite().all():
        raise Diverged(what, "its scores of test are not finite", "lower the learning rates, or look at the features")
    return scores


# --- neighbours -------------------------------------------------------------------------------------------------------


def nearest(samples: Samples, seed: int, *, ks: Sequence[int], temperature: float) -> Result:
    """Fit similarity-weighted kNN."""

    def scores(source: str, query: str, ks: list[int]) -> torch.Tensor:
        return knn.weighted_scores(samples.near[query, source], samples.labels, ks, temperature)

    result = _of_k(samples, ks, len(samples.rows[TRAIN]), scores)
    return replace(result, facts={**result.facts, "scale": "probability"})


def nearest_paper(samples: Samples, seed: int, *, temperature: float) -> Result:
    """Fit kNN with the k of the paper."""
    return _fixed(nearest(samples, seed, ks=[knn.PAPER_K], temperature=temperature))


def multilabel_nearest(samples: Samples, seed: int, *, ks: Sequence[int], smoothing: float) -> Result:
    """Fit ML-kNN."""

    def scores(source: str, query: str, ks: list[int]) -> torch.Tensor:
        within = samples.near[source, source]
        near = samples.near[query, source]
        return knn.mlknn_scores(within, near, samples.labels, ks, smoothing)

    return _of_k(samples, ks, len(samples.rows[TRAIN]) - 1, scores)


def multilabel_nearest_paper(samples: Samples, seed: int) -> Result:
    """Fit ML-kNN with the k and smoothing of the paper."""
    return _fixed(multilabel_nearest(samples, seed, ks=[knn.PAPER_K], smoothing=knn.PAPER_SMOOTHING))


def _fixed(result: Result) -> Result:
    """State that nothing was chosen: the paper's k is the only candidate."""
    return replace(result, facts={**result.facts, "selected_on": "nothing: k is fixed"})


def _of_k(
    samples: Samples, wanted: Sequence[int], most: int, scores: Callable[[str, str, list[int]], torch.Tensor]
) -> Result:
    """Choose k among those of `wanted` that are at most `most`; scores: (source, query, ks) -> [ks, n, classes]."""
    ks = sorted({k for k in wanted if k <= most}) or [max(most, 1)]
    val = scores(TRAIN, VAL, ks)
    candidates = [Candidate({"k": k}, samples.value(each), each) for k, each in zip(ks, val, strict=True)]

    def refit(candidate: Candidate[torch.Tensor]) -> torch.Tensor:
        return scores(REFIT, TEST, [int(candidate.settings["k"])])[0]

    choice = selection.choose(candidates, refit, "k")
    facts = {**choice.facts, "left_out": sorted(set(wanted) - set(ks))}
    return Result(choice.best.fitted, choice.refitted, facts)


# --- linear heads -----------------------------------------------------------------------------------------------------


def _inputs(samples: Samples, blocks: Sequence[int], patch_mean: Sequence[bool]) -> list[grid.Input]:
    """Return what heads read, as many inputs for every backbone that has enough vectors. Raises if there is none."""
    found = grid.inputs(samples.table, blocks, patch_mean)
    if not found:
        raise RadprobeError("params: probe.linear", "no head suits this backbone", "allow blocks: 1 without patch_mean")
    return found


def linear(
    samples: Samples,
    seed: int,
    *,
    blocks: Sequence[int],
    patch_mean: Sequence[bool],
    rates: Sequence[float],
    epochs: int,
    batch_size: int,
) -> Result:
    """Fit a grid of linear heads by SGD, on features in a unit of their own."""
    sgd = _Sgd(samples, epochs, batch_size, raw=False)
    inputs = _inputs(samples, blocks, patch_mean)
    found = selection.search(rates, "learning_rate", lambda values: sgd.candidates(inputs, values, seed))
    left_out = len(blocks) * len(patch_mean) - len(inputs)
    facts = {"heads_left_out": left_out * len(rates), **_widening(found, "learning_rate")}
    return sgd.chosen(found.candidates, seed, facts)


def linear_paper(samples: Samples, seed: int, *, epochs: int, batch_size: int) -> Result:
    """Fit the paper's own grid, which is never widened, on features as they are, with its loss (D17)."""
    sgd = _Sgd(samples, epochs, batch_size, raw=True)
    candidates = sgd.candidates(grid.paper_inputs(samples.table, samples.tokens), grid.PAPER_RATES, seed)
    facts = {"heads_left_out": 2 * len(grid.PAPER_BLOCKS) * len(grid.PAPER_RATES) - len(candidates)}
    return sgd.chosen(candidates, seed, facts)


@dataclass(frozen=True)
class TriedHead:
    """A linear head of the grid and its logits of val."""

    recipe: grid.HeadRecipe
    val: torch.Tensor


@dataclass(frozen=True)
class _Sgd:
    """Linear heads trained by SGD: on features in a unit of their own, or (`raw`) as they are, as in the paper."""

    samples: Samples
    epochs: int
    batch_size: int
    raw: bool

    def fit(self, part: str, recipes: list[grid.HeadRecipe], seed: int) -> list[grid.Head]:
        table = self.samples.features(part)
        return grid.fit(
            table,
            self.samples.y(part),
            recipes,
            self.epochs,
            self.batch_size,
            seed,
            exclusive=self.samples.exclusive,
            summed=self.raw,
            views=self.samples.views_of(part),
            unit=None if self.raw else grid.Unit.of(table),
        )

    def candidates(self, inputs: Sequence[grid.Input], rates: Sequence[float], seed: int) -> list[Candidate[TriedHead]]:
        """Fit a head per input and rate on train."""
        recipes = [grid.HeadRecipe(blocks, patch_mean, rate) for blocks, patch_mean in inputs for rate in rates]
        val = self.samples.features(VAL)
        found = []
        for head in self.fit(TRAIN, recipes, seed):
            logits = head.logits(val)
            value = self.samples.value(ranking(logits, self.samples.exclusive))
            found.append(Candidate(vars(head.recipe), value, TriedHead(head.recipe, logits)))
        return found

    def chosen(self, candidates: list[Candidate[TriedHead]], seed: int, facts: dict[str, Any]) -> Result:
        """Fit the best of the candidates again."""
        test = self.samples.features(TEST)

        def scores(recipe: grid.HeadRecipe, seed: int) -> torch.Tensor:
            (head,) = self.fit(REFIT, [recipe], seed)
            return _checked(head.logits(test), f"linear head with learning rate {recipe.learning_rate:g}, seed {seed}")

        choice = selection.choose(candidates, lambda each: scores(each.fitted.recipe, seed), "linear heads")
        recipe = choice.best.fitted.recipe
        columns = self.samples.table.columns(*recipe.input)
        counts = {
            "heads": len(candidates),
            "heads_diverged": len(candidates) - len(selection.ranked(candidates)),
            "softmax": self.samples.exclusive,
            "parameters": (columns.stop - columns.start + 1) * len(self.samples.classes),
        }
        return Result(
            choice.best.fitted.val,
            choice.refitted,
            {**choice.facts, **counts, **facts},
            lambda other: {TEST: scores(recipe, other)},
        )


def _widening(found: selection.Search[Any], name: str) -> dict[str, Any]:
    """Return how often a grid was widened, and the setting that still lies at its edge, "" if none does."""
    return {"widened": found.widened, "at_edge": name if found.at_edge else ""}


# --- logistic regression ----------------------------------------------------------------------------------------------


def logistic_sweep(
    samples: Samples, seed: int, *, blocks: Sequence[int], patch_mean: Sequence[bool], cs: Sequence[float]
) -> Result:
    """Fit logistic regressions: val chooses the input and C."""
    sweeps: dict[grid.Input, selection.Search[Tried]] = {}
    late: list[dict[str, float]] = []
    for one in _inputs(samples, blocks, patch_mean):
        sweeps[one], not_converged = _sweep(samples, one, cs)
        late += not_converged
    candidates = [each for found in sweeps.values() for each in found.candidates]

    def refit(candidate: Candidate[Tried]) -> torch.Tensor:
        x = _read(samples, candidate.fitted.input)
        c = candidate.settings["c"]
        fitted = logistic.fit(x[samples.rows[REFIT]], samples.y(REFIT), [c], samples.exclusive)
        return _checked(fitted.logits(x[samples.rows[TEST]])[0], f"logistic regression with C {c:g}")

    choice = selection.choose(candidates, refit, "values of C")
    chosen = choice.best.fitted.input
    facts = {
        **choice.facts,
        "softmax": samples.exclusive,
        "parameters": (_read(samples, chosen).shape[1] + 1) * len(samples.classes),
        "not_converged": late,
        **_widening(sweeps[chosen], "c"),
    }
    return Result(choice.best.fitted.val, choice.refitted, facts)


def _read(samples: Samples, one: grid.Input) -> torch.Tensor:
    """Return the features [cases, D] of an input."""
    return samples.table.x[:, samples.table.columns(*one)]


def _sweep(
    samples: Samples, one: grid.Input, cs: Sequence[float]
) -> tuple[selection.Search[Tried], list[dict[str, float]]]:
    """Return the candidates of one input on val, the sweep of C widened if its best lies at the edge.

    And the settings of those that did not converge.
    """
    x = _read(samples, one)
    features = logistic.EigenFeatures(x[samples.rows[TRAIN]])
    val = x[samples.rows[VAL]]
    late: list[dict[str, float]] = []
    of_input: dict[str, float] = {"blocks": one[0], "patch_mean": one[1]}

    def fit(values: list[float]) -> list[Candidate[Tried]]:
        sweep = features.fit(samples.y(TRAIN), values, samples.exclusive)
        late.extend({**of_input, "c": c} for c in sweep.not_converged)
        return [
            Candidate({**of_input, "c": c}, samples.value(ranking(logits, samples.exclusive)), Tried(one, logits))
            for c, logits in zip(values, sweep.logits(val), strict=True)
        ]

    return selection.search(cs, "c", fit), late


def shuffled(samples: Samples, seed: int, *, c: float, shuffles: int) -> Result:
    """Fit on labels that are permuted among the patients of train, once per shuffle: there is nothing to learn."""
    train = samples.rows[TRAIN]
    features = logistic.EigenFeatures(samples.cls[train])
    labels = samples.y(TRAIN)
    patients = samples.cases.patients[train]

    def fit(shuffle: int) -> Scores:
        fitted = features.fit(labels[permuted(patients, shuffle)], [c], samples.exclusive)
        scores = {part: fitted.logits(samples.cls[samples.rows[part]])[0] for part in (VAL, TEST)}
        _checked(scores[TEST], f"shuffle {shuffle}")
        return scores

    first = fit(seed)
    facts = {"chosen": {"c": c}, "selected_on": "nothing: C is fixed", "softmax": samples.exclusive}
    return Result(first[VAL], first[TEST], facts, fit, fits=shuffles)


def few_shot_curve(samples: Samples, index: Index, draws: Sequence[few_shot.Draw], c: float) -> FewShotScores:
    """Fit one head per draw, C fixed, on the drawn cases alone; score the test part, its cases sorted by id.

    A class without a positive and a negative in a draw cannot be learnt from it: its scores there are NaN.
    """
    tests = samples.rows[TEST]
    tests = tests[np.argsort(samples.cases.ids[tests])]

    def fit(draw: few_shot.Draw) -> np.ndarray:
        train = samples.cases.of(draw.split.rows(index, TRAIN))
        labels = samples.labels[train]
        scores = np.full((len(tests), len(samples.classes)), np.nan, np.float32)
        taught = selection.both_present(labels.numpy())
        if taught.any():
            fitted = logistic.fit(samples.cls[train], labels[:, taught], [c], samples.exclusive)
            scores[:, taught] = ranking(fitted.logits(samples.cls[tests])[0], samples.exclusive).numpy()
        return scores

    scores = np.full((len(draws), len(tests), len(samples.classes)), np.nan, np.float32)
    for number, fitted in enumerate(few_shot.fit_each(draws, fit)):
        if fitted is not None:
            scores[number] = fitted
    return few_shot.scored(draws, scores)
