import csv
import io
import os
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imaging.dicom_files import write, write_series
from PIL import Image

from radprobe import datasets
from radprobe.artifacts import Index
from radprobe.datasets import decoding, raw
from radprobe.datasets.csv_table import NOT_KNOWN
from radprobe.files import RadprobeError
from radprobe.manifests import Place
from radprobe.splitting import splits
from radprobe.study import Study

AFFINE = np.array([[0, -0.8, 0, 10], [0.7, 0, 0, -20], [0, 0, 2.5, 5], [0, 0, 0, 1.0]])
PATIENTS = [f"p{k}" for k in range(12)]


def entry(**columns):
    columns = {"task": "binary", "classes": ["ill"]} | columns
    params = {"study": "own", "datasets": {"mine": {"folder": columns}}, "backbones": ["test_vit"]}
    return Study(params).dataset("mine")


def samples(root, own, allow_missing=False):
    layout = datasets.locate(own, root)
    return datasets.loader(own).samples(layout, own, allow_missing)


def film(path, value=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 5), value, np.uint8)).save(path)


def table(root, rows, name="labels.csv"):
    pd.DataFrame(rows).to_csv(root / name, index=False)


def films(root, **changes):
    """Write 12 films of 12 patients in two folders, and their CSV; return its rows."""
    rows = []
    for k, patient in enumerate(PATIENTS):
        film(root / f"site {k % 2}" / f"{k}.png", 10 + k)
        rows.append({"path": f"site {k % 2}/{k}.png", "patient": patient, "ill": k % 3 == 0} | changes)
    for row in rows:
        row["ill"] = int(row["ill"])
    table(root, rows)
    return rows


# --- what the CSV may hold --------------------------------------------------------------------------------------------


def test_films_become_samples_of_their_patients(tmp_path):
    rows = films(tmp_path)
    rows[0] |= {"ill": -1}
    rows[1] |= {"ill": ""}
    rows = [row | {"Age": "058Y", "sex": "F", "note": "x"} for row in rows]
    table(tmp_path, rows)
    index = samples(tmp_path, entry())
    by_patient = index.table.set_index("patient_id")
    assert sorted(by_patient.index) == sorted(PATIENTS)
    for k, row in enumerate(rows):
        found = by_patient.loc[row["patient"]]
        assert found["image"] == row["path"]
        np.testing.assert_equal(found["label:ill"], [-1, np.nan][k] if k < 2 else row["ill"])
        assert (found["sample_id"], found["volume_id"]) == (f"site_{k % 2}_{k}",) * 2
    assert set(index.table["meta:age"]) == {58.0}
    assert set(index.table["meta:sex"]) == {"F"}
    assert "meta:view" not in index.table
    assert "meta:note" not in index.table
    assert index.facts["partial"] is False
    split = splits.make_split(index, entry().splits["study"], "study", 0)
    assert set(split.table["part"]) == {"train", "val", "test"}


def test_without_the_csv_there_is_no_layout(tmp_path):
    assert datasets.locate(entry(), tmp_path) is None


def test_multiclass_and_several_labels(tmp_path):
    rows = [row | {"label": ["benign", "malignant tumour", "none"][k % 3]} for k, row in enumerate(films(tmp_path))]
    table(tmp_path, rows)
    classes = ["none", "benign", "malignant tumour"]
    index = samples(tmp_path, entry(task="multiclass", classes=classes))
    assert index.classes == classes
    found = index.table.set_index("patient_id")
    for row in rows:
        assert [found.loc[row["patient"], f"label:{name}"] for name in classes] == [row["label"] == c for c in classes]
    table(tmp_path, [row | {"Edema": "1.0", "Mass": "0"} for row in rows])
    index = samples(tmp_path, entry(task="multilabel", classes=["Mass", "Edema"]))
    assert (index.labels() == [0, 1]).all()


@pytest.mark.parametrize(
    ("text", "part"),
    [("Train", "train"), ("training", "train"), ("VALID", "val"), ("dev", "val"), ("Testing", "test")],
)
def test_a_given_split_is_used(tmp_path, text, part):
    rows = [row | {"fold": "test"} for row in films(tmp_path)]
    rows[3]["fold"] = text
    table(tmp_path, rows)
    own = entry(split="fold")
    index = samples(tmp_path, own)
    assert index.table.set_index("patient_id").loc["p3", "meta:list"] == part
    parts = splits.make_split(index, own.splits["study"], "study", 0).table.set_index("patient_id")["part"]
    assert parts["p3"] == part
    assert parts["p0"] == "test"


