import copy

import pytest
from small_params import NO_CONTROLS

from radprobe import catalog
from radprobe.files import RadprobeError
from radprobe.manifests import TOGETHER
from radprobe.study import OUTPUTS, Study

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
    assert study.backbones == [
        "test_vit",
        "tf_efficientnet_lite0",
        "random:tf_efficientnet_lite0",
        "pixels",
        "metadata",
        "ceiling",
    ]
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
        ("montgomery", "pixels"),
        ("montgomery", "ceiling"),
    }
    with pytest.raises(RadprobeError, match=r"nih_chestxray14.*no raw folder"):
        study.step("prepare", "nih_chestxray14")
    failing = Study({**params, "on_missing": "fail"})
    with pytest.raises(RadprobeError, match=r"data/raw/nih_chestxray14"):
        _ = failing.missing
    assert failing.as_if_skipping().steps == study.steps
    with pytest.raises(RadprobeError, match=r"data/raw/nih_chestxray14"):  # it is as it was
        _ = failing.steps


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
    assert study.backbones == ["mine", "random:mine", "pixels", "metadata", "ceiling"]
    assert [one.name for one in study.missing] == ["mine"]


# --- backbones --------------------------------------------------------------------------------------------------------


def backbones(*names, **params):
    return Study({**SMALL, "hub": False, "controls": NO_CONTROLS, "backbones": list(names), **params})


def test_features_as_in_the_study_share_the_weights_and_nothing_else(tmp_path):
    (tmp_path / "vit-msn-large.safetensors").touch()
    study = backbones("msn_large", "msn_large@paper", paths={"weights": str(tmp_path)}, controls=["random"])
    twins = [f"random:{name}" for name in ("msn_large", "msn_large@paper")]
    assert study.backbones == ["msn_large", twins[0], "msn_large@paper", twins[1]]
    assert study.missing == []
    ours, theirs = study.backbone("msn_large"), study.backbone("msn_large@paper")
    assert (ours.norm, theirs.norm) == (True, False)
    assert "as in the study" in theirs.title
    embeds = [study.step("embed", "montgomery", name) for name in study.backbones]
    assert len({step.folder for step in embeds}) == 4
    assert embeds[0].need("weights") == embeds[2].need("weights")
    assert embeds[1].need("weights") == embeds[3].need("weights") != embeds[0].need("weights")


def test_the_paper_row_normalises_as_the_study_did():
    entry = backbones("clip_large").backbone("clip_large@paper")
    assert entry.mean == backbones("clip_large").backbone("vit_small_patch14_dinov2").mean
    assert backbones("biomedclip_base").backbone("biomedclip_base@paper").pool == "library"


