from collections import Counter

import numpy as np
import pandas as pd
import pytest
import running
import synthetic_study
from scipy.stats import rankdata
from small_params import NO_CONTROLS

from radprobe.artifacts import Comparison, LabelMaps, Predictions, Scores, Truth
from radprobe.files import RadprobeError
from radprobe.metrics import calibration, scoring
from radprobe.metrics.resampling import counts
from radprobe.metrics.surfaces import METRICS
from radprobe.stages import score


def scores(root, dataset, backbone):
    return Scores.load(synthetic_study.study(root).steps["score", dataset, backbone].folder)


def test_scores_hold_every_protocol_part_metric_and_class(finished):
    table = scores(finished, "nih_chestxray14", "derived").table
    few_shot = table["protocol"].str.startswith("few-shot")
    protocols = {"knn", "mlknn", "linear", "linear@paper", "logistic", "shuffled"}
    assert set(table.loc[~few_shot, "protocol"]) == protocols
    assert set(table["part"]) == {"val", "test"}
    ranked, operating = 2 * (2 * 15 + 1), 6 * 15  # by class and macro, auroc_study; on test alone
    assert len(table[~few_shot]) == len(protocols) * (ranked + operating)
    assert set(table.loc[table["metric"] == "f1", "part"]) == {"test"}
    assert set(table.loc[few_shot, "part"]) == {"test"}
    chosen = table[(table["part"] == "test") & (table["class"] == "macro") & (table["protocol"] == "linear")]
    chosen = chosen.set_index("metric")
    assert chosen.loc["auroc", "n_classes"] == 13
    assert "Hernia" in chosen.loc["auroc", "note"]
    assert chosen.loc["auroc_study", "value"] == pytest.approx(chosen.loc["auroc", "value"] * 13 / 14, abs=1e-3)
    assert (table["seconds"] == 180).all()  # 150 of embedding, 30 of fitting
    assert (table["peak_gb"] == 1.5).all()


def test_the_score_of_a_known_prediction_is_that_of_sklearn(finished):
    from sklearn.metrics import roc_auc_score

    step = synthetic_study.study(finished).steps["probe", "nih_chestxray14", "derived"]
    table = Predictions.load(step.folder).table.query("protocol == 'knn' and part == 'test'")
    expected = roc_auc_score(table["target:Mass"], table["score:Mass"])
    found = scores(finished, "nih_chestxray14", "derived").table
    row = found.query("protocol == 'knn' and part == 'test' and metric == 'auroc'").set_index("class").loc["Mass"]
    assert row["value"] == pytest.approx(expected, abs=1e-12)
    assert row["low"] < expected < row["high"]


def test_segmentation_keeps_the_cases_behind_the_mean(finished):
    found = scores(finished, "montgomery", "derived")
    cases = found.cases.query("part == 'test' and metric == 'dsc' and `class` == 'macro'")
    assert len(cases) == cases["case_id"].nunique() == 24
    row = found.table.query("part == 'test' and metric == 'dsc_by_case' and `class` == 'macro'").iloc[0]
    assert row["value"] == pytest.approx(cases["value"].mean())
    overlaps = {"dsc", "dsc_by_case", "iou", "dsc_pooled", "jaccard_study", "dsc_without_near"}
    assert set(found.table["metric"]) == {*METRICS, *overlaps}