DIALECTS = st.fixed_dictionaries(
    {
        "delimiter": st.sampled_from(",;\t|"),
        "end": st.sampled_from(["\n", "\r\n", "\r"]),
        "bom": st.booleans(),
        "pad": st.sampled_from(["", " ", "  "]),
        "separator": st.sampled_from(["/", "\\"]),
        "excel": st.booleans(),
        "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        "tail": st.sampled_from(["", "\n", "\r\n\r\n"]),
        "order": st.permutations(["path", "patient", "ill", "note"]),
    }
)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder of films, the rows of its CSV, and their samples."""
    root = tmp_path_factory.mktemp("own")
    rows = [row | {"note": 'a, "b"; c|d'} for row in films(root)]
    return root, rows, samples(root, entry()).table


@settings(max_examples=60, deadline=None)
@given(dialect=DIALECTS)
def test_however_a_program_writes_the_csv_it_means_the_same(own, dialect):
    root, rows, expected = own
    text = io.StringIO()
    writer = csv.writer(text, delimiter=dialect["delimiter"], quoting=dialect["quoting"], lineterminator=dialect["end"])
    pad = dialect["pad"]
    writer.writerow([f"{pad}{name}{pad}" for name in dialect["order"]])
    for row in rows:
        row = row | {"path": row["path"].replace("/", dialect["separator"])}
        # spaces before a quoted cell are part of no dialect
        writer.writerow([row[name] if name == "note" else f"{pad}{row[name]}{pad}" for name in dialect["order"]])
    first = f"sep={dialect['delimiter']}{dialect['end']}" * dialect["excel"]
    content = first + text.getvalue() + dialect["tail"]
    (root / "labels.csv").write_bytes(b"\xef\xbb\xbf" * dialect["bom"] + content.encode())
    pd.testing.assert_frame_equal(samples(root, entry()).table, expected)


@pytest.mark.parametrize(
    ("text", "years"), [("058Y", 58), ("006M", 0.5), ("26w", 0.498), ("10 D", 0.0274), ("58,5", 58.5), ("7", 7)]
)
def test_ages_are_read_in_years(tmp_path, text, years):
    table(tmp_path, [row | {"age": text} for row in films(tmp_path)])
    assert samples(tmp_path, entry()).table["meta:age"].tolist() == pytest.approx([years] * 12, rel=1e-3)


def test_cells_that_excel_was_made_to_keep_as_text_are_that_text(tmp_path):
    rows = films(tmp_path)
    lines = ["path,patient,ill", *(f'{row["path"]},"=""00{k}""",{row["ill"]}' for k, row in enumerate(rows))]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    assert set(samples(tmp_path, entry()).table["patient_id"]) == {f"00{k}" for k in range(12)}


def test_the_line_that_names_the_delimiter_is_counted(tmp_path):
    rows = films(tmp_path)
    lines = ["sep=;", "path;patient;ill", *(f"{row['path']};{row['patient']};{row['ill']}" for row in rows)]
    (tmp_path / "labels.csv").write_text("\n".join([*lines, "a.png;x"]))
    with pytest.raises(RadprobeError, match=rf"labels\.csv, line {len(lines) + 1}: has 2 cells, the header 3"):
        samples(tmp_path, entry())


@pytest.mark.parametrize(
    ("row", "remedy"),
    [("a.png;x;1", "separate its cells by ','"), ("a.png,x,1,2", "put quotes around cells that hold ','")],
)
def test_a_row_of_another_number_of_cells_says_what_to_do(tmp_path, row, remedy):
    table(tmp_path, [{name: each[name] for name in ("path", "patient", "ill")} for each in films(tmp_path)])
    with (tmp_path / "labels.csv").open("a") as handle:
        handle.write(f"{row}\n")
    with pytest.raises(RadprobeError) as error:
        samples(tmp_path, entry())
    assert remedy in error.value.remedy


