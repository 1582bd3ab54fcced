import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from small_params import NO_CONTROLS

from radprobe import catalog
from radprobe.entries import ADAPTER_FACTS
from radprobe.files import RadprobeError
from radprobe.manifests import TOGETHER
from radprobe.names import inits
from radprobe.study import OUTPUTS, Study

ROOT = Path(__file__).parents[1]
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


def keys(study: Study) -> dict:
    return {key: step.key for key, step in study.steps.items()}


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
    before, after = keys(Study(SMALL)), keys(changed(path, value))
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
        ({"slices": "paper"}, "retrieve"),
        ({"folder": {**OWN, "mask": "label_map"}}, "retrieve"),
        ({"folder": {**OWN, "table": "others.csv"}}, "retrieve"),
        ({"raw": "elsewhere"}, None),  # the same files at another place
    ],
)
def test_a_change_of_an_own_folder_reaches_exactly_what_depends_on_it(tmp_path, change, first):
    for place in ("data/raw/mine", "elsewhere"):
        (tmp_path / place).mkdir(parents=True)
        for name in ("labels.csv", "others.csv"):
            (tmp_path / place / name).touch()

    def of(choice):
        own = {"mine": {"folder": OWN, **choice}}
        return keys(Study({**SMALL, "paths": {"root": str(tmp_path)}, "datasets": own}))

    before, after = of({}), of(change)
    changed = {key[0] for key in before if before[key] != after[key]}
    order = ["retrieve", "prepare", "embed", "segment", "score", "compare"]
    assert changed - {"split"} == set(order[order.index(first) :] if first else [])
    assert ("split" in changed) == (first in ("retrieve", "prepare"))


@pytest.mark.parametrize("fact", [{"mask": "labels"}, {"blank": "zeros"}])
def test_a_corrected_fact_of_the_catalog_reaches_what_depends_on_it(monkeypatch, fact):
    before = keys(Study(SMALL))
    entries = catalog.datasets()
    corrected = {**entries, "montgomery": entries["montgomery"].model_copy(update=fact)}
    monkeypatch.setattr(catalog, "datasets", lambda: corrected)
    after = keys(Study(SMALL))
    changed = {key[:2] for key in before if before[key] != after[key]}
    read_by = {"retrieve"} if "blank" in fact else set()  # tables are read there, masks in prepare
    assert {verb for verb, _ in changed} == read_by | {"prepare", "split", "embed", "segment", "score", "compare"}
    assert {dataset for verb, dataset in changed} == {"montgomery"}


def test_a_change_of_one_dataset_leaves_the_others_alone():
    before, after = keys(Study(SMALL)), keys(changed("datasets.montgomery.allow_missing", True))
    assert {key[1] for key in before if before[key] != after[key]} == {"montgomery"}


def test_a_bumped_version_reaches_what_depends_on_it(monkeypatch):
    before = keys(Study(SMALL))
    monkeypatch.setitem(__import__("radprobe.study").study.VERSIONS, "split", 99)
    after = keys(Study(SMALL))
    assert {key[0] for key in before if before[key] != after[key]} == {"split", "probe", "segment", "score", "compare"}


def test_random_inits_follow_each_pretrained_backbone(tmp_path):
    (tmp_path / "tf_efficientnet_lite0.in1k.safetensors").touch()
    study = Study({**SMALL, "backbones": ["test_vit", "tf_efficientnet_lite0"], "paths": {"weights": str(tmp_path)}})
    assert study.backbones == [
        "test_vit",
        "tf_efficientnet_lite0",
        "random:tf_efficientnet_lite0",
        "random:tf_efficientnet_lite0~2",
        "random:tf_efficientnet_lite0~3",
        "pixels",
        "metadata",
        "ceiling",
    ]
    entries = [study.backbone(name) for name in inits("random:tf_efficientnet_lite0", 3)]
    assert all(entry.random and entry.family == "control" for entry in entries)
    assert len({entry.title for entry in entries}) == 3
    assert study.backbones_here == study.backbones
    assert study.rows == [name for name in study.backbones if "~" not in name]
    assert study.rows_here == study.rows


CONTROLS = {"random_inits": 3, "decoder_inits": 2}
TASKS = {"nih_chestxray14": 3, "montgomery": 2, "mni152": 1}  # classified, segmented, looked at