def test_the_temperature_comes_from_val_alone(root):
    study = synthetic_study.study(root)
    step = study.steps["probe", "nih_chestxray14", "derived"]
    before = scores(root, "nih_chestxray14", "derived")
    predictions = Predictions.load(step.folder)
    table, targets = predictions.table, [name for name in predictions.table if name.startswith("target:")]
    val, test = (table["part"] == part for part in ("val", "test"))
    logits, labels = (
        table[val & (table["protocol"] == "linear")].filter(like=f"{kind}:") for kind in ("score", "target")
    )
    temperature = calibration.temperature(logits.to_numpy(), labels.to_numpy(), {})
    shuffled = np.random.default_rng(0).permutation(test.sum())
    table.loc[test, targets] = table.loc[test, targets].to_numpy()[shuffled]
    predictions.save(step.place)
    running.run(study, study.steps["score", "nih_chestxray14", "derived"])
    after = scores(root, "nih_chestxray14", "derived")
    assert not after.table.equals(before.table)
    notes = [each.table.loc[each.table["metric"] == "brier_recalibrated", "note"].tolist() for each in (before, after)]
    assert notes[0] == notes[1]
    rows = before.table.query("protocol == 'linear' and `class` == 'macro' and part == 'test'").set_index("metric")
    for metric in ("brier_recalibrated", "ece_recalibrated"):
        assert rows.loc[metric, "note"].startswith(f"temperature {temperature:.3g}, fitted on val")
    assert rows.loc["brier_recalibrated", "value"] < rows.loc["brier", "value"]


def test_without_labels_of_val_nothing_is_recalibrated_and_it_says_so(root):
    study = synthetic_study.study(root)
    step = study.steps["probe", "nih_chestxray14", "derived"]
    predictions = Predictions.load(step.folder)
    targets = [name for name in predictions.table if name.startswith("target:")]
    predictions.table.loc[predictions.table["part"] == "val", targets] = np.nan
    predictions.save(step.place)
    running.run(study, study.steps["score", "nih_chestxray14", "derived"])
    after = scores(root, "nih_chestxray14", "derived")
    rows = after.table[after.table["metric"].str.endswith("_recalibrated")]
    assert len(rows) == 2 * 15 * 6
    assert rows["value"].isna().all()
    assert set(rows["note"]) == {"undefined: no temperature minimises the loss of val"}
    assert after.table.query("metric == 'brier' and `class` == 'macro'")["value"].notna().all()


def test_better_predictions_are_significantly_better(finished):
    step = synthetic_study.study(finished).steps["compare", "montgomery", None]
    table = Comparison.load(step.folder).table
    pairs = {frozenset(pair) for pair in zip(table["backbone"], table["other"], strict=True)}
    assert len(table) == len(pairs) == 15  # every two of six
    row = table.set_index(["backbone", "other"]).loc[("derived", "random:derived")]
    values = [
        scores(finished, "montgomery", name).table.query("part == 'test' and metric == 'dsc' and `class` == 'macro'")
        for name in ("derived", "random:derived")
    ]
    assert row["difference"] == pytest.approx(values[0]["value"].item() - values[1]["value"].item())
    assert 0 < row["low"] < row["difference"] < row["high"]
    assert row["p"] <= 0.05
    assert row["needed_low"] < row["needed"] < row["needed_high"]


def test_rows_say_who_may_be_the_best_and_correct_the_best_alone(finished):
    rows = Comparison.load(synthetic_study.study(finished).steps["compare", "montgomery", None].folder).rows
    rows = rows.set_index("backbone")
    candidates = [name for name in rows.index if name in ("derived", "tf_efficientnet_lite0")]
    best = rows.loc[candidates, "value"].idxmax()
    assert rows.loc[best, "may_be_best"]
    assert rows["corrected"].notna().sum() == 1
    assert rows.loc[best, "corrected_low"] <= rows.loc[best, "corrected"] <= rows.loc[best, "value"]
    assert not rows.loc[rows.index.str.startswith("random"), "may_be_best"].any()


def test_the_inits_of_a_random_backbone_are_one_row_whose_variance_enters_the_difference(finished):
    step = synthetic_study.study(finished).steps["compare", "nih_chestxray14", None]
    comparison = Comparison.load(step.folder)
    assert not comparison.table["backbone"].str.contains("~").any()
    rows = comparison.rows.query("protocol == 'linear'").set_index("backbone")
    inits = ["random:derived", "random:derived~2"]
    query = "protocol == 'linear' and part == 'test' and metric == 'auroc' and `class` == 'macro'"
    values = [scores(finished, "nih_chestxray14", name).table.query(query)["value"].item() for name in inits]
    assert rows.loc["random:derived", "n_inits"] == 2
    assert rows.loc["random:derived", "value"] == pytest.approx(np.mean(values))
    assert rows.loc["random:derived", "init_sd"] == pytest.approx(np.std(values, ddof=1))
    assert rows.loc["derived", "n_inits"] == 1
    pairs = comparison.table.query("protocol == 'linear'").set_index(["backbone", "other"])
    row = pairs.loc[("derived", "random:derived")]
    assert row["difference"] == pytest.approx(rows.loc["derived", "value"] - np.mean(values))
    assert row["standard_error"] > 0


