from pathlib import Path

import nibabel
import numpy as np
import pytest
from datasets import own_folders
from imaging.dicom_files import SECRETS, write, write_series
from PIL import Image

from radprobe.files import RadprobeError
from radprobe.imaging import reading
from radprobe.survey import matching
from radprobe.survey.proposal import decide
from radprobe.survey.survey import survey


def made(tmp_path, layout):
    root = tmp_path / "mine"
    root.mkdir()
    own_folders.LAYOUTS[layout](root)
    return survey(root)


@pytest.mark.parametrize(
    ("layout", "column", "how", "form", "n"),
    [
        ("films", "path", matching.EXACT, "PNG", 48),
        ("named_loosely", "Image Index", matching.NAME, "PNG", 24),
        ("several_findings", "Image Index", matching.NAME, "PNG", 24),
        ("dicom_films", "file", matching.EXACT, "DICOM", 48),
        ("series_of_patients", "patient_id", matching.FOLDER, "DICOM series", 12),
    ],
)
def test_the_column_that_names_the_images_is_found(tmp_path, layout, column, how, form, n):
    found = made(tmp_path, layout)
    assert (found.listing.column, found.listing.how) == (column, how)
    assert set(found.forms.values()) == {form}
    assert len(found.forms) == len(found.listing.images) == n
    assert all(one.header for one in found.seen)


def films_of_classes(root):
    for k in range(12):
        (root / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 5), k, np.uint8)).save(root / "ab"[k % 2] / f"{k}.png")


@pytest.mark.parametrize(
    ("content", "why"),
    [("path,label\na/0.png,Müll\n".encode("cp1252"), "UTF-8"), (b"path,label\na/0.png,1,2\n", "line 2")],
)
def test_a_table_that_cannot_be_read_is_said_and_nothing_is_guessed_instead(tmp_path, content, why):
    films_of_classes(tmp_path)
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(RadprobeError, match=rf"labels\.csv.*{why}"):
        survey(tmp_path)
    rows = "".join(f"{'ab'[k % 2]}/{k}.png,{k // 2},{k % 2}\n" for k in range(12))
    (tmp_path / "sound.csv").write_text(f"path,patient,ill\n{rows}")
    found = survey(tmp_path)
    assert found.listing.table.path.name == "sound.csv"
    assert any("labels.csv" in warning and "cannot be read" in warning for warning in decide(found).warnings)


def numbered_folders(root, table, patients=12):
    """<k>/<2k-1>.png and <k>/<2k>.png, so that 2 is a folder, and the name of a film of another."""
    rng = np.random.default_rng(0)
    for k in range(1, patients + 1):
        for n in (2 * k - 1, 2 * k):
            own_folders.film(root / f"{k}/{n}.png", rng, k % 2)
    own_folders.table(root, table(patients))


def test_a_number_that_names_a_folder_and_a_film_elsewhere_is_the_folder_where_all_are(tmp_path):
    numbered_folders(tmp_path, lambda n: [{"patient": k, "label": "ab"[k % 2]} for k in range(1, n + 1)])
    proposal = decide(survey(tmp_path))
    assert len(proposal.rows) == 24
    for row in proposal.rows:
        folder = int(row["path"].split("/")[0])
        assert (row["patient"], row["label"]) == (str(folder), "ab"[folder % 2])


def test_a_number_that_names_a_film_and_a_folder_elsewhere_is_the_film_where_all_are(tmp_path):
    numbered_folders(tmp_path, lambda n: [{"film": k, "label": "ab"[k % 2]} for k in range(1, 2 * n + 1)])
    found = survey(tmp_path)
    assert found.listing.how == matching.NAME
    assert {
        paths[0]: line.cells["film"] for line in found.listing.lines for paths in [found.listing.images[line.number]]
    } == {path: path.split("/")[1].removesuffix(".png") for path in found.forms}


