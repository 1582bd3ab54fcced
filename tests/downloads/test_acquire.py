import json
import os
import re
import tarfile
import zipfile

import pytest

from radprobe import catalog, files, phantoms
from radprobe.catalog import Download
from radprobe.datasets import DOWNLOADED, DOWNLOADING, locate, nih_chestxray14
from radprobe.downloads import archives, download
from radprobe.downloads.acquire import acquire
from radprobe.files import RadprobeError

MONTGOMERY = catalog.datasets()["montgomery"]
NIH = catalog.datasets()["nih_chestxray14"]


@pytest.fixture
def published(server, tmp_path):
    """Serve a zip of a phantom MontgomerySet, as the publisher's; return its entry and the archive's bytes."""
    phantoms.generate(tmp_path / "site", MONTGOMERY, 3, 0)
    with zipfile.ZipFile(tmp_path / "site.zip", "w") as archive:
        for path in sorted((tmp_path / "site").rglob("*")):
            archive.write(path, path.relative_to(tmp_path / "site"))
        archive.writestr("__MACOSX/MontgomerySet/._CXR_png", b"x")
    content = (tmp_path / "site.zip").read_bytes()
    server.bodies["/set.zip"] = content
    downloads = [Download(file="set.zip", urls=[server.url("gone/set.zip"), server.url("set.zip")])]
    server.bodies["/gone/set.zip"] = b"<html>"
    server.answers = [404]
    return MONTGOMERY.model_copy(update={"downloads": downloads}), content


@pytest.fixture
def in_parts(server, tmp_path):
    """Serve a phantom NIH as two archives and its three tables, as the publisher does; return its entry."""
    phantoms.generate(tmp_path / "site", NIH, 6, 0)
    films = sorted((tmp_path / "site").rglob("*.png"))
    downloads = []
    for number, some in enumerate((films[::2], films[1::2]), 1):
        with tarfile.open(tmp_path / f"images_{number:03d}.tar.gz", "w:gz") as archive:
            for film in some:
                archive.add(film, f"images/{film.name}")
    tables = [path for suffix in ("csv", "txt") for path in (tmp_path / "site").rglob(f"*.{suffix}")]
    for path in [*sorted(tmp_path.glob("*.gz")), *tables]:
        server.bodies[f"/{path.name}"] = path.read_bytes()
        unpack = path.suffix == ".gz"
        facts = {"bytes": path.stat().st_size, "sha256": files.sha256(path), "unpack": unpack}
        downloads.append(Download(file=path.name, urls=[server.url(path.name)], **facts))
    return NIH.model_copy(update={"downloads": downloads, "by_hand": []})


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*.png")}


def asked_for(server):
    return [path for path, _ in server.requests]


def test_a_dataset_comes_whole_with_a_record_of_its_files(server, published, tmp_path):
    entry, content = published
    acquire(entry, tmp_path / "raw")
    layout = locate(entry, tmp_path / "raw")
    assert layout.variant == "official"
    site, here = content_of(tmp_path / "site"), content_of(tmp_path / "raw")
    assert here == site
    assert not list((tmp_path / "raw").rglob("._*"))
    record = json.loads((tmp_path / "raw" / DOWNLOADED).read_text())["set.zip"]
    assert record["url"] == server.url("set.zip")
    assert record["bytes"] == len(content)
    assert record["sha256"] == files.sha256(tmp_path / "site.zip")


def test_what_is_complete_is_not_asked_for_again(server, published, tmp_path):
    entry, _ = published
    acquire(entry, tmp_path / "raw")
    (tmp_path / "raw/set.zip").unlink()  # as the user is told he may
    server.requests.clear()
    acquire(entry, tmp_path / "raw")
    assert server.requests == []


def test_parts_become_the_official_folders(server, in_parts, tmp_path):
    acquire(in_parts, tmp_path / "raw")
    layout = locate(in_parts, tmp_path / "raw")
    assert {"images_001/images", "images_002/images"} == {
        folder.relative_to(tmp_path / "raw").as_posix() for folder in layout.folders
    }
    assert content_of(tmp_path / "raw") == content_of(tmp_path / "site")
    index = nih_chestxray14.samples(layout, in_parts, allow_missing=False)
    assert len(index.table) == len(content_of(tmp_path / "site"))


@pytest.mark.parametrize("name", [name for name, entry in catalog.datasets().items() if entry.by_hand])
def test_what_has_no_link_is_asked_for_before_anything_is_fetched(server, published, tmp_path, name):
    """The pattern is that of the dataset's own files, as its phantom writes them."""
    entry = catalog.datasets()[name].model_copy(update={"downloads": published[0].downloads})
    phantoms.generate(tmp_path / "whole", entry, 6, 0)
    raw = tmp_path / "raw"
    for pattern in entry.by_hand:
        with pytest.raises(RadprobeError, match=re.escape(f"holds no {pattern}")) as error:
            acquire(entry, raw)
        assert entry.urls[0] in error.value.remedy
        assert not server.requests
        for path in (tmp_path / "whole").rglob(pattern):
            there = raw / path.relative_to(tmp_path / "whole")
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(path.read_bytes())
    acquire(entry, raw)
    assert server.requests
    assert f"put {entry.by_hand[0]}" in catalog.how_to_get(entry, raw)


