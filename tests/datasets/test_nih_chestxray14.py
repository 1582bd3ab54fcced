import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from radprobe import catalog, phantoms
from radprobe.datasets import nih_chestxray14 as nih
from radprobe.files import RadprobeError

ENTRY = catalog.datasets()["nih_chestxray14"]
REAL = pytest.mark.skipif(not os.environ.get("RADPROBE_REAL_DATA"), reason="RADPROBE_REAL_DATA is not set")


@pytest.fixture
def download(tmp_path):
    phantoms.generate(tmp_path / "nih", ENTRY, 20, seed=1)
    return tmp_path / "nih"


def samples(raw, allow_missing=False):
    return nih.samples(nih.locate(ENTRY, raw), ENTRY, allow_missing)


def merge(download, target):
    target.mkdir(exist_ok=True)
    for path in sorted(download.glob("images_*/images/*.png")):
        path.rename(target / path.name)
    for folder in download.glob("images_*"):
        (folder / "images").rmdir()
        folder.rmdir()


def test_all_variants_hold_the_same_samples(download):
    expected = samples(download)
    assert nih.locate(ENTRY, download).variant == "official"
    assert nih.locate(ENTRY, download.parent).root == download
    merge(download, download / "images")
    merged = samples(download)
    assert nih.locate(ENTRY, download).variant == "merged"
    for path in (download / "images").iterdir():
        path.rename(download / path.name)
    (download / "images").rmdir()
    flat = samples(download)
    assert nih.locate(ENTRY, download).variant == "flat"
    for other in (merged, flat):
        pd.testing.assert_frame_equal(expected.table.drop(columns="image"), other.table.drop(columns="image"))


def test_without_lists_or_table_or_images_there_is_no_layout(download):
    for name in ("test_list.txt", "Data_Entry_2017_v2020.csv"):
        (download / name).rename(download / "away")
        assert nih.locate(ENTRY, download) is None
        (download / "away").rename(download / name)
    for path in download.rglob("*.png"):
        path.unlink()
    assert nih.locate(ENTRY, download) is None


def test_the_older_label_table_is_taken_where_the_newer_is_absent(download):
    expected = samples(download).table
    (download / "Data_Entry_2017_v2020.csv").rename(download / "Data_Entry_2017.csv")
    pd.testing.assert_frame_equal(samples(download).table, expected)


def test_labels_are_those_of_the_table_in_the_catalogs_order(download):
    index = samples(download)
    assert index.classes == ENTRY.classes
    table = pd.read_csv(download / "Data_Entry_2017_v2020.csv").set_index("Image Index")["Finding Labels"]
    for name, row in zip(index.table["sample_id"], index.labels(), strict=True):
        present = {ENTRY.classes[column] for column in np.flatnonzero(row == 1)}
        assert present == set(table[f"{name}.png"].split("|")) - {"No Finding"}
        assert set(row) <= {0, 1}


def test_lists_without_a_final_newline_lose_no_line(download):
    text = (download / "test_list.txt").read_text()
    assert not text.endswith("\n")
    table = samples(download).table
    listed = table[table["meta:list"] == "test"].sort_values("meta:list_row")
    assert [f"{name}.png" for name in listed["sample_id"]] == text.split("\n")
    assert listed["meta:list_row"].tolist() == list(range(len(listed)))


def test_absent_images_stop_or_are_counted(download):
    whole = samples(download)
    gone = sorted(download.rglob("*.png"))[::7]
    for path in gone:
        path.unlink()
    with pytest.raises(RadprobeError, match=f"{len(gone)} of the {len(whole.table)} listed images are absent"):
        samples(download)
    partial = samples(download, allow_missing=True)
    assert partial.facts["n_absent"] == len(gone)
    assert partial.facts["partial"] is True
    assert len(partial.table) == len(whole.table) - len(gone)


def edit(path, change):
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda text: text.replace("View Position", "Position"), "View Position"),
        (lambda text: text.replace("Effusion", "Efusion", 1), "Efusion"),
        (lambda text: "\n".join(text.split("\n")[:-3]) + "\n", "has no row of 00000020"),
        (lambda text: text + text.split("\n")[1] + "\n", "00000001_000.png twice"),
    ],
)
def test_a_damaged_table_is_explained(download, change, named):
    edit(download / "Data_Entry_2017_v2020.csv", change)
    with pytest.raises(RadprobeError, match=named):
        samples(download)


