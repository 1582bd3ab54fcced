import pytest
import synthetic_study

from radprobe.report import drawing, figures
from radprobe.report.collect import Findings
from radprobe.stages import report


@pytest.fixture(scope="session")
def written(finished, once):
    """The folder of the report of the finished study: the page, its figures and the pages of cells."""
    return once("pages", lambda folder: report.run(synthetic_study.study(finished), folder))


@pytest.fixture(scope="session")
def text(written):
    """The page of the finished study."""
    return (written / "explorer.html").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def findings(finished):
    """What the finished study found, to read."""
    return Findings(synthetic_study.study(finished))


@pytest.fixture
def render_all():
    """Return a function that writes the report of the study under a folder and returns the page's text."""

    def rendered(root, **changes):
        study = synthetic_study.study(root, **changes)
        report.run(study)
        return (study.path("reports") / "explorer.html").read_text(encoding="utf-8")

    return rendered


@pytest.fixture(scope="session")
def words_of():
    """Return a function that writes the page of a study and returns its text; figures are empty, no cell has a page."""

    def page(study):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(drawing, "draw", lambda findings, *_: dict.fromkeys(figures.of(findings.study), EMPTY))
            report.write(Findings(study), study.path("reports"))
        return (study.path("reports") / "explorer.html").read_text(encoding="utf-8")

    return page


EMPTY = {"svg": b"<svg></svg>", "pdf": b""}


@pytest.fixture
def render(words_of):
    """Return a function that returns the page of the study under a folder, written without drawing a figure."""
    return lambda root, **changes: words_of(synthetic_study.study(root, **changes))
