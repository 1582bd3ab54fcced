"""Which samples to look at, and the pictures of them: the best, median and worst cases, through several backbones."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd

from radprobe.artifacts import Embeddings, Index, LabelMaps, Pixels, Predictions, Truth
from radprobe.files import RadprobeError
from radprobe.imaging.volumes import Slicing
from radprobe.names import frozen, random_init
from radprobe.report import pictures, words
from radprobe.report.collect import Findings
from radprobe.report.figures import hidden
from radprobe.report.ranking import Column

BACKBONES = 5  # side by side, at most
PAIRS = 12  # near-duplicates that are shown
STRIP = 4  # slices of a volume, from the first to the last that shows a structure


@dataclass(frozen=True)
class NearPair:
    """Two cases in different parts that look like copies: what is said of them, and their pictures if allowed."""

    caption: str
    pictures: list[str] = field(default_factory=list)


@dataclass
class Gallery:
    """Pictures of a dataset. `why` says what is not shown.

    overlays: the same cases, `samples`, through some backbones; own: the best, median and worst (`ranks`) of each
    backbone. strips: they show several slices. images, features: the samples, and what backbones make of them.
    """

    dataset: str
    title: str
    samples: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    overlays: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # backbone -> (picture, caption)
    strips: bool = False
    ranks: list[str] = field(default_factory=list)
    own: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    features: dict[str, list[str]] = field(default_factory=dict)
    why: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PatchFeatures:
    """The same images through several backbones: by backbone the components of its patch features, RGB [h, w, 3]."""

    samples: list[str] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)  # (width, height) that keep the original's shape
    maps: dict[str, list[np.ndarray]] = field(default_factory=dict)
    why: list[str] = field(default_factory=list)  # what is not shown


def features(findings: Findings, dataset: str, column: Column | None) -> PatchFeatures:
    """Return patch features of the best, median and worst case; of evenly spaced samples of what is only looked at.

    None, with the reason, where nothing was scored or an artifact is absent or broken.
    """
    if findings.datasets[dataset].task != "look" and not (column and column.best):
        return PatchFeatures(why=["Not shown: nothing was scored yet, so there is no best, median and worst case."])
    try:
        return _features(findings, dataset, column)
    except (RadprobeError, FileNotFoundError) as error:
        return PatchFeatures(why=[f"Not shown: {error}"])


def _features(findings: Findings, dataset: str, column: Column | None) -> PatchFeatures:
    index, pixels, truth = findings.images(dataset)
    examples = findings.study.params.report.examples
    if column:
        cases = PicturedCases.of(index, pixels, truth)
        chosen = _ranked(findings, column, column.leader, examples)
        samples = [f"{name}: {case}" for name, case in chosen.items()]
        rows = np.array([cases.fullest(case) for case in chosen.values()])
    else:
        rows = np.unique(np.linspace(0, len(index.table) - 1, examples + 2).round().astype(int)[1:-1])
        samples = index.table["sample_id"].iloc[rows].tolist()
    sizes = [pictures.size_of(tuple(pixels.shapes[row])) for row in rows]
    found = PatchFeatures(samples, [pixels.images[row] for row in rows], sizes)
    for backbone in _with_features(findings, dataset, column):
        _add_maps(found, findings, dataset, backbone, rows)
    return found


def _with_features(findings: Findings, dataset: str, column: Column | None) -> list[str]:
    """Return the backbones to show: of one that was trained the frozen one, of a network from scratch none."""
    names = dict.fromkeys(frozen(name) for name in _backbones(findings, dataset, column))
    return [name for name in names if ("embed", dataset, name) in findings.study.steps][:BACKBONES]


def _add_maps(found: PatchFeatures, findings: Findings, dataset: str, backbone: str, rows: np.ndarray) -> None:
    step = findings.study.steps["embed", dataset, backbone]
    if not step.outputs[0].is_file():
        found.why.append(f"{findings.title(backbone)} has no features yet.")
    elif not (dense := Embeddings.load(step.folder).dense):
        found.why.append(f"{findings.title(backbone)} keeps no feature maps.")
    else:
        found.maps[backbone] = list(pictures.components(dense[max(dense)][rows]))  # of the deepest layer


def near_duplicates(findings: Findings, dataset: str) -> list[NearPair]:
    """Return the pairs of cases in different parts that look like copies: a caption, and two pictures where allowed."""
    pairs = findings.facts("split", dataset, kind="leaks").get("near", [])
    found = [NearPair(_pair(near)) for near in pairs[:PAIRS]]
    if not found or hidden(findings.study, dataset):
        return found
    try:
        index, pixels, _ = findings.images(dataset)
    except (RadprobeError, FileNotFoundError):
        return found
    row_of = {name: row for row, name in enumerate(index.table["sample_id"])}
    for near, each in zip(pairs, found, strict=False):
        for row in (row_of[name] for name in near["samples"]):
            picture = pictures.grey(pixels.images[row], pictures.size_of(tuple(pixels.shapes[row])))
            each.pictures.append(pictures.uri(picture))
    return found


def _pair(near: dict[str, Any]) -> str:
    cases = " and ".join(f"{case} ({part})" for case, part in zip(near["cases"], near["parts"], strict=True))
    return f"{cases}: correlation {near['correlation']:.3f}, {near['change']}"


def gallery(findings: Findings, dataset: str, column: Column | None, seen: PatchFeatures | None) -> Gallery:
    """Return the pictures of a dataset; empty, with the reason, where they may not or cannot be shown.

    `seen` are its patch features, None where no picture may be shown.
    """
    found = Gallery(dataset, findings.datasets[dataset].title)
    if reason := hidden(findings.study, dataset):
        found.why.append(f"No pictures: {reason}. report.images: thumbnails shows them.")
        return found
    try:
        if column and column.best:
            _add_cases(found, findings, column)
    except (RadprobeError, FileNotFoundError) as error:
        found.why.append(f"Not shown: {error}")
    if seen:
        _add_features(found, seen)
    return found


def _add_cases(found: Gallery, findings: Findings, column: Column) -> None:
    """Add the cases of all backbones, each with the contours of truth and prediction."""
    index, pixels, truth = findings.images(found.dataset)
    cases, examples = PicturedCases.of(index, pixels, truth), findings.study.params.report.examples
    maps = {backbone: _maps(findings, column, backbone) for backbone in column.order}
    shared = _ranked(findings, column, column.leader, examples)
    found.ranks, found.samples = list(shared), [f"{name}: {case}" for name, case in shared.items()]
    for backbone in _backbones(findings, found.dataset, column)[:BACKBONES]:
        found.overlays[backbone] = _overlays(findings, column, backbone, cases, maps[backbone], shared.values())
    for backbone in column.order:
        own = _ranked(findings, column, backbone, examples).values()
        captioned = zip(own, _overlays(findings, column, backbone, cases, maps[backbone], own), strict=True)
        found.own[backbone] = [(picture, f"{case}: {caption}") for case, (picture, caption) in captioned]
    found.strips = len(index.table) > index.table["volume_id"].nunique()


def _add_features(found: Gallery, seen: PatchFeatures) -> None:
    found.samples = found.samples or seen.samples
    found.why = list(dict.fromkeys([*found.why, *seen.why]))
    found.images = [pictures.uri(pictures.grey(*each)) for each in zip(seen.images, seen.sizes, strict=True)]
    for backbone, maps in seen.maps.items():
        sized = zip(maps, seen.sizes, strict=True)
        found.features[backbone] = [pictures.uri(pictures.enlarged(*each)) for each in sized]


def _maps(findings: Findings, column: Column, backbone: str) -> LabelMaps:
    """Return the label maps that a backbone predicted."""
    verb = findings.study.predicting(column.dataset, backbone)
    maps = Predictions.load(findings.study.step(verb, column.dataset, backbone).folder).maps
    return maps[column.protocol_of(backbone)].of("test")


def _overlays(
    findings: Findings, column: Column, backbone: str, cases: "PicturedCases", maps: LabelMaps, chosen: Iterable[str]
) -> list[tuple[str, str]]:
    """Return a picture and its caption for each chosen case."""
    values, name = _values(findings, column, backbone), words.METRICS[column.metric]
    return [(cases.picture(case, maps[case]), f"{name} {words.number(values[case])}") for case in chosen]


def _values(findings: Findings, column: Column, backbone: str) -> pd.Series:
    """Return the macro score of every test case of a backbone, by case, best first."""
    cases, protocol = findings.cases(column.dataset, backbone), column.protocol_of(backbone)
    if cases is None:
        reason = f"has no scores of single cases by {backbone}"
        raise RadprobeError(column.dataset, reason, f"run `radprobe --force score {column.dataset} {backbone}`")
    chosen = (cases["protocol"] == protocol) & (cases["part"] == "test") & (cases["class"] == "macro")
    cases = cases[chosen & (cases["metric"] == column.metric)]
    return cases.sort_values(["value", "case_id"], ascending=[False, True]).set_index("case_id")["value"]


def _ranked(findings: Findings, column: Column, backbone: str, examples: int) -> dict[str, str]:
    """Return the cases of evenly spaced ranks of a backbone by name: best, median and worst for three."""
    ids = _values(findings, column, backbone).dropna().index
    places = np.unique(np.linspace(0, len(ids) - 1, examples).round().astype(int))
    names = ["best", "median", "worst"] if len(places) == 3 else [f"rank {place + 1} of {len(ids)}" for place in places]
    return dict(zip(names, ids[places], strict=True))


@dataclass(frozen=True)
class PicturedCases:
    """The stored images and the truth of a dataset, by case: a film, or a volume, shown as a strip of slices."""

    index: Index
    pixels: Pixels
    truth: Truth

    @classmethod
    def of(cls, index: Index, pixels: Pixels, truth: Truth | None) -> Self:
        """Return the cases of a dataset. Raises RadprobeError if it has no label maps."""
        if truth is None:
            raise RadprobeError(index.facts.get("dataset", "the dataset"), "has no label maps", "prepare it again")
        return cls(index, pixels, truth)

    def picture(self, case: str, prediction: np.ndarray) -> str:
        """Return a picture of a case with the contours of its truth and a prediction, as a data URI."""
        rows = self._rows(case)
        width = pictures.WIDTH if len(rows) == 1 else pictures.STRIP_WIDTH
        size = pictures.size_of(tuple(self.pixels.shapes[rows[0]]), width)
        truth = self.truth.maps[case]
        drawn = [
            pictures.overlay(
                self.pixels.images[row], _shown(self.index, row, truth), _shown(self.index, row, prediction), size
            )
            for row in rows
        ]
        return pictures.uri(pictures.strip(drawn))

    def _rows(self, case: str) -> list[int]:
        rows = self._all_rows(case)
        there = [row for row, count in zip(rows, self._counts(rows), strict=True) if count] or list(rows)
        return [there[place] for place in np.unique(np.linspace(0, len(there) - 1, STRIP).round().astype(int))]

    def fullest(self, case: str) -> int:
        """Return the row with the largest structures: of a volume the slice that shows most."""
        rows = self._all_rows(case)
        return int(rows[np.argmax(self._counts(rows))])

    def _counts(self, rows: np.ndarray) -> list[int]:
        """Return how many pixels of each slice of a volume belong to a structure; 0 for a film."""
        masks = self.pixels.masks
        if masks is None or len(rows) == 1:
            return [0] * len(rows)
        return [int(np.count_nonzero(masks[row])) for row in rows]

    def _all_rows(self, case: str) -> np.ndarray:
        return np.flatnonzero(self.index.table["volume_id"] == case)


def _backbones(findings: Findings, dataset: str, column: Column | None) -> list[str]:
    if column is None:
        study = findings.study
        return [name for name in study.rows_here if study.applies(dataset, name)]
    rivals = [name for name in column.order if name not in column.controls]
    untrained = [name for name in (random_init(column.leader),) if name in column.order]
    return list(dict.fromkeys([column.leader, *untrained, *rivals, *column.order]))


def _shown(index: Index, row: int, labels: np.ndarray) -> np.ndarray:
    """Return what a row shows of its case's label map: the film's, or the slice of the volume's."""
    sample = index.table.iloc[row]
    if not len(sample["affine"]):
        return labels
    slices: np.ndarray = Slicing.of(np.reshape(sample["affine"], (4, 4)), index.facts["slices"]).cut(labels)
    slice_of_row: np.ndarray = slices[int(sample["slice"])]
    return slice_of_row
