"""Damaged and mistaken files of every format: a result, or one RadprobeError that names the file. Never a traceback."""

import gzip

import h5py
import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from imaging.dicom_files import write
from PIL import Image

from radprobe.files import RadprobeError
from radprobe.imaging import reading

PIXELS = np.random.default_rng(0).integers(0, 4096, (12, 20)).astype(np.int16)
GREY = (PIXELS // 16).astype(np.uint8)
NAMES = ["png", "jpg", "tif", "bmp", "dcm", "mat", "nii", "nii.gz"]


def written(folder, name):
    path = folder / f"sound.{name}"
    if name == "dcm":
        write(path, PIXELS, RescaleSlope=1, RescaleIntercept=-1024, PixelSpacing=[0.5, 0.5])
    elif name == "mat":
        with h5py.File(path, "w", userblock_size=512) as file:
            file["cjdata/image"] = PIXELS
    elif name.startswith("nii"):
        nibabel.save(nibabel.Nifti1Image(PIXELS[..., None], np.diag([2.0, 3, 4, 1])), path)
    else:
        Image.fromarray(GREY).save(path)
    return path.read_bytes()


def outcome(read, path):
    """What was read, or the error."""
    try:
        found = read(path)
    except RadprobeError as error:
        found = error
    assert not isinstance(found, RadprobeError) or path.name in str(found)
    return found


@pytest.mark.survives("input", "files with a changed byte or a cut", "read, or refused by name")
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1), value=st.integers(0, 255), cut=st.floats(0, 1), head=st.booleans())
@example(at=0.5733553912922199, value=0, cut=1.0, head=False)  # of DICOM: how the pixels are represented
@example(at=0.236328125, value=0, cut=1.0, head=False)  # of DICOM: the kind of value of the transfer syntax
@pytest.mark.filterwarnings("ignore")
def test_damage_anywhere_gives_a_result_or_one_clear_error(tmp_path, name, at, value, cut, head):
    content = bytearray(written(tmp_path, name))
    span = min(len(content), 600) if head else len(content)
    content[int(at * (span - 1))] = value
    path = tmp_path / f"damaged.{name}"
    path.write_bytes(content[: int(len(content) * min(1, 1.5 * cut))])
    header = outcome(reading.probe, path)
    read = outcome(reading.read_volume if name.startswith("nii") else reading.read_grey, path)
    outcome(reading.read_labels, path)
    if isinstance(header, RadprobeError):
        return
    values = read.values if name.startswith("nii") and not isinstance(read, RadprobeError) else read
    if not isinstance(values, RadprobeError):
        assert (header.shape, header.dtype) == (values.shape, values.dtype)


@pytest.mark.parametrize("name", [*NAMES, "txt", "dicom", "jpeg"])
@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"this is no image\n" * 100, gzip.compress(b"neither" * 100, mtime=0)],  # the time would be in the name
)
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, name, content):
    path = tmp_path / f"file.{name}"
    path.write_bytes(content)
    for read in (reading.probe, reading.read_volume, reading.read_grey, reading.read_labels):
        assert isinstance(outcome(read, path), RadprobeError)


def test_what_is_missing_is_said_to_be_missing(tmp_path):
    for name in NAMES:
        for read in (reading.probe, reading.read_labels):
            with pytest.raises(RadprobeError, match="is missing"):
                read(tmp_path / f"gone.{name}")
