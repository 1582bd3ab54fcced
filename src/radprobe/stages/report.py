"""report: explorer.html, scores.parquet and figures, from what has been made; what is missing is told."""

from pathlib import Path

import pandas as pd

from radprobe import console, files
from radprobe.artifacts.tables import write_table
from radprobe.report import drawing, few_shot, figures, look, page, ranking
from radprobe.report.cells import pages
from radprobe.report.collect import Findings
from radprobe.report.ranking import Column
from radprobe.study import Study


def run(study: Study, folder: Path | None = None) -> None:
    """Read every manifest of the study that is there, and write its pages into `folder`."""
    findings = Findings(study)
    folder = folder or study.path("reports")
    write(findings, folder)
    pages.write(findings, folder)
    for cell in findings.cells:
        if cell.state != "done":
            console.say(f"{cell.state}: {cell.dataset} {cell.backbone or 'comparison'}: {cell.step.verb}, {cell.why}")


def write(findings: Findings, folder: Path) -> None:
    """Write explorer.html, scores.parquet and the figures of the study into `folder`."""
    columns = ranking.columns(findings)
    drawable = figures.of(findings.study)
    drawn_shots = [each.dataset for each in drawable if each.kind == "few_shot" and each.dataset]
    curves = {name: found for name in drawn_shots if (found := few_shot.curves(findings, name))}
    heads = ranking.headlines(columns)
    pictured = [each.dataset for each in drawable if each.kind == "features" and each.dataset]
    features = {name: look.features(findings, name, heads.get(name)) for name in pictured}
    drawn = drawing.draw(findings, columns, curves, features)
    _forget(folder / "figures", {each.name for each in drawn})
    for figure, forms in drawn.items():
        for ending, content in forms.items():
            files.write_bytes(folder / "figures" / f"{figure.name}.{ending}", content)
    write_table(folder / "scores.parquet", findings.scores)
    _version(columns, folder)
    inline = {figure: forms["svg"] for figure, forms in drawn.items()}
    files.write_text(folder / "explorer.html", page.render(findings, columns, list(curves.values()), features, inline))


def _version(columns: list[Column], folder: Path) -> None:
    """Write the test scores of the grid as DVC compares and plots them: metrics.json, headline.csv.

    An undefined score is in neither of them.
    """
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    rows = []
    for column in columns:
        for backbone in column.order:
            score, protocol = column.scores[backbone], column.protocol_of(backbone)
            metrics.setdefault(column.dataset, {}).setdefault(backbone, {})[protocol] = score.value
            rows.append((f"{column.dataset} {backbone} {protocol}", column.metric, score.value, score.low, score.high))
    files.write_json(folder / "metrics.json", metrics)
    table = pd.DataFrame(rows, columns=["cell", "metric", "score", "low", "high"]).drop_duplicates()
    files.write_text(folder / "headline.csv", table.to_csv(index=False))


def _forget(folder: Path, drawn: set[str]) -> None:
    """Remove figures of earlier reports that are not drawn any more: forbidden since, or of a dataset that is gone."""
    names = [f"{start}{kind}.{ending}" for start in ("", "*_") for kind in figures.KINDS for ending in figures.FORMATS]
    for path in {path for name in names for path in folder.glob(name) if path.stem not in drawn}:
        path.unlink()