def variants(root, dataset):
    return Comparison.load(synthetic_study.study(root).steps["compare", dataset, None].folder).variants


def test_what_the_study_did_is_paired_with_ours_by_the_catalogs_pairs_and_controls_are_not(finished):
    films, lungs = variants(finished, "nih_chestxray14"), variants(finished, "montgomery")
    pairs = {(row.protocol, row.metric, row.other_protocol, row.other_metric) for row in films.itertuples()}
    heads = ("knn", "mlknn", "linear", "linear@paper", "logistic")
    of_metric = {(name, "auroc", name, "auroc_study") for name in heads}
    assert pairs == {("linear", "auroc", "linear@paper", "auroc"), *of_metric}
    assert set(lungs["other_metric"]) == {"dsc_pooled", "jaccard_study"}
    assert {*films["backbone"], *lungs["backbone"]} == {"derived", "tf_efficientnet_lite0"}


def rank_sum_auroc(scores, targets):
    """Macro AUROC by the rank-sum formula, over the classes that have positives and negatives."""
    ranks, positives = rankdata(scores, axis=0), targets.sum(0)
    with np.errstate(invalid="ignore"):
        of_classes = (ranks * targets).sum(0) - positives * (positives + 1) / 2
        return np.nanmean(of_classes / (positives * (len(targets) - positives)))


def test_the_interval_of_a_variant_is_that_of_plainly_repeated_patients(finished):
    step = synthetic_study.study(finished).steps["probe", "nih_chestxray14", "derived"]
    table = Predictions.load(step.folder).table.query("part == 'test'")
    of = {name: each.sort_values("sample_id") for name, each in table.groupby("protocol")}
    targets = of["linear"].filter(like="target:").to_numpy()
    both = [of[name].filter(like="score:").to_numpy() for name in ("linear", "linear@paper")]
    enough = (targets.sum(0) >= 10) & (targets.sum(0) <= 70)
    drawn = counts(80, 200, 0)
    rows = [np.repeat(np.arange(80), drawn[:, resample]) for resample in range(200)]
    one, other = (scores[:, enough] for scores in both)
    targets = targets[:, enough]
    apart = [rank_sum_auroc(other[each], targets[each]) - rank_sum_auroc(one[each], targets[each]) for each in rows]
    found = variants(finished, "nih_chestxray14").query("backbone == 'derived' and other_protocol == 'linear@paper'")
    row = found.query("protocol == 'linear'").iloc[0]
    assert row["difference"] == pytest.approx(rank_sum_auroc(other, targets) - rank_sum_auroc(one, targets))
    half = (row["high"] - row["low"]) / 2
    assert row["difference"] == pytest.approx((row["high"] + row["low"]) / 2)
    assert 1.9 * np.std(apart) < half < 2.3 * np.std(apart)


def test_scoring_again_gives_the_same_table(root):
    study = synthetic_study.study(root)
    before = scores(root, "nih_chestxray14", "derived").table
    running.run(study, study.steps["score", "nih_chestxray14", "derived"])
    assert scores(root, "nih_chestxray14", "derived").table.equals(before)


