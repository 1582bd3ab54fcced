"""DICOM files as tests need them, written by pydicom."""

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SECRETS = {"PatientName": "Doe^Jane", "PatientID": "4711-XYZ", "PatientBirthDate": "19700203"}


def data_set(pixels, **tags):
    """A data set of stored pixels [H, W], signed or unsigned as they are, that names a patient."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8 * pixels.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    data.Modality = "CT"
    for name, value in (SECRETS | tags).items():
        setattr(data, name, value)
    return data


def write(path, pixels, without=(), **tags):
    data = data_set(pixels, **tags)
    for name in without:
        delattr(data, name)
    data.save_as(path, enforce_file_format=True)
    return path


def write_series(folder, volume, affine, slope=1.0, intercept=-1024.0, seed=0, drop=(), **tags):
    """Write volume [X, Y, Z] (HU) of voxel-to-RAS `affine` as one file per slice, names in random order."""
    folder.mkdir(exist_ok=True)
    lps = LPS_TO_RAS @ affine
    steps = np.linalg.norm(lps[:3, :3], axis=0)
    cosines = [*(lps[:3, 0] / steps[0]), *(lps[:3, 1] / steps[1])]
    names = np.random.default_rng(seed).permutation(volume.shape[2])
    fixed = {"SeriesInstanceUID": generate_uid(), "PixelSpacing": _text(steps[1], steps[0])}
    fixed |= {"ImageOrientationPatient": _text(*cosines), "SliceThickness": _text(steps[2])[0]}
    for k in set(range(volume.shape[2])) - set(drop):
        stored = np.rint((volume[:, :, k].T.astype(float) - intercept) / slope).astype(np.int16)
        place = {"ImagePositionPatient": _text(*(lps @ [0, 0, k, 1])[:3])}
        rescale = {"RescaleSlope": slope, "RescaleIntercept": intercept}
        write(folder / f"IM{names[k]:04d}.dcm", stored, **(fixed | place | rescale | tags))
    return folder


def _text(*numbers):
    return [f"{number:.10f}"[:16] for number in numbers]  # a DICOM decimal string has at most 16 characters
