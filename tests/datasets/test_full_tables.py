"""NIH's table as torchxrayvision ships it, at full size, with the official lists of a real copy."""

import gzip
import importlib.util
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from radprobe import catalog, datasets
from radprobe.datasets import nih_chestxray14 as nih
from radprobe.splitting import splits

ENTRY = catalog.datasets()["nih_chestxray14"]
WHEEL = importlib.util.find_spec("torchxrayvision")  # not imported: it would import torch


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("RADPROBE_REAL_DATA"), reason="RADPROBE_REAL_DATA is not set")
@pytest.mark.skipif(not WHEEL, reason="torchxrayvision is not installed")
@pytest.mark.parametrize("classes", [ENTRY.classes, ENTRY.class_sets["paper"]], ids=["14", "15"])
def test_nihs_official_split_shares_no_patient(tmp_path, monkeypatch, classes):
    real = datasets.locate(ENTRY, Path(os.environ["RADPROBE_REAL_DATA"]) / "nih_chestxray14")
    for path in real.tables[1:]:
        shutil.copy(path, tmp_path)
    table = Path(WHEEL.origin).parent / "data" / "Data_Entry_2017_v2020.csv.gz"
    (tmp_path / "Data_Entry_2017_v2020.csv").write_bytes(gzip.decompress(table.read_bytes()))
    names = [name for path in real.tables[1:] for name in path.read_text().split()]
    (tmp_path / names[0]).touch()
    monkeypatch.setattr(nih, "_find_images", lambda layout: {name: name for name in names})
    entry = ENTRY.model_copy(update={"classes": classes})
    index = nih.samples(nih.locate(entry, tmp_path), entry, False)
    assert len(index.table) == ENTRY.published.samples
    assert index.table["patient_id"].nunique() == ENTRY.published.patients
    assert index.classes == classes
    of_list = index.table.groupby("meta:list")["patient_id"].agg(set)
    assert not of_list["train_val"] & of_list["test"]
    split = splits.make_split(index, entry.splits["study"], "study", 0)
    counts = {part: split.facts["parts"][part]["cases"] for part in ENTRY.published.parts}
    assert counts == ENTRY.published.parts
    assert (split.table.groupby("patient_id")["part"].nunique() == 1).all()
    if "No Finding" in classes:
        labels = pd.DataFrame(index.labels(), columns=classes)
        others = labels.drop(columns="No Finding").any(axis=1)
        assert ((labels["No Finding"] == 1) != others).all()
        assert labels["No Finding"].sum() == 60361
