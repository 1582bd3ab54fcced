"""What the steps of a study will take, images, disk and hours, before any of it has run: by published counts, and by
what jobs of this and of earlier studies took here.

A job's work is its images, times the GFLOPs of an image where it runs a backbone. Jobs of the same verb and the same
options (epochs, learning rates ...) are taken to need the same seconds per work, within the spread of those measured.
"""

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radprobe import catalog, files
from radprobe.files import RadprobeError
from radprobe.jobs.adapt import AdaptJob
from radprobe.jobs.embed import EmbedJob, Encoding
from radprobe.jobs.score import ScoreJob
from radprobe.jobs.split import SplitJob
from radprobe.names import mode_of, slug
from radprobe.study import ON_GPU, Step, Study

STUDIES = 20  # the newest of those recorded are looked at
FITTING = {"probe", "segment", "adapt"}
OF_THE_IMAGE = {"seed", "threads", "recipe", "size", "intensity", "dataset", "backbone", "encoder", "embed"}


@dataclass(frozen=True)
class TimeEstimate:
    """Seconds that a job will take: low to high, by the spread of `jobs` that were measured (0: by none here)."""

    low: float
    high: float
    jobs: int


def images(study: Study, dataset: str) -> float:
    """Return how many images a dataset has: as prepared, else as retrieved or published, in proportion to `limit`.

    0 where not known: of one's own images, before they are retrieved.
    """
    if counted := _counts(study, "prepare", dataset, "pixels"):
        return counted["samples"]
    published, phantom = study.dataset(dataset).published, study.params.datasets[dataset].phantom
    if counted := _counts(study, "retrieve", dataset, "raw"):
        samples, patients, fewer = counted["samples"], counted["patients"], study.params.limit
    elif published and published.samples:
        samples, patients = published.samples, published.patients or published.cases or 0
        fewer = min(filter(None, (study.params.limit, phantom.patients if phantom else None)), default=None)
    else:
        return 0
    return samples * min(fewer / patients, 1) if fewer and patients else samples


def _counts(study: Study, verb: str, dataset: str, manifest: str) -> dict[str, int] | None:
    step = study.steps.get((verb, dataset, None))
    return _facts(step.folder / f"{manifest}.json").get("counts") if step else None


def disk(study: Study) -> tuple[int, int]:
    """Return about how many bytes the pixels and vectors take that are not made yet, and with dense maps.

    What has images that are not counted yet is left out.
    """
    least = 0.0
    maps = 0.0
    for step in study.steps.values():
        if step.done or not step.dataset:
            continue
        n = images(study, step.dataset) if step.verb in ("prepare", "embed") else 0
        if step.verb == "prepare":
            entry = study.dataset(step.dataset)
            volumes = bool(entry.published and entry.published.cases)  # of 16 bits
            least += n * entry.stored**2 * (1 + volumes + (entry.task == "segmentation"))
        elif step.verb == "embed" and step.backbone and (cost := study.cost(step.backbone)):
            n *= 1 + _views(step)
            least += n * cost.dim * 2 * (study.params.embed.blocks + 1)
            how = _encoding(step)
            read = how.encoder.dense_layers(how.decoders, cost.blocks).values() if how else ()
            tokens = cost.tokens_224 * (how.size / 224) ** 2 if how else 0
            full = n * tokens * cost.dim * 2 * len({layer for layers in read for layer in layers})
            maps += full if full <= study.params.embed.max_dense_cache_gb * 1e9 else 0  # none is kept over it
    return int(least), int(least + maps)


class Earlier:
    """What jobs took in the studies that `paths.work` records."""

    def __init__(self, study: Study):
        self.rates: dict[str, list[float]] = {}  # seconds per work, by kind of job
        seen: set[Path] = set()
        for other in recorded(study):
            for step in other.steps.values():
                file = benchmark_file(other, step)
                seconds = None if file in seen else _seconds(file, step)
                seen.add(file)
                if seconds and (todo := work(other, step)):
                    self.rates.setdefault(_kind(other, step), []).append(seconds / todo)

    def estimate(self, study: Study, step: Step) -> TimeEstimate | None:
        """Return what a job will take; None where no job like it has run here, or its work is not known."""
        todo, rates = work(study, step), sorted(self.rates.get(_kind(study, step), []))
        if not todo:
            return None
        if rates:
            tail = len(rates) // 10  # the middle 80 % of ten and more
            return TimeEstimate(todo * rates[tail], todo * rates[-1 - tail], len(rates))
        if _encoding(step) and (rates := reference(study)):
            return TimeEstimate(todo * min(rates), todo * max(rates), 0)
        return None


