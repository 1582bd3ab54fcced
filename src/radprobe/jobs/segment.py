"""The job of `segment`: decoders on the dense maps of a frozen backbone, a network from scratch, or the ceiling."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from radprobe.catalog import Backbone, Dataset, EncoderFacts, Intensity
from radprobe.jobs import Job
from radprobe.names import CEILING, SCRATCH, is_further_init
from radprobe.params import FewShotDecoder, LinearDecoder, Params, Scratch, UNetDecoder


class JobPart(BaseModel):
    """A part of a job."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DecoderTraining(JobPart):
    """What every trained decoder depends on. repeats: fits of what val chose, each with its own seed."""

    seed: int
    threads: int
    repeats: int


class ScratchTraining(JobPart):
    """A network from scratch: its options, the side of its images, and their range of grey values."""

    options: Scratch
    size: int
    intensity: Intensity


class DecoderDraws(JobPart):
    """The few-shot draws of linear decoders, and whether those of the paper are fitted too."""

    options: FewShotDecoder
    paper: bool


class EncodedMaps(JobPart):
    """What the dense maps depend on: they are encoded again if `embed` did not store them."""

    encoder: EncoderFacts
    size: int
    intensity: Intensity
    precision: Literal["bf16", "fp32"]
    blocks: int
    views: int
    seed: int
    decoders: list[str]


class SegmentJob(Job):
    """What the predictions of `segment` depend on.

    training is None for the ceiling; linear, unet, few_shot and embed are of frozen backbones; scratch of networks from
    scratch.
    """

    dataset: str
    backbone: str
    training: DecoderTraining | None = None
    linear: LinearDecoder | None = None
    unet: UNetDecoder | None = None
    few_shot: DecoderDraws | None = None
    scratch: ScratchTraining | None = None
    embed: EncodedMaps | None = None

    @classmethod
    def of(cls, params: Params, entry: Dataset, backbone: Backbone, decoders: list[str]) -> Self:
        """Return the job of a dataset and a backbone; `decoders` are those whose maps `embed` encodes."""
        if backbone.id == CEILING:
            return cls(dataset=entry.id, backbone=backbone.id)
        training = DecoderTraining(seed=params.seed, threads=params.threads, repeats=params.repeats)
        options = params.segment
        size = backbone.side(entry.size)
        if backbone.id in SCRATCH and options.scratch:
            scratch = ScratchTraining(options=options.scratch, size=size, intensity=entry.intensity)
            return cls(dataset=entry.id, backbone=backbone.id, training=training, scratch=scratch)
        return cls(
            dataset=entry.id,
            backbone=backbone.id,
            training=training,
            linear=options.linear,
            unet=options.unet,
            few_shot=_draws(params, entry.id, backbone.id),
            embed=EncodedMaps(
                encoder=backbone.encoder,
                size=size,
                intensity=entry.intensity,
                precision=params.embed.precision,
                blocks=params.embed.blocks,
                views=params.embed.views,
                seed=params.seed if params.embed.views else 0,
                decoders=decoders,
            ),
        )


def _draws(params: Params, dataset: str, backbone: str) -> DecoderDraws | None:
    """Return the few-shot draws of linear decoders, None if there are none.

    A curve over draws belongs to one training set, so folds have none. Those of a control are of its first
    initialisation.
    """
    options = params.segment
    one_set = isinstance(params.datasets[dataset].split, str)
    if options.few_shot is None or options.linear is None or not one_set or is_further_init(backbone):
        return None
    return DecoderDraws(options=options.few_shot, paper=options.paper)
