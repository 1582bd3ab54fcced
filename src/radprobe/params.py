"""params.yaml, typed: every knob of a study with its description. Unknown keys are refused with the nearest name."""

import difflib
import json
import math
import os
import re
from collections.abc import Iterator
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from radprobe.catalog import FEWEST_FOLDS, MOST_FOLDS, Architecture, Folder, Intensity, Recipe, Strict
from radprobe.files import RadprobeError
from radprobe.names import HEADLINES

MAX_DEPTH, MAX_NODES = 50, 100_000  # of YAML: params have 6 levels, and some hundred values
SHOWN = 300  # letters of a value in a message
MIN_PART, MAX_NAMES = 3, 4  # letters of a part of a name; names that are suggested
Text = TypeVar("Text", str, Path)
KeyPath = tuple[int | str, ...]  # the keys, from the outermost, that lead to a value


def _writable(text: Text) -> Text:
    if any(ord(letter) < 32 for letter in str(text)):
        raise ValueError("cannot hold line breaks and other control characters")
    return text


Place = Annotated[Path, AfterValidator(_writable)]
Title = Annotated[str, AfterValidator(_writable)]  # it becomes a line of a page that is written in reStructuredText


class Paths(Strict):
    """Where things are. Relative paths start at `root`."""

    root: Place = Field(Path(), description="Folder that the other paths are relative to.")
    raw: Place = Field(
        Path("data/raw"), description="Raw downloads, one folder per dataset. RADPROBE_RAW overrides it."
    )
    weights: Place = Field(Path("data/weights"), description="Local weights files. RADPROBE_WEIGHTS overrides it.")
    work: Place = Field(Path("work"), description="Intermediate artifacts, shared by studies.")
    results: Place = Field(Path("results"), description="Predictions and scores.")
    reports: Place = Field(Path("reports"), description="The pages that people read.")


class Phantom(Strict):
    """A generated raw download instead of the real one, in the same layout and format."""

    patients: int = Field(gt=0, description="How many patients to generate.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the generator.")


class LeakException(Strict):
    """Something that two parts share and that this study accepts. The report repeats it."""

    samples: list[str] = Field(min_length=2, description="Sample ids, as the error names them.")
    reason: str = Field(min_length=1, description="Why it is no leak.")


class MadeElsewhere(Strict):
    """Predictions that were made outside radprobe: by a published model, by your own network, by a human reader."""

    file: Place = Field(
        description="To classify: a CSV of one row per case. To segment: a folder of one label map per case. "
        "Relative to paths.root."
    )
    title: Title | None = Field(None, description="How the report calls the row; null: by its id.")
    notes: Title | None = Field(None, description="What a reader of the report should know of the row.")
    scale: Literal["auto", "probability", "logit", "score"] = Field(
        "auto",
        description="What the numbers of a CSV are; higher is more likely. score: any other scale, so calibration is "
        "not scored. auto: probability if all lie in [0, 1], else score.",
    )


def _with_its_file(given: object) -> object:
    return {"file": given} if isinstance(given, str | Path) else given


OwnId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.]*$")]  # it stands in paths
Row = Annotated[MadeElsewhere, BeforeValidator(_with_its_file, json_schema_input_type=str | MadeElsewhere)]


class CrossValidation(Strict):
    """Folds in place of one split, for a small folder of your own: by patient, stratified by label, from `seed`."""

    folds: int = Field(
        ge=FEWEST_FOLDS,
        le=MOST_FOLDS,
        description="Number of folds. Each is test once; the next one is then val, and the others are train.",
    )


def _kind_of_split(given: object) -> str:
    return "[folds]" if isinstance(given, dict | CrossValidation) else "[name]"


SplitChoice = Annotated[
    Annotated[str, Tag("[name]")] | Annotated[CrossValidation, Tag("[folds]")], Discriminator(_kind_of_split)
]


