import json
import shutil

import nibabel
import numpy as np
import pytest

from radprobe import catalog, phantoms
from radprobe.datasets import amos
from radprobe.files import RadprobeError
from radprobe.imaging import reading
from radprobe.phantoms import amos as amos_phantoms
from radprobe.splitting import splits

ENTRY = catalog.datasets()["amos"]
PATIENTS = 9


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("amos")
    phantoms.generate(folder, ENTRY, PATIENTS, seed=3)
    return folder


@pytest.fixture
def download(phantom, tmp_path):
    """A copy of the phantom that a test may change."""
    shutil.copytree(phantom, tmp_path, dirs_exist_ok=True)
    return tmp_path / "amos22"


def samples(raw, allow_missing=False):
    return amos.samples(amos.locate(ENTRY, raw), ENTRY, allow_missing)


def test_a_phantom_reads_as_it_was_drawn(phantom):
    layout = amos.locate(ENTRY, phantom)
    assert (layout.variant, layout.root.name) == ("official", "amos22")
    table = samples(phantom).table
    assert sorted(set(table["volume_id"])) == [f"amos_{number:04d}" for number in range(1, PATIENTS + 1)]
    assert table["patient_id"].equals(table["volume_id"])
    orientations, sizes, slopes = set(), set(), set()
    for _, rows in table.groupby("volume_id"):
        path = layout.root / rows["image"].iloc[0]
        image, labels = reading.read_volume(path), reading.read_labels(layout.root / rows["masks"].iloc[0][0])
        assert image.values.shape == labels.shape
        assert len(rows) == labels.shape[2]
        assert set(np.unique(labels)) == set(range(16))
        assert image.values.min() < -900, "air, in Hounsfield units"
        assert 300 < image.values.max() < 800
        orientations.add("".join(nibabel.aff2axcodes(image.affine)))
        sizes.add(labels.shape)
        slopes.add(nibabel.load(path).dataobj.inter)
    assert orientations == set(amos_phantoms.ORIENTATIONS)
    assert len(sizes) > PATIENTS // 2
    assert slopes == {0, -1024}


def test_mri_and_unlabelled_volumes_are_left_out_and_counted(phantom):
    facts = samples(phantom).facts
    assert (facts["n_mr"], facts["n_unlabelled"]) == (2, 2)
    listing = json.loads((phantom / "amos22/dataset.json").read_text())
    listed = {pair["image"].removeprefix("./") for part in ("training", "validation") for pair in listing[part]}
    assert listed == set(samples(phantom).table["image"]) | {"imagesTr/amos_0507.nii.gz", "imagesVa/amos_0508.nii.gz"}


@pytest.mark.parametrize("above", [".", "..", "../.."])
def test_every_place_to_unpack_it_is_found(download, above):
    inner = download.parent / "up" / "amos22"
    inner.parent.mkdir()
    download.rename(inner)
    assert samples(inner / above).table["volume_id"].nunique() == PATIENTS


def test_all_volumes_merged_into_the_training_folders_are_found(download):
    expected = samples(download).table
    for kind in ("images", "labels"):
        for path in (download / f"{kind}Va").iterdir():
            path.rename(download / f"{kind}Tr" / path.name)
        (download / f"{kind}Va").rmdir()
    layout = amos.locate(ENTRY, download)
    assert layout.variant == "training folders"
    assert samples(download).table["sample_id"].equals(expected["sample_id"])


def test_another_set_of_the_same_folders_is_no_amos(download):
    for path in (download / "imagesTr").glob("amos_*"):
        path.rename(path.with_name(path.name.replace("amos", "BRATS")))
    assert amos.locate(ENTRY, download) is None


@pytest.mark.parametrize(("folder", "word"), [("labelsVa", "label map"), ("imagesVa", "image")])
def test_a_volume_without_its_other_half_is_named(download, folder, word):
    (download / folder / "amos_0003.nii.gz").unlink()
    with pytest.raises(RadprobeError, match=rf"amos_0003\.nii\.gz: has no {word}"):
        samples(download, allow_missing=True)


def test_a_volume_in_both_parts_is_named(download):
    for kind in ("images", "labels"):
        shutil.copy(download / f"{kind}Va/amos_0003.nii.gz", download / f"{kind}Tr/amos_0003.nii.gz")
    with pytest.raises(RadprobeError, match=r"amos_0003\.nii\.gz: is there twice"):
        samples(download)


def test_a_partial_copy_wants_to_be_allowed(download):
    (download / "PHANTOM.json").unlink()  # now it passes for a real copy
    with pytest.raises(RadprobeError, match=r"datasets\.amos\.allow_missing: true"):
        samples(download)
    facts = samples(download, allow_missing=True).facts
    assert (facts["partial"], facts["n_listed"], facts["n_absent"]) == (True, 300, 300 - PATIENTS)


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    def bytes_of(folder, seed):
        phantoms.generate(tmp_path / folder, ENTRY, 2, seed)
        return {p.relative_to(tmp_path / folder): p.read_bytes() for p in (tmp_path / folder).rglob("*") if p.is_file()}

    assert bytes_of("a", 0) == bytes_of("b", 0)
    assert bytes_of("a", 0) != bytes_of("c", 1)


def test_a_phantom_larger_than_the_ids_of_ct_is_refused(tmp_path):
    with pytest.raises(RadprobeError, match=r"phantom\.patients"):
        phantoms.generate(tmp_path, ENTRY, 499, seed=0)
    assert not any(tmp_path.iterdir())


def test_half_of_the_volumes_are_in_the_study_split(tmp_path):
    phantoms.generate(tmp_path, ENTRY, 30, seed=0)
    index = samples(tmp_path)
    split = splits.make_split(index, ENTRY.splits["study"], "study", 0)
    assert {part: split.facts["parts"][part]["cases"] for part in ("train", "val", "test")} == {
        "train": 8,
        "val": 2,
        "test": 5,
    }
