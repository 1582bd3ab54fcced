import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from radprobe.metrics.classification import MACRO, Classifier, rows, sigmoid32
from radprobe.metrics.options import Bootstrap

HOW = Bootstrap(resamples=200, seed=0, min_patients=10)


def random_case(seed, n, levels):
    generator = np.random.default_rng(seed)
    scores = generator.integers(-levels, levels + 1, n) / 4  # few levels: many ties
    targets = generator.integers(0, 2, n).astype(float)
    targets[:2] = 0, 1
    return scores, targets, generator.choice([0.0, 1.0, 2.0, 0.37], n)


@given(st.integers(0, 10**6), st.integers(4, 60), st.integers(1, 100))
@settings(max_examples=150, deadline=None)
def test_areas_are_those_of_sklearn_with_ties_and_weights(seed, n, levels):
    scores, targets, weights = random_case(seed, n, levels)
    ours = Classifier(scores[:, None], targets[:, None], [f"{i:03d}" for i in range(n)])
    found = ours.areas(np.stack([np.ones(n), weights], axis=1))[:, 0]
    for row, weight in zip(found, (None, weights), strict=True):
        used = np.ones(n) if weight is None else weight
        if not (used[targets == 1].any() and used[targets == 0].any()):
            assert np.isnan(row).all()
            continue
        assert row[0] == pytest.approx(roc_auc_score(targets, scores, sample_weight=weight), abs=1e-12)
        assert row[1] == pytest.approx(average_precision_score(targets, scores, sample_weight=weight), abs=1e-12)


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_patient_weights_repeat_all_samples_of_a_patient(seed):
    scores, targets, _ = random_case(seed, 40, 8)
    patients = np.random.default_rng(seed).integers(0, 9, 40)
    names = [f"p{p}" for p in patients]
    _, codes = np.unique(patients, return_inverse=True)
    drawn = np.random.default_rng(seed).integers(0, 4, codes.max() + 1).astype(float)
    again = np.repeat(np.arange(40), drawn[codes].astype(int))
    got = Classifier(scores[:, None], targets[:, None], names).areas(drawn[:, None])[0, 0, 0]
    if len(set(targets[again])) == 2:
        assert got == pytest.approx(roc_auc_score(targets[again], scores[again]), abs=1e-12)
    else:
        assert np.isnan(got)


def table(scores, targets, classes, patients=None, how=HOW, logits=None):
    patients = np.arange(len(scores)).astype(str) if patients is None else patients
    found = rows(scores, scores if logits is None else logits, targets, classes, patients, how)
    return {(row["metric"], row["class"]): row for row in found}


def three_classes(n=60):
    """Class a can be ranked; b has no positives; c is unknown for two thirds of the samples."""
    generator = np.random.default_rng(0)
    a = (np.arange(n) % 2).astype(float)
    c = np.where(np.arange(n) % 3, np.nan, a)
    c[1] = -1
    scores = generator.normal(size=(n, 3)) + a[:, None]
    return scores, np.stack([a, np.zeros(n), c], axis=1)


def test_d08_an_undefined_class_is_missing_counted_and_never_zero():
    scores, targets = three_classes()
    found = table(scores, targets, ["a", "b", "c"])
    b = found["auroc", "b"]
    assert np.isnan([b["value"], b["low"], b["high"]]).all()
    assert b["note"] == "undefined: no positives"
    assert b["n_classes"] == 0
    whole = found["auroc", MACRO]
    assert whole["n_classes"] == 2
    assert whole["value"] == pytest.approx((found["auroc", "a"]["value"] + found["auroc", "c"]["value"]) / 2)
    assert "left out, undefined: b" in whole["note"]
    assert found["auroc", "c"]["n_samples"] == 20
    patients = np.arange(len(scores)).astype(str)
    compared = Classifier(scores, targets, patients).auroc(np.ones((len(scores), 1)))  # in paired comparisons
    assert compared == pytest.approx([whole["value"]])


def test_the_studys_macro_counts_an_undefined_class_as_zero():
    scores, targets = three_classes()
    found = table(scores, targets, ["a", "b", "c"])
    assert found["auroc_study", MACRO]["value"] == pytest.approx(found["auroc", MACRO]["value"] * 2 / 3, abs=1e-6)
    assert "counted as 0: b" in found["auroc_study", MACRO]["note"]


