import json
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from radprobe import catalog, phantoms
from radprobe.datasets import msd
from radprobe.files import RadprobeError
from radprobe.imaging import reading
from radprobe.phantoms import msd as msd_phantoms
from radprobe.splitting import splits

NAMES = ("msd_heart", "msd_hippocampus", "msd_spleen")
ENTRIES = {name: catalog.datasets()[name] for name in NAMES}
HIPPOCAMPUS = ENTRIES["msd_hippocampus"]
REAL = pytest.mark.skipif(not os.environ.get("RADPROBE_REAL_DATA"), reason="RADPROBE_REAL_DATA is not set")
PATIENTS = 17  # one more than the number at which a label map is float


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("msd")
    for name, entry in ENTRIES.items():
        phantoms.generate(folder / name, entry, PATIENTS, seed=3)
    return folder


@pytest.fixture
def hippocampus(downloads, tmp_path):
    """A copy of the phantom that a test may change."""
    shutil.copytree(downloads / "msd_hippocampus", tmp_path, dirs_exist_ok=True)
    return tmp_path / "Task04_Hippocampus"


def samples(raw, entry=HIPPOCAMPUS, allow_missing=False):
    return msd.samples(msd.locate(entry, raw), entry, allow_missing)


@pytest.mark.parametrize("name", NAMES)
def test_a_phantom_reads_as_it_was_drawn(downloads, name):
    entry = ENTRIES[name]
    layout = msd.locate(entry, downloads / name)
    assert (layout.variant, layout.root.name) == ("official", entry.root)
    index = msd.samples(layout, entry, False)
    table = index.table
    assert table["volume_id"].nunique() == table["patient_id"].nunique() == PATIENTS
    assert index.facts["n_unlabelled"] == msd_phantoms.N_UNLABELLED
    assert not index.facts["partial"]
    sizes = set()
    for volume, rows in table.groupby("volume_id"):
        image = reading.read_volume(layout.root / rows["image"].iloc[0])
        labels = reading.read_labels(layout.root / rows["masks"].iloc[0][0])
        assert image.values.shape == labels.shape, volume
        assert rows["slice"].tolist() == list(range(labels.shape[2]))
        assert set(np.unique(labels)) == set(range(len(entry.classes) + 1))
        np.testing.assert_array_equal(np.reshape(rows["affine"].iloc[0], (4, 4)), image.affine)
        np.testing.assert_allclose(rows["spacing"].iloc[0], image.spacing)
        sizes.add(labels.shape)
    assert len(sizes) > PATIENTS // 2


def test_hippocampus_phantoms_have_the_types_of_the_real_files(downloads):
    root = downloads / "msd_hippocampus/Task04_Hippocampus"
    types = {
        folder: {str(nibabel.load(path).get_data_dtype()) for path in (root / folder).glob("hip*")}
        for folder in ("imagesTr", "labelsTr")
    }
    assert types == {"imagesTr": {"uint8", "float32"}, "labelsTr": {"uint8", "float32"}}


def test_the_listing_of_a_phantom_names_its_files(downloads):
    root = downloads / "msd_spleen/Task09_Spleen"
    listing = json.loads((root / "dataset.json").read_text())
    assert listing["numTraining"] == len(listing["training"]) == PATIENTS
    assert listing["labels"] == {"0": "background", "1": "spleen"}
    assert all((root / pair[kind]).is_file() for pair in listing["training"] for kind in ("image", "label"))
    assert all((root / path).is_file() for path in listing["test"])


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bytes(tmp_path, name):
    def bytes_of(folder, seed):
        phantoms.generate(tmp_path / folder, ENTRIES[name], 2, seed)
        return {p.relative_to(tmp_path / folder): p.read_bytes() for p in (tmp_path / folder).rglob("*") if p.is_file()}

    assert bytes_of("a", 0) == bytes_of("b", 0)
    assert bytes_of("a", 0) != bytes_of("c", 1)


def test_files_of_macos_are_no_volumes(hippocampus):
    assert list((hippocampus / "imagesTr").glob("._*")), "the phantom has one"
    (hippocampus / "labelsTr/._hippocampus_001.nii.gz").write_bytes(b"x")
    assert samples(hippocampus).table["volume_id"].nunique() == PATIENTS


@pytest.mark.parametrize("above", [".", "..", "../.."])
def test_every_place_to_unpack_it_is_found(hippocampus, above):
    inner = hippocampus.parent / "up" / "Task04_Hippocampus"
    inner.parent.mkdir()
    hippocampus.rename(inner)
    assert samples(inner / above).table["volume_id"].nunique() == PATIENTS


