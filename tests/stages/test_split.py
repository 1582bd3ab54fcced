import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import running
from PIL import Image

from radprobe import catalog, phantoms
from radprobe.artifacts import PARTS, Index, LeakCertificate, Split
from radprobe.files import RadprobeError
from radprobe.study import Study

REAL = pytest.mark.skipif(not os.environ.get("RADPROBE_REAL_DATA"), reason="RADPROBE_REAL_DATA is not set")


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("downloads")
    phantoms.generate(folder / "montgomery", catalog.datasets()["montgomery"], 12, 0)
    phantoms.generate(folder / "nih_chestxray14", catalog.datasets()["nih_chestxray14"], 24, 0)
    return folder


def run(root, dataset, raw="raw", **choice):
    paths = {"root": str(root), "raw": str(raw)}
    study = Study({"study": "s", "paths": paths, "datasets": {dataset: choice}, "backbones": ["test_vit"]})
    for verb in ("retrieve", "prepare", "split"):
        running.run(study, study.step(verb, dataset))
    return study.step("prepare", dataset).folder, study.step("split", dataset).folder


@pytest.mark.parametrize("dataset", ["montgomery", "nih_chestxray14"])
def test_every_sample_gets_a_part_and_the_certificate_is_clean(downloads, tmp_path, dataset):
    source, folder = run(tmp_path, dataset, downloads)
    made, index = Split.load(folder), Index.load(source)
    assert sorted(made.table["sample_id"]) == index.table["sample_id"].tolist()
    assert all(made.rows(index, part).size for part in PARTS)
    certificate = LeakCertificate.load(folder)
    assert certificate.overlaps == certificate.near == []
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
    assert error.value.what == f"montgomery: {in_train.stem} (train) and {in_test.stem} (test)"
    (listing,) = tmp_path.glob("work/montgomery/split/*/overlaps.csv")
    assert sorted(pd.read_csv(listing)["samples"]) == sorted([in_test.stem, in_train.stem])


def with_a_copy(downloads, root, change):
    """A raw copy in which a test film is a changed copy of a train film; returns the names of the two."""
    raw = Path(shutil.copytree(downloads / "montgomery", root / "raw/montgomery"))
    films = sorted((raw / "MontgomerySet/CXR_png").iterdir())
    copied, original = films[0], films[2]
    for folder in ("CXR_png", "ManualMask/leftMask", "ManualMask/rightMask"):
        shutil.copy(raw / "MontgomerySet" / folder / original.name, raw / "MontgomerySet" / folder / copied.name)
    image = np.asarray(Image.open(original))
    Image.fromarray(change(image)).save(copied)
    return original.stem, copied.stem


def test_an_exception_with_its_reason_lets_it_pass_and_is_repeated(downloads, tmp_path):
    pair = with_a_copy(downloads, tmp_path, lambda image: image)
    _, folder = run(tmp_path, "montgomery", leaks_allowed=[{"samples": list(pair), "reason": "known to us"}])
    certificate = LeakCertificate.load(folder)
    assert certificate.overlaps == []
    assert [(e["samples"], e["reason"]) for e in certificate.excepted] == [(list(pair), "known to us")]


def test_a_copy_of_other_brightness_warns_and_the_test_sample_is_listed(downloads, tmp_path, capsys):
    original, copied = with_a_copy(downloads, tmp_path, lambda image: (image * 0.8 + 20).astype(np.uint8))
    _, folder = run(tmp_path, "montgomery")
    certificate = LeakCertificate.load(folder)
    assert certificate.overlaps == []
    best = certificate.near[0]
    assert (best["samples"], best["parts"]) == ([original, copied], ["train", "test"])
    assert copied in certificate.near_test_samples
    assert f"{original} (train) and {copied} (test): correlation" in capsys.readouterr().out


def test_an_exception_that_nothing_needs_is_said(downloads, tmp_path, capsys):
    unused = [{"samples": ["MCUCXR_0001_0", "nobody"], "reason": "none"}]
    run(tmp_path, "montgomery", downloads, leaks_allowed=unused)
    assert "leaks_allowed names MCUCXR_0001_0, nobody, which share nothing" in capsys.readouterr().out


@REAL
@pytest.mark.real
def test_the_real_montgomery_falls_69_23_46(tmp_path):
    _, folder = run(tmp_path, "montgomery", os.environ["RADPROBE_REAL_DATA"])
    made = Split.load(folder)
    assert LeakCertificate.load(folder).near == []
    assert made.facts["published"] == {"parts": {"train": 69, "val": 23, "test": 46}, "equal": True}
    listing = pd.read_csv(Path(__file__).parents[2] / "splits/montgomery.csv", dtype=str)
    assert (
        dict(zip(listing["case"], listing["split"], strict=True)) == made.table.set_index("sample_id")["part"].to_dict()
    )


@REAL
@pytest.mark.real
def test_the_partial_nih_works_under_its_own_split(tmp_path):
    real = os.environ["RADPROBE_REAL_DATA"]
    _, folder = run(tmp_path, "nih_chestxray14", real, allow_missing=True, split="nih_real_subset")
    made = Split.load(folder)
    assert len(made.table) == 1000
    assert LeakCertificate.load(folder).near == []
    assert "Pneumonia" in made.classes
    assert set(made.classes) | set(made.facts["left_out"]) == set(made.facts["parts"]["val"]["positives"])
