"""Cell pages: what they say, that they load nothing, and that they are written and removed as the study changes."""

import json
import re
import shutil

import browser
import numpy as np
import pandas as pd
import pytest
import synthetic_study
from synthetic_study import NASTY
from webpage import LOADING, Page

from radprobe.artifacts import Predictions, Scores
from radprobe.metrics import operating, scoring
from radprobe.metrics.options import Bootstrap
from radprobe.report import again, words
from radprobe.report.cells import classified, pages, segmented, told
from radprobe.report.collect import Findings

NIH, LUNGS = "nih_chestxray14", "montgomery"
LOGISTIC, DECODER = f"cells/{NIH}/derived/logistic.html", f"cells/{LUNGS}/derived/linear-decoder.html"


@pytest.fixture
def read(text, written):
    """Return a function that reads a file beside the explorer."""
    return lambda name: (written / name).read_text(encoding="utf-8")


@pytest.fixture
def rendered(root, written):
    """A copy of the finished study with its pages of cells."""
    shutil.copytree(written / "cells", root / "reports/cells")
    return root


def section(page, name):
    return re.search(rf'<section id="{name}">(.*?)</section>', page, re.DOTALL)[1]


def test_each_cell_with_scores_has_a_page_and_no_other_has(text, written):
    found = {str(path.relative_to(written)) for path in (written / "cells").rglob("*.html")}
    table = pd.read_parquet(written / "scores.parquet")
    table = table[~table["backbone"].str.contains("~")]  # they stand on the page of the first init
    named = table.loc[~table["protocol"].str.startswith("few-shot"), ["dataset", "backbone", "protocol"]]
    slugs = named.drop_duplicates().apply(lambda column: column.str.replace(r"[:@+]", "-", regex=True))
    assert found == {f"cells/{dataset}/{backbone}/{protocol}.html" for dataset, backbone, protocol in slugs.values}
    assert not [name for name in found if "/vit_small_patch14_dinov2/" in name]  # its weights are missing


def test_a_page_of_a_classifier_says_what_it_is_and_what_it_scores(read, written):
    said = Page(read(LOGISTIC)).words
    assert "DINOv2 derived" in said
    assert "on NIH ChestX-ray14, test part: 80 patients, 80 samples" in said
    assert re.search(r"Macro AUROC 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\] \(left out, undefined: Hernia; ", said)
    assert "c 0.1; chosen on val among 45 candidates (c 1e-06 to 1e+05)" in said
    assert "train 80 patients, 80 samples val 40 patients, 40 samples test 80 patients, 80 samples" in said
    assert "derived weights, not the published ones" in said
    assert "AUROC, AUPRC of Hernia: undefined: no positives" in said
    assert "–, undefined: no positives" in said
    assert "radprobe --force probe nih_chestxray14 derived --params params.yaml" in said
    table = pd.read_parquet(written / "scores.parquet")
    rows = table[(table["dataset"] == NIH) & (table["backbone"] == "derived") & (table["protocol"] == "logistic")]
    for value in rows.loc[rows["part"] == "test", "value"].dropna():
        assert f"{value:.3f}" in said


UNTRAINED = f"cells/{NIH}/random-derived/logistic.html"


def test_the_page_of_a_random_row_has_the_score_of_each_init(read, written):
    said = Page(section(read(UNTRAINED), "inits")).words
    table = pd.read_parquet(written / "scores.parquet")
    table = table[(table["dataset"] == NIH) & (table["protocol"] == "logistic") & (table["part"] == "test")]
    table = table[(table["metric"] == "auroc") & (table["class"] == "macro")].set_index("backbone")
    first, second = (table.loc[name, "value"] for name in ("random:derived", "random:derived~2"))
    assert first != second
    assert re.search(rf", random {first:.3f} \[.*, random, init 2 {second:.3f} \[", said)
    assert "Random initialisations" not in read(LOGISTIC)
    assert "Random initialisations" not in read(f"cells/{LUNGS}/random-derived/linear-decoder.html")  # one alone


