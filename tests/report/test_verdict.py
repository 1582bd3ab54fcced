import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radprobe.console import about
from radprobe.report import recommendation, verdict
from radprobe.report.ranking import Column, Contrast, Estimate
from radprobe.report.ranks import rank_range

NAMES = {"x": "X", "y": "Y", "z": "Z", "random:x": "X, random", "random:y": "Y, random"}
CONTROLS = frozenset({"random:x", "random:y", "tiny", "pixels"})
LACKING = "no interval: 6 patients, fewer than 10"


def name(backbone):
    return NAMES.get(backbone, backbone)


def contrast(value, low=math.nan, high=math.nan, p=math.nan, needed=math.nan, note=""):
    return Contrast(value, low, high, 46, note, p, (needed, 0.7 * needed, 1.5 * needed))


ABOVE, TIED = contrast(0.2, 0.1, 0.3, 0.0005), contrast(0.002, -0.01, 0.02, 0.9, 612)
BELOW = ABOVE.negated()


def column(scores, differences=None, contenders=(), **more):
    estimates = {name: Estimate(value, value - 0.01, value + 0.01, 46) for name, value in scores.items()}
    given = {"seconds": {"x": 180.0, "y": 60.0}, "controls": CONTROLS, "margin": 0.02, **more}
    return Column("montgomery", "linear-decoder", "dsc", estimates, differences=differences or {},
                  contenders=frozenset(contenders), **given)  # fmt: skip


def lines(*given, **more):
    return verdict.verdict(column(*given, **more), name, "CPU").lines


def test_a_verdict_says_what_the_simultaneous_intervals_support():
    found = column(
        {"x": 0.95, "y": 0.948, "z": 0.90, "random:x": 0.74, "random:y": 0.7, "pixels": 0.6},
        {
            ("x", "y"): TIED,
            ("z", "x"): BELOW,  # compared the other way round
            ("y", "z"): contrast(0.048, 0.01, 0.09, 0.02),
            ("x", "random:x"): ABOVE,
            ("x", "random:y"): ABOVE,
            ("x", "pixels"): ABOVE,
        },
        contenders=("x", "y"),
        corrected=Estimate(0.944, 0.93, 0.96, 46),
    )
    said = verdict.verdict(found, name, "CPU")
    assert said.lines == [
        "Best: X or Y (no significant difference).",
        "X, a linear decoder: DSC 0.944 [0.930, 0.960], corrected for having been chosen among 3 (0.950 as measured).",
        "X scores significantly higher than its random init and raw pixels.",
        "To resolve 0.02 between X and Y: about 610 test patients (430 to 920); you have 46.",
        "X costs 3.0 min of CPU to embed and fit.",
    ]
    assert said.details == [
        "No significant difference from Y (0.002 [-0.010, 0.020], p = 0.900).",
        "Significantly higher than Z (0.200 [0.100, 0.300], p < 0.001), X, random (0.200 [0.100, 0.300], p < 0.001), "
        "Y, random (0.200 [0.100, 0.300], p < 0.001) and pixels (0.200 [0.100, 0.300], p < 0.001).",
    ]


def test_a_lead_is_claimed_over_all_others_only_when_each_is_significantly_lower():
    scores, both = {"x": 0.9, "y": 0.8, "z": 0.7}, {("x", "y"): ABOVE, ("x", "z"): ABOVE}
    assert lines(scores, both, ("x",))[0] == "Best: X. It scores significantly higher than the 2 other backbones."
    one = {("x", "y"): TIED, ("x", "z"): ABOVE}
    assert lines(scores, one, ("x", "y"))[0] == "Best: X or Y (no significant difference)."
    two = {"x": 0.9, "y": 0.8}
    assert lines(two, {("x", "y"): ABOVE}, ("x",))[0] == "Best: X. It scores significantly higher than Y."


