"""The environments: one source, all that their rules import and no more, and commands that run in them.

conda and apptainer are pretended: no environment was ever solved or built by them here.
"""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import fake_conda
import pandas as pd
import pytest
import yaml
from packaging.utils import canonicalize_name
from small_params import SMALL

from radprobe import catalog

ROOT = Path(__file__).parents[1]
ENVS, SOURCE = ROOT / "envs", ROOT / "src"
SPEC = importlib.util.spec_from_file_location("generate", ENVS / "generate.py")
generate = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(generate)

RULES = {
    match["name"]: match["body"]
    for path in ROOT.glob("workflow/rules/*.smk")
    for match in re.finditer(r"^rule (?P<name>\w+):\n(?P<body>(?:    .*\n|\n)+)", path.read_text(), re.MULTILINE)
    if "shell:" in match["body"]  # targets run nothing
}
SHIPPING = {
    entry.package.name for kind in (catalog.datasets, catalog.backbones) for entry in kind().values() if entry.package
}
# named though no module of ours imports them: parquet for pandas, compressed pixels for pydicom, what timm needs
UNNAMED = {"pyarrow", "python-gdcm", "torchvision"} | SHIPPING
# imports inside functions that no rule of the group calls
NOT_CALLED = {
    "data": {
        ("radprobe.imaging.resize", "torch"),
    },
    "models": {
        ("radprobe.datasets.raw", "radprobe.imaging.reading"),
    },
}


LORA = {"backbone_rates": [0.003], "head_rates": [0.01], "rank": 2}
ROW = "reader.csv"
STUDY = SMALL | {
    "study": "small",
    "datasets": {
        **SMALL["datasets"],
        "nih_chestxray14": {**SMALL["datasets"]["nih_chestxray14"], "predictions": {"reader": ROW}},
    },
    "segment": {"linear": {"epochs": 1}, "unet": None, "few_shot": None},
    "adapt": {
        "backbones": ["test_vit"],
        "bitfit": None,
        "end_to_end": None,
        "lora": LORA,
        "classify": {"epochs": 1},
        "segment": {"epochs": 1},
    },
}


def environment_of(rule: str) -> str:
    return re.search(r'conda:\n +"\.\./\.\./envs/(\w+)\.yaml"', RULES[rule])[1]


def verb_of(rule: str) -> str:
    return re.search(r'shell:\n +"python -m radprobe (\w+) ', RULES[rule])[1]


def pip_section(group: str) -> list[str]:
    return yaml.safe_load((ENVS / f"{group}.yaml").read_text())["dependencies"][-1]["pip"]


def test_the_environments_are_those_of_the_one_source():
    made = generate.texts()
    assert {path.name for path in (*ENVS.glob("*.yaml"), *ENVS.glob("*.sh"))} == set(made)
    for name, text in made.items():
        assert (ENVS / name).read_text() == text, f"{name}: run `make envs`"


@pytest.mark.parametrize("group", generate.GROUPS)
def test_an_environment_pins_every_package_as_the_lock_does(group):
    lock = (ENVS / "requirements.lock").read_text().splitlines()
    assert set(pip_section(group)) <= set(lock)
    project = {re.match(r"[\w-]+", each)[0] for each in generate.PROJECT["project"]["dependencies"]}
    assert generate.direct(group) - SHIPPING <= project


def test_every_rule_runs_radprobe_in_an_environment_that_is_there():
    assert {"retrieve", "weights", "split", "embed", "score", "report"} <= set(RULES)
    assert {environment_of(rule) for rule in RULES} == set(generate.GROUPS)
    assert all(verb_of(rule) for rule in RULES)


