"""Generated raw downloads of Brain tumours, in its official layout."""

from pathlib import Path

import numpy as np

from radprobe.catalog import RawEntry
from radprobe.datasets.brain_tumor import CLASSES
from radprobe.phantoms import anatomy, scans

PER_ARCHIVE = 766
HEADER = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Thu Jan  1 00:00:00 1970 HDF5 schema 1.00 ."
SMALL_SHARE = 0.1  # slices of half the side; the official ones are of 512 px, some of 256


def generate(folder: Path, entry: RawEntry, patients: int, seed: int) -> None:
    """Write generated folders brainTumorDataPublic_1-766 ... with N.mat of 256 px or 128 px, 3 to 6 slices a patient.

    MATLAB v7.3: HDF5 behind a header of 512 bytes, arrays transposed, characters as uint16. The tumour's place and
    texture tell its class; patients' ids are numbers or have letters and a slash.
    """
    number = 0
    for count in range(patients):
        rng = np.random.default_rng([seed, count])
        who = scans.patient(rng)
        label = 1 + count % 3
        patient = f"MR{count:04d}/{label}" if count % 7 == 6 else f"{100360 + 37 * count}"
        for _ in range(int(rng.integers(3, 7))):
            number += 1
            side = 128 if rng.random() < SMALL_SHARE else 256
            image, tumour = scans.brain(who, CLASSES[label], (side, side), rng)
            write_mat(_phantom_path(folder, number), label, patient, image, tumour)
    (folder / "brainTumorDataPublic_1-766" / "._1.mat").write_bytes(bytes(16))
    (folder / "cvind.mat").write_bytes(HEADER.ljust(512))
    anatomy.mark(folder, patients, seed)


def _phantom_path(folder: Path, number: int) -> Path:
    first = (number - 1) // PER_ARCHIVE * PER_ARCHIVE + 1
    path = folder / f"brainTumorDataPublic_{first}-{first + PER_ARCHIVE - 1}" / f"{number}.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_mat(path: Path, label: int, patient: str, image: np.ndarray, tumour: np.ndarray) -> None:
    """Write a slice and its tumour mask as a MATLAB v7.3 file, arrays transposed as MATLAB stores them."""
    import h5py

    y, x = np.nonzero(tumour)
    border = np.array([[x.min(), y.min()], [x.max(), y.min()], [x.max(), y.max()], [x.min(), y.max()]], float)
    fields = {
        "PID": (np.array([[ord(letter)] for letter in patient], np.uint16), b"char"),
        "image": (image.T, b"int16"),
        "label": (np.array([[label]], float), b"double"),
        "tumorBorder": (border.reshape(1, -1), b"double"),
        "tumorMask": (tumour.T.astype(np.uint8), b"logical"),
    }
    with h5py.File(path, "w", userblock_size=512) as content:
        record = content.create_group("cjdata")
        record.attrs["MATLAB_class"] = np.bytes_(b"struct")
        for name, (values, kind) in fields.items():
            squeezed = {"compression": 1} if values.size > 1000 else {}
            record.create_dataset(name, data=values, track_times=False, **squeezed)
            record[name].attrs["MATLAB_class"] = np.bytes_(kind)
    with path.open("r+b") as handle:
        handle.write(HEADER.ljust(116) + bytes(8) + b"\x00\x02IM")  # version 2.0, little endian