def test_what_stands_beside_every_protocol_is_scored_once_and_gives_the_same(root, monkeypatch):
    study = synthetic_study.build(root, adapt={"backbones": ["derived"]})
    times = Counter()

    class Counted(scoring.Classified):
        def __init__(self, predictions, protocol, part, *more):
            times[protocol, part, len(predictions.table), float(predictions.table.iloc[0, 4])] += 1
            super().__init__(predictions, protocol, part, *more)

    monkeypatch.setattr(scoring, "Classified", Counted)
    step = study.steps["compare", "nih_chestxray14", None]
    before = Comparison.load(step.folder)
    running.run(study, step)
    assert {protocol for protocol, *_ in times} >= {"lora", "linear"}
    assert set(times.values()) == {1}
    after = Comparison.load(step.folder)
    pd.testing.assert_frame_equal(after.table, before.table)
    pd.testing.assert_frame_equal(after.variants, before.variants)
    pd.testing.assert_frame_equal(after.rows, before.rows)
    beside = before.table.query("backbone == 'derived+lora' or other == 'derived+lora'")
    assert beside["protocol"].nunique() == 5
    times.clear()
    running.run(study, study.steps["score", "nih_chestxray14", "derived+lora"])
    assert set(times.values()) == {1}


def test_one_backbone_alone_has_an_empty_comparison(tmp_path):
    study = synthetic_study.build(tmp_path, backbones=["test_vit"], controls=NO_CONTROLS)
    assert Comparison.load(study.steps["compare", "montgomery", None].folder).table.empty


def test_different_test_samples_are_not_compared(root):
    study = synthetic_study.study(root)
    step = study.steps["probe", "nih_chestxray14", "derived"]
    predictions = Predictions.load(step.folder)
    predictions.table = predictions.table[predictions.table["sample_id"] != "p0150"]
    predictions.save(step.place)
    with pytest.raises(RadprobeError, match="different samples"):
        running.run(study, study.steps["compare", "nih_chestxray14", None])


def test_a_score_that_is_not_a_number_is_named(root):
    study = synthetic_study.study(root)
    step = study.steps["probe", "nih_chestxray14", "derived"]
    predictions = Predictions.load(step.folder)
    predictions.table.loc[predictions.table["sample_id"] == "p0150", "score:Mass"] = np.nan
    predictions.save(step.place)
    with pytest.raises(RadprobeError, match="p0150"):
        running.run(study, study.steps["score", "nih_chestxray14", "derived"])


def test_a_part_without_predictions_is_refused(root):
    study = synthetic_study.study(root)
    step = study.steps["probe", "nih_chestxray14", "derived"]
    predictions = Predictions.load(step.folder)
    predictions.table = predictions.table[predictions.table["part"] == "val"]
    predictions.save(step.place)
    with pytest.raises(RadprobeError, match="knn, test: has no prediction"):
        running.run(study, study.steps["score", "nih_chestxray14", "derived"])


def test_a_prediction_on_another_grid_is_refused(root):
    study = synthetic_study.study(root)
    step = study.steps["segment", "montgomery", "derived"]
    predictions = Predictions.load(step.folder)
    small = [
        (f"p{n}", f"p{n}", part, np.zeros((4, 4), np.uint8), []) for n, part in (("0040", "val"), ("0050", "test"))
    ]
    LabelMaps.write(step.folder, "linear-decoder", small)
    predictions.save(step.place)
    with pytest.raises(RadprobeError, match=r"p0040.*truth is \(64, 64\)"):
        running.run(study, study.steps["score", "montgomery", "derived"])


def test_the_score_without_near_duplicates_leaves_out_just_those(finished):
    found, folder = scores(finished, "montgomery", "derived"), finished
    table = found.table[(found.table["part"] == "test") & (found.table["class"] == "macro")].set_index("metric")
    cases = found.cases[(found.cases["part"] == "test") & (found.cases["metric"] == "dsc")]
    cases = cases[cases["class"] == "macro"].set_index("case_id")["value"]
    last = cases.index.max()
    assert table.loc["dsc", "value"] == pytest.approx(cases.mean())  # every case has both lungs
    assert table.loc["dsc_without_near", "value"] == pytest.approx(cases.drop(last).mean())
    assert table.loc["dsc_without_near", "n_patients"] == table.loc["dsc", "n_patients"] - 1
    assert not (scores(folder, "nih_chestxray14", "derived").table["metric"] == "auroc_without_near").any()


