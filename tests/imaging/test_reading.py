import struct
import zlib

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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_turned_as_its_exif_says(tmp_path, orientation):
    stored = np.add.outer(np.arange(40), 3 * np.arange(24)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "film.jpg", quality=100, exif=exif)
    turn = {1: "", 2: "fliplr", 3: "180", 4: "flipud", 5: "t", 6: "cw", 7: "anti-t", 8: "ccw"}[orientation]
    expected = {
        "": stored,
        "fliplr": stored[:, ::-1],
        "180": stored[::-1, ::-1],
        "flipud": stored[::-1],
        "t": stored.T,
        "cw": np.rot90(stored, -1),
        "anti-t": stored[::-1, ::-1].T,
        "ccw": np.rot90(stored),
    }[turn]
    assert reading.probe(tmp_path / "film.jpg").shape == expected.shape
    assert np.abs(reading.read_grey(tmp_path / "film.jpg").astype(int) - expected).max() <= 3


def test_a_tiff_of_one_page_is_read_and_one_of_two_is_refused(tmp_path):
    pages = [Image.fromarray(GREY), Image.fromarray(GREY)]
    pages[0].save(tmp_path / "one.tif")
    np.testing.assert_array_equal(reading.read_grey(tmp_path / "one.tif"), GREY)
    pages[0].save(tmp_path / "two.tif", save_all=True, append_images=pages[1:])
    for read in (reading.probe, reading.read_grey):
        with pytest.raises(RadprobeError, match=r"two\.tif: has 2 pages"):
            read(tmp_path / "two.tif")


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_tiff_that_was_cut_off_is_found_by_its_header(tmp_path, compression):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.tif", compression=compression)
    content = (tmp_path / "whole.tif").read_bytes()
    (tmp_path / "film.tif").write_bytes(content[: len(content) // 2])
    with pytest.raises(RadprobeError, match=r"film\.tif"):
        reading.probe(tmp_path / "film.tif")


def test_16_bit_tiff_with_white_as_zero_is_turned_to_black_as_zero(tmp_path):
    values = np.linspace(0, 65535, 13 * 17).astype(np.uint16).reshape(13, 17)
    Image.fromarray(values).save(tmp_path / "film.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "film.tif") as image:
        assert image.tag_v2[262] == 0
    np.testing.assert_array_equal(reading.read_grey(tmp_path / "film.tif").astype(int), 32767 - values.astype(int))


def test_floats_are_rounded_where_that_loses_nothing_to_see(tmp_path):
    values = np.linspace(-1000, 1000, 13 * 17).astype(np.float32).reshape(13, 17)
    Image.fromarray(values).save(tmp_path / "film.tif")
    np.testing.assert_array_equal(reading.read_grey(tmp_path / "film.tif"), np.rint(values))
    Image.fromarray(values / 1000).save(tmp_path / "unit.tif")
    with pytest.raises(RadprobeError, match="fractions"):
        reading.read_grey(tmp_path / "unit.tif")


# --- masks ------------------------------------------------------------------------------------------------------------

LABELS = np.random.default_rng(1).integers(0, 5, (13, 17), dtype=np.uint8)


def palette(path, indices):
    image = Image.fromarray(indices)
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    image.save(path)
    return path


def test_masks_come_as_stored_in_every_mode(tmp_path):
    rgba = np.dstack([LABELS, LABELS, LABELS, np.full_like(LABELS, 255)])
    written = {
        "grey.png": (LABELS, save(tmp_path / "grey.png", LABELS)),
        "rgb.png": (LABELS, save(tmp_path / "rgb.png", rgba[..., :3].copy())),
        "rgba.png": (LABELS, save(tmp_path / "rgba.png", rgba)),
        "palette.png": (LABELS, palette(tmp_path / "palette.png", LABELS)),
        "deep.png": (LABELS, save(tmp_path / "deep.png", LABELS.astype(np.uint16))),
        "float.tif": (LABELS, save(tmp_path / "float.tif", LABELS.astype(np.float32))),
        "white.png": ((LABELS > 2) * 255, save(tmp_path / "white.png", ((LABELS > 2) * 255).astype(np.uint8))),
        "bit.png": (LABELS > 2, save(tmp_path / "bit.png", ((LABELS > 2) * 255).astype(np.uint8), "1")),
    }
    for expected, path in written.values():
        read = reading.read_labels(path)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, expected, err_msg=path.name)


@pytest.mark.parametrize(("value", "shown"), [(2.5, "2.5"), (-1, "-1"), (256, "256"), (np.nan, "nan")])
@pytest.mark.parametrize("form", ["tif", "nii.gz"])
def test_what_is_no_label_is_refused_by_its_first_value(tmp_path, value, shown, form):
    values = LABELS.astype(np.float32)
    values[7, 3] = value
    path = tmp_path / f"mask.{form}"
    if form == "tif":
        Image.fromarray(values).save(path)
    else:
        nibabel.save(nibabel.Nifti1Image(values[..., None], np.eye(4)), path)
    with pytest.raises(RadprobeError, match=f"holds {shown}, which is no label"):
        reading.read_labels(path)


def test_a_coloured_mask_is_refused(tmp_path):
    colours = np.zeros((5, 5, 3), np.uint8)
    colours[2, 2] = (255, 0, 7)
    with pytest.raises(RadprobeError, match=r"\(255, 0, 7\)"):
        reading.read_labels(save(tmp_path / "mask.png", colours))


def test_images_and_volumes_are_not_taken_for_each_other(tmp_path):
    film = save(tmp_path / "film.png", GREY)
    volume = tmp_path / "volume.nii"
    nibabel.save(nibabel.Nifti1Image(LABELS[..., None], np.eye(4)), volume)
    assert (reading.is_volume(film), reading.is_volume(volume), reading.is_volume(tmp_path)) == (False, True, True)
    with pytest.raises(RadprobeError, match="is an image"):
        reading.read_volume(film)
    with pytest.raises(RadprobeError, match="is a volume"):
        reading.read_grey(volume)


def png(path, colour, depth, interlaced, n_bytes, width=20, height=12):
    """Write a PNG whose pixels are n_bytes, however many its header asks for, and all of its checksums true."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    palette = chunk(b"PLTE", bytes(range(3, 195))) if colour == 3 else b""
    pixels = chunk(b"IDAT", zlib.compress(bytes(n_bytes)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + palette + pixels + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize(
    ("colour", "depth", "interlaced", "needed"),
    [(0, 8, 0, 252), (0, 16, 0, 492), (2, 8, 0, 732), (3, 8, 0, 252), (0, 1, 0, 48), (0, 8, 1, 263)],
)
def test_a_png_with_fewer_pixels_than_it_says_is_not_taken_for_a_black_one(tmp_path, colour, depth, interlaced, needed):
    whole = reading.read_grey(png(tmp_path / "whole.png", colour, depth, interlaced, needed))
    assert whole.shape == (12, 20)
    for missing in (1, needed // 2, needed):
        with pytest.raises(RadprobeError, match=r"short\.png"):
            reading.read_grey(png(tmp_path / "short.png", colour, depth, interlaced, needed - missing))


def test_a_palette_that_is_missing_is_not_made_up(tmp_path):
    path = tmp_path / "film.png"
    Image.fromarray(np.arange(240, dtype=np.uint8).reshape(12, 20), "P").save(path)
    content = path.read_bytes()
    start = content.index(b"PLTE") - 4
    (length,) = struct.unpack(">I", content[start : start + 4])
    path.write_bytes(content[:start] + content[start + 12 + length :])
    with pytest.raises(RadprobeError, match="no palette"):
        reading.read_grey(path)
