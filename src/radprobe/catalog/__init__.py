"""Facts as data: the benchmarks (datasets.yaml) and the backbones (backbones.yaml), typed. Code holds none of them."""

import importlib.metadata
import importlib.util
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

Task = Literal["multilabel", "segmentation", "look"]
PRIMARY_METRIC = {"multilabel": "auroc", "segmentation": "dsc"}


class Strict(BaseModel):
    """A model that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --- how samples get their part ---------------------------------------------------------------------------------------


class OfficialLists(Strict):
    """The parts that the publisher's lists name (`meta:list`); the last lines of the training list become val."""

    recipe: Literal["official_lists"]
    val_tail: int = Field(gt=0, description="How many of the last lines of the official train_val list are val.")
    total: int = Field(gt=0, description="Lines of the complete train_val list; a shorter list gets a shorter tail.")
    source: str


class Systematic(Strict):
    """The study's rule over sorted names: `arange(0, n, n / k).round()`, k test cases first, then k val of the rest."""

    recipe: Literal["systematic"]
    test: int = Field(gt=0, description="Cases in test, of a complete copy; scaled to the copy at hand.")
    val: int = Field(gt=0, description="Cases in val, likewise.")
    total: int = Field(gt=0, description="Cases in a complete copy.")
    source: str


class Stratified(Strict):
    """A seeded split by patient, stratified by label; classes with too few positive patients are left out, by name."""

    recipe: Literal["stratified"]
    val: float = Field(gt=0, lt=1, description="Share of the patients in val.")
    test: float = Field(gt=0, lt=1, description="Share of the patients in test.")
    min_positives: int = Field(ge=1, description="Positive patients that a class needs in each part to be evaluated.")
    source: str


SplitRecipe = Annotated[OfficialLists | Systematic | Stratified, Field(discriminator="recipe")]


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


class Published(Strict):
    """Counts that the publisher or the study states."""

    samples: int
    patients: int | None = None
    parts: dict[str, int] = {}
    source: str


class Dataset(Strict):
    """A benchmark. Its loader is the module `radprobe.datasets.<id>`."""

    title: str
    modality: str
    task: Task
    classes: list[str]
    stored: int = Field(description="Side of the stored images, pixels.")
    size: int = Field(description="Side of the images that a backbone gets, pixels.")
    splits: dict[str, SplitRecipe] = {}
    urls: list[str] = []
    package: Package | None = None
    gated: bool
    licence: str
    access: str = Field(description="What a user does to get it.")
    layout: str = Field(description="The folder as downloaded, in a line.")
    citation: str
    published: Published | None = None


# --- backbones --------------------------------------------------------------------------------------------------------


class Backbone(Strict):
    """A pretrained encoder: where its weights are, how its images are normalised, which of its outputs are features."""

    title: str
    family: Literal["self-supervised", "supervised", "weakly supervised", "medical", "control", "own"]
    library: Literal["timm"] = "timm"
    name: str = Field(description="The architecture's name in its library.")
    repo: str | None = Field(None, description="Hub repository of the weights.")
    revision: str | None = Field(None, description="Commit of the repository; null where it is not known.")
    filename: str = Field("model.safetensors", description="File in the repository.")
    local: list[str] = Field([], description="File names under paths.weights that hold these weights.")
    package: Package | None = None
    sha256: str | None = Field(None, description="Of the local or hub file; null where it is not known.")
    random: bool = Field(False, description="No pretrained weights: seeded random initialisation, for tests.")
    derived: str | None = Field(None, description="Why these are not the published weights, shown with every score.")
    patch: int | None = Field(description="Patch side in pixels; null for CNNs.")
    native_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dense_layer: int = Field(-1, description="Which stage gives the dense map (CNNs); the last block for ViTs.")
    licence: str
    gated: bool = False
    citation: str


def _load(name: str, model: type[Strict]) -> dict:
    entries = yaml.safe_load(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))
    return {key: model.model_validate(entry) for key, entry in entries.items()}


@cache
def datasets() -> dict[str, Dataset]:
    """Return the catalog of benchmarks, by id."""
    return _load("datasets.yaml", Dataset)


@cache
def backbones() -> dict[str, Backbone]:
    """Return the catalog of backbones, by id."""
    return _load("backbones.yaml", Backbone)