class DatasetChoice(Strict):
    """How this study uses a benchmark, or a folder of your own."""

    raw: Place | None = Field(None, description="Folder of the raw download; default <paths.raw>/<dataset>.")
    split: SplitChoice = Field(
        "study",
        description="A named split of the catalog; `radprobe datasets <id>` lists them. Or, for a small folder of your "
        "own, cross-validation: {folds: 5}.",
    )
    allow_missing: bool = Field(False, description="Accept a partial copy: listed images may be absent.")
    max_quarantine: int = Field(0, ge=0, description="How many unreadable files may be set aside before it fails.")
    phantom: Phantom | None = Field(None, description="Generate the raw download; for demos and tests.")
    folder: Folder | None = Field(None, description="Your own images: the columns of your CSV.")
    classes: str | None = Field(
        None,
        description="A named list of classes, other than the default one; `radprobe datasets <id>` lists them.",
    )
    uncertain: Literal["zeros", "ones", "ignore"] = Field("zeros", description="What a label of -1 counts as.")
    slices: Literal["canonical", "paper"] = Field(
        "canonical", description="Slices of volumes: axial, or (paper) along the last stored axis."
    )
    intensity: Intensity | None = Field(None, description="Range of grey values, other than the catalog's.")
    size: int | None = Field(None, gt=0, description="Side that a backbone gets, other than the catalog's.")
    stored: int | None = Field(None, gt=0, description="Side of the stored images, other than the catalog's.")
    leaks_allowed: list[LeakException] = Field([], description="What parts may share, each with its reason.")
    predictions: dict[OwnId, Row] = Field(
        {},
        description="Predictions that were made elsewhere, by an id of your choice: each is a row of the study. A path "
        "to a CSV or a folder, or `file` with title, notes and scale.",
    )

    @property
    def split_name(self) -> str:
        """The name of the split: as params say, or <k>-fold."""
        return self.split if isinstance(self.split, str) else f"{self.split.folds}-fold"


class OwnBackbone(Strict):
    """Your own checkpoint: the architecture and recipe of a catalog entry, or those that you state."""

    like: str | None = Field(None, description="Catalog id whose architecture and recipe it shares.")
    architecture: Architecture | None = Field(None, description="Where it is like none: who builds it, and how.")
    recipe: Recipe | None = Field(None, description="How its features are made; null: as `like` does.")
    title: str = Field(description="How the report calls it.")
    file: str | None = Field(None, description="safetensors or PyTorch state dict, absolute or under paths.weights.")
    adapter: Place | None = Field(
        None, description="Or an adapter.safetensors that `radprobe adapt` wrote: it names the backbone it belongs to."
    )
    sha256: str | None = Field(None, description="Of the file; checked where given.")
    derived: str | None = Field(None, description="Why these are not the published weights, shown with every score.")
    licence: str = Field("not stated", description="Licence of the weights.")

    @model_validator(mode="after")
    def _known_or_stated(self) -> Self:
        if (self.file is None) == (self.adapter is None):
            raise ValueError("say either `file` (weights) or `adapter`")
        if self.adapter:
            if self.like or self.architecture or self.recipe:
                raise ValueError("an adapter names its backbone itself: leave out like, architecture and recipe")
            return self
        if (self.like is None) == (self.architecture is None):
            raise ValueError("say either `like` (a catalog id) or `architecture`")
        if self.architecture and self.recipe is None:
            raise ValueError("an `architecture` wants its `recipe`: patch, native_size, mean, std ...")
        return self


class Embed(Strict):
    """Frozen features, computed once per dataset and backbone."""

    batch_size: int = Field(32, gt=0, description="Images per forward pass.")
    shard_rows: int = Field(256, gt=0, description="Images per shard; at most one shard is lost in a kill.")
    precision: Literal["bf16", "fp32"] = Field("bf16", description="Autocast of the forward pass.")
    blocks: int = Field(4, gt=0, description="Vectors of the last so many blocks (ViTs) or stages (CNNs).")
    views: int = Field(
        0, ge=0, description="Augmented copies of each image, for heads that are trained by epochs: crops, or turns."
    )
    max_dense_cache_gb: float = Field(
        20,
        gt=0,
        description="Largest cache of dense maps per dataset and backbone; larger ones are made as they are read.",
    )


