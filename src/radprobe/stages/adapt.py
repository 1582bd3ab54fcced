"""adapt: a backbone trained with its head on one dataset, in one way: every bias, LoRA, or end to end."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from radprobe import console
from radprobe.artifacts import PARTS, Adapter, FewShot, Index, LeakCertificate, Pixels, Predictions, Split, Weights
from radprobe.learning import candidates, few_shot, folds
from radprobe.learning.adapting import Classification, Job, Network, Segmentation, Task
from radprobe.learning.device import device, device_name, fits, measured
from radprobe.models import adapters, tuned
from radprobe.names import frozen
from radprobe.study import Step, Study

NO_COST = {"seconds": 0.0, "peak_gb": 0.0}


def run(study: Study, step: Step) -> None:
    """Read Index, Pixels, Split, its LeakCertificate and Weights; write Predictions and the Adapter."""
    job = _job(study, step)

    def fit(split: Split, folder: Path) -> Predictions:
        own = replace(job, split=split, folder=folder)
        task = Segmentation(own) if step.knobs["task"] == "segmentation" else Classification(own)
        with fits(step.backbone, own.where):
            return _fit(step, task)

    predictions = folds.over(job.split, step.folder, fit)
    if job.split.is_folded:  # each fold has one: the first stands for them, and says so
        (folds.folder_of(step.folder, 1) / Adapter.FILE).replace(step.folder / Adapter.FILE)
    Adapter.seal(step.place)
    predictions.save(step.place)
    shutil.rmtree(job.training, ignore_errors=True)


def _job(study: Study, step: Step) -> Job:
    prepared, parted = step.dependency("prepare").folder, step.dependency("split").folder
    LeakCertificate.load(parted)
    return Job(
        dataset=step.dataset,
        entry=study.backbone(step.backbone),
        weights=Weights.load(step.dependency("weights").folder),
        index=Index.load(prepared),
        pixels=Pixels.load(prepared),
        split=Split.load(parted),
        scale=study.dataset(step.dataset).intensity,
        knobs=step.knobs,
        folder=step.folder,
        where=device(study.params.device),
    )


def _fit(step: Step, task: Task) -> Predictions:
    """Train on one split; write the adapter to the folder of the job."""
    job, mode, took = task.job, step.knobs["mode"], {}
    with measured(took, job.where):
        choice = candidates.choose(task)
    took["seconds"] = max(took["seconds"], choice.seconds)
    facts = {**choice.facts, "selected_by": task.chosen_by, **tuned.parameters(choice.networks["test"]), **took}
    facts |= {"softmax": step.knobs["task"] == "multiclass"}
    facts |= {f"n_{part}": task.size(job.split, part) for part in PARTS}
    everything = {"protocols": {mode: facts}, "embedding": NO_COST, "device": device_name(job.where)}
    curve = None
    if wanted := step.knobs["few_shot"]:
        took = {}
        with measured(took, job.where):
            curve = _few_shot(task)
        everything["few_shot"] = {**wanted, "mode": mode, **took}
    said, curves = task.predict(choice.networks), choice.curves.assign(protocol=mode)
    _save_adapter(step, job, choice.networks["test"])
    value, settings = facts["value"], facts["chosen"]
    console.say(f"{step.dataset} {step.backbone}: val {task.chosen_by} {value:.4f} with {settings}")
    return Predictions(job.split.classes, **said, facts=everything, few_shot=curve, training=curves)


def _few_shot(task: Task) -> FewShot:
    """Adapt to each draw with the first learning rates and fixed steps; say what each makes of test."""
    job, knobs, wanted = task.job, task.job.knobs, task.job.knobs["few_shot"]
    every = few_shot.every(
        job.index, job.split, knobs["task"], wanted["shots"], wanted["draws"], knobs["seed"], paper=False
    )
    rates = (knobs["backbone_rates"][0], knobs["head_rates"][0])

    def fit(draw: few_shot.Draw) -> np.ndarray:
        epochs = max(1, round(wanted["steps"] / math.ceil(task.batches(draw.split) / knobs["accumulate"])))
        folder = job.training / draw.name
        network = task.fit(rates, job.schedule(epochs), ("train",), draw.split, folder=folder).network
        return task.test(network, draw.split)

    fitted = few_shot.fit_each(every, fit)
    scores = [task.test(None, draw.split) if own is None else own for draw, own in zip(every, fitted, strict=True)]
    return few_shot.scored(every, np.stack(scores))


def _save_adapter(step: Step, job: Job, network: Network) -> None:
    facts = {"backbone": frozen(step.backbone), "base": adapters.identity(job.weights), "key": step.key}
    facts |= {"mode": step.knobs["mode"], "lora": job.lora}
    facts |= {"dataset": step.dataset, "classes": job.split.classes}
    if k := step.dependency("split").knobs["recipe"].get("folds"):
        facts["folds"] = k  # it was trained without the first of them
    adapters.save(job.folder / Adapter.FILE, network.encoder, network.head.state_dict(), facts)
