import html
import math
import re

import numpy as np
import pandas as pd
import pytest
import synthetic_study
from hypothesis import given
from hypothesis import strategies as st

from radprobe.artifacts import Scores
from radprobe.report import canvas, few_shot, few_shot_chart, words
from radprobe.report.collect import Findings

NIH = "nih_chestxray14"
SHOTS = list(synthetic_study.DRAWS)


def section(text, name):
    return re.search(rf'<section id="{name}">.*?</section>', text, re.DOTALL)[0]


def read(page):
    """Return the text of a page, outside its tags, scripts and styles."""
    return " ".join(html.unescape(re.sub(r"<(script|style)\b.*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)).split())


def switch(text):
    return re.findall(r'<input type="radio" name="protocol" value="([^"]*)"', section(text, "map"))


def curves(values, controls=("pixels",), shots=(1, 2, few_shot.ALL), head="a logistic regression (C = 0.01)"):
    """Return Curves of `values`: backbone -> scores of the draws, the same at every number of shots."""
    rows = [
        {"protocol": "few-shot", "shots": each, "draw": draw, "backbone": name, "value": value, "n_classes": 14}
        for name, drawn in values.items()
        for each in shots
        for draw, value in enumerate(drawn)
    ]
    draws = pd.DataFrame(rows).assign(note="", n_patients=3, n_samples=4)
    return few_shot.Curves(NIH, "auroc", list(shots), {}, {}, draws, frozenset(controls), head)


def test_the_table_holds_the_mean_and_the_range_of_the_draws(text, finished):
    step = synthetic_study.study(finished).step("score", NIH, "tf_efficientnet_lite0")
    draws = Scores.load(step.folder).draws
    said = read(section(text, "few-shot"))
    for shots in SHOTS[:-1]:
        values = draws[(draws["protocol"] == "few-shot") & (draws["shots"] == shots)]["value"]
        low, high = values.min(), values.max()
        assert f"{values.mean():.3f} [{low:.3f}, {high:.3f}]" in said
    everyone = draws[(draws["protocol"] == "few-shot") & (draws["shots"] == 0)]["value"].item()
    assert f" {everyone:.3f} " in said
    assert f"{everyone:.3f} [" not in said  # one draw has no band


def test_the_section_says_what_a_band_is_and_what_was_fixed(text):
    said = read(section(text, "few-shot"))
    assert "the mean over 5 draws of training patients" in said
    assert "its band is the range of the draws" in said
    assert "the luck of the draw and not the uncertainty that comes from few test patients" in said
    assert "A new draw would fall inside the range of 5 draws with probability 0.67." in said
    assert "a logistic regression (C = 0.01), fixed beforehand; val was not used" in said
    assert (
        "Hollow points are the study's single draw. The macro score is over the classes that a draw could teach" in said
    )
    assert "12 classes" in said
    assert "Shots 1: no positive of Fibrosis (5 draws)" in said
    assert "No draws of: DINOv2 ViT-S/14. The map says why." in said


def test_few_shot_is_no_protocol_of_the_map_the_differences_or_a_verdict(text):
    for name in ("verdict", "map", "differences", "figures"):
        assert "few-shot 1" not in section(text, name)
    assert len(switch(text)) == len(synthetic_study.HEADS)
    assert "few-shot 32@paper" in text  # it is in the table of everything


def test_the_floor_is_in_the_switch_and_ranks_nobody(text):
    first, *others, last = switch(text)
    assert (first, last) == ("protocol of the verdict", "shuffled labels (floor)")
    assert {"linear probe as in the study", "linear probe"} < set(others)
    floor = section(text, "map").split('data-map="shuffled labels (floor)"')[1].split("</table>")[0]
    assert "what chance gives here" in floor
    assert re.search(r">0\.[45]\d\d<", floor)
    assert not set("★≈⚑") & set(floor)
    for name in ("verdict", "differences", "figures"):
        assert "shuffled" not in section(text, name)


def test_a_study_of_nothing_but_the_floor_has_no_verdict(root, render):
    for step in synthetic_study.study(root).steps.values():
        if step.dataset == NIH and step.verb == "score":
            scores = Scores.load(step.folder)
            scores.table = scores.table[scores.table["protocol"] == "shuffled"]
            scores.save(step.place)
    said = read(section(render(root), "verdict"))
    assert "NIH ChestX-ray14 No cell of it is done, so there is no verdict." in said


def test_metadata_alone_stand_where_there_are_some(text):
    page = section(text, "map")
    row = page.split("Metadata alone</th>")[1].split("</tr>")[0]
    montgomery, nih = re.findall(r"<td.*?</td>", row, re.DOTALL)
    assert "no metadata in this benchmark" in montgomery
    assert re.search(r"0\.\d\d\d", nih)


def charted(findings):
    """The chart of the films as SVG, drawn now."""
    curves = few_shot.curves(findings, NIH)
    return canvas.render(lambda: few_shot_chart.draw(findings, NIH, curves))["svg"]


def test_the_chart_is_the_same_file_each_time_and_loses_no_name(text, finished, written):
    file = written / "figures" / f"{NIH}_few_shot.svg"
    first = file.read_bytes()
    assert charted(Findings(synthetic_study.study(finished))) == first
    drawn = read(first.decode())
    for name in (
        "EfficientNet-Lite0, random",
        "Metadata alone",
        "Raw pixels",
        "training patients",
        "AUROC, macro, test",
    ):
        assert name in drawn
    assert "1 2 4 8 16 32 all training patients" in drawn
    assert "the study's single draw" in drawn


def test_a_study_without_draws_says_so(root, words_of):
    study = synthetic_study.study(root)
    for step in study.steps.values():
        if step.dataset == NIH and step.verb == "score":
            scores = Scores.load(step.folder)
            scores.draws = None
            scores.save(step.place)
    assert "No few-shot draw was scored." in read(words_of(study))
    assert "no few-shot draws yet" in charted(Findings(study)).decode()


def test_long_lists_of_candidates_are_told_by_their_ends(text):
    said = read(section(text, "again")).replace(" :", ":")  # protocols are links
    told = "logistic: c 0.1; chosen on val among 45 candidates (c 1e-06 to 1e+05); 1 of them had not converged; 30 s"
    assert told in said
    told = "chosen on val among 3 candidates (learning rate 0.01, 0.05, 0.5); 1 of them diverged; 30 s"
    assert f"linear@paper: learning rate 0.01; {told}" in said
    assert "shuffled: c 0.01; fixed beforehand; 30 s" in said
    assert "few-shot: c 0.01; fixed beforehand; 30 s" in said


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"x": [0.9, 0.8], "y": [0.85, 0.7], "pixels": [0.5, 0.6]}, ("x", True)),
        ({"x": [0.9, 0.7], "y": [0.7, 0.8], "pixels": [0.5, 0.6]}, ("x", False)),
        ({"x": [0.9, 0.8], "y": [0.7, 0.7], "pixels": [0.95, 0.9]}, None),  # a control is above
        ({"x": [0.9, 0.8], "pixels": [0.5, 0.6]}, None),  # no rival
        ({"x": [0.9, math.nan], "y": [0.7, 0.7]}, None),  # a draw is undefined
        ({"x": [0.9, 0.8], "y": [0.9, 0.8]}, None),  # they are level
    ],
)
def test_a_leader_is_named_only_where_it_leads_at_every_number_of_shots(values, expected):
    assert few_shot.leader(curves(values)) == expected


