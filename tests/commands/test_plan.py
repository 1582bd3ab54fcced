"""plan, and the estimates that it prints: from what jobs of recorded studies took."""

from pathlib import Path

import numpy as np
import pytest
import running
import yaml
from PIL import Image
from small_params import NO_CONTROLS

from radprobe import catalog, estimate
from radprobe.commands import plan
from radprobe.study import Study

ROOT = Path(__file__).parents[2]
PARAMS = {
    "study": "a study",
    "hub": False,
    "device": "cpu",
    "datasets": {"montgomery": {"phantom": {"patients": 60}}, "nih_chestxray14": {}},
    "backbones": ["vit_small_patch14_dinov2", "test_vit"],
    "controls": NO_CONTROLS,
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("RADPROBE_RAW", "RADPROBE_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def pilot(patients: int, seconds: float, verb: str = "embed", **changes) -> Study:
    """Record a study of so many films whose jobs of a verb took so many seconds."""
    content = {**PARAMS, "datasets": {"montgomery": {"phantom": {"patients": patients}}}, "controls": NO_CONTROLS}
    content |= {"backbones": ["test_vit"], **changes}
    study = Study(content)
    record = Path(f"work/studies/{study.params.study}-{patients}.yaml")
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(yaml.safe_dump(content))
    for step in study.steps.values():
        if step.verb == verb:
            file = estimate.benchmark_file(study, step)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"s\th:m:s\n{seconds}\t0:00:09\n")
    return study


def estimated(verb: str, backbone: str | None = "test_vit", **changes) -> estimate.TimeEstimate | None:
    study = Study({**PARAMS, **changes}).as_if_complete()
    return estimate.Earlier(study).estimate(study, study.step(verb, "montgomery", backbone))


def test_a_job_takes_what_earlier_ones_took_per_image_within_their_spread():
    pilot(10, 20)
    pilot(20, 20)
    found = estimated("embed")
    assert (found.low, found.high, found.jobs) == (pytest.approx(60), pytest.approx(120), 2)


def test_a_larger_backbone_takes_longer_by_its_flops():
    pilot(10, 20)
    costs = catalog.costs()
    found = estimated("embed", "vit_small_patch14_dinov2")
    ratio = costs["vit_small_patch14_dinov2"].gflops_448 / costs["test_vit"].gflops_448
    assert found.low == found.high == pytest.approx(120 * ratio)


@pytest.mark.parametrize(("epochs", "known"), [(3, True), (4, False)])
def test_only_jobs_with_the_same_knobs_are_alike(epochs, known):
    pilot(10, 20, "segment", segment={"linear": {"epochs": 3}, "unet": None})
    found = estimated("segment", segment={"linear": {"epochs": epochs}, "unet": None})
    assert (found is not None) == known


def test_what_was_never_measured_is_not_estimated_but_for_forward_passes(monkeypatch):
    assert estimated("prepare", None) is None
    assert estimated("segment") is None
    found = estimated("embed")
    assert 0 < found.low < found.high
    assert found.jobs == 0
    monkeypatch.setattr(Study, "gpus", 1)  # no GPU was timed, and a CPU says nothing of it
    assert estimated("embed") is None


def test_jobs_that_ended_half_and_broken_records_count_for_nothing():
    study = pilot(10, 20)
    (file,) = (estimate.benchmark_file(study, step) for step in study.steps.values() if step.verb == "embed")
    file.write_text("s\th:m:s\n")
    Path("work/studies/broken.yaml").write_text("study: [")
    assert estimated("embed").jobs == 0


def test_the_plan_says_what_is_done_what_can_run_and_what_is_missing(capsys):
    study = Study({**PARAMS, "on_missing": "fail"})
    for step in Study(PARAMS).steps.values():
        if step.verb in ("retrieve", "prepare"):
            for path in step.outputs:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("{}")
    plan.run(study)
    said = capsys.readouterr().out
    assert "a study: 4 cells (dataset x backbone), 1 can run here" in said
    rows = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:5]]
        for line in said.splitlines()
        if line.startswith("│") and line.split("│")[1].strip()
    }
    assert rows["prepare"] == ["2", "1", "0"]
    assert rows["embed"] == ["4", "0", "1"]
    assert "missing: dataset nih_chestxray14: no raw folder data/raw/nih_chestxray14" in said
    assert "missing: backbone vit_small_patch14_dinov2: no weights" in said
    assert said.count("To run it, ") == 2
    assert "Disk for what can run now" in said
    assert "Disk for all of it" in said


