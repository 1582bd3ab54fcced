"""params and catalog -> entries: what the datasets and backbones of a study are, as it uses them; its own ones too."""

import json
import math
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from radprobe import catalog, files, params
from radprobe.catalog import PAPER, Backbone, Dataset, Folder, Folds, OfficialLists, SplitRecipe, Stratified, Tolerance
from radprobe.files import RadprobeError
from radprobe.names import (
    ADAPTED,
    CEILING,
    EXTERNAL,
    HEAD,
    METADATA,
    PIXELS,
    RANDOM,
    SCRATCH,
    TITLES,
    first_init,
    frozen,
    init_number,
    inits,
    is_further_init,
    mode_of,
    original,
    with_weights,
)
from radprobe.params import Adapt, DatasetChoice, MadeElsewhere, OwnBackbone

Entry = TypeVar("Entry")
# what an adapter says of itself
ADAPTER_FACTS = ("backbone", "base", "mode", "lora", "size", "dataset", "tensors_sha256")


class Entries:
    """The datasets and backbones that params ask for, each with its entry.

    No data or weights are looked for, but adapters are: each says of which backbone it is.
    """

    def __init__(self, source: Path | str | dict[str, Any]):
        self.params, self.file = params.load(source), None if isinstance(source, dict) else Path(source)
        try:
            self._check()
        except RadprobeError as error:
            if isinstance(source, dict):
                raise
            what = f"{source}: {str(error.what).removeprefix('params: ')}"
            raise RadprobeError(what, error.reason, error.remedy) from None

    def _check(self) -> None:
        """Raise RadprobeError where params name what is not there, or sizes that do not go together."""
        self._check_external()
        for name, choice in self.params.datasets.items():
            entry = self.dataset(name)
            _check_folds(name, choice)
            if entry.splits:
                _known(choice.split_name, entry.splits, f"datasets.{name}.split")
        entries = [self.backbone(name) for name in self.backbones]
        for name in self.params.backbones:
            self._check_unseen(name)
        patches = math.lcm(*(entry.patch for entry in entries if entry.patch and not entry.sizes))  # suits them all
        for backbone in entries:
            for dataset in self.params.datasets:
                _check_size(backbone, self.dataset(dataset), patches)

    def _check_external(self) -> None:
        """Raise RadprobeError if the id of a row from elsewhere is taken, or its dataset has nothing to predict.

        Ids that differ only in case count as one: some disks do not distinguish their folders.
        """
        taken = {each.lower(): each for each in (*catalog.backbones(), *self.params.own_backbones)}
        for dataset, choice in self.params.datasets.items():
            if choice.predictions and self.dataset(dataset).task == "look":
                reason = f"{dataset} has no labels, so predictions of it cannot be scored"
                raise RadprobeError(f"params: datasets.{dataset}.predictions", reason, "remove predictions")
            for row in choice.predictions:
                where = f"params: datasets.{dataset}.predictions.{row}"
                if row.lower() in taken:
                    reason = f"the id is taken by '{taken[row.lower()]}'; upper and lower case count as the same"
                    raise RadprobeError(where, reason, "choose another id: a row of the study belongs to one dataset")
                if row in self.params.backbones:
                    remedy = f"remove {row} from backbones: it is a row of {dataset} already"
                    raise RadprobeError("params: backbones", f"'{row}' names predictions of {dataset}", remedy)
                taken[row.lower()] = row

    @cached_property
    def external(self) -> dict[str, str]:
        """The dataset of each row whose predictions were made elsewhere, by the id of the row."""
        return {row: name for name, choice in self.params.datasets.items() for row in choice.predictions}

    def made_elsewhere(self, row: str) -> MadeElsewhere:
        """Return what params say of a row whose predictions were made elsewhere."""
        return self.params.datasets[self.external[row]].predictions[row]

    def predictions_file(self, row: str) -> Path:
        """Return the CSV or the folder of a row whose predictions were made elsewhere."""
        return self.params.paths.root / self.made_elsewhere(row).file

    @cached_property
    def backbones(self) -> list[str]:
        """The backbones of the study, each followed by its controls; then the rows from elsewhere."""
        names = []
        for name in self.params.backbones:
            if ADAPTED in name:
                reason = "rows of trained backbones are made by adapt"
                raise RadprobeError(
                    f"params: backbones: {name}", reason, f"name {frozen(name)}, and see adapt in params"
                )
            if is_further_init(name):
                reason = "the study makes further random initialisations itself"
                raise RadprobeError(
                    f"params: backbones: {name}", reason, f"name {first_init(name)}, and set controls.random_inits"
                )
            if original(name) in self.absent_adapters:
                continue
            names += self._with_inits(name)
        if adapt := self.params.adapt:
            names += [name + ADAPTED + mode for name in self._adapted(names, adapt) for mode in adapt.ways]
        names += self.external
        asked = self.params.controls
        simple = {PIXELS: asked.pixels, METADATA: asked.metadata, CEILING: asked.ceiling}
        names += [control for control, wanted in simple.items() if wanted]
        return list(dict.fromkeys(names))

    def _with_inits(self, name: str) -> list[str]:
        """Return a backbone and its random initialisations; of `random:<id>`, named by itself, at least one."""
        most = max(self.inits_wanted(dataset) for dataset in self.params.datasets)
        if name.startswith(RANDOM):
            return inits(name, max(most, 1))
        if self.backbone(name).random:
            return [name]
        return [name, *inits(RANDOM + name, most)]

    def inits_wanted(self, dataset: str) -> int:
        """Return how many random initialisations of each backbone a dataset is probed with."""
        controls, task = self.params.controls, self.dataset(dataset).task
        wanted = {"segmentation": controls.decoder_inits, "look": 1}.get(task, controls.random_inits)
        return min(wanted, controls.random_inits)

    @cached_property
    def absent_adapters(self) -> list[str]:
        """The own backbones whose adapter is not there: nothing else is known of them."""
        own = self.params.own_backbones
        return [name for name in own if (path := self.adapter_file(name)) and not path.is_file()]

    def _check_unseen(self, backbone: str) -> None:
        """Raise RadprobeError if cross-validation, here or of an adapter, tests patients that the adapter knows."""
        name = with_weights(backbone)
        facts = self.adapter(name) if name not in self.absent_adapters else None
        if facts is None:
            return
        choice = self.params.datasets.get(facts["dataset"])
        if choice and (facts.get("folds") or not isinstance(choice.split, str)):
            where = f"params: own_backbones.{name}"
            dataset = facts["dataset"]
            reason = f"its adapter was trained on patients of {dataset} that are tested here"
            raise RadprobeError(where, reason, f"leave out one of them: the backbone, or datasets.{dataset}")

    def _adapted(self, names: list[str], adapt: Adapt) -> list[str]:
        """Return which backbones are adapted: those that params name, or all that were pretrained."""
        able = [
            name for name in names if name not in SCRATCH and not name.endswith(PAPER) and not is_further_init(name)
        ]
        if adapt.backbones is None:
            return [name for name in able if not self.backbone(name).random]
        for name in adapt.backbones:
            _check_known(name, able, "adapt.backbones")
        return list(adapt.backbones)

    def dataset(self, name: str) -> Dataset:
        """Return the catalog's entry of a benchmark as this study uses it, or the entry of an own folder."""
        choice = self.params.datasets[name]
        if choice.folder:
            entry = _own_dataset(name, choice, choice.folder)
        else:
            entry = _known(name, catalog.datasets(), "datasets")
        update: dict[str, Any] = {"slices": choice.slices, "intensity": choice.intensity}
        update |= {"size": choice.size, "stored": choice.stored}
        if choice.classes:
            update["classes"] = _known(choice.classes, entry.class_sets, f"datasets.{name}.classes")
        return entry.model_copy(update={key: value for key, value in update.items() if value is not None})

    def backbone(self, name: str) -> Backbone:
        """Return the entry of a catalog id or an own id, of `random:<id>`, `<id>@paper` or `<id>+<mode>`, adapted."""
        if mode := mode_of(name):
            adapt = self.params.adapt
            if adapt is None or mode not in adapt.ways:
                reason = "this study does not train backbones so"
                raise RadprobeError(f"params: backbones: {name}", reason, "name the backbone, and see adapt in params")
            entry = self.backbone(frozen(name))
            return entry.model_copy(update={"id": name, "title": f"{entry.title} + {TITLES[mode]}", "paper": None})
        if name.startswith(RANDOM) and is_further_init(name):
            entry = self.backbone(first_init(name))
            return entry.model_copy(update={"id": name, "title": f"{entry.title}, init {init_number(name)}"})
        if name.endswith(PAPER):
            return _as_the_study(self.backbone(name.removesuffix(PAPER)), name)
        if name.startswith(RANDOM):
            entry = self.backbone(name.removeprefix(RANDOM))
            if entry.random:
                raise RadprobeError(f"params: backbones: {name}", f"{entry.id} has no weights", f"name {entry.id}")
            update: dict[str, Any] = {"title": f"{entry.title}, random", "family": "control", "random": True}
            update |= {"derived": None, "sha256": None, "local": [], "package": None, "repo": None, "gated": False}
            return entry.model_copy(update={"id": name, **update})
        if name in self.params.own_backbones:
            return self._own_backbone(name)
        if name in self.external:
            return _external(name, self.made_elsewhere(name))
        known = catalog.backbones()
        _check_known(name, [*known, *self.params.own_backbones], "backbones")
        return known[name]

    def cost(self, name: str) -> catalog.Cost | None:
        """Return what a backbone costs; None for an architecture that is not in the catalog."""
        kind = original(with_weights(name))
        if facts := self.adapter(kind):
            return self.cost(facts["backbone"])
        own = self.params.own_backbones.get(kind)
        if own:
            kind = own.like if own.like and own.recipe is None else ""
        return catalog.costs().get(kind)

    def _own_backbone(self, name: str) -> Backbone:
        own = self.params.own_backbones[name]
        if path := self.adapter_file(name):
            return self._from_adapter(name, own, path)
        source: dict[str, Any] = {"id": name, "title": own.title, "family": "own", "derived": own.derived}
        source |= {"licence": own.licence, "local": [own.file], "sha256": own.sha256, "citation": "own weights"}
        if own.like:
            entry = _known(own.like, catalog.backbones(), f"own_backbones.{name}.like").model_dump()
            nowhere = {"package": None, "repo": None, "revision": None, "bytes": None, "gated": False, "random": False}
            source = {**entry, **nowhere, "notes": None, "paper": None, **source, "citation": entry["citation"]}
        elif own.architecture:
            source |= own.architecture.model_dump()
        try:
            return Backbone.model_validate({**source, **(own.recipe.model_dump() if own.recipe else {})})
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise RadprobeError(
                f"params: own_backbones.{name}", reason, "see workflow/schemas/params.schema.json"
            ) from None

    def _from_adapter(self, name: str, own: OwnBackbone, path: Path) -> Backbone:
        """Return the entry of a backbone with an adapter: that of its backbone, under its own name."""
        facts = read_adapter(path)
        if facts["mode"] == HEAD:
            reason = f"holds a head alone: nothing in {facts['backbone']} was trained"
            raise RadprobeError(path, reason, f"name {facts['backbone']} itself in backbones")
        if facts["backbone"] in (name, None):
            reason = f"adapts a backbone that is called {name} itself"
            raise RadprobeError(path, reason, f"call own_backbones.{name} otherwise")
        entry = self.backbone(facts["backbone"])
        how = f"{entry.title}, adapted ({facts['mode']}) on {facts['dataset']}"
        update: dict[str, Any] = {"id": name, "title": own.title, "family": "own", "derived": own.derived or how}
        update |= {"paper": None, "local": [], "random": False, "gated": False, "sha256": own.sha256}
        update |= dict.fromkeys(("package", "repo", "revision", "bytes"))
        return entry.model_copy(update=update)

    def adapter_file(self, backbone: str) -> Path | None:
        """Return the adapter of an own backbone, None where it has none."""
        own = self.params.own_backbones.get(with_weights(backbone))
        return self.params.paths.root / own.adapter if own and own.adapter else None

    def adapter(self, backbone: str) -> dict[str, Any] | None:
        """Return what the adapter of an own backbone says of itself, None where it has none."""
        path = self.adapter_file(backbone)
        return read_adapter(path) if path else None


