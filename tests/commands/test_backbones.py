import csv
import io
import subprocess
import sys
from pathlib import Path

import pytest

from radprobe import catalog
from radprobe.catalog import Cost
from radprobe.commands import backbones
from radprobe.files import RadprobeError
from radprobe.study import Study

ROOT = Path(__file__).parents[2]
COSTS = ROOT / "src/radprobe/catalog/backbone_costs.csv"
RECIPE = {"patch": 16, "native_size": 160, "mean": [0.5] * 3, "std": [0.5] * 3}
TINY = {"architecture": {"name": "test_vit.r160_in1k"}, "recipe": RECIPE, "title": "mine", "file": "mine.safetensors"}


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    for name in ("HF_HUB_OFFLINE", "RADPROBE_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)


def study(tmp_path, chosen=("test_vit",), **changes):
    content = {"study": "s", "paths": {"root": str(tmp_path)}, "datasets": {"montgomery": {}}}
    return Study({**content, "backbones": list(chosen), **changes})


def own(tmp_path, **changes):
    return study(tmp_path, ["mine"], own_backbones={"mine": {**TINY, **changes}})


def test_every_backbone_of_the_catalog_and_own_ones_are_listed(tmp_path, capsys):
    like = {"like": "vit_giant_patch14_dinov2", "title": "m", "file": "m.safetensors"}
    backbones.run(study(tmp_path, own_backbones={"mine": like}))
    rows = capsys.readouterr().out.split("├")
    first = ["".join(line.split("│")[1].strip() for line in row.splitlines() if line.startswith("│")) for row in rows]
    assert first == [*catalog.encoders(), "mine"]
    assert f"{catalog.costs()['vit_giant_patch14_dinov2'].parameters:,}" in rows[-1]


def test_each_place_of_weights_has_its_status(tmp_path, monkeypatch):
    def status(name, **changes):
        return backbones.status(study(tmp_path, ["mae_large@paper"], **changes), name)

    assert status("mae_large") == "fetched from the hub by the next run"
    assert status("clip_large") == "fetched from the hub when the study names it"
    assert status("mae_large", hub=False) == "not here"
    assert status("vit_small_patch16_dinov3") == "gated: terms and a token are needed"
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "token")
    assert status("vit_small_patch16_dinov3") == "fetched from the hub when the study names it"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert status("vit_small_patch16_dinov3") == status("mae_large") == "not here"
    assert status("test_vit") == status("pixels") == "needs no weights"
    monkeypatch.setattr(catalog, "package_folder", lambda package: tmp_path)
    package = catalog.encoders()["tf_efficientnet_lite0"].package
    assert status("tf_efficientnet_lite0") == f"here: in the Python package {package.name} {package.version}"
    for name in ("tf_efficientnet_lite0", "mae_large"):
        file = tmp_path / "data/weights" / catalog.encoders()[name].local[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(1500))
        assert status(name) == f"here: {file}"
        assert backbones.row(study(tmp_path), name).weights == "1.5 kB"


@pytest.mark.parametrize("name", catalog.encoders())
def test_the_facts_of_one_name_licence_source_and_recipe(tmp_path, capsys, name):
    backbones.facts(study(tmp_path), name)
    printed, entry = capsys.readouterr().out, catalog.encoders()[name]
    words = [entry.title, entry.licence, entry.citation, entry.notes or "", f"native size: {entry.native_size:,} px"]
    words += [f"{catalog.costs()[name].parameters:,}", f"{catalog.costs()[name].dim:,} numbers"]
    if not entry.random:
        words += [f"https://huggingface.co/{entry.repo}", entry.revision or "revision: not known", *entry.local]
        words += [entry.sha256 or "sha256: not known: recorded at first use", str(tmp_path / "data/weights")]
    if entry.sizes:
        words.append(f"sizes: always {entry.sizes[0]:,} px")
    for text in words:
        assert text in printed
    assert ("a person must accept its terms" in printed) == entry.gated


def test_what_the_study_did_otherwise_is_said(tmp_path, capsys):
    for name, words in (
        ("mae_large", "used otherwise (mae_large@paper): before the final norm"),
        ("biomedclip_base", "mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225), pooled by open_clip"),
        ("sam_large", "used, with features as here"),
        ("rad_dino", "not used"),
    ):
        backbones.facts(study(tmp_path), name)
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  in the study: ")]
        assert line.endswith(words)


