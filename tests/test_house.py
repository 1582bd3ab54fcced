"""The rule of the house: which room may import which. A lower room never knows a higher one."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from radprobe import catalog

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/radprobe"
BASE = {"artifacts", "manifests", "files", "catalog", "names", "console", "machine", "__version__"}
ROOMS = {"datasets", "phantoms", "downloads", "splitting", "imaging", "models", "learning", "metrics", "report"}
MAY_IMPORT = {
    "files": set(),
    "console": set(),
    "machine": {"files"},
    "gpus": {"machine"},
    "catalog": {"files"},
    "manifests": {"files", "__version__"},  # apart from artifacts: the graph reads them without pandas
    "artifacts": {"files", "manifests"},
    "names": {"catalog"},
    "params": {"catalog", "files", "names"},
    "entries": {"catalog", "files", "names", "params"},
    "jobs": BASE | {"params", "metrics"},  # of metrics the options alone
    "study": BASE | {"params", "entries", "jobs", "datasets", "splitting"},
    "estimate": {"catalog", "files", "jobs", "names", "study"},
    "checks": BASE | {"study", "estimate", "datasets"},
    "imaging": BASE,
    "metrics": BASE,
    "models": BASE,
    "datasets": BASE | {"imaging"},
    "phantoms": BASE | {"datasets"},
    "downloads": BASE | {"datasets"},
    "splitting": BASE | {"datasets"},
    "survey": BASE | {"imaging", "datasets", "splitting"},
    "learning": BASE | {"jobs", "models", "metrics", "imaging"},
    "report": BASE | {"imaging", "metrics", "jobs", "study", "params"},
    "stages": BASE | ROOMS | {"jobs"},
    "commands": BASE | ROOMS | {"jobs", "study", "params", "survey", "estimate", "checks"},
    "cli": BASE | {"study", "jobs", "params", "gpus"},
    "__main__": {"cli"},
    "__init__": set(),
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("radprobe.")}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_room_knows_a_higher_one(path):
    own = {room(path)} if room(path) != "stages" else set()  # no stage imports a stage
    own |= {"study"} if path.match("stages/report.py") else set()  # it shows a whole study, and has no job
    assert imported(path) <= MAY_IMPORT[room(path)] | own


def test_every_class_has_a_name_of_its_own():
    classes = Counter(
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, times in classes.items() if times > 1] == []


def test_an_ignored_type_error_says_which_and_why():
    ignored = [
        line for path in PACKAGE.rglob("*.py") for line in path.read_text().splitlines() if "type: ignore" in line
    ]
    assert [line.strip() for line in ignored if not re.search(r"# type: ignore\[[a-z-]+\]  # \w+", line)] == []


def test_the_snakefile_stays_short():
    assert len((ROOT / "Snakefile").read_text().splitlines()) <= 60


def test_the_command_line_and_the_graph_need_no_torch():
    import subprocess
    import sys

    graph = "from radprobe.study import Study; Study('params.yaml').steps"
    code = "import radprobe.cli, sys; heavy = {'torch', 'monai', 'timm', 'sklearn', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"{graph}; {code}; assert not heavy, heavy"], check=True, cwd=ROOT)


# of every environment: the modules of the stages that run in it, and the readers of images that may be absent there
ENVIRONMENTS = {
    "data": {"retrieve", "prepare", "external"},
    "models": {"weights", "split", "embed", "probe", "segment", "adapt"},
    "score": {"score", "compare"},
    "report": {"report"},
}
READERS = {"nibabel": "nibabel", "isal": "isal", "pydicom": "pydicom", "gdcm": "python-gdcm"}
READERS |= {name: name for name in ("h5py", "requests", "torch", "timm", "monai", "matplotlib")}
READERS["sklearn"] = "scikit-learn"
BLOCKED = """
import importlib, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"{name} is not in this environment")
sys.meta_path.insert(0, Absent())
from radprobe import catalog
from radprobe.study import Study
here = {"raw": RAW}
datasets = {name: here for name in catalog.datasets()}
datasets["mine"] = {**here, "folder": {"task": "binary", "classes": ["ill"]}}
study = Study({"study": "s", "hub": False, "datasets": datasets, "backbones": ["test_vit"]})
assert study.steps and {one.name for one in study.missing} >= {"amos", "brain_tumor"}
assert study.layout("mine")
import radprobe.cli
for stage in STAGES:
    importlib.import_module(f"radprobe.stages.{stage}")
"""


def pins_of(environment: str) -> set[str]:
    pins = yaml.safe_load((ROOT / f"envs/{environment}.yaml").read_text())["dependencies"][-1]["pip"]
    return {pin.split("==")[0] for pin in pins}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_builds_the_graph_and_loads_its_stages_without_what_it_lacks(environment, tmp_path):
    import subprocess
    import sys

    (tmp_path / "labels.csv").touch()
    absent = {module for module, package in READERS.items() if package not in pins_of(environment)}
    assert absent
    given = f"ABSENT, RAW, STAGES = {absent!r}, {str(tmp_path)!r}, {ENVIRONMENTS[environment]!r}\n"
    ran = subprocess.run([sys.executable, "-c", given + BLOCKED], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_every_rule_runs_where_its_stage_is_tested():
    for path in ROOT.glob("workflow/rules/*.smk"):
        stage = path.stem
        for name in re.findall(r"envs/(\w+)\.yaml", path.read_text()):
            assert stage in ENVIRONMENTS[name], f"{path.name}: {name}"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_environment_finds_the_data_and_weights_that_ship_in_packages(environment):
    """A job looks for what its study has: where a package is absent, the cells that need it are not there either."""
    entries = [*catalog.datasets().values(), *catalog.backbones().values()]
    assert {entry.package.name for entry in entries if entry.package} <= pins_of(environment)