def test_d23_the_studys_macro_ranks_saturated_sigmoids():
    scores = np.array([[200.0], [100.0], [120.0], [-5.0]])  # all but the last saturate to 1 in float32
    targets = np.array([[1.0], [0.0], [1.0], [0.0]])
    assert sigmoid32(scores)[:3].tolist() == [[1.0]] * 3
    found = table(scores, targets, ["a"])
    assert found["auroc", MACRO]["value"] == 1
    assert found["auroc_study", MACRO]["value"] == pytest.approx(0.75)


def test_d09_the_studys_macro_ranks_logits_where_ours_ranks_their_softmax():
    """D09: of three classes one is true. A logit alone may rank otherwise than the probability does."""
    from scipy.special import log_softmax

    generator = np.random.default_rng(0)
    logits, targets = generator.normal(size=(60, 3)) + 2 * generator.normal(size=(60, 1)), np.eye(3)[np.arange(60) % 3]
    logits += targets
    scores = log_softmax(logits, axis=1)
    found = table(scores, targets, ["a", "b", "c"], logits=logits)
    assert found["auroc", MACRO]["value"] == pytest.approx(roc_auc_score(targets, scores))
    assert found["auroc_study", MACRO]["value"] == pytest.approx(roc_auc_score(targets, logits), abs=1e-6)
    assert found["auroc_study", MACRO]["value"] < found["auroc", MACRO]["value"] - 0.02


def test_the_interval_holds_the_value_and_narrows_with_patients():
    widths = []
    for n in (30, 300):
        scores, targets = three_classes(n)
        row = table(scores, targets, ["a", "b", "c"])["auroc", "a"]
        assert row["low"] < row["value"] < row["high"]
        widths.append(row["high"] - row["low"])
    assert widths[1] < widths[0] / 2


def test_copies_of_the_images_of_a_patient_do_not_narrow_the_interval():
    scores, targets = three_classes(40)
    patients = np.arange(40).astype(str)
    once = table(scores, targets, ["a", "b", "c"], patients)["auroc", "a"]
    fivefold = [np.repeat(each, 5, axis=0) for each in (scores, targets, patients)]
    copied = table(fivefold[0], fivefold[1], ["a", "b", "c"], fivefold[2])["auroc", "a"]
    assert [copied[key] for key in ("value", "low", "high")] == pytest.approx(
        [once[key] for key in ("value", "low", "high")]
    )
    assert copied["n_patients"] == 40
    assert copied["n_samples"] == 200


def test_under_ten_patients_the_value_stands_without_an_interval():
    scores, targets = three_classes(60)
    row = table(scores, targets, ["a", "b", "c"], (np.arange(60) % 9).astype(str))["auroc", "a"]
    assert row["value"] > 0.5
    assert np.isnan([row["low"], row["high"]]).all()
    assert "9 patients" in row["note"]


def few_positives(*positives, n=200):
    """Scores and targets of n patients with so many positives in each class, and their rows by metric and class."""
    generator = np.random.default_rng(1)
    targets = np.column_stack([np.arange(n) < k for k in positives]).astype(float)
    classes = list("abc"[: len(positives)])
    return table(targets + generator.normal(0, 1, targets.shape), targets, classes, np.arange(n))


def test_values_alone_are_over_the_classes_that_have_intervals():
    generator = np.random.default_rng(1)
    targets = np.column_stack([np.arange(200) < k for k in (40, 3)]).astype(float)
    scores = targets + generator.normal(size=targets.shape)
    how = Bootstrap(100, 0, 10)
    found = [
        {(row["metric"], row["class"]): (row["value"], row["n_classes"]) for row in of}
        for of in (rows(scores, scores, targets, ["a", "b"], np.arange(200), each) for each in (how, how.alone))
    ]
    assert found[0] == found[1]
    assert found[0]["auroc", MACRO][1] == 1