@pytest.mark.parametrize("by_folder", [True, False])
def test_a_table_in_a_folder_speaks_of_that_folder(tmp_path, by_folder):
    """Two sites have the same names, and each its own table, with other labels."""
    rng = np.random.default_rng(0)
    for site, n in (("A", 12), ("B", 8)):
        for k in range(n):
            own_folders.film(tmp_path / site / (f"P{k}/0.png" if by_folder else f"{k}.png"), rng, 0)
        name = {"patient": "P{k}"} if by_folder else {"file": "{k}.png"}
        rows = [{key: text.format(k=k) for key, text in name.items()} | {"label": f"{site}{k % 2}"} for k in range(n)]
        own_folders.table(tmp_path / site, rows)
    proposal = decide(survey(tmp_path))
    assert {row["path"].split("/")[0] for row in proposal.rows} == {"A"}
    assert len(proposal.rows) == 12
    assert proposal.choice["folder"]["classes"] == ["A0", "A1"]
    assert any("B/labels.csv lists 8 other image(s), and is not used" in each for each in proposal.warnings)
    assert any(each.what == "path" and "A/labels.csv" in each.chosen for each in proposal.decisions)


def test_a_table_of_a_folder_says_nothing_of_films_of_the_same_names_above_it(tmp_path):
    rows = own_folders.films(tmp_path)
    for row in rows:
        own_folders.film(tmp_path / "more" / row["path"], np.random.default_rng(1), 0)
    own_folders.table(tmp_path / "more", [row | {"ill": 1 - row["ill"]} for row in rows])
    found = survey(tmp_path)
    assert found.listing.table.path == tmp_path / "labels.csv"
    assert found.listing.how == matching.EXACT


@pytest.mark.parametrize("by_folder", [True, False])
def test_a_row_whose_image_is_gone_takes_none_of_another_folder(tmp_path, by_folder):
    rng = np.random.default_rng(0)
    for site, here in (("A", range(9)), ("B", range(12))):
        for k in here:
            own_folders.film(tmp_path / site / (f"P{k}/0.png" if by_folder else f"{k}.png"), rng, 0)
    key = "patient" if by_folder else "file"
    rows = [{key: f"P{k}" if by_folder else f"{k}.png", "label": "ab"[k % 2]} for k in range(12)]
    own_folders.table(tmp_path / "A", rows)
    proposal = decide(survey(tmp_path))
    assert {row["path"].split("/")[0] for row in proposal.rows} == {"A"}
    assert len(proposal.rows) == 9
    assert any("3 of 12 rows of the table name no image" in each for each in proposal.warnings)


