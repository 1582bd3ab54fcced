"""The page docs/reliability.md: what the tests marked `survives` tried, how often, and what came of it.

`pytest -m survives --reliability=docs/reliability.md tests` (make reliability) writes it, if all of them passed.
"""

import ast
import functools
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

KINDS = {
    "fault": "Faults of machines and people",
    "input": "Bad input",
    "attack": "Attacks",
    "bug": "Wrong numbers that nothing would show",
}
HEAD = """# Reliability

Each row is a fault or an attack that the tests cause on purpose: how many times (trials), what must come of it, and the
test that does it. The page is written by `make reliability` from a run of these tests, and only if all of them pass;
`.ci/run` runs the same tests, with fewer kills. Last run: {day}, {tests} tests, {trials:,} trials.
"""
CLOSE = """
## Not covered

- A disk that loses what it said it has written. Files are synced before they are renamed; the rest is up to the disk.
- Somebody who can write to the results folder and means harm: checksums lie beside the data. They find accidents.
- Damage inside the pixels of a raw file before it is first hashed, where its format has no checksums (BMP, TIFF, DICOM,
  plain NIfTI). From then on it is found.
- Weaknesses of the packages themselves: `make audit` looks them up, over the network.
- Names burned into the pixels of films: such files are warned of, and pictures stay out of the report by default.
"""


def pytest_addoption(parser):
    parser.addoption("--reliability", metavar="FILE", help="write what the tests marked `survives` tried")


EXAMPLES = Counter()  # of Hypothesis, of the test that runs


def pytest_collection_modifyitems(items):
    tests = {id(item.obj.hypothesis): item.obj.hypothesis for item in items if hasattr(item.obj, "hypothesis")}
    for test in tests.values():  # one for all parameters of a test
        test.inner_test = _counted(test.inner_test)


def _counted(inner):
    @functools.wraps(inner)
    def counted(*given, **named):
        found = inner(*given, **named)
        EXAMPLES["run"] += 1  # an example that was drawn in vain has raised
        return found

    return counted


def pytest_runtest_setup(item):
    EXAMPLES.clear()


def pytest_runtest_teardown(item):
    if EXAMPLES["run"]:
        item.user_properties.append(("trials", EXAMPLES["run"]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if marks := list(item.iter_markers("survives")):
        report.survives = [list(mark.args) for mark in marks]  # travels to the controller of xdist with the report
    return report


class Recorder:
    """Gathers the reports of one run, and writes the page at its end."""

    def __init__(self, path: Path):
        self.path, self.outcomes, self.trials, self.marks = path, {}, Counter(), {}

    def pytest_runtest_logreport(self, report):
        if not hasattr(report, "survives"):
            return
        self.marks[report.nodeid] = report.survives
        if report.when == "call" or not report.passed:
            self.outcomes[report.nodeid] = report.outcome
        if report.when == "teardown":
            self.trials[report.nodeid] = sum(n for name, n in report.user_properties if name == "trials") or 1

    def pytest_sessionfinish(self, exitstatus):
        if exitstatus == pytest.ExitCode.OK:
            self.path.write_text(self.page(), encoding="utf-8")

    def page(self) -> str:
        passed = [node for node, outcome in self.outcomes.items() if outcome == "passed"]
        trials = sum(self.trials[node] for node in passed)
        lines = [HEAD.format(day=datetime.now(UTC).date(), tests=len(passed), trials=trials)]
        for kind, title in KINDS.items():
            lines += [f"\n## {title}\n", "| what | trials | outcome | test |", "|---|---|---|---|"]
            rows = {}
            for node, marks in self.marks.items():
                for _, *row in (mark for mark in marks if mark[0] == kind):
                    rows.setdefault(tuple(row), []).append(node)
            for (what, outcome), nodes in sorted(rows.items()):
                done = sum(self.trials[node] for node in nodes if node in passed)
                names = sorted({node.partition("[")[0] for node in nodes})
                tests = ", ".join(f"`{name.removeprefix('tests/')}`" for name in names)
                lines.append(f"| {what} | {done:,} | {outcome if done else 'not run on this machine'} | {tests} |")
        return "\n".join(lines) + "\n" + CLOSE


def pytest_configure(config):
    path = config.getoption("reliability", None)
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(Path(path)))


def marked(folder: Path) -> set[tuple[str, str, str]]:
    """Return what, outcome and `path::test` of all marks of the tests below `folder`, read from their source."""
    found = set()
    for path in folder.rglob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for each in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(each, ast.Call) and ast.unparse(each.func).endswith("mark.survives"):
                    _, what, outcome = map(ast.literal_eval, each.args)
                    found.add((what, outcome, f"{path.relative_to(folder).as_posix()}::{node.name}"))
    return found