class Knn(Strict):
    """Similarity-weighted k nearest neighbours on the L2-normalised CLS token."""

    k: list[PositiveInt] = Field([5, 10, 20, 50, 100], min_length=1, description="Candidates; val chooses.")
    temperature: float = Field(0.07, gt=0, description="Softmax temperature of the cosine similarities.")


class MlKnn(Strict):
    """ML-kNN (Zhang & Zhou 2007), multi-label sets only."""

    k: list[PositiveInt] = Field([5, 10, 20, 50], min_length=1, description="Candidates; val chooses.")
    smoothing: float = Field(1.0, gt=0, description="Laplace smoothing s of the priors and likelihoods.")


class Linear(Strict):
    """Linear probe: a head for each learning rate and input, trained together; also the study's own grid (`paper`)."""

    learning_rates: list[PositiveFloat] = Field(
        [0.03, 0.1, 0.3, 1.0],
        min_length=1,
        description="SGD learning rates, of features that are centred and of length 1. If the best on val lies at the "
        "edge, the grid is widened, at most three times; one value alone is fixed.",
    )
    blocks: list[PositiveInt] = Field(
        [1, 4],
        min_length=1,
        description="CLS tokens of the last so many blocks. `logistic` reads the same inputs.",
    )
    patch_mean: list[bool] = Field(
        [False, True],
        min_length=1,
        description="With the mean patch token or without. A backbone without a mean patch token (CNNs) gets as many "
        "inputs: its last stages, 1, 2, 3 ... of them.",
    )
    epochs: int = Field(100, gt=0, description="Passes over train.")
    batch_size: int = Field(64, gt=0, description="Samples per step.")


class Logistic(Strict):
    """L2-regularised logistic regression on standardised features of length 1, over a sweep of regularisations.

    It reads the inputs of the linear probe (`linear.blocks`, `linear.patch_mean`); val chooses input and C.
    """

    values: int = Field(
        9,
        ge=1,
        description="How many values of C, evenly spaced in their logarithm; val chooses. If the best lies at the "
        "edge, the sweep is widened, at most three times; one value alone is fixed.",
    )
    low: float = Field(1e-2, gt=0, description="The smallest C, the strongest regularisation.")
    high: float = Field(1e4, gt=0, description="The largest C.")


class FewShot(Strict):
    """Logistic regression on few patients, drawn again and again; val takes no part, C is fixed."""

    shots: list[PositiveInt] = Field(
        [1, 2, 4, 8, 16, 32], min_length=1, description="Patients drawn, for each class where labels allow; then all."
    )
    draws: int = Field(10, ge=1, description="Draws, the same for every backbone; those of fewer patients are nested.")
    c: float = Field(
        5.0,
        gt=0,
        description="C of the logistic regression on standardised features of length 1, whatever their width.",
    )


MIN_SHUFFLES = 20


class Probe(Strict):
    """Cheap heads on frozen features; all of them are one job per dataset and backbone. null leaves one out."""

    knn: Knn | None = Knn()
    mlknn: MlKnn | None = MlKnn()
    linear: Linear | None = Linear()
    logistic: Logistic | None = Logistic()
    few_shot: FewShot | None = FewShot()
    paper: bool = Field(True, description="Also the study's variants: linear@paper, mlknn@paper, its few-shot draw.")
    shuffled: int = Field(
        MIN_SHUFFLES,
        ge=0,
        description="Also logistic regressions on permuted labels, so many of them: the floor. 0 leaves it out.",
    )

    @property
    def inputs(self) -> Linear:
        """The options whose `blocks` and `patch_mean` say what heads read; the default ones if `linear` is null."""
        return self.linear or Linear()

    @property
    def floor_c(self) -> float:
        """C of the logistic regressions on permuted labels: that of few-shot draws, the default one without draws."""
        return (self.few_shot or FewShot()).c

    @field_validator("shuffled")
    @classmethod
    def _enough_shuffles(cls, shuffles: int) -> int:
        if 0 < shuffles < MIN_SHUFFLES:
            raise ValueError(
                f"the range of {shuffles} shuffles is too narrow a band: a new shuffle falls outside it too often. "
                f"Use {MIN_SHUFFLES} or more, or 0 for none"
            )
        return shuffles