def test_no_leader_where_the_order_changes_with_the_shots():
    found = curves({"x": [0.9, 0.8], "y": [0.7, 0.6]})
    everyone = (found.draws["shots"] == few_shot.ALL) & (found.draws["backbone"] == "y")
    found.draws.loc[everyone, "value"] = 0.99
    assert few_shot.leader(found) is None


def test_undefined_scores_are_counted():
    assert few_shot.notes(curves({"x": [0.9, math.nan]}, shots=(1,))) == ["Shots 1: 1 undefined scores are left out"]


@pytest.mark.parametrize("draws", [2, 5, 10])
def test_a_new_draw_falls_inside_the_range_as_often_as_the_page_says(draws):
    generator = np.random.default_rng(draws)
    drawn = generator.normal(size=(20_000, draws + 1))
    inside = (drawn[:, 1:].min(1) <= drawn[:, 0]) & (drawn[:, 0] <= drawn[:, 1:].max(1))
    said = float(few_shot.chance(draws).split()[-1].rstrip("."))
    assert inside.mean() == pytest.approx(said, abs=0.02)
    assert few_shot.chance(1) == ""


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 0.2)), min_size=1, max_size=8))
def test_labels_keep_their_order_and_their_distance(labels):
    wanted, heights = np.array(sorted(at for at, _ in labels)), np.array([high for _, high in labels])
    centres = canvas.apart(wanted, heights)
    gaps = np.diff(centres) - (heights[1:] + heights[:-1]) / 2
    assert (gaps > -1e-9).all()
    if heights.sum() < 1:
        assert centres[0] - heights[0] / 2 > -1e-9
        assert centres[-1] + heights[-1] / 2 < 1 + 1e-9


def test_labels_that_are_apart_stay():
    wanted = np.array([0.2, 0.5, 0.8])
    assert canvas.apart(wanted, np.full(3, 0.1)) == pytest.approx(wanted)


def test_the_protocols_of_part_four_have_words():
    for name in ("linear@paper", "mlknn@paper", "logistic", "shuffled"):
        assert words.protocol(name) != name
