import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radprobe.report import words
from radprobe.report.ranking import Column, Estimate

NAMES = {"x": "X", "y": "Y", "z": "Z", "random:x": "X, random", "random:y": "Y, random"}
CONTROLS = frozenset({"random:x", "random:y", "tiny", "pixels"})


def column(scores, differences, **more):
    estimates = {name: Estimate(value, value - 0.01, value + 0.01, 46) for name, value in scores.items()}
    return Column("montgomery", "linear-decoder", "dsc", estimates, {"x": 180.0}, CONTROLS, differences, **more)


def sentences(scores, differences):
    return words.verdict(column(scores, differences), "segmentation", lambda name: NAMES.get(name, name), "CPU")


def difference(value, low, high):
    return Estimate(value, low, high, 46)


def test_the_verdict_says_what_the_intervals_support():
    said = sentences(
        {"x": 0.95, "y": 0.948, "z": 0.90, "random:x": 0.74, "random:y": 0.7},
        {
            ("x", "y"): difference(0.002, -0.001, 0.006),
            ("z", "x"): difference(-0.05, -0.06, -0.04),  # compared the other way round
            ("x", "random:x"): difference(0.21, 0.18, 0.24),
            ("x", "random:y"): difference(0.25, 0.2, 0.3),
        },
    )
    assert said == [
        "X with a linear decoder: DSC 0.950 [0.940, 0.960].",
        "Not resolvable from Y (difference 0.002 [-0.001, 0.006]).",
        "Resolvably above Z (difference 0.050 [0.040, 0.060]).",
        "Resolvably above the other control row.",
        "Beats its random twin by 0.210 [0.180, 0.240].",
        "Raw pixels were not scored.",
        "Costs 3.0 min of CPU to embed and fit.",
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.01, 0.05, "Beats its random twin by"),
        (-0.01, 0.05, "Flagged: does not beat its random twin"),
        (-0.05, -0.01, "Flagged: scores below its random twin"),
        (math.nan, math.nan, "Against its random twin nothing is established"),
    ],
)
def test_the_twin_is_beaten_only_when_the_interval_says_so(low, high, expected):
    found = column({"x": 0.9, "random:x": 0.8}, {("x", "random:x"): difference(0.02, low, high)})
    assert words.against_controls(found)[0].startswith(expected)
    assert found.unbeaten("x") == (["random:x"] if expected.startswith("Flagged") else [])


def test_both_controls_are_said_in_one_sentence_and_a_loss_to_pixels_is_flagged():
    scores = {"x": 0.9, "random:x": 0.8, "pixels": 0.7}
    gaps = {("x", "random:x"): difference(0.1, 0.08, 0.12), ("x", "pixels"): difference(0.2, 0.1, 0.3)}
    said = words.against_controls(column(scores, gaps))
    assert said == ["Beats its random twin by 0.100 [0.080, 0.120] and raw pixels by 0.200 [0.100, 0.300]."]
    gaps["x", "pixels"] = difference(0.01, -0.1, 0.12)
    beaten, flagged = words.against_controls(column(scores, gaps))
    assert beaten == "Beats its random twin by 0.100 [0.080, 0.120]."
    assert flagged.startswith("Flagged: does not beat raw pixels (difference 0.010")
    assert column(scores, gaps).unbeaten("x") == ["pixels"]


def test_a_study_without_controls_says_so():
    assert words.against_controls(column({"x": 0.9, "y": 0.8}, {})) == [
        "No control was scored: neither a random twin nor raw pixels."
    ]


def test_a_control_that_cannot_be_told_apart_is_named():
    said = sentences(
        {"x": 0.95, "random:y": 0.96, "random:x": 0.5},
        {("x", "random:y"): difference(-0.01, -0.03, 0.01), ("x", "random:x"): difference(0.45, 0.4, 0.5)},
    )
    assert said[0].startswith("X with")  # a control is never announced as the winner
    assert "Control rows: not resolvable from Y, random (difference -0.010 [-0.030, 0.010])." in said


