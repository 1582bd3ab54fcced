"""report: explorer.html and a figure per dataset, from whatever has been made; a missing cell is told, never fatal."""

from pathlib import Path

from radprobe import console, files
from radprobe.report import figures, page, ranking
from radprobe.report.collect import Findings
from radprobe.study import Study


def run(study: Study, folder: Path | None = None) -> None:
    """Read every manifest of the study that is there; write explorer.html and figures/<dataset>.svg into `folder`."""
    folder = folder or study.path("reports")
    findings = Findings(study)
    columns = ranking.columns(findings)
    drawn = {
        name: figures.draw(findings, name, [column for column in columns if column.dataset == name])
        for name, entry in findings.datasets.items()
        if entry.task != "look"
    }
    for name, svg in drawn.items():
        figures.save(folder / "figures" / f"{name}.svg", svg)
    files.write_text(folder / "explorer.html", page.render(findings, columns, drawn))
    for cell in findings.cells:
        if cell.state != "done":
            console.say(f"{cell.state}: {cell.dataset} {cell.backbone or 'comparison'}: {cell.step.verb}, {cell.why}")
