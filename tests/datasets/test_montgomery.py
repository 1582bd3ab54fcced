import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radprobe import catalog, phantoms
from radprobe.datasets import montgomery
from radprobe.files import RadprobeError

ENTRY = catalog.datasets()["montgomery"]
REAL = pytest.mark.skipif(not os.environ.get("RADPROBE_REAL_DATA"), reason="RADPROBE_REAL_DATA is not set")


@pytest.fixture
def download(tmp_path):
    phantoms.generate(tmp_path, ENTRY, 5, seed=3)
    return tmp_path


@pytest.mark.parametrize("inside", ["MontgomerySet", ".", "up", "up/up"])
def test_every_place_to_unpack_it_is_found(download, inside):
    raw = download / inside
    if "up" in inside:
        inner = download / inside
        inner.mkdir(parents=True)
        (download / "MontgomerySet").rename(inner / "MontgomerySet")
        raw = inner.parent
    layout = montgomery.locate(ENTRY, raw)
    assert layout.root.name == "MontgomerySet"
    assert len(montgomery.samples(layout, ENTRY, False).table) == 5


def test_a_folder_without_masks_is_no_layout(download):
    (download / "MontgomerySet/ManualMask").rename(download / "Masks")
    assert montgomery.locate(ENTRY, download) is None


def test_masks_follow_the_order_of_classes(download):
    table = montgomery.samples(montgomery.locate(ENTRY, download), ENTRY, False).table
    assert all("leftMask" in left and "rightMask" in right for left, right in table["masks"])
    assert (table["patient_id"] == table["sample_id"]).all()


def test_a_missing_mask_is_named(download):
    mask = next((download / "MontgomerySet/ManualMask/rightMask").iterdir())
    mask.unlink()
    with pytest.raises(RadprobeError, match=mask.name) as error:
        montgomery.samples(montgomery.locate(ENTRY, download), ENTRY, False)
    assert "right lung" in error.value.reason


def test_a_partial_copy_wants_to_be_allowed(download):
    (download / "MontgomerySet/PHANTOM.json").unlink()  # now it passes for a real copy of 5 films
    layout = montgomery.locate(ENTRY, download)
    with pytest.raises(RadprobeError, match="allow_missing: true"):
        montgomery.samples(layout, ENTRY, False)
    facts = montgomery.samples(layout, ENTRY, True).facts
    assert (facts["partial"], facts["n_listed"], facts["n_absent"]) == (True, 138, 133)


def test_files_of_macos_are_no_films(download):
    (download / "MontgomerySet/CXR_png/._MCUCXR_0001_0.png").write_bytes(b"x")
    assert len(montgomery.samples(montgomery.locate(ENTRY, download), ENTRY, False).table) == 5


def test_the_phantom_is_the_same_twice_and_differs_by_seed(tmp_path):
    def bytes_of(name, seed):
        phantoms.generate(tmp_path / name, ENTRY, 2, seed)
        return {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}

    assert bytes_of("a", 0) == bytes_of("b", 0)
    assert bytes_of("a", 0) != bytes_of("c", 1)


def test_phantom_films_vary_in_size_and_show_lungs_darker_than_the_rest(download):
    root = download / "MontgomerySet"
    sizes = set()
    for film in sorted((root / "CXR_png").iterdir()):
        image = np.asarray(Image.open(film)).astype(float)
        left, right = (
            np.asarray(Image.open(root / f"ManualMask/{side}Mask" / film.name)) for side in ("left", "right")
        )
        sizes.add(image.shape)
        assert left.dtype == right.dtype == bool
        assert left.shape == right.shape == image.shape
        assert not (left & right).any()
        assert min(left.mean(), right.mean()) > 0.05
        assert image[left | right].mean() < image.mean() - 10
        assert np.argwhere(left)[:, 1].mean() > np.argwhere(right)[:, 1].mean()  # as one looks at the patient
    assert len(sizes) > 1
    assert any(height != width for height, width in sizes)


@REAL
@pytest.mark.real
def test_the_real_copy_has_138_films():
    layout = montgomery.locate(ENTRY, Path(os.environ["RADPROBE_REAL_DATA"]) / "montgomery")
    index = montgomery.samples(layout, ENTRY, False)
    assert len(index.table) == ENTRY.published.samples == 138
    assert index.facts["partial"] is False