def test_two_rows_of_one_image_are_told_by_their_lines_also_beside_the_table(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(9):
        own_folders.film(tmp_path / f"A/{k}.png", rng, 0)
    own_folders.table(tmp_path / "A", [{"file": f"{k}.png", "label": k % 2} for k in (*range(9), 4)])
    with pytest.raises(RadprobeError, match=r"line 11, column 'file': 'A/4\.png' is also in line 6"):
        decide(survey(tmp_path))


def test_names_that_several_images_have_are_told(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("original", "resized"):
        for k in range(9):
            own_folders.film(tmp_path / folder / f"{k}.png", rng, 0)
    own_folders.table(tmp_path, [{"file": f"{k}.png", "side": "left"} for k in range(9)])
    proposal = decide(survey(tmp_path))
    told = "'0.png' is the name of 2 images: original/0.png, resized/0.png. write their paths, with the folders"
    assert any(told in each for each in proposal.warnings)


def test_a_training_log_is_no_table_of_images(tmp_path):
    rows = own_folders.films(tmp_path)
    for k, row in enumerate(rows):
        (tmp_path / row["path"]).rename(tmp_path / f"{k}.png")
        row["path"] = f"{k}.png"
    own_folders.table(tmp_path, rows)
    own_folders.table(tmp_path, [{"epoch": k, "loss": 1 / (1 + k)} for k in range(48)], "history.csv")
    assert survey(tmp_path).listing.table.path.name == "labels.csv"


def test_masks_among_images_are_no_images(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(12):
        for name in ("pa", "lateral", "lesion_mask"):
            own_folders.film(tmp_path / f"P{k}/{name}.png", rng, 0)
    own_folders.table(tmp_path, [{"patient": f"P{k}", "label": "ab"[k % 2]} for k in range(12)])
    proposal = decide(survey(tmp_path))
    assert {row["path"].split("/")[1] for row in proposal.rows} == {"pa.png", "lateral.png"}
    assert len(proposal.rows) == 24


def test_dicom_files_without_pixels_are_no_images_and_told(tmp_path):
    for k in range(12):
        (tmp_path / f"P{k}").mkdir()
        write(tmp_path / f"P{k}/film", np.full((9, 9), k, np.uint8), Modality="DX")
        write(tmp_path / f"P{k}/report", np.zeros((9, 9), np.uint8), without=["PixelData"], Modality="SR")
    own_folders.table(tmp_path, [{"patient": f"P{k}", "label": "ab"[k % 2]} for k in range(12)])
    proposal = decide(survey(tmp_path))
    assert [row["path"] for row in proposal.rows] == [f"P{k}/film" for k in range(12)]
    assert any("12 DICOM file(s) hold no image, as P0/report, and are left out" in each for each in proposal.warnings)


def test_what_cells_mean_is_looked_up_and_not_searched_for():
    """Each of many files of one name is found by its folders, in as many steps as it has folders."""
    paths = [f"train/patient{k}/study1/view1_frontal.jpg" for k in range(20_000)]
    names = matching.Names(Path("/data"), paths)
    found = [names.file(f"CheXpert-v1.0/{path}", "") for path in paths]
    assert found == [(matching.NAME, path) for path in paths]
    assert names.file("view1_frontal.jpg", "") is None
    assert names.file("patient7/study1/view1_frontal", "") == (matching.NAME, paths[7])


def test_another_table_of_the_same_images_is_refused_unless_it_is_a_copy(tmp_path):
    rows = own_folders.films(tmp_path)
    own_folders.table(tmp_path, rows[::-1], "labels - Copy.csv")
    assert survey(tmp_path).listing
    own_folders.table(tmp_path, [row | {"ill": 1 - row["ill"]} for row in rows], "labels - Copy.csv")
    with pytest.raises(
        RadprobeError, match=r"labels - Copy\.csv: names 48 images that labels\.csv .* names, too"
    ) as error:
        survey(tmp_path)
    assert "--table FILE" in error.value.remedy
    assert survey(tmp_path, tmp_path / "labels.csv").listing.table.path.name == "labels.csv"


def test_a_table_that_names_no_image_is_told_where_folders_are_classes(tmp_path):
    films_of_classes(tmp_path)
    own_folders.table(tmp_path, [{"file": "x.png", "site": "north"}], "other.csv")
    proposal = decide(survey(tmp_path))
    assert proposal.choice["folder"]["classes"] == ["a", "b"]
    assert any("other.csv is not used: no column of it (file, site) names the 12" in each for each in proposal.warnings)


def test_a_column_of_numbers_that_are_names_of_files_by_chance_is_refused(tmp_path):
    rng, rows = np.random.default_rng(0), []
    for k in range(12):
        own_folders.film(tmp_path / f"{k}.png", rng, 0)
        rows.append({"image": f"img{k}", "slices": 11 - k, "label": "ab"[k % 2]})
    own_folders.table(tmp_path, rows)
    with pytest.raises(RadprobeError, match=r"line 2, column 'slices': is a number, and 11\.png is called so") as error:
        decide(survey(tmp_path))
    assert "`path`" in error.value.remedy
    own_folders.table(tmp_path, [{"image id": row["slices"], "label": row["label"]} for row in rows])
    assert len(decide(survey(tmp_path)).rows) == 12


def test_another_table_that_lists_other_images_is_told(tmp_path):
    rows = own_folders.films(tmp_path)
    own_folders.table(tmp_path, rows[:30], "train.csv")
    own_folders.table(tmp_path, rows[30:], "test.csv")
    (tmp_path / "labels.csv").unlink()
    found = decide(survey(tmp_path))
    assert any("test.csv lists 18 other image(s), and is not used" in warning for warning in found.warnings)
    assert any(each.what == "path" and "train.csv" in each.chosen for each in found.decisions)


def test_masks_are_those_of_the_same_name(tmp_path):
    found = made(tmp_path, "nifti_pairs")
    assert found.masks == {f"imagesTr/case_{k:02d}_0000.nii.gz": (f"labelsTr/case_{k:02d}.nii.gz",) for k in range(12)}
    assert found.labels == (0, 1, 2)
    assert [path for path in found.forms if path not in found.masks] == ["imagesTs/case_99_0000.nii.gz"]
    assert found.volumes
    assert not found.hounsfield


def test_masks_are_those_that_a_table_names_whatever_they_are_called(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for k in range(12):
        own_folders.film(tmp_path / f"a/{k}.png", rng, 1)
        Image.fromarray(np.tile(np.arange(4, dtype=np.uint8), (70, 15))).save(tmp_path / f"a/x{k}.png")
        rows.append({"path": f"a/{k}.png", "patient": k, "mask": f"a/x{(k + 1) % 12}.png"})
    own_folders.table(tmp_path, rows)
    found = survey(tmp_path)
    assert found.masks == {row["path"]: (row["mask"],) for row in rows}
    assert set(found.forms) == set(found.masks)
    assert found.labels == (0, 1, 2, 3)
    proposal = decide(found)
    assert (proposal.choice["folder"]["task"], proposal.choice["folder"]["mask"]) == ("segmentation", "mask")
    assert proposal.rows is None


@pytest.mark.parametrize(
    ("content", "classes", "modality"),
    [
        ('{"labels": {"0": "background", "1": "spleen", "2": "cyst"}, "modality": {"0": "MRI"}}', "spleen cyst", "MRI"),
        ('{"labels": {"background": 0, "cyst": 2, "spleen": 1}, "channel_names": {"0": "CT"}}', "spleen cyst", "CT"),
        ('{"labels": ["spleen"]}', None, None),
        ("{", None, None),
    ],
)
def test_labels_are_called_as_dataset_json_calls_them(tmp_path, content, classes, modality):
    own_folders.nifti_pairs(tmp_path)
    (tmp_path / "dataset.json").write_text(content)
    found = survey(tmp_path)
    assert found.modality == modality
    assert decide(found).choice["folder"]["classes"] == (classes.split() if classes else ["label 1", "label 2"])


def test_masks_that_cannot_be_read_are_told(tmp_path):
    own_folders.films_with_masks(tmp_path)
    (tmp_path / "masks/3_mask.png").write_bytes((tmp_path / "masks/3_mask.png").read_bytes()[:60])
    found = survey(tmp_path)
    assert list(found.bad_masks) == ["masks/3_mask.png"]
    proposal = decide(found)
    assert any("1 file(s) cannot be used" in each and "3_mask.png" in each for each in proposal.warnings)
    assert proposal.choice["max_quarantine"] == 1


def masks_of(root, sides, side=60):
    """Films of 70 x 60, each with a mask of 70 x `side`; the first `sides` are of that width, others of 60."""
    own_folders.films_with_masks(root)
    for k in range(sides):
        path = root / f"masks/{k}_mask.png"
        Image.fromarray(np.asarray(Image.open(path))[:, :side]).save(path)


def test_masks_of_another_size_than_their_image_are_set_aside_or_refused_where_they_are_many(tmp_path):
    masks_of(tmp_path / "few", 2, 50)
    proposal = decide(survey(tmp_path / "few"))
    assert proposal.choice["max_quarantine"] == 2
    assert any("the mask is (70, 50), its image (70, 60)" in each for each in proposal.warnings)
    masks_of(tmp_path / "many", 20, 50)
    with pytest.raises(RadprobeError, match=r"the mask is \(70, 50\).*; 20 of 24 images cannot be used") as error:
        decide(survey(tmp_path / "many"))
    assert error.value.remedy.startswith("draw the mask on the image as it is")


def test_masks_that_nobody_asks_about_make_no_image_unfit(tmp_path):
    masks_of(tmp_path, 20, 50)
    rows = [{"path": f"images/{k}.png", "patient": k, "ill": k % 2} for k in range(20)]
    own_folders.table(tmp_path, rows)
    proposal = decide(survey(tmp_path), "binary")
    assert "max_quarantine" not in proposal.choice
    own_folders.table(tmp_path, [{"path": f"images/{k}.png", "patient": k} for k in range(20, 24)])
    proposal = decide(survey(tmp_path))
    assert (proposal.choice["folder"]["task"], len(proposal.rows)) == ("segmentation", 4)
    assert "max_quarantine" not in proposal.choice


def test_each_header_is_read_once(tmp_path, monkeypatch):
    own_folders.films_with_masks(tmp_path)
    read, probe = [], reading.probe
    monkeypatch.setattr(reading, "probe", lambda path: read.append(path) or probe(path))
    survey(tmp_path)
    assert len(read) == len(set(read)) == 48


def test_masks_of_volumes_lie_on_their_grid(tmp_path):
    own_folders.nifti_pairs(tmp_path)
    path = tmp_path / "labelsTr/case_03.nii.gz"
    labels = np.asarray(nibabel.load(path).dataobj)
    turned = nibabel.Nifti1Image(labels[::-1], own_folders.AFFINE @ [[-1, 0, 0, 19], [0, 1, 0, 0], *np.eye(4)[2:]])
    nibabel.save(turned, path)
    assert not survey(tmp_path).bad_masks
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), path)
    assert list(survey(tmp_path).bad_masks) == ["labelsTr/case_03.nii.gz"]


def test_a_label_is_no_mask_although_an_image_is_called_so(tmp_path):
    rng, rows = np.random.default_rng(0), []
    for k in range(12):
        own_folders.film(tmp_path / f"{k}.png", rng, 0)
        rows.append({"path": f"{k}.png", "patient": f"p{k}", "label": f"{k % 2}.png"})
    own_folders.table(tmp_path, rows)
    found = survey(tmp_path)
    assert (found.listing.column, found.listing.mask, found.masks) == ("path", None, {})


def test_a_label_that_is_in_few_masks_leaves_classes_without_any_and_that_is_told(tmp_path):
    own_folders.nifti_pairs(tmp_path)
    path = tmp_path / "labelsTr/case_03.nii.gz"
    image = nibabel.load(path)
    labels = np.asarray(image.dataobj).copy()
    labels[0, 0, 0] = 5
    nibabel.save(nibabel.Nifti1Image(labels, image.affine), path)
    proposal = decide(survey(tmp_path))
    assert any(each.startswith("label 3, label 4: no mask that was looked at has this") for each in proposal.warnings)


def test_masks_that_belong_to_no_image_are_told(tmp_path):
    own_folders.films_with_masks(tmp_path)
    (tmp_path / "masks/3_mask.png").rename(tmp_path / "masks/drei_mask.png")
    assert survey(tmp_path).lone_masks == ("masks/drei_mask.png",)
    warnings = decide(survey(tmp_path)).warnings
    assert any("1 mask(s), as masks/drei_mask.png, belong to no image by their names" in each for each in warnings)
    assert any("1 of 24 images have no mask" in each for each in warnings)
    for path in (tmp_path / "masks").iterdir():
        path.rename(path.with_name(f"of {path.name}"))
    with pytest.raises(RadprobeError, match=r"24 masks, as masks/of 0_mask\.png, have the name of no image") as error:
        decide(survey(tmp_path))
    assert "call each mask as its image" in error.value.remedy


def test_of_very_many_images_the_headers_of_some_are_read(tmp_path, monkeypatch):
    own_folders.films(tmp_path)
    monkeypatch.setattr("radprobe.survey.survey.MAX_HEADERS", 5)
    found = survey(tmp_path)
    assert len({one.path for one in found.seen}) == 5
    assert len(found.forms) == 48


def many_masks(root, n=120):
    """Films with masks; each third mask holds the label 2 as well."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for k in range(n):
        Image.fromarray(np.full((6, 5), k, np.uint8)).save(root / f"images/{k:03d}.png")
        mask = np.zeros((6, 5), np.uint8)
        mask[1], mask[2] = 1, 2 * (k % 3 == 1)
        Image.fromarray(mask).save(root / f"masks/{k:03d}.png")


def test_all_masks_are_looked_at_where_they_are_small(tmp_path):
    many_masks(tmp_path)
    found = survey(tmp_path)
    assert (found.labels, found.unread_masks) == ((0, 1, 2), 0)


def test_of_many_large_masks_some_are_looked_at_and_that_is_said(tmp_path, monkeypatch):
    many_masks(tmp_path)
    monkeypatch.setattr("radprobe.survey.survey.MASK_PIXELS", 100)
    found = survey(tmp_path)
    assert found.labels == (0, 1, 2)  # those of every third mask, too
    assert found.unread_masks == 80
    proposal = decide(found)
    assert any("40 of 120 were looked at" in each.why for each in proposal.decisions)
    assert any("40 of 120 masks were looked at" in warning for warning in proposal.warnings)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/a.png", "masks/a.png"),
        ("a.png", "a_mask.png"),
        ("benign/benign (1).png", "benign/benign (1)_mask.png"),
        ("P1/image.nii.gz", "P1/seg.nii.gz"),
        ("imagesTr/liver_1_0000.nii.gz", "labelsTr/liver_1.nii.gz"),
        ("CXR_png/x_1.png", "ManualMask/x_1.png"),
        ("scans/s07", "annotations/s07.nii"),
    ],
)
def test_pairs_of_names(image, mask):
    other = image.replace("1", "2").replace("a.png", "b.png").replace("s07", "s08")
    assert matching.is_mask(mask)
    assert not matching.is_mask(image)
    assert matching.pairs([image, other], [mask])[image] == (mask,)


def test_a_table_that_names_slices_one_by_one_keeps_them_apart(tmp_path):
    own_folders.series_of_patients(tmp_path / "mine", 4)
    names = sorted(path.name for path in (tmp_path / "mine/P0/series").iterdir())
    rows = [{"path": f"P{k}/series/{name}", "patient": k, "ill": k % 2} for k in range(4) for name in names]
    own_folders.table(tmp_path / "mine", rows)
    assert set(survey(tmp_path / "mine").forms.values()) == {"DICOM"}


def two_series(folder, first=9, second=9):
    """A folder with the slices of two series, those of the first before the others."""
    for k, n in enumerate((first, second)):
        write_series(folder.with_name("one"), np.zeros((6, 5, n), np.int16), own_folders.AFFINE, seed=k)
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.with_name("one").iterdir():
            path.rename(folder / f"{'ab'[k]}{path.name}")
        folder.with_name("one").rmdir()


@pytest.mark.parametrize(("first", "second"), [(9, 9), (1, 40), (70, 1), (1, 1)])
def test_several_series_in_one_folder_are_never_films(tmp_path, first, second):
    for k in range(4):
        (tmp_path / f"P{k}").mkdir()
        two_series(tmp_path / f"P{k}/all", first, second)
    own_folders.table(tmp_path, [{"patient": f"P{k}", "label": k % 2} for k in range(4)])
    found = survey(tmp_path)
    if first == second == 1:  # two single slices
        assert set(found.forms.values()) == {"DICOM"}
        return
    assert set(found.forms) == {f"P{k}/all" for k in range(4)}
    with pytest.raises(RadprobeError, match=r"P0/all: holds 2 series .*; 4 of 4 images cannot be used") as error:
        decide(found)
    assert "give each series a folder of its own" in error.value.remedy


def test_slices_of_series_in_the_folder_itself_are_refused(tmp_path):
    two_series(tmp_path / "all")
    with pytest.raises(RadprobeError, match="holds 18 DICOM files that are slices of series, as aIM") as error:
        survey(tmp_path / "all")
    assert "give each series a folder of its own" in error.value.remedy
    rows = [{"path": path.name, "patient": k, "ill": k % 2} for k, path in enumerate((tmp_path / "all").iterdir())]
    own_folders.table(tmp_path / "all", rows)
    assert len(survey(tmp_path / "all").forms) == 18


def test_several_series_in_one_folder_below_are_refused_as_in_the_root(tmp_path):
    (tmp_path / "dcm").mkdir()
    two_series(tmp_path / "dcm")
    with pytest.raises(RadprobeError, match=r"dcm: holds 18 DICOM files that are slices of series"):
        survey(tmp_path)


def test_a_table_that_lists_a_slice_of_each_series_is_told_to_list_folders(tmp_path):
    own_folders.series_of_patients(tmp_path)
    slices = [next((tmp_path / f"P{k}/series").iterdir()).relative_to(tmp_path).as_posix() for k in range(12)]
    own_folders.table(tmp_path, [{"file": path, "ill": k % 2} for k, path in enumerate(slices)])
    with pytest.raises(RadprobeError, match="names the 12 image") as error:
        decide(survey(tmp_path))
    assert "write the folder of each series into a column `path`" in error.value.remedy


@pytest.mark.parametrize("column", ["patient", "slices"])
def test_numbers_in_a_table_name_no_slices_that_are_called_by_numbers(tmp_path, column):
    for k in range(1, 7):
        (tmp_path / f"{k}").mkdir()
        folder = write_series(tmp_path / f"{k}/s", np.zeros((6, 5, 6), np.int16), own_folders.AFFINE)
        for path in folder.iterdir():
            path.rename(path.with_name(f"{int(path.stem[2:]) + 1}.dcm"))
    rows = [{"patient": k, "slices": 7 - k, "label": k % 2} for k in range(1, 7)]
    own_folders.table(tmp_path, [{key: row[key] for key in ("patient", *{column}, "label")} for row in rows])
    assert set(survey(tmp_path).forms) == {f"{k}/s" for k in range(1, 7)}


def test_a_label_names_no_slice(tmp_path):
    for k in range(4):
        (tmp_path / f"P{k}").mkdir()
        folder = write_series(tmp_path / f"P{k}/s", np.zeros((6, 5, 6), np.int16), own_folders.AFFINE)
        for path in folder.iterdir():
            path.rename(path.with_name(f"{int(path.stem[2:])}.dcm"))
    own_folders.table(tmp_path, [{"patient": f"P{k}", "label": k % 2} for k in range(4)])
    assert set(survey(tmp_path).forms) == {f"P{k}/s" for k in range(4)}


def test_kinds_modalities_and_damage_are_seen_and_nobody_is_named(tmp_path):
    own_folders.dicom_films(tmp_path / "mine")
    (tmp_path / "mine/IM0_0").write_bytes((tmp_path / "mine/IM0_0").read_bytes()[:-50])
    write(tmp_path / "mine/us", np.zeros((9, 9), np.uint8), Modality="US")
    with (tmp_path / "mine/labels.csv").open("a") as table:
        table.write("us,case99,well\n")
    (tmp_path / "mine/more.xlsx").touch()
    (tmp_path / "mine/.hidden.png").touch()
    found = survey(tmp_path / "mine")
    by_path = {one.path: one for one in found.seen}
    assert "cut off" in by_path["IM0_0"].error.reason
    assert by_path["us"].modality == "ultrasound"
    assert by_path["us"].text_possible
    assert by_path["IM1_0"].modality == "X-ray"
    assert found.others == {".xlsx": 1}
    assert found.modality == "X-ray"
    assert not found.hounsfield
    for secret in SECRETS.values():
        assert secret not in repr(found)


def test_hounsfield_units_are_known_by_air(tmp_path):
    own_folders.nifti_pairs(tmp_path / "mine")
    for path in (tmp_path / "mine/imagesTr").iterdir():
        image = nibabel.load(path)
        values = np.asarray(image.dataobj) - 1200
        nibabel.save(nibabel.Nifti1Image(values, image.affine), path)
    assert survey(tmp_path / "mine").hounsfield


@pytest.mark.parametrize("names", [[], ["notes.txt", "films.zip"]])
def test_a_folder_without_images_is_refused(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(RadprobeError, match="no image that can be read"):
        survey(tmp_path)
    with pytest.raises(RadprobeError, match="is no folder"):
        survey(tmp_path / "absent")