def read_adapter(path: Path) -> dict[str, Any]:
    """Return what an adapter.safetensors says of itself: backbone, mode, size ...; reads its header only."""
    try:
        header, _ = files.safetensors_header(path)
        facts = json.loads(header["__metadata__"]["radprobe"])
        folds = {"folds": facts["folds"]} if "folds" in facts else {}  # of cross-validation only
        return {name: facts[name] for name in ADAPTER_FACTS} | folds
    except FileNotFoundError:
        raise RadprobeError(path, "is not there", "name the adapter.safetensors that `radprobe adapt` wrote") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        reason = "is no adapter that radprobe wrote"
        raise RadprobeError(path, reason, "name the adapter.safetensors that `radprobe adapt` wrote") from None


def _external(name: str, row: MadeElsewhere) -> Backbone:
    """Return the entry of a row whose predictions were made elsewhere: it has no network, weights or features here."""
    return Backbone(
        id=name,
        title=row.title or name,
        family=EXTERNAL,
        notes=row.notes,
        library="none",
        name=EXTERNAL,
        random=True,
        patch=None,
        native_size=0,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        pool="library",
        prefix_tokens=0,
        norm=False,
        licence="not stated",
        citation="predictions from elsewhere: radprobe has not checked what they were trained on",
    )


def _as_the_study(entry: Backbone, name: str) -> Backbone:
    where = f"params: backbones: {name}"
    if entry.paper is None:
        raise RadprobeError(where, "the study did not use these weights", f"name {name.removesuffix(PAPER)}")
    changes = entry.paper.model_dump(exclude_none=True)
    if not changes:
        reason = "the study made its features as we do"
        raise RadprobeError(where, reason, f"name {name.removesuffix(PAPER)}, which is the same")
    return entry.model_copy(update={"id": name, "title": f"{entry.title}, as in the study", "paper": None, **changes})