def test_a_page_is_written_anew_where_the_score_of_a_further_init_changed(rendered):
    study = synthetic_study.study(rendered)
    score = study.step("score", NIH, "random:derived~2")
    score.outputs[0].unlink()
    assert pages.write(Findings(study), rendered / "reports") == 6  # the protocols of the row
    said = Page(section((rendered / "reports" / UNTRAINED).read_text(), "inits")).words
    assert "init 2 not run" in said


def test_curves_are_drawn_of_each_class_that_has_them(read):
    curves = Page(section(read(LOGISTIC), "curves"))
    labels = [each["aria-label"] for tag, each in curves.tags if tag == "svg"]
    assert len([label for label in labels if label.startswith("ROC curve of")]) == 13  # of 14, Hernia is undefined
    assert len([label for label in labels if label.startswith("Precision and recall of")]) == 13
    lines = [each["points"].split() for tag, each in curves.tags if tag == "polyline" and each["class"] == "line"]
    assert len(lines) == 26
    assert all(len(points) <= 100 for points in lines)


def test_a_page_of_a_segmenter_has_its_cases_and_pictures(read, finished):
    page = read(DECODER)
    worst = Page(section(page, "worst"))
    scores = Findings(synthetic_study.study(finished)).cases(LUNGS, "derived")
    chosen = (scores["part"] == "test") & (scores["metric"] == "dsc") & (scores["class"] == "macro")
    lowest = scores[chosen].sort_values("value", kind="stable").head(segmented.WORST)
    shown = re.findall(r"<td>(p\d+)</td><td>p\d+</td><td class=\"num\">(0\.\d+)</td>", section(page, "worst"))
    assert shown == [(case, f"{value:.3f}") for case, value in zip(lowest["case_id"], lowest["value"], strict=True)]
    pictures = [each for tag, each in worst.tags if tag == "img"]
    assert len(pictures) == 3
    assert pictures[0]["alt"].startswith(lowest["case_id"].iloc[0])
    assert all(each["src"].startswith("data:image/png") for each in pictures)
    assert "HD95, px" in Page(page).words
    assert "in pixels: spacing unknown" in Page(page).words


def test_pictures_stay_away_where_params_say_so(root):
    pages.write(Findings(synthetic_study.study(root, report={"images": "none"})), root / "reports")
    page = (root / "reports" / DECODER).read_text()
    assert "<img" not in page
    assert "No pictures: report.images is none" in Page(page).words


def test_draws_stand_on_the_page_of_their_head_alone(read):
    assert "a logistic regression (C = 0.01)" in Page(section(read(LOGISTIC), "few-shot")).words
    assert 'id="few-shot"' not in read(LOGISTIC.replace("logistic", "knn"))


@pytest.mark.parametrize("name", [LOGISTIC, DECODER])
def test_a_page_loads_nothing_runs_nothing_and_shows_names_as_text(read, name):
    page = read(name)
    assert NASTY not in page
    assert NASTY in Page(page).words
    tags = Page(page).tags
    assert not [tag for tag, _ in tags if tag in ("script", "iframe", "object", "form")]
    assert not [key for _, each in tags for key in each if key.startswith("on")]
    for tag, each in tags:
        for key in LOADING & set(each):
            assert tag == "a" or each[key].startswith("data:"), (tag, each[key][:80])
    assert not re.search(r"@import|url\(\s*['\"]?(?!#|data:)", page)


def test_a_page_without_pictures_is_small(written, text):
    for path in (written / "cells").rglob("*.html"):
        assert len(re.sub(r'src="data:[^"]*"', "", path.read_text())) < 150_000, path


def test_links_between_pages_lead_somewhere(written, text):
    ids = set(re.findall(r'\bid="([^"]+)"', text))
    for path in (written / "cells").rglob("*.html"):
        for tag, each in Page(path.read_text()).tags:
            if tag == "a":
                file, _, place = each["href"].partition("#")
                assert (path.parent / file).resolve().is_file(), each["href"]
                assert not place or place in ids, each["href"]


