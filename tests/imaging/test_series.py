import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imaging.dicom_files import SECRETS, write, write_series
from scipy.spatial.transform import Rotation

from radprobe.files import RadprobeError
from radprobe.imaging import reading
from radprobe.imaging.volumes import same_grid

quick = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
VOLUME = np.random.default_rng(0).integers(-1000, 1500, (9, 7, 5)).astype(np.int16)
PLAIN = np.diag([-0.7, -0.8, 2.5, 1])


def affine_of(seed, spacing=(0.7, 0.8, 2.5)):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() * spacing
    affine[:3, 3] = np.random.default_rng(seed).uniform(-200, 200, 3)
    return affine


@quick
@given(st.integers(0, 10_000))
def test_a_series_is_the_volume_it_was_written_from(tmp_path_factory, seed):
    folder, affine = tmp_path_factory.mktemp("series"), affine_of(seed)
    write_series(folder, VOLUME, affine, seed=seed)
    nibabel.save(nibabel.Nifti1Image(VOLUME, affine), folder.with_suffix(".nii.gz"))
    series, expected = reading.read_volume(folder), reading.read_volume(folder.with_suffix(".nii.gz"))
    np.testing.assert_array_equal(series.values, expected.values)
    np.testing.assert_allclose(series.affine, expected.affine, atol=1e-4)
    np.testing.assert_allclose(series.spacing, expected.spacing, rtol=1e-5)
    header = reading.probe(folder)
    assert (header.shape, header.dtype, header.spacing) == (VOLUME.shape, np.int16, series.spacing)
    np.testing.assert_array_equal(header.affine, series.affine)


def test_a_left_handed_stack_is_read_from_the_other_end_and_its_mask_follows(tmp_path):
    affine = affine_of(3)
    affine[:3, 2] *= -1  # written from the far end: slices are sorted along rows x columns
    write_series(tmp_path / "ct", VOLUME, affine)
    series = reading.read_volume(tmp_path / "ct")
    np.testing.assert_array_equal(series.values, VOLUME[:, :, ::-1])
    mask = (VOLUME > 0).astype(np.uint8)
    brought = same_grid(tmp_path / "mask.nii", mask, affine, series.values.shape, series.affine)
    np.testing.assert_array_equal(brought, series.values > 0)


def test_each_slice_is_rescaled_by_its_own_tags(tmp_path):
    write_series(tmp_path / "ct", VOLUME, PLAIN)
    path = sorted((tmp_path / "ct").iterdir())[2]

    data = pydicom.dcmread(path)
    stored = data.pixel_array
    data.RescaleIntercept, data.PixelData = -24, (stored - 1000).astype(np.int16).tobytes()
    data.save_as(path)
    np.testing.assert_array_equal(reading.read_volume(tmp_path / "ct").values, VOLUME)


def test_other_files_in_the_folder_do_no_harm(tmp_path):
    folder = write_series(tmp_path / "ct", VOLUME, PLAIN)
    (folder / "README.txt").write_text("CT")
    (folder / "._IM0001.dcm").write_bytes(b"mac")
    assert reading.probe(folder).shape == VOLUME.shape


def test_positions_that_were_rounded_are_regular_enough(tmp_path):
    folder = write_series(tmp_path / "ct", VOLUME, np.diag([-0.7, -0.7, 0.625, 1]))

    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.ImagePositionPatient = [f"{float(x):.1f}" for x in data.ImagePositionPatient]
        data.save_as(path)
    assert reading.probe(folder).shape == VOLUME.shape


# --- bad input --------------------------------------------------------------------------------------------------------


def refused(folder, match):
    for read in (reading.probe, reading.read_volume):
        with pytest.raises(RadprobeError, match=match) as error:
            read(folder)
        assert not any(secret in str(error.value) for secret in (*SECRETS.values(), "1.2.826"))


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_missing_slice_is_named_by_its_neighbours(tmp_path, missing):
    folder = write_series(tmp_path / "ct", VOLUME, PLAIN, drop=(missing,))
    refused(folder, r"ct: misses a slice.*5 mm between IM\d+\.dcm and IM\d+\.dcm, usually 2\.5 mm")


