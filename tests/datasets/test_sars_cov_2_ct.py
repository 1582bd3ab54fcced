import shutil
from pathlib import Path

import pandas as pd
import pytest
from datasets import generated
from PIL import Image

from radprobe import catalog, phantoms
from radprobe.datasets import sars_cov_2_ct
from radprobe.files import RadprobeError
from radprobe.splitting import splits

ENTRY = catalog.datasets()["sars_cov_2_ct"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sars")
    phantoms.generate(folder, ENTRY, 21, seed=4)
    return folder


@pytest.fixture
def download(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "raw"))


def samples(raw, allow_missing=False):
    return sars_cov_2_ct.samples(sars_cov_2_ct.locate(ENTRY, raw), ENTRY, allow_missing)


@pytest.mark.parametrize("inside", [".", "New_Data_CoV2", "up", "up/up"])
def test_every_place_to_unpack_it_is_found(download, inside):
    expected = samples(download).table
    if "up" in inside:
        (download / inside).mkdir(parents=True)
        (download / "New_Data_CoV2").rename(download / inside / "New_Data_CoV2")
        inside = str(Path(inside).parent)
    pd.testing.assert_frame_equal(samples(download / inside).table, expected)


def test_d21_slices_follow_the_numbers_in_their_names(download):
    table = samples(download).table
    seen = set()
    for _, patient in table.groupby("patient_id"):
        numbers = [int(Path(image).stem) for image in patient["image"]]
        assert numbers == list(range(1, len(numbers) + 1))
        assert patient["slice"].tolist() == list(range(len(numbers)))
        seen.add(len(numbers))
    assert max(seen) > 10  # so that 10 would come before 2 if names were sorted as text


def test_a_patient_is_a_group_and_a_folder(download):
    table = samples(download).table
    folders = [path for path in (download / "New_Data_CoV2").glob("*/*") if path.is_dir()]
    assert len({folder.name for folder in folders}) < len(folders) == table["patient_id"].nunique() == 21
    assert (table["volume_id"] == table["patient_id"]).all()
    assert (table["label:Covid"] == table["image"].str.startswith("Covid/")).all()
    assert table["patient_id"].str.fullmatch(r"[A-Za-z0-9_.-]+").all()


def test_folders_whose_names_differ_by_odd_characters_only_stay_apart(download):
    covid = download / "New_Data_CoV2/Covid"
    shutil.copytree(covid / "Patient (1)", covid / "Patient [1]")
    assert samples(download).table["patient_id"].nunique() == 22


def test_a_complete_copy_splits_as_the_study_does(tmp_path):
    for group, n in {"Covid": 80, "Healthy": 50, "Others": 80}.items():
        for number in range(1, n + 1):
            folder = tmp_path / group / f"Patient ({number})"
            folder.mkdir(parents=True)
            (folder / "1.png").write_bytes(b"x")
    index = samples(tmp_path, allow_missing=True)
    split = splits.make_split(index, ENTRY.splits["study"], "study", 0)
    assert {part: counts["cases"] for part, counts in split.facts["parts"].items()} == ENTRY.published.parts
    for part in ("train", "val", "test"):
        counts = split.facts["parts"][part]
        assert counts["positives"]["Covid"] / counts["cases"] == pytest.approx(80 / 210, abs=0.02)


def test_empty_folders_and_partial_copies(download):
    (download / "New_Data_CoV2/Healthy/Patient (99)").mkdir()
    with pytest.raises(RadprobeError, match="holds no slice"):
        samples(download)
    assert samples(download, allow_missing=True).facts["n_empty_folders"] == 1
    (download / "New_Data_CoV2/Healthy/Patient (99)").rmdir()
    (download / "New_Data_CoV2/PHANTOM.json").unlink()
    with pytest.raises(RadprobeError, match="of 4,173 images"):
        samples(download)


def test_the_phantom_has_the_quirks_of_the_real_one(download, tmp_path):
    phantoms.generate(tmp_path / "again", ENTRY, 21, seed=4)
    assert generated.bytes_of(tmp_path / "again") == generated.bytes_of(download)
    index, root = samples(download), download / "New_Data_CoV2"
    assert list(root.rglob("._*"))
    assert not index.table["image"].str.contains("/._", regex=False).any()
    slices = [Image.open(root / image) for image in index.table["image"]]
    assert {one.mode for one in slices} == {"L", "RGBA"}
    assert len({one.size for one in slices}) > 5


def test_the_phantoms_label_can_be_learnt(tmp_path):
    phantoms.generate(tmp_path, ENTRY, 50, seed=4)
    assert generated.separability(samples(tmp_path), tmp_path / "New_Data_CoV2", "Covid") > 0.75