def test_many_contenders_are_counted():
    scores = {f"b{n}": 0.9 - 0.001 * n for n in range(9)}
    gaps = {("b0", each): TIED for each in scores}
    said = lines(scores, gaps, tuple(scores))[0]
    assert said == "Best: b0, b1, b2, b3 or 5 others (no significant difference)."


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (ABOVE, "X scores significantly higher than its random init."),
        (TIED, "Flagged: it does not score significantly higher than its random init"),
        (BELOW, "Flagged: it scores significantly lower than its random init"),
        (contrast(0.02, note=LACKING), f"Nothing is established against its random init ({LACKING})."),
        (None, "It was not compared with its random init."),
    ],
)
def test_a_control_is_exceeded_only_when_the_interval_says_so(found, expected):
    made = column({"x": 0.9, "random:x": 0.8}, {("x", "random:x"): found} if found else {})
    assert verdict.verdict(made, name, "CPU").lines[2].startswith(expected)
    assert made.unbeaten("x") == (["random:x"] if expected.startswith("Flagged") else [])


def test_a_study_without_controls_says_so():
    assert "No control was scored: neither a random init nor raw pixels." in lines({"x": 0.9, "y": 0.8})


def test_where_only_controls_are_scored_that_is_said_and_nothing_is_flagged():
    said = " ".join(lines({"tiny": 0.6, "pixels": 0.5}, {("tiny", "pixels"): ABOVE}))
    assert "Highest score: tiny, a control. No pretrained backbone was scored." in said
    assert "Flagged" not in said


def test_without_intervals_no_order_is_claimed():
    few = {each: Estimate(value, patients=6, note=LACKING) for each, value in {"x": 0.9, "y": 0.8}.items()}
    found = replace(column({}, {("x", "y"): contrast(0.1, note=LACKING)}, ("x", "y")), scores=few)
    said = verdict.verdict(found, name, "CPU")
    assert said.lines[0] == f"Highest score: X. No order is claimed: {LACKING}."
    assert said.lines[1] == "X, a linear decoder: DSC 0.900. No interval: 6 patients, fewer than 10."
    assert said.details == [f"No interval, so no order, with Y (0.100): {LACKING}."]
    assert "significantly" not in " ".join([*said.lines, *said.details, verdict.finding(found, name)]).replace(
        "no significant difference", ""
    )


def test_a_missing_comparison_is_said_and_no_order_is_claimed():
    made = column({"x": 0.9, "y": 0.2, "random:x": 0.1})
    said = verdict.verdict(made, name, "CPU")
    assert said.lines[0] == "Highest score: X. Nothing was compared, so no order is claimed."
    assert said.details == ["Not compared with Y and X, random."]
    assert "higher than" not in " ".join([*said.lines, *said.details])


def test_what_makes_an_interval_doubtful_folds_below_the_lines():
    note = "left out, few patients have the rarer label: Mass (3)"
    found = replace(column({"x": 0.9}), scores={"x": Estimate(0.9, 0.8, 0.95, 25, note)})
    said = verdict.verdict(found, name, "CPU")
    assert said.details[0] == f"L{note[1:]}."
    assert not any("Mass" in line for line in said.lines)


def test_enough_patients_are_said_to_be_enough():
    found = lines({"x": 0.9, "y": 0.8}, {("x", "y"): contrast(0.1, 0.05, 0.15, 0.001, needed=31)}, ("x",))
    wanted = "These 46 test patients are enough to resolve 0.02 between X and Y: about 31 are needed (22 to 46)."
    assert wanted in found


@pytest.mark.parametrize(("patients", "said"), [(0.3, "1"), (7.4, "7"), (612.4, "610"), (15_449, "15,000")])
def test_numbers_of_patients_have_two_digits(patients, said):
    assert about(patients) == said


def test_undefined_scores_make_no_winner():
    undefined = {"x": Estimate(math.nan, patients=9, note="undefined: no positives")}
    said = verdict.verdict(Column("d", "linear", "auroc", undefined), name, "CPU")
    assert said.lines == ["No score is defined: undefined: no positives."]


@given(st.integers(1, 12), st.integers(0, 2**32))
def test_a_card_has_at_most_five_lines(rows, seed):
    generator = np.random.default_rng(seed)
    scores = {f"b{n}": float(each) for n, each in enumerate(generator.random(rows))} | {"pixels": 0.5}
    kinds = [ABOVE, TIED, BELOW, contrast(0.1, note=LACKING), None]
    gaps = {(a, b): kinds[generator.integers(5)] for a in scores for b in scores if a < b}
    made = column(scores, {pair: each for pair, each in gaps.items() if each}, tuple(scores)[:rows])
    assert len(verdict.verdict(made, name, "CPU").lines) <= 5