def test_two_series_in_a_folder_are_counted_and_not_mixed(tmp_path):
    folder = write_series(tmp_path / "ct", VOLUME, PLAIN)
    write(folder / "scout.dcm", VOLUME[:, :, 0].T.copy(), SeriesInstanceUID="1.2.3", **placed(900))
    refused(folder, r"holds 2 series \(5 files, as IM0000\.dcm; 1 files, as scout\.dcm\)")


def placed(height, **tags):
    place = {"ImagePositionPatient": [0, 0, height], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    return place | {"PixelSpacing": [0.8, 0.7], "SliceThickness": 2.5} | tags


def stack(folder, changes=(), n=4, **tags):
    """Slices 2.5 mm apart, of which `changes` {k: (shape, tags)} are otherwise."""
    folder.mkdir()
    for k in range(n):
        shape, other = dict(changes).get(k, ((7, 9), {}))
        write(folder / f"{k}.dcm", np.full(shape, k, np.int16), SeriesInstanceUID="1.2.3", **(placed(2.5 * k) | other))
    return folder


def test_mixed_sizes_spacings_and_directions_are_refused_by_name(tmp_path):
    turned = {"ImageOrientationPatient": [0, 1, 0, 0, 0, 1]}
    assert reading.probe(stack(tmp_path / "sound")).shape == (9, 7, 4)
    refused(stack(tmp_path / "a", {2: ((8, 9), {})}), r"several sizes: 0\.dcm and 2\.dcm")
    refused(stack(tmp_path / "b", {2: ((7, 9), {"PixelSpacing": [0.9, 0.7]})}), r"several pixel spacings")
    refused(stack(tmp_path / "c", {2: ((7, 9), turned)}), r"several directions")


def test_slices_whose_distances_drift_are_refused(tmp_path):
    drift = {k: ((7, 9), {"ImagePositionPatient": [0, 0, 2.5 * k + 0.005 * k * k]}) for k in range(40)}
    refused(stack(tmp_path / "a", drift, n=40), "distances drift")


def test_two_volumes_in_one_series_a_tilt_and_no_geometry_are_refused(tmp_path):
    twice = {2: ((7, 9), {"ImagePositionPatient": [0, 0, 2.5]})}
    refused(stack(tmp_path / "a", twice), r"two slices at one place: 1\.dcm and 2\.dcm")
    tilt = {k: ((7, 9), {"ImagePositionPatient": [0, k, 2.5 * k]}) for k in range(4)}
    refused(stack(tmp_path / "b", tilt), "tilted")
    skewed = {"ImageOrientationPatient": [1, 0, 0, 0.5, 0.5, 0]}
    refused(stack(tmp_path / "c", dict.fromkeys(range(4), ((7, 9), skewed))), "not at right angles")
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        refused(stack(tmp_path / name, {1: ((7, 9), {name: None})}), r"1\.dcm: lacks a place")
    refused(stack(tmp_path / "zero", {1: ((7, 9), {"PixelSpacing": [0, 0]})}), r"1\.dcm: lacks a place")


def test_one_slice_is_as_thick_as_it_says(tmp_path):
    assert reading.probe(stack(tmp_path / "one", n=1)).spacing == (0.7, 0.8, 2.5)
    refused(stack(tmp_path / "unsaid", {0: ((7, 9), {"SliceThickness": None})}, n=1), "how thick")


def test_a_folder_without_dicom_and_a_report_among_slices_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "holds no DICOM file")
    folder = stack(tmp_path / "ct")
    write(folder / "report.dcm", np.zeros((7, 9), np.int16), without=("PixelData",))
    refused(folder, r"report\.dcm: has no pixel data")
    (folder / "report.dcm").write_bytes(b"")
    refused(folder, r"report\.dcm")
