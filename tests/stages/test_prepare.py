import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import running
from PIL import Image

from radprobe import catalog, phantoms
from radprobe.artifacts import Index, Pixels, Truth
from radprobe.files import RadprobeError
from radprobe.imaging import reading, resize
from radprobe.study import Study

REAL = pytest.mark.skipif(not os.environ.get("RADPROBE_REAL_DATA"), reason="RADPROBE_REAL_DATA is not set")


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    """One generated download of each benchmark, passing for a user's own: tests copy what they change."""
    folder = tmp_path_factory.mktemp("downloads")
    phantoms.generate(folder / "montgomery", catalog.datasets()["montgomery"], 9, 0)
    phantoms.generate(folder / "nih_chestxray14", catalog.datasets()["nih_chestxray14"], 24, 0)
    return folder


@pytest.fixture
def raw(downloads, tmp_path):
    return Path(shutil.copytree(downloads, tmp_path / "raw"))


def study(root, dataset, limit=None, raw="raw", **choice):
    content = {"study": "s", "paths": {"root": str(root), "raw": str(raw)}, "limit": limit, "threads": 2}
    return Study({**content, "datasets": {dataset: choice}, "backbones": ["test_vit"]})


def prepared(chosen):
    (dataset,) = chosen.params.datasets
    running.run(chosen, chosen.step("retrieve", dataset))
    step = chosen.step("prepare", dataset)
    running.run(chosen, step)
    return step.folder


def test_films_masks_and_truth_are_those_of_the_raw_files(raw, tmp_path):
    folder = prepared(study(tmp_path, "montgomery"))
    index, pixels, truth = Index.load(folder), Pixels.load(folder), Truth.load(folder)
    root, side = raw / "montgomery/MontgomerySet", catalog.datasets()["montgomery"].stored
    assert pixels.images.shape == pixels.masks.shape == (9, side, side)
    assert list(truth.maps) == index.table["sample_id"].tolist()
    for row, sample in enumerate(index.table.itertuples()):
        film = reading.read_grey(root / sample.image)
        left, right = (np.asarray(Image.open(root / mask)) for mask in sample.masks)
        labels = truth.maps[sample.sample_id]
        np.testing.assert_array_equal(labels, left * 1 + right * 2)
        np.testing.assert_array_equal(pixels.masks[row], resize.resize_mask(labels, side))
        np.testing.assert_array_equal(pixels.images[row], resize.resize_image(film, side))
        assert tuple(pixels.shapes[row]) == film.shape
    assert pixels.facts["warnings"] == []
    assert pixels.facts["checked"] == 9


@pytest.mark.survives("bug", "another number of threads in prepare", "the same bytes")
def test_the_result_does_not_depend_on_threads(raw, tmp_path):
    digests = []
    for threads in (1, 3):
        chosen = study(tmp_path / str(threads), "montgomery", raw=raw)
        chosen.params = chosen.params.model_copy(update={"threads": threads})
        digests.append(Pixels.load(prepared(chosen)).images.tobytes())
    assert digests[0] == digests[1]


def test_a_classification_set_has_labels_and_a_truth_of_no_case(raw, tmp_path):
    folder = prepared(study(tmp_path, "nih_chestxray14"))
    index, pixels = Index.load(folder), Pixels.load(folder)
    assert len(index.table) == len(pixels.images)
    assert pixels.masks is None
    assert pixels.images.dtype == np.uint8
    assert len(Truth.load(folder).maps) == 0
    assert index.labels().shape == (len(index.table), 14)


def test_a_limit_is_a_pilot_and_says_so(raw, tmp_path):
    folder = prepared(study(tmp_path, "nih_chestxray14", limit=20))
    index = Index.load(folder)
    assert index.table["patient_id"].nunique() == 20
    assert index.facts["limit"] == {"patients": 20, "of": 24}
    assert len(Pixels.load(folder).images) == len(index.table)


