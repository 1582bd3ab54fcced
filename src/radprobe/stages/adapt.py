"""adapt: a backbone trained with its head on one dataset, in one way: every bias, LoRA, or end to end."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from radprobe import console
from radprobe.artifacts import PARTS, Adapter, Index, LeakCertificate, Pixels, Predictions, Split, Weights
from radprobe.jobs import Inputs, Runtime
from radprobe.jobs.adapt import AdaptJob
from radprobe.learning import adapting, candidates, folds
from radprobe.learning.adapting import Adaptation, AdaptingOptions, Classification, FewShotAdapting, Segmentation, Task
from radprobe.learning.device import device, device_name, fits, measured
from radprobe.learning.tuning import Network
from radprobe.models import adapters, tuned
from radprobe.models.adapters import LoraOptions
from radprobe.names import frozen

NO_COST = {"seconds": 0.0, "peak_gb": 0.0}


def run(job: AdaptJob, inputs: Inputs, runtime: Runtime) -> None:
    """Read Index, Pixels, Split, its LeakCertificate and Weights; write Predictions and the Adapter."""
    shared = _adaptation(job, inputs, runtime)
    place = inputs.place

    def fit(split: Split, folder: Path) -> Predictions:
        own = replace(shared, split=split, folder=folder)
        task = Segmentation(own) if job.task == "segmentation" else Classification(own)
        with fits(job.backbone, own.device):
            predictions, network = _fit(job, task)
        _save_adapter(job, own, network, place.key, len(shared.split.folds) if shared.split.is_folded else None)
        return predictions

    predictions = folds.over(shared.split, place.folder, fit)
    if shared.split.is_folded:  # each fold has one: the first stands for them, and says so
        (folds.folder_of(place.folder, 1) / Adapter.FILE).replace(place.folder / Adapter.FILE)
    Adapter.seal(place)
    predictions.save(place)
    shutil.rmtree(shared.training, ignore_errors=True)


def _adaptation(job: AdaptJob, inputs: Inputs, runtime: Runtime) -> Adaptation:
    prepared = inputs.folder("prepare")
    parted = inputs.folder("split")
    LeakCertificate.load(parted)
    return Adaptation(
        dataset=job.dataset,
        name=job.backbone,
        encoder_facts=job.encoder,
        weights=Weights.load(inputs.folder("weights")),
        index=Index.load(prepared),
        pixels=Pixels.load(prepared),
        split=Split.load(parted),
        options=_options(job),
        folder=inputs.place.folder,
        device=device(runtime.device),
    )


def _options(job: AdaptJob) -> AdaptingOptions:
    head = job.segment or job.classify
    if head is None:
        raise ValueError(f"{job.backbone} on {job.dataset}: its job has the options of no head")
    return AdaptingOptions(
        mode=job.mode,
        task=job.task,
        seed=job.seed,
        size=job.size,
        intensity=job.intensity,
        backbone_rates=tuple(job.backbone_rates),
        head_rates=tuple(job.head_rates),
        lora=_lora(job),
        epochs=head.epochs,
        batch_size=head.batch_size,
        warmup=job.warmup,
        patience=job.patience,
        accumulate=job.accumulate,
        precision=job.precision,
        slices=job.classify.slices if job.classify else 1,
        loss=job.segment.loss if job.segment else "dice",
        unet_widths=tuple(job.segment.unet_widths) if job.segment and job.segment.unet_widths else None,
    )


def _lora(job: AdaptJob) -> LoraOptions | None:
    if job.lora is None:
        return None
    targets = None if job.lora.targets is None else tuple(job.lora.targets)
    return LoraOptions(job.lora.rank, job.lora.alpha, job.lora.dropout, targets)


def _fit(job: AdaptJob, task: Task) -> tuple[Predictions, Network]:
    """Train on one split; return the predictions, and the network that was fitted on train and val."""
    shared = task.adaptation
    cost: dict[str, Any] = {}
    with measured(cost, shared.device):
        choice = candidates.choose(task)
    cost["seconds"] = max(cost["seconds"], choice.seconds)
    network = choice.networks["test"]
    facts = {**choice.facts, "selected_by": task.chosen_by, **tuned.parameters(network), **cost}
    facts |= {"softmax": job.task == "multiclass"}
    facts |= {f"n_{part}": task.size(shared.split, part) for part in PARTS}
    everything = {"protocols": {job.mode: facts}, "embedding": NO_COST, "device": device_name(shared.device)}
    curve = None
    if job.few_shot:
        wanted = FewShotAdapting(tuple(job.few_shot.shots), job.few_shot.draws, job.few_shot.steps)
        cost = {}
        with measured(cost, shared.device):
            curve = adapting.few_shot_curve(task, wanted)
        everything["few_shot"] = {**asdict(wanted), "mode": job.mode, **cost}
    value, settings = facts["value"], facts["chosen"]
    console.say(f"{job.dataset} {job.backbone}: val {task.chosen_by} {value:.4f} with {settings}")
    found = task.predict(choice.networks)
    training = choice.curves.assign(protocol=job.mode)
    return replace(found, facts=everything, few_shot=curve, training=training), network


def _save_adapter(job: AdaptJob, shared: Adaptation, network: Network, key: str, k: int | None) -> None:
    """Write what was trained to the folder of the fit; with folds, it was trained without the first of them."""
    lora = shared.options.lora
    facts = {
        "backbone": frozen(job.backbone),
        "base": adapters.identity(shared.weights),
        "key": key,
        "mode": job.mode,
        "lora": asdict(lora) if lora else None,
        "dataset": job.dataset,
        "classes": shared.split.classes,
        **({"folds": k} if k else {}),
    }
    adapters.save(shared.folder / Adapter.FILE, network.encoder, network.head.state_dict(), facts)