Loss = Literal["dice", "dice_ce"]


class LinearDecoder(Strict):
    """1x1 convolution on one dense map, logits upsampled bilinearly; one decoder per learning rate."""

    learning_rates: list[PositiveFloat] = Field(
        [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1], min_length=1, description="Adam learning rates; val chooses."
    )
    epochs: int = Field(20, gt=0, description="Passes over train, at most; val chooses the epoch.")
    patience: PositiveInt | None = Field(None, description="Stop when val has not improved for so many epochs.")
    batch_size: int = Field(8, gt=0, description="Images per step.")
    loss: Loss = Field("dice", description="Dice as in the study, or Dice plus cross-entropy.")


class UNetDecoder(LinearDecoder):
    """U-Net over several layers of the backbone, its own and (paper) the study's; one decoder per learning rate."""

    learning_rates: list[PositiveFloat] = Field(
        [0.0003, 0.001, 0.003], min_length=1, description="Adam learning rates; val chooses."
    )
    widths: list[PositiveInt] = Field(
        [256, 128, 64, 32],
        min_length=2,
        description="Channels from the backbone's grid upwards, each on twice the grid.",
    )


class Scratch(LinearDecoder):
    """U-Net and TransUnet trained from nothing, where `backbones` names them: unet, transunet."""

    learning_rates: list[PositiveFloat] = Field(
        [0.0001, 0.001], min_length=1, description="Adam learning rates; val chooses."
    )
    epochs: int = Field(50, gt=0, description="Passes over train while val chooses.")
    refit_epochs: int = Field(100, gt=0, description="Passes over train and val of the network that is tested.")
    width: int = Field(64, gt=0, description="Channels of the first stage: 64 as in the study, less on a CPU.")
    augment: bool = Field(True, description="Flips and rotations of image and mask, new in each epoch.")


class FewShotDecoder(Strict):
    """Linear decoder on few patients, drawn again and again; val takes no part, learning rate and steps are fixed."""

    shots: list[PositiveInt] = Field([1, 2, 4, 8, 16], min_length=1, description="Patients drawn; then all.")
    draws: int = Field(10, ge=1, description="Draws, the same for every backbone; those of fewer patients are nested.")
    learning_rate: float = Field(0.01, gt=0, description="Adam learning rate.")
    steps: int = Field(100, gt=0, description="Steps of training, about: whole passes over what was drawn.")


class Segment(Strict):
    """Decoders on frozen dense maps, and networks from scratch. null leaves one out."""

    linear: LinearDecoder | None = LinearDecoder()
    unet: UNetDecoder | None = UNetDecoder()
    scratch: Scratch | None = Scratch()
    few_shot: FewShotDecoder | None = FewShotDecoder()
    paper: bool = Field(True, description="Also the study's variants: unet-decoder@paper, its few-shot draw.")


class Tuning(Strict):
    """One way to adapt a backbone: a grid of learning rates, tried one after the other; val chooses."""

    backbone_rates: list[PositiveFloat] = Field(
        [1e-5], min_length=1, description="Adam learning rates of what is trained in the backbone."
    )
    head_rates: list[PositiveFloat] = Field([1e-3], min_length=1, description="Adam learning rates of the head.")


class BitFit(Tuning):
    """BitFit: every bias of the backbone, and nothing else in it."""

    backbone_rates: list[PositiveFloat] = Field(
        [1e-4, 1e-3], min_length=1, description="Adam learning rates of the biases."
    )


class Lora(Tuning):
    """LoRA on the layers of attention and MLP; rank, alpha and dropout as in the study."""

    backbone_rates: list[PositiveFloat] = Field(
        [1e-4, 1e-3], min_length=1, description="Adam learning rates of the adapters."
    )
    rank: int = Field(48, gt=0, description="Of the two matrices whose product is added to a layer's weights.")
    alpha: int = Field(16, gt=0, description="The product is scaled by alpha / rank.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Of what goes into the adapters.")
    targets: list[str] | None = Field(
        None, min_length=1, description="More layers, linear or convolutions, by name, besides query, key, value, MLP."
    )


