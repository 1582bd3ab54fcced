"""What is wrong with a file of predictions is said with the file, the reason and the remedy; nothing is guessed."""

import os

import numpy as np
import pytest

from radprobe import catalog
from radprobe.datasets import external
from radprobe.datasets.external import Expected
from radprobe.files import RadprobeError

CLASSES = ["Edema", "Mass"]
SETS = {"classes": CLASSES, "class_sets": {"more": ["Nodule"]}}
ENTRY = catalog.datasets()["nih_chestxray14"].model_copy(update=SETS)
OTHERS = ["Nodule"]
PARTS = {"a": "train", "b": "val", "c": "val", "d": "test", "e": "test", "f": ""}
EXPECTED = Expected(PARTS, CLASSES, {}, True)
GOOD = "sample_id,Edema,Mass\nb,0.1,0.2\nc,0.3,0.4\nd,0.5,0.6\ne,0.7,0.8\n"


def read(tmp_path, content, scale="auto", needed=CLASSES):
    file = tmp_path / "readers.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return external.read_scores(file, ENTRY.classes, OTHERS, needed, scale)


def refused(tmp_path, content, **options) -> RadprobeError:
    with pytest.raises(RadprobeError) as raised:
        read(tmp_path, content, **options)
    assert str(tmp_path / "readers.csv") in raised.value.what
    assert raised.value.remedy
    return raised.value


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("name", external.ID_COLUMNS)
def test_a_table_is_read_whatever_separates_its_cells(tmp_path, mark, name):
    found = read(tmp_path, GOOD.replace(",", mark).replace("sample_id", name))
    assert found.scale == "probability"
    np.testing.assert_array_equal(found.of(["e", "b"], ["Mass", "Edema"]), [[0.8, 0.7], [0.2, 0.1]])


def test_numbers_come_back_bit_by_bit(tmp_path):
    values = np.random.default_rng(0).normal(size=(50, 2)) * 10.0 ** np.arange(-25, 25)[:, None]
    lines = [f"case{row},{one!r},{other!r}" for row, (one, other) in enumerate(values.tolist())]
    found = read(tmp_path, "\n".join(["sample_id,Edema,Mass", *lines]))
    np.testing.assert_array_equal(found.values, values)
    assert found.scale == "score"


def test_columns_of_other_classes_of_the_dataset_are_not_read(tmp_path):
    found = read(tmp_path, "sample_id,Nodule,Edema,Mass\nd,no number,0.5,0.6\n")
    assert found.classes == CLASSES


def test_a_class_that_the_split_leaves_out_needs_no_column(tmp_path):
    assert read(tmp_path, "sample_id,Edema\nd,0.5\n", needed=["Edema"]).classes == ["Edema"]
    assert "no column for 1 of 2 classes (first: Mass)" in refused(tmp_path, "sample_id,Edema\nd,0.5\n").reason


@pytest.mark.survives("input", "a CSV of predictions with a broken cell, row or column", "an error with its line")
@pytest.mark.parametrize(
    ("old", "new", "said", "remedy"),
    [
        ("d,0.5", "d,", "is blank or NaN", "write a number"),
        ("d,0.5", "d,NaN", "is blank or NaN", "write a number"),
        ("d,0.5", "d,inf", "'inf', which is not finite", "finite"),
        ("d,0.5", "d,1e999", "'1e999', which is not finite", "finite"),
        ("d,0.5", "d,high", "'high', which is no number", "higher is more likely"),
        ("d,0.5", "d,1_0", "'1_0', which is no number", "higher is more likely"),
        ("d,0.5", "d,=A1*2", "is a formula, '=A1*2'", "save the values"),
        ("d,0.5", 'd,"0,5"', "with a decimal comma", "decimal point"),
        ("d,0.5", ",0.5", "is blank", "the id of the case"),
        ("e,0.7", "d,0.7", "'d' is also in line 4", "one row per case"),
        ("d,0.5,0.6", "d,0.5", "has 2 cells, the header 3", "separates the columns"),
        ("sample_id", "name", "has no column of ids", "name one column sample_id"),
        (
            "sample_id,Edema",
            "sample_id,Edem",
            "no column for 1 of 2 classes (first: Edema)",
            "one column per class",
        ),
        ("Edema,Mass", "Mass,Mass", "has twice the column 'Mass'", "remove one"),
    ],
)
def test_a_broken_cell_is_named(tmp_path, old, new, said, remedy):
    error = refused(tmp_path, GOOD.replace(old, new, 1))
    assert said in error.reason
    assert remedy in error.remedy
    if "column '" in error.what:
        assert "line 4" in error.what or "line 5" in error.what


