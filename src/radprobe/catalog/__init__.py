"""Facts as data: the benchmarks (datasets.yaml) and the backbones (backbones.yaml), typed. Code holds none of them."""

import csv
import importlib.metadata
import importlib.util
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

Task = Literal["multilabel", "binary", "multiclass", "segmentation", "look"]
PRIMARY_METRIC = {"multilabel": "auroc", "binary": "auroc", "multiclass": "auroc", "segmentation": "dsc"}


Part = Literal["train", "val", "test"]
Metadata = Literal["age", "sex", "view"]
Given = TypeVar("Given")


class Strict(BaseModel):
    """A model that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# --- how samples get their part ---------------------------------------------------------------------------------------


class OfficialLists(Strict):
    """The parts that the publisher names (`meta:list`: train, val, test, or train_val, whose last lines become val)."""

    recipe: Literal["official_lists"]
    val_tail: int = Field(0, ge=0, description="How many of the last lines of the official train_val list are val.")
    total: int | None = Field(None, gt=0, description="Lines of the complete train_val list; a shorter one, less tail.")
    source: str


class Systematic(Strict):
    """The study's rule over sorted patients: `arange(0, n, n / k).round()` for one part after the other."""

    recipe: Literal["systematic"]
    parts: dict[Part, int] = Field(description="Patients of each part, of a complete copy, taken in this order.")
    rest: Part | None = Field("train", description="The part of all others; null leaves them out of the split.")
    total: int = Field(gt=0, description="Patients in a complete copy: fewer at hand, fewer in each part.")
    source: str


class Named(Strict):
    """A published list of test patients; val is evenly spaced among the others, for choosing hyperparameters."""

    recipe: Literal["named"]
    test: list[str] = Field(min_length=1, description="Patient ids; those that are not here are left out, and said.")
    val: int = Field(gt=0, description="Patients in val, of a complete copy.")
    total: int = Field(gt=0, description="Patients in a complete copy.")
    source: str


class Stratified(Strict):
    """A seeded split by patient, stratified by label; classes with too few positive patients are left out, by name."""

    recipe: Literal["stratified"]
    val: float = Field(gt=0, lt=1, description="Share of the patients in val.")
    test: float = Field(gt=0, lt=1, description="Share of the patients in test.")
    min_positives: int = Field(ge=1, description="Positive patients that a class needs in each part to be evaluated.")
    source: str


FEWEST_FOLDS = 3  # one is test, one is val, one is left to train on
MOST_FOLDS = 10


class Folds(Strict):
    """Cross-validation: seeded folds by patient, stratified by label; each fold is test once and val once."""

    recipe: Literal["folds"]
    folds: int = Field(ge=FEWEST_FOLDS, le=MOST_FOLDS, description="Number of folds.")
    min_positives: int = Field(ge=1, description="Positive patients that a class needs in each fold to be evaluated.")
    source: str


def names_test_patients(recipe: "SplitRecipe") -> bool:
    """Say whether a recipe lists its test patients by name, so that everybody who follows it tests on the same ones."""
    return isinstance(recipe, OfficialLists | Named)


SplitRecipe = Annotated[OfficialLists | Systematic | Named | Stratified | Folds, Field(discriminator="recipe")]


# --- datasets ---------------------------------------------------------------------------------------------------------


class Package(Strict):
    """A file that ships inside a PyPI package."""

    name: str
    module: str = Field(description="Import name of the package that holds the file.")
    version: str
    file: str = Field(description="Path inside the package's folder.")
    sha256: str | None = None


def package_folder(package: Package) -> Path | None:
    """Return the folder of an installed package of exactly that version, or None."""
    try:
        version = importlib.metadata.version(package.name)
    except importlib.metadata.PackageNotFoundError:
        return None
    found = importlib.util.find_spec(package.module) if version == package.version else None
    return Path(found.origin).parent if found and found.origin else None