def test_gated_weights_without_a_token_are_told_before_anything_runs(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    study = backbones("vit_small_patch16_dinov3", "mae_large", hub=True, paths={"weights": str(tmp_path)})
    (missing,) = study.missing
    assert missing.name == "vit_small_patch16_dinov3"
    for word in ("accept", "HF_TOKEN", "timm/vit_small_patch16_dinov3.lvd1689m", "86 MB", str(tmp_path)):
        assert word in f"{missing.why} {missing.remedy}"
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_token")
    assert backbones("vit_small_patch16_dinov3", hub=True).missing == []


def test_a_job_asks_for_the_memory_that_its_backbone_needs():
    own = {"title": "Mine", "file": "m.pth", "architecture": {"library": "transformers", "name": "dinov2"}}
    own["recipe"] = {"patch": 14, "native_size": 224, "mean": [0.5] * 3, "std": [0.2] * 3}
    study = backbones("mine", "random:vit_giant_patch14_dinov2", own_backbones={"mine": own})
    small, giant = study.memory_mb("mine"), study.memory_mb("random:vit_giant_patch14_dinov2")
    assert giant - small == pytest.approx(2 * 4 * 1136, rel=0.01)


def test_metadata_alone_classify_where_there_are_any():
    study = backbones("test_vit", controls=["metadata"])
    assert {key[1] for key in study.steps if key[2] == "metadata"} == {"nih_chestxray14"}  # and no weights
    assert study.step("embed", "nih_chestxray14", "metadata").needs == (study.step("prepare", "nih_chestxray14"),)
    assert not study.applies("montgomery", "metadata")


def test_without_a_decoder_nothing_frozen_segments_but_all_else_does():
    decoders = {"linear": None, "unet": None, "scratch": {}}
    adapt = {"backbones": ["test_vit"], "lora": {}}
    controls = ["random", "pixels", "ceiling"]
    study = backbones("test_vit", "unet", segment=decoders, adapt=adapt, controls=controls)
    predicting = [key for key in study.steps if key[1] == "montgomery" and key[0] in ("embed", "segment", "adapt")]
    assert {key[2] for key in predicting} == {
        "unet",
        "ceiling",
        "test_vit+lora",
        "test_vit+bitfit",
        "test_vit+end_to_end",
    }
    assert not [key for key in predicting if key[0] == "embed"]
    assert study.steps["probe", "nih_chestxray14", "test_vit"]


def test_a_dataset_that_nothing_segments_leaves_the_study_and_says_so():
    decoders = {"linear": None, "unet": None, "scratch": None}
    study = backbones("test_vit", segment=decoders, controls=["random", "pixels", "ceiling"])
    (missing,) = study.missing
    assert (missing.kind, missing.name) == ("dataset", "montgomery")
    assert "segment.linear" in missing.remedy
    assert {key[1] for key in study.steps} == {None, "nih_chestxray14"}


def test_weights_that_params_forbid_to_fetch_are_told_to_be_fetched():
    (missing,) = backbones("mae_large", hub=False).missing
    assert "or let it be fetched: `hub: true` in params, and no HF_HUB_OFFLINE" in missing.remedy


def test_two_checkpoints_of_one_name_are_two():
    specs_ = [
        backbones("mine", own_backbones={"mine": {"title": "t", "like": "test_vit", "file": f"{folder}/best.pth"}})
        for folder in ("a", "b")
    ]
    assert specs_[0]._weights("mine").spec != specs_[1]._weights("mine").spec


def adapting(**adapt):
    datasets = {name: {"phantom": {"patients": 9}} for name in ("montgomery", "nih_chestxray14", "mni152")}
    return Study(
        {"study": "s", "datasets": datasets, "backbones": ["test_vit", "tf_efficientnet_lite0"], "adapt": adapt}
    )


def test_backbones_are_adapted_in_rows_of_their_own_and_only_pretrained_ones_unless_named():
    study = adapting(lora=None)
    adapted = [f"tf_efficientnet_lite0+{mode}" for mode in ("bitfit", "end_to_end")]  # test_vit is random
    assert [name for name in study.backbones if "+" in name] == adapted
    assert {(v, d) for v, d, b in study.steps if b == adapted[0]} == {
        (verb, dataset) for verb in ("adapt", "score") for dataset in ("montgomery", "nih_chestxray14")
    }
    step = study.step("adapt", "montgomery", adapted[0])
    assert {need.verb for need in step.needs} == {"prepare", "split", "weights"}
    assert study.backbone(adapted[0]).title.endswith(" + BitFit")
    named = adapting(backbones=["test_vit", "random:tf_efficientnet_lite0"], bitfit=None)
    assert {name for name in named.backbones if "+" in name} == {
        "test_vit+lora", "test_vit+end_to_end", "random:tf_efficientnet_lite0+lora",
        "random:tf_efficientnet_lite0+end_to_end",
    }  # fmt: skip


def test_an_option_of_one_way_moves_that_way_only():
    one, other = adapting(lora=None), adapting(lora=None, bitfit={"head_rates": [0.5]})
    moved = {key for key in one.steps if one.steps[key].spec != other.steps[key].spec}
    assert moved == {
        (verb, dataset, name)
        for dataset in ("montgomery", "nih_chestxray14")
        for verb, name in (
            ("adapt", "tf_efficientnet_lite0+bitfit"), ("score", "tf_efficientnet_lite0+bitfit"), ("compare", None)
        )
    }  # fmt: skip


def test_an_own_backbone_is_weights_or_an_adapter_and_a_file_that_is_none_is_refused(tmp_path):
    def own(**entry):
        content = {"study": "s", "datasets": {"montgomery": {"phantom": {"patients": 9}}}, "backbones": ["mine"]}
        return Study({**content, "paths": {"root": str(tmp_path)}, "own_backbones": {"mine": {"title": "M", **entry}}})

    with pytest.raises(RadprobeError, match="either `file`"):
        own()
    with pytest.raises(RadprobeError, match="names its backbone itself"):
        own(adapter="a.safetensors", like="test_vit")
    (gone,) = own(adapter="a.safetensors").missing  # the study goes on without it
    assert (gone.name, "no adapter" in gone.why) == ("mine", True)
    (tmp_path / "a.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(RadprobeError, match="no adapter that radprobe wrote"):
        own(adapter="a.safetensors")


def test_what_is_set_aside_together_is_what_a_verb_makes():
    assert sorted(map(sorted, TOGETHER)) == sorted(sorted(kinds) for kinds in OUTPUTS.values() if len(kinds) > 1)


@pytest.mark.parametrize("lost", OUTPUTS["prepare"])
def test_a_step_is_done_with_all_of_its_manifests_alone(tmp_path, lost):
    step = changed("paths.root", str(tmp_path)).step("prepare", "montgomery")
    step.folder.mkdir(parents=True)
    for manifest in step.outputs:
        manifest.touch()
    assert step.done
    (step.folder / f"{lost}.json").unlink()
    assert not step.done


def test_a_step_of_a_verb_that_the_study_has_not_is_refused_with_its_datasets():
    with pytest.raises(RadprobeError, match="this study has no step 'segment'") as error:
        backbones("test_vit", datasets={"nih_chestxray14": {"phantom": {"patients": 60}}}).step("segment", "mine", "x")
    assert "nih_chestxray14" in error.value.remedy
    assert "--params" in error.value.remedy
