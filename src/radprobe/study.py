"""params -> steps: what is to be made, from what, under which path. Snakefile, stages and report ask it.

A step is one verb applied to one dataset and backbone. Its key hashes what its result depends on: params slice,
catalog entry, the verb's VERSION and the keys of the steps that it needs. It is known before anything has run.
"""

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radprobe import catalog, files, manifests, params
from radprobe.catalog import PAPER, Dataset, package_folder
from radprobe.catalog.paper import pairs_of
from radprobe.datasets import DOWNLOADED, DOWNLOADING, UNLESS_BY_HAND, Layout, absent_by_hand, external, loader, locate
from radprobe.datasets.identity import RawIdentity, identify
from radprobe.entries import Entries
from radprobe.files import RadprobeError
from radprobe.jobs import Input, Inputs, Job, Runtime
from radprobe.jobs.adapt import AdaptJob
from radprobe.jobs.compare import CompareJob
from radprobe.jobs.embed import EmbedJob, encoding
from radprobe.jobs.external import ExternalJob
from radprobe.jobs.prepare import PrepareJob, limit
from radprobe.jobs.probe import ProbeJob
from radprobe.jobs.retrieve import RetrieveJob
from radprobe.jobs.score import ScoreJob
from radprobe.jobs.segment import SegmentJob
from radprobe.jobs.split import SplitJob
from radprobe.jobs.weights import AdapterFacts, WeightsJob
from radprobe.manifests import Manifest, Place
from radprobe.names import (
    CEILING,
    EXTERNAL,
    HEAD,
    METADATA,
    RANDOM,
    SCRATCH,
    WITHOUT_WEIGHTS,
    first_init,
    frozen,
    init_number,
    is_further_init,
    mode_of,
    original,
    slug,
    with_weights,
)

if TYPE_CHECKING:
    from radprobe.artifacts import Index

# Bump a number when the verb's output changes for the same input: everything that depends on it is then made anew.
VERSIONS = {"retrieve": 2, "prepare": 4, "split": 3, "embed": 6, "probe": 9, "segment": 8, "adapt": 3}
VERSIONS |= {"external": 1, "score": 9, "compare": 5}
# task -> the verb that makes its predictions
PREDICTING = {"multilabel": "probe", "binary": "probe", "multiclass": "probe", "segmentation": "segment"}
MEMORY_MB = 8000  # of a job with a small backbone
ON_GPU = {"embed", "segment", "adapt"}  # verbs that run a backbone
ON_ONE_CORE = {"weights", "external", "score", "compare"}  # verbs whose jobs take one; others as many as `threads`


@dataclass(frozen=True)
class Step:
    """One verb applied to one dataset and backbone (either may be None): its job, key, folder and dependencies."""

    verb: str
    dataset: str | None
    backbone: str | None
    job: Job
    folder: Path
    key: str
    dependencies: tuple["Step", ...] = ()

    def dependency(self, verb: str) -> "Step":
        """Return the one dependency of this verb."""
        (step,) = (step for step in self.dependencies if step.verb == verb)
        return step

    @property
    def command(self) -> str:
        """The subcommand and arguments that make the step."""
        return " ".join(filter(None, (self.verb, self.dataset, self.backbone)))

    @property
    def has_few_shot(self) -> bool:
        """Are heads fitted to few-shot draws."""
        if isinstance(self.job, ProbeJob):
            return self.job.heads.few_shot is not None
        return isinstance(self.job, SegmentJob | AdaptJob) and self.job.few_shot is not None

    @property
    def outputs(self) -> list[Path]:
        """The manifests that the step makes; they are what Snakemake sees."""
        return [self.folder / f"{kind}.json" for kind in OUTPUTS[self.verb]]

    @property
    def done(self) -> bool:
        """Are all its manifests there."""
        return all(manifest.is_file() for manifest in self.outputs)

    @property
    def place(self) -> Place:
        """Where the step writes, and the content of what it reads, as far as that is there."""
        sources = {
            "/".join(filter(None, (need.verb, need.backbone, manifest.stem))): Manifest.read(manifest).content
            for need in self.dependencies
            for manifest in need.outputs
            if manifest.is_file()
        }
        return Place(self.folder, self.key, self.command, sources)

    @property
    def inputs(self) -> Inputs:
        """The folders that its job reads, and the place that it writes to."""
        steps = tuple(Input(need.verb, need.backbone, need.folder) for need in self.dependencies)
        return Inputs(self.place, steps)

    def set_aside_foreign(self) -> list[str]:
        """Set aside what lies in its folder and is not what the step makes of what is here; return what and why."""
        place, found = self.place, []
        for manifest in filter(Path.is_file, self.outputs):
            try:
                why = manifests.foreign(manifest, place)
            except RadprobeError as damaged:
                found.append(str(damaged))
                continue
            if why:
                manifests.set_aside(manifest)
                found.append(f"{manifest} {why}; set aside, and made again")
        return found


