import pytest
from small_params import NO_CONTROLS

from radprobe.entries import Entries
from radprobe.files import RadprobeError

SMALL = {
    "study": "s",
    "datasets": {"montgomery": {"phantom": {"patients": 9}}, "nih_chestxray14": {"phantom": {"patients": 9}}},
    "backbones": ["test_vit"],
}
OWN = {"task": "segmentation", "classes": ["lung"], "mask": "mask", "table": "labels.csv"}


def entries(*names, **params):
    return Entries({**SMALL, "controls": NO_CONTROLS, "backbones": list(names), **params})


def test_an_own_folder_is_used_as_params_say():
    own = {"slices": "paper", "size": 96, "stored": 90, "intensity": {"kind": "window", "low": 0, "high": 9}}
    entry = Entries({**SMALL, "datasets": {"mine": {"folder": OWN, **own}}}).dataset("mine")
    assert entry.model_dump(include=set(own)) == own
    with pytest.raises(RadprobeError, match=r"datasets.mine.classes.*'all'"):
        Entries({**SMALL, "datasets": {"mine": {"folder": OWN, "classes": "all"}}})


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
        Entries({**SMALL, **change})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_small_patch14_dinov2@paper", "as we do"),
        ("rad_dino@paper", "did not use"),
        ("msn_lrage@paper", "did you mean 'msn_large'"),
        ("msn_lrage", "did you mean 'msn_large'"),
        ("test_vit+lora", "made by adapt"),
    ],
)
def test_a_backbone_that_is_none_is_refused_at_once(name, reason):
    with pytest.raises(RadprobeError, match=reason):
        entries(name)


def test_a_size_that_a_patch_does_not_divide_is_refused_at_once():
    with pytest.raises(RadprobeError, match=r"datasets\.montgomery\.size.* 16 px.*\n.*size: 224"):
        entries("msn_large", datasets={"montgomery": {"size": 230}})
    found = entries("sam_large", "pixels", datasets={"montgomery": {"size": 230}})  # they get their own size
    assert found.backbones == ["sam_large", "pixels"]


OWN_NETWORK = {
    "title": "Mine",
    "file": "m.pth",
    "architecture": {"library": "transformers", "name": "dinov2", "options": {"hidden_size": 32}},
    "recipe": {"patch": 14, "native_size": 224, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
}


def test_an_own_network_needs_one_entry_of_params():
    entry = entries("mine", own_backbones={"mine": OWN_NETWORK}).backbone("mine")
    assert (entry.library, entry.name, entry.mean, entry.local) == (
        "transformers",
        "dinov2",
        (0.5, 0.5, 0.5),
        ["m.pth"],
    )
    changed = {**OWN_NETWORK, "like": "rad_dino", "architecture": None}
    assert entries("mine", own_backbones={"mine": changed}).backbone("mine").std == (0.2, 0.2, 0.2)


@pytest.mark.parametrize("change", [{"like": "rad_dino"}, {"architecture": None}, {"recipe": None}])
def test_an_own_network_that_is_said_twice_or_by_halves_is_refused(change):
    with pytest.raises(RadprobeError, match="architecture"):
        entries("mine", own_backbones={"mine": {**OWN_NETWORK, **change}})


def test_an_own_recipe_is_checked_with_its_entry():
    own = {"title": "t", "file": "f", "like": "rad_dino"}
    recipe = {"patch": 14, "native_size": 518, "mean": [0.5] * 3, "std": [0.5] * 3, "positions": "dinov2"}
    with pytest.raises(RadprobeError, match="positions: dinov2 is for networks of timm"):
        entries("mine", own_backbones={"mine": {**own, "recipe": recipe}})


def test_a_mean_of_patches_wants_patches():
    recipe = {"pool": "mean", "patch": None, "native_size": 224, "mean": [0.5] * 3, "std": [0.5] * 3}
    with pytest.raises(RadprobeError, match="pool: mean wants patch tokens"):
        entries("mine", own_backbones={"mine": {**OWN_NETWORK, "recipe": recipe}})


def test_a_way_to_adapt_that_the_study_leaves_out_is_refused():
    found = entries("test_vit", adapt={"backbones": ["test_vit"], "lora": None})
    with pytest.raises(RadprobeError, match="does not train backbones so"):
        found.backbone("test_vit+lora")


def test_what_a_file_of_params_names_wrongly_is_told_with_the_file(tmp_path):
    (path := tmp_path / "mine.yaml").write_text("study: s\ndatasets: {montgomry: {}}\nbackbones: [test_vit]\n")
    with pytest.raises(RadprobeError, match="did you mean 'montgomery'") as error:
        Entries(path)
    assert str(error.value.what).startswith(f"{path}: ")


def test_a_further_random_init_is_not_named_but_counted():
    for name in ("random:mae_large~2", "random:mae_large@paper~2"):
        with pytest.raises(RadprobeError, match=r"name random:mae_large\S*, and set controls\.random_inits"):
            _ = entries(name).backbones


def test_a_random_init_of_what_has_no_weights_is_refused():
    for name in ("random:pixels", "random:test_vit", "random:random:mae_large"):
        with pytest.raises(RadprobeError, match="has no weights"):
            entries(name)


def test_own_weights_are_not_those_of_the_study():
    own = {"title": "t", "file": "f", "like": "mae_large"}
    with pytest.raises(RadprobeError, match="did not use these weights"):
        entries("mine@paper", own_backbones={"mine": own})


def test_a_backbone_to_adapt_that_is_not_in_the_study_is_refused_by_name():
    with pytest.raises(RadprobeError, match=r"adapt\.backbones: unknown name 'test_vitt'"):
        entries("test_vit", adapt={"backbones": ["test_vitt"]})
