import synthetic_study

from radprobe.stages import report


def test_the_report_stage_writes_the_page_and_a_figure_per_scored_dataset(tmp_path, capsys):
    study = synthetic_study.study(tmp_path)
    report.run(study, tmp_path / "elsewhere")
    made = sorted(str(path.relative_to(tmp_path / "elsewhere")) for path in (tmp_path / "elsewhere").rglob("*.*"))
    kinds = ("", "_few_shot", "_frontier")
    drawn = [f"{dataset}{kind}" for dataset in ("montgomery", "nih_chestxray14") for kind in kinds] + ["ranks"]
    assert made == ["explorer.html", *(f"figures/{name}.svg" for name in drawn), "scores.parquet"]
    assert "not run: montgomery derived: weights, not started" in capsys.readouterr().out
