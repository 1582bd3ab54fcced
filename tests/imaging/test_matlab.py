import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
import scipy.io

from radprobe.files import RadprobeError
from radprobe.imaging import reading

IMAGE = np.random.default_rng(0).integers(0, 4000, (12, 20)).astype(np.int16)


def write(path, image=IMAGE, name="cjdata/image"):
    """As MATLAB does: a user block of 512 bytes with its name, columns first."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file[name] = image.T
    content = bytearray(path.read_bytes())
    content[:24] = b"MATLAB 7.3 MAT-file, Pla"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("dtype", ["i2", "u2", "f8", "u1"])
def test_rows_are_rows_again(tmp_path, dtype):
    image = (IMAGE % 256).astype(dtype)
    path = write(tmp_path / "1.mat", image)
    read = reading.read_grey(path)
    np.testing.assert_array_equal(read, image)
    assert reading.probe(path) == reading.Header(image.shape, read.dtype.type)


def test_a_version_5_file_says_what_to_do(tmp_path):
    scipy.io.savemat(tmp_path / "1.mat", {"cjdata": {"image": IMAGE}})
    for read in (reading.probe, reading.read_grey):
        with pytest.raises(RadprobeError, match=r"(?s)1\.mat: is a MATLAB v5 file.*-v7\.3"):
            read(tmp_path / "1.mat")


def test_what_a_link_names_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # whoever opens it waits for ever
    path = write(tmp_path / "1.mat", name="other")
    with h5py.File(path, "a") as file:
        file["cjdata"] = h5py.ExternalLink(str(tmp_path / "pipe"), "/cjdata")
    look = f"from radprobe.imaging import reading; from pathlib import Path; reading.probe(Path({str(path)!r}))"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60)
    assert "takes cjdata/image from elsewhere" in done.stderr


def test_other_content_and_damage_are_named(tmp_path):
    with pytest.raises(RadprobeError, match="holds no array cjdata/image"):
        reading.probe(write(tmp_path / "cvind.mat", name="cvind"))
    path = write(tmp_path / "2.mat")
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(RadprobeError, match=r"2\.mat: is damaged"):
        reading.probe(path)
    with pytest.raises(RadprobeError, match="no mask"):
        reading.read_labels(write(tmp_path / "3.mat"))


def elsewhere(file, secret):
    file.create_group("cjdata").create_dataset("image", (4, 4), "u1", external=[(str(secret), 0, 16)])


def linked(file, secret):
    file["cjdata/image"] = h5py.ExternalLink(str(secret), "/image")


def linked_group(file, secret):
    file["cjdata"] = h5py.ExternalLink(str(secret), "/")


@pytest.mark.survives("attack", "a MATLAB file that names another file of the machine as its image", "refused")
@pytest.mark.parametrize("write", [elsewhere, linked, linked_group])
def test_an_image_that_lies_in_another_file_is_refused(tmp_path, write):
    with h5py.File(tmp_path / "secret", "w") as file:
        file["image"] = np.ones((4, 4), np.uint8)
    with h5py.File(tmp_path / "film.mat", "w") as file:
        write(file, tmp_path / "secret")
    for read in (reading.probe, reading.read_grey):
        with pytest.raises(RadprobeError, match=r"from (elsewhere|another file)"):
            read(tmp_path / "film.mat")
