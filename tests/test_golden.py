"""What the exact stages make of two small phantoms, kept in golden.json: a change of it wants a new VERSION.

`python tests/test_golden.py` (make golden) writes the file anew.
"""

import json
import tempfile
from pathlib import Path

import pytest

from radprobe import files
from radprobe.artifacts import Index, Manifest, RawManifest, Split
from radprobe.stages import prepare, retrieve, split
from radprobe.study import VERSIONS, Study

GOLDEN = Path(__file__).with_name("golden.json")
STAGES = {"retrieve": retrieve, "prepare": prepare, "split": split}
DATASETS = {"montgomery": 9, "nih_chestxray14": 20}


def made(root: Path) -> dict[str, dict]:
    """Run the stages; return for each verb its version and a digest of what it made."""
    chosen = {name: {"phantom": {"patients": patients}} for name, patients in DATASETS.items()}
    study = Study({"study": "golden", "datasets": chosen, "backbones": ["test_vit"], "paths": {"root": str(root)}})
    found: dict[str, list] = {verb: [] for verb in STAGES}
    for dataset in DATASETS:
        for verb, stage in STAGES.items():
            step = study.step(verb, dataset)
            stage.run(study, step)
            found[verb].append(content(verb, step.folder))
    return {verb: {"version": VERSIONS[verb], "digest": files.digest(each)} for verb, each in found.items()}


def content(verb: str, folder: Path) -> list:
    if verb == "retrieve":
        return [RawManifest.load(folder).table.to_csv()]
    if verb == "split":
        return [Split.load(folder).table.to_csv(), Split.load(folder).classes]
    pixels = Manifest.read(folder / "pixels.json")
    return [Index.load(folder).table.to_csv(), {name: each["sha256"] for name, each in pixels.files.items()}]


@pytest.fixture(scope="module")
def now(tmp_path_factory):
    return made(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("verb", STAGES)
def test_output_changes_only_with_the_version(now, verb):
    kept = json.loads(GOLDEN.read_text())[verb]
    if now[verb]["version"] == kept["version"]:
        assert now[verb]["digest"] == kept["digest"], f"bump VERSIONS['{verb}'] in study.py, then `make golden`"
    else:
        pytest.fail(f"VERSIONS['{verb}'] was bumped: run `make golden` and commit golden.json")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(json.dumps(made(Path(folder)), indent=1) + "\n")