def test_a_half_download_is_no_dataset_and_goes_on_where_it_was(server, in_parts, tmp_path, monkeypatch):
    raw = tmp_path / "raw"
    for table in in_parts.downloads[2:]:
        raw.mkdir(exist_ok=True)
        (raw / table.file).write_bytes(server.bodies[f"/{table.file}"])  # put there by hand
    with monkeypatch.context() as patched:
        patched.setattr(download, "ATTEMPTS", 1)
        server.answers = [None, {"bytes": 1000}]
        with pytest.raises(RadprobeError, match="images_002"):
            acquire(in_parts, raw)
    assert (raw / "images_001/images").is_dir()
    assert (raw / DOWNLOADING).is_file()
    assert locate(in_parts, raw) is None
    server.requests.clear()
    acquire(in_parts, raw)
    assert asked_for(server) == ["/images_002.tar.gz"]
    assert server.requests[0][1]["Range"] == "bytes=1000-"
    assert content_of(raw) == content_of(tmp_path / "site")


def test_a_kill_while_unpacking_leaves_no_half_folder(server, in_parts, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(archives.shutil, "rmtree", lambda *_, **__: None)
        patched.setattr(archives, "_copy", killed)
        with pytest.raises(KeyboardInterrupt):
            acquire(in_parts, tmp_path / "raw")
    assert locate(in_parts, tmp_path / "raw") is None
    server.requests.clear()
    acquire(in_parts, tmp_path / "raw")
    assert "/images_001.tar.gz" not in asked_for(server)  # it was there, and verified again
    assert content_of(tmp_path / "raw") == content_of(tmp_path / "site")


def test_a_file_put_there_by_hand_is_taken_with_no_network(server, published, tmp_path):
    entry, content = published
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/set.zip").write_bytes(content)
    acquire(entry, tmp_path / "raw")
    assert server.requests == []
    assert locate(entry, tmp_path / "raw")


def test_files_of_the_user_are_left_alone(server, published, tmp_path):
    entry, content = published
    (tmp_path / "raw/notes").mkdir(parents=True)
    (tmp_path / "raw/notes/mine.txt").write_text("mine")
    (tmp_path / "raw/set.zip").write_bytes(b"mine")
    (item,) = entry.downloads
    stated = item.model_copy(update={"bytes": len(content)})
    acquire(entry.model_copy(update={"downloads": [stated]}), tmp_path / "raw")
    assert (tmp_path / "raw/notes/mine.txt").read_text() == "mine"
    assert (tmp_path / "raw/set.zip.wrong").read_bytes() == b"mine"


def test_another_file_under_the_same_name_is_not_taken_for_the_first(server, published, tmp_path):
    entry, _ = published
    raw = tmp_path / "raw"
    acquire(entry, raw)
    archives.shutil.rmtree(raw / "set")
    (raw / "set.zip").unlink()
    with zipfile.ZipFile(tmp_path / "site.zip", "a") as archive:
        archive.writestr("MontgomerySet/new", b"new")
    server.bodies["/set.zip"] = (tmp_path / "site.zip").read_bytes()
    server.answers = [404]
    with pytest.raises(RadprobeError, match="when first downloaded"):
        acquire(entry, raw)
    assert not (raw / "set").exists()
    (raw / DOWNLOADING).unlink()
    acquire(entry, raw)
    assert (raw / "set/MontgomerySet/new").read_bytes() == b"new"


def test_room_for_all_of_it_is_asked_for_first(server, in_parts, tmp_path, monkeypatch):
    total = sum(item.bytes * (1 + item.unpack) for item in in_parts.downloads)
    usage = type("usage", (), {"free": total - 1})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(RadprobeError, match="are to come"):
        acquire(in_parts, tmp_path / "raw")
    assert server.requests == []
    usage.free = total
    acquire(in_parts, tmp_path / "raw")


@pytest.mark.survives("fault", "a raw folder that cannot be written", "said before a byte comes")
def test_a_folder_that_cannot_be_written_is_said_before_anything_is_asked_for(server, published, tmp_path):
    (tmp_path / "raw").write_text("a file")
    with pytest.raises(RadprobeError, match="cannot be written") as error:
        acquire(published[0], tmp_path / "raw")
    assert "datasets.montgomery.raw" in error.value.remedy
    assert server.requests == []


@pytest.mark.survives("fault", "two downloads of one dataset at once", "the second waits; one download")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_at_once_download_it_once(server, in_parts, tmp_path):
    child = os.fork()
    if not child:
        acquire(in_parts, tmp_path / "raw")
        os._exit(0)
    acquire(in_parts, tmp_path / "raw")
    assert os.waitpid(child, 0)[1] == 0
    assert sorted(asked_for(server)) == sorted(f"/{item.file}" for item in in_parts.downloads)
