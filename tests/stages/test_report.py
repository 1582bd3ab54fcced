import synthetic_study

from radprobe.report import figures
from radprobe.stages import report


def test_figures_that_are_drawn_no_more_are_removed_and_other_files_stay(tmp_path):
    folder = tmp_path / "elsewhere/figures"
    folder.mkdir(parents=True)
    old = ["gone_scores.svg", "gone_few_shot.pdf", "montgomery_features.svg", "ranks_trained.pdf"]
    mine = ["notes.svg", "gone_scores.png", "ranks_trained.txt"]
    for name in (*old, *mine):
        (folder / name).write_text("of before")
    study = synthetic_study.study(tmp_path, report={"images": "none"})
    report.run(study, tmp_path / "elsewhere")
    drawn = [f"{each.name}.{ending}" for each in figures.of(study) for ending in figures.FORMATS]
    assert {path.name for path in folder.iterdir()} == {*mine, *drawn}


def test_the_report_stage_writes_the_page_and_a_figure_per_scored_dataset(tmp_path, capsys):
    study = synthetic_study.study(tmp_path)
    report.run(study, tmp_path / "elsewhere")
    made = sorted(str(path.relative_to(tmp_path / "elsewhere")) for path in (tmp_path / "elsewhere").rglob("*.*"))
    drawn = [f"figures/{each.name}.{ending}" for each in figures.of(study) for ending in ("svg", "pdf")]
    assert made == sorted(["explorer.html", "scores.parquet", *drawn])
    assert "not run: montgomery derived: weights, not started" in capsys.readouterr().out
