import itertools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import pytest
import synthetic_study

from radprobe import catalog
from radprobe.report import drawing, figures, look, scores_chart, style
from radprobe.report.collect import Findings
from radprobe.report.figures import Figure
from radprobe.report.ranking import Column, Estimate

MONTGOMERY, NIH, MNI = "montgomery", "nih_chestxray14", "mni152"


def test_a_study_has_a_figure_of_each_kind_that_suits_its_datasets(tmp_path):
    found = {each.name for each in figures.of(synthetic_study.study(tmp_path))}
    assert found == {
        *(f"{dataset}_{kind}" for dataset in (MONTGOMERY, NIH) for kind in ("scores", "few_shot", "frontier")),
        *(f"{dataset}_features" for dataset in (MONTGOMERY, MNI)),
        "ranks",
    }
    trained = figures.of(synthetic_study.study(tmp_path, adapt={"backbones": ["derived"]}))
    adapted = {each.name for each in trained} - found
    assert adapted == {f"{MONTGOMERY}_adaptation", f"{NIH}_adaptation", "ranks_trained"}
    assert {each.kind for each in trained} == set(figures.KINDS)
    still = synthetic_study.study(tmp_path, probe={"few_shot": None}, segment={"few_shot": None})
    assert {name for name in found if "few_shot" not in name} == {each.name for each in figures.of(still)}


def test_images_are_in_no_figure_where_they_may_not_be_shown(root, render, monkeypatch):
    file = root / "reports/figures" / f"{MONTGOMERY}_features.svg"
    file.parent.mkdir(parents=True)
    file.write_text("drawn when params still allowed it")
    render(root, report={"images": "none"})
    assert not file.exists()
    gated = {name: entry.model_copy(update={"gated": True}) for name, entry in catalog.datasets().items()}
    monkeypatch.setattr(catalog, "datasets", lambda: gated)
    study = synthetic_study.study(root)
    assert not [each for each in figures.of(study) if each.kind == "features"]
    shown = figures.of(synthetic_study.study(root, report={"images": "thumbnails"}))
    assert [each.dataset for each in shown if each.kind == "features"] == [MONTGOMERY, MNI]


def test_every_figure_is_vectors_and_text_in_both_formats(finished, text, written):
    for each in figures.of(synthetic_study.study(finished)):
        svg, pdf = ((written / f"figures/{each.name}.{ending}").read_bytes() for ending in figures.FORMATS)
        assert svg.startswith(b"<?xml")
        assert b"<text" in svg
        assert pdf.startswith(b"%PDF")
        assert b"/FontFile2" in pdf  # TrueType, embedded
        assert b"/Type3" not in pdf
        assert pdf.count(b"/Type /Page ") == 1
        assert (b"<image" in svg) == (b"/Subtype /Image" in pdf) == (each.kind == "features")


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import synthetic_study
from radprobe.stages import report
report.run(synthetic_study.study(Path({root!r})), Path({folder!r}))
"""


@pytest.mark.slow
def test_another_process_at_another_time_writes_the_same_bytes(finished, text, tmp_path, written):
    tests = str(Path(synthetic_study.__file__).parent)
    script = SCRIPT.format(tests=tests, root=str(finished), folder=str(tmp_path))
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    files = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert len(files) == 2 * len(figures.of(synthetic_study.study(finished)))
    for name in files:
        assert (tmp_path / "figures" / name).read_bytes() == (written / "figures" / name).read_bytes(), name


def test_a_study_of_which_nothing_ran_has_the_same_files(tmp_path):
    study = synthetic_study.study(tmp_path)
    findings = Findings(study)
    drawn = drawing.draw(findings, [], {}, {name: look.features(findings, name, None) for name in (MONTGOMERY, MNI)})
    assert list(drawn) == figures.of(study)
    assert all(set(forms) == set(figures.FORMATS) for forms in drawn.values())
    assert b"no scores yet" in drawn[Figure("scores", NIH)]["svg"]
    assert b"nothing was scored yet" in drawn[Figure("features", MONTGOMERY)]["svg"]


LONG = "a name so long that it needs three lines or more beside its row of the figure, whatever the width"


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "c"], [chr(97 + at) for at in range(12)]])
def test_no_text_of_a_figure_lies_on_another(names):
    scores = {name: Estimate(0.9 - 0.01 * at, 0.8, 0.95, 50) for at, name in enumerate(names)}
    columns = [Column("films", protocol, "auroc", scores) for protocol in ("linear", "knn", "mlknn", "logistic")]
    findings = SimpleNamespace(
        datasets={"films": SimpleNamespace(title=LONG)},
        study=SimpleNamespace(rows=names),
        title=lambda name: f"{name}: {LONG}",
        family=lambda name: list(style.FAMILIES)[ord(name) % len(style.FAMILIES)],
    )
    with matplotlib.rc_context(style.RC):
        figure = scores_chart.draw(findings, "films", columns)
        figure.draw_without_rendering()
    axes, (legend,) = figure.axes[0], figure.legends
    low, high = axes.get_xlim()
    ticks = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
    boxes = [label.get_window_extent() for label in (*axes.get_yticklabels(), *ticks)]
    boxes += [figure._suptitle.get_window_extent(), legend.get_window_extent(), axes.xaxis.label.get_window_extent()]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other), (one, other)
    for box in boxes:
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, box
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1, box
