import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from radprobe import catalog
from radprobe.artifacts import PARTS, Index, LeakCertificate, Split
from radprobe.datasets import montgomery, nih_chestxray14
from radprobe.files import RadprobeError
from radprobe.stages import prepare, retrieve, split
from radprobe.study import Study

REAL = pytest.mark.skipif(not os.environ.get("RADPROBE_REAL_DATA"), reason="RADPROBE_REAL_DATA is not set")


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("downloads")
    montgomery.phantom(folder / "montgomery", catalog.datasets()["montgomery"], 12, 0)
    nih_chestxray14.phantom(folder / "nih_chestxray14", catalog.datasets()["nih_chestxray14"], 24, 0)
    return folder


def run(root, dataset, raw="raw", **choice):
    paths = {"root": str(root), "raw": str(raw)}
    study = Study({"study": "s", "paths": paths, "datasets": {dataset: choice}, "backbones": ["test_vit"]})
    for stage, verb in ((retrieve, "retrieve"), (prepare, "prepare"), (split, "split")):
        stage.run(study, study.step(verb, dataset))
    return study.step("prepare", dataset).folder, study.step("split", dataset).folder


@pytest.mark.parametrize("dataset", ["montgomery", "nih_chestxray14"])
def test_every_sample_gets_a_part_and_the_certificate_is_clean(downloads, tmp_path, dataset):
    source, folder = run(tmp_path, dataset, downloads)
    made, index = Split.load(folder), Index.load(source)
    assert sorted(made.table["sample_id"]) == index.table["sample_id"].tolist()
    assert all(made.rows(index, part).size for part in PARTS)
    certificate = LeakCertificate.load(folder)
    assert certificate.overlaps == []
    assert certificate.compared["samples"] == len(index.table)
    assert made.facts["published"]["equal"] is None, "a phantom is not the published set"


def test_a_second_run_writes_the_same_bytes(downloads, tmp_path):
    first, second = (run(tmp_path / name, "nih_chestxray14", downloads)[1] for name in ("once", "again"))
    assert (first / "split.csv").read_bytes() == (second / "split.csv").read_bytes()


def test_a_film_that_is_in_two_parts_under_two_names_fails_by_name(downloads, tmp_path):
    raw = Path(shutil.copytree(downloads / "montgomery", tmp_path / "raw/montgomery"))
    films = sorted((raw / "MontgomerySet/CXR_png").iterdir())
    in_test, in_train = films[0], films[2]
    for folder in ("CXR_png", "ManualMask/leftMask", "ManualMask/rightMask"):
        shutil.copy(raw / "MontgomerySet" / folder / in_test.name, raw / "MontgomerySet" / folder / in_train.name)
    with pytest.raises(RadprobeError, match="the same pixels") as error:
        run(tmp_path, "montgomery")
    assert error.value.what == f"montgomery: {in_test.stem} (test) and {in_train.stem} (train)"


@REAL
@pytest.mark.real
def test_the_real_montgomery_falls_69_23_46(tmp_path):
    _, folder = run(tmp_path, "montgomery", os.environ["RADPROBE_REAL_DATA"])
    made = Split.load(folder)
    assert made.facts["published"] == {"parts": {"train": 69, "val": 23, "test": 46}, "equal": True}
    listing = pd.read_csv(Path(__file__).parents[2] / "splits/montgomery.csv", dtype=str)
    assert (
        dict(zip(listing["sample"], listing["split"], strict=True))
        == made.table.set_index("sample_id")["part"].to_dict()
    )


@REAL
@pytest.mark.real
def test_the_partial_nih_works_under_its_own_split(tmp_path):
    real = os.environ["RADPROBE_REAL_DATA"]
    _, folder = run(tmp_path, "nih_chestxray14", real, allow_missing=True, split="nih_real_subset")
    made = Split.load(folder)
    assert len(made.table) == 1000
    assert "Pneumonia" in made.classes
    assert set(made.classes) | set(made.facts["left_out"]) == set(made.facts["parts"]["val"]["positives"])
