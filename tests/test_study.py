import copy

import pytest

from radprobe import catalog
from radprobe.files import RadprobeError
from radprobe.study import Study

SMALL = {
    "study": "s",
    "hub": False,
    "datasets": {"montgomery": {"phantom": {"patients": 9}}, "nih_chestxray14": {"phantom": {"patients": 9}}},
    "backbones": ["test_vit", "random:tf_efficientnet_lite0"],
}


def changed(path: str, value) -> Study:
    params = copy.deepcopy(SMALL)
    *sections, key = path.split(".")
    place = params
    for section in sections:
        place = place.setdefault(section, {})
    place[key] = value
    return Study(params)


def specs(study: Study) -> dict:
    return {key: step.spec for key, step in study.steps.items()}


@pytest.mark.parametrize(
    ("path", "value", "verbs"),
    [
        ("probe.knn.k", [3], {"probe", "score", "compare"}),
        ("segment.linear.epochs", 1, {"segment", "score", "compare"}),
        ("score.resamples", 100, {"score", "compare"}),
        ("embed.precision", "fp32", {"embed", "probe", "segment", "score", "compare"}),
        ("limit", 5, {"prepare", "split", "embed", "probe", "segment", "score", "compare"}),
        ("embed.batch_size", 2, set()),  # changes the speed, not the features
        ("device", "cpu", set()),
        ("study", "another name", set()),
        ("paths.reports", "elsewhere", set()),
    ],
)
def test_a_change_reaches_exactly_what_depends_on_it(path, value, verbs):
    before, after = specs(Study(SMALL)), specs(changed(path, value))
    assert {key[0] for key in before if before[key] != after[key]} == verbs


OWN = {"task": "segmentation", "classes": ["lung"], "mask": "mask", "table": "labels.csv"}


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"folder": {**OWN, "title": "Mine", "modality": "CT", "licence": "ours"}}, None),  # only words on the page
        ({"folder": {**OWN, "size": 224}}, "embed"),
        ({"size": 224}, "embed"),
        ({"folder": {**OWN, "intensity": {"kind": "percentiles", "low": 1, "high": 99, "of": "slice"}}}, "embed"),
        ({"intensity": {"kind": "percentiles", "low": 1, "high": 99, "of": "slice"}}, "embed"),
        ({"intensity": {"kind": "window", "low": 0, "high": 9}}, "prepare"),  # values with a unit are never scaled
        ({"folder": {**OWN, "stored": 224}}, "prepare"),
        ({"stored": 224}, "prepare"),
        ({"slices": "paper"}, "prepare"),
        ({"folder": {**OWN, "mask": "label_map"}}, "retrieve"),
        ({"folder": {**OWN, "table": "others.csv"}}, "retrieve"),
        ({"raw": "elsewhere"}, "retrieve"),
    ],
)
def test_a_change_of_an_own_folder_reaches_exactly_what_depends_on_it(tmp_path, change, first):
    for place in ("data/raw/mine", "elsewhere"):
        (tmp_path / place).mkdir(parents=True)
        for name in ("labels.csv", "others.csv"):
            (tmp_path / place / name).touch()

    def of(choice):
        own = {"mine": {"folder": OWN, **choice}}
        return specs(Study({**SMALL, "paths": {"root": str(tmp_path)}, "datasets": own}))

    before, after = of({}), of(change)
    changed = {key[0] for key in before if before[key] != after[key]}
    order = ["retrieve", "prepare", "embed", "segment", "score", "compare"]
    assert changed - {"split"} == set(order[order.index(first) :] if first else [])
    assert ("split" in changed) == (first in ("retrieve", "prepare"))


@pytest.mark.parametrize("fact", [{"mask": "labels"}, {"blank": "zeros"}])
def test_a_corrected_fact_of_the_catalog_reaches_what_depends_on_it(monkeypatch, fact):
    before = specs(Study(SMALL))
    entries = catalog.datasets()
    corrected = {**entries, "montgomery": entries["montgomery"].model_copy(update=fact)}
    monkeypatch.setattr(catalog, "datasets", lambda: corrected)
    after = specs(Study(SMALL))
    changed = {key[:2] for key in before if before[key] != after[key]}
    assert {verb for verb, dataset in changed} == {"prepare", "split", "embed", "segment", "score", "compare"}
    assert {dataset for verb, dataset in changed} == {"montgomery"}


