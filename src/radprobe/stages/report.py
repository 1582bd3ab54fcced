"""report: explorer.html, scores.parquet and figures, from what has been made; what is missing is told."""

from pathlib import Path

from radprobe import console, files
from radprobe.artifacts import write_table
from radprobe.report import adaptation, few_shot, few_shot_chart, figures, frontier, page, ranking, ranks
from radprobe.report.cells import pages
from radprobe.report.collect import Findings
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
    """Write explorer.html, scores.parquet and figures/*.svg into `folder`."""
    columns = ranking.columns(findings)
    curves = {name: few_shot.curves(findings, name) for name in few_shot.asked(findings)}
    datasets = [name for name, entry in findings.datasets.items() if entry.task != "look"]
    by_dataset = {name: [column for column in columns if column.dataset == name] for name in datasets}
    drawn = {name: figures.draw(findings, name, each) for name, each in by_dataset.items()}
    drawn |= {few_shot.file(name): few_shot_chart.draw(findings, name, each) for name, each in curves.items()}
    if adaptation.is_asked(findings):
        for name, each in by_dataset.items():
            drawn[adaptation.file(name)] = adaptation.draw(findings, name, ranking.headline(each))
    drawn |= {frontier.file(name): frontier.draw(findings, name) for name in datasets}
    heads = {name: head for name, each in by_dataset.items() if (head := ranking.headline(each))}
    drawn[ranks.FILE] = ranks.draw(findings, ranks.across(findings, heads))
    for name, svg in drawn.items():
        figures.save(folder / "figures" / f"{name}.svg", svg)
    found = [each for each in curves.values() if each]
    write_table(folder / "scores.parquet", findings.scores)
    files.write_text(folder / "explorer.html", page.render(findings, columns, found, drawn))
