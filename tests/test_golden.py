"""What two small studies come to, kept in golden.json: a change of it wants a new VERSION.

Of generated films every byte of the exact stages, features and scores of frozen backbones; of real films features and
scores, where RADPROBE_REAL_DATA and RADPROBE_REAL_WEIGHTS say where data and weights are. `python tests/test_golden.py`
(make golden) writes the file anew; what cannot be made here stays as it is.
"""

import json
import math
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import running

from radprobe import files
from radprobe.artifacts import Embeddings, Index, RawManifest, Scores, Split
from radprobe.manifests import Manifest
from radprobe.study import VERSIONS, Study

GOLDEN = Path(__file__).with_name("golden.json")
METRICS = ("auroc", "auprc", "brier", "dsc", "iou")  # others jump where a case passes a threshold
TOLERANCE = 0.01  # of a score: other processors round otherwise, and a near tie may be ranked the other way
CLOSE = {"rtol": 1e-3, "atol": 1e-4}  # of features
EXACT = ("retrieve", "prepare", "split")
DATASETS = {"montgomery": 9, "nih_chestxray14": 60}
REAL = {name: os.environ.get(f"RADPROBE_REAL_{name}") for name in ("DATA", "WEIGHTS")}
SMALL = {
    "study": "golden",
    "hub": False,
    "device": "cpu",
    "threads": 1,
    "limit": 250,
    "backbones": ["tf_efficientnet_lite0", "test_vit"],
    "controls": {"random_inits": 0, "metadata": False, "ceiling": False},
    "embed": {"precision": "fp32"},
    "probe": {"few_shot": None, "shuffled": 0, "mlknn": None, "paper": False, "linear": {"epochs": 10}},
    "segment": {"linear": {"learning_rates": [0.01], "epochs": 5}, "unet": None, "few_shot": None, "paper": False},
    "score": {"resamples": 100},
}
CHOSEN = {  # of each study
    "generated": {
        "montgomery": {"phantom": {"patients": 24}, "size": 160, "stored": 160},
        "nih_chestxray14": {"phantom": {"patients": 60}},
    },
    "real": {
        "montgomery": {"size": 160, "stored": 160},
        "nih_chestxray14": {"split": "nih_real_subset", "allow_missing": True},
    },
}


def made(root: Path) -> dict[str, dict]:
    """Run the exact stages; return for each verb its version and a digest of what it made."""
    chosen = {name: {"phantom": {"patients": patients}} for name, patients in DATASETS.items()}
    study = Study({"study": "golden", "datasets": chosen, "backbones": ["test_vit"], "paths": {"root": str(root)}})
    found: dict[str, list] = {verb: [] for verb in EXACT}
    for dataset in DATASETS:
        for verb in EXACT:
            step = study.step(verb, dataset)
            running.run(study, step)
            found[verb].append(content(verb, step.folder))
    return {verb: {"version": VERSIONS[verb], "digest": files.digest(each)} for verb, each in found.items()}


def content(verb: str, folder: Path) -> list:
    if verb == "retrieve":
        return [RawManifest.load(folder).table.to_csv()]
    if verb == "split":
        return [Split.load(folder).table.to_csv(), Split.load(folder).classes]
    pixels = Manifest.read(folder / "pixels.json")
    return [Index.load(folder).table.to_csv(), {name: each["sha256"] for name, each in pixels.files.items()}]


def frozen(root: Path, name: str) -> dict[str, dict]:
    """Run a study of frozen backbones; return its macro METRICS on test, None where undefined, and what it embeds."""
    places = {"raw": REAL["DATA"], "weights": REAL["WEIGHTS"]} if name == "real" else {}
    study = Study({**SMALL, "datasets": CHOSEN[name], "paths": {"root": str(root), **places}})
    assert not study.missing
    scores, features = {}, {}
    for step in study.steps.values():
        if step.verb == "compare":
            continue
        running.run(study, step)
        if step.verb == "embed":
            features[f"{step.dataset} {step.backbone}"] = summary(Embeddings.load(step.folder).tokens)
        if step.verb == "score":
            table = Scores.load(step.folder).table.query("part == 'test' and `class` == 'macro' and metric in @METRICS")
            for row in table.itertuples():
                key = f"{row.dataset} {row.backbone} {row.protocol} {row.metric}"
                scores[key] = None if math.isnan(row.value) else round(row.value, 4)
    return {"scores": scores, "features": features}


def summary(tokens: np.ndarray) -> list[float]:
    """Return the mean and the deviation of all values, and how much an image differs from the next."""
    values = tokens.astype(np.float64)
    told = values.mean(), values.std(), np.abs(np.diff(values, axis=0)).mean()
    return [round(float(each), 6) for each in told]


@pytest.fixture(scope="module")
def now(tmp_path_factory):
    return made(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("verb", EXACT)
def test_output_changes_only_with_the_version(now, verb):
    kept = json.loads(GOLDEN.read_text())[verb]
    if now[verb]["version"] == kept["version"]:
        assert now[verb]["digest"] == kept["digest"], f"bump VERSIONS['{verb}'] in study.py, then `make golden`"
    else:
        pytest.fail(f"VERSIONS['{verb}'] was bumped: run `make golden` and commit golden.json")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["generated", pytest.param("real", marks=pytest.mark.real)])
def test_scores_of_frozen_backbones_are_those_that_were_kept(tmp_path, name):
    if name == "real" and not all(REAL.values()):
        pytest.skip("needs the real films and weights: RADPROBE_REAL_DATA, RADPROBE_REAL_WEIGHTS")
    kept, found = json.loads(GOLDEN.read_text()), frozen(tmp_path, name)
    for kind, same in (("features", close), ("scores", near)):
        now, before = found[kind], kept[kind][name]
        assert now.keys() == before.keys()
        off = {key: (value, before[key]) for key, value in now.items() if not same(value, before[key])}
        assert not off, "bump the VERSIONS in study.py of what has changed on purpose, then `make golden`"


def close(one: list[float], other: list[float]) -> bool:
    return np.allclose(one, other, **CLOSE)


def near(one: float | None, other: float | None) -> bool:
    return one is other or (None not in (one, other) and abs(one - other) <= TOLERANCE)


if __name__ == "__main__":
    told = json.loads(GOLDEN.read_text())
    with tempfile.TemporaryDirectory() as folder:
        told |= made(Path(folder) / "exact")
        for name in CHOSEN:
            if name == "real" and not all(REAL.values()):
                print("scores of real films stay as they are: set RADPROBE_REAL_DATA and RADPROBE_REAL_WEIGHTS")
                continue
            for kind, found in frozen(Path(folder) / name, name).items():
                told.setdefault(kind, {})[name] = found
    GOLDEN.write_text(json.dumps(told, indent=1) + "\n")
