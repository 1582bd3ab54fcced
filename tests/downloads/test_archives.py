import gzip
import io
import os
import stat
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radprobe.downloads import archives
from radprobe.downloads.archives import extract
from radprobe.files import RadprobeError

GOOD = {"Task/imagesTr/a.nii.gz": b"a" * 3000, "Task/imagesTr/b.nii.gz": os.urandom(70_000), "Task/dataset.json": b""}
FORMATS = ["zip", "tar", "tar.gz"]


def pack(path, members):
    """Write `members` (name -> bytes, or a TarInfo / ZipInfo maker) as the format that the name of `path` says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def special(path, kind, target="/etc/passwd"):
    """Write an archive with one honest file and one link or device."""
    if path.suffix == ".zip":
        info = zipfile.ZipInfo("Task/evil")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("Task/a", b"a")
            archive.writestr(info, target)
        return path
    with tarfile.open(path, "w") as archive:
        for name, type_ in (("Task/a", tarfile.REGTYPE), ("Task/evil", kind)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = type_, target
            archive.addfile(info, io.BytesIO())
    return path


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(archive, words, **caps):
    """Assert that nothing at all is left of `archive`, and that the reason has `words`."""
    around = archive.parent
    before = {path: path.stat().st_mtime_ns for path in around.rglob("*")}
    with pytest.raises(RadprobeError, match=words) as error:
        extract(archive, around / "out", **caps)
    assert {path: path.stat().st_mtime_ns for path in around.rglob("*")} == before
    return error.value


@pytest.mark.parametrize("form", FORMATS)
def test_what_went_in_comes_out(tmp_path, form):
    unpacked = extract(pack(tmp_path / f"x.{form}", GOOD), tmp_path / "out")
    assert tree(tmp_path / "out") == GOOD
    assert (unpacked.files, unpacked.bytes, unpacked.junk) == (3, 73_000, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", f"x.{form}"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_single_folder_of_the_same_name_is_not_nested(tmp_path, form):
    extract(pack(tmp_path / f"Task.{form}", {**GOOD, "__MACOSX/x": b"x"}), tmp_path / "Task")
    assert tree(tmp_path / "Task") == {name.removeprefix("Task/"): content for name, content in GOOD.items()}
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("form", FORMATS)
def test_files_of_macos_are_left_out_and_counted(tmp_path, form, capsys):
    junk = ["._Task", "Task/._a", "Task/imagesTr/._a.nii.gz", "__MACOSX/Task/._b", "Task/.DS_Store"]
    unpacked = extract(pack(tmp_path / f"x.{form}", {**dict.fromkeys(junk, b"mac"), **GOOD}), tmp_path / "out")
    assert tree(tmp_path / "out") == GOOD
    assert unpacked.junk == len(junk)
    assert "5 hidden file(s)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "folder"),
    [("images_001.tar.gz", "images_001"), ("A.TGZ", "A"), ("1-766.zip", "1-766"), ("a.b.tar", "a.b")],
)
def test_the_folder_is_named_as_the_archive(name, folder):
    assert archives.folder_name(name) == folder


# --- nothing gets out -------------------------------------------------------------------------------------------------

PARTS = st.sampled_from(
    ["..", ".", "", "a", "A", "ä", "…", "~", "C:", "\\", "..\\..", "/", "etc", "a\x00b", "\n", "n" * 300]
)
NAMES = st.lists(PARTS, min_size=1, max_size=5).map("/".join) | st.text(max_size=40)


@pytest.mark.survives("attack", "names in an archive that lead out of the folder", "nothing is written outside")
@pytest.mark.filterwarnings("ignore:Duplicate name")
@settings(max_examples=150, deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=4), form=st.sampled_from(FORMATS))
def test_no_name_writes_outside_the_folder(names, form):
    with tempfile.TemporaryDirectory() as temporary:
        inner = Path(temporary) / "one/two"
        inner.mkdir(parents=True)
        try:
            archive = pack(inner / f"x.{form}", dict.fromkeys(names, b"x"))
        except (ValueError, IndexError):
            return  # cannot be packed
        try:
            extract(archive, inner / "out")
        except RadprobeError:
            assert not (inner / "out").exists()
        else:
            assert all(".." not in path.parts for path in inner.rglob("*"))
        outside = {path for path in Path(temporary).rglob("*") if inner / "out" not in [path, *path.parents]}
        assert outside == {inner.parent, inner, archive}


@pytest.mark.survives("attack", "absolute, hidden and unreadable names in an archive", "refused by name")
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/tmp/radprobe-evil", "absolute"),
        ("../evil", "leads out"),
        ("Task/../../evil", "leads out"),
        ("..\\evil", "leads out"),
        ("C:\\evil", "absolute"),
        ("a\nb", "not a readable name"),
        ("n" * 256, "too long"),
        ("d/" * 600 + "a", "too long"),
    ],
)
def test_a_nasty_name_is_refused_by_name(tmp_path, form, name, words):
    refused(pack(tmp_path / f"x.{form}", {"fine": b"x", name: b"evil"}), words)
    assert not Path("/tmp/radprobe-evil").exists()


@pytest.mark.survives("attack", "links and devices in an archive", "refused by name")
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "a"])
def test_links_and_devices_are_refused(tmp_path, kind, target):
    refused(special(tmp_path / "x.tar", kind, target), "evil.*link or a device")


@pytest.mark.survives("attack", "links and devices in an archive", "refused by name")
def test_a_link_in_a_zip_is_refused(tmp_path):
    refused(special(tmp_path / "x.zip", None), "evil.*link or a device")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["Task/a", "Task/a/b", "Task/./a"])
def test_a_name_that_is_there_twice_is_refused(tmp_path, second):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("Task/a", b"one")
        archive.writestr(second, b"two")
    refused(tmp_path / "x.zip", "twice")


def test_an_encrypted_zip_is_refused(tmp_path):
    path = pack(tmp_path / "x.zip", {"a": b"secret"})
    content = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + flags] |= 1
    path.write_bytes(content)
    refused(path, "password")


# --- nothing gets too large -------------------------------------------------------------------------------------------


@pytest.mark.survives("attack", "archives that unpack to far more than their size", "stopped as the bytes come")
@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_a_bomb_is_stopped_by_its_ratio(tmp_path, monkeypatch, form):
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 1 << 20)
    archive = pack(tmp_path / f"x.{form}", {f"{number}": bytes(4 << 20) for number in range(4)})
    refused(archive, "unpacks to far more")
    assert extract(archive, tmp_path / "out", max_ratio=2000).bytes == 16 << 20


@pytest.mark.parametrize("form", FORMATS)
def test_the_total_is_capped_exactly(tmp_path, form):
    archive = pack(tmp_path / f"x.{form}", GOOD)
    refused(archive, "far more", max_bytes=72_999)
    assert extract(archive, tmp_path / "out", max_bytes=73_000).bytes == 73_000


@pytest.mark.survives("attack", "archives that unpack to far more than their size", "stopped as the bytes come")
def test_a_header_that_lies_about_the_size_is_no_way_round_the_cap(tmp_path):
    archive = pack(tmp_path / "x.zip", {"a": bytes(1 << 20)})
    content = bytearray(archive.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):  # uncompressed size
        start = content.index(mark) + offset
        content[start : start + 4] = (10).to_bytes(4, "little")
    archive.write_bytes(content)
    refused(archive, "damaged|far more", max_bytes=1000)


@pytest.mark.parametrize("form", FORMATS)
def test_the_number_of_members_is_capped(tmp_path, monkeypatch, form):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 5)
    refused(pack(tmp_path / f"x.{form}", {f"{number}": b"" for number in range(6)}), "more than 5 members")


@pytest.mark.survives("attack", "a tar header of gigabytes", "refused before it is read")
def test_a_tar_header_cannot_fill_the_memory(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 34
    with gzip.open(tmp_path / "x.tar.gz", "wb", 1) as stream:
        stream.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))
    refused(tmp_path / "x.tar.gz", "header of 17.2 GB")


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.survives("input", "an archive that is cut off at any place", "refused; nothing is left")
@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 0.999), form=st.sampled_from(FORMATS))
def test_a_truncated_archive_never_unpacks_to_less(share, form):
    with tempfile.TemporaryDirectory() as temporary:
        archive = pack(Path(temporary) / f"x.{form}", GOOD)
        content = archive.read_bytes()
        # the padding of a tar after its end mark carries nothing
        end = len(content) if form != "tar" else len(content.rstrip(b"\0")) // 512 * 512
        archive.write_bytes(content[: int(share * end)])
        error = refused(archive, "damaged|holds no file")
        assert "get it again" in error.remedy or "holds no file" in error.reason


@pytest.mark.survives("input", "a flipped bit in a packed archive", "refused; nothing is left")
@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_a_flipped_bit_is_noticed(tmp_path, form):
    archive = pack(tmp_path / f"x.{form}", GOOD)
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    refused(archive, "damaged")


def test_a_broken_header_in_the_middle_of_a_tar_is_not_its_end(tmp_path):
    archive = pack(tmp_path / "x.tar", {"a": b"a", "b": b"b"})
    content = bytearray(archive.read_bytes())
    content[1024 + 100] ^= 255
    archive.write_bytes(content)
    refused(archive, "damaged")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>" * 100, b"PK\x03\x04", b"\x1f\x8b\x08"])
def test_what_is_no_archive_is_called_so(tmp_path, content):
    (tmp_path / "x.zip").write_bytes(content)
    refused(tmp_path / "x.zip", "damaged, cut off, or no zip")


def test_an_archive_without_a_file_is_refused(tmp_path):
    refused(pack(tmp_path / "x.zip", {"Task/": b"", "__MACOSX/a": b"a"}), "holds no file")


# --- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.survives("fault", "a kill while an archive is unpacked", "unpacked anew; no half folder is left")
def test_a_killed_run_leaves_nothing_in_the_way(tmp_path, monkeypatch):
    archive = pack(tmp_path / "x.zip", GOOD)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(archives.shutil, "rmtree", lambda *_, **__: None)  # as kill -9, it leaves its stage
        patched.setattr(archives, "_copy", killed)
        with pytest.raises(KeyboardInterrupt):
            extract(archive, tmp_path / "out")
    assert len(list(tmp_path.iterdir())) == 2
    assert not (tmp_path / "out").exists()
    extract(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == GOOD
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.zip"]


def test_what_is_there_is_never_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_bytes(b"mine")
    refused(pack(tmp_path / "x.zip", GOOD), "is there already")
    assert tree(tmp_path / "out") == {"mine": b"mine"}
