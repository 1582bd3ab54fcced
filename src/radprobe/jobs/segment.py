"""The job of `segment`: decoders on the dense maps of a frozen backbone, a network from scratch, or the ceiling."""

from typing import Self

from radprobe.catalog import Backbone, Dataset, Intensity
from radprobe.jobs import Job, JobPart
from radprobe.jobs.embed import Encoding, encoding
from radprobe.names import CEILING, SCRATCH, is_further_init
from radprobe.params import FewShotDecoder, LinearDecoder, Params, Scratch, UNetDecoder


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
    embed: Encoding | None = None

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
            embed=encoding(backbone, entry, params.embed, params.seed, decoders),
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
