"""The jobs of `score`, `compare` and `external` hold what their outputs depend on, and nothing else."""

import pytest
import synthetic_study
from small_params import NO_CONTROLS

from radprobe import catalog
from radprobe.study import Study

FILMS, LUNGS = "nih_chestxray14", "montgomery"


def keys(study: Study, verb: str) -> dict[tuple, str]:
    return {name[1:]: step.key for name, step in study.steps.items() if name[0] == verb}


def changed(verb: str, one: Study, other: Study) -> set[str]:
    """Return the datasets with a step of a verb whose key differs."""
    before, after = keys(one, verb), keys(other, verb)
    return {name[0] for name in before if before[name] != after[name]}


def test_a_comparison_holds_its_controls_and_the_inits_of_each_row(tmp_path):
    job = synthetic_study.study(tmp_path).step("compare", FILMS).job
    rows = {row.name: row for row in job.rows}
    assert rows["random:derived"].backbones == ("random:derived", "random:derived~2")
    assert (rows["random:derived"].is_control, rows["random:derived"].is_random) == (True, True)
    assert (rows["pixels"].is_control, rows["pixels"].is_random) == (True, False)
    assert (rows["derived"].is_control, rows["derived"].is_random) == (False, False)
    assert {pair.of for pair in job.variants} == {"metric", "protocol", "backbone"}  # draws are not compared


@pytest.mark.parametrize(
    ("changes", "scored", "compared"),
    [
        ({"score": {"resamples": 300}}, {FILMS, LUNGS}, {FILMS, LUNGS}),
        ({"score": {"resamples": 200, "margin": 0.1}}, set(), {FILMS, LUNGS}),
        ({"report": {"examples": 1}}, set(), set()),
        ({"embed": {"batch_size": 3}}, set(), set()),
    ],
)
def test_params_change_the_keys_of_what_reads_them(tmp_path, changes, scored, compared):
    before, after = synthetic_study.study(tmp_path), synthetic_study.study(tmp_path, **changes)
    assert changed("score", before, after) == scored
    assert changed("compare", before, after) == compared


def test_the_primary_metric_of_a_task_is_part_of_the_keys(tmp_path, monkeypatch):
    before = synthetic_study.study(tmp_path)
    assert before.steps
    monkeypatch.setitem(catalog.PRIMARY_METRIC, "segmentation", "iou")
    after = synthetic_study.study(tmp_path)
    assert changed("score", before, after) == {LUNGS}
    assert changed("compare", before, after) == {LUNGS}


def test_the_scale_of_scores_is_no_part_of_the_key_of_label_maps(tmp_path):
    def steps(scale: str) -> dict[str, str]:
        table, folder = ({"file": name, "scale": scale} for name in ("reader.csv", "maps"))
        rows = {FILMS: {"reader": table}, LUNGS: {"nnunet": folder}}
        datasets = {name: {"phantom": {"patients": 66}, "predictions": each} for name, each in rows.items()}
        study = Study(synthetic_study.params(tmp_path, datasets=datasets, backbones=["test_vit"], controls=NO_CONTROLS))
        return {name[0]: key for name, key in keys(study, "external").items()}

    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/a.png").touch()
    (tmp_path / "reader.csv").write_text("sample_id\n")
    one, other = steps("logit"), steps("score")
    assert one[FILMS] != other[FILMS]
    assert one[LUNGS] == other[LUNGS]
