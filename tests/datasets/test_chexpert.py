import gzip
import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datasets import generated
from PIL import Image

from radprobe import catalog, phantoms
from radprobe.datasets import chexpert
from radprobe.files import RadprobeError
from radprobe.splitting import preview, splits

ENTRY = catalog.datasets()["chexpert"]
WHEEL = importlib.util.find_spec("torchxrayvision")  # not imported: it would import torch


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chexpert")
    phantoms.generate(folder, ENTRY, 12, seed=4)
    return folder


@pytest.fixture
def download(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "raw"))


def samples(raw, entry=ENTRY, allow_missing=False):
    return chexpert.samples(chexpert.locate(entry, raw), entry, allow_missing)


def home(download):
    return download / "CheXpert-v1.0-small"


def edit(path, change):
    path.write_text(change(path.read_text()))


def as_full_release(download):
    small = home(download)
    first = download / "CheXpert-v1.0 batch 1 (validate & csv)"
    first.mkdir()
    for name in ("train.csv", "valid.csv"):
        edit(small / name, lambda text: text.replace("CheXpert-v1.0-small/", "CheXpert-v1.0/"))
        (small / name).rename(first / name)
    (small / "valid").rename(first / "valid")
    people = sorted((small / "train").glob("patient*"))
    for k, batch in enumerate(("CheXpert-v1.0 batch 2 (train 1)", "CheXpert-v1.0 batch 3 (train 2)")):
        # some programs unpack an archive into a folder of its own
        target = download / batch / batch if k else download / batch
        target.mkdir(parents=True)
        for path in people[k::2]:
            path.rename(target / path.name)
    for name in ("test", "groundtruth.csv", "PHANTOM.json"):
        (small / name).rename(download / name)
    shutil.rmtree(small)


def test_all_variants_hold_the_same_samples(download):
    expected = samples(download)
    assert chexpert.locate(ENTRY, home(download)).variant == "official"
    as_full_release(download)
    full = samples(download)
    assert chexpert.locate(ENTRY, download).variant == "batches"
    pd.testing.assert_frame_equal(expected.table.drop(columns="image"), full.table.drop(columns="image"))
    assert all((download / image).is_file() for image in full.table["image"])


def test_frontal_films_of_three_lists_with_unique_patients(download):
    index = samples(download)
    table = index.table
    assert table["image"].str.contains("frontal").all()
    assert index.facts["n_lateral"] == len(list(home(download).glob("*/*/*/*lateral.jpg"))) > 0
    assert set(table["meta:list"]) == {"train", "val", "test"}
    assert (table.groupby("patient_id")["meta:list"].nunique() == 1).all()
    # the leak gate compares studies: their names must not be shared by patients
    assert (table.groupby("meta:study")["patient_id"].nunique() == 1).all()
    assert set(table["meta:view"].dropna()) <= {"AP", "PA"}
    tested = table[table["meta:list"] == "test"]
    assert tested["meta:age"].isna().all()
    assert table.loc[table["meta:list"] == "val", "meta:age"].notna().all()


def test_labels_are_the_cells_of_the_tables(download):
    table = samples(download).table.set_index("sample_id")
    cells = pd.read_csv(home(download) / "train.csv")
    cells.index = cells["Path"].str.extract(r"train/(.*)\.jpg")[0].str.replace("/", "_")
    seen = set()
    for name, row in table[table["meta:list"] == "train"].iterrows():
        for label in ENTRY.classes:
            np.testing.assert_equal(row[f"label:{label}"], cells.loc[name, label])
            seen.add(str(cells.loc[name, label]))
    assert seen == {"1.0", "0.0", "-1.0", "nan"}
    truth = pd.read_csv(home(download) / "groundtruth.csv")
    truth.index = truth["Study"].str.extract(r"test/(.*)$")[0].str.replace("/", "_")
    for _, row in table[table["meta:list"] == "test"].iterrows():
        assert row["label:Edema"] == truth.loc[row["meta:study"], "Edema"]


def test_policies_decide_what_uncertain_and_blank_count_as(download):
    index = samples(download)
    stored = index.table[[f"label:{name}" for name in ENTRY.classes]].to_numpy()
    for policy, value in {"zeros": 0, "ones": 1, "ignore": np.nan}.items():
        index.facts["uncertain"] = policy
        labels = index.labels()
        np.testing.assert_equal(labels[stored == -1], np.full((stored == -1).sum(), value))
        assert (labels[np.isnan(stored)] == 0).all()  # blank: the catalog says zeros, as the study does


def test_all_14_observations_can_be_chosen(download):
    entry = ENTRY.model_copy(update={"classes": ENTRY.class_sets["all"]})
    assert samples(download, entry).classes == entry.classes
    assert len(entry.classes) == 14
    assert set(ENTRY.classes) < set(entry.classes)


def test_a_row_per_image_gives_the_same_test_set(download):
    expected = samples(download).table
    root = home(download)
    truth = pd.read_csv(root / "groundtruth.csv").set_index("Study")
    rows = [
        {"Path": path.relative_to(root).as_posix(), **truth.loc[f"CheXpert-v1.0/{path.parent.relative_to(root)}"]}
        for path in sorted(root.glob("test/*/*/*.jpg"))
    ]
    pd.DataFrame(rows).to_csv(root / "test_labels.csv", index=False)
    (root / "groundtruth.csv").unlink()
    pd.testing.assert_frame_equal(samples(download).table, expected)


