from pathlib import Path

import pytest
import yaml

from radprobe import catalog, params
from radprobe.files import RadprobeError

ROOT = Path(__file__).parents[1]
SHIPPED = [ROOT / "params.yaml", *ROOT.glob("workflow/profiles/*/params.yaml")]
SMALL = {"study": "s", "datasets": {"montgomery": {}}, "backbones": ["test_vit"]}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_shipped_params_are_valid(path):
    assert params.load(path).datasets


def test_the_shipped_values_are_the_defaults():
    """params.yaml shows the knobs; a value there that differs from the default would mislead who leaves it out."""
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text())
    default = params.load(SMALL).model_dump(mode="json")
    for section in ("controls", "embed", "probe", "segment", "score", "report"):
        for key, value in shipped[section].items():
            known = default[section][key]
            assert value == ({name: known[name] for name in value} if isinstance(value, dict) else known), key


def test_the_schema_has_not_drifted():
    kept = (ROOT / "workflow/schemas/params.schema.json").read_text()
    assert kept == params.schema(), "run `make schema`"


def test_every_field_is_described():
    def fields(model):
        for name, field in model.model_fields.items():
            inner = params._model_in(field.annotation)
            yield name, field
            if inner:
                yield from fields(inner)

    sections = {"paths", "embed", "probe", "segment", "score", "report"}
    sections |= {"knn", "mlknn", "linear", "logistic", "few_shot", "unet", "scratch"}
    sections |= {"bitfit", "lora", "end_to_end", "classify"}
    undescribed = [name for name, field in fields(params.Params) if not field.description and name not in sections]
    assert undescribed == []


@pytest.mark.parametrize(
    ("change", "key", "nearest"),
    [
        ({"dataset": {}}, "dataset", "'datasets'"),
        ({"probe": {"knn": {"ks": [1]}}}, "probe.knn.ks", "'k'"),
        ({"datasets": {"montgomery": {"splitt": "study"}}}, "datasets.montgomery.splitt", "'split'"),
        ({"embed": {"batchsize": 2}}, "embed.batchsize", "'batch_size'"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(change, key, nearest):
    with pytest.raises(RadprobeError) as caught:
        params.load({**SMALL, **change})
    assert key in caught.value.what
    assert nearest in caught.value.remedy


@pytest.mark.parametrize(
    "change",
    [
        {"probe": {"knn": {"k": [0, 5]}}},
        {"datasets": {"montgomery": {"max_quarantine": True}}},
        {"limit": True},
        {"seed": False},
        {"embed": {"batch_size": True}},
        {"probe": {"knn": {"k": [5, True]}}},
        {"probe": {"linear": {"learning_rates": [-1]}}},
        {"datasets": {"amos": {"intensity": {"kind": "window", "low": 600, "high": -1024}}}},
        {"datasets": {"mine": {"folder": {"task": "multilabel", "classes": ["ill", "well", "ill"]}}}},
        {"datasets": {"mine": {"folder": {"task": "binary", "classes": ["ill", "well"]}}}},
        {"datasets": {"my-set": {"folder": {"task": "binary", "classes": ["ill"]}}}},
        {"datasets": {"../mine": {"folder": {"task": "binary", "classes": ["ill"]}}}},
        {"datasets": {"mine": {"folder": {"task": "multiclass", "classes": ["ill"]}}}},
        {"datasets": {"amos": {"intensity": {"kind": "percentiles", "low": 95, "high": 5, "of": "slice"}}}},
        {"dvc": {"push": ["amos"], "pixels": ["montgomery"]}},
        {"study": "two\nlines"},
        {"own_backbones": {"../mine": {"like": "test_vit", "title": "t", "file": "f"}}},
        {"own_backbones": {"random-test_vit": {"like": "test_vit", "title": "t", "file": "f"}}},
    ],
)
def test_values_that_make_no_sense_are_refused(change):
    with pytest.raises(RadprobeError):
        params.load({**SMALL, **change})


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"limit": True}, "params: limit"),
        ({"probe": {"knn": {"k": [5, True]}}}, "params: probe.knn.k.1"),
        ({"datasets": {"montgomery": {"max_quarantine": True}}}, "params: datasets.montgomery.max_quarantine"),
    ],
)
def test_a_truth_value_is_no_number(change, key):
    with pytest.raises(RadprobeError, match="is a truth value, not a number") as caught:
        params.load({**SMALL, **change})
    assert caught.value.what == key
    assert caught.value.remedy.startswith("write a number: ")


@pytest.mark.parametrize("name", ["weights", "logs", "training", "Lock", "__pycache__"])
def test_a_dataset_does_not_take_the_name_of_a_folder_of_ours(name):
    own = {"folder": {"task": "binary", "classes": ["ill"]}}
    with pytest.raises(RadprobeError, match="call the dataset otherwise") as caught:
        params.load({**SMALL, "datasets": {name: own}})
    assert caught.value.what == f"params: datasets.{name}"
    assert params.load({**SMALL, "datasets": {f"own_{name}": own}}).datasets


