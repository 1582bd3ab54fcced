"""Ours beside every number that was published: equivalent within a margin, different, or why that cannot be told.

Equivalence is tested by two one-sided tests at 5 % (TOST, Schuirmann 1987, J Pharmacokinet Biopharm 15:657): the 90 %
interval of the difference lies inside the margin of the metric.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import NormalDist

import pandas as pd
from scipy.stats import t as student

from radprobe import catalog
from radprobe.catalog import PAPER, PRIMARY_METRIC
from radprobe.catalog.paper import PublishedScore, deviations, margins, published
from radprobe.files import RadprobeError
from radprobe.manifests import Manifest
from radprobe.metrics.classification import MACRO
from radprobe.names import FROM_SCRATCH
from radprobe.params import Linear, LinearDecoder, Scratch
from radprobe.report import tables, trust
from radprobe.report.again import CellRecipe
from radprobe.report.collect import Findings
from radprobe.report.ranking import FEW_SHOT, Estimate, estimate

EQUIVALENT = "equivalent"
DIFFERS = "differs"
CANNOT_TELL = "cannot tell"
OTHER_SETTING = "not the published setting"
NOT_COMPARABLE = "not comparable"
NOT_RUN = "not run"
VERDICTS = (EQUIVALENT, DIFFERS, CANNOT_TELL, OTHER_SETTING, NOT_COMPARABLE, NOT_RUN)
Z_95 = NormalDist().inv_cdf(0.975)
TO_90 = NormalDist().inv_cdf(0.95) / Z_95  # half a 90 % interval, of half a 95 % one
PHANTOM = "the images here are generated (phantoms)"
# Where params hold the options of a protocol, and whose defaults are the study's as far as its code tells them: the
# same learning rates for both of its decoders.
OPTIONS = {
    "linear@paper": ("probe", "linear", Linear),
    "unet-decoder@paper": ("segment", "unet", LinearDecoder),
    FROM_SCRATCH: ("segment", "scratch", Scratch),
}

ALWAYS_THE_STUDYS = {"linear@paper": ("learning_rates", "blocks", "patch_mean")}  # whatever params say of ours


@dataclass(frozen=True)
class Ours:
    """The score of ours that comes nearest to a published one."""

    backbone: str
    protocol: str
    metrics: list[str]
    score: Estimate
    key: str  # of the predictions


@dataclass(frozen=True)
class LedgerLine:
    """A published number with ours, the verdict, its reasons, and what ours was made from.

    difference: ours minus the published value with its 95 % interval; None if the two are not of the same quantity.
    """

    published: PublishedScore
    verdict: str
    why: list[str]
    ours: Ours | None = None
    difference: Estimate | None = None
    anchor: str = ""  # of the cell in "Make it again"
    depends: list[tuple[str, str]] = field(default_factory=list)

    @property
    def told(self) -> str:
        """The verdict in words, with the margin it rests on."""
        if self.verdict == EQUIVALENT:
            return f"equivalent within {margin(self.published):g}"
        if self.verdict == CANNOT_TELL and self.difference and not math.isnan(self.difference.low):
            return f"cannot tell: the interval is wider than the margin ({margin(self.published):g})"
        return self.verdict

    @property
    def doubtful(self) -> bool:
        """Is the published number second-hand?"""
        return self.published.trust == "low"


@dataclass(frozen=True)
class Group:
    """The published numbers of one dataset."""

    title: str
    lines: list[LedgerLine]

    @property
    def counts(self) -> dict[str, int]:
        """How many numbers have each verdict that any has."""
        found = Counter(line.verdict for line in self.lines)
        return {verdict: found[verdict] for verdict in VERDICTS if found[verdict]}

    @property
    def any_of_ours(self) -> bool:
        """Does any have one of ours beside it?"""
        return any(line.ours for line in self.lines)


def groups(found: list[LedgerLine]) -> list[Group]:
    """Return the lines by dataset, those that are compared first."""
    names = dict.fromkeys(line.published.dataset for line in found)
    ordered = sorted(found, key=lambda line: VERDICTS.index(line.verdict))
    of_dataset = {name: [line for line in ordered if line.published.dataset == name] for name in names}
    return [Group(catalog.datasets()[name].title, each) for name, each in of_dataset.items()]


def lines(findings: Findings, cells: list[CellRecipe]) -> list[LedgerLine]:
    """Return a line for each published number; `cells` are those of `again`, which say how each is made again."""
    by_anchor = {cell.anchor: cell for cell in cells}
    return [_line(findings, one, by_anchor) for one in published()]


def _line(findings: Findings, one: PublishedScore, cells: dict[str, CellRecipe]) -> LedgerLine:
    here = one.dataset in findings.datasets
    if unknown := list(_unknown(one)):
        phantom = [PHANTOM] if here and trust.is_phantom(findings, one.dataset) else []
        return LedgerLine(one, NOT_COMPARABLE, [*unknown, *phantom, *(_of_data(findings, one) if here else [])])
    ours = _ours(findings, one) if here else None
    if ours is None:
        return LedgerLine(one, NOT_RUN, [_absence(findings, one)])
    anchor = tables.anchor(one.dataset, ours.backbone)
    depends = _depends(findings, one.dataset, ours, cells[anchor])
    deviating = [*_of_data(findings, one), *_of_model(findings, one, ours)]
    if other := list(_other_quantity(findings, one, ours)):
        return LedgerLine(one, NOT_COMPARABLE, other + deviating, ours, None, anchor, depends)
    same = _same_test(findings, one)
    apart = difference(ours.score, one.value, same)
    notes = list(_notes(one, ours, same))
    if deviating:
        return LedgerLine(one, OTHER_SETTING, deviating + notes, ours, apart, anchor, depends)
    return LedgerLine(one, judged(apart, margin(one), one.value), notes, ours, apart, anchor, depends)


# --- the verdict ------------------------------------------------------------------------------------------------------


def margin(one: PublishedScore) -> float:
    """Return the margin of equivalence of a published number; of a mean of metrics the mean of theirs."""
    found = [margins()[metric].value for metric in one.metrics]
    return sum(found) / len(found)


def difference(ours: Estimate, published: float, same_test: bool) -> Estimate:
    """Return ours minus a published value, which has no interval of its own, with a 95 % interval.

    On the same test patients the published value is taken as it is, and the interval is that of ours. Otherwise it is
    given the interval of a test set like ours, in proportion to the root of value (1 - value), and the two are joined
    by the square root of the sum of squares of the distances of their ends (MOVER, Zou and Donner 2008, Statistics in
    Medicine 27:1693), which needs no symmetry. The variance of both is known from one test set only, so the joint
    interval is a t interval. It has half as many degrees of freedom as patients: with the kurtosis of DSC, or with the
    rarer label in AUROC, a variance is known no better.
    """
    below, above = ours.value - ours.low, ours.high - ours.value
    if not same_test:
        wider = float(student.ppf(0.975, max(ours.patients / 2 - 1, 1))) / Z_95
        theirs = _spread_at(published, ours.value)
        below, above = wider * math.hypot(below, theirs * above), wider * math.hypot(above, theirs * below)
    apart = ours.value - published
    return Estimate(apart, apart - below, apart + above, ours.patients, ours.note)


def _spread_at(value: float, ours: float) -> float:
    """Return the standard error of a score at some value, over that at ours; 1 if either is not between 0 and 1."""
    if not (0 < value < 1 and 0 < ours < 1):
        return 1.0
    return math.sqrt(value * (1 - value) / (ours * (1 - ours)))


def judged(apart: Estimate, within: float, published: float) -> str:
    """Return EQUIVALENT, DIFFERS (the 95 % interval leaves out 0, and not equivalent) or CANNOT_TELL.

    Each one-sided test takes the standard error that a score has at the margin it tests, if that is larger than the one
    at ours: a score that is high by luck has too small an error.
    """
    ours = published + apart.value
    low = apart.value - TO_90 * (apart.value - apart.low) * max(1, _spread_at(published - within, ours))
    high = apart.value + TO_90 * (apart.high - apart.value) * max(1, _spread_at(published + within, ours))
    if -within < low and high < within:
        return EQUIVALENT
    return DIFFERS if apart.sign in (1, -1) else CANNOT_TELL


def _same_test(findings: Findings, one: PublishedScore) -> bool:
    """Was ours scored on the very test patients of the published number?"""
    params, name = findings.study.params, one.dataset
    is_whole = not findings.facts("prepare", name).get("partial") and not params.limit
    is_study = params.datasets[name].split == "study"
    return is_whole and is_study and catalog.names_test_patients(catalog.datasets()[name].splits["study"])


# --- which of ours comes nearest --------------------------------------------------------------------------------------


def _as_published(backbone: str) -> str:
    """Return the id of a backbone with its features as the study made them."""
    paper = catalog.backbones()[backbone].paper
    return backbone + PAPER if paper and paper.model_dump(exclude_none=True) else backbone


def _protocol(one: PublishedScore) -> str:
    """Return a protocol as it stands in scores: of few shots, with their number; "" where it is not stated."""
    known = one.protocol or ""
    return known.replace(FEW_SHOT, f"{FEW_SHOT} {one.shots}") if one.shots else known


def _candidates(one: PublishedScore) -> list[str]:
    """Return the ids of our backbones that a published score may be of, the likelier first; none if not stated."""
    return [_as_published(one.backbone), one.backbone] if one.backbone else []


def _ours(findings: Findings, one: PublishedScore) -> Ours | None:
    table, protocol = findings.scores, _protocol(one)
    rows = table[(table["dataset"] == one.dataset) & (table["protocol"] == protocol)]
    rows = rows[(rows["part"] == "test") & (rows["class"] == MACRO)]
    for backbone in _candidates(one):
        for metrics in (one.metrics, [PRIMARY_METRIC[findings.datasets[one.dataset].task]]):
            found = rows[(rows["backbone"] == backbone) & rows["metric"].isin(metrics)]
            if len(found) == len(metrics):
                return Ours(backbone, protocol, metrics, _mean(found), found["key"].iloc[0])
    return None


def _mean(rows: pd.DataFrame) -> Estimate:
    """Return the mean of scores of the same test patients.

    Of two 95 % intervals both hold at once in at least 90 % of samples, whatever joins them (Boole's inequality); then
    the mean lies between the means of their ends.
    """
    if len(rows) == 1:
        return estimate(rows.iloc[0].to_dict(), "value")
    value, low, high = (float(rows[name].mean(skipna=False)) for name in ("value", "low", "high"))
    note = f"mean of {' and '.join(rows['metric'])}; its interval holds in at least 90 %, not 95 %"
    return Estimate(value, low, high, int(rows["n_patients"].min()), note)


# --- why two numbers are not to be compared, or are of different settings --------------------------------------------


def _unknown(one: PublishedScore) -> Iterator[str]:
    if one.backbone is None:
        yield f"the size of the backbone is not stated ({one.stated_backbone})"
    if one.protocol is None:
        yield f"no protocol of ours is known to be that one ({one.stated_protocol})"


def _of_data(findings: Findings, one: PublishedScore) -> Iterator[str]:
    """Yield how the data of a dataset that is here deviate from the study's."""
    name, entry, known = one.dataset, findings.datasets[one.dataset], catalog.datasets()[one.dataset]
    prepared, split = findings.facts("prepare", name), findings.facts("split", name)
    if prepared.get("partial"):
        yield f"the copy here is partial: {prepared.get('n_absent', 'some')} images are absent"
    if limit := findings.study.params.limit:
        yield f"a pilot, on at most {limit} patients"
    if (used := findings.study.params.datasets[name].split_name) != "study":
        yield f"another split ({used})"
    theirs = known.class_sets.get("paper", known.classes)
    if (ours := split.get("classes", entry.classes)) != theirs:
        at = "in the study's code at its last commit"
        yield f"another macro score: over {len(ours)} classes, {at} over {len(theirs)}"
    if entry.size != known.size:
        yield f"images of {entry.size} px instead of {known.size}"
    if entry.intensity != known.intensity:
        yield "another range of grey values"


def _other_quantity(findings: Findings, one: PublishedScore, ours: Ours) -> Iterator[str]:
    """Yield why a difference of the two would mean nothing."""
    if trust.is_phantom(findings, one.dataset):
        yield PHANTOM
    if ours.metrics != one.metrics:
        yield f"another metric: {' and '.join(ours.metrics)} instead of {one.stated_metric}"
    if not ours.score.defined:
        yield f"our score is undefined: {ours.score.note}"


def _of_model(findings: Findings, one: PublishedScore, ours: Ours) -> Iterator[str]:
    if derived := findings.study.backbone(ours.backbone).derived:
        yield f"derived weights: {derived}"
    if ours.backbone not in (published_as := _candidates(one)[:1]):
        yield f"features made otherwise than the study's (D16): {published_as[0]} would be as there"
    for deviation in deviations():
        if unmatched := deviation.unmatched.get(one.protocol or ""):
            yield f"{unmatched} ({deviation.id})"
    if one.protocol != FROM_SCRATCH and not findings.study.params.embed.views:
        yield "the study's heads saw augmented images, ours did not (embed.views)"
    if changed := _changed_options(findings, one.protocol or ""):
        yield f"another protocol: {' and '.join(changed)} of params are not the study's"


def _changed_options(findings: Findings, protocol: str) -> list[str]:
    """Return the options of a protocol that are not the study's (or, where that is unsaid, our defaults)."""
    if protocol not in OPTIONS:
        return []
    section, name, theirs = OPTIONS[protocol]
    used = getattr(getattr(findings.study.params, section), name)
    ours = [(key, value) for key, value in theirs() if key not in ALWAYS_THE_STUDYS.get(protocol, ())]
    return [key.replace("_", " ") for key, value in ours if value != getattr(used, key)]


def _notes(one: PublishedScore, ours: Ours, same_test: bool) -> Iterator[str]:
    """Yield what a reader of a comparison should know."""
    if math.isnan(ours.score.low):
        note = ours.score.note.rpartition("no interval: ")[2].removesuffix(": no interval")
        yield f"ours has no interval: {note}"
    elif ours.score.note:
        yield ours.score.note
    if not same_test:
        listed = catalog.names_test_patients(catalog.datasets()[one.dataset].splits["study"])
        who = "other test patients" if listed else "who was in the study's test set is not known, only how many (D12)"
        yield f"{who}: the interval allows for two test sets"


def _absence(findings: Findings, one: PublishedScore) -> str:
    """Say why nothing of ours is there."""
    study = findings.study
    wanted = [name for name in _candidates(one) if name in study.backbones]
    if one.dataset not in study.params.datasets:
        return "the dataset is not in this study"
    if not wanted:
        return f"{_candidates(one)[0]} is not in this study"
    for missing in study.missing:
        if missing.name in (one.dataset, wanted[0]):
            return f"{missing.kind} {missing.name}: {missing.why}"
    cell = next((each for each in findings.cells if (each.dataset, each.backbone) == (one.dataset, wanted[0])), None)
    if cell and cell.state != "done":
        return f"{cell.state}: {cell.step.verb} of {cell.step.backbone or cell.step.dataset}"
    return f"{_protocol(one)} is not in this study"


# --- what ours rests on -----------------------------------------------------------------------------------------------


def _depends(findings: Findings, dataset: str, ours: Ours, cell: CellRecipe) -> list[tuple[str, str]]:
    """Return what a score of ours was made from and with, and the one command that makes it again."""
    weights = dict(cell.weights)
    found = {
        "score": f"{' and '.join(ours.metrics)}, macro, test, {ours.score.patients} patients, {ours.protocol}",
        "key of the predictions": ours.key,
        "split": f"{findings.study.params.datasets[dataset].split_name}, sha256 {_split_hash(findings, dataset)}",
        "weights, sha256": weights.get("sha256", "none: nothing was pretrained"),
        "computed on": findings.device(dataset, ours.backbone),
        "command": cell.command,
    }
    return list(found.items())


def _split_hash(findings: Findings, dataset: str) -> str:
    try:
        listed = Manifest.read(findings.study.step("split", dataset).outputs[0]).files
    except RadprobeError:
        return "not known"
    return next((each["sha256"] for name, each in listed.items() if name == "split.csv"), "not known")