def test_without_the_test_films_another_split_is_offered(download):
    shutil.rmtree(home(download) / "test")
    (home(download) / "PHANTOM.json").unlink()
    index = samples(download)
    assert index.facts["partial"] is True
    with pytest.raises(RadprobeError, match="part 'test': has no sample") as error:
        preview.checker(ENTRY, "study", 0, None)(index)
    assert "datasets.chexpert.split: valid_as_test" in error.value.remedy
    split = splits.make_split(index, ENTRY.splits["valid_as_test"], "valid_as_test", 0)
    part = split.table.set_index("sample_id")["part"]
    lists = index.table.set_index("sample_id")["meta:list"]
    assert (lists[part[part == "test"].index] == "val").all()
    assert set(part[lists[lists == "train"].index]) == {"train", "val"}


def test_absent_films_stop_or_are_counted(download):
    whole = samples(download)
    gone = [*sorted(home(download).glob("train/*/*/*frontal.jpg"))[::5]]
    gone += sorted(home(download).glob("test/*/*/*frontal.jpg"))[:1]
    for path in gone:
        path.unlink()
    shutil.rmtree(gone[-1].parent)  # with it went a lateral film, perhaps: it is not counted as absent
    with pytest.raises(RadprobeError, match=f"{len(gone)} of the {len(whole.table)} frontal films"):
        samples(download)
    partial = samples(download, allow_missing=True)
    assert (partial.facts["n_absent"], partial.facts["partial"]) == (len(gone), True)
    assert len(partial.table) == len(whole.table) - len(gone)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda text: text.replace("Edema", "Oedema", 1), "lacks the columns Edema"),
        (lambda text: text.replace("-1.0", "maybe", 60), "unknown label 'maybe' for"),
        (lambda text: text.replace("view1_frontal.jpg", "a.jpg", 1), "unknown path"),
        (lambda text: text + text.split("\n")[1] + "\n", "twice"),
        (lambda text: text.replace("patient00002", "patient64541"), "patient64541 is in train.csv and valid.csv"),
        (lambda text: "", "is no CSV table"),
    ],
)
def test_a_damaged_table_is_explained(download, change, named):
    edit(home(download) / "train.csv", change)
    with pytest.raises(RadprobeError, match=named):
        samples(download)


def test_windows_ends_and_byte_order_mark_do_no_harm(download):
    expected = samples(download).table
    path = home(download) / "train.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    pd.testing.assert_frame_equal(samples(download).table, expected)


def test_without_tables_or_train_there_is_no_layout(download):
    for name in ("train.csv", "valid.csv", "train", "valid"):
        (home(download) / name).rename(download / "away")
        assert chexpert.locate(ENTRY, download) is None
        (download / "away").rename(home(download) / name)


def test_the_phantom_is_the_same_twice_and_its_labels_can_be_learnt(tmp_path):
    for name in ("a", "b"):
        phantoms.generate(tmp_path / name, ENTRY, 3, seed=5)
    assert generated.bytes_of(tmp_path / "a") == generated.bytes_of(tmp_path / "b")
    phantoms.generate(tmp_path / "c", ENTRY, 60, seed=5)
    index = samples(tmp_path / "c")
    assert index.table["image"].map(lambda image: Image.open(home(tmp_path / "c") / image).format).eq("JPEG").all()
    index.facts["uncertain"] = "ignore"
    scores = [generated.separability(index, home(tmp_path / "c"), name) for name in ("Edema", "Consolidation")]
    assert np.mean(scores) > 0.75


@pytest.mark.slow
@pytest.mark.skipif(not WHEEL, reason="torchxrayvision is not installed")
def test_the_real_table_at_full_size(tmp_path, monkeypatch):
    """All 223,414 rows of the official train.csv, as if every image were here; valid is generated."""
    source = Path(WHEEL.origin).parent / "data" / "chexpert_train.csv.gz"
    phantoms.generate(tmp_path, ENTRY, 5, seed=0)
    root = home(tmp_path)
    (root / "train.csv").write_bytes(gzip.decompress(source.read_bytes()))
    monkeypatch.setattr(
        chexpert, "_image", lambda people, row: f"{root}/{row.part}/{row.patient}/{row.study}/{row.view}"
    )
    index = samples(tmp_path)
    train = index.table[index.table["meta:list"] == "train"]
    assert len(train) == ENTRY.published.parts["train"] == 191027
    assert train["patient_id"].nunique() == 64534
    assert index.facts["n_lateral"] >= 32387
    counted = {"zeros": 76899, "ones": 76899 + 9578, "ignore": 76899}  # Pleural Effusion: 1, and -1
    column = ENTRY.classes.index("Pleural Effusion")
    for policy, positives in counted.items():
        index.facts["uncertain"] = policy
        labels = index.labels()[(index.table["meta:list"] == "train").to_numpy(), column]
        assert (labels == 1).sum() == positives
        assert np.isnan(labels).sum() == (9578 if policy == "ignore" else 0)
    index.facts["uncertain"] = "zeros"
    split = splits.make_split(index, ENTRY.splits["study"], "study", 0)
    assert split.facts["parts"]["train"]["cases"] == 191027
