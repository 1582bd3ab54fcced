"""What the catalog holds of the study: published scores and deviations."""

import ast
from pathlib import Path

import pytest
from pydantic import ValidationError

from radprobe import catalog
from radprobe.catalog import describe
from radprobe.catalog.paper import Deviation, Pair, deviations, published
from radprobe.report import words
from radprobe.study import Study

ROOT = Path(__file__).parents[1]
METRICS = {"auroc_study", "dsc_pooled", "jaccard_study"}
PROTOCOLS = {*words.PROTOCOLS, "few-shot", "few-shot@paper"}


def test_a_published_score_names_what_is_in_the_catalog():
    for one in published():
        assert one.dataset in catalog.datasets()
        assert one.backbone is None or one.backbone in catalog.backbones()
        assert one.protocol is None or one.protocol in PROTOCOLS
        assert set(one.metrics) <= METRICS
        assert 0 < one.value < 1
        assert one.source
        assert one.shots is None or str(one.shots) in one.stated_shots
        assert (one.shots is None) == (one.stated_shots == "all")


def test_what_a_published_score_does_not_say_stays_unknown():
    for one in published():
        if one.stated_backbone in ("MAE", "DINOv2"):
            assert one.backbone is None  # no size
        if "decoder not stated" in one.stated_protocol:
            assert one.protocol is None
        if "second-hand" in one.source:
            assert (one.trust, one.where) == ("low", None)


def test_no_score_is_there_twice():
    told = [
        (one.stated_backbone, one.dataset, one.stated_protocol, one.stated_shots, one.source) for one in published()
    ]
    assert len(set(told)) == len(told)


def test_the_deviations_are_all_23_by_kind():
    by_kind = {}
    for each in deviations():
        by_kind.setdefault(each.kind, set()).add(int(each.id.removeprefix("D")))
    assert by_kind["metric"] == {6, 7, 8, 9, 23}
    assert by_kind["protocol"] == {10, 13, 14, 15, 16, 17, 19}
    assert by_kind["bug"] == set(range(1, 24)) - by_kind["metric"] - by_kind["protocol"]


def names_of(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("deviation", deviations(), ids=lambda deviation: deviation.id)
def test_a_bug_or_a_metric_has_a_test_that_is_named_after_it(deviation):
    named = [test for test in deviation.tests if test.partition("::")[2].startswith(f"test_{deviation.id.lower()}_")]
    assert named or deviation.kind == "protocol"


@pytest.mark.parametrize("deviation", deviations(), ids=lambda deviation: deviation.id)
def test_every_test_that_a_deviation_names_is_there(deviation):
    for test in deviation.tests:
        path, name = test.split("::")
        assert (ROOT / path).is_file(), test
        assert name in names_of(ROOT / path), test


def test_pairs_are_rows_that_a_study_has():
    study = Study({"study": "s", "backbones": ["mae_large", "mae_large@paper"], "datasets": {"montgomery": {}}})
    for pair in (pair for each in deviations() for pair in each.pairs):
        if pair.of == "backbone":
            assert study.backbone(pair.theirs.replace("*", "mae_large")).title.endswith("as in the study")
        elif pair.of == "metric":
            assert pair.theirs in METRICS
        else:
            assert {pair.ours, pair.theirs} <= PROTOCOLS


def test_a_deviation_is_shown_by_rows_or_says_why_not():
    told = {"id": "D99", "what": "a", "effect": "b", "ours": "c", "tests": ["d::e"]}
    pair = Pair(of="metric", ours="dsc", theirs="dsc_pooled", tasks=["segmentation"])
    assert Deviation(**told, kind="metric", pairs=[pair]).pairs == [pair]
    for wrong in (
        {"kind": "metric"},
        {"kind": "bug", "pairs": [pair]},
        {"kind": "metric", "pairs": [pair], "no_pair": "x"},
    ):
        with pytest.raises(ValidationError):
            Deviation(**told, **wrong)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("unet", "none"),
        ("ceiling", "none"),
        ("pixels", "grey values"),
        ("metadata", "tables"),
        ("test_vit", "CLS token"),
    ],
)
def test_a_row_without_a_network_says_where_its_vector_is_from(name, said):
    assert said in describe.vector(catalog.backbones()[name])