class HeadOnly(Strict):
    """The head alone: nothing in the backbone moves. Its learning rates are those of the ways beside it."""

    backbone_rates: tuple[float, ...] = (0.0,)
    head_rates: list[PositiveFloat]


class Classify(Strict):
    """How a backbone with a linear head is trained to classify."""

    epochs: int = Field(20, gt=0, description="Passes over train, at most; val chooses the epoch.")
    batch_size: int = Field(32, gt=0, description="Images per step.")
    slices: int = Field(
        8, gt=0, description="Slices of a volume in a step, drawn anew: batch_size / slices volumes; all when tested."
    )


class Decode(Strict):
    """How a backbone with a decoder is trained to segment."""

    epochs: int = Field(30, gt=0, description="Passes over train, at most; val chooses the epoch.")
    batch_size: int = Field(8, gt=0, description="Images per step.")
    loss: Loss = Field("dice", description="Dice as in the study, or Dice plus cross-entropy.")
    unet_widths: list[PositiveInt] | None = Field(
        None,
        min_length=2,
        description="A U-Net decoder of so many channels, as in segment.unet; null: a linear one. A CNN that is "
        "trained end to end with it is a U-Net with a pretrained encoder.",
    )


class FewShotAdapt(Strict):
    """Adapting to few patients, drawn again and again; val takes no part: first learning rates, fixed steps."""

    shots: list[PositiveInt] = Field(
        [1, 4, 16], min_length=1, description="Patients drawn, for each class where labels allow; then all."
    )
    draws: int = Field(5, ge=1, description="Draws, the same for every backbone; those of fewer patients are nested.")
    steps: int = Field(100, gt=0, description="Steps of training, about: whole passes over what was drawn.")


class Adapt(Strict):
    """Backbones that are trained with their head: one row for each way to train them. null leaves a way out.

    One more row, `<id>+head`, trains the head alone in the same loop: the gains of the ways are differences from it.
    """

    backbones: list[str] | None = Field(
        None, description="Which backbones of the study; null: all with pretrained weights. random:<id> may be named."
    )
    bitfit: BitFit | None = BitFit()
    lora: Lora | None = Lora()
    end_to_end: Tuning | None = Tuning()
    classify: Classify = Classify()
    segment: Decode = Decode()
    warmup: float = Field(1, ge=0, description="Epochs of linear warm-up; then learning rates follow a cosine to 0.")
    patience: PositiveInt | None = Field(5, description="Stop when val has not improved for so many epochs.")
    accumulate: int = Field(1, gt=0, description="Batches per step: half the batch_size and twice this is the same.")
    precision: Literal["bf16", "fp32"] = Field("bf16", description="Autocast of the forward pass.")
    few_shot: FewShotAdapt | None = Field(None, description="Also on few patients: much work.")

    @property
    def ways(self) -> dict[str, Tuning | HeadOnly]:
        """The ways to train a backbone, by mode: first the head alone, with every head rate of the others."""
        named = {"bitfit": self.bitfit, "lora": self.lora, "end_to_end": self.end_to_end}
        ways = {mode: way for mode, way in named.items() if way is not None}
        if not ways:
            return {}
        rates = dict.fromkeys(rate for way in ways.values() for rate in way.head_rates)
        return {"head": HeadOnly(head_rates=list(rates)), **ways}


class Score(Strict):
    """Intervals and comparisons."""

    resamples: int = Field(2000, ge=100, description="Bootstrap resamples of the patients.")
    seed: int = Field(
        0, ge=0, lt=2**32, description="Seed of the resamples: the same for every backbone, so differences are paired."
    )
    min_patients: int = Field(
        10, ge=2, description="Under this many patients, of AUROC with the rarer label, no interval is given."
    )
    margin: float = Field(
        0.02,
        gt=0,
        lt=1,
        description="The difference in score that matters: the report says how many test patients would detect it.",
    )


