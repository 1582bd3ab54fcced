import gzip
import struct
import tracemalloc

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radprobe.files import RadprobeError
from radprobe.imaging import nifti, reading

TYPES = ["u1", "i1", "<i2", ">i2", "<u2", "<i4", ">f4", "<f8", "<u4", "<i8"]
OBLIQUE = np.array([[1.9, 0.3, 0, 5], [-0.2, 2.8, 0.4, -6], [0.1, -0.3, 3.9, 7], [0, 0, 0, 1]])
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(path, values, affine=OBLIQUE, slope=None, inter=None, kind=nibabel.Nifti1Image):
    image = kind(values, affine, dtype=values.dtype)
    image.header.set_data_dtype(values.dtype)
    if slope is not None:
        image.header.set_slope_inter(slope, inter)
    nibabel.save(image, path)
    if slope is not None:  # nibabel scales what it saves: write the stored values and the scaling as they are
        content = bytearray(path.read_bytes() if path.suffix != ".gz" else gzip.decompress(path.read_bytes()))
        struct.pack_into("<ff", content, 112, slope, inter)
        content[352:] = values.tobytes(order="F")
        path.write_bytes(gzip.compress(bytes(content)) if path.suffix == ".gz" else content)
    return path


@quick
@given(
    st.sampled_from(TYPES),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.sampled_from([nibabel.Nifti1Image, nibabel.Nifti2Image]),
    st.sampled_from(["nii", "nii.gz"]),
    st.integers(0, 99),
)
def test_values_affine_and_spacing_are_those_of_nibabel(tmp_path, dtype, shape, kind, suffix, seed):
    values = np.random.default_rng(seed).integers(0, 120, shape).astype(dtype)
    path = write(tmp_path / f"volume.{suffix}", values, kind=kind)
    read, expected = reading.read_volume(path), nibabel.load(path)
    assert read.values.dtype == (np.uint8 if dtype == "u1" else np.int16)
    np.testing.assert_array_equal(read.values, expected.get_fdata())
    np.testing.assert_array_equal(read.affine, expected.affine)
    np.testing.assert_allclose(read.spacing, nibabel.affines.voxel_sizes(expected.affine), rtol=1e-5)
    header = reading.probe(path)
    assert header == reading.Header(shape, read.values.dtype.type, read.spacing)
    np.testing.assert_array_equal(header.affine, expected.affine)


@quick
@given(st.sampled_from(["u1", "<i2", "<u2", "<f4"]), st.floats(-9, 9), st.floats(-1000, 1000), st.integers(0, 99))
def test_scaling_is_applied_and_rounded(tmp_path, dtype, slope, inter, seed):
    values = np.random.default_rng(seed).integers(0, 255, (5, 6, 7)).astype(dtype)
    values.flat[:2] = 0, 255
    slope = slope + np.copysign(1, slope)
    path = write(tmp_path / "volume.nii.gz", values, slope=slope, inter=inter)
    expected = nibabel.load(path).get_fdata()
    read = reading.read_volume(path).values
    assert read.dtype == reading.probe(path).dtype
    assert np.abs(read - expected).max() <= 0.5 + 1e-3  # ties fall to either side: float32 and float64 differ


def test_blocks_join_to_the_volume(tmp_path, monkeypatch):
    values = np.random.default_rng(0).integers(-900, 900, (7, 8, 9)).astype(np.float32)
    path = write(tmp_path / "volume.nii.gz", values)
    monkeypatch.setattr(nifti, "BLOCK", 50)
    np.testing.assert_array_equal(reading.read_volume(path).values, values)


def test_labels_are_read_whatever_their_type(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (7, 8, 9))
    for dtype in ("u1", "<i2", "<f4", "<f8", ">i4"):
        read = reading.read_labels(write(tmp_path / "mask.nii.gz", values.astype(dtype)))
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, values)
    scaled = write(tmp_path / "mask.nii.gz", (values > 99).astype(np.uint8) * 255, slope=1 / 255, inter=0)
    np.testing.assert_array_equal(reading.read_labels(scaled), values > 99)