def test_the_explorer_leads_to_the_pages(written, text):
    hrefs = {each["href"] for tag, each in Page(text).tags if tag == "a" and each.get("href", "").startswith("cells/")}
    assert {LOGISTIC, DECODER, f"cells/{LUNGS}/ceiling/ceiling.html"} <= hrefs
    table = json.loads(re.search(r'id="everything">(.*?)</script>', text, re.DOTALL)[1])
    at = {name: place for place, name in enumerate(table["columns"])}
    rows = {tuple(row[at[name]] for name in ("dataset", "backbone", "protocol")) for row in table["rows"]}
    listed = {table["pages"][dataset][backbone][protocol] for dataset, backbone, protocol in rows}
    assert f"{LOGISTIC}#few-shot" in listed
    assert all((written / each.partition("#")[0]).is_file() for each in hrefs | listed)


# --- written anew, left alone, removed --------------------------------------------------------------------------------


def test_only_pages_whose_sources_changed_are_written_anew(root):
    study = synthetic_study.study(root)
    first = pages.write(Findings(study), root / "reports")
    assert first == len(list((root / "reports/cells").rglob("*.html")))
    assert pages.write(Findings(study), root / "reports") == 0
    step = study.step("probe", NIH, "derived")
    log = root / "work/logs/probe" / NIH / "derived" / f"{step.key}.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"line\n{NASTY} the end\n")
    assert pages.write(Findings(study), root / "reports") == 6  # the protocols of that backbone there
    page = (root / "reports" / LOGISTIC).read_text()
    assert f"{NASTY} the end" in Page(section(page, "again")).words
    (root / "reports" / LOGISTIC).unlink()
    assert pages.write(Findings(study), root / "reports") == 1


def test_pages_of_cells_that_are_no_more_are_removed_and_other_files_stay(rendered):
    mine = rendered / "reports/cells/notes.html"
    mine.write_text("mine")
    fewer = synthetic_study.study(rendered, backbones=["derived"])
    pages.write(Findings(fewer), rendered / "reports")
    left = {path.parent.name for path in (rendered / "reports/cells").rglob("*.html")} - {"cells"}
    assert left == {"derived", "random-derived", "pixels", "metadata", "ceiling"} & left
    assert "derived" in left
    assert not (rendered / "reports/cells" / NIH / "tf_efficientnet_lite0").exists()
    assert mine.read_text() == "mine"


def test_without_its_predictions_a_page_still_has_its_scores(rendered):
    (rendered / "reports" / LOGISTIC).unlink()  # the others are up to date
    study = synthetic_study.study(rendered)
    (study.step("probe", NIH, "derived").folder / "predictions.parquet").unlink()
    findings = Findings(study)
    pages.write(findings, rendered / "reports")
    said = Page((rendered / "reports" / LOGISTIC).read_text()).words
    assert "Macro AUROC 0." in said
    assert "Not shown, because the predictions cannot be read" in said


def test_what_val_chose_and_how_long_the_last_fit_took_are_told_apart(finished):
    rates = [{"learning_rate": rate, "value": value, "epochs": 8} for rate, value in ((0.01, 0.9), (0.001, 0.7))]
    facts = {"chosen": {"learning_rate": 0.01, "epochs": 8}, "candidates": rates, "selected_on": "val", "seconds": 9.0}
    facts["refit_epochs"] = 12
    assert [row["chosen"] for row in told.candidates(facts)["rows"]] == [True, False]
    (line,) = again._protocols({"protocols": {"from-scratch": facts}})
    assert "learning rate 0.01, epochs 8; chosen on val" in line.told
    assert "fitted again for 12 epochs" in line.told
    row = {"seconds": 9.0, "peak_gb": 1.0, "trained_parameters": 5.0, "trained_share": 1.0, "best_epoch": 8.0}
    costs = dict(told.costs(Findings(synthetic_study.study(finished)), LUNGS, "derived", row, facts))
    assert costs["epochs that val chose"] == "8"
    assert costs["epochs of the last fit"] == "12, fixed by params"
    assert "epoch are chosen on val" not in words.EXPLAINED["from-scratch"]


def test_counts_of_a_map_task_are_of_images_and_what_embeds_nothing_has_no_embedding_to_cost(read):
    assert "Images: 30 of train, 12 of val, 24 of test." in Page(section(read(DECODER), "what")).words
    assert "Cases:" not in Page(section(read(DECODER), "what")).words
    costs = Page(section(read(DECODER), "cost")).words
    assert "embedding and fitting 3.0 min fitting alone 30 s" in costs
    assert "embedding" not in Page(section(read(f"cells/{LUNGS}/ceiling/ceiling.html"), "cost")).words