def test_an_own_folder_is_used_as_params_say():
    own = {"slices": "paper", "size": 100, "stored": 90, "intensity": {"kind": "window", "low": 0, "high": 9}}
    entry = Study({**SMALL, "datasets": {"mine": {"folder": OWN, **own}}}).dataset("mine")
    assert entry.model_dump(include=set(own)) == own
    with pytest.raises(RadprobeError, match=r"datasets.mine.classes.*'all'"):
        Study({**SMALL, "datasets": {"mine": {"folder": OWN, "classes": "all"}}})


def test_a_change_of_one_dataset_leaves_the_others_alone():
    before, after = specs(Study(SMALL)), specs(changed("datasets.montgomery.allow_missing", True))
    assert {key[1] for key in before if before[key] != after[key]} == {"montgomery"}


def test_a_bumped_version_reaches_what_depends_on_it(monkeypatch):
    before = specs(Study(SMALL))
    monkeypatch.setitem(__import__("radprobe.study").study.VERSIONS, "split", 99)
    after = specs(Study(SMALL))
    assert {key[0] for key in before if before[key] != after[key]} == {"split", "probe", "segment", "score", "compare"}


def test_a_random_twin_follows_each_pretrained_backbone(tmp_path):
    (tmp_path / "tf_efficientnet_lite0.in1k.safetensors").touch()
    study = Study({**SMALL, "backbones": ["test_vit", "tf_efficientnet_lite0"], "paths": {"weights": str(tmp_path)}})
    assert study.backbones == ["test_vit", "tf_efficientnet_lite0", "random:tf_efficientnet_lite0"]
    assert study.backbone("random:tf_efficientnet_lite0").random
    assert study.backbones_here == study.backbones


def test_what_is_absent_leaves_the_steps_and_is_named(tmp_path):
    params = {"study": "s", "hub": False, "paths": {"root": str(tmp_path)}, "backbones": ["vit_small_patch14_dinov2"]}
    params["datasets"] = {"montgomery": {"phantom": {"patients": 9}}, "nih_chestxray14": {}}
    study = Study(params)
    assert {(one.kind, one.name) for one in study.missing} == {
        ("dataset", "nih_chestxray14"),
        ("backbone", "vit_small_patch14_dinov2"),
    }
    assert {key[1:] for key in study.steps if key[0] == "segment"} == {
        ("montgomery", "random:vit_small_patch14_dinov2"),
    }
    with pytest.raises(RadprobeError, match=r"nih_chestxray14.*no raw folder"):
        study.step("prepare", "nih_chestxray14")
    with pytest.raises(RadprobeError, match=r"data/raw/nih_chestxray14"):
        _ = Study({**params, "on_missing": "fail"}).missing


@pytest.mark.parametrize(
    ("change", "nearest"),
    [
        ({"backbones": ["tes_vit"]}, "test_vit"),
        ({"backbones": ["random:tes_vit"]}, "test_vit"),
        ({"datasets": {"montgomry": {}}}, "montgomery"),
        ({"datasets": {"nih_chestxray14": {"split": "nih_real_subse"}}}, "nih_real_subset"),
        (
            {"backbones": ["mine"], "own_backbones": {"mine": {"like": "tets_vit", "title": "t", "file": "f"}}},
            "test_vit",
        ),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(change, nearest):
    with pytest.raises(RadprobeError, match=f"did you mean '{nearest}'"):
        Study({**SMALL, **change})


def test_an_own_backbone_keeps_its_own_name_and_hash():
    own = {"mine": {"like": "vit_small_patch14_dinov2", "title": "Mine", "file": "m.safetensors", "sha256": "ab"}}
    study = Study({**SMALL, "backbones": ["mine"], "own_backbones": own})
    entry = study.backbone("mine")
    assert (entry.title, entry.family, entry.sha256, entry.repo) == ("Mine", "own", "ab", None)
    assert entry.name == study.backbone("vit_small_patch14_dinov2").name
    assert study.missing[0].name == "mine"


def test_an_own_backbone_like_a_random_one_is_not_random():
    own = {"mine": {"like": "test_vit", "title": "Mine", "file": "m.safetensors"}}
    study = Study({**SMALL, "backbones": ["mine"], "own_backbones": own})
    assert not study.backbone("mine").random
    assert study.backbones == ["mine", "random:mine"]
    assert [one.name for one in study.missing] == ["mine"]