def module_file(name: str) -> Path:
    path = SOURCE / name.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports_of(name: str) -> set[str]:
    """Return what a module imports anywhere, but for what it can do without (`except ModuleNotFoundError`)."""
    found, nodes = set(), [ast.parse(module_file(name).read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Try) and "ModuleNotFoundError" in map(
            ast.unparse, [h.type for h in node.handlers if h.type]
        ):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {each for each in inner if each.startswith("radprobe.") and module_file(each).is_file()}
            found |= modules | {node.module}
        nodes += ast.iter_child_nodes(node)
    return found


def third_party(group: str) -> set[str]:
    """Return the modules of others that the rules of a group can reach."""
    todo = {f"radprobe.stages.{verb_of(rule)}" for rule in RULES if environment_of(rule) == group} | {
        "radprobe.__main__"
    }
    if group == "data":  # the catalog names them, and no import
        todo |= {f"radprobe.datasets.{entry.loader}" for entry in catalog.datasets().values()}
    seen, others = set(), set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if name.split(".")[0] != "radprobe":
            others |= {name.split(".")[0]} - sys.stdlib_module_names
        else:
            todo |= {each for each in imports_of(name) if (name, each) not in NOT_CALLED.get(group, ())}
            todo |= {name.rpartition(".")[0]} - {""}
    return others


@pytest.mark.parametrize("group", generate.GROUPS)
def test_an_environment_has_what_its_rules_import_and_names_no_more(group):
    packages = {
        module: {canonicalize_name(name) for name in names} for module, names in packages_distributions().items()
    }
    reached = {module: packages[module] for module in third_party(group)}
    pinned = {pin.split("==")[0] for pin in pip_section(group)}
    assert not {module for module, names in reached.items() if not names & pinned}
    assert generate.direct(group) - set().union(*reached.values()) <= UNNAMED


@pytest.mark.parametrize("verb", sorted({verb_of(rule) for rule in RULES}))
def test_a_command_wants_no_more_than_pythonpath(verb, tmp_path):
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-m", "radprobe", verb, "--help"]
    ran = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert f"radprobe {verb}" in ran.stdout


def run(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a small study by Snakemake with the pretended conda and apptainer."""
    fake_conda.install(folder)
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
    path = f"{folder}/bin:{os.environ['PATH']}"
    linked = {"PIP_DRY_RUN": "1", "PIP_NO_INDEX": "1"}  # pip would write through the links, into this Python
    variables = {
        **os.environ,
        **linked,
        "PATH": path,
        **{name: value.format(path=path) for name, value in environment.items()},
    }
    return subprocess.run(
        [*command, "--configfile", "study.yaml", *options], cwd=folder, env=variables, capture_output=True, text=True
    )


def _predict_test(split: Path, file: Path) -> None:
    """Write a CSV of predictions for the test cases of a split."""
    table = pd.read_csv(split)
    classes = catalog.datasets()["nih_chestxray14"].classes
    scores = pd.DataFrame(0.5, index=table.index, columns=classes).assign(sample_id=table["sample_id"])
    scores[table["part"] == "test"].to_csv(file, index=False)


@pytest.mark.slow
@pytest.mark.full
def test_a_study_runs_in_conda_environments_that_hold_their_pins_alone(tmp_path):
    """Each rule in its own, also where base is active already: conda puts the next in the place of that on PATH."""
    base = {"CONDA_SHLVL": "1", "CONDA_PREFIX": "/opt/base", "PATH": "{path}:/opt/base/bin"}
    done = run(tmp_path, "--sdm", "conda", **base)
    assert done.returncode == 0, done.stderr[-3000:]
    (split,) = tmp_path.glob("work/nih_chestxray14/split/*/split.csv")
    _predict_test(split, tmp_path / ROW)  # a row from elsewhere, which joins the study once its file is there
    done = run(tmp_path, "--sdm", "conda", **base)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "reports/explorer.html").is_file()
    names = {
        str(path.with_suffix("")): yaml.safe_load(path.read_text())["name"].removeprefix("radprobe-")
        for path in tmp_path.glob(".snakemake/conda/*.yaml")
    }
    lines = [line.split() for line in (tmp_path / "ran").read_text().splitlines()]
    ran = {(names[line[0]], line[4]) for line in lines if line[2:4] == ["-m", "radprobe"]}
    assert ran == {(environment_of(rule), verb_of(rule)) for rule in RULES}
    assert {names[line[0]] for line in lines if line[2:4] == ["-m", "pip"]} == set(generate.GROUPS)  # post-deploy


@pytest.mark.slow
def test_a_job_runs_in_the_image_that_is_named(tmp_path):
    image = tmp_path / "image"
    fake_conda.environment(image, list(generate.locked()), tmp_path / "ran")
    done = run(tmp_path, "--sdm", "apptainer", "--until", "retrieve", RADPROBE_IMAGE=str(image))
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{image} python -m radprobe retrieve montgomery" in (tmp_path / "ran").read_text()


@pytest.mark.parametrize("group", generate.GROUPS)
def test_after_a_pin_file_pip_is_given_the_pins_of_the_yaml(group, tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\ncat\n')
    python.chmod(0o755)
    bare = {"PATH": f"{tmp_path}:/usr/bin:/bin", "RADPROBE_SOURCE": str(SOURCE)}
    script = ["bash", str(ENVS / f"{group}.post-deploy.sh")]
    ran = subprocess.run(script, env=bare, capture_output=True, text=True, check=True)
    command, *pins = ran.stdout.splitlines()
    assert command.startswith("-m pip install")
    assert pins == pip_section(group)
    bare["RADPROBE_SOURCE"] = str(tmp_path)
    assert subprocess.run(script, env=bare, capture_output=True).returncode != 0


@pytest.fixture
def copy(tmp_path):
    """A copy of what `make pins` reads."""
    (tmp_path / "envs").mkdir()
    for name in ("pyproject.toml", "envs/generate.py", "envs/requirements.lock"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return tmp_path


def pin(copy: Path, path: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(copy / "envs/generate.py"), "--pins"]
    return subprocess.run(command, env={"PATH": path}, capture_output=True, text=True)


def test_pins_are_written_where_snakemake_looks_for_them(copy):
    fake_conda.install(copy)
    ran = pin(copy, f"{copy}/bin:/usr/bin:/bin")
    assert ran.returncode == 0, ran.stderr
    assert {path.name for path in copy.glob("envs/*.pin.txt")} == {
        f"{group}.linux-64.pin.txt" for group in generate.GROUPS
    }
    assert (copy / "envs/data.linux-64.pin.txt").read_text().startswith("@EXPLICIT\n")
    assert f"--channel {generate.CHANNEL} python={generate.PYTHON} pip" in (copy / "asked").read_text()


def test_pins_say_that_conda_is_missing(copy):
    ran = pin(copy, str(copy))
    assert ran.returncode == 1
    assert "conda is not on PATH" in ran.stderr
    assert not list(copy.glob("envs/*.pin.txt"))


def test_the_container_is_made_from_the_lock_alone():
    lines = [line for line in (ENVS / "Containerfile").read_text().splitlines() if line and not line.startswith("#")]
    words = [line.split() for line in lines]
    assert lines[0].startswith(f"ARG PYTHON=docker.io/library/python:{generate.PYTHON}-slim")
    assert lines[1] == "FROM ${PYTHON}"
    assert not [line for line in lines if "latest" in line or "apt" in line]
    copied = [line[1] for line in words if line[0] in ("COPY", "ADD")]
    assert copied == ["requirements.lock"]
    installs = [line for line in lines if "pip install" in line]
    assert len(installs) == 1
    assert re.search(r"pip install --no-cache-dir -r /tmp/requirements\.lock ", installs[0])
    assert words[[line[0] for line in words].index("USER")][1] not in ("root", "0")
    assert lines[-1] == 'ENTRYPOINT ["snakemake"]'
