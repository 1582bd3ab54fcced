"""probe: all cheap heads on the frozen features of one dataset and backbone, in one job."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from radprobe import console
from radprobe.artifacts import Embeddings, Index, LeakCertificate, Predictions, Split
from radprobe.files import RadprobeError
from radprobe.jobs import Inputs, Runtime
from radprobe.jobs.probe import ProbeJob
from radprobe.learning import few_shot, folds, heads, knn
from radprobe.learning.device import measured
from radprobe.learning.heads import Fit
from radprobe.learning.samples import Samples

CPU = torch.device("cpu")


def _knn(job: ProbeJob) -> Fit | None:
    own = job.heads.knn
    return partial(heads.nearest, ks=own.k, temperature=own.temperature) if own else None


def _knn_paper(job: ProbeJob) -> Fit | None:
    own = job.heads.knn
    if own is None or job.task == "multilabel":  # there the paper's kNN is ML-kNN
        return None
    return partial(heads.nearest_paper, temperature=own.temperature)


def _mlknn(job: ProbeJob) -> Fit | None:
    own = job.heads.mlknn
    return partial(heads.multilabel_nearest, ks=own.k, smoothing=own.smoothing) if own else None


def _mlknn_paper(job: ProbeJob) -> Fit | None:
    return heads.multilabel_nearest_paper if job.heads.mlknn else None


def _linear(job: ProbeJob) -> Fit | None:
    own = job.heads.linear
    if own is None:
        return None
    return partial(
        heads.linear,
        blocks=own.blocks,
        patch_mean=own.patch_mean,
        rates=own.learning_rates,
        epochs=own.epochs,
        batch_size=own.batch_size,
    )


def _linear_paper(job: ProbeJob) -> Fit | None:
    own = job.heads.linear
    return partial(heads.linear_paper, epochs=own.epochs, batch_size=own.batch_size) if own else None


def _logistic(job: ProbeJob) -> Fit | None:
    own = job.heads.logistic
    if own is None:
        return None
    cs = np.geomspace(own.low, own.high, own.values).tolist()
    read = job.heads.inputs
    return partial(heads.logistic_sweep, blocks=read.blocks, patch_mean=read.patch_mean, cs=cs)


def _shuffled(job: ProbeJob) -> Fit | None:
    shuffles = job.heads.shuffled
    return partial(heads.shuffled, c=job.heads.floor_c, shuffles=shuffles) if shuffles else None


# A protocol's fit with the options of a job; None if the job leaves it out. Those `@paper` run if `paper` is set.
PROTOCOLS: dict[str, Callable[[ProbeJob], Fit | None]] = {
    "knn": _knn,
    "knn@paper": _knn_paper,
    "mlknn": _mlknn,
    "mlknn@paper": _mlknn_paper,
    "linear": _linear,
    "linear@paper": _linear_paper,
    "logistic": _logistic,
    "shuffled": _shuffled,
}


def run(job: ProbeJob, inputs: Inputs, runtime: Runtime) -> None:
    """Read Index, Split, its LeakCertificate and Embeddings; write Predictions of every head of the job."""
    source = inputs.folder("split")
    LeakCertificate.load(source)
    index = Index.load(inputs.folder("prepare"))
    embeddings = Embeddings.load(inputs.folder("embed"))
    found = folds.over(
        Split.load(source), inputs.place.folder, lambda split, _: _fit_all(job, index, split, embeddings)
    )
    found.save(inputs.place)


def _fit_all(job: ProbeJob, index: Index, split: Split, embeddings: Embeddings) -> Predictions:
    """Fit every head of the job on one split."""
    fits = _fits(job)
    asked = [own.k for own in (job.heads.knn, job.heads.mlknn) if own]
    samples = Samples(
        index,
        split,
        embeddings,
        exclusive=job.task == "multiclass",
        neighbours=max([knn.PAPER_K, *(k for ks in asked for k in ks)]),
        within=any("mlknn" in name for name in fits),
    )
    samples.check(job.dataset)
    search: dict[str, Any] = {}
    with measured(search, CPU):
        if any("knn" in name for name in fits):
            _ = samples.near  # here, so that its time counts for every head that needs it
    tables = []
    facts: dict[str, Any] = {}
    for name, fit in fits.items():
        fitted = heads.fitted(samples, name, fit, job.seed, job.repeats)
        if "knn" in name:
            fitted.facts["seconds"] += search["seconds"]
        console.say(f"{job.dataset} {job.backbone} {name}: {fitted.summary}")
        facts[name] = fitted.facts
        tables.append(fitted.table)
    all_facts: dict[str, Any] = {"protocols": facts, "embedding": embeddings.costs}
    curve = None
    if own := job.heads.few_shot:
        took: dict[str, Any] = {}
        with measured(took, CPU):
            draws = few_shot.every(index, split, job.task, own.shots, own.draws, job.seed, job.heads.paper)
            curve = heads.few_shot_curve(samples, index, draws, own.c)
        all_facts["few_shot"] = {**own.model_dump(), **took}
        console.say(f"{job.dataset} {job.backbone} few-shot: {len(curve.table)} draws")
    return Predictions(split.classes, pd.concat(tables, ignore_index=True), facts=all_facts, few_shot=curve)


def _fits(job: ProbeJob) -> dict[str, Fit]:
    """Return what fits each protocol of the job. Raises RadprobeError if there is none."""
    made = {name: make(job) for name, make in PROTOCOLS.items() if job.heads.paper or not name.endswith("@paper")}
    fits = {name: fit for name, fit in made.items() if fit is not None}
    if not fits:
        reason = "leave at least one of knn, linear, logistic (or mlknn, of several labels)"
        raise RadprobeError("params: probe", "every protocol is null", reason)
    return fits
