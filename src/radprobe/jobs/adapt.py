"""The job of `adapt`: a backbone that is trained with its head on one dataset, in one way."""

from typing import Literal, Self

from radprobe.catalog import Backbone, Dataset, EncoderEntry, Intensity
from radprobe.jobs import Job, Task
from radprobe.names import is_further_init, mode_of
from radprobe.params import Adapt, Classify, Decode, FewShotAdapt, Lora, Params


class AdaptJob(Job):
    """What an adapted backbone and its predictions depend on.

    lora: the options of LoRA, None for another mode. classify, segment: the options of the head; one is None, by task.
    """

    dataset: str
    backbone: str
    mode: str
    task: Task
    seed: int
    threads: int
    encoder: EncoderEntry
    size: int
    intensity: Intensity
    backbone_rates: list[float]
    head_rates: list[float]
    lora: Lora | None
    classify: Classify | None
    segment: Decode | None
    warmup: float
    patience: int | None
    accumulate: int
    precision: Literal["bf16", "fp32"]
    few_shot: FewShotAdapt | None

    @classmethod
    def of(cls, params: Params, options: Adapt, entry: Dataset, backbone: Backbone) -> Self:
        """Return the job of a dataset and an adapted backbone, <id>+<mode>. Raises KeyError on an unknown mode."""
        mode = mode_of(backbone.id) or ""
        way = options.ways[mode]
        segments = entry.task == "segmentation"
        one_set = isinstance(params.datasets[entry.id].split, str)  # a curve over draws belongs to one training set
        return cls(
            dataset=entry.id,
            backbone=backbone.id,
            mode=mode,
            task=entry.task,
            seed=params.seed,
            threads=params.threads,
            encoder=backbone.encoder,
            size=backbone.side(entry.size),
            intensity=entry.intensity,
            backbone_rates=list(way.backbone_rates),
            head_rates=way.head_rates,
            lora=way if isinstance(way, Lora) else None,
            classify=None if segments else options.classify,
            segment=options.segment if segments else None,
            warmup=options.warmup,
            patience=options.patience,
            accumulate=options.accumulate,
            precision=options.precision,
            few_shot=options.few_shot if one_set and not is_further_init(backbone.id) else None,
        )