def test_peak_memory_is_the_volume_and_a_block(tmp_path, monkeypatch):
    values = np.random.default_rng(0).integers(-900, 900, (256, 256, 100)).astype(np.int16)
    monkeypatch.setattr(nifti, "BLOCK", 100_000)
    for dtype, slope, path in (("<i2", None, "a.nii.gz"), ("<i2", 2.0, "b.nii.gz"), ("<f4", None, "c.nii")):
        path = write(tmp_path / path, values.astype(dtype), slope=slope, inter=None if slope is None else 1)
        tracemalloc.start()
        reading.read_volume(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < values.nbytes + 8e6, f"{path.name}: {peak / 1e6:.0f} MB for {values.nbytes / 1e6:.0f}"


# --- bad input --------------------------------------------------------------------------------------------------------

VALUES = np.random.default_rng(0).integers(-900, 900, (20, 30, 40)).astype(np.int16)


def both_refuse(path, match):
    for read in (reading.probe, reading.read_volume):
        with pytest.raises(RadprobeError, match=match) as error:
            read(path)
        assert path.name in str(error.value)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("share", [0, 0.001, 0.02, 0.5, 0.9999])
def test_what_was_cut_off_is_found_by_the_header_check(tmp_path, suffix, share):
    whole = write(tmp_path / f"whole.{suffix}", VALUES).read_bytes()
    path = tmp_path / f"volume.{suffix}"
    path.write_bytes(whole[: int(len(whole) * share)])
    both_refuse(path, "cut off|no readable header|is empty")


def test_damage_in_the_middle_of_a_gz_is_found(tmp_path):
    path = write(tmp_path / "volume.nii.gz", VALUES)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(RadprobeError, match="damaged"):
        reading.read_volume(path)


@pytest.mark.parametrize("behind", [b"trailing garbage", bytes(700)])
def test_bytes_behind_the_end_of_a_gz_do_no_harm(tmp_path, behind):
    path = write(tmp_path / "volume.nii.gz", VALUES)
    path.write_bytes(path.read_bytes() + behind)
    assert reading.probe(path).shape == VALUES.shape
    np.testing.assert_array_equal(reading.read_volume(path).values, VALUES)


def test_a_gz_of_several_members_is_read(tmp_path):
    content = write(tmp_path / "volume.nii", VALUES).read_bytes()
    path = tmp_path / "volume.nii.gz"
    path.write_bytes(b"".join(gzip.compress(content[at : at + 9999]) for at in range(0, len(content), 9999)))
    assert reading.probe(path).shape == VALUES.shape
    np.testing.assert_array_equal(reading.read_volume(path).values, VALUES)


@pytest.mark.parametrize("step", [0, np.nan, np.inf])
def test_a_spacing_that_is_none_is_refused(tmp_path, step):
    path = write(tmp_path / "volume.nii", VALUES)
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, 84, step)
    path.write_bytes(content)
    both_refuse(path, "has a spacing of")


def test_a_singular_affine_is_refused(tmp_path):
    path = write(tmp_path / "volume.nii", VALUES, np.diag([1.0, 1, 1, 1]))
    content = bytearray(path.read_bytes())
    struct.pack_into("<12f", content, 280, *np.tile([1.0, 1, 1, 0], 3))
    path.write_bytes(content)
    both_refuse(path, "singular affine")


def test_several_volumes_in_a_file_are_refused_but_not_one_with_a_fourth_axis(tmp_path):
    both_refuse(write(tmp_path / "many.nii.gz", np.stack([VALUES, VALUES], -1)), "not one volume")
    both_refuse(write(tmp_path / "flat.nii.gz", VALUES[..., 0]), "not one volume")
    one = write(tmp_path / "one.nii.gz", VALUES[..., None])
    assert reading.probe(one).shape == VALUES.shape
    np.testing.assert_array_equal(reading.read_volume(one).values, VALUES)


def test_values_that_are_no_grey_values_are_refused(tmp_path):
    write(path := tmp_path / "complex.nii", np.ones((3, 3, 3), np.complex64))
    both_refuse(path, "holds complex64, which are no grey values")
    write(path := tmp_path / "scaled.nii", np.ones((3, 3, 3), np.int16))
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, 112, np.inf)
    path.write_bytes(content)
    both_refuse(path, "infinite scale")


def test_a_volume_larger_than_any_is_refused_before_room_is_made_for_it(tmp_path):
    write(path := tmp_path / "bomb.nii.gz", np.zeros((2, 2, 2), np.uint8))
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<3h", content, 42, 30000, 30000, 30000)
    path.write_bytes(gzip.compress(bytes(content)))
    for read in (reading.probe, reading.read_volume, reading.read_labels):
        with pytest.raises(RadprobeError, match="30000 x 30000 x 30000: 1 to 750,000,000 values can be read"):
            read(path)


def test_nan_and_infinite_values_are_counted(tmp_path):
    values = VALUES.astype(np.float32)
    values[1, 2, 3:6], values[4, 5, 6] = np.nan, -np.inf
    with pytest.raises(RadprobeError, match="3 NaN and 1 infinite"):
        reading.read_volume(write(tmp_path / "volume.nii.gz", values))


@pytest.mark.parametrize(("value", "dtype"), [(40_000, "<u2"), (-40_000, "<i4"), (1e9, "<f4")])
def test_values_beyond_16_bits_are_refused(tmp_path, value, dtype):
    values = np.zeros((3, 4, 5), dtype)
    values[1, 1, 1] = value
    with pytest.raises(RadprobeError, match="beyond 16 bits"):
        reading.read_volume(write(tmp_path / "volume.nii", values))


def test_a_volume_scaled_to_one_is_refused_and_not_rounded_to_nothing(tmp_path):
    values = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    with pytest.raises(RadprobeError, match="fractions"):
        reading.read_volume(write(tmp_path / "volume.nii", values))


@pytest.mark.parametrize("largest", [0.4, 1, 60, 1e6])
def test_values_without_a_unit_are_brought_to_16_bits_and_keep_their_proportions(tmp_path, largest):
    values = (np.random.default_rng(0).random((5, 6, 7)) * largest).astype(np.float32)
    read = reading.read_volume(write(tmp_path / "volume.nii.gz", values), relative=True).values
    assert (read.dtype, read.max()) == (np.int16, 32767)
    np.testing.assert_allclose(read / 32767, values / values.max(), atol=1e-4)
    whole = np.rint(values * 9000 / largest)
    np.testing.assert_array_equal(reading.read_volume(write(tmp_path / "w.nii", whole), relative=True).values, whole)
