"""Regressions for what the authors' code did at its last commit and that no test of a single room holds."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import running
import torch
from frozen import prepare, study
from safetensors.torch import load_file

from radprobe import catalog, phantoms
from radprobe.artifacts import Adapter, Predictions
from radprobe.datasets import nih_chestxray14 as nih
from radprobe.files import RadprobeError
from radprobe.learning import cases, selection
from radprobe.metrics.classification import sigmoid32
from radprobe.models import backbones
from radprobe.names import mode_of
from radprobe.study import Study

NIH = "nih_chestxray14"


def test_d01_a_switch_that_says_no_is_off_and_anything_else_is_refused():
    content = {"study": "s", "backbones": ["test_vit"], "datasets": {NIH: {"phantom": {"patients": 9}}}}
    for said in ("False", "no", False):
        assert Study({**content, "download": said}).params.download is False
    with pytest.raises(RadprobeError, match="download"):
        Study({**content, "download": "not now"})
    assert not any(map(mode_of, Study(content).backbones))  # and nothing is trained unless `adapt` asks for it


def adapted(root, head_rates):
    """Adapt the tiny ViT to bright and dark films with each of `head_rates`; return its facts and its adapter."""
    rates = {"backbone_rates": [0.001], "head_rates": head_rates}
    asked = {"backbones": ["test_vit"], "bitfit": None, "lora": None, "end_to_end": rates, "precision": "fp32"}
    asked |= {"classify": {"epochs": 2, "batch_size": 8}}
    s = study(root, NIH, datasets={NIH: {"phantom": {"patients": 1}, "size": 32, "stored": 32}}, adapt=asked)
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, (48, 1))
    films = generator.integers(0, 90, (48, 32, 32))
    films[labels[:, 0] == 1, :16] += 120
    prepare(s, NIH, films.astype(np.uint8), labels, classes=("bright above",))
    step = s.step("adapt", NIH, "test_vit+end_to_end")
    running.run(s, step)
    facts = Predictions.load(step.folder).facts["protocols"]["end_to_end"]
    return facts, load_file(Adapter.file(step.folder))


def test_d04_a_candidate_is_trained_alone_whatever_else_is_tried(tmp_path):
    alone, adapter = adapted(tmp_path / "alone", [0.01])
    beside, same = adapted(tmp_path / "beside", [1e30, 0.01])  # the first diverges, and would spoil a shared backbone
    assert beside["chosen"] == alone["chosen"]
    assert beside["candidates"][1] == alone["candidates"][0]
    assert same.keys() == adapter.keys()
    assert all(same[name].equal(adapter[name]) for name in adapter)


def test_d04_the_refit_starts_from_the_pretrained_weights(tmp_path, monkeypatch):
    built, build = [], backbones.build
    monkeypatch.setattr(backbones, "build", lambda *given, **how: built.append(1) or build(*given, **how))
    adapted(tmp_path, [0.003, 0.01])
    assert len(built) == 3  # one for each candidate, and one for the refit


def test_d13_a_class_that_a_part_lacks_shifts_no_column_and_the_studys_list_has_no_finding(tmp_path):
    entry = catalog.datasets()[NIH]
    entry = entry.model_copy(update={"classes": entry.class_sets["paper"]})
    assert set(entry.classes) - set(catalog.datasets()[NIH].classes) == {"No Finding"}
    phantoms.generate(tmp_path / "nih", entry, 20, seed=1)
    index = nih.samples(nih.locate(entry, tmp_path / "nih"), entry, False)
    said = pd.read_csv(tmp_path / "nih/Data_Entry_2017_v2020.csv").set_index("Image Index")["Finding Labels"]
    for part, films in index.table.groupby("meta:list"):
        labels = films[[f"label:{name}" for name in entry.classes]].to_numpy()
        assert not labels.any(axis=0).all(), f"every class is in {part}, so nothing could shift"
        for name, row in zip(films["sample_id"], labels, strict=True):
            assert {entry.classes[column] for column in np.flatnonzero(row)} == set(said[f"{name}.png"].split("|"))


IMPORTS = """
import importlib, os, pkgutil, radprobe
for module in pkgutil.walk_packages(radprobe.__path__, "radprobe."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(os.environ.get("CUDA_VISIBLE_DEVICES"))
"""


def test_d22_no_import_changes_which_gpus_are_seen():
    given = {**os.environ, "CUDA_VISIBLE_DEVICES": "3"}
    ran = subprocess.run([sys.executable, "-c", IMPORTS], env=given, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "3"


def test_d23_a_head_of_huge_logits_is_chosen_by_their_order():
    targets, logits = np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([[50.0], [60.0], [70.0], [80.0]])
    assert selection.macro_auroc(targets, logits) == 1
    assert selection.macro_auroc(targets, sigmoid32(logits)) == 0.5
    exclusive = cases.ranking(torch.tensor(10 * np.hstack([logits, -logits, 0 * logits])), True)
    assert exclusive.isfinite().all()
    assert (exclusive[:, 1].diff() < 0).all()  # log softmax, in order where a softmax, of doubles too, is 0 for all