def test_an_unknown_name_gets_the_nearest(tmp_path):
    with pytest.raises(RadprobeError, match="did you mean 'rad_dino'"):
        backbones.facts(study(tmp_path), "raddino")


# --- costs ------------------------------------------------------------------------------------------------------------


def test_sam_costs_the_same_whatever_the_dataset_says(tmp_path):
    row, cost = backbones.row(study(tmp_path), "sam_large"), catalog.costs()["sam_large"]
    assert row.tokens == f"{(1024 // 16) ** 2:,} @ 1,024"
    assert row.gflops == f"{cost.gflops_448:,.1f} @ 1,024"


def test_an_own_backbone_that_is_like_none_is_counted(tmp_path):
    row, same = backbones.row(own(tmp_path), "mine"), backbones.row(study(tmp_path), "test_vit")
    assert (row.parameters, row.gflops, row.tokens) == (same.parameters, same.gflops, same.tokens)
    assert (row.status, row.weights) == ("not here", "of unknown size")


def test_an_own_backbone_like_another_but_of_its_own_sizes_is_counted_at_those(tmp_path):
    like = {"architecture": None, "like": "test_vit", "recipe": {**RECIPE, "sizes": [320]}}
    row = backbones.row(own(tmp_path, **like), "mine")
    assert row.tokens == "400 @ 320"


def test_what_an_own_backbone_costs_at_a_side_that_it_cannot_take_is_not_known(tmp_path, capsys):
    odd = study(tmp_path, own_backbones={"mine": {**TINY, "recipe": {**RECIPE, "patch": 15}}})
    assert backbones.row(odd, "mine").gflops == "not known"
    backbones.facts(odd, "mine")
    assert "costs: not known" in capsys.readouterr().out


def test_listing_needs_no_torch_and_no_network():
    heavy = "{'torch', 'timm', 'transformers', 'open_clip', 'requests'} & set(sys.modules)"
    code = "import sys; from radprobe.commands import backbones; from radprobe.study import Study; "
    code += "backbones.run(Study('params.yaml')); backbones.facts(Study('params.yaml'), 'sam_large'); "
    code += f"backbones.markdown(); assert not {heavy}, {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def test_every_backbone_of_the_catalog_has_its_costs():
    assert list(catalog.costs()) == list(catalog.encoders())


@pytest.mark.parametrize("name", ["test_vit", "pixels", "tf_efficientnet_lite0", "vit_small_patch14_dinov2"])
def test_the_committed_costs_are_those_of_the_architecture(name):
    from radprobe.models.costs import cost

    assert catalog.costs()[name] == cost(catalog.encoders()[name]), "run `make backbones-table`"


@pytest.mark.slow
def test_all_committed_costs_are_those_of_the_architectures():
    assert COSTS.read_text(encoding="utf-8") == backbones.costs_csv(), "run `make backbones-table`"


def test_costs_are_printed_as_the_catalog_reads_them(monkeypatch):
    small = {name: catalog.encoders()[name] for name in ("test_vit", "pixels")}
    monkeypatch.setattr(catalog, "backbones", lambda: small)
    rows = list(csv.DictReader(io.StringIO(backbones.costs_csv())))
    assert {row.pop("id"): Cost.model_validate(row) for row in rows} == {name: catalog.costs()[name] for name in small}


# --- docs/backbones.md ------------------------------------------------------------------------------------------------


def test_the_table_in_the_documents_is_that_of_the_catalog():
    assert (ROOT / "docs/backbones.md").read_text(encoding="utf-8") == backbones.markdown(), (
        "run `make backbones-table`"
    )


def test_the_table_has_a_whole_row_for_each_backbone_under_its_family():
    family, found = None, {}
    for line in backbones.markdown().splitlines():
        if line.startswith("## "):
            family = line.removeprefix("## ")
        elif line.startswith("| `"):
            found[line.split("`")[1]] = family
            assert line.replace("\\|", "").count("|") == len(backbones.COLUMNS) + 1
    assert found == {name: entry.family.capitalize() for name, entry in catalog.encoders().items()}