def film(raw, position=1):
    return sorted((raw / "montgomery/MontgomerySet/CXR_png").iterdir())[position]


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def scramble(path):
    """Damage that no header shows."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 500] = bytes(500)
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, scramble, lambda path: path.write_bytes(b"")])
def test_a_damaged_file_stops_it_by_name(raw, tmp_path, damage):
    damage(film(raw))
    chosen = study(tmp_path, "montgomery")
    with pytest.raises(RadprobeError, match=film(raw).name) as error:
        prepared(chosen)
    assert "max_quarantine" in error.value.remedy
    folder = chosen.step("prepare", "montgomery").folder
    assert not list(folder.glob("*.json")), "no manifest"
    assert not list(folder.glob("*.partial")), "no leftover"


@pytest.mark.parametrize("damage", [cut, scramble])
def test_a_quarantined_film_leaves_index_pixels_and_truth_alike(raw, tmp_path, damage):
    whole = prepared(study(tmp_path / "whole", "montgomery", raw=raw))
    damage(film(raw))
    folder = prepared(study(tmp_path, "montgomery", max_quarantine=1))
    index, pixels, truth = Index.load(folder), Pixels.load(folder), Truth.load(folder)
    names = index.table["sample_id"].tolist()
    assert film(raw).stem not in names
    assert len(names) == len(pixels.images) == len(pixels.masks) == len(pixels.shapes) == len(truth.maps) == 8
    kept = [row for row in range(9) if row != 1]
    np.testing.assert_array_equal(pixels.images, Pixels.load(whole).images[kept])
    np.testing.assert_array_equal(pixels.masks, Pixels.load(whole).masks[kept])
    (entry,) = pixels.facts["quarantined"]
    assert entry["samples"] == [film(raw).stem]
    assert entry == index.facts["quarantine"][0]
    assert any(film(raw).name in line for line in pixels.facts["warnings"])


def test_more_damage_than_allowed_stops_it(raw, tmp_path):
    cut(film(raw, 1))
    scramble(film(raw, 2))
    with pytest.raises(RadprobeError, match="max_quarantine is 1"):
        prepared(study(tmp_path, "montgomery", max_quarantine=1))


def test_a_mask_of_another_size_is_named_before_anything_is_decoded(raw, tmp_path, monkeypatch):
    mask = raw / "montgomery/MontgomerySet/ManualMask/leftMask" / film(raw).name
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(mask)
    monkeypatch.setattr(reading, "read_grey", None)
    with pytest.raises(RadprobeError, match="the mask is") as error:
        prepared(study(tmp_path, "montgomery"))
    assert error.value.what == str(mask)
    assert "draw the mask on the image as it is" in error.value.remedy
    assert "max_quarantine" in error.value.remedy


def test_oddities_are_warned_of(raw, tmp_path):
    masks, constant = raw / "montgomery/MontgomerySet/ManualMask", film(raw, 0)
    with Image.open(constant) as image:
        size = image.size
    Image.new("L", size, 7).save(constant)
    shutil.copy(masks / "leftMask" / film(raw).name, masks / "rightMask" / film(raw).name)
    facts = Pixels.load(prepared(study(tmp_path, "montgomery"))).facts
    assert facts["constant"] == [constant.stem]
    assert any(line.startswith("masks overlap: 1 sample(s)") for line in facts["warnings"])


def test_an_empty_part_stops_it_before_anything_is_decoded(raw, tmp_path, monkeypatch):
    (raw / "nih_chestxray14/test_list.txt").write_text("")
    monkeypatch.setattr(reading, "probe", None)
    with pytest.raises(RadprobeError, match="part 'test'"):
        prepared(study(tmp_path, "nih_chestxray14"))


@pytest.mark.survives("fault", "a raw file that changed since it was hashed", "refused; hashed anew")
def test_a_file_that_changed_since_it_was_retrieved_is_noticed(raw, tmp_path):
    chosen = study(tmp_path, "montgomery")
    running.run(chosen, chosen.step("retrieve", "montgomery"))
    cut(film(raw))
    with pytest.raises(RadprobeError, match="changed since"):
        running.run(chosen, chosen.step("prepare", "montgomery"))
    assert not (chosen.step("retrieve", "montgomery").folder / "raw.json").exists()


def test_slices_of_a_volume_come_from_it(tmp_path):
    chosen = study(tmp_path, "mni152")
    if chosen.missing:
        pytest.skip("nilearn of the catalog's version is not installed")
    folder = prepared(chosen)
    index, pixels = Index.load(folder), Pixels.load(folder)
    volume = nibabel.as_closest_canonical(nibabel.load(chosen.raw_folder("mni152") / index.table["image"].iloc[0]))
    values = np.asanyarray(volume.dataobj)
    for row, z in enumerate(index.table["slice"]):
        axial = values[::-1, ::-1, z].T  # front at the top, the patient's right at the left
        expected = resize.resize_image(axial, pixels.images.shape[1])
        np.testing.assert_array_equal(pixels.images[row], expected)


@REAL
@pytest.mark.real
def test_the_real_montgomery_passes_every_check(tmp_path):
    folder = prepared(study(tmp_path, "montgomery", raw=os.environ["RADPROBE_REAL_DATA"]))
    facts = Pixels.load(folder).facts
    assert facts["checked"] == 138
    assert facts["equals_published"] is True
    assert facts["quarantined"] == facts["constant"] == []


@REAL
@pytest.mark.real
def test_the_partial_nih_stops_under_the_studys_split_and_says_what_to_do(tmp_path):
    chosen = study(tmp_path, "nih_chestxray14", raw=os.environ["RADPROBE_REAL_DATA"], allow_missing=True)
    with pytest.raises(RadprobeError, match="part 'val': has no sample") as error:
        prepared(chosen)
    assert "nih_real_subset" in error.value.remedy
