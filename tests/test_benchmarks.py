"""Every benchmark of the catalog, from a generated raw download to pixels and parts."""

import os

import pandas as pd
import pytest
import running
import shuffled_listing

from radprobe import catalog
from radprobe.artifacts import Index, LeakCertificate, Pixels, RawManifest, Split, Truth
from radprobe.datasets import loader
from radprobe.study import Study

PATIENTS = {"nih_chestxray14": 60, "chexpert": 60, "amos": 15, "btcv": 10}
BENCHMARKS = [name for name, entry in catalog.datasets().items() if entry.task != "look"]


@pytest.fixture(scope="module", params=BENCHMARKS)
def made(request, tmp_path_factory):
    """A study of one benchmark up to its split, and the name of the benchmark."""
    name, root = request.param, tmp_path_factory.mktemp(request.param)
    usual = 12 if catalog.datasets()[name].task == "segmentation" else 30
    choice = {"phantom": {"patients": PATIENTS.get(name, usual)}, "stored": 128}
    content = {"study": "s", "datasets": {name: choice}, "backbones": ["test_vit"], "paths": {"root": str(root)}}
    study = Study(content)
    for verb in ("retrieve", "prepare", "split"):
        running.run(study, study.step(verb, name))
    return study, name


def test_a_generated_download_becomes_pixels_and_parts_without_a_leak(made):
    study, name = made
    entry, folder = study.dataset(name), study.step("prepare", name).folder
    index, pixels = Index.load(folder), Pixels.load(folder)
    assert RawManifest.load(study.step("retrieve", name).folder).source == "phantom"
    assert index.facts["phantom"] is True
    assert pixels.images.shape == (len(index.table), 128, 128)
    assert pixels.facts["quarantined"] == []
    parts = Split.load(study.step("split", name).folder)
    assert set(parts.table["part"]) == {"train", "val", "test"}
    certificate = LeakCertificate.load(study.step("split", name).folder)
    assert certificate.overlaps == certificate.near == []
    if entry.task == "segmentation":
        assert set(Truth.load(folder).maps) == set(index.table["volume_id"])
        assert pixels.masks.max() == len(entry.classes)
    else:
        assert index.classes == entry.classes
        assert ((index.labels() == 1).any(0) & (index.labels() == 0).any(0)).all()
    if entry.task == "multiclass":
        assert (index.labels().sum(1) == 1).all()


@pytest.mark.survives("bug", "another order in which the disk lists files, each benchmark", "the same samples")
def test_the_order_in_which_files_are_listed_changes_no_sample(made, monkeypatch):
    study, name = made
    entry = study.dataset(name)
    in_order = loader(entry).samples(study.layout(name), entry, False)
    monkeypatch.setattr(os, "listdir", shuffled_listing.listdir)
    monkeypatch.setattr(os, "scandir", shuffled_listing.scandir)
    for _ in range(3):
        layout = study.layout(name)
        shuffled = loader(entry).samples(layout, entry, False)
        pd.testing.assert_frame_equal(shuffled.table, in_order.table)
        assert shuffled.facts == in_order.facts
