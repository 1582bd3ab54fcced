"""What the README says can be done."""

import re
from pathlib import Path

import yaml

from radprobe.cli import app
from radprobe.study import Study

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_make_target_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", README)) - {"its"}
    assert {"demo", "test"} <= named <= targets


def test_every_verb_exists():
    verbs = {command.callback.__name__ for command in app.registered_commands}
    assert set(re.findall(r"radprobe ([a-z]+) montgomery", README)) <= verbs


def test_the_yaml_is_valid():
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    content = {key: value for block in blocks for key, value in yaml.safe_load(block).items()}
    study = Study({"study": "mine", **content})
    assert study.backbone("my_dino").family == "own"
    assert study.dataset("my_films").classes == ["Effusion", "Nodule"]


def test_every_benchmark_of_the_shipped_study_is_listed():
    listed = set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))
    assert listed == set(Study(ROOT / "params.yaml").params.datasets)


def test_every_path_exists():
    for path in re.findall(r"`((?:src|workflow|splits|envs)/[\w./]*)`", README):
        assert (ROOT / path).exists(), path
