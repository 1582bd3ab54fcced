import base64
import io
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import synthetic_study
from PIL import Image
from webpage import Page

from radprobe import manifests
from radprobe.artifacts import Comparison, Index, LabelMaps, Pixels, Scores, Truth
from radprobe.imaging.volumes import Slicing
from radprobe.report import canvas, figures, look, pictures, ranking, style

AFFINES = [np.diag([1.0, 1, 3, 1]), np.array([[0, 0, -3.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])]


def cases(folder, labels, affine):
    """One volume whose stored images are its slices, bright where a structure is."""
    slicing = Slicing.of(affine, "canonical")
    slices = slicing.cut(labels)
    n = len(slices)
    table = pd.DataFrame({"sample_id": [f"v_{i:02d}" for i in range(n)], "patient_id": "v", "volume_id": "v"})
    table["slice"], table["image"] = range(n), "v.nii"
    table["masks"], table["spacing"], table["affine"] = [[]] * n, [[1.0, 1, 3]] * n, [affine.ravel().tolist()] * n
    LabelMaps.write(folder, "truth", [("v", "v", "", labels, [1.0, 1, 3])])
    pixels = Pixels(slices * np.uint8(100), slices.copy(), np.tile(slices.shape[1:], (n, 1)))
    return look.PicturedCases(Index(table, {"slices": "canonical"}), pixels, Truth(LabelMaps.read(folder, "truth"), {}))


def picture(uri):
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def near(image, colour):
    return np.abs(image - colour).max(axis=2) < 40  # the palette is small


@pytest.mark.parametrize("affine", AFFINES)
def test_a_volume_is_a_strip_of_the_slices_that_show_it_with_contours_where_the_structure_is(tmp_path, affine):
    labels = Slicing.of(affine, "canonical").join(np.zeros((12, 36, 36), np.uint8)).copy()
    slices = Slicing.of(affine, "canonical").cut(labels)
    slices[3:9, 6:18, 6:18] = 1
    found = picture(cases(tmp_path, labels, affine).picture("v", labels))
    width = pictures.STRIP_WIDTH
    assert found.shape == (width, look.STRIP * width + (look.STRIP - 1) * pictures.GAP, 3)
    for number in range(look.STRIP):
        at = number * (width + pictures.GAP)
        edge = near(found[:, at : at + width], style.BOTH)
        rows, columns = (np.flatnonzero(edge.any(axis)) for axis in (1, 0))
        for ends in (rows, columns):  # where truth and prediction are the same, the contour is white
            assert (ends.min(), ends.max()) == (12, 35)


def test_what_is_predicted_beside_the_truth_has_its_own_contour_on_the_right_slice(tmp_path):
    labels = np.zeros((36, 36, 5), np.uint8)
    labels[4:12, 4:12, :] = 1
    wrong = labels.copy()
    wrong[20:30, 20:30, 4] = 1  # on the last slice, towards the head; axial slices run from the patient's right to left
    found = picture(cases(tmp_path, labels, AFFINES[0]).picture("v", wrong))
    alarm = near(found, style.PREDICTION)
    last = (look.STRIP - 1) * (pictures.STRIP_WIDTH + pictures.GAP)
    assert alarm.any()
    assert np.flatnonzero(alarm.any(0)).min() >= last


def test_every_scored_backbone_shows_its_own_best_median_and_worst(findings):
    column = ranking.headline([each for each in ranking.columns(findings) if each.dataset == "montgomery"])
    found = look.gallery(findings, "montgomery", column, None)
    assert list(found.own) == column.order
    assert len(found.overlays) == look.BACKBONES < len(column.order)
    assert found.ranks == ["best", "median", "worst"]
    for backbone, shown in found.own.items():
        values = [float(caption.rsplit(" ", 1)[1]) for _, caption in shown]
        table = findings.cases("montgomery", backbone)
        dsc = table.query("part == 'test' and metric == 'dsc' and `class` == 'macro'")["value"].sort_values()
        expected = [dsc.iloc[-1], dsc.iloc[(len(dsc) - 1) // 2], dsc.iloc[0]]
        assert values == pytest.approx(expected, abs=6e-4)


def test_a_report_reads_and_checks_each_artifact_once(root, render_all, monkeypatch):
    unseal, times = manifests.unseal, Counter()

    def counted(folder, kind):
        times[folder.relative_to(root).as_posix().rpartition("/")[0], kind] += 1
        return unseal(folder, kind)

    monkeypatch.setattr(manifests, "unseal", counted)
    # Every figure is made; writing it as SVG and PDF takes long and reads nothing.
    monkeypatch.setattr(canvas, "render", lambda draw: draw() and dict.fromkeys(figures.FORMATS, b"<svg></svg>"))
    render_all(root)
    assert {kind for _, kind in times} == {
        "index",
        "pixels",
        "truth",
        "embeddings",
        "predictions",
        "scores",
        "comparison",
    }
    often = {key for key, n in times.items() if n > 1}
    # Label maps are read for the gallery of all backbones, and again for the pages of one: 2 times, no more.
    assert all(kind == "predictions" and "montgomery/segment" in folder for folder, kind in often), often
    assert max(times.values()) <= 2


def test_where_no_macro_score_is_defined_the_report_says_that_nothing_was_scored(root, render_all):
    study = synthetic_study.study(root)
    for step in (each for each in study.steps.values() if each.verb == "score"):
        scores = Scores.load(step.folder)
        primary = scores.table["metric"].isin(["dsc", "auroc"]) & (scores.table["class"] == "macro")
        scores.table.loc[primary, ["value", "low", "high"]] = np.nan
        scores.table.loc[primary, "note"] = "undefined: no case has it"
        if scores.cases is not None:
            scores.cases.loc[scores.cases["class"] == "macro", "value"] = np.nan
        scores.save(step.place)
    for step in (each for each in study.steps.values() if each.verb == "compare"):
        comparison = Comparison.load(step.folder)
        comparison.rows[["value", "low", "high"]] = np.nan
        comparison.save(step.place)
    said = Page(render_all(root)).words
    assert said.count("No score is defined: undefined: no case has it.") == 2
    assert "Not shown: nothing was scored yet" in said
    assert b"nothing was scored yet" in (root / "reports/figures/montgomery_features.svg").read_bytes()