def _check_size(entry: Backbone, dataset: Dataset, patches: int) -> None:
    side = entry.side(dataset.size)
    if not entry.fits(side):
        near = max(round(side / patches), 1) * patches
        reason = f"gives images of {side} px, which the patch of {entry.id}, {entry.patch} px, does not divide"
        raise RadprobeError(f"params: datasets.{dataset.id}.size", reason, f"say size: {near}")


def _check_folds(name: str, choice: DatasetChoice) -> None:
    """Raise RadprobeError where params ask for cross-validation of a dataset whose split or predictions are given."""
    if isinstance(choice.split, str):
        return
    where = f"params: datasets.{name}.split"
    if choice.predictions:
        reason = "asks for folds, and predictions from elsewhere are of one test set"
        raise RadprobeError(where, reason, f"name a split, or remove datasets.{name}.predictions")
    if choice.folder is None:
        reason = "cross-validation is for a folder of your own: a benchmark keeps its published split"
        raise RadprobeError(where, reason, "name a split of the catalog, or leave it out")
    if choice.folder.split:
        reason = f"asks for folds, and column '{choice.folder.split}' of your table says the split"
        raise RadprobeError(where, reason, f"leave out one of them: split, or datasets.{name}.folder.split")


def _own_dataset(name: str, choice: DatasetChoice, folder: Folder) -> Dataset:
    size = folder.size or (448 if folder.task == "segmentation" else 224)
    shared = folder.model_dump(include={"title", "modality", "metadata", "task", "classes", "licence", "stored"})
    return Dataset(
        **shared,
        id=name,
        loader="folder",
        folder=folder,
        size=size,
        tolerance=Tolerance(value=folder.tolerance, source="your own"),
        intensity=folder.intensity,
        splits={"study": _own_split(folder), **_own_folds(choice)},
        gated=True,  # its pictures stay out of reports, unless params say otherwise
        access="your own",
        layout=f"{folder.table}, a CSV with the columns that datasets.{name}.folder names, and the files it lists",
        citation="own data",
    )


def _own_split(folder: Folder) -> SplitRecipe:
    if folder.split:
        return OfficialLists(recipe="official_lists", source=f"column {folder.split} of {folder.table}")
    source = "by patient, stratified by label; 20 % val, 30 % test"
    return Stratified(recipe="stratified", val=0.2, test=0.3, min_positives=1, source=source)


def _own_folds(choice: DatasetChoice) -> dict[str, Folds]:
    """Return the cross-validation that params ask for, by its name."""
    if isinstance(choice.split, str):
        return {}
    source = "by patient, stratified by label; each fold is test once"
    return {choice.split_name: Folds(recipe="folds", folds=choice.split.folds, min_positives=1, source=source)}


def _known(name: str, entries: dict[str, Entry], where: str) -> Entry:
    """Return an entry by its name. Raises RadprobeError, with the nearest name, if there is none."""
    _check_known(name, list(entries), where)
    return entries[name]


def _check_known(name: str, names: list[str], where: str) -> None:
    if name not in names:
        reason = f"unknown name '{params.short(name)}'"
        nearest = params.nearest_name(name, names)
        raise RadprobeError(params.short(f"params: {where}"), reason, f"did you mean {nearest}?")
