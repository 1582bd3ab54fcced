import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radprobe.metrics.classification import MACRO
from radprobe.metrics.options import Bootstrap
from radprobe.metrics.resampling import counts
from radprobe.metrics.segmentation import Segmenter, case_rows, confusion, macro_dsc, rows, without_background

HOW = Bootstrap(resamples=200, seed=0, min_patients=10)


def maps(seed, cases=6, classes=3, side=9):
    """Random truth and prediction [cases, side, side]; labels are absent from some."""
    generator = np.random.default_rng(seed)
    tops = generator.integers(1, classes + 2, (2, cases, 1, 1))
    return tuple(generator.integers(0, tops[i], (cases, side, side)).astype(np.uint8) for i in range(2))


def segmenter(truth, prediction, classes, patients=None):
    matrices = np.stack([confusion(t, p, classes) for t, p in zip(truth, prediction, strict=True)])
    return Segmenter(matrices, np.arange(len(truth)).astype(str) if patients is None else patients)


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_dsc_and_iou_are_those_of_monai_where_the_truth_is_not_empty(seed):
    torch = pytest.importorskip("torch")
    from monai.metrics import compute_dice, compute_iou

    truth, prediction = maps(seed)
    hot = [torch.nn.functional.one_hot(torch.from_numpy(each).long(), 4).movedim(-1, 1) for each in (prediction, truth)]
    ours = segmenter(truth, prediction, 3).cases
    here = np.stack([(truth == label).any((1, 2)) for label in (1, 2, 3)], axis=1)
    for name, reference in (("dsc", compute_dice), ("iou", compute_iou)):
        expected = reference(*hot, include_background=False).numpy()
        assert np.allclose(ours[name][here], expected[here], atol=1e-6)
    predicted = np.stack([(prediction == label).any((1, 2)) for label in (1, 2, 3)], axis=1)
    assert (ours["dsc"][~here & predicted] == 0).all()  # a false alarm
    assert np.isnan(ours["dsc"][~here & ~predicted]).all()  # nothing to find, nothing found


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_the_mean_over_cases_is_monais_dice_metric(seed):
    torch = pytest.importorskip("torch")
    from monai.metrics import DiceMetric

    truth, prediction = maps(seed)
    for each in (truth, prediction):
        each[:, 0, :4] = [0, 1, 2, 3]  # every class in every case: no policy is involved
    hot = [torch.nn.functional.one_hot(torch.from_numpy(each).long(), 4).movedim(-1, 1) for each in (prediction, truth)]
    metric = DiceMetric(include_background=False, reduction="mean_batch")
    metric(*hot)
    got = segmenter(truth, prediction, 3).estimate("dsc", np.ones((6, 1)))[0]
    assert np.allclose(got[:3], metric.aggregate().numpy(), atol=1e-6)
    assert got[3] == pytest.approx(got[:3].mean())


def test_d07_a_small_case_counts_as_much_as_a_large_one_but_not_where_they_are_pooled():
    truth = np.zeros((2, 20, 20), np.uint8)
    truth[0], truth[1, 0, :4] = 1, 1
    found = segmenter(truth, np.stack([truth[0], np.zeros_like(truth[1])]), 1)  # all of the one, none of the other
    once = np.ones((2, 1))
    assert found.estimate("dsc", once)[0, -1] == 0.5
    assert found.estimate("dsc_pooled", once)[0, -1] == pytest.approx(800 / 804)


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_pooled_metrics_are_plain_transcriptions_over_all_pixels(seed):
    truth, prediction = maps(seed)
    got = segmenter(truth, prediction, 3)
    t, p = truth.ravel(), prediction.ravel()
    dice, jaccard = [], []
    for label in (1, 2, 3):
        a, b = t == label, p == label
        if a.any() or b.any():
            dice.append(2 * (a & b).sum() / (a.sum() + b.sum()))
        a, b = a[t != 0], b[t != 0]
        if a.any() or b.any():
            jaccard.append((a & b).sum() / (a | b).sum())
    once = np.ones((6, 1))
    assert got.estimate("dsc_pooled", once)[0, -1] == pytest.approx(np.mean(dice), abs=1e-12) if dice else True
    if jaccard:
        assert got.estimate("jaccard_study", once)[0, -1] == pytest.approx(np.mean(jaccard), abs=1e-12)


def test_d06_foreground_everywhere_is_perfect_to_the_studys_jaccard_and_not_to_ours():
    truth = np.zeros((12, 10, 10), np.uint8)
    truth[:, 0] = 1  # a tenth of the pixels
    found = segmenter(truth, np.ones_like(truth), 1)
    once = np.ones((12, 1))
    assert found.estimate("jaccard_study", once)[0, -1] == 1  # D06: false positives on background are free
    assert found.estimate("iou", once)[0, -1] == pytest.approx(0.1)
    assert without_background(found.matrices)[:, 0].sum() == 0


def by_name(found):
    return {(row["metric"], row["class"]): row for row in found}


