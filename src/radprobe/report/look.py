"""Which samples to look at, and the pictures of them: the best, median and worst cases, through several backbones."""

from dataclasses import dataclass, field

import numpy as np

from radprobe.artifacts import Embeddings, Index, Pixels, Predictions, Truth
from radprobe.files import RadprobeError
from radprobe.imaging.volumes import Slicing
from radprobe.report import pictures, words
from radprobe.report.collect import Findings
from radprobe.report.ranking import Column, twin

BACKBONES = 5  # side by side, at most
PAIRS = 12  # near-duplicates that are shown


@dataclass
class Gallery:
    """Pictures of a dataset: for every sample a row, for every backbone a column. `why` says what is not shown."""

    dataset: str
    title: str
    samples: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    overlays: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # backbone -> (picture, caption)
    features: dict[str, list[str]] = field(default_factory=dict)
    why: list[str] = field(default_factory=list)


def gallery(findings: Findings, dataset: str, column: Column | None) -> Gallery:
    """Return the pictures of a dataset; empty, with the reason, where they may not or cannot be shown."""
    found = Gallery(dataset, findings.datasets[dataset].title)
    if reason := hidden(findings, dataset):
        found.why.append(f"No pictures: {reason}. report.images: thumbnails shows them.")
        return found
    try:
        _fill(found, findings, column, findings.study.params.report.examples)
    except (RadprobeError, FileNotFoundError) as error:
        found.why.append(f"Not shown: {error}")
    return found


def hidden(findings: Findings, dataset: str) -> str:
    """Return why pictures of a dataset are not shown, "" where they are."""
    entry, images = findings.datasets[dataset], findings.study.params.report.images
    if images == "none":
        return "report.images is none"
    return "access to this dataset is gated" if images == "auto" and entry.gated else ""


def near_duplicates(findings: Findings, dataset: str) -> list[dict]:
    """Return the pairs of cases in different parts that look like copies: a caption, and two pictures where allowed."""
    pairs = findings.facts("split", dataset, kind="leaks").get("near", [])
    found = [{"caption": _pair(near), "pictures": []} for near in pairs[:PAIRS]]
    if not found or hidden(findings, dataset):
        return found
    try:
        folder = findings.study.steps["prepare", dataset, None].folder
        index, pixels = Index.load(folder), Pixels.load(folder)
    except (RadprobeError, FileNotFoundError):
        return found
    row_of = {name: row for row, name in enumerate(index.table["sample_id"])}
    for near, each in zip(pairs, found, strict=False):
        for row in (row_of[name] for name in near["samples"]):
            picture = pictures.grey(pixels.images[row], pictures.size_of(tuple(pixels.shapes[row])))
            each["pictures"].append(pictures.uri(picture))
    return found


def _pair(near: dict) -> str:
    cases = " and ".join(f"{case} ({part})" for case, part in zip(near["cases"], near["parts"], strict=True))
    return f"{cases}: correlation {near['correlation']:.3f}, {near['change']}"


def _fill(found: Gallery, findings: Findings, column: Column | None, examples: int) -> None:
    folder = findings.study.steps["prepare", found.dataset, None].folder
    index, pixels = Index.load(folder), Pixels.load(folder)
    rows, found.samples = _choose(findings, index, pixels, column, examples)
    sizes = [pictures.size_of(tuple(pixels.shapes[row])) for row in rows]
    found.images = [
        pictures.uri(pictures.grey(pixels.images[row], size)) for row, size in zip(rows, sizes, strict=True)
    ]
    if column:
        truth = Truth.load(folder)
        for backbone in _backbones(findings, found.dataset, column):
            found.overlays[backbone] = _overlays(findings, column, backbone, truth, index, pixels, rows, sizes)
    for backbone in _backbones(findings, found.dataset, column):
        step = findings.study.steps.get(("embed", found.dataset, backbone))
        if step is None:
            continue  # a network from scratch has no features of its own
        if not step.outputs[0].is_file():
            found.why.append(f"{findings.title(backbone)} has no features yet.")
        elif not (dense := Embeddings.load(step.folder).dense):
            found.why.append(f"{findings.title(backbone)} keeps no feature maps.")
        else:
            dense = dense[max(dense)][rows]  # of the deepest layer
            found.features[backbone] = [pictures.uri(each) for each in pictures.components(dense, sizes)]


def _choose(
    findings: Findings, index: Index, pixels: Pixels, column: Column | None, examples: int
) -> tuple[np.ndarray, list[str]]:
    """Return rows of the Index and their names: best to worst case of the best backbone, or evenly spaced."""
    if column is None:
        rows = np.unique(np.linspace(0, len(index.table) - 1, examples + 2).round().astype(int)[1:-1])
        return rows, index.table["sample_id"].iloc[rows].tolist()
    cases = findings.cases(column.dataset, column.best)
    protocol = column.protocol_of(column.best)
    chosen = (cases["protocol"] == protocol) & (cases["part"] == "test") & (cases["class"] == "macro")
    cases = cases[chosen & (cases["metric"] == column.metric)].dropna(subset="value")
    cases = cases.sort_values(["value", "case_id"], ascending=[False, True])
    places = np.unique(np.linspace(0, len(cases) - 1, examples).round().astype(int))
    names = (
        ["best", "median", "worst"] if len(places) == 3 else [f"rank {place + 1} of {len(cases)}" for place in places]
    )
    ids = cases["case_id"].iloc[places].tolist()
    rows = np.array([_fullest(np.flatnonzero(index.table["volume_id"] == case), pixels.masks) for case in ids])
    return rows, [f"{name}: {case}" for name, case in zip(names, ids, strict=True)]


def _fullest(rows: np.ndarray, masks: np.ndarray) -> int:
    """Return the row with the largest structures: of a volume the slice that shows most."""
    return int(rows[np.argmax([np.count_nonzero(masks[row]) for row in rows])]) if len(rows) > 1 else int(rows[0])


def _backbones(findings: Findings, dataset: str, column: Column | None) -> list[str]:
    if column is None:
        study = findings.study
        return [name for name in study.backbones_here if study.applies(dataset, name)][:BACKBONES]
    rivals = [name for name in column.order if name not in column.controls]
    twins = [name for name in (twin(column.best),) if name in column.order]
    return list(dict.fromkeys([column.best, *twins, *rivals, *column.order]))[:BACKBONES]


def _overlays(findings, column, backbone, truth, index, pixels, rows, sizes) -> list[tuple[str, str]]:
    verb = findings.study.steps["segment", column.dataset, backbone]
    protocol = column.protocol_of(backbone)
    maps, cases = Predictions.load(verb.folder).maps[protocol], findings.cases(column.dataset, backbone)
    chosen = (cases["protocol"] == protocol) & (cases["metric"] == column.metric) & (cases["class"] == "macro")
    values = cases[chosen].set_index("case_id")["value"]
    found = []
    for row, size in zip(rows, sizes, strict=True):
        case = index.table["volume_id"].iloc[row]
        shown = (_shown(index, row, labels[case]) for labels in (truth.maps, maps))
        picture = pictures.overlay(pixels.images[row], *shown, size)
        found.append((pictures.uri(picture), f"{words.METRICS[column.metric]} {words.number(values[case])}"))
    return found


def _shown(index: Index, row: int, labels: np.ndarray) -> np.ndarray:
    """Return what a row shows of its case's label map: the film's, or the slice of the volume's."""
    sample = index.table.iloc[row]
    if not len(sample["affine"]):
        return labels
    return Slicing.of(np.reshape(sample["affine"], (4, 4)), index.facts["slices"]).cut(labels)[sample["slice"]]