class Controls(Strict):
    """Control rows: what a backbone has to beat, and the ceiling, which no model exceeds."""

    random_inits: int = Field(
        3,
        ge=0,
        description="Random initialisations of each backbone that are probed: it is compared with their mean. 0: none.",
    )
    decoder_inits: int = Field(
        1, ge=1, description="How many of them get decoders too, where the task is segmentation."
    )
    pixels: bool = Field(True, description="Raw pixels, reduced in size, without any network.")
    metadata: bool = Field(True, description="Age, sex and view without any image, where the benchmark has them.")
    ceiling: bool = Field(True, description="Segmentation: the truth at the stored size and back. No model exceeds it.")

    @model_validator(mode="after")
    def _decoders_have_inits(self) -> Self:
        if self.decoder_inits > max(self.random_inits, 1):
            raise ValueError(f"decoder_inits is {self.decoder_inits}, more than random_inits ({self.random_inits})")
        return self


def _as_mapping(names: list[object]) -> str:
    """Return the content of the mapping `controls` for a list of their names: random, pixels, metadata, ceiling."""
    default = Controls()
    values: dict[str, Any] = {"random_inits": default.random_inits if "random" in names else 0}
    values |= {name: name in names for name in ("pixels", "metadata", "ceiling")}
    return ", ".join(f"{key}: {json.dumps(value)}" for key, value in values.items())


class Report(Strict):
    """What the pages show."""

    images: Literal["auto", "none", "thumbnails"] = Field(
        "auto", description="Pictures of samples; auto shows them except for gated sets."
    )
    examples: int = Field(3, ge=1, description="Pictures per dataset.")
    headline: str = Field(
        "logistic",
        description="The protocol that verdicts speak of. A dataset that has no score of it uses logistic, linear or "
        "linear-decoder, the first that was scored.",
    )

    @field_validator("headline")
    @classmethod
    def _known_protocol(cls, name: str) -> str:
        if name not in HEADLINES:
            raise ValueError(f"unknown protocol. Did you mean {nearest_name(name, list(HEADLINES))}?")
        return name


class Versioned(Strict):
    """Which datasets `dvc repro` keeps in DVC's cache: what is made of them, never their pictures or raw files."""

    push: list[str] = Field([], description="`dvc push` sends them to a remote.")
    keep: list[str] = Field(
        [], description="They stay in the cache of this machine: sets whose terms forbid to pass them on, own data."
    )
    pixels: list[str] = Field([], description="Of those under push: their prepared pixels too, which take much room.")

    @model_validator(mode="after")
    def _pixels_are_pushed(self) -> Self:
        if kept := set(self.pixels) - set(self.push):
            raise ValueError(f"pixels: {', '.join(sorted(kept))} is not under push")
        return self


# of our own in work/ and results/: folders beside those of datasets, and what DVC is not to see (.dvcignore)
TAKEN = ("weights", "studies", "logs", "benchmarks", "phantom", "pixels", "lock", "training", "__pycache__")


def _not_taken(name: str) -> str:
    if name.lower() in TAKEN:  # some disks do not tell Logs from logs
        raise ValueError("is a name of our own in work/ and results/: call the dataset otherwise")
    return name


DatasetId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$"), AfterValidator(_not_taken)]  # it stands in paths


