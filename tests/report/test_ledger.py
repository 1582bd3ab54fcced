import dataclasses
import functools
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import synthetic_study
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats import t as student
from small_params import NO_CONTROLS

from radprobe import catalog, phantoms
from radprobe.artifacts import Index, RawManifest, Scores, Split
from radprobe.catalog.paper import margins, published
from radprobe.metrics import classification, resampling
from radprobe.metrics.options import Bootstrap
from radprobe.metrics.resampling import resampled
from radprobe.report import again, ledger
from radprobe.report.collect import Findings
from radprobe.report.ranking import Estimate
from radprobe.study import Study

ROOT = Path(__file__).parents[2]
NIH, MONTGOMERY = "nih_chestxray14", "montgomery"
LARGE, VGG, VIT = "vit_large_patch14_dinov2", "vgg19", "vit_large_patch16_in21k_in1k"
DENSE = "densenet201"
VIEWS = "the study's heads saw augmented images, ours did not (embed.views)"
FLIPS = "ours also saw images that are flipped sideways (D10)"
D12 = "who was in the study's test set is not known, only how many (D12): the interval allows for two test sets"
PAPER_CLASSES = catalog.datasets()[NIH].class_sets["paper"]
REAL = {NIH: {"classes": "paper", "allow_missing": True}}
PHANTOM = {NIH: {"phantom": {"patients": 200}}}


def built(root, datasets=REAL, backbones=(LARGE,), **changes):
    """A finished study of backbones that were published, on whole real data unless `datasets` says otherwise.

    It has few-shot draws only where `changes` ask for them.
    """
    for name in backbones:
        for file in catalog.backbones()[name.removesuffix("@paper")].local[:1]:
            path = root / "data/weights" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
    for name in (NIH, MONTGOMERY):
        if "phantom" not in datasets.get(name, PHANTOM[NIH]):
            phantoms.generate(root / "data/raw" / name, catalog.datasets()[name], 3, seed=0)
    changes["probe"] = {"few_shot": None, **changes.get("probe", {})}
    made = synthetic_study.build(root, datasets=datasets, backbones=list(backbones), controls=NO_CONTROLS, **changes)
    for name in datasets:
        step = made.step("retrieve", name)
        raw = RawManifest.load(step.folder)
        raw.source = "user"
        raw.save(step.place)
        step = made.step("prepare", name)
        index = Index.load(step.folder)
        index.facts.pop("partial", None)
        index.save(step.place)
    if NIH in datasets:
        classes(made, PAPER_CLASSES)
    return made


def classes(made, names):
    step = made.step("split", NIH)
    split = Split.load(step.folder)
    split.classes = list(names)
    split.save(step.place)


def score(made, dataset, backbone, protocol, value, low=math.nan, high=math.nan, metric="auroc_study", note=""):
    """Set the score of a cell on test."""
    step = made.step("score", dataset, backbone)
    found = Scores.load(step.folder)
    table = found.table
    rows = (table["part"] == "test") & (table["class"] == "macro") & (table["metric"] == metric)
    rows &= table["protocol"].isin([protocol, "linear-decoder"])  # as which networks from scratch were made
    assert rows.sum() == 1
    table.loc[rows, ["value", "low", "high"]] = value, low, high
    table.loc[rows, ["protocol", "note"]] = protocol, note
    found.save(step.place)