@pytest.mark.parametrize("cell", sorted(NOT_KNOWN))
def test_what_programs_write_for_not_known_is_not_known(tmp_path, cell):
    rows = [row | {"age": "50", "sex": "F"} for row in films(tmp_path)]
    table(tmp_path, [row | dict.fromkeys(("ill", "age", "sex"), cell) if k == 3 else row for k, row in enumerate(rows)])
    unknown = samples(tmp_path, entry()).table.set_index("image").loc[rows[3]["path"]]
    assert unknown[["label:ill", "meta:age", "meta:sex"]].isna().all()
    known = samples(tmp_path, entry()).table.set_index("image").drop(index=rows[3]["path"])
    assert known[["label:ill", "meta:age", "meta:sex"]].notna().all(axis=None)


@settings(deadline=None)
@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=8, unique=True))
def test_ids_are_fit_for_paths_and_tell_names_apart(names):
    ids = raw.ids(names)
    assert len({one.lower() for one in ids.values()}) == len(names)
    for one in ids.values():
        assert os.fspath(Path("x", one).relative_to("x")) == one
        assert one.isascii()
        assert not set(one) & set('/\\:*?"<>| \0')
        assert not one.startswith(".")
    assert raw.ids(names[::-1]) == ids


def test_names_that_differ_by_suffix_or_odd_characters_are_different_cases(tmp_path):
    names = ["a/b.png", "a/b.jpg", "a b.png", "a_b.png", "1.2.840.10.png", "1.2.840.11.png"]
    for name in names:
        film(tmp_path / name)
    table(tmp_path, [{"path": name, "patient": k, "ill": 0} for k, name in enumerate(names)])
    found = samples(tmp_path, entry()).table
    assert found["sample_id"].nunique() == len(names)
    assert {"1.2.840.10", "1.2.840.11"} < set(found["sample_id"])


def test_an_absolute_path_is_fine_inside_the_raw_folder(tmp_path):
    rows = films(tmp_path / "own")
    expected = samples(tmp_path / "own", entry()).table
    for base in (tmp_path / "own", tmp_path / "own" / "site 0" / ".."):
        table(tmp_path / "own", [row | {"path": f"{base}/{row['path']}"} for row in rows])
        pd.testing.assert_frame_equal(samples(tmp_path / "own", entry()).table, expected)
    (tmp_path / "link").symlink_to(tmp_path / "own")
    pd.testing.assert_frame_equal(samples(tmp_path / "link", entry()).table, expected)


@pytest.mark.parametrize(
    ("ids", "groups"),
    [
        (["P1", "p1", "P2"], [("P1", "p1")]),
        (["007", "7", "70", "7.0"], [("007", "7", "7.0")]),
        (["A01-2", "a1-02", "A01-3"], [("A01-2", "a1-02")]),
        (["0", "00", "1"], [("0", "00")]),
        (["10", "1", "100", "P10", "p 10"], []),
    ],
)
def test_ids_that_may_be_one_patient_are_said_and_stay_apart(tmp_path, capsys, ids, groups):
    rows = films(tmp_path)
    table(tmp_path, [{**row, "patient": patient} for row, patient in zip(rows, [*ids, *"vwxyz"], strict=False)])
    index = samples(tmp_path, entry())
    assert set(ids) <= set(index.table["patient_id"])
    said = capsys.readouterr().out
    assert ("warning" in said) == bool(groups)
    assert all(" and ".join(group) in said for group in groups)
    assert [text.split()[0] for text in index.facts["warnings"]] == [str(len(groups))] * bool(groups)
    assert not any(patient in text for text in index.facts["warnings"] for group in groups for patient in group[1:])


# --- what is wrong with it --------------------------------------------------------------------------------------------


