"""The rule of the house: which room may import which. A lower room never knows a higher one."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/radprobe"
BASE = {"artifacts", "files", "catalog", "console", "__version__"}
MAY_IMPORT = {
    "files": set(),
    "console": set(),
    "catalog": {"files"},
    "artifacts": {"files", "__version__"},
    "params": {"catalog", "files"},
    "study": {"catalog", "files", "params", "datasets"},
    "imaging": BASE,
    "metrics": BASE,
    "models": BASE,
    "datasets": BASE | {"imaging"},
    "learning": BASE | {"models", "metrics", "imaging"},
    "report": BASE | {"imaging", "metrics", "study", "params"},
    "stages": BASE | {"study", "params", "datasets", "imaging", "models", "learning", "metrics", "report"},
    "cli": BASE | {"study", "params"},
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
    assert imported(path) <= MAY_IMPORT[room(path)] | own


def test_the_snakefile_stays_short():
    assert len((ROOT / "Snakefile").read_text().splitlines()) <= 60


def test_conda_environments_pin_what_the_lock_pins():
    lock = set((ROOT / "envs/requirements.lock").read_text().splitlines())
    for path in ROOT.glob("envs/*.yaml"):
        pins = yaml.safe_load(path.read_text())["dependencies"][-1]["pip"]
        assert set(pins) <= lock, path.name


def test_every_rule_has_an_environment_that_exists():
    for path in ROOT.glob("workflow/rules/*.smk"):
        for line in path.read_text().splitlines():
            if '"../../envs/' in line:
                assert (path.parent / line.strip().strip('"')).is_file(), f"{path.name}: {line}"


def test_the_command_line_and_the_graph_need_no_torch():
    import subprocess
    import sys

    graph = "from radprobe.study import Study; Study('params.yaml').steps"
    code = "import radprobe.cli, sys; heavy = {'torch', 'monai', 'timm', 'sklearn', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"{graph}; {code}; assert not heavy, heavy"], check=True, cwd=ROOT)