class Params(Strict):
    """A study: datasets x backbones x protocols, and every knob."""

    study: Title = Field(description="Name of the study, shown in the report.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of everything that is trained or initialised.")
    repeats: int = Field(
        1,
        ge=1,
        description="Fits of each linear probe, decoder and network from scratch, with seeds that follow `seed`: what "
        "was chosen is fitted again, to tell how far its score moves by chance. Scores are those of the first.",
    )
    threads: int = Field(2, gt=0, description="Threads per job; trained results are reproducible for the same number.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where backbones run.")
    on_missing: Literal["skip", "fail"] = Field(
        "skip", description="Data or weights absent: leave the cells out, or stop."
    )
    hub: bool = Field(
        True, description="May weights be fetched from the Hugging Face hub (HF_HUB_OFFLINE=1 forbids it)."
    )
    download: bool = Field(False, description="Download open sets that are not here; else they are left out, by name.")
    limit: int | None = Field(
        None, gt=0, description="A pilot on so many patients of each dataset, marked as such; null: all."
    )
    paths: Paths = Paths()
    datasets: dict[DatasetId, DatasetChoice] = Field(
        min_length=1,
        description="Benchmarks, by catalog id; own folders, by an id of your choice: letters, digits, underscores; "
        f"none of {', '.join(TAKEN)}, which are names of our own.",
    )
    backbones: list[str] = Field(
        min_length=1,
        description="Catalog ids, own ids, random:<id>, or <id>@paper (its features as in the study).",
    )
    controls: Controls = Field(
        Controls(),
        description="Control rows: random_inits and decoder_inits count random initialisations; pixels, metadata and "
        "ceiling are true or false.",
    )
    own_backbones: dict[OwnId, OwnBackbone] = Field(
        {}, description="Your own checkpoints, by an id of your choice: letters, digits, dots and underscores."
    )
    embed: Embed = Embed()
    probe: Probe = Probe()
    segment: Segment = Segment()
    adapt: Adapt | None = Field(None, description="Backbones trained with their head; null: all stay frozen.")
    score: Score = Score()
    report: Report = Report()
    dvc: Versioned | None = Field(None, description="What DVC versions: wanted by `dvc repro` alone.")

    @field_validator("controls", mode="before")
    @classmethod
    def _no_list(cls, given: object) -> object:
        if isinstance(given, list):
            raise ValueError(f"is a mapping, not a list: write controls: {{{_as_mapping(given)}}}")
        return given


def load(source: Path | str | dict[str, Any]) -> Params:
    """Read and check a params file (or its content).

    Raises RadprobeError that names the key and the nearest valid one.
    """
    name = "params" if isinstance(source, dict) else str(source)
    content = source if isinstance(source, dict) else read(Path(source))
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        raise _explain(name, error) from None
    for where in _truth_values_as_numbers(content, params):
        remedy = f"write a number: {_description(where) or ''}"
        raise RadprobeError(f"{name}: {'.'.join(map(str, where))}", "is a truth value, not a number", remedy)
    return params.model_copy(update={"paths": _with_environment(params.paths)})


