import math
from pathlib import Path

import pytest
import synthetic_study

from radprobe import catalog
from radprobe.catalog.paper import deviations
from radprobe.report import audit
from radprobe.report.collect import Findings

ROOT = Path(__file__).parents[2]
NIH, MONTGOMERY = "nih_chestxray14", "montgomery"


def by_id(findings):
    return {each.deviation.id: each for each in audit.findings_of(findings)}


@pytest.fixture(scope="module")
def found(findings):
    """The findings of the audit of the finished study, by deviation."""
    return by_id(findings)


def value(table, dataset, backbone, protocol, metric):
    rows = table[(table["dataset"] == dataset) & (table["backbone"] == backbone) & (table["protocol"] == protocol)]
    rows = rows[(rows["metric"] == metric) & (rows["part"] == "test") & (rows["class"] == "macro")]
    (found,) = rows["value"]
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A study with features of its own and as in the study."""
    root = tmp_path_factory.mktemp("both")
    path = root / "data/weights" / catalog.backbones()["mae_large"].local[0]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    return synthetic_study.build(
        root,
        backbones=["mae_large", "mae_large@paper"],
        controls={"random_inits": 0, "metadata": False, "ceiling": False},
    )


def test_a_change_is_the_score_made_the_studys_way_less_ours(found, findings):
    table = findings.scores
    for number, dataset, ours, theirs in (
        ("D06", MONTGOMERY, ("linear-decoder", "iou"), ("linear-decoder", "jaccard_study")),
        ("D07", MONTGOMERY, ("linear-decoder", "dsc"), ("linear-decoder", "dsc_pooled")),
        ("D08", NIH, ("knn", "auroc"), ("knn", "auroc_study")),
        ("D15", NIH, ("few-shot 4", "auroc"), ("few-shot 4@paper", "auroc")),
        ("D17", NIH, ("linear", "auroc"), ("linear@paper", "auroc")),
    ):
        (changes,) = found[number].changes
        assert changes.dataset == dataset
        (cell,) = (each for each in changes.cells if (each.backbone, each.protocol) == ("derived", ours[0]))
        assert cell.ours == value(table, dataset, "derived", *ours)
        assert cell.theirs == value(table, dataset, "derived", *theirs)
        assert cell.by.value == pytest.approx(cell.theirs - cell.ours)
        assert cell.by.low <= cell.by.value <= cell.by.high
        assert changes.ends[0] <= changes.middle <= changes.ends[1]


def test_a_change_of_few_shots_lies_between_those_of_our_draws(found, findings):
    (changes,) = found["D15"].changes
    drawn = findings.draws(NIH).query("backbone == 'derived' and shots == 4")
    ours, theirs = (drawn[drawn["protocol"] == name]["value"] for name in ("few-shot", "few-shot@paper"))
    (cell,) = (each for each in changes.cells if (each.backbone, each.protocol) == ("derived", "few-shot 4"))
    assert (cell.by.low, cell.by.high) == pytest.approx((theirs.item() - ours.max(), theirs.item() - ours.min()))
    assert "range of 5 draws, not over patients" in cell.by.note


def test_without_a_comparison_a_change_has_no_interval_and_no_cell_is_counted(root):
    study = synthetic_study.study(root)
    study.step("compare", NIH).outputs[0].unlink()
    (changes,) = by_id(Findings(study))["D17"].changes
    assert all(math.isnan(cell.by.low) for cell in changes.cells)
    assert changes.apart == ""


def test_cells_whose_interval_leaves_out_no_change_are_counted(found):
    (changes,) = found["D06"].changes
    resolved = [cell for cell in changes.cells if cell.by.low > 0 or cell.by.high < 0]
    assert changes.apart == f"0 is outside of the interval in {len(resolved)} of {len(changes.cells)}"


def test_controls_and_shuffled_labels_do_not_count(found):
    cells = found["D08"].changes[0].cells
    assert {cell.backbone for cell in cells} == {"derived", "tf_efficientnet_lite0"}
    assert {cell.protocol for cell in cells} == {"knn", "mlknn", "linear", "linear@paper", "logistic"}


def test_undefined_classes_and_ties_are_told_apart(found):
    assert found["D08"].changes  # Hernia is undefined everywhere
    assert not found["D23"].changes
    assert not found["D09"].changes  # of several classes one is true in no dataset here
    assert found["D09"].why_none == "both variants did not run in this study"


def test_features_are_paired_over_the_same_patients(both):
    found = by_id(Findings(both))["D16"].changes
    assert {changes.dataset for changes in found} == {NIH, MONTGOMERY}
    for changes in found:
        for cell in changes.cells:
            assert cell.backbone == "mae_large"
            assert cell.by.value == pytest.approx(cell.theirs - cell.ours)
            assert cell.by.low <= cell.by.value <= cell.by.high
            assert cell.by.low < cell.by.high


def test_a_study_of_which_nothing_ran_still_has_its_audit(tmp_path):
    found = by_id(Findings(synthetic_study.study(tmp_path)))
    assert len(found) == 23
    assert not any(each.changes for each in found.values())
    assert {each.why_none for each in found.values() if each.deviation.kind == "bug"} == {
        "never built, so there is nothing to compare"
    }


def test_the_page_shows_all_of_them_with_their_tests(both, words_of):
    text = words_of(both)
    places = [text.index(f'<tr id="{each.id}">') for each in deviations()]
    assert places == sorted(places)
    assert all(f"<code>{test}</code>" in text for each in deviations() for test in each.tests)
    assert "features as in the study (@paper) less ours" in text


def test_signs_are_shown_and_no_negative_zero():
    assert [audit.signed(each) for each in (0.1234, -0.1, -0.0001)] == ["+0.123", "-0.100", "+0.000"]


def test_the_document_is_that_of_the_catalog():
    assert (ROOT / "docs/audit.md").read_text(encoding="utf-8") == audit.markdown(), "run `make audit-page`"
