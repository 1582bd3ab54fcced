import os
import shutil
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
from datasets import generated

from radprobe import catalog, phantoms
from radprobe.datasets import brain_tumor, decoding
from radprobe.files import RadprobeError
from radprobe.imaging import reading
from radprobe.phantoms.brain_tumor import write_mat
from radprobe.splitting import splits

ENTRY = catalog.datasets()["brain_tumor"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("brain")
    phantoms.generate(folder, ENTRY, 9, seed=4)
    return folder


@pytest.fixture
def download(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "raw"))


def samples(raw, allow_missing=False):
    return brain_tumor.samples(brain_tumor.locate(ENTRY, raw), ENTRY, allow_missing)


def first(download):
    return download / "brainTumorDataPublic_1-766/1.mat"


def rewrite(path, name, values):
    with h5py.File(path, "r+") as content:
        del content["cjdata"][name]
        if values is not None:
            content["cjdata"][name] = values


def codes(text):
    return np.array([[ord(letter)] for letter in text], np.uint16)


def test_archives_and_one_flat_folder_hold_the_same_samples(download):
    expected = samples(download).table
    assert brain_tumor.locate(ENTRY, download.parent).variant == "official"
    for path in download.glob("*/*.mat"):
        path.rename(download / path.name)
    assert brain_tumor.locate(ENTRY, download).variant == "flat"
    pd.testing.assert_frame_equal(samples(download).table.drop(columns="image"), expected.drop(columns="image"))


def test_the_publishers_folds_alone_are_no_layout(download):
    shutil.rmtree(download / "brainTumorDataPublic_1-766")
    assert (download / "cvind.mat").is_file()
    assert brain_tumor.locate(ENTRY, download) is None


def test_class_and_patient_are_those_of_the_file(download):
    index = samples(download)
    assert index.classes == ENTRY.classes == ["meningioma", "glioma", "pituitary"]
    assert (index.labels().sum(1) == 1).all()
    by_pid = {}
    for row, label in zip(index.table.itertuples(), index.labels().argmax(1) + 1, strict=True):
        with h5py.File(download / row.image) as content:
            assert content["cjdata/label"][0, 0] == label
            by_pid.setdefault("".join(map(chr, content["cjdata/PID"][:, 0])), set()).add(row.patient_id)
    assert all(len(ids) == 1 for ids in by_pid.values())
    assert len(set.union(*by_pid.values())) == len(by_pid) == 9
    assert any("/" in pid for pid in by_pid)
    assert (index.table["volume_id"] == index.table["sample_id"]).all()


def test_ids_that_differ_by_odd_characters_only_are_two_patients(download):
    second = first(download).with_name("2.mat")
    rewrite(first(download), "PID", codes("MR 7/1"))
    rewrite(second, "PID", codes("MR 7:1"))
    one, two = samples(download).table["patient_id"][:2]
    assert one != two
    rewrite(second, "PID", codes("MR 7/1 \0"))  # padding is no part of it
    one, two = samples(download).table["patient_id"][:2]
    assert one == two


@pytest.mark.parametrize(
    ("name", "values", "named"),
    [
        ("label", np.array([[4.0]]), r"unknown cjdata.label \[\[4.0\]\]"),
        ("label", np.array([[1.5]]), "unknown cjdata.label"),
        ("label", None, "holds no array cjdata/label of numbers"),
        ("PID", codes("  "), "has no patient"),
        ("PID", np.array([[2_000_000]]), "is no text"),
        ("PID", np.array([[np.nan]]), "is no text"),
        ("PID", np.zeros((100, 1), np.uint16), "has 100 numbers in cjdata/PID, where at most 64 are read"),
    ],
)
def test_a_file_that_says_something_else_is_named(download, name, values, named):
    rewrite(first(download), name, values)
    with pytest.raises(RadprobeError, match=named) as error:
        samples(download)
    assert error.value.what.endswith("1.mat")


def of_another_file(record, name, elsewhere):
    record.create_dataset(name, (4, 1), "u2", external=[(str(elsewhere), 0, 8)])


def behind_a_link(record, name, elsewhere):
    record[name] = h5py.ExternalLink(str(elsewhere), "/x")


def a_group(record, name, _):
    record.create_group(name)


def endless(record, name, _):
    record.create_dataset(name, (10**6, 10**6), "u2", chunks=(64, 64))


