import json

import pandas as pd
import pytest
import synthetic_study

from radprobe.names import first_init
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
    assert made == sorted(["explorer.html", "headline.csv", "metrics.json", "scores.parquet", *drawn])
    assert "not run: montgomery derived: weights, not started" in capsys.readouterr().out


def test_what_dvc_compares_and_plots_are_the_defined_macro_scores_of_the_test_part(finished, tmp_path):
    report.run(synthetic_study.study(finished), tmp_path / "elsewhere")
    table = pd.read_parquet(tmp_path / "elsewhere/scores.parquet")
    table = table[(table["part"] == "test") & (table["class"] == "macro") & table["value"].notna()]
    keys = ["dataset", table["backbone"].map(first_init), "protocol", "metric"]  # inits are one row, their mean
    known = table.groupby(keys)["value"].agg(["mean", "first"])  # in the order of the inits
    metrics = json.loads((tmp_path / "elsewhere/metrics.json").read_text())
    found = [(d, b, p, v) for d, rows in metrics.items() for b, row in rows.items() for p, v in row.items()]
    assert {dataset for dataset, *_ in found} == {"montgomery", "nih_chestxray14"}
    for dataset, backbone, protocol, value in found:
        metric = {"montgomery": "dsc", "nih_chestxray14": "auroc"}[dataset]
        of = "first" if protocol == "shuffled" else "mean"  # the floor orders nothing, so it is not compared
        assert known.loc[(dataset, backbone, protocol, metric), of] == pytest.approx(value)
    plotted = pd.read_csv(tmp_path / "elsewhere/headline.csv")
    assert dict(zip(plotted["cell"], plotted["score"], strict=True)) == {
        f"{dataset} {backbone} {protocol}": value for dataset, backbone, protocol, value in found
    }
