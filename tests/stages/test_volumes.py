"""Volumes through prepare and segment: sliced, and back on the grid of their file, whatever its orientation."""

import nibabel
import numpy as np
import pytest
import running
from nibabel import orientations

from radprobe.artifacts import PARTS, Embeddings, Index, Pixels, Predictions, Scores, Split, Truth
from radprobe.artifacts.tables import write_array
from radprobe.commands import export
from radprobe.files import RadprobeError
from radprobe.imaging import resize
from radprobe.manifests import seal
from radprobe.study import Study

MSD = "msd_hippocampus"
CODES = ["RAS", "LPS", "ASL", "PIR", "SAR", "LIP", "IRP", "RSA"]  # how files are stored: all kinds of turns
KNOBS = {"linear": {"learning_rates": [0.03], "epochs": 30, "batch_size": 8}, "unet": None, "few_shot": None}


def write_volumes(raw, rng, n=13, dtype=np.int16):
    """Write n volumes of a box of label 1 and one of label 2, each file turned another way; return the label maps."""
    for name in ("imagesTr", "labelsTr"):
        (raw / "Task04_Hippocampus" / name).mkdir(parents=True)
    truth = {}
    for number in range(n):
        shape = tuple(int(side) for side in rng.integers(18, 30, 3))
        labels = np.zeros(shape, np.uint8)
        low = [int(rng.integers(2, side // 3)) for side in shape]
        labels[tuple(slice(a, a + side // 2) for a, side in zip(low, shape, strict=True))] = 1
        labels[low[0] : low[0] + shape[0] // 2, -low[1] - shape[1] // 4 : -low[1], low[2] :] = 2
        image = (labels * 300.0 + rng.normal(0, 20, shape) + 500).astype(dtype)
        towards = orientations.axcodes2ornt(CODES[number % len(CODES)])
        affine = np.diag([*rng.uniform(0.5, 3, 3), 1])
        case = f"hippocampus_{number:03d}"
        for name, values in (("imagesTr", image), ("labelsTr", labels)):
            turned = nibabel.Nifti1Image(values, affine).as_reoriented(
                orientations.ornt_transform(orientations.axcodes2ornt("RAS"), towards)
            )
            nibabel.save(turned, raw / "Task04_Hippocampus" / name / f"{case}.nii.gz")
        truth[case] = np.asarray(turned.dataobj)
    return truth


def study(root, **choice):
    choice = {"allow_missing": True, "raw": "raw", "size": 160, **choice}
    content = {"study": "s", "paths": {"root": str(root)}, "datasets": {MSD: choice}, "backbones": ["test_vit"]}
    return Study({**content, "segment": KNOBS, "threads": 1, "device": "cpu"})


def run(chosen, *verbs):
    for verb in verbs:
        running.run(chosen, chosen.step(verb, MSD))
    return chosen.step(verbs[-1], MSD).folder


@pytest.mark.parametrize("slices", ["canonical", "paper"])
def test_truth_is_the_file_and_pixels_are_its_slices(tmp_path, slices):
    truth = write_volumes(tmp_path / "raw", np.random.default_rng(0))
    folder = run(study(tmp_path, slices=slices), "retrieve", "prepare")
    index, pixels, stored = Index.load(folder), Pixels.load(folder), Truth.load(folder)
    assert list(stored.maps) == sorted(truth)
    for case, labels in truth.items():
        np.testing.assert_array_equal(stored.maps[case], labels)
        rows = np.flatnonzero(index.table["volume_id"] == case)
        path = tmp_path / "raw/Task04_Hippocampus" / index.table["image"].iloc[rows[0]]
        file = nibabel.load(path)
        np.testing.assert_allclose(stored.maps.spacing(case), file.header.get_zooms(), rtol=1e-6)
        if slices == "paper":
            images = np.moveaxis(np.asarray(file.dataobj), 2, 0)
        else:
            images = np.asarray(nibabel.as_closest_canonical(file).dataobj)[::-1, ::-1].transpose(2, 1, 0)
        assert len(rows) == len(images)
        assert index.table["slice"].iloc[rows].tolist() == list(range(len(images)))
        for row, image in zip(rows, images, strict=True):
            np.testing.assert_array_equal(pixels.images[row], resize.resize_image(image, pixels.images.shape[1]))
            assert tuple(pixels.shapes[row]) == image.shape
    assert sum(pixels.facts["orientations"].values()) == len(truth)


def segmented(chosen):
    """Segment with features that hold the stored mask; return the step."""
    run(chosen, "retrieve", "prepare", "split")
    step = chosen.step("embed", MSD, "test_vit")
    masks = Pixels.load(step.dependency("prepare").folder).masks
    cells = masks.reshape(len(masks), 32, 4, 32, 4)[:, :, 2, :, 2]
    dense = np.stack([cells == label for label in range(3)], 1).astype(np.float16)
    write_array(step.folder / "00000.dense1.npy", dense)
    write_array(step.folder / "00000.cls.npy", dense[:, None, :, 0, 0])
    names = ["00000.cls.npy", "00000.dense1.npy"]
    seal(
        step.place,
        Embeddings.KIND,
        {"seconds": 1.0, "peak_gb": 0.1, "streamed": False, "seed": 0, "views": 0, "decoders": {"linear": [-1]}},
        names,
    )
    step = chosen.step("segment", MSD, "test_vit")
    running.run(chosen, step)
    return step


@pytest.mark.parametrize("slices", ["canonical", "paper"])
def test_predictions_lie_on_the_grid_of_the_file(tmp_path, slices):
    """Features that hold the stored mask: what comes back is the truth, but for the resampling."""
    truth = write_volumes(tmp_path / "raw", np.random.default_rng(1))
    chosen = study(tmp_path, slices=slices)
    step = segmented(chosen)
    found = Predictions.load(step.folder).maps["linear-decoder"]
    parts = Split.load(step.dependency("split").folder).facts["parts"]
    assert len(found) == parts["val"]["cases"] + parts["test"]["cases"] > 4
    for case in found:
        labels = found[case]
        assert labels.shape == truth[case].shape
        for label in (1, 2):
            both = ((labels == label) & (truth[case] == label)).sum()
            assert 2 * both / ((labels == label).sum() + (truth[case] == label).sum()) > 0.85


def test_a_volume_of_one_slice_goes_through_to_its_score_and_its_file(tmp_path):
    write_volumes(tmp_path / "raw", np.random.default_rng(7))
    thin = "hippocampus_000"
    for name in ("imagesTr", "labelsTr"):
        path = tmp_path / "raw/Task04_Hippocampus" / name / f"{thin}.nii.gz"
        file = nibabel.load(path)
        middle = file.shape[2] // 2
        nibabel.save(file.slicer[:, :, middle : middle + 1], path)
    chosen = study(tmp_path)
    step = segmented(chosen)
    maps = Predictions.load(step.folder).maps["linear-decoder"]
    assert maps.table.loc[thin, "part"] == "test"
    assert maps[thin].shape == (*file.shape[:2], 1)
    running.run(chosen, chosen.step("score", MSD, "test_vit"))
    found = Scores.load(chosen.step("score", MSD, "test_vit").folder)
    values = found.cases[(found.cases["case_id"] == thin) & (found.cases["class"] == "anterior")].set_index("metric")
    assert values.loc["dsc", "value"] > 0.85
    assert 0 <= values.loc["hd95", "value"] < 10
    assert not found.table["note"].str.contains("pixels").any()  # its spacing is known: mm
    export.run(chosen, step, tmp_path / "out")
    image = nibabel.load(tmp_path / f"out/linear-decoder/test/{thin}.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), maps[thin])
    np.testing.assert_allclose(image.affine, nibabel.load(path).affine, atol=1e-5)


def test_grey_values_without_a_unit_may_be_of_any_size(tmp_path):
    """One of the real hippocampus volumes reaches 890,791; others are fractions."""
    write_volumes(tmp_path / "raw", np.random.default_rng(2), n=6)
    images = tmp_path / "raw/Task04_Hippocampus/imagesTr"
    expected = {}
    for path, factor in zip(sorted(images.iterdir()), (1000.0, 1e-4, 1, 1, 1, 1), strict=True):
        file = nibabel.load(path)
        expected[path.name.removesuffix(".nii.gz")] = np.asarray(file.dataobj).astype(np.float64)
        values = (np.asarray(file.dataobj) * factor).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(values, file.affine), path)
    folder = run(study(tmp_path, slices="paper"), "retrieve", "prepare")
    index, pixels = Index.load(folder), Pixels.load(folder)
    assert pixels.images.dtype == np.int16
    for case, values in expected.items():
        rows = np.flatnonzero(index.table["volume_id"] == case)
        middle = rows[len(rows) // 2]
        wanted = resize.resize_image(values[:, :, len(rows) // 2].astype(np.int16), pixels.images.shape[1])
        assert np.corrcoef(pixels.images[middle].ravel(), wanted.ravel())[0, 1] > 0.999


def test_a_mask_with_an_unknown_label_is_named(tmp_path):
    write_volumes(tmp_path / "raw", np.random.default_rng(3), n=6)
    path = tmp_path / "raw/Task04_Hippocampus/labelsTr/hippocampus_002.nii.gz"
    file = nibabel.load(path)
    labels = np.asarray(file.dataobj).copy()
    labels[labels == 2] = 255
    nibabel.save(nibabel.Nifti1Image(labels, file.affine), path)
    with pytest.raises(
        RadprobeError, match=r"hippocampus_002\.nii\.gz: holds label 255; known are 0 background, 1 anterior"
    ):
        run(study(tmp_path), "retrieve", "prepare")


def test_a_mask_on_another_grid_is_named_before_anything_is_decoded(tmp_path):
    write_volumes(tmp_path / "raw", np.random.default_rng(4), n=6)
    path = tmp_path / "raw/Task04_Hippocampus/labelsTr/hippocampus_003.nii.gz"
    file = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.asarray(file.dataobj)[1:], file.affine), path)
    with pytest.raises(RadprobeError, match=r"hippocampus_003.nii.gz"):
        run(study(tmp_path), "retrieve", "prepare")
    assert not (study(tmp_path).step("prepare", MSD).folder / "images.npy").exists()


def test_a_damaged_volume_is_set_aside_with_all_its_slices(tmp_path):
    write_volumes(tmp_path / "raw", np.random.default_rng(5), n=9)
    path = tmp_path / "raw/Task04_Hippocampus/imagesTr/hippocampus_004.nii.gz"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(RadprobeError, match=r"hippocampus_004.nii.gz"):
        run(study(tmp_path), "retrieve", "prepare")
    folder = run(study(tmp_path, max_quarantine=1), "retrieve", "prepare")
    index = Index.load(folder)
    assert "hippocampus_004" not in set(index.table["volume_id"])
    assert index.table["volume_id"].nunique() == len(Truth.load(folder).maps) == 8
    assert [bad["file"] for bad in index.facts["quarantine"]] == ["imagesTr/hippocampus_004.nii.gz"]


def test_no_volume_is_in_two_parts(tmp_path):
    write_volumes(tmp_path / "raw", np.random.default_rng(6))
    folder = run(study(tmp_path), "retrieve", "prepare", "split")
    table = Split.load(folder).table
    volume = table["sample_id"].str.rsplit("_", n=1).str[0]
    assert table.groupby(volume)["part"].nunique().max() == 1
    assert set(table["part"]) == set(PARTS)