def test_an_image_in_both_lists_is_refused(download):
    first = (download / "train_val_list.txt").read_text().split()[0]
    edit(download / "test_list.txt", lambda text: text + "\n" + first)
    with pytest.raises(RadprobeError, match=first):
        samples(download)


def test_an_image_that_is_there_twice_is_refused(download):
    path = next(download.glob("images_001/images/*.png"))
    (download / "images_002/images" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(RadprobeError, match="is there twice"):
        samples(download)


def test_ages_with_a_unit_are_read(download):
    expected = samples(download).table["meta:age"].tolist()
    table = pd.read_csv(download / "Data_Entry_2017_v2020.csv", dtype=str)
    table["Patient Age"] = table["Patient Age"].str.zfill(3) + "Y"
    table.to_csv(download / "Data_Entry_2017_v2020.csv", index=False)
    assert samples(download).table["meta:age"].tolist() == expected


def test_the_phantom_has_the_quirks_of_the_real_one(download):
    table = samples(download).table
    modes = {Image.open(path).mode for path in download.rglob("*.png")}
    assert modes == {"L", "RGBA"}
    assert len(list(download.glob("images_*/images"))) == 12
    assert (table.groupby("patient_id")["meta:list"].nunique() == 1).all()
    assert table.groupby("patient_id").size().max() > 1
    assert (table[[f"label:{name}" for name in ENTRY.classes]].sum() > 0).all()


def test_the_phantom_is_the_same_twice(tmp_path):
    for name in ("a", "b"):
        phantoms.generate(tmp_path / name, ENTRY, 3, seed=5)
    contents = [
        {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        for name in ("a", "b")
    ]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("name", ENTRY.classes)
def test_each_finding_changes_the_film(name):
    from radprobe.phantoms import anatomy

    person = anatomy.person(np.random.default_rng(0))
    with_it, without = (
        anatomy.film(person, findings, (128, 128), np.random.default_rng(1))[0] for findings in ([name], [])
    )
    changed = np.abs(with_it.astype(int) - without) > 30
    assert 0.002 < changed.mean() < 0.5


@REAL
@pytest.mark.real
def test_the_real_lists_and_table():
    layout = nih.locate(ENTRY, Path(os.environ["RADPROBE_REAL_DATA"]) / "nih_chestxray14")
    with pytest.raises(RadprobeError, match="111,120 of the 112,120 listed images are absent"):
        nih.samples(layout, ENTRY, False)
    index = nih.samples(layout, ENTRY, True)
    assert (index.facts["n_listed"], index.facts["n_absent"], index.facts["n_train_val"]) == (112120, 111120, 86524)
    assert index.table["label:Pneumonia"].sum() == 500


@REAL
@pytest.mark.real
def test_the_complete_lists_give_the_published_parts(monkeypatch):
    """All 112,120 rows, as if every image were here."""
    from radprobe.splitting import splits

    layout = nih.locate(ENTRY, Path(os.environ["RADPROBE_REAL_DATA"]) / "nih_chestxray14")
    names = [name for path in layout.tables[1:] for name in path.read_text().split()]
    monkeypatch.setattr(nih, "_find_images", lambda layout: {name: name for name in names})
    index = nih.samples(layout, ENTRY, False)
    split = splits.make_split(index, ENTRY.splits["study"], "study", 0)
    splits.check_parts(split, index, ENTRY.splits)
    assert splits.against_published(split, index, ENTRY.published.parts) == {
        "parts": ENTRY.published.parts,
        "equal": True,
    }
    table = index.table.set_index("sample_id")
    train_val = table[table["meta:list"] == "train_val"]
    assert len(train_val) == 86524
    assert not set(train_val["patient_id"]) & set(table.loc[table["meta:list"] == "test", "patient_id"])
    # the cut of the official list itself splits no patient: val is exactly its last 10,002 lines
    rows = train_val.loc[split.table.loc[split.table["part"] == "val", "sample_id"], "meta:list_row"]
    assert rows.min() == 76522