def change(k, **cells):
    return lambda rows: [row | cells if number == k else row for number, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("edit", "where", "reason", "remedy"),
    [
        (lambda rows: [{"patients" if k == "patient" else k: v for k, v in row.items()} for row in rows],
         "labels.csv", "has no column 'patient'", "did you mean patients?"),
        (change(4, patient=""), "line 6, column 'patient'", "is empty", "keeps a patient's images in one part"),
        (change(4, patient=" "), "line 6, column 'patient'", "is empty", "keeps a patient's images in one part"),
        (change(4, ill="yes"), "line 6, column 'ill'", "unknown label 'yes'", "write 1 "),
        (change(4, ill="2"), "line 6, column 'ill'", "unknown label '2'", "write 1 "),
        (change(4, ill="inf"), "line 6, column 'ill'", "unknown label 'inf'", "write 1 "),
        (change(4, ill="1,0"), "line 6, column 'ill'", "unknown label '1,0'", "write 1 "),
        (change(4, patient="NA"), "line 6, column 'patient'", "is empty, or NA", "keeps a patient's images"),
        (change(4, path=""), "line 6, column 'path'", "is empty", "or remove the row"),
        (change(4, path="site 0/99.png"), "line 6, column 'path'", "is not there", "datasets.mine.allow_missing"),
        (change(4, path="../other/4.png"), "line 6, column 'path'", "outside the raw folder", "datasets.mine.raw"),
        (change(4, path="/etc/hosts"), "line 6, column 'path'", "outside the raw folder", "datasets.mine.raw"),
        (change(4, path="C:\\data\\4.png"), "line 6, column 'path'", "outside the raw folder", "datasets.mine.raw"),
        (change(4, path="."), "line 6, column 'path'", "outside the raw folder", "datasets.mine.raw"),
        (change(4, path="./site 0/2.png"), "line 6, column 'path'", "is also in line 4", "remove one"),
        (lambda rows: [*rows, rows[2]], "line 14, column 'path'", "is also in line 4", "remove one"),
        (lambda rows: [row | {"age": "old"} for row in rows], "line 2, column 'age'", "unknown age 'old'", "years"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_line_and_column(tmp_path, edit, where, reason, remedy):
    table(tmp_path, edit(films(tmp_path)))
    with pytest.raises(RadprobeError) as error:
        samples(tmp_path, entry())
    assert error.value.what.startswith(str(tmp_path / "labels.csv"))
    assert error.value.what.endswith(where)
    assert reason in error.value.reason
    assert remedy in error.value.remedy


@pytest.mark.parametrize(
    ("columns", "extra", "where", "reason"),
    [
        ({"task": "multiclass", "classes": ["benign", "other"]}, {"label": "bening"}, "column 'label'", "'bening'"),
        ({"task": "multiclass", "classes": ["benign", "other"]}, {"label": ""}, "column 'label'", "is empty"),
        ({"split": "part"}, {"part": "holdout"}, "line 2, column 'part'", "unknown part 'holdout'"),
        ({"split": "part"}, {"part": ""}, "line 2, column 'part'", "is empty"),
        ({"split": "part"}, {}, "labels.csv", "has no column 'part'"),
        ({"task": "segmentation"}, {"mask": ""}, "column 'mask'", "is empty"),
        ({"task": "segmentation"}, {"mask": "m.png"}, "column 'mask'", "'m.png' is not there"),
        ({"patient": "who"}, {}, "labels.csv", "has no column 'who'"),
    ],
)
def test_faults_of_optional_columns_are_named(tmp_path, columns, extra, where, reason):
    films(tmp_path, **extra)
    with pytest.raises(RadprobeError) as error:
        samples(tmp_path, entry(**columns))
    assert where in error.value.what
    assert reason in error.value.reason


def test_an_unknown_class_names_the_nearest(tmp_path):
    films(tmp_path, label="bening")
    with pytest.raises(RadprobeError) as error:
        samples(tmp_path, entry(task="multiclass", classes=["benign", "other"]))
    assert "did you mean benign?" in error.value.remedy


def test_a_patient_in_two_parts_is_named_with_both_lines(tmp_path):
    rows = [row | {"split": "train"} for row in films(tmp_path)]
    rows[7] |= {"split": "test", "patient": "p2"}
    table(tmp_path, rows)
    with pytest.raises(RadprobeError, match="patient p2 is in test here, and in train in line 4") as error:
        samples(tmp_path, entry(split="split"))
    assert "line 9, column 'split'" in error.value.what
    assert len(samples(tmp_path, entry()).table) == 12  # our own split keeps patients together


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"path,patient,ill\n", "has no row"),
        (b"path,patient,ill\na.png,1\n", "has 2 cells, the header 3"),
        (b"path,patient,ill\na.png,1,0,5\n", "has 4 cells, the header 3"),
        (b'path,patient,ill\n"a.png,1,0\n', "is no CSV table"),
        (b"path,patient,ill\n\xfc.png,1,0\n", "is no UTF-8 text"),
        (b"path,patient,ill,ill\na.png,1,0,1\n", "has twice the column 'ill'"),
    ],
)
def test_what_is_no_such_table_is_explained(tmp_path, content, reason):
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(RadprobeError) as error:
        samples(tmp_path, entry())
    assert reason in error.value.reason