def test_resamples_of_few_positives_give_no_interval_however_many_patients_there_are():
    found = few_positives(3)
    for name in ("a", MACRO):
        for metric in ("auroc", "auprc"):
            row = found[metric, name]
            assert np.isnan([row["low"], row["high"]]).all()
            assert "no interval: 3 patients with the rarer label, fewer than 10" in row["note"]
            assert row["n_patients"] == 200
    assert not np.isnan(few_positives(197)["auroc", "a"]["value"])
    assert np.isnan(few_positives(197)["auroc", "a"]["low"])  # negatives are the rarer ones


def test_a_macro_is_over_the_classes_with_enough_patients_and_names_the_others():
    found = few_positives(40, 3)
    assert found["auroc", "a"]["low"] < found["auroc", "a"]["value"]
    assert np.isnan(found["auroc", "b"]["low"])
    row = found["auroc", MACRO]
    assert row["value"] == found["auroc", "a"]["value"]
    assert row["low"] < row["value"] < row["high"]
    assert row["n_classes"] == 1
    assert "left out, few patients have the rarer label: b (3)" in row["note"]
    assert np.isnan(found["auroc_study", MACRO]["low"])
    none = few_positives(4, 3)
    assert none["auroc", MACRO]["n_classes"] == 2
    assert none["auroc", MACRO]["value"] == np.mean([none["auroc", name]["value"] for name in "ab"])
    assert np.isnan(none["auroc", MACRO]["low"])
    assert "left out" not in few_positives(40, 50)["auroc", MACRO]["note"]


# --- out of fold ------------------------------------------------------------------------------------------------------


def folded_case(seed, n=60, k=4):
    """Scores of k heads, each on a scale of its own."""
    generator = np.random.default_rng(seed)
    scores, targets, _ = random_case(seed, n, 8)
    folds = generator.integers(1, k + 1, n)
    own_scale = generator.uniform(0.1, 10, k + 1)[folds] * scores + generator.normal(0, 5, k + 1)[folds]
    return own_scale, targets, folds, generator.integers(0, 20, n)


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_out_of_fold_areas_are_means_over_folds_of_sklearns_by_pairs_and_by_positives(seed):
    scores, targets, folds, patients = folded_case(seed)
    classifier = Classifier(scores[:, None], targets[:, None], patients, folds)
    weights = np.random.default_rng(seed).integers(0, 3, (classifier.patients, 3)).astype(float)
    weights[:, 0] = 1
    for found, weight in zip(classifier.areas(weights)[:, 0], weights.T, strict=True):
        used = weight[classifier.units]
        sums = np.zeros(4)
        for fold in np.unique(folds):
            rows = (folds == fold) & (used > 0)
            positive, negative = (used[rows & (targets == label)].sum() for label in (1, 0))
            if not positive or not negative:
                continue
            of_fold = (targets[rows], scores[rows])
            area, precision = (f(*of_fold, sample_weight=used[rows]) for f in (roc_auc_score, average_precision_score))
            pairs = positive * negative
            sums += [pairs * area, pairs, positive * precision, positive]
        expected = [sums[0] / sums[1], sums[2] / sums[3]] if sums[1] else [np.nan, np.nan]
        np.testing.assert_allclose(found, expected, atol=1e-12)


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_the_scale_of_a_folds_scores_does_not_matter_and_one_fold_is_no_fold(seed):
    scores, targets, folds, patients = folded_case(seed)
    ones = np.ones((len(np.unique(patients)), 1))
    moved = scores * (1 + folds) - 100 * folds
    one, other = (Classifier(each[:, None], targets[:, None], patients, folds) for each in (scores, moved))
    np.testing.assert_array_equal(one.areas(ones), other.areas(ones))
    whole, single = (Classifier(scores[:, None], targets[:, None], patients, of) for of in (None, np.ones(len(folds))))
    np.testing.assert_array_equal(whole.areas(ones), single.areas(ones))
    assert whole.support == single.support == one.support


def test_pooled_scores_of_unlike_heads_would_be_ranked_wrongly():
    targets = np.tile([0.0, 1.0], 10)
    folds = np.repeat([1, 2], 10)
    scores = targets + 100 * (folds == 2) * (1 - targets[0])
    patients = np.arange(20)
    ones = np.ones((20, 1))
    assert Classifier(scores[:, None], targets[:, None], patients, folds).auroc(ones)[0] == 1
    assert Classifier(scores[:, None], targets[:, None], patients).auroc(ones)[0] == pytest.approx(0.75)