def test_a_flat_copy_under_any_name_without_listing_and_test_is_found(hippocampus):
    flat = hippocampus.rename(hippocampus.with_name("my data"))
    (flat / "dataset.json").unlink()
    shutil.rmtree(flat / "imagesTs")
    layout = msd.locate(HIPPOCAMPUS, flat)
    assert (layout.variant, layout.tables) == ("flat", ())
    assert samples(flat).facts["n_unlabelled"] == 0


def test_images_named_as_nnunet_does_go_with_their_labels(hippocampus):
    expected = samples(hippocampus).table
    root = hippocampus.rename(hippocampus.with_name("Dataset004_Hippocampus"))
    for path in (root / "imagesTr").glob("hip*"):
        path.rename(path.with_name(path.name.replace(".nii", "_0000.nii")))
    assert samples(root).table["sample_id"].equals(expected["sample_id"])


@pytest.mark.parametrize("name", ["Task02_Heart", "Dataset009_Spleen"])
def test_another_task_is_not_taken_for_this_one(hippocampus, name):
    other = hippocampus.rename(hippocampus.with_name(name))
    assert msd.locate(HIPPOCAMPUS, other) is None
    assert msd.locate(HIPPOCAMPUS, other.parent) is None


def test_the_right_one_of_all_tasks_is_found(downloads):
    for entry in ENTRIES.values():
        assert msd.locate(entry, downloads).root.name == entry.root


@pytest.mark.parametrize(("folder", "word"), [("labelsTr", "label map"), ("imagesTr", "image")])
def test_a_volume_without_its_other_half_is_named(hippocampus, folder, word):
    (hippocampus / folder / "hippocampus_003.nii.gz").unlink()
    with pytest.raises(RadprobeError, match=rf"hippocampus_003\.nii\.gz: has no {word}") as error:
        samples(hippocampus, allow_missing=True)
    assert str(hippocampus / folder) in error.value.reason


def test_a_volume_that_is_there_twice_is_named(hippocampus):
    shutil.copy(hippocampus / "imagesTr/hippocampus_001.nii.gz", hippocampus / "imagesTr/hippocampus_001_0000.nii.gz")
    with pytest.raises(RadprobeError, match="is there twice"):
        samples(hippocampus)


def test_what_is_no_volume_is_named(hippocampus):
    (hippocampus / "imagesTr/preview.png").write_bytes(b"x")
    with pytest.raises(RadprobeError, match=r"preview\.png"):
        samples(hippocampus)


def test_a_partial_copy_wants_to_be_allowed(hippocampus):
    (hippocampus / "PHANTOM.json").unlink()  # now it passes for a real copy
    with pytest.raises(RadprobeError, match=r"datasets\.msd_hippocampus\.allow_missing: true"):
        samples(hippocampus)
    facts = samples(hippocampus, allow_missing=True).facts
    assert (facts["partial"], facts["n_listed"], facts["n_absent"]) == (True, 260, 260 - PATIENTS)


def test_a_broken_header_leaves_one_row_for_prepare_to_name(hippocampus):
    (hippocampus / "imagesTr/hippocampus_002.nii.gz").write_bytes(b"broken")
    table = samples(hippocampus).table
    assert table[table["volume_id"] == "hippocampus_002"]["sample_id"].tolist() == ["hippocampus_002_0000"]


@pytest.mark.parametrize(
    ("name", "patients", "expected"),
    [("msd_heart", 20, [12, 4, 4]), ("msd_spleen", 41, [16, 10, 15]), ("msd_hippocampus", 26, [12, 6, 8])],
)
def test_the_study_split_has_the_parts_of_the_paper(tmp_path, name, patients, expected):
    entry = ENTRIES[name]
    phantoms.generate(tmp_path, entry, patients, seed=0)
    split = splits.make_split(samples(tmp_path, entry), entry.splits["study"], "study", 0)
    assert [split.facts["parts"][part]["cases"] for part in ("train", "val", "test")] == expected


@REAL
@pytest.mark.real
@pytest.mark.parametrize("how", ["paper", "canonical"])
def test_the_real_hippocampus_has_the_published_slices(how):
    entry = HIPPOCAMPUS.model_copy(update={"slices": how})
    layout = msd.locate(entry, Path(os.environ["RADPROBE_REAL_DATA"]) / "msd_hippocampus")
    index = msd.samples(layout, entry, False)
    assert len(index.table) == entry.published.samples == 9270 == 4230 + 2165 + 2875
    assert index.table["volume_id"].nunique() == entry.published.cases == 260
    assert not index.facts["partial"]
    affines = np.array(index.table["affine"].tolist()).reshape(-1, 4, 4)
    spacings = np.array(index.table["spacing"].tolist())
    np.testing.assert_allclose(np.linalg.norm(affines[:, :3, :3], axis=1), spacings)
    assert (spacings == 1).all()
    split = splits.make_split(index, entry.splits["study"], "study", 0)
    assert {part: split.facts["parts"][part]["cases"] for part in entry.published.parts} == entry.published.parts
