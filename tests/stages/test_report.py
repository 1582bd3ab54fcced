import synthetic_study

from radprobe.report import figures
from radprobe.stages import report


def test_the_report_stage_writes_the_page_and_a_figure_per_scored_dataset(tmp_path, capsys):
    study = synthetic_study.study(tmp_path)
    report.run(study, tmp_path / "elsewhere")
    made = sorted(str(path.relative_to(tmp_path / "elsewhere")) for path in (tmp_path / "elsewhere").rglob("*.*"))
    drawn = [f"figures/{each.name}.{ending}" for each in figures.of(study) for ending in ("svg", "pdf")]
    assert made == sorted(["explorer.html", "scores.parquet", *drawn])
    assert "not run: montgomery derived: weights, not started" in capsys.readouterr().out