def test_a_score_of_several_fits_says_how_far_it_moves(root):
    assert told.fits({"n_fits": 1, "seed_sd": np.nan}) == ""
    assert "not every fit has a value" in told.fits({"protocol": "linear", "n_fits": 2, "seed_sd": np.nan})
    step = synthetic_study.study(root).step("score", NIH, "derived")
    scores = Scores.load(step.folder)
    moved = (scores.table["protocol"] == "logistic") & (scores.table["part"] == "test")
    scores.table.loc[moved, ["n_fits", "seed_sd", "seed_low", "seed_high"]] = 5, 0.0041, 0.91, 0.92
    scores.save(step.place)
    pages.write(Findings(synthetic_study.study(root)), root / "reports")
    header = Page((root / "reports" / LOGISTIC).read_text().partition("</header>")[0]).words
    assert "Fitted 5 times with different seeds: 0.910 to 0.920, SD 0.004; above is the first fit." in header
    assert "different seeds" not in Page((root / "reports" / LOGISTIC.replace("logistic", "knn")).read_text()).words


def test_only_curves_that_the_last_fit_has_are_said_to_hold_it():
    table = pd.DataFrame({"protocol": "linear", "phase": ["search"] * 4 + ["refit"] * 2, "head": [0, 0, 1, 1, 0, 0]})
    table["epoch"], table["loss"], table["value"] = [1, 2] * 3, np.arange(6.0), [0.5, 0.6, 0.4, 0.5, np.nan, np.nan]
    shown = told.training(Predictions(["ill"], training=table), "linear")
    labels = [re.search(r'aria-label="([^"]*)"', svg)[1] for svg in shown["svgs"]]
    assert labels == [
        "loss on train by epoch: 2 learning rates, and the fit on train and val",
        "value on val by epoch: 2 learning rates",
    ]


# --- what is shown of other tasks, and of few patients ----------------------------------------------------------------


def predictions(scores, targets, classes, **facts):
    """Return Predictions of one protocol, val and test alike, and its rows of scores on test."""
    n = len(scores)
    table = pd.DataFrame({"protocol": "linear", "sample_id": [f"<b>{number:03d}" for number in range(n)]})
    table["patient_id"] = [f"p{number // 2}" for number in range(n)]
    for column, name in enumerate(classes):
        table[f"score:{name}"], table[f"target:{name}"] = scores[:, column], targets[:, column]
    both = pd.concat([table.assign(part=part) for part in ("val", "test")])
    found = Predictions(classes, both, facts={"protocols": {"linear": facts}})
    how = Bootstrap(100, 0, 10)
    test, val = (scoring.Classified(found, "linear", part) for part in ("test", "val"))
    rows = [*test.rows(how), *test.operating(val, facts, how)]
    return found, rows


def test_of_classes_that_exclude_each_other_there_is_a_confusion_matrix():
    generator = np.random.default_rng(0)
    true = generator.integers(0, 3, 60)
    logits = 1.5 * np.eye(3)[true] + generator.normal(size=(60, 3))
    scores = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    found, rows = predictions(scores, np.eye(3)[true], ["a", "b", "<i>"], softmax=True)
    shown = classified.show(found, "linear", rows, [])
    counts = np.array([[count for count, _ in row] for _, row in shown["matrix"]["rows"]])
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (true, logits.argmax(1)), 1)
    np.testing.assert_array_equal(counts, expected)
    assert shown["counts"] is None
    first, *others = shown["calibration"]
    assert first["name"] == "likeliest class"
    assert [text.split()[0] for text in first["texts"]] == ["ECE", "Brier"]
    assert [[text.split()[0] for text in each["texts"]] for each in others] == [["Brier"]] * 3
    assert shown["recalibrated"].startswith("With one temperature ")
    (wrong,) = shown["mistakes"]
    assert wrong["n"] == expected.sum() - np.trace(expected)
    sure = [float(line[-1]) for line in wrong["lines"]]
    assert sure == sorted(sure, reverse=True)
    assert all(line[2] != line[3] for line in wrong["lines"])


