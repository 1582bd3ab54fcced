import math
from types import SimpleNamespace

import pytest
import synthetic_study

from radprobe.report import canvas, ranking, ranks
from radprobe.report.collect import Findings
from radprobe.report.ranking import Column, Estimate

CONTROLS = frozenset({"random:a", "pixels"})
FAMILIES = {"a": "supervised", "b": "self-supervised", "c": "medical", "d": "own", "a@paper": "supervised"}


def column(dataset, scores, resolved=True):
    """A column of scores by backbone; every difference is resolved, or none is."""
    values = {name: Estimate(value, value - 0.01, value + 0.01, 50) for name, value in scores.items()}
    width = 0.0 if resolved else 1.0
    differences = {
        (one, other): Estimate(first - second, first - second - width, first - second + width, 50)
        for one, first in scores.items()
        for other, second in scores.items()
        if one != other
    }
    return Column(dataset, "linear", "auroc", values, {}, CONTROLS, differences)


def findings(*datasets):
    return SimpleNamespace(
        datasets={name: SimpleNamespace(title=name.upper()) for name in datasets},
        title=lambda name: f"<{name}>",
        family=FAMILIES.__getitem__,
    )


def study_of(n, **changed):
    """Heads of n tasks with the same order a, b, c; `changed` replaces some."""
    scores = {"a": 0.9, "b": 0.8, "c": 0.7, "random:a": 0.6, "pixels": 0.5}
    heads = {f"t{at}": column(f"t{at}", scores) for at in range(n)} | changed
    return findings(*heads), heads


def drawn_of(study, found):
    return canvas.render(lambda: ranks.draw(study, found))["svg"].decode()


def test_backbones_are_ranked_and_scaled_between_control_and_best():
    found = ranks.across(*study_of(6))
    assert found.ranking.mean == {"a": 1, "b": 2, "c": 3}
    assert found.scaled["t0"] == pytest.approx({"a": 1, "b": 2 / 3, "c": 1 / 3})
    assert found.means["b"].value == pytest.approx(2 / 3)
    assert found.means["b"].low == pytest.approx(2 / 3)  # all tasks are alike
    assert found.left_out == []
    assert ranks.finding(found, str.upper) == (
        "3 frozen backbones over 6 tasks: A has the best mean rank, not critically apart from 1 of 2 others"
    )


def test_few_tasks_are_ranked_but_told_to_be_few():
    found = ranks.across(*study_of(2))
    assert "too few tasks for any two to differ significantly" in ranks.finding(found, str)
    assert found.means["a"].note == "no interval: 2 tasks, fewer than 6"
    assert math.isnan(found.means["a"].low)


def test_no_order_is_claimed_where_the_friedman_test_finds_none():
    heads = {}
    for at in range(6):
        names = ("abc", "bca", "cab")[at % 3]
        scores = dict(zip(names, (0.9, 0.8, 0.7), strict=True))
        heads[f"t{at}"] = column(f"t{at}", {**scores, "pixels": 0.5})
    found = ranks.across(findings(*heads), heads)
    assert ranks.finding(found, str) == "3 frozen backbones over 6 tasks: no significant order (Friedman test, p = 1)"


def test_tasks_and_backbones_that_do_not_fit_are_left_out_with_their_reasons():
    few = column("few", {"a": 0.9, "b": 0.8, "pixels": 0.5})
    more = column("more", {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.95, "a@paper": 0.99, "pixels": 0.5})
    bare = column("bare", {"a": 0.9, "b": 0.8, "c": 0.7})
    level = column("level", {"a": 0.9, "b": 0.8, "c": 0.7, "pixels": 0.88}, resolved=False)
    found = ranks.across(*study_of(2, few=few, more=more, bare=bare, level=level))
    assert found.ranking.tasks == ["t0", "t1", "more", "bare", "level"]
    assert found.ranking.backbones == ["a", "b", "c"]
    assert found.left_out == [
        "FEW: backbones scored on it, controls apart: 2; ranks need 3 or more",
        "BARE: no scale, neither a random init nor raw pixels were scored",
        "LEVEL: no scale, its best backbone is not significantly higher than its best control",
        "<d>: scored on 1 of 5 tasks",
    ]
    assert list(found.scaled) == ["t0", "t1", "more"]
    assert found.scaled["more"]["a"] == pytest.approx((0.9 - 0.5) / (0.95 - 0.5))  # its best is d, ranked or not
    assert found.means["a"].note == "no interval: 3 tasks, fewer than 6"