Steps = dict[tuple[str, str | None, str | None], Step]  # by verb, dataset and backbone
SEEN = "seen.json"  # beside raw.json: the state of the raw files, by their folder on this machine
RETRIEVED = "retrieved.json"  # what `make retrieved` writes under paths.work, and git keeps
ABSENT = "absent"  # the identity of what is not here, and of which nothing is recorded


# The manifests of each verb.
OUTPUTS = {
    "retrieve": ["raw", "index"],
    "weights": ["weights"],
    "prepare": ["index", "pixels", "truth"],
    "split": ["split", "leaks"],
    "embed": ["embeddings"],
    "probe": ["predictions"],
    "segment": ["predictions"],
    "adapt": ["predictions", "adapter"],
    "external": ["predictions"],
    "score": ["scores"],
    "compare": ["comparison"],
}


@dataclass(frozen=True)
class Missing:
    """Something that the study asks for and that is not here."""

    kind: str  # dataset | backbone | adaptation | predictions
    name: str
    why: str
    remedy: str


class Study(Entries):
    """A study as params describe it: its datasets and backbones, what of them is missing, and the steps to run.

    `identities` names a file with those of an earlier run; without it they are taken from the files that are here.
    """

    def __init__(self, source: Path | str | dict[str, Any], identities: Path | None = None):
        super().__init__(source)
        self._fixed = _read_json(identities) if identities else {}

    # --- where things are ---------------------------------------------------------------------------------------------

    def path(self, name: str) -> Path:
        """Return the folder `paths.<name>`."""
        folder: Path = getattr(self.params.paths, name)
        return self.params.paths.root / folder

    def raw_folder(self, dataset: str) -> Path:
        """Return the folder in which a dataset's raw download lies or will lie."""
        entry, choice = self.dataset(dataset), self.params.datasets[dataset]
        if choice.phantom:
            name = f"{dataset}-{choice.phantom.patients}-{choice.phantom.seed}"
            return self.path("work") / "phantom" / name
        if choice.raw:
            return self.params.paths.root / choice.raw
        if entry.package:
            return package_folder(entry.package) or self.path("raw") / dataset
        return self.path("raw") / dataset

    def layout(self, dataset: str) -> Layout | None:
        """Return the layout found in a dataset's raw folder, or None; cheap."""
        return locate(self.dataset(dataset), self.raw_folder(dataset))

    def will_download(self, dataset: str) -> bool:
        """Say whether `retrieve` is to download a dataset, or to finish its download."""
        entry = self.dataset(dataset)
        if not (self.params.download and entry.downloads) or self.params.datasets[dataset].phantom:
            return False
        return self.layout(dataset) is None and not absent_by_hand(entry, self.raw_folder(dataset))

    def weights_file(self, backbone: str) -> Path | None:
        """Return the local safetensors file of a backbone (its adapter, if it is one), or None where there is none."""
        if adapter := self.adapter_file(backbone):
            return adapter
        folder = self.path("weights")
        return next((folder / name for name in self.backbone(backbone).local if (folder / name).is_file()), None)

    # --- what data and weights are ------------------------------------------------------------------------------------

    @cached_property
    def identities(self) -> dict[str, dict[str, str]]:
        """What the raw data and the weights of the study are, as their keys say: jobs of a run take them from here."""
        weights = dict.fromkeys(map(with_weights, self.backbones))
        known = [name for name in weights if name not in (*WITHOUT_WEIGHTS, *self.external)]
        return {
            "datasets": {name: self.fingerprint(name) for name in self.params.datasets},
            "backbones": {name: self.weights_identity(name) for name in known},
        }

    @cached_property
    def _in_git(self) -> dict[str, dict[str, str]]:
        """The identities that git holds: DVC brings what was made of raw data and weights, and not those."""
        return dict(_read_json(self.path("work") / RETRIEVED).get("identities", {}))

    def _last_known(self, folder: Path, kind: str) -> str:
        """Return the identity that the newest manifest of raw data or weights in a folder says; ABSENT without one."""
        found = sorted(folder.glob(f"*/{kind}.json"), key=lambda path: path.stat().st_mtime)
        known = [_read_json(path).get("facts", {}).get("identity") for path in found]
        return next(filter(None, reversed(known)), ABSENT)

    def raw_identity(self, dataset: str) -> RawIdentity | None:
        """Return the identity of the raw files that are here; None if none are."""
        layout = self.layout(dataset)
        return identify(self.dataset(dataset), layout) if layout else None

    def note_raw_state(self, step: Step) -> None:
        """Record the state of the raw files that a `retrieve` has hashed: one that is overwritten later is noticed."""
        if step.dataset and (found := self.raw_identity(step.dataset)):
            states = {**_read_json(step.folder / SEEN), str(self.raw_folder(step.dataset).resolve()): found.state}
            files.write_json(step.folder / SEEN, states)

    def set_aside_foreign(self, step: Step) -> list[str]:
        """Set aside what lies in a step's folder and is not what it makes of what is here; return what and why.

        Artifacts of another study or of other inputs are found by their manifests, raw files that were overwritten by
        their sizes and times.
        """
        found = step.set_aside_foreign()
        if self._fixed:  # a run looks at raw files once, as it begins
            return found
        if step.verb != "retrieve" or not step.dataset or not step.done:
            return found
        if state := self.raw_identity(step.dataset):
            folder = self.raw_folder(step.dataset)
            if _read_json(step.folder / SEEN).get(str(folder.resolve()), state.state) != state.state:
                manifests.set_aside(step.outputs[0])
                found.append(f"{folder} changed since its files were hashed; they are hashed again")
        return found

    def fingerprint(self, dataset: str) -> str:
        """Return what the raw data of a dataset are, wherever they lie: part of the key of all that is made of them."""
        if self.params.datasets[dataset].phantom:
            return "generated"
        if known := self._fixed.get("datasets", {}).get(dataset):
            return str(known)
        if self.will_download(dataset) or (self.raw_folder(dataset) / DOWNLOADED).is_file():
            return f"download:{files.digest([[each.file, each.sha256] for each in self.dataset(dataset).downloads])}"
        if found := self.raw_identity(dataset):
            return found.fingerprint
        known = self._in_git.get("datasets", {}).get(dataset, ABSENT)
        return self._last_known(self.path("work") / dataset / "retrieve", "raw") if known == ABSENT else known

    def weights_identity(self, backbone: str) -> str:
        """Return what the weights of a backbone are: their SHA-256, or the revision of the hub that holds them."""
        entry = self.backbone(backbone)
        if entry.random:
            return "random"
        if known := entry.sha256 or self._fixed.get("backbones", {}).get(backbone):
            return known
        if file := self.weights_file(backbone):
            return files.cached_sha256(file, self.path("work") / "weights" / "sha256.json")
        known = self._in_git.get("backbones", {}).get(backbone, ABSENT)
        if not known.startswith(ABSENT):
            return known
        if entry.package:
            return f"{entry.package.name}=={entry.package.version}"
        if entry.repo:
            return f"{entry.repo}@{entry.revision}"
        known = self._last_known(self.path("work") / "weights" / slug(backbone), "weights")
        return " ".join([ABSENT, *entry.local]) if known == ABSENT else known

    # --- what is here -------------------------------------------------------------------------------------------------

    @cached_property
    def missing(self) -> list[Missing]:
        """What the study asks for and is not here. Raises RadprobeError when `on_missing: fail`."""
        found = [*self._missing_datasets(), *self._missing_backbones(), *self._missing_predictions()]
        if found and self.params.on_missing == "fail":
            first = found[0]
            raise RadprobeError(f"{first.kind} {first.name}", first.why, f"{first.remedy}, or set on_missing: skip")
        return found

    def as_if_skipping(self) -> "Study":
        """Return the study as if it said `on_missing: skip`: all that is missing is told, and stops nothing."""
        other = copy.copy(self)
        other.params = self.params.model_copy(update={"on_missing": "skip"})
        return other

    def as_if_complete(self) -> "Study":
        """Return the study as if all its data and weights were here."""
        whole = copy.copy(self)
        for name in ("datasets_here", "backbones_here", "steps"):
            whole.__dict__.pop(name, None)  # what was found for this one
        whole.missing = [missing for missing in self.missing if missing.kind == "adaptation"]  # no file would help
        return whole

    def _missing_datasets(self) -> Iterator[Missing]:
        for name, choice in self.params.datasets.items():
            never = {CEILING, *self.absent_predictions}
            scored = [each for each in self.backbones if each not in never and self.applies(name, each)]
            if not scored and self.dataset(name).task == "segmentation":
                why = "nothing in params segments it: no decoder, no network from scratch, no backbone that is adapted"
                yield Missing("dataset", name, why, "set segment.linear, segment.unet, segment.scratch or adapt")
                continue
            if choice.phantom or self.will_download(name) or self._pulled(name):
                continue
            if self.layout(name) is None:
                folder = self.raw_folder(name)
                why = f"no raw folder {folder}" if not folder.is_dir() else f"no known layout in {folder}"
                if (folder / DOWNLOADING).is_file():
                    why = f"the download in {folder} is not finished ({UNLESS_BY_HAND.format(folder / DOWNLOADING)})"
                yield Missing("dataset", name, why, catalog.how_to_get(self.dataset(name), folder))

    def _pulled(self, dataset: str) -> bool:
        """Was a dataset prepared elsewhere, and came through DVC: what was made of its images needs none of them."""
        prepare = self._prepare(dataset)
        return prepare.done and all(map(files.was_pulled, prepare.outputs))

    def _missing_backbones(self) -> Iterator[Missing]:
        for name in set(self.params.backbones) & set(self.absent_adapters):
            path = self.adapter_file(name)
            yield Missing("backbone", name, f"no adapter {path}", "train it (`radprobe adapt`), or name its file")
        for name in (name for name in self.backbones if name not in self.external):
            found = self._not_adaptable(name) if mode_of(name) else self._without_weights(name)
            if found:
                yield found

    def _missing_predictions(self) -> Iterator[Missing]:
        for row in self.absent_predictions:
            path, where = self.predictions_file(row), f"datasets.{self.external[row]}.predictions.{row}"
            what = "label map in" if path.is_dir() else "file or folder"
            yield Missing("predictions", row, f"no {what} {path}", f"put it there, or say where it is: {where}")

    @property
    def external_here(self) -> list[str]:
        """The rows from elsewhere whose file, or folder with label maps, is there."""
        return [row for row in self.external if external.read_files(self.predictions_file(row))]

    @property
    def absent_predictions(self) -> list[str]:
        """The rows from elsewhere that are not there, and whose Predictions did not come through DVC either."""
        here = self.external_here
        return [row for row in self.external if row not in here and not self._pulled_row(row)]

    def _pulled_row(self, row: str) -> bool:
        prepare = self._prepare(self.external[row])
        step = self._external(row, [prepare, self._split(self.external[row], prepare)])
        return step.done and all(map(files.was_pulled, step.outputs))

    def check_predictions(self, row: str) -> list[str]:
        """Check the file of a row from elsewhere, in seconds; return notes on what of it is ignored.

        Cases are compared with the split if there is one already. Raises RadprobeError.
        """
        dataset, path = self.external[row], self.predictions_file(row)
        entry, split = self.dataset(dataset), self.steps.get(("split", dataset, None))
        scale = self.made_elsewhere(row).scale
        if split is None or not split.done:
            recipe = entry.splits[self.params.datasets[dataset].split_name]
            may_leave_out = getattr(recipe, "min_positives", 1) > 1 or self.params.limit
            return external.check(path, entry, [] if may_leave_out else entry.classes, scale, None)
        expected = external.Expected.load(split.dependency("prepare").folder, split.folder)
        return external.check(path, entry, expected.classes, scale, expected)

    def _without_weights(self, name: str) -> Missing | None:
        entry = self.backbone(name)
        if facts := self.adapter(name):
            base = self._without_weights(facts["backbone"])
            return base and Missing("backbone", name, f"{base.why} of {base.name}, which it adapts", base.remedy)
        if entry.random or self.weights_file(name) or (entry.package and package_folder(entry.package)):
            return None
        if self._weights(with_weights(name)).done:
            return None  # fetched before
        why = "no weights"
        if entry.repo and self.may_fetch:
            if not entry.gated or logged_in():
                return None
            why = "its weights are given out only to those who accept their terms, and no token of the hub is here"
        how = catalog.how_to_get_weights(entry, self.path("weights"))
        if entry.repo and not self.may_fetch:
            how += ", or let it be fetched: `hub: true` in params, and no HF_HUB_OFFLINE"
        return Missing("backbone", name, why, how)

    def _not_adaptable(self, name: str) -> Missing | None:
        cost = self.cost(name)
        lora = self.params.adapt.lora if self.params.adapt and mode_of(name) == "lora" else None
        if lora and lora.targets is None and cost and not cost.lora_layers:
            why = "LoRA adapts layers of attention and MLP, and this network has none"
            return Missing("adaptation", name, why, "name its layers in adapt.lora.targets, or choose another way")
        if mode_of(name) == HEAD and not self._ways_of(frozen(name)):
            why = "the head alone is the reference for gains, and no way to train this backbone is left"
            return Missing("adaptation", name, why, "choose another way to train it")
        return None

    def _ways_of(self, backbone: str) -> list[str]:
        """Return the ways in which a backbone can be trained, besides its head alone."""
        ways = [name for name in self.backbones if mode_of(name) not in (None, HEAD) and frozen(name) == backbone]
        return [name for name in ways if self._not_adaptable(name) is None]

    @property
    def may_fetch(self) -> bool:
        """May weights be fetched from the hub."""
        offline = (os.environ.get(name, "").upper() for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
        return self.params.hub and not {"1", "ON", "YES", "TRUE"} & set(offline)  # as the hub's own library reads them

    @cached_property
    def datasets_here(self) -> list[str]:
        """The datasets of the study whose raw files are here (or are generated)."""
        gone = {missing.name for missing in self.missing if missing.kind == "dataset"}
        return [name for name in self.params.datasets if name not in gone]

    @cached_property
    def backbones_here(self) -> list[str]:
        """The backbones of the study whose weights are here, or may be fetched, and their controls."""
        return [name for name in self.backbones if self.why_gone(name) is None]

    def why_gone(self, backbone: str) -> Missing | None:
        """Return what keeps a backbone out of the study, None where nothing does.

        A random initialisation leaves with its backbone, unless params name it by itself.
        """
        names = {backbone, frozen(backbone)}
        if backbone.startswith(RANDOM) and first_init(frozen(backbone)) not in self.params.backbones:
            names.add(original(backbone))
        return next((each for each in self.missing if each.kind != "dataset" and each.name in names), None)

    @cached_property
    def rows(self) -> list[str]:
        """The backbones that are rows of the report: further random initialisations belong to the row of the first."""
        return [name for name in self.backbones if not is_further_init(name)]

    @cached_property
    def rows_here(self) -> list[str]:
        """Those of `backbones_here` that are rows of the report."""
        return [name for name in self.backbones_here if not is_further_init(name)]

    def inits(self, dataset: str, control: str) -> list[str]:
        """Return the random initialisations of the row `random:<id>` on a dataset, the first one first."""
        named = [name for name in self.backbones_here if first_init(name) == control]
        return [name for name in named if self.applies(dataset, name)]

    def applies(self, dataset: str, backbone: str) -> bool:
        """May a backbone be applied to a dataset? Metadata alone need some, and classify; others only segment.

        Frozen ones segment where params have a decoder for them.
        """
        entry = self.dataset(dataset)
        if backbone in self.external:
            return self.external[backbone] == dataset
        if mode_of(backbone) and entry.task not in PREDICTING:
            return False
        if is_further_init(backbone) and init_number(backbone) > self.inits_wanted(dataset):
            return False
        if backbone == METADATA:
            return bool(entry.metadata and entry.task not in ("segmentation", "look"))
        if backbone in SCRATCH:
            return entry.task == "segmentation" and self.params.segment.scratch is not None
        if entry.task == "segmentation" and backbone != CEILING and not mode_of(backbone):
            return bool(self._decoders(entry))
        return backbone != CEILING or entry.task == "segmentation"

    def predicting(self, dataset: str, backbone: str | None) -> str:
        """Return the verb that makes the predictions of a cell; "" if there is nothing to predict."""
        verb = PREDICTING.get(self.dataset(dataset).task, "")
        if backbone in self.external:
            return EXTERNAL
        return "adapt" if verb and backbone and mode_of(backbone) else verb

    # --- steps --------------------------------------------------------------------------------------------------------

    @cached_property
    def steps(self) -> Steps:
        """Every step of the study, by (verb, dataset, backbone), in pipeline order."""
        steps: Steps = {}
        for backbone in map(with_weights, self.backbones_here):
            if backbone not in WITHOUT_WEIGHTS and backbone not in self.external:
                steps |= {("weights", None, step.backbone): step for step in in_order(self._weights(backbone))}
        for dataset in self.datasets_here:
            for step in self._of_dataset(dataset, steps):
                steps[step.verb, step.dataset, step.backbone] = step
        return steps

    def step(self, verb: str, dataset: str | None = None, backbone: str | None = None) -> Step:
        """Return one step; raise RadprobeError where the study has none."""
        try:
            return self.steps[verb, dataset, backbone]
        except KeyError:
            missing = next((each for each in self.missing if each.name == dataset), None)
            missing = missing or (self.why_gone(backbone) if backbone else None)
            if missing:
                raise RadprobeError(missing.name, missing.why, missing.remedy) from None
            known = [f"{d or ''} {b or ''}".strip() for v, d, b in self.steps if v == verb]
            wanted = " ".join(filter(None, (dataset, backbone)))
            reason = f"no step '{verb}' of it in this study"
            if not known:
                here = ", ".join(self.datasets_here) or "none"
                remedy = f"the datasets of this study that are here: {here}; name another study with --params"
                raise RadprobeError(wanted, f"this study has no step '{verb}'", remedy) from None
            raise RadprobeError(wanted, reason, f"did you mean {params.nearest_name(wanted, known)}?") from None

    def _step(self, verb: str, dataset: str | None, backbone: str | None, job: Job, *dependencies: Step) -> Step:
        content = job.model_dump(mode="json")
        key = files.digest([verb, VERSIONS.get(verb, 1), content, [each.key for each in dependencies]])
        root = self.path("results" if verb in ("probe", "segment", "adapt", "external", "score", "compare") else "work")
        middle = [slug(backbone)] if backbone else []
        folder = root.joinpath(*([dataset] if dataset else []), verb, *middle, key)
        return Step(verb, dataset, backbone, job, folder, key, dependencies)

    def runtime(self, step: Step) -> Runtime:
        """Return what the job of a step may use on this machine."""
        embed = self.params.embed
        reads_raw = step.verb in ("retrieve", "prepare")
        return Runtime(
            device=self.params.device,
            threads=self.params.threads,
            batch_size=embed.batch_size,
            shard_rows=embed.shard_rows,
            max_dense_cache_gb=embed.max_dense_cache_gb,
            raw=self.raw_folder(step.dataset) if step.dataset else None,
            remedy=self._remedy(step),
            weights_file=self.weights_file(step.backbone) if step.verb == "weights" and step.backbone else None,
            predictions=self.predictions_file(step.backbone) if step.verb == EXTERNAL and step.backbone else None,
            may_fetch=self.may_fetch,
            download=self._download(step.dataset) if step.verb == "retrieve" and step.dataset else None,
            check_split=self._check_split(step.dataset) if reads_raw and step.dataset else None,
        )

    def _remedy(self, step: Step) -> str:
        """Return how a person gets the raw data or the weights that a step looks for."""
        if step.verb == "weights" and step.backbone:
            return catalog.how_to_get_weights(self.backbone(step.backbone), self.path("weights"))
        if step.verb == "retrieve" and step.dataset:
            return catalog.how_to_get(self.dataset(step.dataset), self.raw_folder(step.dataset))
        return ""

    def _download(self, dataset: str) -> Dataset | None:
        return self.dataset(dataset) if self.will_download(dataset) else None

    def _check_split(self, dataset: str) -> "Callable[[Index], None]":
        from radprobe.splitting.preview import checker  # the graph needs no table

        choice = self.params.datasets[dataset]
        return checker(self.dataset(dataset), choice.split_name, self.params.seed, self.params.limit)

    def samples(self, dataset: str) -> "Index":
        """Return the samples of a raw download as `retrieve` lists them. Raises RadprobeError as it does."""
        entry, layout = self.dataset(dataset), self.layout(dataset)
        if layout is None:
            raise RadprobeError(self.raw_folder(dataset), "has no known layout", "see `radprobe datasets`")
        index: Index = loader(entry).samples(layout, entry.raw, self.params.datasets[dataset].allow_missing)
        index.facts["uncertain"] = self.params.datasets[dataset].uncertain
        self._check_split(dataset)(index)
        return index

    def _weights(self, backbone: str) -> Step:
        entry, facts = self.backbone(backbone), self.adapter(backbone)
        job = WeightsJob(
            backbone=backbone,
            identity=self.weights_identity(backbone),
            entry=entry.checkpoint,
            seed=self.params.seed + init_number(backbone) - 1 if entry.random else None,
            adapter=AdapterFacts(facts=facts, base=self.backbone(facts["backbone"]).checkpoint) if facts else None,
        )
        return self._step("weights", None, backbone, job, *([self._weights(facts["backbone"])] if facts else []))

    def _of_dataset(self, dataset: str, steps: Steps) -> Iterator[Step]:
        entry = self.dataset(dataset)
        prepare = self._prepare(dataset)
        yield from in_order(prepare)
        names = [name for name in self.backbones_here if self.applies(dataset, name)]
        embeds = {
            name: self._embed(dataset, name, entry, prepare, steps)
            for name in names
            if name not in (CEILING, *SCRATCH, *self.external) and not mode_of(name)
        }
        yield from embeds.values()
        if entry.task == "look":
            return
        split = self._split(dataset, prepare)
        yield split
        predictions = {}
        for name in names:
            needs = [prepare, split, *([embeds[name]] if name in embeds else [])]
            if ("weights", None, with_weights(name)) in steps and (entry.task == "segmentation" or mode_of(name)):
                needs.append(steps["weights", None, with_weights(name)])  # maps that are not stored are made again
            predictions[name] = self._predictions(dataset, name, entry, needs)
            yield predictions[name]
            job = ScoreJob.of(dataset, name, entry, self.params)
            yield self._step("score", dataset, name, job, prepare, split, predictions[name])
        compared = {name: step for name, step in predictions.items() if name != CEILING}
        families = {name: self.backbone(name).family for name in compared}
        comparison = CompareJob.of(dataset, entry, families, pairs_of(entry.task), self.params)
        yield self._step("compare", dataset, None, comparison, prepare, *compared.values())

    def _prepare(self, dataset: str) -> Step:
        entry, choice = self.dataset(dataset), self.params.datasets[dataset]
        raw = RetrieveJob(
            fingerprint=self.identities["datasets"][dataset],
            entry=entry.raw,
            phantom=choice.phantom,
            allow_missing=choice.allow_missing,
            uncertain=choice.uncertain,
        )
        job = PrepareJob(
            entry=entry.decoding,
            stored=entry.stored,
            limit=limit(self.params.limit, entry),
            max_quarantine=choice.max_quarantine,
            published=entry.counts,
        )
        return self._step("prepare", dataset, None, job, self._step("retrieve", dataset, None, raw))

    def _split(self, dataset: str, prepare: Step) -> Step:
        entry, choice = self.dataset(dataset), self.params.datasets[dataset]
        job = SplitJob(
            dataset=dataset,
            name=choice.split_name,
            recipe=entry.splits[choice.split_name],
            seed=self.params.seed,
            leaks_allowed=choice.leaks_allowed,
            published=entry.published.parts if entry.published else {},
            others=list(entry.splits),
            own=entry.folder is not None,
        )
        return self._step("split", dataset, None, job, prepare)

    def _external(self, row: str, needs: list[Step]) -> Step:
        """Return the step of a row from elsewhere, of its file as it is; of an absent one as DVC brought it."""
        dataset, content = self.external[row], external.identity(self.predictions_file(row))
        entry, scale = self.dataset(dataset), self.made_elsewhere(row).scale
        made = self.path("results") / dataset / EXTERNAL / slug(row)
        known = [content] if content else [*external.pulled(made), None]
        jobs = [ExternalJob.of(dataset, row, entry, scale, each) for each in known]
        steps = [self._step(EXTERNAL, dataset, row, job, *needs) for job in jobs]
        return next((step for step in steps if step.done), steps[-1])

    def _predictions(self, dataset: str, backbone: str, entry: Dataset, needs: list[Step]) -> Step:
        if backbone in self.external:
            return self._external(backbone, needs)
        verb, p = self.predicting(dataset, backbone), self.params
        model = self.backbone(backbone)
        if verb == "adapt" and p.adapt:
            return self._step("adapt", dataset, backbone, AdaptJob.of(p, p.adapt, entry, model), *needs)
        if verb == "segment":
            job = SegmentJob.of(p, entry, model, self._decoders(entry))
            return self._step("segment", dataset, backbone, job, *needs)
        # A curve over draws belongs to one training set; those of a control are those of its first initialisation.
        draws = isinstance(p.datasets[dataset].split, str) and not is_further_init(backbone)
        return self._step("probe", dataset, backbone, ProbeJob.of(p, entry, backbone, few_shot=draws), *needs)

    def _embed(self, dataset: str, backbone: str, entry: Dataset, prepare: Step, steps: Steps) -> Step:
        if backbone == METADATA:
            job = EmbedJob(dataset=dataset, backbone=backbone, columns=entry.metadata)
            return self._step("embed", dataset, backbone, job, prepare)
        model, p = self.backbone(backbone), self.params
        how = encoding(model, entry, p.embed, p.seed, self._decoders(entry))
        job = EmbedJob(dataset=dataset, backbone=backbone, encoding=how)
        return self._step("embed", dataset, backbone, job, prepare, steps["weights", None, with_weights(backbone)])

    def _decoders(self, entry: Dataset) -> list[str]:
        """Return the decoders whose layers are wanted of a backbone; the report looks at the linear one's."""
        if entry.task == "look":
            return ["linear"]
        if entry.task != "segmentation":
            return []
        segment = self.params.segment
        unet = ["unet", *(["unet" + PAPER] if segment.paper else [])]
        return [*(["linear"] if segment.linear else []), *(unet if segment.unet else [])]

    # --- resources ----------------------------------------------------------------------------------------------------

    def memory_mb(self, backbone: str) -> int:
        """Memory that a job which runs a backbone asks for: its weights as float32, twice while they are loaded."""
        cost = self.cost(backbone)
        copies = 2 if mode_of(backbone) in (None, HEAD) else 4  # to train: gradients and two moments besides
        return MEMORY_MB + (cost.parameters * 4 * copies // 1_000_000 if cost else 0)

    @property
    def gpus(self) -> int:
        """GPUs that a job which runs a backbone asks for."""
        wanted = self.params.device == "cuda" or (
            self.params.device == "auto" and shutil.which("nvidia-smi") is not None
        )
        return int(wanted)


def in_order(step: Step) -> list[Step]:
    """Return a step after all its dependencies, direct and indirect."""
    return [*(each for need in step.dependencies for each in in_order(need)), step]


def _read_json(file: Path) -> dict[str, Any]:
    """Return the content of a JSON file; {} if it is not there or damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def logged_in() -> bool:
    """Is there a token of the hub, which gated weights want?"""
    try:
        from huggingface_hub import get_token  # only gated weights ask
    except ModuleNotFoundError:  # an environment that fetches nothing
        return True
    return get_token() is not None
