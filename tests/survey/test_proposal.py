import re

import numpy as np
import pytest

from radprobe.datasets.csv_table import Line, Table
from radprobe.files import RadprobeError
from radprobe.imaging.values import Header
from radprobe.survey import matching
from radprobe.survey.proposal import decide
from radprobe.survey.survey import Seen, Survey


def surveyed(tmp_path, rows=None, paths=(), masks=(), header=None, **facts):
    """A survey of PNG films of these paths (those of the rows), without any file."""
    paths = list(paths) or [row["path"] for row in rows]
    tables, listing = [], None
    if rows:
        lines = [Line(k, {name: str(cell) for name, cell in row.items()}) for k, row in enumerate(rows, 2)]
        tables = [Table(tmp_path / "labels.csv", list(rows[0]), lines)]
        listing = matching.listing(tmp_path, tables, paths, list(masks))
    header = header or Header((300, 280), np.uint8)
    seen = [Seen(path, "PNG", header) for path in paths]
    forms = dict.fromkeys(paths, "PNG")
    return Survey(tmp_path, forms, seen, matching.pairs(paths, masks), listing=listing, tables=tables, **facts)


def rows_of(n=40, **columns):
    """Rows of n patients; a column may be a function of the patient's number."""
    return [
        {"path": f"{k}.png", "patient": f"p{k}"} | {name: of(k) if callable(of) else of for name, of in columns.items()}
        for k in range(n)
    ]


def warned(proposal, words):
    return any(words in warning for warning in proposal.warnings)


