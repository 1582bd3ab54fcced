"""Writing the pages of cells: those whose sources have changed, one backbone's predictions in memory at a time."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import radprobe
from radprobe import files
from radprobe.artifacts import Predictions, Scores
from radprobe.catalog import PRIMARY_METRIC
from radprobe.files import RadprobeError
from radprobe.metrics.classification import MACRO
from radprobe.names import with_weights
from radprobe.report import again, look, tables, templating, words
from radprobe.report.cells import classified, places, segmented, told
from radprobe.report.collect import Cell, Findings, log_tail
from radprobe.report.figures import hidden
from radprobe.report.ranking import estimate
from radprobe.study import Step, Study

LOG_LINES = 20
STAMP = re.compile(r'<meta name="made-from" content="(\w+)">')
HEAD = 400  # bytes of a page that hold its stamp


def write(findings: Findings, folder: Path) -> int:
    """Write the page of every cell with scores under `folder` / cells, and remove those of cells that are no more.

    Returns how many were written: a page is left as it is while what it is made from is the same.
    """
    cells = {(cell.dataset, cell.backbone): cell for cell in findings.cells}
    environment = templating.environment(findings)
    kept: set[Path] = set()
    written = 0
    environment.globals["cell_css"] = Markup(templating.source("cell.css"))
    for (dataset, backbone), protocols in places.protocols(findings).items():
        paths = {name: folder / places.address(dataset, backbone, name) for name in protocols}
        kept |= set(paths.values())
        stamp = _stamp(findings, dataset, backbone, protocols)
        stale = [name for name, path in paths.items() if _stamp_of(path) != stamp]
        if not stale:
            continue
        job = _Pages(findings, cells[dataset, backbone], backbone, protocols, stamp)
        for protocol in stale:
            files.write_text(paths[protocol], job.page(environment, protocol))
        written += len(stale)
    _remove(folder / places.FOLDER, kept)
    return written


def _remove(folder: Path, kept: set[Path]) -> None:
    """Remove the pages that are not kept, and the folders that this leaves empty."""
    for page in set(folder.glob("*/*/*.html")) - kept:
        page.unlink()
        for above in (page.parent, page.parent.parent):
            if not any(above.iterdir()):
                above.rmdir()


# --- what a page is made from -----------------------------------------------------------------------------------------


def _stamp_of(path: Path) -> str | None:
    """Return the stamp of a page that is there."""
    try:
        with path.open(encoding="utf-8", errors="replace") as handle:
            found = STAMP.search(handle.read(HEAD))
    except FileNotFoundError:
        return None
    return found[1] if found else None


def _stamp(findings: Findings, dataset: str, backbone: str, protocols: list[str]) -> str:
    """Return a digest of all that the pages of a backbone on a dataset show: manifests, entries, params, log, code."""
    study = findings.study
    predicting = study.predicting(dataset, backbone)
    keys: list[tuple[str, str | None, str | None]] = [
        (verb, dataset, None) for verb in ("retrieve", "prepare", "split")
    ]
    keys += [(verb, dataset, backbone) for verb in ("embed", predicting, "score")]
    keys.append(("weights", None, with_weights(backbone)))
    manifests = [_text(path) for key in keys if (step := study.steps.get(key)) for path in step.outputs]
    p = study.params
    shown = [p.study, p.limit, p.score.min_patients, p.report.images, p.report.examples, protocols]
    entries = [findings.datasets[dataset], study.backbone(backbone), findings.title(backbone), study.cost(backbone)]
    log = log_tail(study, study.step(predicting, dataset, backbone), LOG_LINES)
    others = [_text(path) for path in _of_further_inits(study, dataset, backbone)]
    return files.digest([_code(), manifests, others, shown, [repr(each) for each in entries], log])


def _of_further_inits(study: Study, dataset: str, backbone: str) -> list[Path]:
    """Return the manifests of the scores of the further random initialisations of a control row."""
    steps = [study.step("score", dataset, name) for name in study.inits(dataset, backbone) if name != backbone]
    return [path for step in steps for path in step.outputs]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


@cache
def _code() -> str:
    """Return a digest of the package's own files."""
    root = Path(radprobe.__file__).parent
    kinds = {".py", ".html", ".css", ".yaml"}
    return files.digest([files.sha256(path) for path in sorted(root.rglob("*")) if path.suffix in kinds])


# --- a page -----------------------------------------------------------------------------------------------------------


