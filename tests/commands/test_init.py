import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import running
from datasets import own_folders
from imaging.dicom_files import SECRETS
from PIL import Image

from radprobe.commands import init
from radprobe.files import RadprobeError
from radprobe.study import Study


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to stand in, with the images in another."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def made(here, layout="films"):
    folder = here.parent / layout
    folder.mkdir()
    own_folders.LAYOUTS[layout](folder)
    return folder


def run(folder, table=None, task=None, out=None, force=False):
    return init.run(folder, table, task, out, force)


def content_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("layout", "task", "own_table", "n"),
    [
        ("films", "binary", True, 48),
        ("named_loosely", "binary", False, 24),
        ("several_findings", "multilabel", False, 24),
        ("class_folders", "multiclass", False, 48),
        ("dicom_films", "multiclass", True, 48),
        ("series_of_patients", "binary", False, 12),
        ("nifti_pairs", "segmentation", False, 12),
        ("films_with_masks", "segmentation", False, 24),
    ],
)
def test_what_is_written_can_be_retrieved_and_the_folder_is_left_alone(here, capsys, layout, task, own_table, n):
    folder = made(here, layout)
    before = content_of(folder)
    out = run(folder)
    assert content_of(folder) == before
    study = Study(out)
    assert study.dataset(layout).task == task
    assert {path.name for path in here.iterdir()} == {
        f"{layout}.yaml", f"{layout}_sheet.png", *([] if own_table else [f"{layout}.csv"]),
    }  # fmt: skip
    said = capsys.readouterr().out
    command = said.rstrip().splitlines()[-1].split()
    assert Path(command[0]).name == "snakemake"
    assert shutil.which(command[0])
    assert f"--configfile {out}" in said
    for secret in SECRETS.values():
        assert secret not in said + out.read_text()
    step = study.step("retrieve", layout)
    running.run(study, step)
    files = pd.read_parquet(step.folder / "raw.parquet")["path"]
    assert len(files) >= n + 1
    with Image.open(here / f"{layout}_sheet.png") as sheet:
        assert np.ptp(np.asarray(sheet.convert("L"))) > 200


def test_ids_that_may_be_one_patient_are_told(here, capsys):
    folder = made(here)
    table = pd.read_csv(folder / "labels.csv")
    table.loc[[0, 1, 2], "patient"] = ["Case07", "case7", "case007"]
    table.to_csv(folder / "labels.csv", index=False)
    out = run(folder)
    told = "Case07 and case7 and case007"
    assert told in capsys.readouterr().out
    study = Study(out)
    running.run(study, study.step("retrieve", "films"))
    assert told in capsys.readouterr().out  # every run says so


def test_a_table_may_lie_elsewhere(here):
    folder = made(here)
    (folder / "labels.csv").rename(here / "mine.csv")
    out = run(folder, table=Path("mine.csv"), out=Path("study.yaml"))
    assert Study(out).dataset("films").folder.table == str(here / "mine.csv")


def test_nothing_is_overwritten_and_nothing_is_written_among_the_images(here, monkeypatch):
    folder = made(here, "named_loosely")
    out = run(folder)
    out.write_text("mine")
    with pytest.raises(RadprobeError, match="is there already") as error:
        run(folder)
    assert "--force" in error.value.remedy
    assert out.read_text() == "mine"
    run(folder, force=True)
    assert Study(out).dataset("named_loosely")
    for where in (folder, folder / "site0"):
        monkeypatch.chdir(where)
        with pytest.raises(RadprobeError, match="into which nothing is written"):
            run(folder, force=True)
    with pytest.raises(RadprobeError, match="into which nothing is written"):
        run(folder, out=folder / "x.yaml")


@pytest.mark.parametrize("force", [False, True])
def test_a_table_of_ones_own_is_never_overwritten(here, force):
    folder = made(here, "named_loosely")
    mine = Path("named_loosely.csv")
    mine.write_bytes((folder / "export.csv").read_bytes())
    before = mine.read_bytes()
    with pytest.raises(RadprobeError, match="is there already") as error:
        run(folder)
    assert "your own table, say so: --table named_loosely.csv" in error.value.remedy
    out = run(folder, table=mine, force=force)
    assert mine.read_bytes() == before
    assert Study(out).dataset("named_loosely").folder.table == str(here / "named_loosely_table.csv")
    other = mine.rename("x.yaml")  # where its name is that of the params
    with pytest.raises(RadprobeError, match="your own table") as error:
        run(folder, table=other, out=Path("x.yaml"), force=True)
    assert "--out" in error.value.remedy
    assert other.read_bytes() == before


