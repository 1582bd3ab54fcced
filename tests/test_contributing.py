"""What CONTRIBUTING, CITATION.cff and the workflows of .github say: it exists, and is safe."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from test_house import MAY_IMPORT

ROOT = Path(__file__).parents[1]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.y*ml"))


def parsed(path: Path) -> dict:
    """Return a workflow; YAML 1.1 reads its key `on` as true."""
    content = yaml.safe_load(path.read_text())
    return {"on" if key is True else key: value for key, value in content.items()}


def steps(path: Path) -> list[dict]:
    return [step for job in parsed(path)["jobs"].values() for step in job.get("steps", [])]


# --- workflows --------------------------------------------------------------------------------------------------------


def test_there_is_a_workflow_for_pushes_requests_and_each_week():
    (ci,) = WORKFLOWS
    assert set(parsed(ci)["on"]) == {"push", "pull_request", "schedule", "workflow_dispatch"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_least_rights_and_an_end(path):
    workflow = parsed(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    assert "pull_request_target" not in workflow["on"]
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert job["runs-on"] == "ubuntu-24.04"
        minutes = [int(n) for n in re.findall(r"\b\d+\b", str(job["timeout-minutes"]))]
        assert minutes
        assert max(minutes) <= 360


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_its_commit_with_its_version_in_a_comment(path):
    used = [step["uses"] for step in steps(path) if "uses" in step]
    pinned = re.findall(r"uses: *(\S+@[0-9a-f]{40}) +# *v\S+", path.read_text())
    assert used == pinned


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_text_of_others_is_put_into_a_script(path):
    """A title or a branch name in `run:` would be run: expressions reach scripts by the environment."""
    assert [step["run"] for step in steps(path) if "${{" in step.get("run", "")] == []


def test_what_the_workflow_calls_is_there_and_can_be_run():
    called = set(re.findall(r"'(\.ci/\w+)'", WORKFLOWS[0].read_text()))
    assert called == {".ci/run", ".ci/full"}
    assert all(os.access(ROOT / name, os.X_OK) for name in called)


def test_the_checkout_gets_exactly_the_commit(tmp_path):
    def git(*command: str) -> str:
        nobody = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false"]
        return subprocess.check_output(["git", *nobody, *command], cwd=tmp_path / "owner/name", text=True).strip()

    (tmp_path / "owner/name").mkdir(parents=True)
    git("init", "--quiet")
    for number in "12":
        (tmp_path / "owner/name/file").write_text(number)
        git("add", "file")
        git("commit", "--quiet", "--message", number)
    first, here = git("rev-parse", "HEAD~1"), tmp_path / "here"
    git("config", "uploadpack.allowAnySHA1InWant", "true")
    here.mkdir()
    (script,) = [step["run"] for step in steps(WORKFLOWS[0]) if step["name"] == "Check out"]
    given = {"GITHUB_SERVER_URL": tmp_path.as_uri(), "GITHUB_REPOSITORY": "owner/name", "GITHUB_SHA": first}
    subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        cwd=here,
        check=True,
        env={**os.environ, **given, "TOKEN": "SecretToken"},
    )
    assert (here / "file").read_text() == "1"
    assert not [path for path in here.rglob("*") if path.is_file() and b"SecretToken" in path.read_bytes()]


def test_python_is_that_of_the_lock_where_the_image_has_it(tmp_path):
    (script,) = [step["run"] for step in steps(WORKFLOWS[0]) if step["name"] == "Choose Python"]
    python = tmp_path / "cache/Python/3.11.9/x64/bin/python3.11"
    given = {"RUNNER_TOOL_CACHE": str(tmp_path / "cache"), "GITHUB_ENV": str(tmp_path / "env")}
    for _ in range(2):
        subprocess.run(["bash", "-eo", "pipefail", "-c", script], check=True, env={**os.environ, **given})
        python.parent.mkdir(parents=True, exist_ok=True)
        python.touch()
    assert (tmp_path / "env").read_text().splitlines() == ["PYTHON=python3", f"PYTHON={python}"]


# --- CONTRIBUTING, CITATION, CHANGELOG --------------------------------------------------------------------------------


def test_every_target_path_and_marker_that_contributing_names_is_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", CONTRIBUTING, re.MULTILINE))
    assert {
        name for pair in re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", CONTRIBUTING, re.M) for name in pair if name
    } <= targets
    for name in re.findall(r"`((?:tests|src|docs|workflow|envs|benchmarks|\.ci)/[\w./]*)`", CONTRIBUTING):
        assert (ROOT / name).exists(), name
    markers = {each.partition("(")[0].partition(":")[0] for each in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    assert set(re.findall(r"^\| `(\w+)` \|", CONTRIBUTING, re.MULTILINE)) == markers


def test_contributing_tells_the_rules_that_the_test_holds():
    told = CONTRIBUTING.partition("## Rules of the house")[2].partition("\n## ")[0]
    for room in ("catalog", "imaging", "metrics", "models", "datasets", "learning", "report", "stages", "cli"):
        assert room in MAY_IMPORT
        assert f"`{room}`" in told


def test_the_citation_is_of_this_version_and_names_the_study():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what CFF 1.2.0 requires
    assert citation["version"] == PROJECT["project"]["version"]
    assert citation["license"] == PROJECT["project"]["license"]
    (study,) = citation["references"]
    assert {"type", "title", "authors"} <= set(study)  # of a reference
    assert study["doi"] == "10.48550/arXiv.2312.02366"
    assert study["title"] in " ".join((ROOT / "README.md").read_text().replace("*", "").split())


def test_the_changelog_names_this_version():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[Unreleased\]$", text, re.MULTILINE) or f"## [{PROJECT['project']['version']}]" in text
    assert PROJECT["project"]["version"] in text