@pytest.mark.parametrize(
    ("columns", "task", "classes"),
    [
        ({"ill": lambda k: k % 2}, "binary", ["ill"]),
        ({"Mass": lambda k: k % 2, "Edema": lambda k: (k % 3) - 1}, "multilabel", ["Mass", "Edema"]),
        ({"label": lambda k: "abc"[k % 3]}, "multiclass", ["a", "b", "c"]),
        ({"grade": lambda k: k % 11}, "multiclass", [str(k) for k in range(11)]),
        ({"tumour": lambda k: ("none", "big")[k % 2]}, "multiclass", ["big", "none"]),
        ({"sex": lambda k: "FM"[k % 2], "age": 50, "ill": lambda k: k % 2}, "binary", ["ill"]),
        ({"smoker": lambda k: k % 2, "diagnosis": lambda k: "abc"[k % 3]}, "multiclass", ["a", "b", "c"]),
        ({"ill": lambda k: k % 2, "always": 1}, "binary", ["ill"]),
        ({"fold": lambda k: k // 2 % 2, "is_test": lambda k: k % 2, "Edema": lambda k: k % 2}, "binary", ["Edema"]),
        ({"set": lambda k: ("site", "else")[k % 2], "Edema": lambda k: k % 2}, "binary", ["Edema"]),
        ({"No Finding": lambda k: k % 2, "Edema": lambda k: 1 - k % 2}, "multilabel", ["No Finding", "Edema"]),
    ],
)
def test_the_task_follows_from_the_columns_and_the_table_is_used_as_it_is(tmp_path, columns, task, classes):
    proposal = decide(surveyed(tmp_path, rows_of(**columns)))
    folder = proposal.choice["folder"]
    assert (folder["task"], folder["classes"]) == (task, classes)
    assert proposal.rows is None
    assert (folder["table"], folder["path"], folder["patient"]) == ("labels.csv", "path", "patient")
    assert all(each.why for each in proposal.decisions)


@pytest.mark.parametrize(
    ("columns", "classes", "cells"),
    [
        ({"ill": lambda k: ("no", "Yes")[k % 2]}, ["ill"], [{"ill": "0"}, {"ill": "1"}]),
        (
            {"Finding Labels": lambda k: ("No Finding", "B|A", "A")[k % 3]},
            ["A", "B"],
            [{"A": "0", "B": "0"}, {"A": "1", "B": "1"}, {"A": "1", "B": "0"}],
        ),
    ],
)
def test_labels_in_other_words_are_written_anew(tmp_path, columns, classes, cells):
    proposal = decide(surveyed(tmp_path, rows_of(**columns)))
    assert proposal.choice["folder"]["classes"] == classes
    for row, expected in zip(proposal.rows, cells, strict=False):
        assert expected.items() <= row.items()
    assert {row["patient"] for row in proposal.rows} == {f"p{k}" for k in range(40)}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"comorbidities": lambda k: ("HTN;DM", "DM", "HTN")[k % 3]}, "comorbidities"),
        ({"fold": lambda k: k // 2 % 2, "is_test": lambda k: k // 3 % 2}, None),
        ({"smoker": lambda k: k // 2 % 2, "ward": lambda k: "AB"[k // 3 % 2]}, "smoker, ward"),
    ],
)
@pytest.mark.parametrize("label_first", [True, False])
def test_a_column_that_is_called_label_goes_first_and_others_are_told(tmp_path, more, told, label_first):
    label = {"label": lambda k: k % 2}
    columns = {**label, **more} if label_first else {**more, **label}
    proposal = decide(surveyed(tmp_path, rows_of(**columns)))
    folder = proposal.choice["folder"]
    assert (folder["task"], folder["classes"]) == ("binary", ["label"])
    assert warned(proposal, f"the labels are those of label; also possible: {told} (") if told else True
    assert warned(proposal, "also possible") == bool(told)


def test_a_cell_with_folders_means_no_file_of_the_same_name_elsewhere(tmp_path):
    rows = [{"path": f"train/{k:03d}.png", "ill": k % 2} for k in range(20)]
    here = [f"{part}/{k:03d}.png" for part in ("train", "test") for k in range(20)]
    found = surveyed(tmp_path, rows, [path for path in here if path != "train/003.png"])
    assert {path for paths in found.listing.images.values() for path in paths} == {*here[:20]} - {"train/003.png"}
    assert surveyed(tmp_path, rows, here[20:]).listing is None
    elsewhere = [{**row, "path": f"/home/her/data/{row['path']}"} for row in rows]
    assert len(surveyed(tmp_path, elsewhere, here).listing.images) == 20


def test_a_mask_that_is_not_here_is_not_replaced_by_that_of_another_site(tmp_path):
    cells = [(site, k) for site in "AB" for k in range(10)]
    rows = [{"path": f"{s}/images/{k}.png", "patient": f"{s}{k}", "mask": f"{s}/masks/{k}_m.png"} for s, k in cells]
    masks = [row["mask"] for row in rows if row["mask"] != "B/masks/3_m.png"]
    found = surveyed(tmp_path, rows, masks=masks)
    (line,) = {line.number for line in found.listing.lines} - {*found.listing.masks}
    assert rows[line - 2]["path"] == "B/images/3.png"
    assert len({*found.listing.masks.values()}) == 19


@pytest.mark.parametrize("cell", ["", "holdout"])
def test_a_split_column_that_cannot_be_used_is_told_with_its_cell_and_line(tmp_path, cell):
    split = lambda k: cell if k == 5 else ("train", "train", "val", "test")[k % 4]  # noqa: E731
    proposal = decide(surveyed(tmp_path, rows_of(ill=lambda k: k // 4 % 2, split=split)))
    assert proposal.choice["folder"].get("split") is None
    assert warned(proposal, f"column 'split' is not used as the split: '{cell}' in line 7 is none of")
    assert any("column 'split' cannot be used" in each.why for each in proposal.decisions)


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("split", ("trn", "tst")),
        ("split", "012"),
        ("fold", "01234"),
        ("is_test", "01"),
        ("Set", ("train", "test", "x")),
    ],
)
def test_a_split_in_other_words_is_told_and_not_denied(tmp_path, name, cell):
    rows = rows_of(ill=lambda k: k % 2, **{name: lambda k: cell[k % len(cell)]})
    proposal = decide(surveyed(tmp_path, rows))
    assert warned(proposal, f"column '{name}' is not used as the split")
    assert not any("there is no split column" in each.why for each in proposal.decisions)


def test_a_column_without_a_name_is_no_split(tmp_path):
    rows = [{"": k, "#": k, **row} for k, row in enumerate(rows_of(ill=lambda k: k % 2))]  # as pandas writes an index
    proposal = decide(surveyed(tmp_path, rows))
    assert not warned(proposal, "not used as the split")
    assert any("there is no split column" in each.why for each in proposal.decisions)


def test_a_second_column_that_names_the_images_is_told_and_the_one_that_is_called_so_is_taken(tmp_path):
    rows = [{"No": k, "file": 39 - k, "patient": k, "label": "ab"[k % 2]} for k in range(40)]
    proposal = decide(surveyed(tmp_path, rows, paths=[f"{k}.png" for k in range(40)]))
    assert any(each.what == "path" and "'file'" in each.chosen for each in proposal.decisions)
    assert warned(proposal, "column(s) No, patient name as many images in another order: 'file' is taken")
    assert {row["path"]: row["label"] for row in proposal.rows}["39.png"] == "a"


def test_a_table_without_a_header_is_refused(tmp_path):
    rows = [{"0.png": f"{k}.png", "p0": f"p{k}", "1": k % 2} for k in range(1, 40)]
    with pytest.raises(RadprobeError, match=r"labels\.csv, line 1: is no header: '0.png' is an image"):
        surveyed(tmp_path, rows, paths=[f"{k}.png" for k in range(40)])


@pytest.mark.parametrize("folder", ["images", "PNG"])
def test_one_folder_in_each_class_is_no_patient(tmp_path, folder):
    paths = [f"{name}/{folder}/{k:03d}.png" for name in ("ill", "well") for k in range(12)]
    proposal = decide(surveyed(tmp_path, paths=paths))
    assert len({row["patient"] for row in proposal.rows}) == 24
    assert warned(proposal, "no patient column")


def test_labels_of_minus_1_are_not_known_and_that_is_said(tmp_path):
    proposal = decide(surveyed(tmp_path, rows_of(Mass=lambda k: (0, 1, 0, 1, -1)[k % 5])))
    assert proposal.choice["uncertain"] == "ignore"
    assert any(each.why.startswith("8 label(s) are -1") for each in proposal.decisions)
    assert "uncertain" not in decide(surveyed(tmp_path, rows_of(Mass=lambda k: k % 2))).choice


def test_a_blank_cell_of_findings_is_not_known_and_never_0(tmp_path):
    cells = ("No Finding", "Mass|Effusion", "", "Mass", " | ")
    proposal = decide(surveyed(tmp_path, rows_of(Findings=lambda k: cells[k % 5])))
    assert proposal.choice["folder"]["classes"] == ["Effusion", "Mass"]
    labels = [(row["Mass"], row["Effusion"]) for row in proposal.rows[:5]]
    assert labels == [("0", "0"), ("1", "1"), ("", ""), ("1", "0"), ("", "")]
    assert warned(proposal, "16 of 40 images have a blank label or NA (Findings): taken as not known, never as 0")


@pytest.mark.parametrize("words", [(0, 1, ""), ("no", "yes", "")])
def test_blank_labels_are_counted(tmp_path, words):
    proposal = decide(surveyed(tmp_path, rows_of(30, ill=lambda k: words[k % 3])))
    assert warned(proposal, "10 of 30 images have a blank label or NA (ill)")
    assert not proposal.rows or [row["ill"] for row in proposal.rows[:3]] == ["0", "1", ""]
    assert not warned(decide(surveyed(tmp_path, rows_of(ill=lambda k: k % 2))), "blank")


def test_images_of_no_known_class_are_left_out(tmp_path):
    rows = rows_of(40, label=lambda k: ("well", "ill", "")[k % 3 if k < 9 else k % 2], smoker=lambda k: k % 2)
    proposal = decide(surveyed(tmp_path, rows))
    assert proposal.choice["folder"]["classes"] == ["ill", "well"]
    assert warned(proposal, "3 of 40 images have a blank label or NA (label), and are left out")
    assert [row["path"] for row in proposal.rows] == [row["path"] for row in rows if row["label"]]


def test_the_user_may_say_the_task(tmp_path):
    found = surveyed(tmp_path, rows_of(label=lambda k: "abc"[k % 3], Mass=lambda k: k % 2))
    assert warned(decide(found), "--task binary")
    assert decide(found, "binary").choice["folder"]["classes"] == ["Mass"]
    with pytest.raises(RadprobeError, match="nothing in it says that the task is segmentation") as error:
        decide(found, "segmentation")
    assert "multiclass, binary" in error.value.remedy


# --- patients and parts -----------------------------------------------------------------------------------------------


def test_without_a_patient_column_each_image_is_one_and_leakage_is_feared(tmp_path):
    rows = [{"path": f"{k}.png", "ill": k % 2} for k in range(40)]
    proposal = decide(surveyed(tmp_path, rows))
    assert [row["patient"] for row in proposal.rows] == [str(k) for k in range(40)]
    assert warned(proposal, "no patient column")
    assert not warned(decide(surveyed(tmp_path, rows_of(ill=lambda k: k % 2))), "no patient column")


def test_a_split_column_is_used(tmp_path):
    parts = ("train", "Training", "valid", "test")
    proposal = decide(surveyed(tmp_path, rows_of(80, ill=lambda k: k // 4 % 2, fold=lambda k: parts[k % 4])))
    assert proposal.choice["folder"]["split"] == "fold"
    assert proposal.rows is None


def test_a_split_without_val_keeps_its_test_and_val_has_all_classes(tmp_path):
    proposal = decide(surveyed(tmp_path, rows_of(ill=lambda k: k // 2 % 2, set=lambda k: ("train", "test")[k % 2])))
    by_part = {part: [row for row in proposal.rows if row["split"] == part] for part in ("train", "val", "test")}
    assert {row["path"] for row in by_part["test"]} == {f"{k}.png" for k in range(1, 40, 2)}
    assert all({row["ill"] for row in rows} == {"0", "1"} for rows in by_part.values())
    assert len(by_part["val"]) == 4


@pytest.mark.parametrize(
    ("split", "words"),
    [(lambda k: ("train", "val", "test")[k % 3], "into two parts, as p0"), (lambda k: "train", "there is only train")],
)
def test_a_split_that_leaks_or_tests_nothing_is_not_used(tmp_path, split, words):
    rows = [row | {"patient": f"p{k // 2}"} for k, row in enumerate(rows_of(ill=lambda k: k // 2 % 2, split=split))]
    proposal = decide(surveyed(tmp_path, rows))
    assert proposal.choice["folder"].get("split") is None
    assert warned(proposal, words)


@pytest.mark.parametrize(
    ("path", "patient"),
    [
        ("data/train/{c}/{k}.png", None),
        ("{c}/P{k}/1.png", "P{k}"),
        ("{c}/{k} Ann/1.png", "{k} Ann"),
        ("{c}/{k}.png", None),
    ],
)
def test_folders_are_classes_parts_and_patients(tmp_path, path, patient):
    paths = [path.format(c=("well", "ill")[k % 2], k=k) for k in range(40)]
    paths = [each.replace("train", "test") if k > 30 else each for k, each in enumerate(paths)]
    proposal = decide(surveyed(tmp_path, paths=paths))
    assert proposal.choice["folder"]["classes"] == ["ill", "well"]
    for k, row in enumerate(proposal.rows):
        assert (row["path"], row["label"]) == (paths[k], ("well", "ill")[k % 2])
        assert row["patient"] == (patient.format(k=k) if patient else paths[k].removesuffix(".png"))
        assert (row.get("split") == "test") == ("test" in paths[k])


@pytest.mark.parametrize("name", ["P{k:03d}", "{k}", "LIDC-IDRI-{k:04d}", "site {k}"])
@pytest.mark.parametrize("inner", ["{view}.png", "study{view}/1.png"])
def test_folders_that_differ_only_by_a_number_are_no_classes(tmp_path, name, inner):
    paths = [f"{name.format(k=k)}/{inner.format(view=view)}" for k in range(6) for view in range(4)]
    with pytest.raises(RadprobeError, match="no table, masks or folders of classes say what is asked") as error:
        decide(surveyed(tmp_path, paths=paths))
    assert f"{name.format(k=0)} and {name.format(k=1)}" in error.value.reason
    assert "CSV" in error.value.remedy


@pytest.mark.parametrize("name", ["grade {k}", "class_{k}", "Stage{k}"])
def test_numbered_folders_that_are_called_classes_are_classes(tmp_path, name):
    paths = [f"{name.format(k=k % 3)}/{k}.png" for k in range(40)]
    folder = decide(surveyed(tmp_path, paths=paths)).choice["folder"]
    assert folder["classes"] == [name.format(k=k) for k in range(3)]


def label_of_folder(k):
    return ("ill", "well")[k % 2]


@pytest.mark.parametrize("path", ["P{k:03d}/{label}/{v}.png", "test/P{k}/{label}/{v}.png", "{label}/P{k}/{v}.png"])
def test_numbered_folders_are_patients_where_others_are_classes(tmp_path, path):
    paths = [path.format(k=k, label=label_of_folder(k), v=v) for k in range(20) for v in range(2)]
    proposal = decide(surveyed(tmp_path, paths=paths))
    assert proposal.choice["folder"]["classes"] == ["ill", "well"]
    assert len({row["patient"] for row in proposal.rows}) == 20
    assert not warned(proposal, "no patient column")


def test_numbered_folders_are_patients_where_masks_or_a_table_say_what_is_asked(tmp_path):
    paths = [f"P{k}/{view}.png" for k in range(20) for view in range(2)]
    masks = [path.replace(".png", "_mask.png") for path in paths]
    rows = [{"path": path, "ill": k // 2 % 2} for k, path in enumerate(paths)]
    for found in (surveyed(tmp_path, paths=paths, masks=masks, labels=(0, 1)), surveyed(tmp_path, rows)):
        proposal = decide(found)
        assert [row["patient"] for row in proposal.rows] == [path.split("/")[0] for path in paths]
        assert not warned(proposal, "no patient column")


@pytest.mark.parametrize("name", ["site{k}", "images_{k:03d}", "fold {k}"])
def test_numbered_folders_that_are_called_otherwise_are_no_patients(tmp_path, name):
    rows = [{"path": f"{name.format(k=k % 4)}/{k}.png", "ill": k // 4 % 2} for k in range(40)]
    proposal = decide(surveyed(tmp_path, rows))
    assert len({row["patient"] for row in proposal.rows}) == 40
    assert warned(proposal, "no patient column")


# --- segmentation, sizes and doubts -----------------------------------------------------------------------------------


def test_masks_make_it_segmentation(tmp_path):
    paths, masks = [f"img/{k}.png" for k in range(40)], [f"mask/{k}.png" for k in range(30)]
    found = surveyed(tmp_path, paths=paths, masks=masks, labels=(0, 1, 3), names={1: "liver", 3: "spleen"})
    proposal = decide(found)
    assert proposal.choice["folder"]["classes"] == ["liver", "label 2", "spleen"]
    assert [row["mask"] for row in proposal.rows] == masks
    assert warned(proposal, "10 of 40 images have no mask")


def test_masks_in_folders_of_classes_allow_both(tmp_path):
    paths = [f"{('benign', 'malignant')[k % 2]}/{k}.png" for k in range(40)]
    masks = [path.replace(".png", "_mask.png") for path in paths]
    found = surveyed(tmp_path, paths=paths, masks=masks, labels=(0, 255))
    assert decide(found).choice["folder"]["classes"] == ["foreground"]
    assert warned(decide(found), "--task multiclass")
    proposal = decide(found, "multiclass")
    assert proposal.choice["folder"]["classes"] == ["benign", "malignant"]
    assert {row["label"] for row in proposal.rows} == {"benign", "malignant"}
    twice = surveyed(tmp_path, paths=paths, masks=[*masks, "benign/0_seg.png"], labels=(0, 255))
    with pytest.raises(RadprobeError, match="has 2 masks"):
        decide(twice)
    assert decide(twice, "multiclass").rows == proposal.rows


@pytest.mark.parametrize(
    ("masks", "labels", "words"),
    [
        (["mask/left/1.png", "mask/right/1.png"], (0, 1), "has 2 masks"),
        (["mask/1.png"], (0,), "are empty"),
        (["mask/1.png"], tuple(range(0, 256, 3)), "grey values"),
    ],
)
def test_masks_that_are_no_label_maps_are_refused(tmp_path, masks, labels, words):
    with pytest.raises(RadprobeError, match=words) as error:
        decide(surveyed(tmp_path, paths=["img/1.png"], masks=masks, labels=labels))
    assert "label map" in error.value.remedy


@pytest.mark.parametrize(("side", "stored"), [(60, 128), (200, 256), (2000, 256)])
def test_images_are_stored_no_larger_than_they_are(tmp_path, side, stored):
    found = surveyed(tmp_path, rows_of(ill=lambda k: k % 2), header=Header((side, side), np.uint8))
    folder = decide(found).choice["folder"]
    assert (folder["size"], folder["stored"]) == (224, stored)


def test_grey_values_follow_from_what_they_are(tmp_path):
    deep, rows = Header((9, 9), np.int16), rows_of(ill=lambda k: k % 2)
    kinds = ({"modality": "X-ray"}, {"modality": "CT", "hounsfield": True}, {"modality": "MRI"})
    found = [decide(surveyed(tmp_path, rows, header=deep, **kind)).choice["folder"]["intensity"] for kind in kinds]
    assert [each["kind"] for each in found] == ["minmax", "window", "percentiles"]


def test_doubts_are_told(tmp_path):
    rows = rows_of(20, Mass=lambda k: int(k < 3), Edema=lambda k: k % 2)
    paths = [*(row["path"] for row in rows), "unlisted.png"]
    found = surveyed(tmp_path, [*rows, {**rows[0], "path": "gone.png"}], paths=paths)
    cut_off = RadprobeError(tmp_path / "0.png", "is cut off", "copy it again")
    found.seen[-1] = Seen("unlisted.png", "PNG", None, cut_off)
    found.seen[0] = Seen("0.png", "PNG", None, cut_off)
    found.seen[1] = Seen("1.png", "PNG", Header((100, 500), np.int16), None, "CT", text_possible=True)
    found.seen[2] = Seen("2.png", "PNG", Header((100, 500), np.int16), None, "MRI")
    found.others.update({".xlsx": 1, ".zip": 2})
    found.forms["3.png"] = "JPEG"
    proposal = decide(found)
    for words in (
        "only 19 patients", "Mass (2)", "0.png: is cut off. copy it again", "modalities are mixed", "depths are mixed",
        "several shapes", "burned into", "spreadsheet", "1 of 21 rows", "1 of 21 images are in no row",
        "formats are mixed: 19 PNG, 1 JPEG", "2 archive(s)",
    ):  # fmt: skip
        assert warned(proposal, words), words
    assert not warned(proposal, "Edema (")
    assert proposal.choice["max_quarantine"] == 1
    assert proposal.choice["allow_missing"] is True


def test_rows_of_absent_images_are_left_out_of_a_table_that_is_written_anew(tmp_path):
    rows = rows_of(ill=lambda k: ("no", "yes")[k % 2])
    proposal = decide(surveyed(tmp_path, rows, paths=[row["path"] for row in rows[:-2]]))
    assert len(proposal.rows) == len(rows) - 2
    assert warned(proposal, "2 of 40 rows of the table name no image, and are left out")


def test_folders_that_a_table_names_are_patients(tmp_path):
    rows = [{"name": f"case {k}", "ill": k % 2} for k in range(20)]
    paths = [f"case {k}/{view}.png" for k in range(20) for view in range(2)]
    proposal = decide(surveyed(tmp_path, rows, paths=paths))
    assert {row["path"]: row["patient"] for row in proposal.rows} == {path: path.split("/")[0] for path in paths}
    assert not warned(proposal, "no patient column")


def test_columns_of_which_each_image_has_one_may_be_classes_and_that_is_said(tmp_path):
    columns = {name: lambda k, at=at: int(k % 3 == at) for at, name in enumerate(("well", "Mass", "Edema"))}
    proposal = decide(surveyed(tmp_path, rows_of(**columns)))
    assert proposal.choice["folder"]["task"] == "multilabel"
    assert any("makes it multiclass" in decision.why for decision in proposal.decisions)


@pytest.mark.parametrize(("n_bad", "refused"), [(1, False), (8, False), (9, True), (40, True)])
def test_some_images_that_cannot_be_used_are_set_aside_and_many_are_refused_with_their_remedy(tmp_path, n_bad, refused):
    found = surveyed(tmp_path, rows_of(ill=lambda k: k % 2))
    error = RadprobeError(tmp_path / "0.png", "holds 2 series", "give each series a folder of its own")
    found.seen[:n_bad] = [Seen(one.path, "PNG", None, error) for one in found.seen[:n_bad]]
    if not refused:
        assert decide(found).choice["max_quarantine"] == n_bad
        assert warned(decide(found), f"{n_bad} file(s) cannot be used and will be set aside")
        return
    with pytest.raises(RadprobeError, match=rf"0\.png: holds 2 series; {n_bad} of 40 images cannot be used") as refusal:
        decide(found)
    assert refusal.value.remedy == f"{error.remedy}; or list the images that you mean in a CSV"


@pytest.mark.parametrize(("side", "told"), [(300, False), (599, False), (601, True)])
def test_images_of_several_sizes_are_told(tmp_path, side, told):
    found = surveyed(tmp_path, rows_of(ill=lambda k: k % 2))
    found.seen[3] = Seen("3.png", "PNG", Header((side, side * 280 // 300), np.uint8))
    assert warned(decide(found), f"images are of several sizes, 300 to {side} pixels") == told


@pytest.mark.parametrize(
    ("rows", "paths", "what", "words"),
    [
        (None, ["a.png", "b.png"], "", "no table, masks or folders"),
        ([{"path": "x.png", "ill": 1}], ["a.png", "b.png"], "labels.csv", "names the 2 image"),
        ([{"path": "a.png", "sex": "F"}], ["a.png"], "labels.csv", "no column of labels"),
        ([{"path": "a.png", "is_test": 1}, {"path": "b.png", "is_test": 0}], [], "labels.csv", "no column of labels"),
        ([{"path": "a.png", "ill": 1}, {"path": "a.png", "ill": 0}], ["a.png"], "line 3", "also in line 2"),
        ([*rows_of(2, ill=lambda k: k), {"path": "2.png", "patient": "", "ill": 0}], [], "line 4", "is empty"),
    ],
)
def test_what_says_nothing_is_refused_with_what_to_do(tmp_path, rows, paths, what, words):
    with pytest.raises(RadprobeError, match=words) as error:
        decide(surveyed(tmp_path, rows, paths=paths))
    assert what in error.value.what
    assert error.value.remedy


def test_a_table_without_labels_is_told_what_to_call_them_and_what_is_there_twice(tmp_path):
    rows = rows_of(size=lambda k: k % 7)
    found = surveyed(tmp_path, rows)
    found.listing.table.columns.extend(["ill", "ill"])
    with pytest.raises(RadprobeError, match="path, patient, size, ill; ill is there twice") as error:
        decide(found)
    assert "If one of these is the label, call it so" in error.value.remedy


@pytest.mark.parametrize("suffix", [".xlsx", ".ods", ".txt"])
def test_where_there_is_no_csv_a_spreadsheet_or_text_is_pointed_at(tmp_path, suffix):
    found = surveyed(tmp_path, paths=["a.png", "b.png"])
    found.others.update({suffix: 1, ".pdf": 1})
    with pytest.raises(RadprobeError, match=rf"\{suffix} files are not read") as error:
        decide(found)
    assert "save it as CSV" in error.value.remedy
    assert ".pdf" not in str(error.value)


# --- cells as people write them ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("blank", ["-", "--", "?", "."])
@pytest.mark.parametrize("cells", [("0", "1"), ("no", "yes"), ("nein", "Ja"), ("1,0", "0,0")])
def test_signs_for_not_known_are_blank_and_told_and_never_a_class(tmp_path, blank, cells):
    cells = (*cells, blank)
    proposal = decide(surveyed(tmp_path, rows_of(label=lambda k: cells[k % 3])))
    assert (proposal.choice["folder"]["task"], proposal.choice["folder"]["classes"]) == ("binary", ["label"])
    written = [row["label"] for row in proposal.rows[:3]]
    assert [float(cell) for cell in sorted(written[:2])] == [0, 1]
    assert written[2] == ""
    assert warned(proposal, "13 of 40 images have a blank label or NA (label)")
    assert any(f"'{blank}' as blank" in each.why for each in proposal.decisions)


def test_of_several_labels_one_with_na_is_no_class_of_its_own(tmp_path):
    cells = ("0", "1", "-")
    rows = rows_of(Mass=lambda k: cells[k % 3], Edema=lambda k: k % 2)
    folder = decide(surveyed(tmp_path, rows)).choice["folder"]
    assert (folder["task"], folder["classes"]) == ("multilabel", ["Mass", "Edema"])


def test_plus_and_minus_are_present_and_absent(tmp_path):
    proposal = decide(surveyed(tmp_path, rows_of(label=lambda k: ("+", "-", "")[k % 3])))
    assert [row["label"] for row in proposal.rows[:3]] == ["1", "0", ""]


@pytest.mark.parametrize(("cells", "fit"), [(("1.0", "0.0"), True), (("1,0", "0,0"), False), (("1", "0,00"), False)])
def test_numbers_of_any_spelling_are_signs(tmp_path, cells, fit):
    proposal = decide(surveyed(tmp_path, rows_of(ill=lambda k: cells[k % 2])))
    assert (proposal.choice["folder"]["task"], proposal.choice["folder"]["classes"]) == ("binary", ["ill"])
    assert (proposal.rows is None) == fit
    assert fit or [float(row["ill"]) for row in proposal.rows[:2]] == [1, 0]


@pytest.mark.parametrize(
    "name", ["pat_nr", "PatientenNr", "Patienten-ID", "pat_id", "ptid", "Subj No", "USUBJID", "PID"]
)
def test_the_column_of_patients_is_known_by_many_names(tmp_path, name):
    rows = [{"path": f"{k}.png", name: f"p{k // 2}", "ill": k // 2 % 2} for k in range(40)]
    folder = decide(surveyed(tmp_path, rows)).choice["folder"]
    assert (folder["patient"], folder["classes"]) == (name, ["ill"])


@pytest.mark.parametrize("name", ["pat_code", "patientcode", "subj_key", "Patient Initials"])
def test_a_column_that_sounds_like_patients_is_no_label_and_told(tmp_path, name):
    rows = [{"path": f"{k}.png", name: f"p{k // 4}", "ill": k // 4 % 2} for k in range(40)]
    proposal = decide(surveyed(tmp_path, rows))
    assert proposal.choice["folder"]["classes"] == ["ill"]
    assert warned(proposal, f"call the right one of {name} `patient`")
    assert not warned(proposal, "also possible")


@pytest.mark.parametrize(
    ("columns", "chosen", "told"),
    [
        ({"case_id": lambda k: k, "patient_code": lambda k: f"p{k // 2}"}, "case_id", "patient_code"),
        ({"patient": lambda k: k, "mrn": lambda k: f"p{k // 2}"}, "patient", "mrn"),
        ({"pid": lambda k: k, "mrn": lambda k: f"p{k // 2}"}, "mrn", None),
        ({"patient": lambda k: f"p{k // 2}", "Patient_2": lambda k: k}, "patient", None),
        ({"SUBJID": lambda k: f"s{k // 4}", "USUBJID": lambda k: f"u{k // 2}"}, "USUBJID", None),
        ({"case": lambda k: k % 2}, None, None),
        ({"PT": lambda k: 10 + k % 7}, None, None),
    ],
)
def test_the_column_of_patients_is_the_one_that_groups_images(tmp_path, columns, chosen, told):
    rows = [
        {"path": f"{k}.png", **{name: of(k) for name, of in columns.items()}, "label": k // 2 % 2} for k in range(40)
    ]
    proposal = decide(surveyed(tmp_path, rows))
    assert proposal.choice["folder"]["classes"] == ["label"]
    (decided,) = (each.chosen for each in proposal.decisions if each.what == "patient")
    assert decided == (f"column '{chosen}'" if chosen else "each image its own")
    assert warned(proposal, "has another patient in each row") == bool(told)
    assert not told or warned(proposal, f"and {told} has not")


@pytest.mark.parametrize("nobody", ["?", "unknown", "Anonymous", "unbekannt"])
def test_a_word_for_nobody_is_no_patient(tmp_path, nobody):
    rows = rows_of(ill=lambda k: k % 2)
    rows[3]["patient"] = nobody
    with pytest.raises(RadprobeError, match=re.escape(f"line 5, column 'patient': is '{nobody}': no patient")):
        decide(surveyed(tmp_path, rows))


def test_a_row_without_image_and_patient_does_not_stop_the_others(tmp_path):
    rows = rows_of(ill=lambda k: k % 2)
    found = surveyed(tmp_path, [*rows, {"path": "Total", "patient": "", "ill": 20}], [row["path"] for row in rows])
    proposal = decide(found)
    assert len(proposal.rows) == 40
    assert warned(proposal, "1 of 41 rows of the table name no image, and are left out")


@pytest.mark.parametrize(("name", "own"), [("age", True), ("Age", True), ("Age_1", False), ("Patient Age", False)])
def test_metadata_of_a_table_that_is_used_as_it_is_are_those_that_are_read(tmp_path, name, own):
    proposal = decide(surveyed(tmp_path, rows_of(ill=lambda k: k % 2, **{name: 50})))
    assert proposal.rows is None
    assert proposal.choice["folder"]["metadata"] == (["age"] if own else [])


def test_of_headers_of_some_images_the_number_of_bad_ones_is_reckoned(tmp_path):
    found = surveyed(tmp_path, rows_of(ill=lambda k: k % 2))
    error = RadprobeError(tmp_path / "0.png", "is cut off", "copy it again")
    found.seen[:] = [Seen("0.png", "PNG", None, error), *found.seen[1:20]]
    proposal = decide(found)
    assert proposal.choice["max_quarantine"] == 2
    assert warned(proposal, "20 of 40 were looked at: raise it if a run finds more")


def test_val_is_taken_although_no_two_patients_are_alike(tmp_path):
    names = "abcdef"
    columns = {name: lambda k, at=at: k >> at & 1 for at, name in enumerate(names)}
    rows = rows_of(40, **columns, set=lambda k: "test" if k % 4 == 3 else "train")
    proposal = decide(surveyed(tmp_path, rows))
    assert sum(row["split"] == "val" for row in proposal.rows) == 6


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"mass": lambda k: 11 if k == 5 else k % 2}, "column 'mass': '11' in line 7 is none of 1, 0, -1 and blank"),
        ({"mass": lambda k: ("yes", "no", "unsure", "")[k % 4 if k < 4 else k % 2]}, "'unsure' in line 4 is none of"),
        ({"mass": lambda k: ("1", "")[k % 2]}, "column 'mass': it holds only 1 and blank; write 1"),
        ({"mass": lambda k: ("x", "")[k % 2]}, "column 'mass': it holds only x and blank; write 1"),
        ({"mass": lambda k: ("-1", "1", "")[k % 3]}, "column 'mass': it holds only 1 and -1 and blank; write 1"),
        ({"slices": lambda k: k % 20}, None),
        ({"always": 1}, None),
    ],
)
def test_a_column_that_is_nearly_a_label_is_told(tmp_path, columns, told):
    proposal = decide(surveyed(tmp_path, rows_of(effusion=lambda k: k % 2, **columns)))
    assert proposal.choice["folder"]["classes"] == ["effusion"]
    assert warned(proposal, "not used as labels: column") == bool(told)
    assert not told or warned(proposal, told)
    with pytest.raises(RadprobeError, match="no column of labels") as error:
        decide(surveyed(tmp_path, rows_of(**columns)))
    assert not told or told.removeprefix("column ") in error.value.reason


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (("Normal", "normal", "ill"), "'Normal', 'normal' are taken for different classes"),
        (("1", "1.0", "2"), "'1', '1.0' are taken for different classes"),
        (("yes", "no", "1", "0"), None),
        (("yes", "no", "rest"), "are classes beside others: if they say yes and no"),
        (("Mass", "Mass, Effusion"), "'Mass, Effusion' may be several findings in a cell"),
        (("1", "2", "1,2"), "'1,2' may be several findings in a cell"),
        (("1", "0", "rest"), "'0', '1' are classes beside others"),
        (("ill", "well", "unknown"), "'unknown' is a class: leave its cells blank"),
        (("Mass", "Effusion", "Mass, Effusion"), "'Mass, Effusion' may be several findings in a cell"),
        (("Mass", "Effusion", "Mass/Effusion"), "'Mass/Effusion' may be several findings in a cell"),
        (("Mass", "no mass", "Mass|Edema"), "'no mass' is a class: if it means that nothing was found"),
        (("ill", "well", "COVID-19"), None),
        (("0", "1", "2"), None),
    ],
)
def test_what_is_odd_about_classes_is_told(tmp_path, classes, told):
    proposal = decide(surveyed(tmp_path, rows_of(label=lambda k: classes[k % len(classes)])))
    odd = ("different classes", "beside others", "is a class", "several findings in")
    assert [each for each in proposal.warnings if any(words in each for words in odd)] == [
        each for each in proposal.warnings if told and told in each
    ]
    assert not told or warned(proposal, told)


@pytest.mark.parametrize("names", [("train", "test", "masks"), ("test", "rest"), ("P00", "P01", "P02", "phantom")])
def test_parts_masks_and_patients_are_no_classes(tmp_path, names):
    paths = [f"{name}/{k}.png" for name in names for k in range(9)]
    with pytest.raises(RadprobeError, match="no table, masks or folders of classes"):
        decide(surveyed(tmp_path, paths=paths))


def test_an_image_beside_folders_of_classes_is_pointed_at(tmp_path):
    paths = [*(f"{name}/{k}.png" for name in ("ill", "well") for k in range(9)), "overview.png"]
    with pytest.raises(RadprobeError, match=r"1 image\(s\), as overview\.png, lie beside the folders"):
        decide(surveyed(tmp_path, paths=paths))


@pytest.mark.parametrize(("columns", "told"), [(["path patient ill"], True), (["a", "b"], False)])
def test_a_table_of_one_column_is_told_to_be_separated(tmp_path, columns, told):
    found = surveyed(tmp_path, paths=["a.png"])
    found.tables.append(Table(tmp_path / "labels.csv", columns, []))
    with pytest.raises(RadprobeError, match="names the 1 image") as error:
        decide(found)
    assert ("separate its columns by a comma" in error.value.remedy) == told
    assert "write the paths of the images into a column `path`" in error.value.remedy


def test_a_first_line_that_is_no_header_is_told(tmp_path):
    rows = [{"Export of today": f"{k}.png", "": k % 2} for k in range(20)]
    with pytest.raises(RadprobeError, match="its first line is read as the header"):
        decide(surveyed(tmp_path, rows, paths=[f"{k}.png" for k in range(20)]))


@pytest.mark.parametrize(
    ("columns", "classes"),
    [
        ({"Geschlecht": lambda k: "mw"[k % 2], "Diagnose": lambda k: "abc"[k % 3]}, ["a", "b", "c"]),
        ({"M/F": lambda k: "MF"[k % 2], "dementia": lambda k: k % 2}, ["dementia"]),
        ({"knee": lambda k: "LR"[k % 2], "level": lambda k: k % 5}, ["0", "1", "2", "3", "4"]),
        ({"male": lambda k: k % 2, "smoker": lambda k: k // 2 % 2}, ["smoker"]),
        ({"patient_died": lambda k: k % 2, "patient_age": 50}, ["patient_died"]),
        ({"patient_outcome": lambda k: ("alive", "dead")[k % 2], "contrast": lambda k: k % 2}, ["alive", "dead"]),
        ({"subject_label": lambda k: f"s{k % 16}", "ill": lambda k: k % 2}, ["ill"]),
        ({"Befund": lambda k: ("positiv", "negativ")[k % 2]}, ["Befund"]),
        ({"Labels": lambda k: ("['Mass', 'Edema']", "['Edema']", "[]")[k % 3]}, ["Edema", "Mass"]),
        ({"label": lambda k: ("1", "2", "1,2")[k % 3]}, ["1", "1,2", "2"]),
    ],
)
def test_a_label_is_what_is_asked_of_an_image(tmp_path, columns, classes):
    proposal = decide(surveyed(tmp_path, rows_of(**columns)))
    assert proposal.choice["folder"]["classes"] == classes


def test_texts_of_each_row_are_no_classes(tmp_path):
    rows = rows_of(findings=lambda k: f"text {k // 2}", ill=lambda k: k % 2)
    proposal = decide(surveyed(tmp_path, [row | {"findings": f"text {k}"} for k, row in enumerate(rows[:30])]))
    assert proposal.choice["folder"]["classes"] == ["ill"]


@pytest.mark.parametrize(
    ("parts", "split"),
    [
        (("training_set", "test_set"), True),
        (("1. Train Data", "2. Test Data"), True),
        (("train_images", "test_images"), True),
        (("Train", "Validate", "Test"), True),
        (("north", "south"), False),
    ],
)
def test_folders_of_parts_go_by_many_names(tmp_path, parts, split):
    paths = [f"{part}/{name}/{k}.png" for part in parts for name in ("ill", "well") for k in range(20)]
    proposal = decide(surveyed(tmp_path, paths=paths))
    assert proposal.choice["folder"]["classes"] == (["ill", "well"] if split else ["north", "south"])
    assert proposal.choice["folder"].get("split") == ("split" if split else None)
    asked = "the folders north, south ... have the same folders in them: ill, well. Are these the classes?"
    assert warned(proposal, asked) != split


def test_kinds_of_images_in_folders_of_classes_are_no_patients(tmp_path):
    paths = [f"{name}/{kind}/{k}.png" for name in ("ill", "well") for kind in ("AP", "LAT", "PA") for k in range(9)]
    proposal = decide(surveyed(tmp_path, paths=paths))
    assert len({row["patient"] for row in proposal.rows}) == 54
    assert warned(proposal, "no patient column")


@pytest.mark.parametrize(("column", "told"), [("study", True), ("MRI ID", True), ("patient", False), ("case", False)])
def test_folders_that_a_table_names_are_patients_and_that_is_doubted_unless_it_says_so(tmp_path, column, told):
    rows = [{column: f"case {k}", "ill": k % 2} for k in range(20)]
    paths = [f"case {k}/{view}.png" for k in range(20) for view in range(2)]
    proposal = decide(surveyed(tmp_path, rows, paths=paths))
    assert len({row["patient"] for row in proposal.rows}) == 20
    assert warned(proposal, f"each folder that '{column}' names is taken as a patient of its own") == told


@pytest.mark.parametrize("column", ["imageid", "Bildnummer", "exam", "record no", "Fall"])
def test_numbers_that_are_called_as_files_are_name_them(tmp_path, column):
    rows = [{column: k, "ill": k % 2} for k in range(20)]
    assert len(decide(surveyed(tmp_path, rows, paths=[f"{k}.png" for k in range(20)])).rows) == 20


def test_a_blank_column_of_patients_is_said_to_be_blank(tmp_path):
    with pytest.raises(RadprobeError, match="line 2, column 'patient': is empty, or NA"):
        decide(surveyed(tmp_path, [row | {"patient": ""} for row in rows_of(ill=lambda k: k % 2)]))


def test_the_path_is_no_split_whatever_it_is_called(tmp_path):
    rows = [{"data": f"{k}.png", "ill": k % 2} for k in range(20)]
    proposal = decide(surveyed(tmp_path, rows, paths=[row["data"] for row in rows]))
    assert not warned(proposal, "is not used as the split")


def test_near_labels_are_not_told_where_a_column_is_called_label(tmp_path):
    proposal = decide(surveyed(tmp_path, rows_of(label=lambda k: k % 2, asa=lambda k: k % 3)))
    assert not warned(proposal, "not used as labels")


# --- folds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "folded"), [(12, True), (299, True), (300, False)])
def test_few_patients_are_to_be_cross_validated_and_the_reason_is_said(tmp_path, n, folded):
    proposal = decide(surveyed(tmp_path, rows_of(n, ill=lambda k: k % 2)))
    assert proposal.choice.get("split") == ({"folds": 5} if folded else None)
    (decision,) = (each for each in proposal.decisions if each.what == "split")
    assert ("5 folds" in decision.chosen) == folded
    assert (f"{n} patients are fewer than 300" in decision.why) == folded
    assert not warned(proposal, "of them in test")  # each of them is


@pytest.mark.parametrize(("positive", "folded"), [(4, False), (5, True), (35, True), (36, False)])
def test_no_folds_where_a_class_has_too_few_patients_with_or_without_it(tmp_path, positive, folded):
    proposal = decide(surveyed(tmp_path, rows_of(40, ill=lambda k: int(k < positive))))
    assert ("split" in proposal.choice) == folded


def test_no_folds_where_the_split_is_given(tmp_path):
    rows = rows_of(40, ill=lambda k: k // 3 % 2, split=lambda k: ("train", "val", "test")[k % 3])
    proposal = decide(surveyed(tmp_path, rows))
    assert "split" not in proposal.choice
    assert proposal.choice["folder"]["split"] == "split"