class Download(Strict):
    """A file of an open benchmark, as its publisher (or a mirror) gives it out."""

    file: str = Field(description="Name to save it as.")
    urls: list[str] = Field(min_length=1, description="Where it is, mirrors after the publisher.")
    bytes: int | None = Field(None, description="Its size; null where it is not known.")
    sha256: str | None = Field(None, description="Null where it is not known.")
    md5: str | None = Field(None, description="For publishers that state only this; null where it is not known.")
    unpack: bool = Field(True, description="Is it an archive.")


class PublishedCounts(Strict):
    """The published size of a benchmark."""

    samples: int | None = Field(None, description="Images or slices; null where it is not published.")
    cases: int | None = Field(None, description="Films or volumes; null where each sample is one.")
    patients: int | None = None


class Published(PublishedCounts):
    """Counts that the publisher or the study states."""

    parts: dict[str, int] = Field({}, description="Cases of each part of the study's split.")
    source: str


class Tolerance(Strict):
    """How far two surfaces may lie apart and still agree: the normalised surface distance counts what does."""

    value: float = Field(gt=0, description="mm, or thousandths of the longer side where spacing is unknown.")
    source: str = Field(description="Who chose it.")


class MinMax(Strict):
    """Each image from its own minimum to its own maximum, as the study does for films."""

    kind: Literal["minmax"] = Field("minmax", description="From minimum to maximum.")


