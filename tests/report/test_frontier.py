import itertools
import math
import re
from types import SimpleNamespace

import pandas as pd
import pytest
import synthetic_study
from hypothesis import given
from hypothesis import strategies as st

from radprobe.report import canvas, frontier
from radprobe.report.collect import Findings
from radprobe.report.frontier import Point
from radprobe.report.ranking import Estimate

FAMILIES = {"slow": "self-supervised", "fast": "supervised", "pixels": "control", "slow+lora": "self-supervised"}


def point(seconds, value, name="a"):
    return Point(name, "linear", Estimate(value), seconds, 10, 1, 100, 0.1)


def findings(*rows, devices=("cpu",)):
    """A study of one dataset; a row is backbone, protocol, macro score on test, seconds."""
    names = ["backbone", "protocol", "value", "seconds"]
    table = pd.DataFrame([row[:4] for row in rows], columns=names)
    table = table.assign(
        **{"dataset": "films", "metric": "auroc", "part": "test", "class": "macro", "n_patients": 50, "note": ""},
        low=table["value"] - 0.02, high=table["value"] + 0.02, peak_gb=2.0, trained_parameters=1e6, trained_share=0.05,
    )  # fmt: skip
    places = {name: devices[at % len(devices)] for at, name in enumerate(dict.fromkeys(table["backbone"]))}
    return SimpleNamespace(
        datasets={"films": SimpleNamespace(title="Films", task="multilabel")},
        shown=table,
        title=lambda name: f"<{name}>",
        family=FAMILIES.__getitem__,
        facts=lambda verb, dataset, name: {"device": places[name], "images_per_second": 12.34},
    )


def drawn_of(study):
    return canvas.render(lambda: frontier.draw(study, "films"))["svg"].decode()


MIXED = [
    ("slow", "linear", 0.9, 600.0),
    ("slow", "knn", 0.7, 500.0),
    ("fast", "linear", 0.8, 60.0),
    ("pixels", "linear", 0.6, 2.0),
    ("slow", "shuffled", 0.99, 1.0),
    ("slow", "few-shot 8", 0.99, 1.0),
    ("slow", "linear@paper", 0.99, 1.0),
    ("slow@paper", "linear", 0.99, 1.0),
    ("ceiling", "ceiling", 0.99, 1.0),
    ("slow+lora", "lora", math.nan, 3000.0),
]


def test_the_ways_of_ours_stand_by_their_time_with_what_they_cost():
    every = frontier.points(findings(*MIXED), "films")
    assert [(each.backbone, each.protocol) for each in every] == [
        ("pixels", "linear"),
        ("fast", "linear"),
        ("slow", "knn"),
        ("slow", "linear"),
        ("slow+lora", "lora"),
    ]
    assert every[1].cells == ["60 s", "12.3", "2.00", "1 M", "5 %"]
    assert [each.backbone for each in frontier.frontier(every)] == ["pixels", "fast", "slow"]


def test_what_is_unknown_is_a_dash_and_has_no_place():
    lost = Point("a", "linear", Estimate(0.5), math.nan, math.nan, math.nan, math.nan, math.nan)
    assert lost.cells == ["–"] * 5
    assert frontier.frontier([lost, point(0.0, 0.9), point(5.0, math.nan)]) == []


costs = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=12)


@given(costs)
def test_the_frontier_is_what_nothing_beats(pairs):
    every = [point(float(seconds), value / 10, f"b{at}") for at, (seconds, value) in enumerate(pairs)]
    best = frontier.frontier(every)
    assert best
    for each in every:
        beaten = any(
            (other.seconds <= each.seconds and other.score.value > each.score.value)
            or (other.seconds < each.seconds and other.score.value >= each.score.value)
            for other in every
        )
        assert (each in best) == (not beaten)
    assert [each.seconds for each in best] == sorted(each.seconds for each in best)
    assert [each.score.value for each in best] == sorted(each.score.value for each in best)


def test_the_chart_names_the_frontier_and_no_label_lies_on_another():
    rows = [(name, how, 0.9 + 0.0001 * at, 10.0 + at) for at, (name, how) in enumerate(
        (name, how) for name in ("fast", "slow") for how in ("knn", "mlknn", "logistic", "linear")
    )]  # fmt: skip
    study = findings(*rows)
    drawn = drawn_of(study)
    assert drawn == drawn_of(study)
    place = r"(?:translate\(([\d.]+) ([\d.]+)\)|rotate\(\S+ ([\d.]+) ([\d.]+)\))"
    found = re.findall(rf"<text[^>]*{place}[^>]*>([^<]*)</text>", drawn)
    texts = [(a or c, b or d, text) for a, b, c, d, text in found]
    labels = {text: float(y) for x, y, text in texts if text.startswith("&lt;")}
    assert len(labels) == len(rows)
    heights = sorted(labels.values())
    assert min(b - a for a, b in itertools.pairwise(heights)) > 9  # points; the labels are 9 high
    assert all(0 < float(x) < 540 for x, _, _ in texts)


def test_the_finding_is_of_points_and_claims_no_difference():
    study = findings(*MIXED)
    every = frontier.points(study, "films")
    assert frontier.finding(study, every) == (
        "From <pixels>, linear probe (0.600) in 2 s to <slow>, linear probe (0.900) in 10.0 min"
    )
    assert (
        frontier.finding(study, [point(5.0, 0.9, "slow+lora")])
        == "<slow+lora> (0.900) is both the cheapest and the highest"
    )
    assert frontier.finding(study, []) == "No score with a known time yet"
    assert "no score with a known time yet" in drawn_of(findings())


def test_times_of_several_devices_are_told():
    study = findings(*MIXED[:3], devices=("cpu", "Some GPU"))
    assert frontier.devices(study, "films", frontier.points(study, "films")) == ["CPU", "Some GPU"]


@pytest.mark.parametrize(("low", "high"), [(0.3, 0.8), (2, 5.2), (100, 260), (50, 5000), (1, 400_000), (3000, 7700)])
def test_an_axis_of_time_has_a_few_ticks_wherever_it_lies(low, high):
    ticks = frontier.ticks(low, high)
    assert 1 <= len(ticks) <= 8
    assert all(low <= each <= high for each in ticks)


def test_ticks_are_read_as_times():
    assert [frontier.clock(each) for each in (0.5, 30, 120, 36000)] == ["0.5 s", "30 s", "2 min", "10 h"]


def test_every_protocol_has_a_marker_of_its_own():
    assert len(set(frontier.MARKERS.values())) == len(frontier.MARKERS)
    assert "one of tomorrow" in drawn_of(findings(("fast", "one of tomorrow", 0.9, 10.0)))


def test_the_page_shows_the_frontier_and_every_way(finished, text, written):
    study = Findings(synthetic_study.study(finished))
    every = frontier.points(study, "nih_chestxray14")
    assert len(every) == 7 * 4  # rows x heads, the study's and the floor apart
    assert f"All {len(every)} ways" in text
    assert every[0].images_per_second == pytest.approx(200 / 150)
    assert "Features computed on CPU. " in text
    assert (written / "figures/montgomery_frontier.svg").is_file()
