"""A folder of one's own, by one params entry, from files to scores and the page."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
import running
import yaml
from datasets import own_folders
from datasets.own_folders import texture
from imaging.dicom_files import SECRETS, write, write_series
from PIL import Image
from small_params import NO_CONTROLS
from webpage import Page

from radprobe.artifacts import Index, Pixels, Predictions, Scores, Truth
from radprobe.stages import report
from radprobe.study import Study

pytestmark = pytest.mark.slow
PATIENTS = 24


def params(root, embedding=None, choice=None, **folder):
    """Return a study of the folder root/mine."""
    return {
        "study": "own",
        "hub": False,
        "device": "cpu",
        "threads": 1,
        "paths": {"root": str(root)},
        "datasets": {"mine": {"raw": "mine", **(choice or {}), "folder": {"stored": 64, "size": 160, **folder}}},
        "backbones": ["test_vit"],
        "controls": NO_CONTROLS,
        "embed": {"precision": "fp32", **(embedding or {})},
        "probe": {"linear": {"epochs": 20}},
        "segment": {"linear": {"learning_rates": [0.01, 0.1], "epochs": 30}, "unet": None, "few_shot": None},
        "score": {"resamples": 200},
    }


def run(root, embedding=None, choice=None, **folder):
    """Run every step of a study of the folder root/mine; return the study."""
    study = Study(params(root, embedding, choice, **folder))
    for step in study.steps.values():
        running.run(study, step)
    report.run(study)
    return study


def macro(study, metric):
    table = Scores.load(study.step("score", "mine", "test_vit").folder).table
    chosen = table[(table["metric"] == metric) & (table["class"] == "macro") & (table["part"] == "test")]
    return chosen.set_index("protocol")["value"]


def written(root):
    """All bytes that the study wrote outside the raw folder."""
    inside = (path for name in ("work", "results", "reports") for path in (root / name).rglob("*") if path.is_file())
    return b"".join(path.read_bytes() for path in inside)


@pytest.mark.survives("attack", "DICOM tags that identify a patient, in a study", "in no byte of it")
def test_single_dicom_files_are_classified_and_name_nobody(tmp_path):
    rng, rows = np.random.default_rng(0), []
    (tmp_path / "mine").mkdir()
    for k in range(PATIENTS):
        for view in range(2):
            path = write(tmp_path / f"mine/{k}_{view}.dcm", texture(rng, k % 2, (70, 60)), RescaleIntercept=-100)
            rows.append({"path": path.name, "patient": f"case{k}", "ill": k % 2})
    ct = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))  # a real one, of a patient of its own
    ct.save_as(tmp_path / "mine/real.dcm")
    rows.append({"path": "real.dcm", "patient": "real", "ill": 0})
    pd.DataFrame(rows).to_csv(tmp_path / "mine/labels.csv", index=False)
    study = run(tmp_path, task="binary", classes=["ill"], intensity={"kind": "window", "low": -500, "high": 500})
    assert macro(study, "auroc")["linear"] > 0.8
    index = Index.load(study.step("prepare", "mine").folder)
    pixels = Pixels.load(study.step("prepare", "mine").folder)
    real = index.table.index[index.table["patient_id"] == "real"][0]
    native = pydicom.pixels.apply_modality_lut(ct.pixel_array, ct)
    assert tuple(pixels.shapes[real]) == native.shape
    assert abs(float(pixels.images[real].mean()) - native.mean()) < 3
    everything = written(tmp_path)
    for secret in (*SECRETS.values(), str(ct.PatientName), str(ct.PatientID), str(ct.StudyInstanceUID)):
        assert secret.encode() not in everything


def test_dicom_series_with_nifti_masks_are_segmented_on_the_grid_of_the_series(tmp_path):
    rng, rows = np.random.default_rng(1), []
    (tmp_path / "mine").mkdir()
    truth = {}
    for k in range(12):
        shape = (28, 24, 9)
        labels = np.zeros(shape, np.uint8)
        x, y = rng.integers(3, 10, 2)
        labels[x : x + 12, y : y + 11, 2:7] = 1
        volume = (rng.normal(-50, 15, shape) + 400.0 * labels).astype(np.int16)
        affine = np.diag([-0.9, -0.9, 3.0, 1])
        write_series(tmp_path / f"mine/series{k}", volume, affine, seed=k)
        mask = nibabel.Nifti1Image(labels, affine)
        if k % 2:  # as converters write them, turned to other axes
            mask = nibabel.as_closest_canonical(mask)
        nibabel.save(mask, tmp_path / f"mine/mask{k}.nii.gz")
        rows.append({"path": f"series{k}", "patient": f"case{k}", "mask": f"mask{k}.nii.gz"})
        truth[k] = labels
    pd.DataFrame(rows).to_csv(tmp_path / "mine/labels.csv", index=False)
    study = run(tmp_path, task="segmentation", classes=["lesion"], modality="CT", size=320)
    stored = Truth.load(study.step("prepare", "mine").folder).maps
    table = Index.load(study.step("prepare", "mine").folder).table
    for k, labels in truth.items():
        (case,) = table.loc[table["patient_id"] == f"case{k}", "volume_id"].unique()
        np.testing.assert_array_equal(stored[case], labels)
    found = Predictions.load(study.step("segment", "mine", "test_vit").folder).maps["linear-decoder"]
    assert all(found[case].shape == stored[case].shape for case in found)
    assert macro(study, "dsc")["linear-decoder"] > 0.5  # of random features


def test_nifti_volumes_are_classified_by_patient_with_the_split_that_the_table_gives(tmp_path):
    rng, rows = np.random.default_rng(2), []
    (tmp_path / "mine").mkdir()
    parts = ("train", "training", "valid", "test")
    for k in range(PATIENTS):
        volume = texture(rng, k // 4 % 2, (30, 26, 5))
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([1, 1, 4, 1])), tmp_path / f"mine/v{k}.nii.gz")
        rows.append({"path": f"v{k}.nii.gz", "patient": k, "label": ("well", "ill")[k // 4 % 2], "part": parts[k % 4]})
    pd.DataFrame(rows).to_csv(tmp_path / "mine/labels.csv", index=False, encoding="utf-8-sig", lineterminator="\r\n")
    study = run(tmp_path, task="multiclass", classes=["well", "ill"], split="part")
    predictions = Predictions.load(study.step("probe", "mine", "test_vit").folder).table
    test = predictions[(predictions["part"] == "test") & (predictions["protocol"] == "linear")]
    assert sorted(test["patient_id"].astype(int)) == [k for k in range(PATIENTS) if k % 4 == 3]
    assert macro(study, "auroc")["linear"] > 0.8
    facts = json.loads((study.step("prepare", "mine").folder / "pixels.json").read_text())["facts"]
    assert facts["orientations"] == {"RAS": PATIENTS}
    assert (study.path("reports") / "explorer.html").is_file()


def folded(root, make, **folder):
    """Run a study in five folds of a generated folder of 24 patients; return the study and the words of its pages."""
    make(root / "mine")
    study = run(root, choice={"split": {"folds": 5}}, **folder)
    pages = (study.path("reports")).rglob("*.html")
    return study, {path.name: Page(path.read_text(encoding="utf-8")).words for path in pages}


def test_a_small_folder_of_films_is_cross_validated(tmp_path):
    study, pages = folded(tmp_path, own_folders.films, task="binary", classes=["ill"])
    assert macro(study, "auroc")["linear"] > 0.8
    scores = Scores.load(study.step("score", "mine", "test_vit").folder).table
    tests = scores[(scores["part"] == "test") & (scores["metric"] == "auroc") & (scores["class"] == "macro")]
    assert set(tests["n_patients"]) == {PATIENTS}
    assert not scores["protocol"].str.startswith("few-shot").any()
    predictions = Predictions.load(study.step("probe", "mine", "test_vit").folder)
    of_patient = predictions.rows("linear", "test").groupby("patient_id")["fold"]
    assert (of_patient.nunique() == 1).all()
    for name in ("explorer.html", "linear.html"):
        assert "Intervals are conditional on these 5 fits" in pages[name], name
    chosen = predictions.facts["protocols"]["logistic"]["folds"]
    assert all(f"{each['chosen']['c']:.4g}" in pages["logistic.html"] for each in chosen)


def test_a_small_folder_of_masks_is_cross_validated(tmp_path):
    def make(root):
        own_folders.films_with_masks(root)
        names = {k: {"path": f"images/{k}.png", "mask": f"masks/{k}_mask.png"} for k in range(PATIENTS)}
        own_folders.table(root, [{**paths, "patient": f"case{k}"} for k, paths in names.items()])

    study, pages = folded(tmp_path, make, task="segmentation", classes=["lung"], mask="mask")
    scored = Scores.load(study.step("score", "mine", "test_vit").folder)
    cases = scored.cases[(scored.cases["part"] == "test") & (scored.cases["metric"] == "dsc")]
    assert set(cases["patient_id"]) == {f"case{k}" for k in range(PATIENTS)}
    assert not cases.duplicated(["protocol", "class", "case_id"]).any()
    assert 0 < macro(study, "dsc")["linear-decoder"] <= 1
    assert "Intervals are conditional on these 5 fits" in pages["linear-decoder.html"]


@pytest.mark.survives("bug", "another order of files, rows and shards", "the same scores, byte for byte")
def test_neither_the_order_of_files_and_rows_nor_the_size_of_shards_changes_a_score(tmp_path):
    written = []
    for name, step, shard in (("a", 1, 256), ("b", -1, 7)):
        rng, rows = np.random.default_rng(3), []
        films = {f"{k}_{view}.png": texture(rng, k % 2, (40, 50)) for k in range(PATIENTS) for view in range(2)}
        (tmp_path / name / "mine").mkdir(parents=True)
        for path in list(films)[::step]:
            values = np.clip(films[path] / 4 + 128, 0, 255).astype(np.uint8)
            Image.fromarray(values).save(tmp_path / name / "mine" / path)
            patient = int(path.split("_")[0])
            rows.append({"path": path, "patient": f"case{patient}", "ill": patient % 2})
        pd.DataFrame(rows).to_csv(tmp_path / name / "mine/labels.csv", index=False)
        study = run(tmp_path / name, {"shard_rows": shard}, task="binary", classes=["ill"])
        predictions = study.step("probe", "mine", "test_vit").folder
        scores = Scores.load(study.step("score", "mine", "test_vit").folder)
        files = ("predictions.parquet", "few_shot.parquet", "few_shot.npy")
        written.append(([(predictions / file).read_bytes() for file in files], scores))
    (one, scored), (other, again) = written
    assert one == other
    for table in (scored.table, again.table):
        table.drop(columns=["seconds", "peak_gb", "key"], inplace=True)
    pd.testing.assert_frame_equal(scored.table, again.table)
    assert macro(study, "auroc")["linear"] > 0.8


def nasty(where):
    return f"<img src=x onerror=alert('{where}')>"


@pytest.mark.survives(
    "attack", "HTML in class labels, patients, file names and DICOM text, into every page", "shown as text"
)
def test_html_in_labels_names_and_dicom_text_is_shown_as_text(tmp_path):
    rng, rows = np.random.default_rng(4), []
    (tmp_path / "mine").mkdir()
    text = dict.fromkeys(("StudyDescription", "Manufacturer", "PatientComments", "ImageComments"), nasty("dicom"))
    text |= {"BurnedInAnnotation": nasty("dicom"), "ViewPosition": nasty("dicom"), "PatientSex": nasty("dicom")}
    for k in range(PATIENTS):
        name = f"{nasty('file') if k == 3 else ''}{k}.dcm"
        write(tmp_path / "mine" / name, texture(rng, k % 2, (70, 60)), Modality=nasty("dicom"), **text)
        rows.append({"path": name, "patient": nasty("patient") + str(k), "view": nasty("view"), nasty("label"): k % 2})
    broken = nasty("broken") + ".dcm"
    whole = (tmp_path / "mine/0.dcm").read_bytes()
    (tmp_path / "mine" / broken).write_bytes(whole[: len(whole) - 500])  # cut off: it is set aside, by name
    rows.append({**rows[0], "path": broken, "patient": "broken"})
    pd.DataFrame(rows).to_csv(tmp_path / "mine/labels.csv", index=False)
    folder = {"title": nasty("title"), "task": "binary", "classes": [nasty("label")], "metadata": ["view"]}
    asked = {"choice": {"max_quarantine": 1}, **folder}
    study = run(tmp_path, **asked)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(params(tmp_path, **asked)))
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(Path(__file__).parents[1] / "Snakefile")]
    call = [*snakemake, "--cores", "1", "--configfile", "study.yaml", "--report", "reports/report.html"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = {path: path.read_text(encoding="utf-8") for path in study.path("reports").rglob("*.html")}
    assert {"explorer.html", "report.html", "linear.html"} <= {path.name for path in pages}
    for path, page in pages.items():
        assert "<img src=x" not in page, path
        assert "alert('dicom')" not in page, path
        assert not [tag for tag, attributes in Page(page).tags if "onerror" in attributes], path
    read = " ".join(Page(page).words for page in pages.values())
    for where in ("label", "patient", "broken", "title"):
        assert nasty(where) in read, where