@pytest.mark.parametrize("name", ["label", "PID"])
@pytest.mark.parametrize("trap", [of_another_file, behind_a_link, a_group, endless])
def test_a_label_or_patient_that_is_a_trap_is_refused(download, tmp_path, trap, name):
    (elsewhere := tmp_path / "secret").write_bytes("host_secret".encode("utf-16-le"))
    with h5py.File(first(download), "r+") as content:
        del content["cjdata"][name]
        trap(content["cjdata"], name, elsewhere)
    with pytest.raises(RadprobeError, match=f"cjdata/{name}") as error:
        samples(download)
    assert error.value.what == str(first(download))


def test_a_pipe_called_as_a_slice_is_none(download):
    os.mkfifo(download / "brainTumorDataPublic_1-766/9000.mat")  # whoever opens it waits for ever
    assert "9000" not in set(samples(download).table["sample_id"])


def test_a_matlab_v5_copy_is_explained(download):
    for path in download.glob("brain*/[0-9]*.mat"):
        scipy.io.savemat(path, {"cjdata": {"label": 1, "PID": "1", "image": np.zeros((4, 4), np.int16)}})
    with pytest.raises(RadprobeError, match=r"MATLAB v5 file, not v7\.3"):
        samples(download)


def test_one_unreadable_file_is_left_to_prepare(download):
    first(download).write_bytes(first(download).read_bytes()[:3000])
    index = samples(download)
    row = index.table.iloc[0]
    assert row["patient_id"] == "unreadable-0001"
    assert row[[f"label:{name}" for name in ENTRY.classes]].isna().all()
    bad = decoding.check(decoding.pictures(index, download)[0])
    assert isinstance(bad, decoding.Bad)
    assert bad.file == first(download)


def test_a_number_that_is_there_twice_and_a_partial_copy(download):
    (download / "PHANTOM.json").unlink()
    with pytest.raises(RadprobeError, match="of 3,064 images"):
        samples(download)
    other = download / "brainTumorDataPublic_767-1532/1.mat"
    other.parent.mkdir()
    shutil.copy(first(download), other)
    with pytest.raises(RadprobeError, match="is there twice"):
        samples(download, allow_missing=True)


def test_the_phantom_is_matlab_of_the_right_kind(download, tmp_path):
    phantoms.generate(tmp_path / "again", ENTRY, 9, seed=4)
    assert generated.bytes_of(tmp_path / "again") == generated.bytes_of(download)
    start = first(download).read_bytes()[:520]
    assert start.startswith(b"MATLAB 7.3 MAT-file")
    assert start[124:128] == b"\x00\x02IM"
    assert start[512:516] == b"\x89HDF"
    with h5py.File(first(download)) as content:
        record = content["cjdata"]
        assert record["image"].dtype == np.int16
        assert record["PID"].dtype == np.uint16
        mask = record["tumorMask"][()].T > 0
    image = reading.read_grey(first(download))
    assert image.shape == mask.shape
    assert image[mask].mean() > image.mean()


def test_the_phantoms_classes_can_be_learnt(tmp_path):
    phantoms.generate(tmp_path, ENTRY, 50, seed=4)
    index = samples(tmp_path)
    assert np.mean([generated.separability(index, tmp_path, name) for name in ENTRY.classes]) > 0.75


@pytest.mark.slow
def test_a_complete_copy_is_read_in_seconds_and_splits_as_the_study_does(download):
    """3,064 files of 233 patients: links to generated ones, with ids of their own."""
    folder = first(download).parent
    for path in folder.glob("*.mat"):
        path.unlink()
    for number in range(1, 3065):
        image, tumour = np.full((8, 8), number, np.int16), np.eye(8, dtype=bool)
        write_mat(folder / f"{number}.mat", 1 + number % 3, f"{1000 + number % 233}", image, tumour)
    (download / "PHANTOM.json").unlink()
    start = time.perf_counter()
    index = samples(download)
    assert time.perf_counter() - start < 15
    assert len(index.table) == ENTRY.published.samples
    assert index.facts["partial"] is False
    split = splits.make_split(index, ENTRY.splits["study"], "study", 0)
    patients = {part: counts["patients"] for part, counts in split.facts["parts"].items()}
    assert patients == {"train": 113, "val": 50, "test": 70}