def test_of_one_class_there_are_the_counts_at_the_threshold():
    generator = np.random.default_rng(1)
    targets = (generator.random((50, 1)) < 0.4).astype(float)
    scores = targets * 2 + generator.normal(size=(50, 1))
    found, rows = predictions(scores, targets, ["ill"])
    shown = classified.show(found, "linear", rows, [])
    (line,) = shown["counts"]
    called = scores >= operating.thresholds(scores, targets)
    assert line["counts"] == [
        str(int(((targets == truth) & (called == call)).sum())) for truth, call in ((1, 1), (1, 0), (0, 1), (0, 0))
    ]
    assert sum(kind["n"] for kind in shown["mistakes"]) == int((called != (targets == 1)).sum())


def test_of_too_few_patients_every_case_is_listed():
    targets = np.array([[1.0], [0], [1], [0], [np.nan], [1]])
    found, rows = predictions(np.arange(6.0)[:, None], targets, ["ill"])
    few = told.too_few(told.of(rows, "auroc"), 10)
    assert set(few) == {"ill", "macro"}
    assert told.too_few({"ill": {"n_patients": 9}, "none has it": {"n_patients": 0}}, 10) == ["ill"]
    shown = classified.show(found, "linear", rows, few)
    assert shown["recalibrated"].startswith("With one temperature 6.26, fitted on val, for all classes, macro: ECE")
    cases = shown["cases"]
    assert [line[0] for line in cases["lines"]] == [f"<b>{number:03d}" for number in (0, 1, 2, 3, 5)]
    assert [line[2][-1] for line in cases["lines"]] == ["+", "−", "+", "−", "+"]
    table = pd.DataFrame({"case_id": list("ab"), "patient_id": list("ab"), "metric": "dsc", "value": [0.5, np.nan]})
    both = pd.concat([table.assign(**{"class": name}) for name in ("macro", "lung")])
    listed = segmented.show(both, ["lung"], ["lung"], None, 3)["cases"]
    assert listed["lines"] == [("a", "a", "0.500")]


def test_what_val_separates_perfectly_is_not_recalibrated():
    targets = (np.arange(40) % 2).astype(float)[:, None]
    found, rows = predictions(targets - 0.5, targets, ["ill"])
    shown = classified.show(found, "linear", rows, [])
    assert shown["recalibrated"] == "Not recalibrated: no temperature minimises the loss of val."


def test_a_study_of_few_patients_shows_its_cases_on_the_page(root, render):
    render(root, score={"resamples": 200, "min_patients": 30})
    study = synthetic_study.study(root, score={"resamples": 200, "min_patients": 30})
    for step in study.steps.values():
        if step.verb in ("score", "compare") and step.dataset == LUNGS:
            synthetic_study.MAKERS[step.verb](study, step, None)
    pages.write(Findings(study), root / "reports")
    cases = section((root / "reports" / DECODER).read_text(), "cases")
    assert len(re.findall(r"<tr><td>p\d+</td>", cases)) == 24
    assert "Under 30 patients" in cases


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium or Chrome is installed")
def test_a_tile_of_the_map_leads_to_its_page_and_back(tmp_path, written, text):
    with browser.Browser(tmp_path) as opened:
        opened.open((written / "explorer.html").as_uri())
        opened.run(f"document.querySelector('#map a[href=\"{DECODER}\"]').focus()")
        opened.press("Enter", "\r")
        opened.wait(f"location.pathname.endsWith('{DECODER}') && document.readyState === 'complete'")
        assert "linear decoder" in opened.run("document.querySelector('h1').textContent")
        opened.run("document.querySelector('header nav a').click()")
        opened.wait("location.pathname.endsWith('pages/explorer.html') && document.readyState === 'complete'")
        for name in (DECODER, LOGISTIC):
            assert opened.complaints == opened.requests == []  # opening a page forgets those of the one before
            opened.open((written / name).as_uri(), width=400)
            assert opened.run("document.documentElement.scrollWidth") <= 400
        assert opened.complaints == opened.requests == []
