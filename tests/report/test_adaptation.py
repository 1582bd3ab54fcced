import math
import re
import shutil

import pytest
import synthetic_study

from radprobe.names import MODES, frozen, mode_of
from radprobe.report import adaptation, canvas, features_chart, look, ranking
from radprobe.report.collect import Findings

ADAPT = {"backbones": ["derived", "tf_efficientnet_lite0"], "precision": "fp32"}


@pytest.fixture(scope="module")
def trained(finished, tmp_path_factory):
    """The finished study with backbones that were trained."""
    root = tmp_path_factory.mktemp("trained")
    shutil.copytree(finished, root, dirs_exist_ok=True)
    return synthetic_study.build(root, adapt=ADAPT)


@pytest.fixture(scope="module")
def page(trained, words_of):
    return words_of(trained)


def head(trained, dataset):
    findings = Findings(trained)
    return findings, ranking.headline([each for each in ranking.columns(findings) if each.dataset == dataset])


@pytest.mark.parametrize("dataset", ["montgomery", "nih_chestxray14"])
def test_frozen_and_trained_stand_in_one_table_with_paired_gains_and_what_was_trained(trained, dataset):
    findings, column = head(trained, dataset)
    rows = adaptation.rows(findings, column)
    states = {"derived": ["frozen", "head", "bitfit", "lora", "end_to_end"]}
    states["tf_efficientnet_lite0"] = ["frozen", "head", "bitfit", "end_to_end"]  # a CNN has no layers for LoRA
    assert [(row.base, row.mode) for row in rows] == [(base, how) for base, each in states.items() for how in each]
    for row in rows:
        assert (row.gain is None) == (row.mode in ("frozen", "head"))
        if row.gain:
            head_only = next(each for each in rows if each.base == row.base and each.mode == "head")
            assert math.isclose(row.gain.value, row.score.value - head_only.score.value, abs_tol=1e-9)
            assert row.gain.low <= row.gain.value <= row.gain.high
            assert row.cells[2] == "7"
            assert row.seconds == 600
    assert [row.share for row in rows[1:5]] == [400 / 22e6, 20_000 / 22e6, 3 / 22, 1]


def test_the_map_and_the_verdict_know_the_trained_ones(trained):
    _, column = head(trained, "montgomery")
    assert {"derived+lora", "derived+bitfit", "tf_efficientnet_lite0+end_to_end"} <= set(column.scores)
    assert column.best.endswith(("+lora", "+bitfit", "+end_to_end"))
    assert column.protocol_of("derived+lora") == "lora"
    assert column.protocol_of("derived") == "linear-decoder"


def test_the_page_has_the_section_its_chart_and_why_a_way_was_not_taken(page, trained):
    assert "Gain over head only" in page
    assert "+ head only" in page
    assert "LoRA adapts layers of attention and MLP, and this network has none" in page
    findings, column = head(trained, "montgomery")
    svg = canvas.render(lambda: adaptation.draw(findings, "montgomery", column))["svg"].decode()
    assert "share of backbone and head that was trained" in svg
    assert re.search(r"Training the backbone: significantly higher than the head alone in \d of 5", svg)


def test_features_are_those_of_frozen_backbones_and_of_the_same_images(trained):
    findings, column = head(trained, "montgomery")
    assert mode_of(column.best)
    found = look.features(findings, "montgomery", column)
    names, best = list(found.maps), frozen(column.best)
    assert names[:2] == [best, f"random:{best}"]
    assert len(names) == look.BACKBONES
    assert not [name for name in names if mode_of(name)]
    assert {len(maps) for maps in found.maps.values()} == {len(found.samples)}
    drawn = canvas.render(lambda: features_chart.draw(findings, "montgomery", found))["svg"].decode()
    assert drawn.count("<image") == len(found.samples) * (1 + len(names))


def test_a_study_of_frozen_backbones_says_how_to_train_some(text):
    assert "Every backbone of this study stays frozen" in text


def test_trained_rows_alone_are_one_column(trained, tmp_path, words_of):
    shutil.copytree(trained.path("work").parent, tmp_path, dirs_exist_ok=True)
    made = synthetic_study.study(tmp_path, adapt=ADAPT)
    for step in made.steps.values():
        if step.verb in ("probe", "segment", "compare"):
            for manifest in step.outputs:
                manifest.unlink()
    findings = Findings(made)
    columns = [each for each in ranking.columns(findings) if each.dataset == "nih_chestxray14"]
    assert len(columns) == 1
    ways = {"derived": MODES, "tf_efficientnet_lite0": ("head", "bitfit", "end_to_end")}
    assert set(columns[0].scores) == {f"{name}+{mode}" for name, modes in ways.items() for mode in modes}
    assert "Gain over head only" in words_of(made)


def test_the_finding_says_what_the_gains_over_the_head_alone_say():
    def row(mode, low, high):
        gain = None if low is None else ranking.Estimate((low + high) / 2, low, high)
        numbers = (1.0, 0.1, 1.0, 1.0, 1.0)
        return adaptation.AdaptedRow(f"x+{mode}", "x", mode, ranking.Estimate(0.8), gain, *numbers)

    head = row("head", None, None)
    up, down, neither = row("lora", 0.01, 0.05), row("bitfit", -0.05, -0.01), row("end_to_end", -0.02, 0.03)
    start = "Training the backbone: "
    said = f"{start}significantly higher than the head alone in 1 of 3 rows, significantly lower in 1 of 3"
    assert adaptation.finding([head, up, down, neither]) == said
    assert adaptation.finding([head, neither]) == f"{start}no significant difference from the head alone in any row"
    assert adaptation.finding([head]) == "Trained backbones have no interval against the head alone"


def test_the_verdict_of_a_trained_backbone_says_what_trained_it_and_names_its_random_init(page):
    assert "of cpu to train" in page or "of CPU to train" in page or "of an unknown device to train" in page
    assert "No control was scored" not in page