def test_absent_files_are_left_out_and_counted_where_that_is_allowed(tmp_path):
    rows = films(tmp_path)
    for row in rows[::4]:
        (tmp_path / row["path"]).unlink()
    index = samples(tmp_path, entry(), allow_missing=True)
    assert (len(index.table), index.facts["n_absent"], index.facts["n_listed"]) == (9, 3, 12)
    assert index.facts["partial"] is True
    table(tmp_path, change(0, ill="maybe")(rows))
    with pytest.raises(RadprobeError, match="unknown label"):  # of a row whose file is absent, too
        samples(tmp_path, entry(), allow_missing=True)


# --- formats ----------------------------------------------------------------------------------------------------------


def volume(path, seed=0, shape=(9, 8, 5), labels=False):
    values = np.random.default_rng(seed).integers(0, 3 if labels else 900, shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)
    return values


def test_volumes_of_all_kinds_give_slices_with_the_labels_repeated(tmp_path):
    volume(tmp_path / "a.nii.gz")
    volume(tmp_path / "b.nii", 1)
    write_series(tmp_path / "series", np.random.default_rng(2).integers(-900, 900, (9, 8, 6)), AFFINE)
    write(tmp_path / "film.dcm", np.arange(42, dtype=np.uint16).reshape(6, 7))
    write(tmp_path / "IM0001", np.arange(42, dtype=np.uint16).reshape(6, 7))
    names = ["a.nii.gz", "b.nii", "series", "film.dcm", "IM0001"]
    table(tmp_path, [{"path": name, "patient": k, "ill": k % 2} for k, name in enumerate(names)])
    index = samples(tmp_path, entry())
    counts = index.table.groupby("volume_id").size().to_dict()
    assert counts == {"a": 5, "b": 5, "series": 6, "film": 1, "IM0001": 1}
    assert (index.table.groupby("volume_id")["label:ill"].nunique() == 1).all()
    assert index.table["patient_id"].tolist() == sorted(index.table["patient_id"], key=["4", "0", "1", "3", "2"].index)
    affines = index.table.set_index("volume_id")["affine"]
    np.testing.assert_allclose(np.reshape(affines["a"].iloc[0], (4, 4)), AFFINE)
    assert affines["film"] == []
    for picture in decoding.pictures(index, tmp_path):
        decoded = decoding.decode(picture, entry().decoding, 16)
        assert len(decoded.images) == len(picture.rows) == counts[picture.rows[0].volume_id]


def test_volumes_whose_names_look_like_slices_stay_whole(tmp_path):
    """scan_0001 is what the second slice of `scan` would be called: names must not meet, nor stand in between."""
    names = ["scan.nii.gz", "scan_0001.nii.gz", "scan_00.nii.gz", "Scan_0002.png", "scan_0003.png"]
    for k, name in enumerate(names):
        if name.endswith("png"):
            film(tmp_path / name, k)
        else:
            nibabel.save(nibabel.Nifti1Image(np.full((5, 4, 120), k, np.uint8), np.eye(4)), tmp_path / name)
    table(tmp_path, [{"path": name, "patient": name, "ill": 0} for name in names])
    index = samples(tmp_path, entry())
    pictures = decoding.pictures(index, tmp_path)
    assert [len(picture.rows) for picture in pictures].count(120) == 3
    assert len(pictures) == len(names)
    assert all([row.slice for row in picture.rows] == list(range(len(picture.rows))) for picture in pictures)