def test_a_wrong_value_names_its_key(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "threads": "many"}))
    with pytest.raises(RadprobeError, match=r"mine\.yaml: threads.*many"):
        params.load(path)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("datasets: {mine: {folder: {task: multiclass, classes: [0, 1]}}}", 'put it in quotes: "0"'),
        ("datasets: {mine: {folder: {task: multiclass, classes: [yes, no]}}}", 'in quotes ("yes", "no")'),
        ("datasets: {mine: {folder: {task: multiclass, classes: [2024-05-06, a]}}}", 'put it in quotes: "2024-05-06"'),
        ("datasets: {my-films: {folder: {task: binary, classes: [ill]}}}", "digits and underscores only, as my_films"),
        ("backbones: rad_dino", "write a list: [rad_dino]"),
        ("limit: some", "A pilot on so many patients of each dataset"),
        ("embed: {precision: 16}", "Autocast of the forward pass"),
    ],
)
def test_a_wrong_value_says_what_to_write(tmp_path, text, remedy):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **yaml.safe_load(text)}))
    with pytest.raises(RadprobeError) as caught:
        params.load(path)
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("dinov2-small", "'vit_small_patch14_dinov2' or 'vit_small_patch14_reg4_dinov2'"),
        ("rad-dino", "'rad_dino'"),
        ("vit_smal_patch14_dinov2", "'vit_small_patch14_dinov2'"),
        ("biomedclip", "'biomedclip_base'"),
        ("zzz", "one of"),
    ],
)
def test_a_name_is_found_by_its_parts(word, near):
    assert params.nearest_name(word, list(catalog.backbones())).startswith(near)


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "study: M\xfcller", "[" * 200 + "]" * 200])
def test_a_file_that_is_no_params_file_is_refused(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(RadprobeError, match=r"mine\.yaml"):
        params.load(path)


def test_a_folder_is_no_params_file(tmp_path):
    with pytest.raises(RadprobeError, match="cannot be read") as error:
        params.load(tmp_path)
    assert "radprobe init" in error.value.remedy


@pytest.mark.survives("bug", "a key that is twice in params", "refused: YAML would take the last one")
def test_a_key_that_is_there_twice_is_refused_with_its_line(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(SMALL) + "score:\n  seed: 1\n  seed: 2\n")
    with pytest.raises(RadprobeError, match=r"(?s)the key seed is there twice.*line \d"):
        params.load(path)


def test_aliases_and_merge_keys_may_be_used(tmp_path):
    path = tmp_path / "mine.yaml"
    rates = "probe:\n  linear: &linear {epochs: 7}\nsegment:\n  linear: {<<: *linear, epochs: 8}\n"
    path.write_text(yaml.safe_dump(SMALL) + rates)
    found = params.load(path)
    assert (found.probe.linear.epochs, found.segment.linear.epochs) == (7, 8)


def test_the_environment_overrides_the_data_folders(monkeypatch):
    monkeypatch.setenv("RADPROBE_RAW", "/somewhere/raw")
    monkeypatch.setenv("RADPROBE_WEIGHTS", "/somewhere/weights")
    paths = params.load(SMALL).paths
    assert (paths.raw, paths.weights) == (Path("/somewhere/raw"), Path("/somewhere/weights"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["random", "pixels", "metadata", "ceiling"], {}),
        (["pixels"], {"random_inits": 0, "metadata": False, "ceiling": False}),
        ([], {"random_inits": 0, "pixels": False, "metadata": False, "ceiling": False}),
    ],
)
def test_a_list_of_controls_is_refused_with_the_mapping_to_write(old, new):
    with pytest.raises(RadprobeError) as caught:
        params.load({**SMALL, "controls": old})
    (line,) = (line for line in str(caught.value).splitlines() if "is a mapping, not a list" in line)
    shown = line.partition("write ")[2].rpartition(" (got")[0]
    given = params.load({**SMALL, **yaml.safe_load(shown)})
    assert given.controls == params.load({**SMALL, "controls": new}).controls


@pytest.mark.parametrize("given", [{"random_inits": 1, "decoder_inits": 2}, {"random_inits": 0, "decoder_inits": 2}])
def test_more_inits_with_decoders_than_inits_are_refused(given):
    with pytest.raises(RadprobeError, match=r"controls: decoder_inits is 2, more than random_inits \(\d\)"):
        params.load({**SMALL, "controls": given})


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"probe": {"shuffled": 19}}, r"probe\.shuffled: the range of 19 shuffles is too narrow .* 20 or more, or 0"),
        ({"probe": {"shuffled": False}}, r"probe\.shuffled: is a truth value, not a number"),
        ({"report": {"headline": "logistc"}}, r"report\.headline: unknown protocol. Did you mean 'logistic'"),
        ({"report": {"headline": "shuffled"}}, r"report\.headline: unknown protocol"),
    ],
)
def test_a_headline_is_a_known_protocol_and_shuffles_are_many_or_none(section, said):
    content = {"study": "x", "datasets": {"montgomery": {}}, "backbones": ["test_vit"]}
    assert params.load({**content, "probe": {"shuffled": 0}, "report": {"headline": "knn"}}).probe.shuffled == 0
    with pytest.raises(RadprobeError, match=said):
        params.load({**content, **section})
