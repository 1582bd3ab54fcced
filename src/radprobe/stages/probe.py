"""probe: all cheap heads on the frozen features of one dataset and backbone, in one job."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from radprobe import console
from radprobe.artifacts import Embeddings, Index, LeakCertificate, Predictions, Split
from radprobe.files import RadprobeError
from radprobe.learning import grid, knn, selection
from radprobe.learning.device import measured
from radprobe.study import Step, Study

CPU = torch.device("cpu")


class Samples:
    """Features and labels of the three parts of a split."""

    def __init__(self, index: Index, split: Split, embeddings: Embeddings):
        every = index.labels()[:, [index.classes.index(name) for name in split.classes]]
        labels = np.where(np.isin(every, (0.0, 1.0)), every, np.nan)  # uncertain (-1) and blank: undefined
        self.labels = torch.from_numpy(labels).float()
        patch_mean = embeddings.patch_mean
        self.table = grid.Table.of(
            torch.from_numpy(embeddings.cls), None if patch_mean is None else torch.from_numpy(patch_mean)
        )
        self.cls = torch.from_numpy(embeddings.cls[:, -1])
        self.index, self.classes = index, split.classes
        self.rows = {part: split.rows(index, part) for part in ("train", "val", "test")}
        self.rows["train+val"] = split.rows(index, "train", "val")
        self._check()

    def _check(self) -> None:
        for part in ("train", "val", "test"):
            if not len(self.rows[part]):
                reason = f"its part {part} has no sample here, so no head can be {_USE[part]}"
                raise RadprobeError(
                    "the split", reason, "choose another split of this dataset, or get the whole download"
                )
        for part in ("train", "val"):
            if not selection.both_present(self.y(part).numpy()).any():
                reason = f"no class has both a positive and a negative in {part}, so no head can be {_USE[part]}"
                raise RadprobeError("the split", reason, "choose another split of this dataset")

    def y(self, part: str) -> torch.Tensor:
        """Return the labels [n, classes] of a part."""
        return self.labels[self.rows[part]]

    def value(self, scores: torch.Tensor) -> float:
        """Return the macro AUROC of scores [n val, classes]; NaN where they are not finite."""
        return selection.macro_auroc(self.y("val").numpy(), scores.numpy()) if scores.isfinite().all() else float("nan")


_USE = {"train": "trained", "val": "chosen", "test": "evaluated"}
Result = tuple[torch.Tensor, torch.Tensor, dict[str, Any]]  # scores of val, scores of test, facts


def run(study: Study, step: Step) -> None:
    """Read Index, Split, its LeakCertificate and Embeddings; write Predictions of kNN, ML-kNN and the linear grid."""
    source = step.need("split").folder
    LeakCertificate.load(source)
    index, split = Index.load(step.need("prepare").folder), Split.load(source)
    embeddings = Embeddings.load(step.need("embed").folder)
    samples = Samples(index, split, embeddings)
    knobs, tables, facts = step.knobs, [], {}
    for name, protocol in PROTOCOLS.items():
        if knobs[name] is None:
            continue
        took: dict[str, Any] = {}
        with measured(took, CPU):
            val, test, found = protocol(samples, knobs[name], knobs["seed"])
        facts[name] = {"selected_on": "val", **found, **took}
        facts[name] |= {f"n_{part}": len(samples.rows[part]) for part in ("train", "val", "test")}
        tables += [_rows(samples, name, part, scores) for part, scores in (("val", val), ("test", test))]
        best = samples.value(val)
        console.say(f"{step.dataset} {step.backbone} {name}: val AUROC {best:.4f} with {found['chosen']}")
    if not tables:
        raise RadprobeError("params: probe", "every protocol is null", "leave at least one of knn, mlknn, linear")
    facts = {"protocols": facts, "embedding": embeddings.costs}
    Predictions(split.classes, pd.concat(tables, ignore_index=True), facts=facts).save(step.folder, step.spec)


def _rows(samples: Samples, protocol: str, part: str, scores: torch.Tensor) -> pd.DataFrame:
    rows = samples.index.table.iloc[samples.rows[part]]
    table = pd.DataFrame({"protocol": protocol, "part": part, "sample_id": rows["sample_id"].to_numpy()})
    table["patient_id"] = rows["patient_id"].to_numpy()
    for column, name in enumerate(samples.classes):
        table[f"score:{name}"] = scores[:, column].double().numpy()
        table[f"target:{name}"] = samples.y(part)[:, column].double().numpy()
    return table


# --- protocols: candidates are fitted on train, val chooses, the chosen one is fitted again on train + val ------------


def _knn(samples: Samples, knobs: dict[str, Any], seed: int) -> Result:
    ks = _possible(knobs["k"], len(samples.rows["train"]))

    def scores(part: str, query: str, ks: list[int]) -> torch.Tensor:
        x, q = samples.cls[samples.rows[part]], samples.cls[samples.rows[query]]
        return knn.knn_scores(x, samples.y(part), q, ks, knobs["temperature"])

    return _of_k(samples, ks, knobs["k"], scores)


def _mlknn(samples: Samples, knobs: dict[str, Any], seed: int) -> Result:
    ks = _possible(knobs["k"], len(samples.rows["train"]) - 1)

    def scores(part: str, query: str, ks: list[int]) -> torch.Tensor:
        x = samples.cls[samples.rows[part]]
        model = knn.MlKnn.fit(x, samples.y(part), ks, knobs["smoothing"])
        return model.scores(samples.cls[samples.rows[query]])

    return _of_k(samples, ks, knobs["k"], scores)


def _possible(ks: list[int], most: int) -> list[int]:
    return sorted({k for k in ks if k <= most}) or [max(most, 1)]


def _of_k(samples: Samples, ks: list[int], asked: list[int], scores: Callable) -> Result:
    val = scores("train", "val", ks)
    values = [samples.value(each) for each in val]
    best = selection.best(values, "k")
    test = scores("train+val", "test", [ks[best]])
    candidates = [{"k": k, "value": value} for k, value in zip(ks, values, strict=True)]
    facts = {"chosen": {"k": ks[best]}, "candidates": candidates, "left_out": sorted(set(asked) - set(ks))}
    return val[best], test[0], facts


def _linear(samples: Samples, knobs: dict[str, Any], seed: int) -> Result:
    table, how = samples.table, (knobs["epochs"], knobs["batch_size"], seed)
    recipes, impossible = grid.recipes(table, knobs["learning_rates"], knobs["blocks"], knobs["patch_mean"])
    if not recipes:
        raise RadprobeError("params: probe.linear", "no head suits this backbone", "allow blocks: 1 without patch_mean")
    heads = grid.fit(table.rows(samples.rows["train"]), samples.y("train"), recipes, *how)
    parts = {part: table.rows(samples.rows[part]) for part in ("val", "test", "train+val")}
    logits = [head.logits(parts["val"]) for head in heads]
    values = [samples.value(each) for each in logits]
    best = selection.best(values, "linear heads")
    (refitted,) = grid.fit(parts["train+val"], samples.y("train+val"), [recipes[best]], *how)
    test = refitted.logits(parts["test"])
    if not test.isfinite().all():
        reason = f"the chosen head {vars(recipes[best])} diverged when fitted again on train + val"
        raise RadprobeError("linear", reason, "leave out its learning rate")
    candidates = [
        {**vars(recipe), "value": None if np.isnan(value) else value}
        for recipe, value in zip(recipes, values, strict=True)
    ]
    diverged = sum(candidate["value"] is None for candidate in candidates)
    counts = {"heads": len(recipes), "heads_left_out": impossible, "heads_diverged": diverged}
    return logits[best], test, {"chosen": vars(recipes[best]), "candidates": candidates, **counts}


PROTOCOLS = {"knn": _knn, "mlknn": _mlknn, "linear": _linear}
