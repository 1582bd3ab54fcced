import shutil

import nibabel
import numpy as np
import pytest

from radprobe import catalog, phantoms
from radprobe.datasets import btcv
from radprobe.files import RadprobeError
from radprobe.imaging import reading
from radprobe.splitting import splits

ENTRY = catalog.datasets()["btcv"]
PATIENTS = 10


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("btcv")
    phantoms.generate(folder, ENTRY, PATIENTS, seed=3)
    return folder


@pytest.fixture
def download(phantom, tmp_path):
    """A copy of the phantom that a test may change."""
    shutil.copytree(phantom, tmp_path, dirs_exist_ok=True)
    return tmp_path / "RawData"


def samples(raw, allow_missing=False):
    return btcv.samples(btcv.locate(ENTRY, raw), ENTRY, allow_missing)


def parts(split):
    """Case -> part."""
    return dict(zip(split.table["patient_id"], split.table["part"], strict=True))


def test_a_phantom_reads_as_it_was_drawn(phantom):
    layout = btcv.locate(ENTRY, phantom)
    assert layout.variant == "official"
    index = btcv.samples(layout, ENTRY, False)
    assert index.table["volume_id"].nunique() == PATIENTS
    assert index.facts["n_unlabelled"] == 2
    orientations, types = set(), set()
    for case, rows in index.table.groupby("volume_id"):
        label = layout.root / rows["masks"].iloc[0][0]
        assert label.name == case.replace("img", "label") + ".nii.gz"
        image, labels = reading.read_volume(layout.root / rows["image"].iloc[0]), reading.read_labels(label)
        assert image.values.shape == labels.shape
        assert len(rows) == labels.shape[2]
        assert set(np.unique(labels)) == set(range(14))
        orientations.add("".join(nibabel.aff2axcodes(image.affine)))
        types.add(str(nibabel.load(label).get_data_dtype()))
    assert orientations == {"LAS", "LPS", "RAS"}
    assert types == {"uint8", "float32"}


def move(download, variant):
    """Turn the official layout into another known one; return the folder to search."""
    top = download.parent
    if variant == "nested":
        (top / "Abdomen").mkdir()
        download.rename(top / "Abdomen" / "RawData")
        return top
    if variant == "flat":
        return download / "Training"
    for old, new in (("Training/img", "imagesTr"), ("Training/label", "labelsTr"), ("Testing/img", "imagesTs")):
        (download / old).rename(download / new)
    return download


@pytest.mark.parametrize(
    ("variant", "found", "unlabelled"), [("nested", "official", 2), ("flat", "flat", 0), ("decathlon", "decathlon", 2)]
)
def test_other_layouts_give_the_same_samples(download, variant, found, unlabelled):
    expected = samples(download).table["sample_id"]
    (download / "PHANTOM.json").unlink()
    raw = move(download, variant)
    index = samples(raw, allow_missing=True)
    assert index.table["sample_id"].equals(expected)
    assert btcv.locate(ENTRY, raw).variant == found
    assert index.facts["n_unlabelled"] == unlabelled


def test_folders_of_another_set_are_no_btcv(download):
    move(download, "decathlon")
    for path in (download / "imagesTr").glob("img*"):
        path.rename(path.with_name(path.name.replace("img", "spleen_")))
    assert btcv.locate(ENTRY, download) is None


@pytest.mark.parametrize(("file", "word"), [("label/label0001", "label map"), ("img/img0001", "image")])
def test_a_volume_without_its_other_half_is_named(download, file, word):
    (download / f"Training/{file}.nii.gz").unlink()
    with pytest.raises(RadprobeError, match=rf"0001\.nii\.gz: has no {word}: no volume of img0001 lies in"):
        samples(download, allow_missing=True)


def test_a_partial_copy_wants_to_be_allowed(download):
    (download / "PHANTOM.json").unlink()  # now it passes for a real copy
    with pytest.raises(RadprobeError, match=r"datasets\.btcv\.allow_missing: true"):
        samples(download)
    facts = samples(download, allow_missing=True).facts
    assert (facts["partial"], facts["n_listed"], facts["n_absent"]) == (True, 30, 20)


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    def bytes_of(folder, seed):
        phantoms.generate(tmp_path / folder, ENTRY, 2, seed)
        return {p.relative_to(tmp_path / folder): p.read_bytes() for p in (tmp_path / folder).rglob("*") if p.is_file()}

    assert bytes_of("a", 0) == bytes_of("b", 0)
    assert bytes_of("a", 0) != bytes_of("c", 1)


@pytest.mark.parametrize(
    ("name", "train", "val", "test"),
    [("study", 12, 3, 15), ("15/15", 12, 3, 15), ("18/12", 15, 3, 12), ("24/6", 20, 4, 6)],
)
def test_each_variant_holds_out_its_published_cases(complete, name, train, val, test):
    split = splits.make_split(complete, ENTRY.splits[name], name, 0)
    part_of = parts(split)
    assert [list(part_of.values()).count(part) for part in ("train", "val", "test")] == [train, val, test]
    listed = getattr(ENTRY.splits[name], "test", None)
    if listed:
        assert {case for case, part in part_of.items() if part == "test"} == set(listed)
    else:
        assert [case for case, part in sorted(part_of.items()) if part == "test"] == sorted(part_of)[::2]


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    folder = tmp_path_factory.mktemp("all")
    phantoms.generate(folder, ENTRY, 30, seed=0)
    index = samples(folder)
    assert set(index.table["volume_id"]) == {f"img{number:04d}" for number in (*range(1, 11), *range(21, 41))}
    return index


@pytest.mark.parametrize("patients", [8, 12])
def test_a_small_phantom_fills_all_parts_of_all_variants(tmp_path, patients):
    phantoms.generate(tmp_path, ENTRY, patients, seed=0)
    index = samples(tmp_path)
    assert index.table["volume_id"].nunique() == patients
    for name, recipe in ENTRY.splits.items():
        splits.check_parts(splits.make_split(index, recipe, name, 0), index, ENTRY.splits)


def test_a_phantom_may_have_more_patients_than_the_real_set(tmp_path):
    phantoms.generate(tmp_path, ENTRY, 32, seed=0)
    cases = samples(tmp_path).table["volume_id"].unique()
    assert list(cases[-3:]) == ["img0040", "img0081", "img0082"]
