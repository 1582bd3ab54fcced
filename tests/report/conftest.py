import shutil

import pytest
import synthetic_study

from radprobe.stages import report


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a finished synthetic study."""
    root = tmp_path_factory.mktemp("finished")
    synthetic_study.build(root)
    return root


@pytest.fixture(scope="session")
def text(finished):
    """The page of the finished study, written into its folder `pages`."""
    report.run(synthetic_study.study(finished), finished / "pages")
    return (finished / "pages/explorer.html").read_text(encoding="utf-8")


@pytest.fixture
def root(finished, tmp_path):
    """A copy of the finished study, to break."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def render():
    """Return a function that writes the report of the study under a folder and returns the page's text."""

    def rendered(root, **changes):
        study = synthetic_study.study(root, **changes)
        report.run(study)
        return (study.path("reports") / "explorer.html").read_text(encoding="utf-8")

    return rendered