def test_what_is_made_takes_no_more_disk():
    study = Study(PARAMS)
    before, _ = estimate.disk(study)
    assert before > 0
    for step in study.steps.values():
        for path in step.outputs:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
    assert estimate.disk(study) == (0, 0)


def test_disk_counts_every_view_and_no_maps_that_are_too_many_to_keep():
    def counted(**embed):
        return estimate.disk(Study({**PARAMS, "embed": embed}).as_if_complete())

    least, most = counted()
    one, four = (counted(views=views)[0] - least for views in (1, 4))
    assert one > 0
    assert four == pytest.approx(4 * one, rel=1e-6)
    assert most > least
    assert counted(max_dense_cache_gb=1e-6) == (least, least)


def test_ones_own_images_are_estimated_once_they_are_retrieved(folder, capsys):
    (folder / "films").mkdir()
    rows = [f"{k}.png,p{k // 2},{k % 3 == 0:d}" for k in range(40)]
    (folder / "films/labels.csv").write_text("\n".join(["path,patient,ill", *rows]))
    for k in range(40):
        Image.fromarray(np.full((5, 5), k, np.uint8)).save(folder / f"films/{k}.png")
    own = {"films": {"raw": "films", "folder": {"task": "binary", "classes": ["ill"]}}}
    content = {**PARAMS, "datasets": own, "backbones": ["test_vit"], "limit": 10}
    study = Study(content)
    plan.run(study)
    assert "not known yet of films" in " ".join(capsys.readouterr().out.split())
    assert estimate.images(study, "films") == 0
    running.run(study, study.step("retrieve", "films"))
    assert estimate.images(study, "films") == 20  # two of each of 10 patients
    whole = Study({**content, "limit": None})
    assert estimate.images(whole, "films") == 40
    assert estimate.disk(whole)[0] > estimate.disk(study)[0] > 0
    capsys.readouterr()
    plan.run(whole)
    assert "not known yet" not in capsys.readouterr().out


def test_the_shipped_params_are_the_full_study():
    whole = Study(ROOT / "params.yaml").as_if_complete()
    assert set(whole.datasets_here) == set(whole.params.datasets)
    of_the_paper = {name for name, entry in catalog.datasets().items() if "2312.02366" in str(entry.splits)}
    assert of_the_paper <= set(whole.datasets_here)
    verbs = {verb for verb, _, _ in whole.steps}
    assert verbs == {
        "retrieve",
        "weights",
        "prepare",
        "split",
        "embed",
        "probe",
        "segment",
        "adapt",
        "score",
        "compare",
    }


def test_cross_validation_is_as_many_fits_as_folds_and_features_are_made_once():
    def own(split):
        folder = {"task": "binary", "classes": ["ill"]}
        study = Study({**PARAMS, "datasets": {"mine": {"folder": folder, "split": split}}}).as_if_complete()
        prepared = study.step("prepare", "mine").folder / "pixels.json"
        prepared.parent.mkdir(parents=True, exist_ok=True)
        prepared.write_text('{"facts": {"counts": {"samples": 40, "patients": 40}}}')
        return study

    folded, plain = (own(split) for split in ({"folds": 5}, "study"))
    for verb, times in (("embed", 1), ("probe", 5), ("score", 1)):
        work = [estimate.work(study, study.step(verb, "mine", "test_vit")) for study in (folded, plain)]
        assert work[0] == times * work[1] > 0, verb
