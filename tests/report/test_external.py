"""What pages say of rows from elsewhere: candidates like all others, of which radprobe knows no training or cost."""

import json
import re

import pandas as pd
import pytest
import synthetic_study
from PIL import Image
from synthetic_study import NASTY
from webpage import Page

from radprobe import files
from radprobe.metrics.calibration import NO_PROBABILITY
from radprobe.metrics.operating import WITHOUT_VAL
from radprobe.report import ranking, style, trust, verdict
from radprobe.report.cells import pages
from radprobe.report.collect import Findings

FILMS, LUNGS = "nih_chestxray14", "montgomery"
SENTENCE = "Predictions from elsewhere: radprobe has not checked what they were trained on."


@pytest.fixture(scope="module")
def made(tmp_path_factory, words_of):
    """A finished study with a perfect segmentation and a reader who is always right, and its pages."""
    root = tmp_path_factory.mktemp("elsewhere")
    write_maps(root / "maps")
    write_reader(root / "reader.csv")
    datasets = {
        LUNGS: {"phantom": {"patients": 66}, "predictions": {"nnunet": "maps"}},
        FILMS: {"phantom": {"patients": 200}, "predictions": {"reader": {"file": "reader.csv", **TITLED}}},
    }
    changes = {"datasets": datasets, "score": {"resamples": 100}, "backbones": ["test_vit"], "own_backbones": {}}
    study = synthetic_study.build(root, **changes)
    words_of(study)
    pages.write(Findings(study), study.path("reports"))
    return study


TITLED = {"title": f"Dr. {NASTY}", "notes": "ten years of chest films", "scale": "score"}


def patients(dataset, part):
    sizes, names = synthetic_study.PARTS[dataset], synthetic_study._patients(dataset)
    start = {"train": 0, "val": sizes["train"], "test": sizes["train"] + sizes["val"]}[part]
    return range(start, start + sizes[part]), names[start : start + sizes[part]]


def write_maps(folder):
    folder.mkdir()
    for part in ("val", "test"):
        for name in patients(LUNGS, part)[1]:
            Image.fromarray(synthetic_study.lungs(name)).save(folder / f"{name}.png")


def write_reader(file):
    rows, names = patients(FILMS, "test")
    classes = synthetic_study.classes_of(FILMS)
    labels = synthetic_study._labels(200, len(classes))[list(rows)]
    table = pd.DataFrame(1 + 4 * labels, columns=classes)
    table.insert(0, "sample_id", names)
    table.to_csv(file, index=False)


def page(study, *names):
    return study.path("reports").joinpath(*names).read_text(encoding="utf-8")


def test_a_row_from_elsewhere_may_win_the_verdict_and_the_page_says_what_is_not_known(made):
    columns = ranking.columns(Findings(made))
    heads = ranking.headlines(columns)
    assert (heads[LUNGS].best, heads[FILMS].best) == ("nnunet", "reader")
    assert heads[LUNGS].protocol == "linear-decoder"  # it stands beside the protocol of the verdict
    text = page(made, "explorer.html")
    for dataset in (LUNGS, FILMS):
        sentences = verdict.verdict(heads[dataset], Findings(made).title, "CPU").lines
        assert SENTENCE in sentences
        assert not [each for each in sentences if " costs " in each]
    assert SENTENCE in Page(text).words


def test_it_is_in_every_map_and_comparison_of_its_dataset(made):
    findings = Findings(made)
    for column in ranking.columns(findings):
        row = "nnunet" if column.dataset == LUNGS else "reader"
        if column.is_floor:
            continue
        assert column.scores[row].value == 1
        assert column.protocol_of(row) == "external"
        assert column.difference(row, "test_vit").value > 0


def test_the_map_names_its_family_and_leaves_other_datasets_blank(made):
    text = Page(page(made, "explorer.html")).words
    assert "external" in style.FAMILIES
    assert "no predictions of it for this dataset" in page(made, "explorer.html")
    assert "nnunet" in text


def test_scores_have_dashes_for_costs(made):
    table = pd.read_parquet(made.path("reports") / "scores.parquet")
    rows = table[table["protocol"] == "external"]
    assert set(rows["backbone"]) == {"nnunet", "reader"}
    assert rows[["seconds", "peak_gb", "trained_parameters"]].isna().all(axis=None)
    metrics = json.loads(page(made, "metrics.json"))
    assert metrics[LUNGS]["nnunet"] == {"external": 1.0}


def test_the_page_of_a_reader_says_what_is_missing_and_why(made):
    text = page(made, "cells", FILMS, "reader", "external.html")
    said = Page(text).words
    assert SENTENCE in said
    assert "ten years of chest films" in said
    assert NASTY not in text
    assert "made elsewhere, reader.csv, read as score" in said
    assert WITHOUT_VAL in said
    assert NO_PROBABILITY in said
    assert re.search(r"fitting – peak memory – device – trained parameters –", said)
    assert "nan" not in said.lower().split()


def test_the_page_of_a_segmentation_is_like_all_others(made):
    said = Page(page(made, "cells", LUNGS, "nnunet", "external.html")).words
    assert SENTENCE in said
    assert "Macro DSC 1.000" in said
    assert "Images: 12 of val, 24 of test" in said
    assert "made elsewhere, maps" in said


def test_its_card_tells_its_content_and_no_network(made):
    findings = Findings(made)
    cards = {card.name: card for card in trust.backbones(findings, {})}
    lines = dict(cards["nnunet"].sections["Card"])
    assert lines["digest of its content"] == made.step("external", LUNGS, "nnunet").job.content
    assert "Weights" not in cards["nnunet"].sections
    assert (cards["nnunet"].parameters, cards["nnunet"].gflops) == ("–", "–")


def test_a_row_whose_file_is_gone_is_listed_with_the_remedy(made, tmp_path, words_of):
    content = made.params.model_dump(mode="json")
    content["datasets"][FILMS]["predictions"]["reader"]["file"] = "gone.csv"
    files.keep_twin(made.step("external", FILMS, "reader").outputs[0])  # made here, and not brought by DVC
    content["paths"]["reports"] = str(tmp_path)
    text = Page(words_of(type(made)(content))).words
    assert "predictions reader" in text
    assert "datasets.nih_chestxray14.predictions.reader" in text
