import os
import shutil

import local_server
import pytest
from filelock import FileLock
from hypothesis import settings
from reliability import (  # noqa: F401 - hooks of the page docs/reliability.md
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_runtest_makereport,
    pytest_runtest_setup,
    pytest_runtest_teardown,
)

settings.register_profile("radprobe", deadline=None)  # a busy machine is no failure
settings.load_profile("radprobe")


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Return a function that fills a folder by `make(folder)`, once for all workers of pytest-xdist."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # that of the worker is a folder in it

    def filled(name, make):
        folder, whole = shared / name, shared / f"{name}.whole"
        with FileLock(shared / f"{name}.lock"):
            if not whole.exists():
                make(folder)
                whole.touch()
        return folder

    return filled


@pytest.fixture(scope="session")
def finished(once):
    """The folder of a finished synthetic study, which many tests read. `root` is a copy to change."""
    import synthetic_study  # it needs numpy and pandas

    return once("finished", synthetic_study.build)


@pytest.fixture
def root(finished, tmp_path):
    """A copy of the finished study, to break."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def server(monkeypatch):
    """A web server on this machine; downloads wait little before they try again."""
    from radprobe.downloads import download  # it needs requests

    monkeypatch.setattr(download, "FIRST_WAIT_S", 0.01)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    served = local_server.start()
    yield served
    local_server.stop(served)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to stand in; the environment says nothing of data and weights."""
    monkeypatch.chdir(tmp_path)
    for name in ("HF_HUB_OFFLINE", "RADPROBE_RAW", "RADPROBE_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path
