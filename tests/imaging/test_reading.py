import nibabel
import numpy as np
import pytest
from PIL import Image

from radprobe.files import RadprobeError
from radprobe.imaging import reading

GREY = np.random.default_rng(0).integers(0, 256, (13, 17), dtype=np.uint8)


def save(path, array, mode=None):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_grey_pixels_survive_every_mode_that_stores_them(tmp_path, mode):
    path = save(tmp_path / "film.png", GREY, mode)
    assert reading.probe(path) == reading.Header((13, 17), np.uint8)
    np.testing.assert_array_equal(reading.read_grey(path), GREY)


def test_transparency_is_ignored(tmp_path):
    rgba = np.dstack([GREY, GREY, GREY, np.zeros_like(GREY)])
    np.testing.assert_array_equal(reading.read_grey(save(tmp_path / "film.png", rgba)), GREY)


def test_one_bit_masks_become_0_and_255(tmp_path):
    path = save(tmp_path / "mask.png", np.where(GREY > 99, 255, 0).astype(np.uint8), "1")
    np.testing.assert_array_equal(reading.read_grey(path), np.where(GREY > 99, 255, 0))


def test_a_palette_gives_its_colours_and_not_its_indices(tmp_path):
    image = Image.fromarray((GREY > 99).astype(np.uint8), "P")
    image.putpalette([200, 200, 200, 10, 10, 10])
    image.save(tmp_path / "film.png")
    np.testing.assert_array_equal(reading.read_grey(tmp_path / "film.png"), np.where(GREY > 99, 10, 200))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_all_16_bit_values_are_kept_apart_and_in_order(tmp_path, suffix):
    values = np.linspace(0, 65535, 13 * 17).astype(np.uint16).reshape(13, 17)
    path = save(tmp_path / f"film.{suffix}", values)
    read = reading.read_grey(path)
    assert reading.probe(path).dtype == read.dtype == np.int16
    np.testing.assert_array_equal(read.astype(int) - read.min(), values)


def test_jpeg_is_read_nearly_as_written(tmp_path):
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "film.jpg", quality=95)
    assert reading.probe(tmp_path / "film.jpg").shape == (64, 64)
    assert np.abs(reading.read_grey(tmp_path / "film.jpg").astype(int) - smooth).max() <= 3


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.99])
def test_the_header_check_finds_what_was_cut_off(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8)
    whole = save(tmp_path / f"whole.{suffix}", noise).read_bytes()
    path = tmp_path / f"film.{suffix}"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(RadprobeError, match=path.name):
        reading.probe(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RadprobeError, match=r"gone\.png: is missing"):
        reading.probe(tmp_path / "gone.png")


def test_damage_in_the_middle_is_found_when_decoding(tmp_path):
    path = save(tmp_path / "film.png", np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 400] = bytes(400)
    path.write_bytes(content)
    with pytest.raises(RadprobeError, match="cannot be decoded"):
        reading.read_grey(path)


def test_volumes_come_in_canonical_orientation_with_scaling_and_spacing(tmp_path):
    values = np.random.default_rng(0).integers(-900, 900, (4, 5, 6)).astype(np.int16)
    flipped = nibabel.Nifti1Image(values, np.array([[0, -2.0, 0, 0], [3.0, 0, 0, 0], [0, 0, 1.5, 0], [0, 0, 0, 1]]))
    nibabel.save(flipped, tmp_path / "volume.nii.gz")
    read, affine, spacing = reading.read_volume(tmp_path / "volume.nii.gz")
    assert nibabel.aff2axcodes(affine) == ("R", "A", "S")
    np.testing.assert_array_equal(read, values.transpose(1, 0, 2)[::-1])
    assert spacing == (2.0, 3.0, 1.5)
    raw, *_ = reading.read_volume(tmp_path / "volume.nii.gz", canonical=False)
    np.testing.assert_array_equal(raw, values)
    assert reading.probe(tmp_path / "volume.nii.gz") == reading.Header((4, 5, 6), np.int16)


def test_axial_slices_are_seen_from_below_with_the_face_up(tmp_path):
    volume = np.zeros((4, 5, 3), np.uint8)
    volume[3, 4, 1] = 1  # patient's right, front
    assert np.argwhere(reading.axial(volume, 1)).tolist() == [[0, 0]]


def test_nan_in_a_volume_is_refused(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.full((2, 2, 2), np.nan, np.float32), np.eye(4)), tmp_path / "v.nii")
    with pytest.raises(RadprobeError, match="NaN"):
        reading.read_volume(tmp_path / "v.nii")