def test_where_only_controls_are_scored_that_is_said():
    said = sentences({"tiny": 0.6, "pixels": 0.5}, {("tiny", "pixels"): difference(0.1, 0.05, 0.15)})
    assert "Every scored backbone is a control: nothing pretrained was tested." in said
    assert not any("random twin" in sentence for sentence in said)


def test_without_intervals_nothing_is_claimed():
    few = {name: Estimate(value, patients=6, note="no interval: 6 patients, fewer than 10") for name, value in
           {"x": 0.9, "y": 0.8}.items()}  # fmt: skip
    gap = Estimate(0.1, patients=6, note="no interval: 6 patients, fewer than 10")
    said = words.verdict(Column("d", "linear", "dsc", few, {}, CONTROLS, {("x", "y"): gap}), "segmentation", str, "CPU")
    assert "No interval: 6 patients, fewer than 10." in said[0]
    assert said[1].startswith(
        "Without an interval, so unresolved, against y (difference 0.100; no interval: 6 patients"
    )
    assert "Resolvably" not in " ".join(said)


def test_why_there_is_no_interval_is_said_without_what_else_the_note_says():
    note = "left out, undefined: Hernia; no interval: 4 patients with the rarer label, fewer than 10"
    found = replace(column({"x": 0.9}, {}), scores={"x": Estimate(0.9, patients=25, note=note)})
    said = words.verdict(found, "multilabel", lambda name: "X", "CPU")[0]
    assert said.endswith("DSC 0.900. No interval: 4 patients with the rarer label, fewer than 10.")


def test_what_makes_an_interval_doubtful_is_said():
    note = "left out, undefined: Hernia; the interval is too narrow, few patients have the rarer label of Mass (3)"
    found = replace(column({"x": 0.9}, {}), scores={"x": Estimate(0.9, 0.8, 0.95, 25, note)})
    said = words.verdict(found, "multilabel", lambda name: "X", "CPU")[:2]
    assert said == ["X with a linear decoder: DSC 0.900 [0.800, 0.950].", f"L{note[1:]}."]


def test_what_keeps_several_from_an_order_is_said_once():
    few = {name: Estimate(0.9 - 0.1 * place, patients=6, note="few") for place, name in enumerate("xyz")}
    gaps = {("x", name): Estimate(0.1, patients=6, note="no interval: few") for name in "yz"}
    said = words.verdict(Column("d", "linear", "dsc", few, {}, CONTROLS, gaps), "segmentation", str, "CPU")
    assert said[1].endswith("against y (difference 0.100) and z (difference 0.100); no interval: few.")


def test_a_missing_comparison_is_told_and_no_order_is_claimed():
    said = " ".join(sentences({"x": 0.9, "y": 0.2, "random:x": 0.1}, {}))
    assert "Not compared, so no order is claimed, with Y." in said
    assert "Not compared with its random twin." in said
    assert "above" not in said


def test_undefined_scores_make_no_winner():
    gone = {"x": Estimate(math.nan, patients=9, note="undefined: no positives")}
    said = words.verdict(Column("d", "linear", "auroc", gone), "multilabel", str, "CPU")
    assert said == ["No score is defined: undefined: no positives."]


@given(st.floats(-1, 1), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_difference_seen_from_the_other_side_has_the_other_sign(value, below, above):
    found = difference(value, value - below, value + above)
    assert found.negated().sign == -found.sign
    ours = column({"x": 0.9, "y": 0.8}, {("x", "y"): found})
    assert ours.difference("y", "x") == found.negated()


@given(st.floats(-1, 1))
def test_the_title_of_a_figure_claims_a_lead_only_when_resolved(low):
    found = column({"x": 0.9, "y": 0.8}, {("x", "y"): difference(max(low, 0) + 0.1, low, 1.2)})
    assert ("resolvably highest" in words.finding(found, str)) == (low > 0)


def test_numbers_have_three_decimals_and_no_negative_zero():
    assert words.number(-0.0001) == "0.000"
    assert words.text(Estimate(math.nan)) == "–"
    assert [words.duration(s) for s in (0.2, 42, 180, 7200, math.nan)] == [
        "under 1 s", "42 s", "3.0 min", "2.0 h", "unknown",
    ]  # fmt: skip
