"""What frozen features depend on."""

from typing import Literal

from radprobe.catalog import Backbone, Dataset, EncoderEntry, Intensity
from radprobe.jobs import Job, JobPart
from radprobe.params import Embed


class Encoding(JobPart):
    """How images become the features of one encoder."""

    encoder: EncoderEntry
    size: int  # side of the images that the encoder gets, pixels
    intensity: Intensity
    precision: Literal["bf16", "fp32"]
    blocks: int
    views: int  # augmented copies of each image
    seed: int  # of the views; 0 without any
    decoders: list[str]  # those whose layers are kept as maps


class EmbedJob(Job):
    """The features of a dataset by one backbone: encoded images, or (the control) columns of its tables."""

    dataset: str
    backbone: str
    encoding: Encoding | None = None
    columns: list[str] | None = None


def encoding(model: Backbone, dataset: Dataset, options: Embed, seed: int, decoders: list[str]) -> Encoding:
    """Return how a backbone encodes a dataset."""
    return Encoding(
        encoder=model.encoder,
        size=model.side(dataset.size),
        intensity=dataset.intensity,
        precision=options.precision,
        blocks=options.blocks,
        views=options.views,
        seed=seed if options.views else 0,
        decoders=decoders,
    )