@dataclass
class _Pages:
    """A backbone on a dataset: what its pages share, the predictions of all its protocols among it."""

    findings: Findings
    cell: Cell
    backbone: str
    protocols: list[str]
    stamp: str
    predictions: Predictions | None = None
    why: str = ""  # there are no predictions
    shared: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        dataset, backbone = self.cell.dataset, self.backbone
        try:
            self.predictions = Predictions.load(self._step.folder)
        except (RadprobeError, FileNotFoundError) as error:
            self.why = str(error)
        facts = self.findings.facts(self._step.verb, dataset, backbone)
        self.facts = facts.get("protocols", {})
        scored = self.findings.scored(dataset, backbone)
        if scored is None:
            raise RadprobeError(f"{dataset}, {backbone}", "has no scores", f"run `radprobe score {dataset} {backbone}`")
        self.scored: Scores = scored
        self.rows: told.Rows = scored.table.to_dict("records")
        self.recipe = again.cell_of(self.findings, self.cell)
        self.shared = {
            "stamp": self.stamp,
            "up": places.UP,
            "study": self.findings.study.params.study,
            "dataset": dataset,
            "dataset_title": self.findings.datasets[dataset].title,
            "backbone": backbone,
            "anchor": tables.anchor(dataset, backbone),
            "metric": words.metric(PRIMARY_METRIC[self.findings.datasets[dataset].task]),
            "least": self.findings.study.params.score.min_patients,
            "task": self.findings.datasets[dataset].task,
            "notes": told.notes(self.findings, dataset, backbone),
            "cards": told.cards(self.findings, dataset, backbone),
            "again": self.recipe,
            "log": log_tail(self.findings.study, self._step, LOG_LINES),
        }
        self.draws = told.draws(self.scored, facts.get("few_shot", {}))

    @property
    def _step(self) -> Step:
        verb = self.findings.study.predicting(self.cell.dataset, self.backbone)
        return self.findings.study.step(verb, self.cell.dataset, self.backbone)

    def page(self, environment: jinja2.Environment, protocol: str) -> str:
        """Return the page of a protocol."""
        findings, dataset, backbone = self.findings, self.cell.dataset, self.backbone
        rows = [row for row in self.rows if row["protocol"] == protocol]
        tests, vals = ([row for row in rows if row["part"] == part] for part in ("test", "val"))
        primary = told.of(tests, PRIMARY_METRIC[self.shared["task"]])
        facts = self.facts.get(protocol, {})
        chosen = next((each for each in self.recipe.protocols if each.name == protocol), None)
        names = [(words.label(name), None if name == protocol else self._beside(name)) for name in self.protocols]
        return environment.get_template("cell.html").render(
            **self.shared,
            protocol=protocol,
            explained=words.EXPLAINED.get(protocol, ""),
            siblings=names,
            score=estimate(primary[MACRO], "value"),
            fits=told.fits(primary[MACRO]),
            n=(primary[MACRO]["n_patients"], primary[MACRO]["n_samples"]),
            chosen=chosen,
            used={part: facts[f"n_{part}"] for part in ("train", "val", "test") if f"n_{part}" in facts},
            candidates=told.candidates(facts),
            folds=told.folds(facts),
            tests=told.scores(tests),
            vals=told.scores(vals),
            inits=told.inits(findings, dataset, backbone, protocol),
            draws=self.draws if protocol == places.of_draws(self.protocols) else None,
            training=told.training(self.predictions, protocol) if self.predictions else None,
            costs=told.costs(findings, dataset, backbone, tests[0], facts),
            **self._shown(protocol, tests, told.too_few(primary, self.shared["least"])),
        )

    def _beside(self, protocol: str) -> str:
        return places.address(self.cell.dataset, self.backbone, protocol).rpartition("/")[2]

    def _shown(self, protocol: str, tests: told.Rows, few: list[str]) -> dict[str, Any]:
        """Return what the page shows of the predictions: `found`, or `why` not; and why it has no pictures."""
        if self.shared["task"] != "segmentation":
            found = classified.show(self.predictions, protocol, tests, few) if self.predictions else None
            return {"found": found, "why": self.why, "hidden": ""}
        picture, why = self._picture(protocol)
        cases, classes = self.scored.cases, list(dict.fromkeys(row["class"] for row in tests))
        if cases is None:
            return {"found": None, "why": "there are no scores of single cases", "hidden": why}
        cases = cases[(cases["protocol"] == protocol) & (cases["part"] == "test")]
        found = segmented.show(cases, classes, few, picture, self.findings.study.params.report.examples)
        return {"found": found, "why": "", "hidden": why}

    def _picture(self, protocol: str) -> tuple[Callable[[str], str] | None, str]:
        """Return what makes the picture of a case, or None and the reason."""
        if reason := hidden(self.findings.study, self.cell.dataset):
            return None, f"{reason}. report.images: thumbnails shows them"
        if self.predictions is None:
            return None, self.why
        try:
            cases = look.PicturedCases.of(*self.findings.images(self.cell.dataset))
        except (RadprobeError, FileNotFoundError) as error:
            return None, str(error)
        maps = self.predictions.maps[protocol].of("test")
        return lambda case: cases.picture(case, maps[case]), ""