def _truth_values_as_numbers(given: object, made: object, where: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield where a number was made of yes or no: pydantic takes them as 1 and 0."""
    if isinstance(given, bool) and not isinstance(made, bool):
        yield where
    elif isinstance(given, dict):
        for key, value in given.items():
            inner = made.get(key) if isinstance(made, dict) else getattr(made, str(key), None)
            yield from _truth_values_as_numbers(value, inner, (*where, key))
    elif isinstance(given, list) and isinstance(made, list | tuple):
        for n, (value, inner) in enumerate(zip(given, made, strict=False)):
            yield from _truth_values_as_numbers(value, inner, (*where, n))


def read(path: Path) -> dict[str, Any]:
    """Read a params file, unchecked. Raises RadprobeError where it is no mapping in YAML, or has a key twice."""
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RadprobeError(path, "is not there", "name a params file with --params") from None
    except OSError as error:
        remedy = "name a params file with --params: `radprobe init FOLDER` makes one"
        raise RadprobeError(path, f"cannot be read ({error.strerror or error})", remedy) from None
    except UnicodeDecodeError as error:
        raise RadprobeError(path, f"is no UTF-8 text ({error})", "save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise RadprobeError(path, f"is not valid YAML: {short(error)}", "mend the line that it names") from None
    if not isinstance(content, dict):
        raise RadprobeError(path, "is not a mapping", "start from the params.yaml of the repository")
    return content


class _Careful(yaml.SafeLoader):
    """Builds plain values only; refuses a key that is there twice, and what is nested or repeated without end."""

    depth = 0

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _nodes(node, {}) > MAX_NODES:
            raise yaml.MarkedYAMLError(
                "it repeats itself without end, by aliases (*name)", problem_mark=node.start_mark
            )
        return node

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            here = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # the stubs of PyYAML give it no type
            raise yaml.MarkedYAMLError("it is nested too deep", problem_mark=here)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor: dict[str, yaml.Node]) -> yaml.MappingNode:
        node, seen = super().compose_mapping_node(anchor), set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(f"the key {key.value} is there twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return node


def _nodes(node: yaml.Node, known: dict[int, float]) -> float:
    """Return how many values a document has when its aliases are written out; infinite where it holds itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        parts = node.value if not isinstance(node, yaml.ScalarNode) else []
        inner = chain.from_iterable(parts) if isinstance(node, yaml.MappingNode) else parts
        known[id(node)] = 1 + sum(_nodes(each, known) for each in inner)
    return known[id(node)]


def read_yaml(text: str) -> Any:
    """Read YAML of plain values. Raises yaml.YAMLError, also on a key that is there twice, and nesting without end."""
    return yaml.load(text, _Careful)  # noqa: S506 - it is a SafeLoader


def short(what: object) -> str:
    """Return a text that a message can hold: of long ones the beginning."""
    text = str(what)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _with_environment(paths: Paths) -> Paths:
    names = {"raw": "RADPROBE_RAW", "weights": "RADPROBE_WEIGHTS"}
    return paths.model_copy(update={key: Path(os.environ[name]) for key, name in names.items() if os.environ.get(name)})


def _explain(name: str, error: ValidationError) -> RadprobeError:
    first = error.errors()[0]
    # in brackets: pydantic's mark of a key itself, and which kind of value was tried
    key = short(".".join(str(step) for step in first["loc"] if not str(step).startswith("[")))
    if first["type"] == "extra_forbidden":
        nearest = nearest_name(str(first["loc"][-1]), valid_keys(first["loc"][:-1]))
        return RadprobeError(f"{name}: {key}", "unknown key", f"did you mean {nearest}?")
    reason = f"{first['msg'].removeprefix('Value error, ')} (got {short(repr(first.get('input')))})"
    return RadprobeError(f"{name}: {key}", reason, _remedy(first["type"], first["loc"], first.get("input")))


def _remedy(kind: str, where: KeyPath, given: object) -> str:
    if kind in ("string_type", "path_type") and isinstance(given, bool):
        return 'put it in quotes ("yes", "no"): without them YAML reads a truth value. null leaves a thing out'
    if kind in ("string_type", "path_type") and isinstance(given, int | float | date):
        return f'put it in quotes: "{given}"'
    if kind == "string_pattern_mismatch":
        near = re.sub(r"[^A-Za-z0-9_]+", "_", str(given)).strip("_") or "mine"
        return f"letters, digits and underscores only, as {short(near)}"
    if kind == "list_type" and isinstance(given, str):
        return f"write a list: [{short(given)}]"
    return f"{_description(where) or ''} See workflow/schemas/params.schema.json".lstrip()


def nearest_name(word: str, names: list[str]) -> str:
    """Return the name that is nearly `word`, else those that share most of its parts, the nearest one, or all."""
    parts = [part for part in re.split(r"[^a-z0-9]+", word.lower()) if len(part) >= MIN_PART]
    shared = {name: sum(part in name.lower() for part in parts) for name in names}
    sharing = [name for name, n in shared.items() if n and n == max(shared.values())][:MAX_NAMES]
    near = difflib.get_close_matches(word, names, 1, 0.8) or sharing or difflib.get_close_matches(word, names, 1, 0.5)
    return " or ".join(f"'{name}'" for name in near) if near else "one of " + ", ".join(names)


def valid_keys(where: KeyPath) -> list[str]:
    """Return the keys that are valid in the section at `where` of params."""
    return list(_section(where).model_fields)


def _section(where: KeyPath) -> type[BaseModel]:
    model: type[BaseModel] = Params
    for step in where:
        field = model.model_fields.get(str(step))
        if field:
            model = _model_in(field.annotation) or model
    return model


def _description(where: KeyPath) -> str | None:
    """Return what a key of params, or the innermost around it, is."""
    for n in range(len(where), 0, -1):
        field = _section(where[: n - 1]).model_fields.get(str(where[n - 1]))
        if field and field.description:
            return field.description
    return None


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [_model_in(argument) for argument in getattr(annotation, "__args__", ())]
    return next((model for model in found if model), None)


def schema() -> str:
    """Return the JSON schema of params.yaml, as kept in workflow/schemas."""
    return json.dumps(Params.model_json_schema(), indent=1) + "\n"