@pytest.mark.parametrize("dataset", TASKS)
def test_a_dataset_asks_for_as_many_inits_as_its_task_needs(dataset):
    datasets = {name: {"phantom": {"patients": 9}} for name in TASKS}
    study = Study({"study": "s", "datasets": datasets, "backbones": ["tf_efficientnet_lite0"], "controls": CONTROLS})
    expected = inits("random:tf_efficientnet_lite0", TASKS[dataset])
    assert study.inits(dataset, expected[0]) == expected
    for verb in {"embed", study.predicting(dataset, None)} - {""}:
        found = [b for v, d, b in study.steps if (v, d) == (verb, dataset) and b.startswith("random:")]
        assert found == expected
    if dataset == "mni152":
        return
    compared = {need.backbone for need in study.step("compare", dataset).dependencies}
    assert set(expected) <= compared


def test_each_init_has_weights_and_features_of_its_own_and_seeds_follow_that_of_the_study():
    datasets = {"nih_chestxray14": {"phantom": {"patients": 9}}}
    study = Study({"study": "s", "seed": 7, "datasets": datasets, "backbones": ["tf_efficientnet_lite0"]})
    names = study.inits("nih_chestxray14", "random:tf_efficientnet_lite0")
    weights = [study.step("weights", None, name) for name in names]
    assert [step.job.seed for step in weights] == [7, 8, 9]
    for steps in (weights, [study.step("probe", "nih_chestxray14", name) for name in names]):
        assert len({step.key for step in steps}) == len({step.folder for step in steps}) == 3
    for name, step in zip(names, weights, strict=True):
        assert study.step("embed", "nih_chestxray14", name).dependency("weights") == step
    few_shot = [study.step("probe", "nih_chestxray14", name).job.heads.few_shot for name in names]
    assert few_shot[0]
    assert few_shot[1:] == [None, None]  # the curves of the control are those of its first init


def test_a_study_that_only_segments_makes_no_init_that_nothing_uses():
    study = Study({"study": "s", "datasets": {"montgomery": {}}, "backbones": ["tf_efficientnet_lite0"]})
    assert [name for name in study.backbones if name.startswith("random:")] == ["random:tf_efficientnet_lite0"]


def test_without_random_inits_there_is_no_random_row_unless_it_is_named():
    for names, expected in (
        (["tf_efficientnet_lite0"], []),
        (["random:tf_efficientnet_lite0"], ["random:tf_efficientnet_lite0"]),
    ):
        study = backbones(*names, controls={"random_inits": 0})
        assert [name for name in study.backbones if name.startswith("random:")] == expected
        embedded = [dataset for verb, dataset, backbone in study.steps if verb == "embed" and backbone in expected]
        assert embedded == (list(study.params.datasets) if expected else [])


def test_inits_leave_with_their_backbone_which_is_told_once(tmp_path):
    absent = ["msn_large", "msn_large@paper"]
    study = backbones(*absent, "tf_efficientnet_lite0", paths={"weights": str(tmp_path)}, controls={})
    assert [(gone.kind, gone.name) for gone in study.missing] == [("backbone", name) for name in absent]
    assert {name for name in study.backbones if "msn_large" in name} == {
        *absent, *inits("random:msn_large", 3), *inits("random:msn_large@paper", 3)
    }  # fmt: skip
    assert not [name for name in study.backbones_here if "msn_large" in name]
    assert not [key for key in study.steps if key[2] and "msn_large" in key[2]]
    with pytest.raises(RadprobeError, match="msn_large: no weights"):
        study.step("embed", "montgomery", "random:msn_large~2")
    assert study.why_gone("random:msn_large@paper~3").name == "msn_large@paper"
    whole = study.as_if_complete()
    assert whole.backbones_here == study.backbones


def test_a_random_row_that_params_name_stays_without_its_backbone():
    study = backbones("msn_large", "random:msn_large", controls={"random_inits": 2})
    assert [gone.name for gone in study.missing] == ["msn_large"]
    named = ["random:msn_large", "random:msn_large~2"]
    assert [name for name in study.backbones_here if name.startswith("random:")] == named