def test_an_unknown_column_is_named_with_the_nearest_class(tmp_path):
    error = refused(tmp_path, GOOD.replace("Mass", "Mass,Maß", 1).replace("0.2", "0.2,0").replace("0.4", "0.4,0"))
    assert "cells" in error.reason  # rows first: the table is no table
    rows = [line + ",0" for line in GOOD.splitlines()[1:]]
    error = refused(tmp_path, "\n".join(["sample_id,Edema,Mass,Edemas", *rows]))
    assert "a column 'Edemas', which is no class" in error.reason
    assert "did you mean 'Edema'?" in error.remedy


@pytest.mark.survives("input", "a file of predictions that is no CSV", "an error that says what is expected")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"sample_id,Edema,Mass\n", "no row below its header"),
        (GOOD.encode("utf-16"), "no UTF-8 text"),
        (GOOD.replace("b,", "Jos\u00e9,").encode("latin-1"), "no UTF-8 text"),
        (b"PK\x03\x04" + bytes(range(256)), "no UTF-8 text"),
        (b'sample_id,Edema,Mass\nd,"0.5,0.6\n', "no CSV table"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, said):
    assert said in refused(tmp_path, content).reason


@pytest.mark.survives("input", "a CSV of predictions of 500 MB and more", "refused before it is read")
def test_a_huge_file_is_refused_unread(tmp_path):
    file = tmp_path / "readers.csv"
    file.touch()
    os.truncate(file, external.MAX_BYTES + 1)
    with pytest.raises(RadprobeError, match="at most 500 MB are read"):
        external.read_scores(file, ENTRY.classes, OTHERS, CLASSES)


def test_a_stated_scale_is_held_to(tmp_path):
    beyond = GOOD.replace("0.6", "1.2")
    assert read(tmp_path, beyond).scale == "score"
    assert read(tmp_path, beyond, scale="logit").scale == "logit"
    assert read(tmp_path, GOOD, scale="score").scale == "score"
    error = refused(tmp_path, beyond, scale="probability")
    assert "line 4, column 'Mass'" in error.what
    assert "is 1.2" in error.reason


# --- cases against the split ------------------------------------------------------------------------------------------


def match(*cases, expected=EXPECTED, **stated):
    return external.match("readers.csv", {**dict.fromkeys(cases), **stated}, expected)


def test_val_is_optional_as_a_whole():
    assert match("b", "c", "d", "e").parts == ("val", "test")
    assert match("d", "e").parts == ("test",)
    with pytest.raises(RadprobeError, match=r"val cases are missing: 1 of 2 \(first: c\)"):
        match("b", "d", "e")


def test_missing_test_cases_are_counted_and_named():
    many = Expected({f"t{number}": "test" for number in range(9)}, CLASSES, {}, True)
    with pytest.raises(RadprobeError, match=r"test cases are missing: 8 of 9 \(first: t1, t2, t3, t4, t5\)"):
        match("t0", expected=many)
    with pytest.raises(RadprobeError, match=r"missing: 1 of 2 \(first: d\); unknown cases: 1 \(first: D"):
        match("D", "e")


def test_surplus_cases_are_said_and_unknown_ones_refused():
    found = match("a", "d", "e", "f")
    assert found.notes == [
        "ignored, of train: 1 (first: a)",
        "ignored, in no part of the split: 1 (first: f)",
    ]
    with pytest.raises(RadprobeError, match=r"cases unknown to the dataset: 2 \(first: x, y\)"):
        match("d", "e", "x", "y")


def test_in_a_pilot_cases_of_the_rest_are_left_aside():
    pilot = Expected(PARTS, CLASSES, {}, is_whole=False)
    assert match("d", "e", "x", expected=pilot).notes == ["ignored, not in this part of the dataset: 1 (first: x)"]
    with pytest.raises(RadprobeError, match="test cases are missing"):
        match("e", "x", expected=pilot)