class Window(Strict):
    """A fixed range of native values (CT: Hounsfield units; unsigned 16-bit PNG and TIFF: what is stored - 32,768)."""

    kind: Literal["window"] = Field(description="A fixed range.")
    low: float = Field(description="The value that becomes black.")
    high: float = Field(description="The value that becomes white.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_rising(self.low, self.high)
        return self


class Percentiles(Strict):
    """From a low to a high percentile of the stored values of a slice, or of its whole volume."""

    kind: Literal["percentiles"] = Field(description="A range that follows the image.")
    low: float = Field(ge=0, lt=100, description="Percentile that becomes black.")
    high: float = Field(gt=0, le=100, description="Percentile that becomes white.")
    of: Literal["slice", "volume"] = Field(description="Of each slice, or of the volume that it belongs to.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_rising(self.low, self.high)
        return self


def _check_rising(low: float, high: float) -> None:
    if not low < high:
        raise ValueError(f"low ({low:g}) must be below high ({high:g}), else every image is black")


Intensity = Annotated[MinMax | Window | Percentiles, Field(discriminator="kind")]


class FolderTable(Strict):
    """The CSV of an own folder: its columns, and what is asked of the images that it lists."""

    table: str = Field("labels.csv", description="The CSV: below the raw folder, or an absolute path.")
    task: Literal["multilabel", "binary", "multiclass", "segmentation"] = Field(description="What is asked of them.")
    classes: list[str] = Field(
        min_length=1,
        description="Label columns; names in the column `label` (multiclass); names of the mask's labels 1, 2 ...",
    )
    path: str = Field(
        "path", description="Column of the file (a DICOM series: its folder), relative to the raw folder."
    )
    patient: str = Field("patient", description="Column of the patient: no patient is in two parts.")
    label: str = Field("label", description="Column of the class name (multiclass).")
    mask: str = Field("mask", description="Column of the mask file (segmentation).")
    split: str | None = Field(None, description="Column of the part: train, val, test. null: we split, by patient.")

    @model_validator(mode="after")
    def _classes_of_the_task(self) -> Self:
        n = len(self.classes)
        if len(set(self.classes)) < n:
            raise ValueError("classes has a name twice")
        if self.task == "binary" and n != 1:
            raise ValueError(f"binary has one class, not {n}: use multilabel (several may hold) or multiclass (one)")
        if self.task == "multiclass" and n < 2:
            raise ValueError("multiclass wants two classes or more: use binary")
        return self


class Folder(FolderTable):
    """Your own images, as a CSV in the raw folder describes them: one row an image, DICOM series or NIfTI volume."""

    title: str = Field("Own images", description="How the report calls it.")
    metadata: list[Metadata] = Field([], description="Columns that the control `metadata` sees instead of images.")
    modality: str = Field("not stated", description="X-ray, CT, MRI ...")
    licence: str = Field("not stated", description="Who may use the images.")
    stored: int = Field(448, gt=0, description="Side of the stored images, pixels.")
    tolerance: float = Field(2, gt=0, description="Of the normalised surface distance: mm, or thousandths of the side.")
    size: int | None = Field(
        None, gt=0, description="Side that a backbone gets; null: 224 to classify, 448 to segment."
    )
    intensity: Intensity = Field(MinMax(), description="Range of grey values that becomes black to white.")


def _given(value: Given | None, name: str, field: str) -> Given:
    """Return a field that an entry must have. Raises ValueError if it is None."""
    if value is None:
        raise ValueError(f"{name} has no {field} in the catalog")
    return value


class RawEntry(Strict):
    """What the reader of a raw download knows of it. Its loader is the module `radprobe.datasets.<loader>`."""

    id: str
    loader: str = Field(description="Module that reads the raw download; by default named as the dataset.")
    task: Task
    modality: str
    classes: list[str]
    blank: Literal["zeros", "ignore"] = Field("ignore", description="What a blank label means.")
    slices: Literal["canonical", "paper"] = Field("canonical", description="How volumes are cut; the study chooses.")
    root: str | None = Field(None, description="Name of the folder that the official archive unpacks to.")
    package: Package | None = None
    folder: FolderTable | None = Field(None, description="Columns of an own CSV.")
    published: PublishedCounts | None = None
    layout: str = Field(exclude=True, description="The folder as downloaded, in a line; for messages.")

    @property
    def root_name(self) -> str:
        """The folder that the official archive unpacks to. Raises ValueError where the catalog has none."""
        return _given(self.root, self.id, "root")

    @property
    def columns(self) -> FolderTable:
        """The columns of an own CSV. Raises ValueError for a benchmark."""
        return _given(self.folder, self.id, "folder")

    @property
    def shipped(self) -> Package:
        """The package that ships the data. Raises ValueError where none does."""
        return _given(self.package, self.id, "package")


class Dataset(RawEntry):
    """A benchmark, or your own folder."""

    title: str
    class_sets: dict[str, list[str]] = Field({}, description="Other lists of classes that studies choose, by name.")
    mask: Literal["binary", "labels"] = Field("labels", description="One binary mask file a class, or one label map.")
    stored: int = Field(description="Side of the stored images, pixels.")
    size: int = Field(description="Side of the images that a backbone gets, pixels.")
    intensity: Intensity = MinMax()
    splits: dict[str, SplitRecipe] = {}
    urls: list[str] = Field([], description="Pages for a person.")
    downloads: list[Download] = Field([], description="What `retrieve` fetches; none for gated sets.")
    by_hand: list[str] = Field(
        [], description="Patterns of files without a link, to be put there before the downloads."
    )
    metadata: list[Metadata] = Field([], description="What its tables say of a patient or film besides the labels.")
    tolerance: Tolerance | None = Field(None, description="Of the normalised surface distance; of label maps only.")
    gated: bool
    licence: str
    access: str = Field(description="What a user does to get it.")
    citation: str
    folder: Folder | None = Field(None, description="Columns of an own CSV.")
    published: Published | None = None
    layout: str = Field(description="The folder as downloaded, in a line.")

    @property
    def raw(self) -> RawEntry:
        """What reading its raw download depends on."""
        known = self.model_dump(include={*RawEntry.model_fields} - {"folder", "published"})
        known["modality"] = "" if self.folder else self.modality  # generated downloads state it, and no loader reads it
        folder = FolderTable(**self.folder.model_dump(include={*FolderTable.model_fields})) if self.folder else None
        return RawEntry(**known, folder=folder, published=self.counts)

    @property
    def counts(self) -> PublishedCounts | None:
        """Its published size."""
        published = self.published
        return PublishedCounts(**published.model_dump(include={*PublishedCounts.model_fields})) if published else None

    @property
    def decoding(self) -> "DecodeEntry":
        """What decoding its images depends on."""
        return DecodeEntry(
            task=self.task,
            classes=self.classes,
            mask=self.mask,
            slices=self.slices,
            window=self.intensity if isinstance(self.intensity, Window) else None,
            own=self.folder is not None,
        )


class DecodeEntry(Strict):
    """What decoding the images and masks of a dataset depends on."""

    task: Task
    classes: list[str]
    mask: Literal["binary", "labels"]
    slices: Literal["canonical", "paper"]
    window: Window | None = Field(description="The range of values with a unit (CT); other values are scaled.")
    own: bool = Field(description="An own folder: text that may be burned into its images is looked for.")


def by_hand(entry: Dataset) -> str:
    """Tell which files have no link and come first, "" where all can be fetched."""
    return f"put {', '.join(entry.by_hand)} there, " if entry.by_hand else ""


def how_to_get(entry: Dataset, folder: Path) -> str:
    """Tell a person how the images of a dataset come into `folder`: where, under which terms, and as which files."""
    if entry.package:
        return f"pip install {entry.package.name}=={entry.package.version}"
    put = f"put in {folder}: {entry.layout}"
    if entry.folder:
        return put
    where = f"{entry.access}: {', '.join(entry.urls)}"
    get = f"register and accept the terms ({where})" if entry.gated else f"get it ({where})"
    if entry.downloads:
        get = f"{by_hand(entry)}set `download: true` in params and it is fetched, or {get}"
    return f"{get}; licence: {entry.licence}; then {put}; or say where it is: datasets.{entry.id}.raw"


# --- backbones --------------------------------------------------------------------------------------------------------

UNET_LAYERS, PAPER_LAYERS = 4, 5  # that U-Net decoders read: ours, the study's
PAPER = "@paper"  # ends the id of a backbone whose features are as the study made them (D16)
Numbers = tuple[float, float, float]
Family = Literal[
    "self-supervised", "supervised", "weakly supervised", "medical", "from scratch", "control", "own", "external"
]
WITHOUT_FEATURES = ("unet", "transunet", "metadata", "ceiling")  # rows of the grid that are no encoders


class Architecture(Strict):
    """A network as one of three libraries builds it, or none: the pixels themselves."""

    library: Literal["timm", "transformers", "open_clip", "none"] = Field("timm", description="Who builds it.")
    name: str = Field(description="timm: model; transformers: model_type; open_clip: model, or a name of your choice.")
    options: dict[str, Any] = Field(
        {}, description="transformers: fields of its config; open_clip: embed_dim and vision_cfg where it has no name."
    )
    prefix: str = Field("", description="What the names of its tensors start with in the file.")
    ignored: list[str] = Field([], description="What the names of other tensors of the file start with.")

    @model_validator(mode="after")
    def _brings_no_weights(self) -> Self:
        given = {**self.options, **(self.options.get("vision_cfg") or {})}
        loading = [key for key, value in given.items() if value and ("pretrained" in key or "checkpoint" in key)]
        if loading or ":" in self.name:
            raise ValueError(f"{(loading or [self.name])[0]} would load weights past every check: they come as a file")
        return self


class Recipe(Strict):
    """How an image becomes features. Whatever differs between backbones is said here."""

    patch: int | None = Field(description="Patch side in pixels; null for CNNs.")
    native_size: int = Field(description="Side of the images that the weights, and their positions, are made for.")
    sizes: list[int] = Field(
        [], description="Sides it may get, the usual one first; none: every multiple of the patch, as the dataset says."
    )
    mean: Numbers = Field(description="Mean of each channel, of images from 0 to 1.")
    std: Numbers = Field(description="Standard deviation of each channel.")
    pool: Literal["cls", "mean", "library"] = Field(
        "cls", description="The vector: CLS token, mean patch token, or what the library pools (CNNs, projections)."
    )
    prefix_tokens: int = Field(1, ge=0, description="Tokens before the patch tokens: CLS and registers.")
    norm: bool = Field(True, description="Do tokens pass the final norm.")
    positions: Literal["library", "dinov2"] = Field(
        "library", description="Who resizes position embeddings: the library, or the rule of the official DINOv2."
    )
    dense_layer: int = Field(-1, lt=0, description="Block or stage of the dense map, counted from the last one, -1.")

    @model_validator(mode="after")
    def _has_its_vector(self) -> Self:
        if self.pool == "cls" and not (self.patch and self.prefix_tokens):
            raise ValueError(
                "pool: cls wants a CLS token: a patch and prefix_tokens of 1 or more (CNNs: pool: library)"
            )
        if self.pool == "mean" and not self.patch:
            raise ValueError("pool: mean wants patch tokens, and so a patch (CNNs: pool: library)")
        return self

    def fits(self, size: int) -> bool:
        """May images of this side be given to it?"""
        return size in self.sizes if self.sizes else size % (self.patch or 1) == 0

    def side(self, size: int) -> int:
        """Return the side it gets where the dataset says `size`."""
        return self.sizes[0] if self.sizes and size not in self.sizes else size

    def dense_layers(self, decoders: Iterable[str], depth: int) -> dict[str, tuple[int, ...]]:
        """Return the layers whose maps each decoder reads, the deepest first, counted from the last one, -1.

        linear: `dense_layer`. unet: four spread through the depth of a transformer, the last four stages of a CNN,
        fewer where there are no more. unet@paper: the last five blocks (arXiv 2312.02366, authors' code); absent for
        what has fewer.
        """
        parts = min(UNET_LAYERS, depth)
        spread = [depth * (part + 1) // parts - depth - 1 for part in range(parts)] if self.patch else range(-parts, 0)
        found = {"linear": (self.dense_layer,), "unet": tuple(sorted(spread, reverse=True))}
        if self.patch and depth >= PAPER_LAYERS:
            found["unet" + PAPER] = tuple(range(-1, -PAPER_LAYERS - 1, -1))
        return {name: found[name] for name in decoders if name in found}


class PaperRecipe(Strict):
    """What the study did otherwise (D16): its statistics for all, tokens before the final norm, a projection."""

    mean: Numbers | None = None
    std: Numbers | None = None
    norm: bool | None = None
    pool: Literal["cls", "mean", "library"] | None = None


class EncoderEntry(Architecture, Recipe):
    """What turns images into features: a network and its recipe, wherever its weights are."""

    title: str = Field(exclude=True, description="For messages: features do not depend on it.")

    @model_validator(mode="after")
    def _positions_of_its_library(self) -> Self:
        if self.positions == "dinov2" and self.library != "timm":
            raise ValueError(f"positions: dinov2 is for networks of timm; {self.library} has its own rule")
        return self


class WeightsEntry(EncoderEntry):
    """An encoder, and which weights it gets."""

    repo: str | None = Field(None, description="Hub repository of the weights.")
    revision: str | None = Field(None, description="Commit of the repository; null where it is not known.")
    filename: str = Field("model.safetensors", description="File in the repository.")
    package: Package | None = None
    sha256: str | None = Field(None, description="Of the local or hub file; null where it is not known.")
    bytes: int | None = Field(None, description="Of the local or hub file; null where it is not known.")
    random: bool = Field(False, description="No pretrained weights: seeded random initialisation, or none at all.")
    derived: str | None = Field(None, description="Why these are not the published weights, shown with every score.")


class Backbone(WeightsEntry):
    """An entry of the catalog: an encoder, its weights, and what people should know of it."""

    id: str
    title: str
    family: Family
    local: list[str] = Field([], description="File names under paths.weights that hold these weights.")
    licence: str
    gated: bool = Field(False, description="Must a person accept terms before the weights are given out.")
    citation: str
    paper: PaperRecipe | None = Field(None, description="What the study did otherwise; null: it did not use it.")
    notes: str | None = Field(None, description="What a reader should know of its recipe.")

    @property
    def encoder(self) -> EncoderEntry:
        """What its features depend on, its weights apart."""
        return EncoderEntry(**self.model_dump(include={*EncoderEntry.model_fields}))

    @property
    def checkpoint(self) -> WeightsEntry:
        """What its weights depend on."""
        return WeightsEntry(**self.model_dump(include={*WeightsEntry.model_fields}))


class Cost(Strict):
    """What a backbone costs, computed from its architecture (`make backbones-table`)."""

    parameters: int = Field(description="Its classifier not counted.")
    blocks: int = Field(description="Blocks, or stages of a CNN.")
    dim: int = Field(description="Width of the vector.")
    lora_layers: int = Field(description="Layers of attention and MLP, which LoRA adapts; 0 for most CNNs.")
    gflops_224: float = Field(description="Of one forward pass of one image, a multiply-add counted as two.")
    tokens_224: int = Field(description="Patch tokens, or places of the dense map.")
    gflops_448: float
    tokens_448: int


class Throughput(Strict):
    """How fast a forward pass was, once, on a machine of ours (benchmarks/throughput.py)."""

    machine: str
    gpu: bool
    precision: str
    id: str
    size: int
    images_per_second: float


def how_to_get_weights(entry: Backbone, folder: Path) -> str:
    """Tell a person how the weights of an entry come into `folder`: as which file, from where, how large."""
    ways = [f"put {' or '.join(entry.local)} in {folder}"]
    if entry.repo:
        at = f"/tree/{entry.revision}" if entry.revision else ""
        page = f"https://huggingface.co/{entry.repo}{at}"
        ways[0] += f" ({entry.filename} of {page}, {weights_size(entry)}, renamed)"
    if entry.gated:
        ways.append("accept the terms there and log in (`hf auth login`, or HF_TOKEN)")
    if entry.package:
        ways.append(f"pip install {entry.package.name}=={entry.package.version}")
    return ", or ".join(ways)


def weights_size(entry: Backbone) -> str:
    """Return the size of an entry's weights as a person reads it: known, or what its parameters take as float32."""
    if entry.bytes:
        return f"{entry.bytes / 1e6:,.0f} MB"
    cost = costs().get(entry.id.removesuffix(PAPER))
    return f"about {cost.parameters * 4 / 1e6:,.0f} MB" if cost else "of unknown size"


def _read(name: str) -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = yaml.safe_load(
        resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    )
    return content


@cache
def datasets() -> dict[str, Dataset]:
    """Return the catalog of benchmarks, by id."""
    entries = _read("datasets.yaml").items()
    return {key: Dataset.model_validate({"id": key, "loader": key, **entry}) for key, entry in entries}


@cache
def backbones() -> dict[str, Backbone]:
    """Return the catalog of backbones, by id."""
    entries = _read("backbones.yaml").items()
    return {key: Backbone.model_validate({"id": key, **entry}) for key, entry in entries if not key.startswith(".")}


def encoders() -> dict[str, Backbone]:
    """Return the backbones that give features of images."""
    return {key: entry for key, entry in backbones().items() if key not in WITHOUT_FEATURES}


@cache
def costs() -> dict[str, Cost]:
    """Return what the backbones of the catalog cost, by id."""
    text = resources.files(__package__).joinpath("backbone_costs.csv").read_text(encoding="utf-8")
    return {row.pop("id"): Cost.model_validate(row) for row in csv.DictReader(text.splitlines())}


@cache
def throughput() -> list[Throughput]:
    """Return the forward passes that were timed."""
    text = resources.files(__package__).joinpath("throughput.csv").read_text(encoding="utf-8")
    return [Throughput.model_validate(row) for row in csv.DictReader(text.splitlines())]