def reference(study: Study) -> list[float]:
    """Return the seconds per GFLOP of forward passes that were timed on such a device as the study wants."""
    rows = [row for row in catalog.throughput() if row.gpu == bool(study.gpus)]
    return [1 / (row.images_per_second * _flops_at(catalog.costs()[row.id], row.size)) for row in rows]


def work(study: Study, step: Step) -> float:
    """Return the images that a step goes through, times the GFLOPs of each where it runs a backbone; 0: not known."""
    if step.verb in ("retrieve", "weights") or step.dataset is None:
        return 0
    n = images(study, step.dataset) * (1 + _views(step))
    if step.verb == "compare":
        return n * len(step.dependencies)
    n *= _folds(step)
    return n * _gflops(study, step) if step.verb in ON_GPU else n


def _encoding(step: Step) -> Encoding | None:
    """Return how a step encodes images; None where it encodes none."""
    return step.job.encoding if isinstance(step.job, EmbedJob) else None


def _views(step: Step) -> int:
    """Return how many augmented copies of each image a step encodes."""
    how = _encoding(step)
    return how.views if how else 0


def _folds(step: Step) -> int:
    """Return how often a step fits everything: once for each fold of its split."""
    if step.verb not in FITTING:
        return 1
    split = step.dependency("split").job
    return split.recipe.folds if isinstance(split, SplitJob) and isinstance(split.recipe, catalog.Folds) else 1


def _gflops(study: Study, step: Step) -> float:
    """Return those of an image at the side that the step gives, between and beyond the two that the catalog states."""
    if step.dataset is None or step.backbone is None:
        return 1
    cost = study.cost(step.backbone)
    if cost is None or not cost.gflops_224:  # no network that it knows: controls, networks from scratch
        return 1
    if how := _encoding(step):
        return _flops_at(cost, how.size)
    given = step.job.size if isinstance(step.job, AdaptJob) else None
    side = given or study.backbone(step.backbone).side(study.dataset(step.dataset).size)
    return _flops_at(cost, side)


def _flops_at(cost: catalog.Cost, side: int) -> float:
    power = math.log2(cost.gflops_448 / cost.gflops_224)  # 0 where it takes one side only
    return float(cost.gflops_224 * (side / 224) ** power)


def _kind(study: Study, step: Step) -> str:
    task = study.dataset(step.dataset).task if step.dataset else None
    cost = study.cost(step.backbone) if step.backbone else None
    known = bool(cost and cost.gflops_224)
    return files.digest([step.verb, task, known, mode_of(step.backbone or ""), _options(step)])


def _options(step: Step) -> object:
    """Return the options on which the time of a job depends, besides those of its images."""
    if how := _encoding(step):
        return {"precision": how.precision, "decoders": how.decoders}
    if isinstance(step.job, ScoreJob):
        return {"resamples": step.job.intervals.resamples}
    return _without(step.job.model_dump(mode="json"), OF_THE_IMAGE) if step.verb in FITTING else None


def _without(content: object, names: set[str]) -> object:
    """Return JSON without the keys of these names, at any depth."""
    if isinstance(content, dict):
        return {key: _without(value, names) for key, value in content.items() if key not in names}
    return content


def benchmark_file(study: Study, step: Step) -> Path:
    """Return where Snakemake writes what a job took."""
    parts = [step.dataset, slug(step.backbone) if step.backbone else None]
    return study.path("work").joinpath("benchmarks", step.verb, *filter(None, parts), f"{step.key}.tsv")


def recorded(study: Study) -> Iterator[Study]:
    """Yield the newest studies that ran in the same `paths.work`, as far as they can be read still."""
    found = sorted((study.path("work") / "studies").glob("*.yaml"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[:STUDIES]:
        try:
            identities = max(
                path.parent.glob(f"{path.stem}-*.json"), key=lambda each: each.stat().st_mtime, default=None
            )
            other = Study(path, identities)
            _ = other.steps
        except RadprobeError:
            continue
        yield other


def _seconds(file: Path, step: Step) -> float | None:
    """Return the seconds of the job that made a step; None where there are none, or where it was made already."""
    try:
        with file.open(newline="") as lines:
            seconds = float(next(csv.DictReader(lines, delimiter="\t"))["s"])
        begun, manifest = file.stat().st_mtime - seconds, step.outputs[-1]
        return None if manifest.is_file() and manifest.stat().st_mtime < begun - 1 else seconds
    except (OSError, ValueError, KeyError, StopIteration):
        return None


def _facts(manifest: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))["facts"]
    except (OSError, ValueError, KeyError):
        return {}
    return facts