def test_a_part_that_contradicts_the_split_is_refused():
    assert match(b="val", c="val", d="test", e="test").parts == ("val", "test")
    with pytest.raises(RadprobeError, match=r"in another part than in the split: 1 \(first: e \(train, not test\)"):
        match(d="test", e="train")


def test_slices_are_told_from_volumes():
    volumes = Expected({"v": "test"}, CLASSES, {"v_000": "v", "v_001": "v"}, True)
    with pytest.raises(RadprobeError, match="ids of slices: 2") as raised:
        match("v_000", "v_001", expected=volumes)
    assert "by its id: v" in raised.value.remedy


# --- folders of label maps --------------------------------------------------------------------------------------------


def folder(tmp_path, *names):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_maps_are_found_by_case_and_other_files_left(tmp_path):
    names = ("d.png", "e.nii.gz", "dataset.json", "plans.pkl", "e.npz", ".hidden.png", "._d.png")
    found = external.map_folder(folder(tmp_path, *names))
    of_case, matched = found.match(EXPECTED)
    assert {case: file.name for case, file in of_case.items()} == {"d": "d.png", "e": "e.nii.gz"}
    assert matched.parts == ("test",)


def test_folders_of_parts_are_read_and_held_to(tmp_path):
    exported = folder(tmp_path / "good", "val/b.png", "val/c.png", "test/d.png", "test/e.png", "other/x.png")
    assert external.map_folder(exported).match(EXPECTED)[1].parts == ("val", "test")
    with pytest.raises(RadprobeError, match="another part"):
        external.map_folder(folder(tmp_path / "bad", "train/d.png", "test/e.png")).match(EXPECTED)


def test_a_case_id_that_no_file_can_have_is_found_as_export_writes_it(tmp_path):
    slashed = Expected({"d/1 x": "test"}, CLASSES, {}, True)
    of_case, _ = external.map_folder(folder(tmp_path, "d_1_x.png")).match(slashed)
    assert list(of_case) == ["d/1 x"]
    ambiguous = Expected({"d/1 x": "test", "d/1/x": "test"}, CLASSES, {}, True)
    with pytest.raises(RadprobeError, match="may be of 2 cases"):
        external.map_folder(tmp_path).match(ambiguous)


@pytest.mark.parametrize("names", [("d.png", "d.nii"), ("test/d.png", "d.tif"), ("val/d.png", "test/d.png")])
def test_two_files_of_a_case_are_refused(tmp_path, names):
    with pytest.raises(RadprobeError, match="second label map of case d"):
        external.map_folder(folder(tmp_path, *names))


@pytest.mark.parametrize("names", [(), ("plans.json",)])
def test_a_folder_without_maps_is_refused(tmp_path, names):
    with pytest.raises(RadprobeError, match="holds no label map"):
        external.map_folder(folder(tmp_path, *names))


def test_a_folder_is_no_csv_and_a_csv_no_folder(tmp_path):
    file = tmp_path / "x.csv"
    file.write_text(GOOD)
    with pytest.raises(RadprobeError, match="is no folder"):
        external.map_folder(file)
    with pytest.raises(RadprobeError, match="is no file"):
        external.read_scores(tmp_path, ENTRY.classes, OTHERS, CLASSES)


# --- identity ---------------------------------------------------------------------------------------------------------


def test_the_identity_is_that_of_the_content(tmp_path):
    one = folder(tmp_path / "one", "d.png", "e.png", "plans.json")
    before = external.identity(one)
    assert external.identity(folder(tmp_path / "two", "d.png", "e.png")) == before  # wherever it lies
    (one / "plans.json").write_text("other")
    os.utime(one / "d.png", (1, 1))
    assert external.identity(one) == before
    (one / "d.png").write_bytes(b"D.png")  # as long as before
    assert external.identity(one) != before
    (one / "d.png").write_bytes(b"d.png")
    assert external.identity(one) == before
    (one / "e.png").rename(one / "f.png")
    assert external.identity(one) != before
    assert external.identity(tmp_path / "none") is None


def test_a_csv_is_known_by_its_bytes(tmp_path):
    for name, content in (("a.csv", GOOD), ("b.csv", GOOD), ("c.csv", GOOD + "\n")):
        (tmp_path / name).write_text(content)
    a, b, c = (external.identity(tmp_path / f"{name}.csv") for name in "abc")
    assert a == b != c