def test_blank_labels_reach_the_samples_and_the_sheet_as_not_known(here, monkeypatch):
    folder = made(here, "several_findings")
    table = pd.read_csv(folder / "labels.csv", dtype=str)
    table.loc[[0, 5], "Finding Labels"] = ""
    table.to_csv(folder / "labels.csv", index=False)
    shown = []
    png = init.sheet.png
    monkeypatch.setattr(
        init.sheet, "png", lambda head, pictures, classes: shown.extend(pictures) or png(head, pictures, classes)
    )
    study = Study(run(folder))
    step = study.step("retrieve", "several_findings")
    running.run(study, step)
    written = pd.read_csv(here / "several_findings.csv")
    assert written.loc[written[["Mass", "Effusion"]].isna().all(axis=1), "path"].tolist() == [
        "images/000.png",
        "images/005.png",
    ]
    labels = {each.name: each.label for each in shown}
    assert labels["images/000.png"] == "not known"
    assert "none of the classes" in labels.values()


def test_what_retrieve_would_refuse_is_refused_and_nothing_is_left(here):
    folder = made(here, "named_loosely")
    table = pd.read_csv(folder / "export.csv").assign(patient=["one"] * own_folders.PATIENTS)
    table.to_csv(folder / "export.csv", index=False)
    with pytest.raises(RadprobeError, match="no class has 1 positive patients in each part"):
        run(folder)
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("montgomery", "own_montgomery"),
        ("training", "own_training"),
        ("Weights", "own_Weights"),
        ("2024", "2024"),
        ('my films: "new" #2', "my_films_new_2"),
    ],
)
def test_the_name_of_the_folder_becomes_that_of_the_dataset(here, name, dataset):
    folder = made(here).rename(here.parent / name)
    study = Study(run(folder))
    assert list(study.params.datasets) == [dataset]
    assert study.dataset(dataset).title == name


@pytest.mark.parametrize(
    ("given", "what"),
    [({"table": Path("absent.csv")}, "absent.csv"), ({"out": Path("study.csv")}, "study.csv"), ({"task": "guess"}, "")],
)
def test_options_that_make_no_sense_are_refused(here, given, what):
    folder = made(here)
    with pytest.raises(RadprobeError) as error:
        run(folder, **given)
    assert what in error.value.what
    assert not list(here.iterdir())


@pytest.mark.parametrize(("bad", "refused"), [("11_0", False), ("", True)])
def test_images_that_only_decoding_shows_to_be_unfit_are_told_or_refused(here, capsys, bad, refused):
    """The header of a TIFF does not say that its fractions cannot be kept as whole numbers."""
    folder = made(here)
    table = pd.read_csv(folder / "labels.csv")
    for row, name in enumerate(table["path"]):
        if name.startswith(bad):
            fractions = np.random.default_rng(row).random((40, 40)).astype(np.float32)
            Image.fromarray(fractions).save((folder / name).with_suffix(".tif"))
            (folder / name).unlink()
            table.loc[row, "path"] = name.replace(".png", ".tif")
    table.to_csv(folder / "labels.csv", index=False)
    if refused:
        with pytest.raises(RadprobeError, match=r"fractions .* of the 12 images that were decoded cannot be used"):
            run(folder)
        return
    run(folder)
    assert "11_0.tif: holds fractions" in capsys.readouterr().out


def test_an_image_that_is_set_aside_is_not_told_again_by_the_sheet(here, capsys):
    folder = made(here)
    (folder / "0_0.png").write_bytes(b"")
    run(folder)
    said = capsys.readouterr().out
    assert "1 file(s) cannot be used and will be set aside" in said
    assert "cannot be decoded" not in said


def test_few_patients_get_folds_with_the_reason_beside_them(here):
    out = run(made(here))
    (line,) = (line for line in out.read_text().splitlines() if line.startswith("    split:"))
    assert line.startswith("    split: {folds: 5}    # there is no split column, and 24 patients are fewer than 300")
    study = Study(out)
    assert study.params.datasets["films"].split.folds == 5
    assert study.dataset("films").splits["5-fold"].folds == 5