def test_frozen_and_trained_are_ranked_apart_each_on_a_scale_of_its_own():
    frozen = {"a": 0.7, "b": 0.8, "c": 0.75, "pixels": 0.5}
    trained = {"a+lora": 0.95, "b+lora": 0.85, "c+lora": 0.9, "unet": 0.6}
    heads = {f"t{at}": column(f"t{at}", {**frozen, **trained}) for at in range(2)}
    one, two = (ranks.across(findings(*heads), heads, trained=which) for which in (False, True))
    assert list(one.ranking.mean) == ["b", "c", "a"]
    assert list(two.ranking.mean) == ["a+lora", "c+lora", "b+lora", "unet"]
    assert one.scaled["t0"]["b"] == two.scaled["t0"]["a+lora"] == 1
    assert one.left_out == [f"<{name}>: trained as a whole, so not ranked with frozen backbones" for name in trained]
    assert two.left_out == []
    assert ranks.finding(two, str).startswith("4 trained backbones over 2 tasks")


def test_without_enough_there_is_a_reason_and_no_number():
    found = ranks.across(*study_of(1))
    assert found.ranking is None
    assert (
        ranks.finding(found, str)
        == "No ranks of frozen backbones across tasks: 1 task, and ranks across tasks need 2 or more"
    )
    assert "No ranks of frozen backbones across tasks" in drawn_of(findings("t0"), found)
    assert ranks.across(findings(), {}).why.startswith("0 tasks")


def test_the_table_has_a_line_a_backbone_with_ties_as_halves():
    tied = column("tied", {"a": 0.8, "b": 0.8, "c": 0.7, "pixels": 0.5})
    lines = ranks.rows(ranks.across(*study_of(1, tied=tied)))
    assert [line.backbone for line in lines] == ["a", "b", "c"]
    assert [[cell.rank for cell in line.tasks] for line in lines] == [["1", "1.5"], ["2", "1.5"], ["3", "3"]]


def test_the_figure_names_every_backbone_and_is_the_same_file_each_time():
    study, heads = study_of(6)
    found = ranks.across(study, heads)
    drawn = drawn_of(study, found)
    for name in found.ranking.backbones:
        assert f"&lt;{name}&gt;" in drawn
    assert "mean rank over 6 tasks" in drawn
    assert drawn_of(study, found) == drawn


def test_the_synthetic_study_has_too_few_backbones_for_ranks(finished, text):
    study = Findings(synthetic_study.study(finished))
    heads = {
        name: ranking.headline([each for each in ranking.columns(study) if each.dataset == name])
        for name in ("montgomery", "nih_chestxray14")
    }
    assert ranks.across(study, heads).why == "0 tasks, and ranks across tasks need 2 or more"
    assert "No ranks of frozen backbones across tasks: 0 tasks" in text
    assert "controls apart: 2; ranks need 3 or more" in text


def test_the_verdict_speaks_of_the_protocol_of_params_and_else_of_a_fixed_one(finished):
    def led(headline=None):
        report = {"report": {"headline": headline}} if headline else {}
        every = ranking.columns(Findings(synthetic_study.study(finished, **report)))
        return {name: head.protocol for name, head in ranking.headlines(every).items()}

    decoder = {"montgomery": "linear-decoder"}
    assert led() == {**decoder, "nih_chestxray14": "logistic"}
    assert led("knn") == {**decoder, "nih_chestxray14": "knn"}
    assert led("unet-decoder@paper") == {**decoder, "nih_chestxray14": "logistic"}  # it was not scored
    scored = [Column("films", protocol, "auroc", {}) for protocol in ("shuffled", "knn", "linear")]
    assert ranking.headline(scored).protocol == "linear"
    assert ranking.headline(scored[:2]).protocol == "knn"
    assert ranking.headline(scored[:1]) is None
