"""Folders of images as people have them, generated."""

import nibabel
import numpy as np
import pandas as pd
from imaging.dicom_files import write, write_series
from PIL import Image

PATIENTS = 24
AFFINE = np.diag([-0.9, -0.9, 3.0, 1])


def texture(rng, ill, shape=(70, 60)):
    """Noise, with stripes where ill."""
    stripes = 300 * np.sin(np.arange(shape[1]) / 2)[None, :] * ill
    return (rng.normal(0, 40, shape) + stripes.reshape(1, -1, *[1] * (len(shape) - 2))).astype(np.int16)


def film(path, rng, ill):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(texture(rng, ill) / 4 + 128, 0, 255).astype(np.uint8)).save(path)


def table(root, rows, name="labels.csv"):
    pd.DataFrame(rows).to_csv(root / name, index=False)


def films(root, **changes):
    """Two films of each patient in one folder, and a CSV that is fit as it is."""
    rng, rows = np.random.default_rng(0), []
    for k in range(PATIENTS):
        for view in range(2):
            film(root / f"{k}_{view}.png", rng, k % 2)
            rows.append({"path": f"{k}_{view}.png", "patient": f"case{k}", "ill": k % 2, **changes})
    table(root, rows)
    return rows


def named_loosely(root):
    """Films in folders, and a CSV of their names without folder or suffix, words for labels, no patient."""
    rng, rows = np.random.default_rng(1), []
    for k in range(PATIENTS):
        film(root / f"site{k % 2}/IMG_{k:03d}.png", rng, k % 2)
        rows.append({"Image Index": f"IMG_{k:03d}", "Gender": "FM"[k % 2], "Ill": ("no", "Yes")[k % 2]})
    table(root, rows, "export.csv")


def several_findings(root):
    """Films and a CSV that writes several findings into one cell, as NIH does."""
    rng, rows = np.random.default_rng(2), []
    found = ("No Finding", "Mass", "Mass|Effusion", "Effusion")
    for k in range(PATIENTS):
        film(root / f"images/{k:03d}.png", rng, k % 2)
        rows.append({"Image Index": f"{k:03d}.png", "Finding Labels": found[k % 4], "Patient ID": k, "Patient Age": 40})
    table(root, rows)


def class_folders(root):
    """<part>/<class>/<patient>/<film>, with train and test only."""
    rng = np.random.default_rng(3)
    for k in range(PATIENTS):
        part = "test" if k % 3 == 2 else "train"
        for view in range(2):
            film(root / part / ("well", "ill")[k % 2] / f"P{k}" / f"{view}.png", rng, k % 2)


def dicom_films(root, **tags):
    """Single DICOM files without suffix, and a CSV."""
    rng, rows = np.random.default_rng(4), []
    root.mkdir(parents=True, exist_ok=True)
    for k in range(PATIENTS):
        for view in range(2):
            write(root / f"IM{k}_{view}", texture(rng, k % 2), **({"Modality": "DX"} | tags))
            rows.append({"file": f"IM{k}_{view}", "PatientID": f"case{k}", "diagnosis": ("well", "ill")[k % 2]})
    table(root, rows)


def series_of_patients(root, n=12):
    """A folder for each patient with one CT series, and a CSV of patients."""
    rng, rows = np.random.default_rng(5), []
    for k in range(n):
        (root / f"P{k}").mkdir(parents=True)
        write_series(root / f"P{k}/series", texture(rng, k % 2, (24, 22, 4)) - 900, AFFINE, seed=k)
        rows.append({"patient_id": f"P{k}", "label": k % 2})
    table(root, rows)


def nifti_pairs(root, n=12, shape=(20, 18, 5)):
    """imagesTr, labelsTr with the labels 1 and 2, and imagesTs, as nnU-Net has them."""
    rng = np.random.default_rng(6)
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (root / name).mkdir(parents=True)
    for k in range(n):
        labels = np.zeros(shape, np.uint8)
        labels[4:9, 4:9, 1:4], labels[10:14, 5:9, 1:4] = 1, 2
        volume = (rng.normal(100, 15, shape) + 200.0 * labels).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(volume, AFFINE), root / f"imagesTr/case_{k:02d}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(labels, AFFINE), root / f"labelsTr/case_{k:02d}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(volume, AFFINE), root / "imagesTs/case_99_0000.nii.gz")


def films_with_masks(root):
    """images/ and masks/ of the same names, masks 0 and 255."""
    rng = np.random.default_rng(7)
    for k in range(PATIENTS):
        film(root / f"images/{k}.png", rng, 1)
        mask = np.zeros((70, 60), np.uint8)
        mask[20:50, 15:40] = 255
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(root / f"masks/{k}_mask.png")


LAYOUTS = {
    each.__name__: each
    for each in (films, named_loosely, several_findings, class_folders, dicom_films, series_of_patients, nifti_pairs)
} | {"films_with_masks": films_with_masks}