def test_a_class_that_is_predicted_on_background_alone_has_no_study_jaccard_and_is_not_counted():
    truth = np.zeros((12, 4, 4), np.uint8)
    truth[:, 0] = 1
    prediction = truth.copy()
    prediction[:, 3] = 2
    found = by_name(rows(segmenter(truth, prediction, 2), ["one", "two"], HOW))
    assert np.isnan(found["jaccard_study", "two"]["value"])
    assert found["jaccard_study", "two"]["n_classes"] == 0
    assert "absent from truth, or" in found["jaccard_study", "two"]["note"]
    assert (found["jaccard_study", MACRO]["value"], found["jaccard_study", MACRO]["n_classes"]) == (1, 1)
    assert (found["dsc", "two"]["value"], found["dsc", MACRO]["n_classes"]) == (0, 2)


def test_a_class_that_is_nowhere_is_missing_and_counted():
    truth, _ = maps(1, cases=12, classes=1)
    found = by_name(rows(segmenter(truth, truth, 2), ["one", "two"], HOW))
    row = found["dsc", "two"]
    assert np.isnan([row["value"], row["low"]]).all()
    assert row["note"].startswith("undefined: absent")
    assert row["n_samples"] == row["n_classes"] == 0
    assert found["dsc", MACRO]["n_classes"] == 1
    assert found["dsc", MACRO]["value"] == 1


def test_cases_with_nothing_to_score_are_left_out_and_counted():
    truth = np.zeros((12, 4, 4), np.uint8)
    truth[:10, 0] = 1
    row = by_name(rows(segmenter(truth, truth, 1), ["one"], HOW))["dsc", "one"]
    assert (row["value"], row["n_samples"], row["n_patients"]) == (1, 10, 10)
    assert row["note"].startswith("2 of 12 cases left out")


def test_cases_of_few_patients_get_no_interval():
    truth, prediction = maps(0, cases=30)
    few = (np.arange(30) % 9).astype(str)
    row = by_name(rows(segmenter(truth, prediction, 3, few), list("abc"), HOW))["dsc", MACRO]
    assert np.isnan(row["low"])
    assert "7 patients, fewer than 10" in row["note"]  # of the class that fewest have


def test_case_rows_average_to_the_scores():
    truth, prediction = maps(5, cases=12)
    ours = segmenter(truth, prediction, 3)
    ids = [f"c{i}" for i in range(12)]
    table = case_rows(ours, list("abc"), ids, ids)
    dsc = table[table["metric"] == "dsc"].groupby("class")["value"].mean()  # pandas leaves NaN out
    score = by_name(rows(ours, list("abc"), HOW))
    for name in "abc":
        assert dsc[name] == pytest.approx(score["dsc", name]["value"])
    assert dsc[list("abc")].mean() == pytest.approx(score["dsc", MACRO]["value"])
    assert dsc[MACRO] == pytest.approx(score["dsc_by_case", MACRO]["value"])
    assert abs(score["dsc", MACRO]["value"] - score["dsc_by_case", MACRO]["value"]) > 1e-3
    assert [name for metric, name in score if metric == "dsc_by_case"] == [MACRO]


def rare():
    """Twenty cases of one structure that is found, and two of them of another that is half found."""
    truth = np.zeros((20, 10, 10), np.uint8)
    truth[:, :4] = 1
    truth[:2, 6:8] = 2
    prediction = truth.copy()
    prediction[:2, 7] = 0
    return truth, prediction


def test_val_chooses_by_the_macro_that_test_is_scored_by():
    ours = segmenter(*rare(), 2)
    score = by_name(rows(ours, ["one", "two"], HOW))
    two = 2 * 10 / (20 + 10)
    assert macro_dsc(ours.matrices) == score["dsc", MACRO]["value"] == pytest.approx((1 + two) / 2)
    assert score["dsc_by_case", MACRO]["value"] == pytest.approx((18 + 2 * (1 + two) / 2) / 20)


def test_a_macro_over_a_class_of_few_patients_has_no_interval_and_names_it():
    ours = segmenter(*rare(), 2)
    row = by_name(rows(ours, ["one", "two"], HOW))["dsc", MACRO]
    assert np.isnan([row["low"], row["high"]]).all()
    assert "no interval: 2 patients, fewer than 10" in row["note"]
    assert "few patients have a value of two (2)" in row["note"]
    assert np.isnan(ours.resampled("dsc", HOW).interval()[0])  # so differences have none either
    lone = by_name(rows(segmenter(*(each[:9] for each in rare()), 2), ["one", "two"], HOW))["dsc", MACRO]
    assert "have a value of" not in lone["note"]  # all are few


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_macros_are_the_plain_loops_over_resampled_cases(seed):
    truth, prediction = maps(seed)
    ours, drawn = segmenter(truth, prediction, 3), counts(6, 5, seed)
    for metric in ("dsc", "iou"):
        found = ours.estimate(metric, drawn.astype(float))[:, -1]
        for resample in range(5):
            repeated = np.repeat(ours.cases[metric], drawn[:, resample], axis=0)
            means = [column[~np.isnan(column)].mean() for column in repeated.T if not np.isnan(column).all()]
            expected = np.mean(means) if means else np.nan
            assert found[resample] == pytest.approx(expected, nan_ok=True)


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="truth is"):
        confusion(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), 1)
    with pytest.raises(ValueError, match="label 3"):
        confusion(np.full((2, 2), 3, np.uint8), np.zeros((2, 2), np.uint8), 2)