def test_slices_follow_the_studys_choice(tmp_path):
    values = volume(tmp_path / "a.nii", shape=(4, 6, 9))
    sagittal = np.array([[0, 0, 1.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(values, sagittal), tmp_path / "a.nii")
    table(tmp_path, [{"path": "a.nii", "patient": 1, "ill": 0}])
    assert len(samples(tmp_path, entry()).table) == 6  # axial: the second stored axis
    assert len(samples(tmp_path, entry().model_copy(update={"slices": "paper"})).table) == 9


def test_masks_of_films_and_of_volumes(tmp_path):
    own = entry(task="segmentation", classes=["organ", "tumour"])
    film(tmp_path / "x.png", 9)
    Image.fromarray(np.tile([0, 1, 2, 2, 0], (6, 1)).astype(np.uint8)).save(tmp_path / "x_mask.png")
    volume(tmp_path / "v.nii.gz")
    labels = {"v": volume(tmp_path / "v_mask.nii.gz", 3, labels=True)}
    write_series(tmp_path / "s", np.random.default_rng(2).integers(-900, 900, (9, 8, 5)), AFFINE)
    labels["s"] = volume(tmp_path / "s_mask.nii.gz", 4, labels=True)
    rows = [
        {"path": path, "patient": path, "mask": mask}
        for path, mask in [("x.png", "x_mask.png"), ("v.nii.gz", "v_mask.nii.gz"), ("s", "s_mask.nii.gz")]
    ]
    table(tmp_path, rows)
    index = samples(tmp_path, own)
    assert index.classes == []
    for picture in decoding.pictures(index, tmp_path):
        decoded = decoding.decode(picture, own.decoding, 16)
        case = picture.rows[0].volume_id
        assert len(decoded.masks) == len(picture.rows)
        if case == "v":
            np.testing.assert_array_equal(decoded.labels, labels["v"])
        else:
            assert set(np.unique(decoded.labels)) == {0, 1, 2}


def test_a_row_without_mask_is_left_out_only_where_that_is_allowed(tmp_path):
    rows = [row | {"mask": row["path"]} for row in films(tmp_path)]
    rows[5]["mask"] = ""
    table(tmp_path, rows)
    own = entry(task="segmentation")
    with pytest.raises(RadprobeError, match="is empty"):
        samples(tmp_path, own)
    assert samples(tmp_path, own, allow_missing=True).facts["n_absent"] == 1


def test_films_with_text_in_their_pixels_are_counted(tmp_path):
    for k in range(2):
        write(tmp_path / f"{k}.dcm", np.full((6, 5), k, np.int16), BurnedInAnnotation=("NO", "YES")[k])
    table(tmp_path, [{"path": f"{k}.dcm", "patient": k, "ill": k} for k in range(2)])
    own = entry()
    found = [
        decoding.decode(each, own.decoding, 16).oddities for each in decoding.pictures(samples(tmp_path, own), tmp_path)
    ]
    assert [decoding.BURNED_IN in oddities for oddities in found] == [False, True]


def test_an_image_is_no_mask_of_a_volume(tmp_path):
    volume(tmp_path / "v.nii.gz")
    film(tmp_path / "m.png", 1)
    table(tmp_path, [{"path": "v.nii.gz", "patient": "p", "mask": "m.png"}])
    index = samples(tmp_path, entry(task="segmentation", classes=["organ"]))
    bad = decoding.check(decoding.pictures(index, tmp_path)[0])
    assert (bad.file.name, bad.why) == ("m.png", "is an image, but what it belongs to is a volume")


@pytest.mark.parametrize(("patients", "warned"), [("abc", True), ("aab", False)])
def test_a_mask_of_several_patients_is_doubted_but_not_one_of_several_images_of_a_patient(
    tmp_path, capsys, patients, warned
):
    rows = [row | {"mask": f"{k}.png"} for k, row in enumerate(films(tmp_path)[:3])]
    for row, patient in zip(rows, patients, strict=True):
        film(tmp_path / row["mask"], 1)
        row["patient"] = patient
    rows[1]["mask"] = "0.png"
    table(tmp_path, rows)
    index = samples(tmp_path, entry(task="segmentation"))
    assert ("0.png in lines 2 and 3" in capsys.readouterr().out) == warned
    assert len(index.facts["warnings"]) == warned


def test_a_damaged_volume_is_left_to_prepare(tmp_path):
    volume(tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes()[:200])
    table(tmp_path, [{"path": f"{name}.nii.gz", "patient": name, "ill": 1} for name in "ab"])
    index = samples(tmp_path, entry())
    assert index.table.groupby("volume_id").size().to_dict() == {"a": 5, "b": 1}
    assert isinstance(decoding.check(decoding.pictures(index, tmp_path)[1]), decoding.Bad)


def test_the_index_survives_being_stored(tmp_path):
    index = samples_of_films(tmp_path)
    with tempfile.TemporaryDirectory() as folder:
        index.save(Place(Path(folder), "key"))
        pd.testing.assert_frame_equal(Index.load(Path(folder)).table, index.table)


def samples_of_films(root):
    films(root, age=60, view="PA")
    return samples(root, entry())
