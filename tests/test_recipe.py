"""A backbone and a benchmark are added to a copy of this repository as the guides say, and no other file changes.

What is added stands in docs/how-to: one catalog entry each, and the short module of the benchmark.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import guide
import pandas as pd
import pytest
import yaml
from small_params import NO_CONTROLS

ROOT = Path(__file__).parents[1]
RECIPE = [block for name in ("backbone", "dataset") for block in guide.blocks(ROOT / f"docs/how-to/{name}.md")]
RECIPE = [block for block in RECIPE if (block.title or "").startswith("src/")]
CATALOG = "src/radprobe/catalog"
BACKBONE, DATASET = "vit_tiny_patch16_in21k", "ward_films"
BY_HAND = {f"{CATALOG}/backbones.yaml", f"{CATALOG}/datasets.yaml"}
BY_HAND |= {f"src/radprobe/{room}/{DATASET}.py" for room in ("datasets", "phantoms")}
GENERATED = {f"{CATALOG}/backbone_costs.csv", "docs/backbones.md", "docs/datasets.md"}  # by two targets of make
STUDY = {
    "study": "recipe",
    "datasets": {DATASET: {"phantom": {"patients": 40}, "stored": 128, "size": 112}},
    "backbones": [BACKBONE],
    "controls": NO_CONTROLS,
    "hub": False,
    "device": "cpu",
    "threads": 1,
    "embed": {"precision": "fp32"},
    "probe": {"linear": {"epochs": 20}},
    "score": {"resamples": 200},
    "paths": {"reports": "results/pages"},  # two files of reports/ are for git: the user's own results
}
KEYS = """
import json, sys
from radprobe.study import Study
given = {"study": "s", "datasets": {"montgomery": {}, "nih_chestxray14": {}}, "backbones": ["mae_large", "unet"]}
steps = Study(given).as_if_complete().steps.values()
print(json.dumps({" ".join([one.verb, one.dataset or "", one.backbone or ""]): one.key for one in steps}))
"""
OF_BACKBONES = (
    "test_every_backbone_of_the_catalog_and_own_ones_are_listed",
    f"test_the_facts_of_one_name_licence_source_and_recipe[{BACKBONE}]",
    "test_every_backbone_of_the_catalog_has_its_costs",
    "test_the_table_in_the_documents_is_that_of_the_catalog",
    "test_the_table_has_a_whole_row_for_each_backbone_under_its_family",
)
WHOLE = [f"tests/{name}.py" for name in ("test_catalog", "test_house", "test_readme", "commands/test_datasets")]
EACH = [
    *(f"tests/commands/test_backbones.py::{name}" for name in OF_BACKBONES),
    f"tests/models/test_architectures.py::test_every_entry_has_the_shapes_it_states[{BACKBONE}]",
    f"tests/models/test_architectures.py::test_every_entry_of_a_size_for_this_machine_runs_at_its_sizes[{BACKBONE}]",
    f"tests/test_benchmarks.py::test_a_generated_download_becomes_pixels_and_parts_without_a_leak[{DATASET}]",
    f"tests/test_benchmarks.py::test_the_order_in_which_files_are_listed_changes_no_sample[{DATASET}]",
]
RANDOM_WEIGHTS = """
import sys
from radprobe.models import torchvision_ops
import safetensors.torch, timm, torch
torch.manual_seed(0)
safetensors.torch.save_file(timm.create_model(sys.argv[1]).state_dict(), sys.argv[2])
"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not (ROOT / ".git").exists(), reason="wants a git checkout")]


def call(folder: Path, *command: str) -> str:
    """Run a command in a checkout, on the code of that checkout; return what it printed."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RADPROBE_")}
    environment = {**ours, "PYTHONPATH": str(folder / "src"), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, f"{command}\n{ran.stdout[-4000:]}\n{ran.stderr[-4000:]}"
    return ran.stdout


def make(folder: Path, target: str) -> None:
    """Make a target with the Python of this test, which has all that set-up would install."""
    call(folder, "make", "-o", "setup", target, f"BIN={Path(sys.executable).parent}")


def changed(folder: Path) -> set[str]:
    return {line[3:] for line in call(folder, "git", "status", "--porcelain", "--untracked-files=all").splitlines()}


def write_weights(folder: Path) -> None:
    """Write weights of the new backbone as its hub file has them, classifier too; the numbers are random."""
    entry = yaml.safe_load(RECIPE[0].text)[BACKBONE]
    file = folder / "data/weights" / entry["local"][0]
    file.parent.mkdir(parents=True)
    call(folder, sys.executable, "-c", RANDOM_WEIGHTS, entry["name"], str(file))


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Path:
    """Return a checkout of the files that git knows here, committed."""
    folder = tmp_path_factory.mktemp("recipe") / "radprobe"
    for name in subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).strip("\0").split("\0"):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    call(folder, "git", "init", "--quiet")
    call(folder, "git", "add", "--all")
    nobody = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false")
    call(folder, "git", *nobody, "commit", "--quiet", "--message", "before")
    assert changed(folder) == set()
    return folder


@pytest.fixture(scope="module")
def added(before) -> tuple[Path, dict[str, str]]:
    """Return the checkout with both added and their tables made, and the keys that others had before."""
    keys = json.loads(call(before, sys.executable, "-c", KEYS))
    for block in RECIPE:
        guide.put(block, before)
    assert changed(before) == BY_HAND
    make(before, "backbones-table")
    make(before, "datasets-table")
    return before, keys


def test_the_new_rows_come_to_scores_and_no_other_file_changes(added):
    folder, _ = added
    write_weights(folder)
    study = folder.parent / "study.yaml"
    study.write_text(yaml.safe_dump(STUDY))
    planned = call(folder, sys.executable, "-m", "radprobe", "plan", "--params", str(study))
    assert "Nothing is missing" in planned
    call(folder, sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", str(study))
    (scores,) = folder.glob(f"results/{DATASET}/score/{BACKBONE}/*/scores.parquet")
    table = pd.read_parquet(scores)
    auroc = table[(table["metric"] == "auroc") & (table["part"] == "test") & (table["class"] == "macro")]
    assert (auroc.set_index("protocol")["value"][["knn", "linear"]] > 0.6).all()
    page = (folder / "results/pages/explorer.html").read_text()
    assert "Ward films" in page
    assert "ViT-Ti/16, ImageNet-21k" in page
    assert changed(folder) == BY_HAND | GENERATED


def test_a_new_entry_re_runs_nothing_of_the_others(added):
    folder, keys = added
    assert json.loads(call(folder, sys.executable, "-c", KEYS)) == keys


def test_the_tests_of_the_repository_hold_for_the_new_rows(added):
    """Those of the whole catalog, and of those that run once an entry the two new ones."""
    folder, _ = added
    call(folder, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *WHOLE, *EACH)
    assert changed(folder) == BY_HAND | GENERATED


def test_the_new_code_reads_as_the_house_wants(added):
    folder, _ = added
    ruff = (sys.executable, "-m", "ruff")
    call(folder, *ruff, "check", "--no-cache", "src/radprobe/datasets", "src/radprobe/phantoms")
    call(folder, *ruff, "format", "--check", "--no-cache", "src/radprobe/datasets", "src/radprobe/phantoms")