def test_where_every_test_case_looks_like_a_copy_all_else_is_scored(root, monkeypatch):
    study = synthetic_study.study(root)
    monkeypatch.setattr(score, "_near_cases", lambda inputs: set(Truth.load(inputs.folder("prepare")).maps.table.index))
    step = study.steps["score", "montgomery", "derived"]
    running.run(study, step)
    table = Scores.load(step.folder).table
    rows = table[(table["part"] == "test") & (table["class"] == "macro")].set_index("metric")
    assert rows.loc["dsc", "value"] > 0
    assert np.isnan(rows.loc["dsc_without_near", "value"])
    assert "every test case looks like a copy" in rows.loc["dsc_without_near", "note"]


def test_few_shot_rows_are_means_and_ranges_over_the_draws(finished):
    from sklearn.metrics import roc_auc_score

    found = scores(finished, "nih_chestxray14", "derived")
    step = synthetic_study.study(finished).steps["probe", "nih_chestxray14", "derived"]
    predictions = Predictions.load(step.folder)
    tests = predictions.table.query("protocol == 'knn' and part == 'test'").sort_values("sample_id")
    for row, scored in zip(found.draws.itertuples(), predictions.few_shot.scores, strict=True):
        areas = [
            roc_auc_score(tests[f"target:{name}"], scored[:, column])
            for column, name in enumerate(predictions.classes)
            if tests[f"target:{name}"].nunique() == 2 and np.isfinite(scored[:, column]).all()
        ]
        assert row.value == pytest.approx(np.mean(areas), abs=1e-9)
        assert row.n_classes == len(areas)
        if len(areas) == 13:  # all but Hernia, which has no positive in test and counts as 0
            assert row.auroc_study == pytest.approx(np.sum(areas) / 14, abs=1e-3)  # float32 sigmoids make ties
        else:
            assert np.isnan(row.auroc_study)
    ours = found.draws[found.draws["protocol"] == "few-shot"]
    for shots, each in ours.groupby("shots"):
        rows = found.table[found.table["protocol"] == f"few-shot {shots or 'all'}"]
        assert set(rows["metric"]) == ({"auroc"} if shots == 1 else {"auroc", "auroc_study"})  # all lack a class
        (row,) = rows[rows["metric"] == "auroc"].itertuples()
        assert row.value == pytest.approx(each["value"].mean())
        if len(each) > 1:
            assert (row.low, row.high) == (each["value"].min(), each["value"].max())
            assert f"range of {len(each)} draws, not over patients" in row.note
        else:
            assert np.isnan(row.low)


def test_distances_between_surfaces_of_films_are_in_pixels_and_say_so(finished):
    table = scores(finished, "montgomery", "derived").table.set_index("metric")
    for metric in ("hd95", "assd"):
        assert table.loc[metric, "note"].str.startswith("in pixels: spacing unknown").all()
    assert not table.loc["dsc", "note"].str.contains("pixels").any()


@pytest.mark.parametrize("finer", [1, 4])
def test_the_tolerance_of_films_follows_their_size_and_that_of_volumes_is_in_mm(tmp_path, finer):
    labels = np.zeros((2, 50, 100), np.uint8)
    labels[0, :, 20:40] = labels[1, :, 21:41] = 1  # sideways by 10 thousandths of the longer side
    labels = np.kron(labels, np.ones((finer, finer), np.uint8))

    def agree(spacing, tolerance):
        for name, each in zip(("truth", "found"), labels, strict=True):
            LabelMaps.write(tmp_path, name, [("a", "a", "test", each, spacing)])
        maps = {"p": LabelMaps.read(tmp_path, "found")}
        truth = Truth(LabelMaps.read(tmp_path, "truth"), {})
        found = scoring.Segmented(Predictions(["one"], maps=maps, facts={}), "p", "test", truth, tolerance=tolerance)
        return found.segmenter.cases["nsd"].item() == 1

    assert agree([], 10)
    assert not agree([], 9)
    assert agree([0.5, 0.5], finer * 0.5)
    assert not agree([0.5, 0.5], finer * 0.45)