@given(st.floats(-1, 1), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_difference_seen_from_the_other_side_has_the_other_sign(value, below, above):
    found = contrast(value, value - below, value + above)
    assert found.negated().sign == -found.sign
    ours = column({"x": 0.9, "y": 0.8}, {("x", "y"): found})
    assert ours.difference("y", "x") == found.negated()


@given(st.floats(-1, 1))
def test_the_title_of_a_figure_claims_a_lead_only_when_it_is_significant(low):
    found = column({"x": 0.9, "y": 0.8}, {("x", "y"): contrast(max(low, 0) + 0.1, low, 1.2)})
    claims = "significantly higher than all others" in verdict.finding(found, name)
    assert claims == (low > 0)


# --- over tasks -------------------------------------------------------------------------------------------------------


def tasks(*ps):
    """Return tasks in which x is higher than y, each with its p-value, and a study of them."""
    heads = {}
    for number, p in enumerate(ps):
        sign = 0.01 if p <= 0.05 else -0.01
        gaps = {("x", "y"): contrast(0.1, sign, 0.2, p)}
        heads[f"t{number}"] = column({"x": 0.9, "y": 0.8}, gaps, ("x",) if p <= 0.05 else ("x", "y"))
    return recommendation.recommend(heads, name, lambda task: f"task {task}")


def test_one_task_has_no_recommendation_beside_its_card():
    assert tasks(0.001) is None


def test_tasks_without_an_interval_recommend_nothing():
    few = {("x", "y"): contrast(0.1, note=LACKING)}
    heads = {task: column({"x": 0.9, "y": 0.8}, few, ("x", "y")) for task in "ab"}
    assert recommendation.recommend(heads, name, str) is None
    assert verdict.finding(heads["a"], name) == "X has the highest score; no order is claimed"


def test_seeds_that_vary_by_more_than_the_margin_are_said():
    found = lines({"x": 0.9, "y": 0.8}, {("x", "y"): contrast(0.1, -0.05, 0.15, 0.5, needed=math.inf)}, ("x", "y"))
    said = "No number of test patients resolves 0.02 between X and Y: seeds or random inits alone vary by too much."
    assert said in found


def test_the_recommendation_is_corrected_over_tasks():
    assert tasks(0.03, 0.6).exceeded == {"x": [], "y": []}  # 0.03 x 2 > 0.05
    assert tasks(0.02, 0.6).exceeded == {"x": [], "y": ["t0"]}
    assert tasks(0.02, 0.04).exceeded == {"x": [], "y": ["t0", "t1"]}  # Holm: 0.02 x 2, then 0.04 x 1
    assert tasks(0.03, 0.04).exceeded == {"x": [], "y": []}


def test_the_recommendation_says_who_stands_out_and_who_is_cheapest():
    assert tasks(0.01, 0.6).sentences[0] == "Recommended: X, significantly exceeded on none of the 2 tasks."
    none = tasks(0.5, 0.6).sentences
    assert none[0].startswith("No recommendation: on none of the 2 tasks")
    assert none[1] == "Of these Y costs least, 2.0 min over all tasks."


def test_a_backbone_that_was_not_compared_on_every_task_is_no_candidate():
    one = column({"x": 0.9, "y": 0.8, "z": 0.7}, {("x", "y"): TIED}, ("x", "y", "z"))
    two = column({"x": 0.9, "y": 0.8}, {("x", "y"): TIED}, ("x", "y"))
    assert set(recommendation.recommend({"a": one, "b": two}, name, str).exceeded) == {"x", "y"}


def test_ranks_have_the_range_that_the_intervals_allow():
    found = column({"x": 0.9, "y": 0.8, "z": 0.7}, {("x", "y"): TIED, ("x", "z"): ABOVE, ("y", "z"): TIED})
    assert [rank_range(found, each, ["x", "y", "z"]) for each in "xyz"] == ["1–2", "1–3", "2–3"]
    assert rank_range(column({"x": 0.9, "y": 0.8}), "x", ["x", "y"]) == ""