def test_trained_random_rows_are_of_the_first_init_and_leave_with_their_backbone(tmp_path):
    (tmp_path / "tf_efficientnet_lite0.in1k.safetensors").touch()
    adapt = {"backbones": ["random:tf_efficientnet_lite0", "random:mae_large"], "lora": None}
    names = ("tf_efficientnet_lite0", "mae_large")
    study = backbones(*names, adapt=adapt, controls={}, paths={"weights": str(tmp_path)})
    rows = [f"random:tf_efficientnet_lite0+{mode}" for mode in ("head", "bitfit", "end_to_end")]
    assert [name for name in study.backbones_here if "+" in name] == rows
    adapt["backbones"] = ["random:tf_efficientnet_lite0~2"]
    with pytest.raises(RadprobeError, match=r"adapt\.backbones: unknown name"):
        backbones(*names, adapt=adapt, controls={}, paths={"weights": str(tmp_path)})


def test_what_is_absent_leaves_the_steps_and_is_named(tmp_path):
    params = {"study": "s", "hub": False, "paths": {"root": str(tmp_path)}, "backbones": ["vit_small_patch14_dinov2"]}
    params["datasets"] = {"montgomery": {"phantom": {"patients": 9}}, "nih_chestxray14": {}}
    study = Study(params)
    assert {(one.kind, one.name) for one in study.missing} == {
        ("dataset", "nih_chestxray14"),
        ("backbone", "vit_small_patch14_dinov2"),
    }
    assert {key[1:] for key in study.steps if key[0] == "segment"} == {
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
    assert study.backbones == ["mine", *inits("random:mine", 3), "pixels", "metadata", "ceiling"]
    assert [one.name for one in study.missing] == ["mine"]


# --- backbones --------------------------------------------------------------------------------------------------------


def backbones(*names, **params):
    return Study({**SMALL, "hub": False, "controls": NO_CONTROLS, "backbones": list(names), **params})


def test_features_as_in_the_study_share_the_weights_and_nothing_else(tmp_path):
    (tmp_path / "vit-msn-large.safetensors").touch()
    controls = NO_CONTROLS | {"random_inits": 2}
    study = backbones("msn_large", "msn_large@paper", paths={"weights": str(tmp_path)}, controls=controls)
    untrained = [inits(f"random:{name}", 2) for name in ("msn_large", "msn_large@paper")]
    assert study.backbones == ["msn_large", *untrained[0], "msn_large@paper", *untrained[1]]
    assert study.missing == []
    ours, theirs = study.backbone("msn_large"), study.backbone("msn_large@paper")
    assert (ours.norm, theirs.norm) == (True, False)
    assert "as in the study" in theirs.title
    embeds = [study.step("embed", "nih_chestxray14", name) for name in study.backbones]
    assert len({step.folder for step in embeds}) == 6
    weights = [step.dependency("weights") for step in embeds]
    assert weights[:3] == weights[3:]
    assert len({step.key for step in weights}) == 3


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
    study = backbones("test_vit", controls={"pixels": False, "ceiling": False})
    assert {key[1] for key in study.steps if key[2] == "metadata"} == {"nih_chestxray14"}  # and no weights
    assert study.step("embed", "nih_chestxray14", "metadata").dependencies == (
        study.step("prepare", "nih_chestxray14"),
    )
    assert not study.applies("montgomery", "metadata")


def test_without_a_decoder_nothing_frozen_segments_but_all_else_does():
    decoders = {"linear": None, "unet": None, "scratch": {}}
    adapt = {"backbones": ["test_vit"], "lora": {}}
    study = backbones("test_vit", "unet", segment=decoders, adapt=adapt, controls={"metadata": False})
    predicting = [key for key in study.steps if key[1] == "montgomery" and key[0] in ("embed", "segment", "adapt")]
    assert {key[2] for key in predicting} == {
        "unet",
        "ceiling",
        "test_vit+head",
        "test_vit+lora",
        "test_vit+bitfit",
        "test_vit+end_to_end",
    }
    assert not [key for key in predicting if key[0] == "embed"]
    assert study.steps["probe", "nih_chestxray14", "test_vit"]


def test_a_dataset_that_nothing_segments_leaves_the_study_and_says_so():
    decoders = {"linear": None, "unet": None, "scratch": None}
    study = backbones("test_vit", segment=decoders, controls={"metadata": False})
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
    assert specs_[0]._weights("mine").key != specs_[1]._weights("mine").key


def adapting(**adapt):
    datasets = {name: {"phantom": {"patients": 9}} for name in ("montgomery", "nih_chestxray14", "mni152")}
    return Study(
        {"study": "s", "datasets": datasets, "backbones": ["test_vit", "tf_efficientnet_lite0"], "adapt": adapt}
    )


def test_backbones_are_adapted_in_rows_of_their_own_and_only_pretrained_ones_unless_named():
    study = adapting(lora=None)
    adapted = [f"tf_efficientnet_lite0+{mode}" for mode in ("head", "bitfit", "end_to_end")]  # test_vit is random
    assert [name for name in study.backbones if "+" in name] == adapted
    assert {(v, d) for v, d, b in study.steps if b == adapted[0]} == {
        (verb, dataset) for verb in ("adapt", "score") for dataset in ("montgomery", "nih_chestxray14")
    }
    step = study.step("adapt", "montgomery", adapted[0])
    assert {need.verb for need in step.dependencies} == {"prepare", "split", "weights"}
    titles = [study.backbone(name).title.rpartition(" + ")[2] for name in adapted]
    assert titles == ["head only", "BitFit", "end to end"]
    named = adapting(backbones=["test_vit", "random:tf_efficientnet_lite0"], bitfit=None)
    assert {name for name in named.backbones if "+" in name} == {
        f"{name}+{mode}"
        for name in ("test_vit", "random:tf_efficientnet_lite0")
        for mode in ("head", "lora", "end_to_end")
    }
    assert not [name for name in adapting(bitfit=None, lora=None, end_to_end=None).backbones if "+" in name]


def test_the_head_alone_is_made_with_the_head_rates_of_every_way_beside_it():
    study = adapting(lora=None, bitfit={"head_rates": [0.01, 0.1]}, end_to_end={"head_rates": [0.001, 0.01]})
    name = "tf_efficientnet_lite0"
    head, bitfit = (study.step("adapt", "montgomery", f"{name}+{mode}") for mode in ("head", "bitfit"))
    assert head.job.head_rates == [0.01, 0.1, 0.001]
    ours, theirs = (each.job.model_dump() for each in (head, bitfit))
    differing = {key for key in ours if ours[key] != theirs[key]}
    assert differing == {"backbone", "mode", "backbone_rates", "head_rates"}
    cnn = adapting(bitfit=None, end_to_end=None)  # LoRA has no layer in it, so it has no way left
    assert {gone.name for gone in cnn.missing} >= {f"{name}+lora", f"{name}+head"}
    assert not [key for key in cnn.steps if key[0] == "adapt"]


def test_an_option_of_one_way_moves_that_way_and_a_head_rate_the_head_only_row_too():
    before = adapting(lora=None)
    for bitfit, ways in (({"backbone_rates": [0.5]}, ["bitfit"]), ({"head_rates": [0.5]}, ["bitfit", "head"])):
        after = adapting(lora=None, bitfit=bitfit)
        moved = {key for key in before.steps if before.steps[key].key != after.steps[key].key}
        assert moved == {
            (verb, dataset, name)
            for dataset in ("montgomery", "nih_chestxray14")
            for verb, name in (
                *((verb, f"tf_efficientnet_lite0+{way}") for verb in ("adapt", "score") for way in ways),
                ("compare", None),
            )
        }


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


def of_everything(root):
    """Return a study that has steps of every verb and every kind of dependency."""
    metadata = {"radprobe": json.dumps(dict.fromkeys(ADAPTER_FACTS, "") | {"backbone": "test_vit", "mode": "lora"})}
    save_file({"a": np.zeros(1, np.float32)}, root / "adapter.safetensors", metadata)
    (root / "rows.csv").write_text("sample_id\n")
    datasets = {name: {"phantom": {"patients": 9}} for name in ("montgomery", "nih_chestxray14")}
    datasets["nih_chestxray14"]["predictions"] = {"reader": "rows.csv"}
    content = {"study": "s", "datasets": datasets, "backbones": ["test_vit", "mine"], "paths": {"root": str(root)}}
    own = {"mine": {"title": "Mine", "adapter": "adapter.safetensors"}}
    return Study({**content, "own_backbones": own, "adapt": {"backbones": ["test_vit"]}})


def test_a_rule_names_the_verbs_that_its_steps_depend_on(tmp_path):
    depends = {verb: set() for verb in OUTPUTS}
    for step in of_everything(tmp_path).steps.values():
        depends[step.verb] |= {one.verb for one in step.dependencies}
    rules = {verb: (ROOT / f"workflow/rules/{verb}.smk").read_text() for verb in OUTPUTS}
    assert depends == {
        verb: set(re.findall(r'"(\w+)"', "".join(re.findall(r"=dependency\((.*)\),\n", rule))))
        for verb, rule in rules.items()
    }
