"""Rows from elsewhere, end to end: a file that somebody gives becomes scores, differences and pages like all others."""

import dataclasses
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import running
import synthetic_study
from PIL import Image
from small_params import NO_CONTROLS

from radprobe.artifacts import Comparison, Index, LabelMaps, Predictions, Scores, Split, Truth
from radprobe.commands import export
from radprobe.files import RadprobeError
from radprobe.imaging.label_files import read_on_grid
from radprobe.metrics.calibration import NO_PROBABILITY
from radprobe.metrics.operating import WITHOUT_VAL
from radprobe.study import Study

FILMS, LUNGS = "nih_chestxray14", "montgomery"
SMALL = {"backbones": ["test_vit"], "own_backbones": {}, "controls": NO_CONTROLS, "score": {"resamples": 100}}


def with_rows(root: Path, rows: dict[str, dict], **changes) -> Study:
    """Return the small study with rows from elsewhere, by dataset."""
    datasets = {name: {"phantom": {"patients": 66}} for name in (LUNGS, FILMS)}
    for dataset, given in rows.items():
        datasets[dataset] = {**datasets[dataset], "predictions": given}
    return synthetic_study.study(root, **{**SMALL, "datasets": datasets, **changes})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folder of the study without any row from elsewhere, made."""
    folder = tmp_path_factory.mktemp("external")
    datasets = {name: {"phantom": {"patients": 66}} for name in (LUNGS, FILMS)}
    synthetic_study.build(folder, **{**SMALL, "datasets": datasets})
    return folder


@pytest.fixture
def made(root):
    """The study without any row from elsewhere."""
    return with_rows(root, {})


def make(study: Study, dataset: str, row: str) -> tuple[Predictions, Scores]:
    """Run `external` and `score` for a row."""
    for verb in ("external", "score"):
        step = study.step(verb, dataset, row)
        step.folder.mkdir(parents=True, exist_ok=True)
        running.run(study, step)
    return tuple(
        kind.load(study.step(verb, dataset, row).folder)
        for verb, kind in (("external", Predictions), ("score", Scores))
    )


def compared(study: Study, dataset: str) -> pd.DataFrame:
    step = study.step("compare", dataset)
    step.folder.mkdir(parents=True, exist_ok=True)
    running.run(study, step)
    return Comparison.load(step.folder).table


def split_of(study: Study, dataset: str) -> tuple[Index, Split]:
    step = study.step("split", dataset)
    return Index.load(step.dependency("prepare").folder), Split.load(step.folder)


def truth_table(study: Study, *parts: str) -> pd.DataFrame:
    """Return the labels of the films of some parts, as somebody would write predictions of them."""
    index, split = split_of(study, FILMS)
    rows = split.rows(index, *parts)
    table = pd.DataFrame(split.targets(index, exclusive=False)[rows], columns=split.classes)
    table.insert(0, "sample_id", index.table["sample_id"].to_numpy()[rows])
    return table


def macro(scores: Scores, metric: str, part: str = "test", protocol: str = "external") -> pd.Series:
    table = scores.table
    chosen = (table["metric"] == metric) & (table["class"] == "macro") & (table["part"] == part)
    return table[chosen & (table["protocol"] == protocol)].iloc[0]


# --- scores -----------------------------------------------------------------------------------------------------------


def test_a_perfect_reader_has_an_auroc_of_1(root, made, tmp_path):
    truth_table(made, "val", "test").to_csv(tmp_path / "reader.csv", index=False)
    study = with_rows(root, {FILMS: {"reader": str(tmp_path / "reader.csv")}})
    predictions, scores = make(study, FILMS, "reader")
    for part in ("val", "test"):
        assert macro(scores, "auroc", part)["value"] == 1
    assert macro(scores, "balanced_accuracy")["value"] == 1
    assert macro(scores, "brier")["value"] == 0
    assert predictions.facts["protocols"]["external"]["scale"] == "probability"
    table = scores.table
    assert table[["seconds", "peak_gb", "trained_parameters", "trained_share"]].isna().all(axis=None)


@pytest.mark.parametrize("protocol", ["linear", "logistic", "knn"])
def test_our_own_predictions_come_back_with_the_same_scores_and_a_difference_of_0(root, made, tmp_path, protocol):
    file = tmp_path / f"{protocol}.csv"
    step = made.step("probe", FILMS, "test_vit")
    export.run(made, step, tmp_path, protocol)
    study = with_rows(root, {FILMS: {"again": {"file": str(file), "scale": "logit"}}})
    _, scores = make(study, FILMS, "again")
    own = Scores.load(study.step("score", FILMS, "test_vit").folder).table
    own = own[own["protocol"] == protocol]
    keys, values = ["part", "metric", "class"], ["value", "low", "high", "n_patients", "n_samples", "note"]
    ours = own[~own["metric"].str.contains("few")].set_index(keys)[values].sort_index()
    theirs = scores.table.set_index(keys)[values].sort_index()
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    table = compared(study, FILMS)
    row = table[(table["protocol"] == protocol)].iloc[0]
    assert {row["backbone"], row["other"]} == {"test_vit", "again"}
    assert row["difference"] == 0
    assert row["note"] == "equal in every resample"


def test_a_row_stands_beside_every_protocol(root, made, tmp_path):
    truth_table(made, "test").to_csv(tmp_path / "reader.csv", index=False)
    study = with_rows(root, {FILMS: {"reader": str(tmp_path / "reader.csv")}})
    make(study, FILMS, "reader")
    table = compared(study, FILMS)
    frozen = Predictions.load(study.step("probe", FILMS, "test_vit").folder).facts["protocols"]
    assert set(table["protocol"]) == set(frozen) - {"shuffled"}  # the floor orders nothing


def test_without_val_no_threshold_is_chosen_and_test_never_chooses_one(root, made, tmp_path):
    truth_table(made, "test").to_csv(tmp_path / "reader.csv", index=False)
    study = with_rows(root, {FILMS: {"reader": str(tmp_path / "reader.csv")}})
    predictions, scores = make(study, FILMS, "reader")
    assert set(scores.table["part"]) == {"test"}
    by_class = scores.table[scores.table["metric"].isin(("balanced_accuracy", "f1"))]
    assert by_class["value"].isna().all()
    assert by_class[by_class["class"] != "macro"]["note"].str.contains(WITHOUT_VAL).all()
    assert macro(scores, "brier")["value"] == 0  # calibration needs no threshold
    assert set(predictions.table["part"]) == {"test"}


def test_scores_of_any_scale_rank_but_are_not_called_probabilities(root, made, tmp_path):
    table = truth_table(made, "val", "test")
    table.iloc[:, 1:] = table.iloc[:, 1:] * 4 + 1  # as a reader says: 1 surely not, 5 surely
    table.to_csv(tmp_path / "reader.csv", index=False)
    study = with_rows(root, {FILMS: {"reader": str(tmp_path / "reader.csv")}})
    _, scores = make(study, FILMS, "reader")
    assert macro(scores, "auroc")["value"] == 1
    assert macro(scores, "balanced_accuracy")["value"] == 1
    for metric in ("brier", "ece"):
        rows = scores.table[scores.table["metric"] == metric]
        assert rows["value"].isna().all()
        known = rows[(rows["class"] != "macro") & (rows["part"] == "test")]
        assert (known["note"] == f"undefined: {NO_PROBABILITY}").all()


def test_train_cases_are_ignored_and_said(root, made, tmp_path, capsys):
    truth_table(made, "train", "val", "test").to_csv(tmp_path / "reader.csv", index=False)
    study = with_rows(root, {FILMS: {"reader": str(tmp_path / "reader.csv")}})
    predictions, _ = make(study, FILMS, "reader")
    assert set(predictions.table["part"]) == {"val", "test"}
    assert "ignored, of train: 80" in capsys.readouterr().out


# --- one class is true of each case -----------------------------------------------------------------------------------


def test_logits_of_exclusive_classes_rank_by_their_softmax(root, made, tmp_path):
    table = truth_table(made, "val", "test")
    generator = np.random.default_rng(0)
    classes = list(table.columns[1:])
    table[classes] = generator.normal(0, 400, (len(table), len(classes)))  # exp of them would overflow
    table.to_csv(tmp_path / "net.csv", index=False)
    study = with_rows(root, {FILMS: {"net": {"file": str(tmp_path / "net.csv"), "scale": "logit"}}})
    step = study.step("external", FILMS, "net")
    columns = step.job.columns.model_copy(update={"is_exclusive": True})
    step = dataclasses.replace(step, job=step.job.model_copy(update={"columns": columns}))
    step.folder.mkdir(parents=True)
    running.run(study, step)
    found = Predictions.load(step.folder)
    logits = found.table[[f"logit:{name}" for name in found.classes]].to_numpy()
    ranked = found.table[[f"score:{name}" for name in found.classes]].to_numpy()
    np.testing.assert_allclose(np.exp(ranked).sum(1), 1)
    shifts = ranked - logits
    np.testing.assert_allclose(shifts, shifts[:, :1] * np.ones(shifts.shape[1]), atol=1e-9)
    facts = found.facts["protocols"]["external"]
    assert (facts["softmax"], facts["exclusive"]) == (True, True)


# --- label maps -------------------------------------------------------------------------------------------------------


def write_maps(study: Study, folder: Path, parts=("val", "test"), change=lambda labels: labels) -> Path:
    """Write the truth of some parts as PNG, one file per case."""
    truth = Truth.load(study.step("prepare", LUNGS).folder).maps
    _, split = split_of(study, LUNGS)
    folder.mkdir(parents=True, exist_ok=True)
    for case in split.table.loc[split.table["part"].isin(parts), "sample_id"]:
        Image.fromarray(change(truth[case])).save(folder / f"{case}.png")
    return folder


def test_a_perfect_segmentation_has_a_dsc_of_1(root, made, tmp_path):
    write_maps(made, tmp_path / "maps", ["test"])
    study = with_rows(root, {LUNGS: {"nnunet": str(tmp_path / "maps")}})
    predictions, scores = make(study, LUNGS, "nnunet")
    assert macro(scores, "dsc")["value"] == 1
    assert macro(scores, "hd95")["value"] == 0
    assert set(predictions.maps["external"].table["part"]) == {"test"}
    assert set(scores.table["part"]) == {"test"}


def test_exported_label_maps_come_back_with_the_same_scores_and_a_difference_of_0(root, made, tmp_path):
    export.run(made, made.step("segment", LUNGS, "test_vit"), tmp_path)
    study = with_rows(root, {LUNGS: {"again": str(tmp_path / "linear-decoder")}})
    _, scores = make(study, LUNGS, "again")
    own = Scores.load(study.step("score", LUNGS, "test_vit").folder)
    keys, values = ["part", "metric", "class"], ["value", "low", "high", "n_patients", "n_samples", "note"]
    ours, theirs = (each.table.set_index(keys)[values].sort_index() for each in (own, scores))
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    (row,) = compared(study, LUNGS).to_dict("records")
    assert row["difference"] == 0
    assert row["note"] == "equal in every resample"


def swapped(labels):
    return np.ascontiguousarray(labels[:, :-1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (swapped, "is 64 x 63 pixels, and the truth of its case 64 x 64"),
        (lambda labels: labels + np.uint8(1), "holds label 3; known are 0 background, 1 left lung, 2 right lung"),
        (lambda labels: np.stack([labels] * 3, -1) * np.array([1, 2, 3], np.uint8), "colour"),
    ],
)
def test_a_map_that_does_not_fit_is_refused_by_its_name(root, made, tmp_path, change, said):
    folder = write_maps(made, tmp_path / "maps", ["test"])
    victim = sorted(folder.iterdir())[3]
    Image.fromarray(change(np.asarray(Image.open(victim)))).save(victim)
    study = with_rows(root, {LUNGS: {"nnunet": str(tmp_path / "maps")}})
    with pytest.raises(RadprobeError, match=said) as raised:
        make(study, LUNGS, "nnunet")
    assert raised.value.what == str(victim)
    assert "max_quarantine" not in raised.value.remedy


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_damaged_map_is_refused_by_its_name(root, made, tmp_path, content):
    victim = sorted(write_maps(made, tmp_path / "maps", ["test"]).iterdir())[0]
    victim.write_bytes(content)
    study = with_rows(root, {LUNGS: {"nnunet": str(tmp_path / "maps")}})
    with pytest.raises(RadprobeError) as raised:
        make(study, LUNGS, "nnunet")
    assert raised.value.what == str(victim)
    assert "max_quarantine" not in raised.value.remedy


AFFINE = np.array([[0, -2.0, 0, 10], [1.5, 0, 0, -3], [0, 0, 4, 7], [0, 0, 0, 1]])


def a_volume(tmp_path, labels, affine):
    """Write one NIfTI label map, and return it as the stage reads it, for an image of AFFINE and 4 x 5 x 6 voxels."""
    file = tmp_path / "case.nii.gz"
    nibabel.save(nibabel.Nifti1Image(labels, affine), file)
    return read_on_grid(file, (4, 5, 6), list(AFFINE.ravel()), ["one", "two"])


def test_a_volume_is_brought_to_the_axes_of_its_image(tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype(np.uint8)
    np.testing.assert_array_equal(a_volume(tmp_path, labels, AFFINE), labels)
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(labels, AFFINE))  # axes turned and flipped
    turned = np.asarray(image.dataobj)
    assert turned.shape != labels.shape
    np.testing.assert_array_equal(a_volume(tmp_path, turned, image.affine), labels)


@pytest.mark.parametrize(
    ("shape", "affine", "said"),
    [
        ((4, 5, 7), AFFINE, "their shapes do not match"),
        ((4, 5, 6), AFFINE * [[2], [2], [2], [1]], "corners lie"),
        ((4, 5, 6), AFFINE + np.array([[0, 0, 0, 9.0], [0] * 4, [0] * 4, [0] * 4]), "corners lie"),
    ],
)
def test_a_volume_on_another_grid_is_refused(tmp_path, shape, affine, said):
    with pytest.raises(RadprobeError, match=said):
        a_volume(tmp_path, np.zeros(shape, np.uint8), affine)


def test_an_image_for_a_volume_is_refused(tmp_path):
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "case.png")
    with pytest.raises(RadprobeError, match="is an image, and the truth of its case is a volume"):
        read_on_grid(tmp_path / "case.png", (4, 5, 6), list(AFFINE.ravel()), ["one"])


# --- the file while it is read ----------------------------------------------------------------------------------------


def test_a_file_that_changes_while_it_is_read_is_refused(root, made, tmp_path, monkeypatch):
    folder = write_maps(made, tmp_path / "maps", ["test"])
    study = with_rows(root, {LUNGS: {"nnunet": str(tmp_path / "maps")}})
    _ = study.steps
    victim = sorted(folder.iterdir())[0]
    real = LabelMaps.write

    def write_and_change(*arguments):
        names = real(*arguments)
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(victim)
        return names

    monkeypatch.setattr(LabelMaps, "write", write_and_change)
    with pytest.raises(RadprobeError, match="changed while it was read"):
        make(study, LUNGS, "nnunet")
