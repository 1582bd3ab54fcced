import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datasets import generated
from PIL import Image

from radprobe import catalog, phantoms
from radprobe.datasets import shenzhen
from radprobe.files import RadprobeError

ENTRY = catalog.datasets()["shenzhen"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shenzhen")
    phantoms.generate(folder, ENTRY, 12, seed=4)
    return folder


@pytest.fixture
def download(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "raw"))


def samples(raw, allow_missing=False):
    return shenzhen.samples(shenzhen.locate(ENTRY, raw), ENTRY, allow_missing)


@pytest.mark.parametrize(
    ("films", "masks"),
    [
        ("CXR_png", "masks"),  # Kaggle's copy with Montgomery
        ("ChinaSet_AllFiles/ChinaSet_AllFiles/CXR_png", "shcxr-lung-mask/mask/mask"),  # two Kaggle archives
        ("Chest-X-ray/Shenzhen/img", "Chest-X-ray/Shenzhen/mask"),  # Mendeley Data
    ],
)
def test_films_and_masks_are_found_in_their_usual_places(download, tmp_path, films, masks):
    expected = samples(download).table
    for source, target in (("ChinaSet_AllFiles/CXR_png", films), ("mask", masks)):
        (tmp_path / "other" / target).parent.mkdir(parents=True, exist_ok=True)
        (download / source).rename(tmp_path / "other" / target)
    layout = shenzhen.locate(ENTRY, tmp_path / "other")
    found = shenzhen.samples(layout, ENTRY, True).table
    pd.testing.assert_frame_equal(found.drop(columns=["image", "masks"]), expected.drop(columns=["image", "masks"]))
    assert all((layout.root / path).is_file() for row in found["masks"] for path in row)


def test_films_without_mask_are_left_out_and_counted(download):
    index = samples(download)
    films = {path.stem for path in (download / "ChinaSet_AllFiles/CXR_png").glob("*.png")}
    assert (len(index.table), index.facts["n_without_mask"], len(films)) == (12, 2, 14)
    for image, (mask,) in zip(index.table["image"], index.table["masks"], strict=True):
        assert Path(mask).stem == f"{Path(image).stem}_mask"


def test_montgomery_beside_it_is_no_part_of_it(download):
    for name in ("ChinaSet_AllFiles/CXR_png/MCUCXR_0001_0.png", "mask/MCUCXR_0001_0.png"):
        shutil.copy(next((download / name).parent.glob("*.png")), download / name)
    assert len(samples(download).table) == 12


def test_without_masks_there_is_no_layout(download):
    shutil.rmtree(download / "mask")
    assert shenzhen.locate(ENTRY, download) is None


def test_a_partial_copy_wants_to_be_allowed(download):
    (download / "PHANTOM.json").unlink()
    with pytest.raises(RadprobeError, match="12 of 566 images"):
        samples(download)
    facts = samples(download, allow_missing=True).facts
    assert (facts["partial"], facts["n_absent"]) == (True, 554)


def test_the_phantom_has_the_quirks_of_the_real_one(download, tmp_path):
    phantoms.generate(tmp_path / "again", ENTRY, 12, seed=4)
    assert generated.bytes_of(tmp_path / "again") == generated.bytes_of(download)
    films = [Image.open(path) for path in (download / "ChinaSet_AllFiles/CXR_png").glob("*.png")]
    assert {film.mode for film in films} == {"L", "RGB", "P"}
    assert len({film.size for film in films}) > 1
    for path in (download / "mask").glob("*.png"):
        mask = np.asarray(Image.open(path))
        assert set(np.unique(mask)) == {0, 255}
        assert 0.1 < (mask > 0).mean() < 0.6