def line(made, backbone=LARGE, dataset=NIH, shots=None):
    findings = Findings(made)
    found = ledger.lines(findings, again.cells(findings))
    (one,) = (
        each
        for each in found
        if (each.published.dataset, each.published.backbone, each.published.shots) == (dataset, backbone, shots)
        if each.published.trust == "figure"
    )
    return one


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study whose numbers can be compared with published ones: heads see augmented images."""
    root = tmp_path_factory.mktemp("whole")
    names = (LARGE, VGG, VIT, DENSE, "unet", "mae_large")
    made = built(root, {**REAL, MONTGOMERY: {"allow_missing": True}}, names, embed={"views": 2}, probe={"few_shot": {}})
    score(made, NIH, LARGE, "linear@paper", 0.765, 0.755, 0.775)  # published: 0.763
    score(made, NIH, VGG, "linear@paper", 0.75, 0.74, 0.76)  # published: 0.696
    score(made, NIH, DENSE, "linear@paper", 0.735, 0.70, 0.77)  # published: 0.735
    score(made, MONTGOMERY, "unet", "from-scratch", 0.97, 0.96, 0.98, "dsc_pooled")  # published, of both: 0.973
    score(made, MONTGOMERY, "unet", "from-scratch", 0.98, 0.97, 0.99, "jaccard_study")
    return made


def test_every_published_number_has_one_line_and_one_verdict(whole):
    findings = Findings(whole)
    found = ledger.lines(findings, again.cells(findings))
    assert [each.published for each in found] == published()
    for each in found:
        assert each.verdict in ledger.VERDICTS
        assert each.why or each.verdict in (ledger.EQUIVALENT, ledger.DIFFERS, ledger.CANNOT_TELL)
        assert (each.difference is None) == (each.verdict in (ledger.NOT_COMPARABLE, ledger.NOT_RUN))
    groups = ledger.groups(found)
    assert sum(len(group.lines) for group in groups) == len(found)
    assert sum(n for group in groups for n in group.counts.values()) == len(found)


def test_verdicts_go_by_the_margin_and_the_interval_of_the_difference(whole):
    near, far, wide = line(whole), line(whole, VGG), line(whole, DENSE)
    assert (near.told, near.why) == ("equivalent within 0.02", [])
    assert near.difference.value == pytest.approx(0.765 - 0.763)
    assert (near.difference.low, near.difference.high) == pytest.approx((0.755 - 0.763, 0.775 - 0.763))  # same patients
    assert (far.told, far.why) == ("differs", [])
    assert far.difference.value == pytest.approx(0.75 - 0.696)
    assert wide.told == "cannot tell: the interval is wider than the margin (0.02)"


def test_another_setting_is_listed_and_its_difference_shown_but_not_judged(whole):
    both = line(whole, "unet", MONTGOMERY)
    assert both.told == both.verdict == "not the published setting"
    assert both.ours.score.value == pytest.approx(0.975)
    assert (both.ours.score.low, both.ours.score.high) == pytest.approx((0.965, 0.985))
    mean = "mean of dsc_pooled and jaccard_study; its interval holds in at least 90 %, not 95 %"
    assert both.why == [FLIPS, mean, D12]
    theirs = 0.01 * math.sqrt(0.973 * 0.027 / (0.975 * 0.025))  # in proportion to the root of value (1 - value)
    half = math.hypot(0.01, theirs) * student.ppf(0.975, 24 / 2 - 1) / norm.ppf(0.975)  # of 24 patients each
    expected = (0.002, 0.002 - half, 0.002 + half)
    assert (both.difference.value, both.difference.low, both.difference.high) == pytest.approx(expected)
    assert ledger.margin(both.published) == pytest.approx((0.02 + 0.03) / 2)


# --- the rates of false verdicts --------------------------------------------------------------------------------------


def estimated(statistic, patients, resamples):
    """A statistic of simulated patients with its bootstrap interval."""
    found = resampled(statistic, patients, Bootstrap(resamples, seed=0, min_patients=10))
    low, high, _ = found.interval()
    return Estimate(float(found.point), low, high, patients)


def auroc_of(generator, patients, true, resamples=1000):
    """The AUROC of a test set of two normal distributions."""
    targets = (generator.random(patients) < 0.4).astype(float)
    scores = generator.normal(size=patients) + math.sqrt(2) * norm.ppf(true) * targets
    ranking = classification.ClassRanking(scores, targets, np.arange(patients), patients)
    return estimated(lambda weights: ranking.areas(weights)[0], patients, resamples)


def dsc_of(generator, patients, true, resamples=1000):
    """The mean of skewed scores of cases, Beta(9, 9 / true - 9)."""
    values = generator.beta(9, 9 / true - 9, patients)
    return estimated(lambda weights: values @ weights / patients, patients, resamples)


@pytest.fixture
def one_set_of_weights(monkeypatch):
    """Draw the resamples once for all simulated test sets: they are the same, as they have the same seed."""
    monkeypatch.setattr(resampling, "counts", functools.cache(resampling.counts))


def rate(verdict, of, patients, ours, theirs, margin=0.02, same_test=False, trials=2000):
    """How often simulated pairs of test sets whose true scores are `ours` and `theirs` get a verdict."""
    generator = np.random.default_rng(patients)
    found = 0
    for _ in range(trials):
        score = of(generator, patients, ours)
        published = theirs if same_test else of(generator, patients, theirs, resamples=1).value
        found += ledger.judged(ledger.difference(score, published, same_test), margin, published) == verdict
    return found / trials


SIMULATED = [pytest.param(auroc_of, 0.8, 150, marks=pytest.mark.slow), (dsc_of, 0.9, 46), (dsc_of, 0.9, 200)]


@pytest.mark.usefixtures("one_set_of_weights")
@pytest.mark.parametrize(("of", "true", "patients"), SIMULATED)
def test_two_test_sets_of_one_recipe_seldom_differ(of, true, patients):
    assert rate(ledger.DIFFERS, of, patients, true, true) <= 0.06


LARGE_SETS = [pytest.param(auroc_of, 0.8, 700, 0.04, True, marks=pytest.mark.slow)]
LARGE_SETS += [(dsc_of, 0.9, 300, 0.02, same) for same in (True, False)]


@pytest.mark.usefixtures("one_set_of_weights")
@pytest.mark.parametrize(("of", "true", "patients", "margin", "same_test"), LARGE_SETS)
def test_scores_that_are_a_margin_apart_are_seldom_equivalent(of, true, patients, margin, same_test):
    """So many patients, or so large a margin, that equivalence can be found at all."""
    how = {"margin": margin, "same_test": same_test, "trials": 2000 if of is dsc_of else 1000}
    for theirs in (true - margin, true + margin):
        assert rate(ledger.EQUIVALENT, of, patients, true, theirs, **how) <= 0.06
    assert rate(ledger.EQUIVALENT, of, patients, true, true, **{**how, "trials": 200}) > 0.3


def test_with_few_patients_nothing_is_called_equivalent():
    assert rate(ledger.EQUIVALENT, dsc_of, 20, 0.8, 0.8, trials=50) == 0


@given(st.floats(-0.1, 0.1), st.floats(0.001, 0.05), st.floats(0.005, 0.05))
def test_equivalence_is_that_of_two_one_sided_tests(apart, error, margin):
    """The same as two one-sided z tests at 5 %."""
    p = max(norm.sf((apart + margin) / error), norm.cdf((apart - margin) / error))
    half = norm.ppf(0.975) * error
    found = ledger.judged(
        Estimate(apart, apart - half, apart + half), margin, 2.0
    )  # of no share: its error is constant
    if abs(p - 0.05) > 1e-9:
        assert (found == ledger.EQUIVALENT) == (p < 0.05)
    if found == ledger.CANNOT_TELL:
        assert 2 * half > margin  # as the page says


@given(st.floats(0.5, 0.99), st.floats(0.001, 0.2), st.floats(0.001, 0.2), st.floats(0.5, 1))
def test_the_interval_of_a_difference_is_no_narrower_than_ours_and_keeps_its_sides(value, below, above, published):
    ours = Estimate(value, value - below, value + above, 10_000)
    same, other = (ledger.difference(ours, published, each) for each in (True, False))
    assert same.value == other.value == value - published
    assert (same.value - same.low, same.high - same.value) == pytest.approx((below, above))
    assert other.low <= same.low
    assert other.high >= same.high
    alike = ledger.difference(ours, value, False)
    assert alike.high - alike.value == pytest.approx(math.hypot(below, above), rel=1e-3)
    few = ledger.difference(dataclasses.replace(ours, patients=40), published, False)
    assert few.high > other.high


def test_every_published_metric_has_a_margin_with_its_reason():
    assert {metric for one in published() for metric in one.metrics} <= set(margins())
    assert all(each.why for each in margins().values())


# --- what ours rests on, and what keeps it from being compared --------------------------------------------------------


def test_ours_says_what_it_rests_on(whole):
    rests, one = dict(line(whole).depends), line(whole)
    step = whole.step("probe", NIH, LARGE)
    assert rests["key of the predictions"] == step.key
    assert rests["command"] == f"radprobe --force probe {NIH} {LARGE} --params params.yaml"
    weights = Findings(whole).facts("weights", None, LARGE)["sha256"]
    assert rests["weights, sha256"] == weights
    assert rests["split"].startswith("study, sha256 ")
    assert len(rests["split"].split()[-1]) == 64
    assert one.anchor == f"cell-{NIH}-{LARGE}"


def test_features_made_otherwise_and_few_shots_are_other_settings(whole):
    vit, few = line(whole, VIT), line(whole, shots=4)
    assert vit.verdict == few.verdict == "not the published setting"
    assert "features made otherwise" in vit.why[0]
    assert few.ours.protocol == "few-shot 4@paper"
    assert few.why == [
        "ours is a logistic regression of fixed C, which never sees val (D03)",
        "ours has no interval: one draw",
    ]
    assert few.ours.metrics == ["auroc_study"]
    assert math.isnan(few.difference.low)


def test_a_number_of_an_unknown_size_or_protocol_is_never_compared(whole):
    findings = Findings(whole)
    found = ledger.lines(findings, again.cells(findings))
    mae = next(each for each in found if each.published.stated_backbone == "MAE")
    assert (mae.verdict, mae.ours, mae.doubtful) == ("not comparable", None, True)
    assert mae.why == ["the size of the backbone is not stated (MAE)"]
    frozen = line(whole, LARGE, MONTGOMERY)
    assert frozen.verdict == "not comparable"
    assert "decoder not stated" in frozen.why[0]


@pytest.mark.parametrize(
    ("datasets", "changes", "why"),
    [
        (PHANTOM, {}, "the images here are generated (phantoms)"),
        (REAL, {"limit": 50}, "a pilot, on at most 50 patients"),
        ({NIH: {**REAL[NIH], "split": "nih_real_subset"}}, {}, "another split (nih_real_subset)"),
        ({NIH: {**REAL[NIH], "size": 448}}, {}, "images of 448 px instead of 224"),
        (
            {NIH: {**REAL[NIH], "intensity": {"kind": "window", "low": 0, "high": 99}}},
            {},
            "another range of grey values",
        ),
        (REAL, {"probe": {"linear": {"epochs": 8}}}, "another protocol: epochs of params are not the study's"),
        (REAL, {"embed": {"views": 0}}, VIEWS),
    ],
)
def test_other_data_and_options_are_never_equivalent_and_named(tmp_path, datasets, changes, why):
    made = built(tmp_path, datasets, **{"embed": {"views": 2}, **changes})
    score(made, NIH, LARGE, "linear@paper", 0.763, 0.762, 0.764)  # just what was published
    found = line(made)
    other_patients = "other test patients: the interval allows for two test sets"
    is_phantom = datasets is PHANTOM
    assert found.verdict == ("not comparable" if is_phantom else "not the published setting")
    assert [each for each in found.why if each != other_patients] == [why]
    assert (other_patients in found.why) == ("pilot" in why or "split" in why)
    if is_phantom:
        assert found.difference is None
    else:
        assert found.difference.value == pytest.approx(0)


def test_everything_else_that_is_not_the_studys_is_named_in_turn(tmp_path):
    made = built(tmp_path)
    step = made.step("prepare", NIH)
    index = Index.load(step.folder)
    index.facts |= {"partial": True, "n_absent": 7}
    index.save(step.place)
    classes(made, PAPER_CLASSES[:-1])
    score(made, NIH, LARGE, "linear@paper", 0.763, note="no interval: fewer than 10 patients")
    found = line(made)
    assert found.verdict == "not the published setting"
    assert found.why == [
        "the copy here is partial: 7 images are absent",
        "another macro score: over 14 classes, in the study's code at its last commit over 15",
        VIEWS,
        "ours has no interval: fewer than 10 patients",
        "other test patients: the interval allows for two test sets",
    ]
    assert math.isnan(found.difference.low)


def test_without_an_interval_of_ours_nothing_can_be_told(tmp_path):
    made = built(tmp_path, embed={"views": 2})
    score(made, NIH, LARGE, "linear@paper", 0.763, note="no interval: fewer than 10 patients")
    assert line(made).told == "cannot tell"
    assert line(made).why == ["ours has no interval: fewer than 10 patients"]


def test_an_undefined_score_of_ours_is_compared_with_nothing(tmp_path):
    score(made := built(tmp_path), NIH, LARGE, "linear@paper", math.nan, note="no class has positives")
    assert line(made).verdict == "not comparable"
    assert line(made).why == ["our score is undefined: no class has positives", VIEWS]
    assert line(made).difference is None


def test_derived_weights_are_never_those_that_were_published(tmp_path, monkeypatch):
    entry = catalog.backbones()[LARGE].model_copy(update={"derived": "cut to half precision"})
    known = {**catalog.backbones(), LARGE: entry}
    monkeypatch.setattr(catalog, "backbones", lambda: known)
    made = built(tmp_path, embed={"views": 2})
    score(made, NIH, LARGE, "linear@paper", 0.763, 0.762, 0.764)
    assert line(made).verdict == "not the published setting"
    assert line(made).why == ["derived weights: cut to half precision"]


def test_not_run_says_why(tmp_path):
    made = built(tmp_path, PHANTOM, (LARGE,))
    made.step("score", NIH, LARGE).outputs[0].unlink()
    assert line(made, VGG).why == ["vgg19 is not in this study"]
    assert line(made).why == [f"not run: score of {LARGE}"]
    assert line(made, "unet", MONTGOMERY).why == ["the dataset is not in this study"]
    absent = synthetic_study.study(tmp_path, datasets={NIH: {}, MONTGOMERY: {"raw": "nowhere"}}, backbones=[LARGE, VGG])
    assert {line(absent).verdict, line(absent, VGG).verdict} == {"not run"}
    assert "no raw folder" in line(absent).why[0]
    weightless = synthetic_study.study(tmp_path, datasets=PHANTOM, backbones=[LARGE, VGG])
    assert line(weightless, VGG).why == ["backbone vgg19: no weights"]


def test_on_phantoms_nothing_is_compared_and_the_page_says_why(tmp_path, words_of):
    made = built(tmp_path, PHANTOM)
    score(made, NIH, LARGE, "linear@paper", 0.763, 0, 1)
    findings = Findings(made)
    verdicts = {each.verdict for each in ledger.lines(findings, again.cells(findings))}
    assert verdicts == {"not comparable", "not run"}
    text = words_of(made)
    assert "<strong>not comparable</strong> because the images here are generated (phantoms)" in text
    assert "<strong>equivalent" not in text
    assert "reproduced" not in text.lower()


PAPER = yaml.safe_load((ROOT / "workflow/profiles/paper/params.yaml").read_text(encoding="utf-8"))
COMPARABLE = {(NIH, name, "linear@paper") for name in (LARGE, VIT, DENSE, "resnet152", VGG)}
OTHER_FLIPS = {(MONTGOMERY, name, "from-scratch") for name in ("unet", "transunet")}
OTHER_FLIPS |= {("amos", "vit_giant_patch14_dinov2", "unet-decoder@paper"), ("amos", "transunet", "from-scratch")}


def key(one):
    return one.dataset, one.backbone, one.protocol


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """The study of the profile `paper`, of which everything is here: phantoms, and weights of no content."""
    root = tmp_path_factory.mktemp("paper")
    for name in PAPER["backbones"]:
        for file in catalog.backbones()[name.removesuffix("@paper")].local[:1]:
            (root / "data/weights").mkdir(parents=True, exist_ok=True)
            (root / "data/weights" / file).write_bytes(b"weights")
    chosen = {name: {**how, "phantom": {"patients": 9}} for name, how in PAPER["datasets"].items()}
    return Study({**PAPER, "datasets": chosen, "paths": {"root": str(root)}})


def test_the_paper_profile_has_every_backbone_of_the_study_with_its_features():
    used = [name for name, entry in catalog.backbones().items() if entry.paper is not None]
    assert set(PAPER["backbones"]) == {*map(ledger._as_published, used), "unet", "transunet"}


def test_in_the_paper_profile_five_numbers_have_the_published_setting_and_four_other_flips(paper):
    findings, here, flipped = Findings(paper), set(), set()
    for one in published():
        if any(ledger._unknown(one)) or one.shots:
            continue
        assert paper.applies(one.dataset, ledger._as_published(one.backbone))
        ours = ledger.Ours(
            ledger._as_published(one.backbone), one.protocol, one.metrics, ledger.Estimate(0.5, 0.4, 0.6), ""
        )
        assert list(ledger._other_quantity(findings, one, ours)) == [ledger.PHANTOM]
        why = [*ledger._of_data(findings, one), *ledger._of_model(findings, one, ours)]
        assert why in ([], [FLIPS])
        assert ("probe" if one.dataset == NIH else "segment", one.dataset, ours.backbone) in paper.steps
        (flipped if why else here).add(key(one))
    assert (here, flipped) == (COMPARABLE, OTHER_FLIPS)


@pytest.mark.slow
def test_the_paper_profile_compares_whole_films_with_what_was_published(tmp_path):
    wanted = [each for each in COMPARABLE | OTHER_FLIPS if each[0] != "amos"]
    names = [name for name in PAPER["backbones"] if name.removesuffix("@paper") in {name for _, name, _ in wanted}]
    datasets = {name: {**PAPER["datasets"][name], "allow_missing": True} for name in (NIH, MONTGOMERY)}
    made = built(tmp_path, datasets, names, **{section: PAPER[section] for section in ("embed", "probe", "segment")})
    for dataset, name, protocol in wanted:
        value = line(made, name, dataset).published.value
        for metric in line(made, name, dataset).published.metrics:
            score(made, dataset, ledger._as_published(name), protocol, value, value - 0.01, value + 0.01, metric)
    found = {(dataset, name): line(made, name, dataset) for dataset, name, _ in wanted}
    expected = {NIH: "equivalent within 0.02", MONTGOMERY: "not the published setting"}
    assert all(each.told == expected[dataset] for (dataset, _), each in found.items())
    assert found[NIH, VIT].ours.backbone == VIT + "@paper"
    assert not any("augmented" in why for each in found.values() for why in each.why)


def test_the_document_counts_the_published_numbers_as_the_ledger_does():
    text = (ROOT / "docs/ledger.md").read_text(encoding="utf-8")
    told = {
        tuple(row[:2]): int(row[2]) for row in re.findall(r"^\| `(\w+)` \| ([^|]+) \| (\d+) \|", text, re.MULTILINE)
    }
    expected = Counter((one.dataset, kind(one)) for one in published())
    assert told == expected
    assert sum(told.values()) == 52


def kind(one):
    """How docs/ledger.md names what a published number is of."""
    if one.backbone is None:
        return "`linear@paper`, backbone of unstated size"
    if one.protocol is None:
        return "frozen, decoder not stated" if one.backbone == LARGE else "from scratch, few images"
    return f"`{one.protocol}`"
