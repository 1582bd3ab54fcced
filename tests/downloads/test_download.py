import hashlib

import pytest
from local_server import BODY

from radprobe.catalog import Download
from radprobe.downloads import download
from radprobe.downloads.download import fetch
from radprobe.files import RadprobeError, write_json

SHA256 = hashlib.sha256(BODY).hexdigest()


def wanted(*urls, **facts):
    return Download(file="file.bin", urls=urls, **facts)


def cut(n_bytes):
    return {"bytes": n_bytes}


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "file.bin")


def test_a_file_comes_whole_and_verified_and_nothing_else_stays(server, tmp_path):
    facts = {"bytes": len(BODY), "sha256": SHA256.upper(), "md5": hashlib.md5(BODY).hexdigest()}
    fetched = fetch(wanted(server.url(), **facts), tmp_path / "new")
    assert fetched.path.read_bytes() == BODY
    assert (fetched.bytes, fetched.sha256, fetched.url) == (len(BODY), SHA256, server.url())
    assert leftovers(tmp_path / "new") == []


def test_a_right_file_that_is_here_is_kept_without_asking_anybody(server, tmp_path):
    (tmp_path / "file.bin").write_bytes(BODY)
    fetched = fetch(wanted(server.url(), sha256=SHA256), tmp_path)
    assert fetched.url is None
    assert server.requests == []


def test_a_wrong_file_that_is_here_is_set_aside_not_lost(server, tmp_path):
    (tmp_path / "file.bin").write_bytes(b"mine")
    assert fetch(wanted(server.url(), sha256=SHA256), tmp_path).path.read_bytes() == BODY
    assert (tmp_path / "file.bin.wrong").read_bytes() == b"mine"


def test_a_hash_that_is_not_known_is_said(server, tmp_path, capsys):
    assert fetch(wanted(server.url()), tmp_path).sha256 == SHA256
    assert SHA256 in capsys.readouterr().out


@pytest.mark.survives("fault", "a connection that breaks off", "goes on at the same byte; verified")
@pytest.mark.parametrize("cuts", [[500_000], [100_000, 1, 300_000, 65_536], [1] * 12])
def test_what_has_come_is_not_fetched_twice(server, tmp_path, cuts):
    server.answers = [cut(n_bytes) for n_bytes in cuts]
    assert fetch(wanted(server.url(), sha256=SHA256), tmp_path).path.read_bytes() == BODY
    assert server.sent == len(BODY)
    assert len(server.requests) == len(cuts) + 1


def test_the_next_run_goes_on_where_this_one_was_stopped(server, tmp_path):
    server.answers = [cut(600_000), 404]
    with pytest.raises(RadprobeError, match="404"):
        fetch(wanted(server.url()), tmp_path)
    assert leftovers(tmp_path) == ["file.bin.partial", "file.bin.partial.json"]
    fetch(wanted(server.url("missing"), server.url()), tmp_path)
    assert server.sent == len(BODY)
    assert server.requests[-1][1]["Range"] == "bytes=600000-"
    assert leftovers(tmp_path) == []


def test_a_kill_after_the_last_byte_costs_no_byte(server, tmp_path):
    (tmp_path / "file.bin.partial").write_bytes(BODY)
    write_json(tmp_path / "file.bin.partial.json", {"url": server.url(), "version": server.etag})
    assert fetch(wanted(server.url(), sha256=SHA256), tmp_path).path.read_bytes() == BODY
    assert server.sent == 0


@pytest.mark.survives("fault", "a file that changes on the server during a download", "fetched whole again")
@pytest.mark.parametrize("etag", ['"one"', None])
def test_a_file_that_changed_meanwhile_is_not_mixed_with_the_old_one(server, tmp_path, etag):
    server.etag = etag
    server.answers = [cut(500_000), 404]
    with pytest.raises(RadprobeError):
        fetch(wanted(server.url()), tmp_path)
    server.body, server.etag = BODY[::-1], etag and '"two"'
    assert fetch(wanted(server.url()), tmp_path).path.read_bytes() == BODY[::-1]


def test_without_a_version_only_a_checksum_allows_to_go_on(server, tmp_path):
    server.etag = None
    server.answers = [cut(500_000)]
    fetch(wanted(server.url(), sha256=SHA256), tmp_path)
    assert server.sent == len(BODY)
    (tmp_path / "file.bin").unlink()
    server.answers, server.sent = [cut(500_000)], 0
    fetch(wanted(server.url()), tmp_path)
    assert server.sent == len(BODY) + 500_000


def test_a_server_that_knows_no_ranges_sends_all_again(server, tmp_path):
    server.ranges = False
    server.answers = [cut(500_000)]
    assert fetch(wanted(server.url(), sha256=SHA256), tmp_path).path.read_bytes() == BODY
    assert server.sent == len(BODY) + 500_000


def test_one_that_always_cuts_off_at_the_same_byte_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "ATTEMPTS", 3)
    server.ranges, server.answers = False, [cut(500_000)] * 20
    with pytest.raises(RadprobeError, match=r"\(3 times\)"):
        fetch(wanted(server.url()), tmp_path)
    assert len(server.requests) == 3


def test_a_partial_file_of_another_url_is_not_continued(server, tmp_path):
    server.answers = [cut(500_000), 404]
    first, second = server.url("one"), server.url("two")
    with pytest.raises(RadprobeError):
        fetch(wanted(first), tmp_path)
    fetch(wanted(second), tmp_path)
    assert "Range" not in server.requests[-1][1]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_in_trouble_is_asked_again(server, tmp_path, status):
    server.answers = [status, status]
    assert fetch(wanted(server.url()), tmp_path).path.read_bytes() == BODY
    assert len(server.requests) == 3


def test_the_mirror_is_asked_when_the_first_url_is_gone(server, tmp_path):
    assert fetch(wanted(server.url("missing"), server.url()), tmp_path).url == server.url()
    assert len(server.requests) == 2


@pytest.mark.survives("fault", "a server that stalls", "asked again for the rest; verified")
def test_a_server_that_stalls_is_left_and_the_rest_fetched(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "STALL_S", 0.2)
    server.answers = [{"bytes": 300_000, "stall": 0.6}]
    assert fetch(wanted(server.url(), sha256=SHA256), tmp_path).path.read_bytes() == BODY
    assert len(server.requests) == 2
    assert server.sent < len(BODY) + download.CHUNK


def test_a_slow_server_is_waited_for_and_the_log_shows_progress(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(download, "STALL_S", 0.5)
    monkeypatch.setattr("radprobe.console.LOG_EVERY_S", 0.2)
    server.answers = [{"slow": 0.05}]  # 0.8 s in all
    fetch(wanted(server.url(), sha256=SHA256), tmp_path)
    assert len(server.requests) == 1
    assert "of 1.0 MB" in capsys.readouterr().out


@pytest.mark.survives("fault", "a download of other bytes than are known", "refused; nothing is left")
@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"sha256": "0" * 64}, ["sha256", SHA256, "0" * 64]),
        ({"md5": "0" * 32}, ["md5", hashlib.md5(BODY).hexdigest()]),
        ({"bytes": 7}, [str(len(BODY)), "expected 7"]),
    ],
)
@pytest.mark.parametrize("length", [True, False])
def test_a_wrong_file_fails_says_both_values_and_leaves_nothing(server, tmp_path, facts, words, length):
    server.length = length  # without one, only what has come tells the size
    with pytest.raises(RadprobeError) as error:
        fetch(wanted(server.url(), **facts), tmp_path)
    for word in words if length or "bytes" not in facts else ["7 bytes expected"]:
        assert word in error.value.reason
    assert leftovers(tmp_path) == []
    assert not (tmp_path / "file.bin").exists()


def test_a_wrong_file_from_the_first_url_leads_to_the_next(server, tmp_path):
    server.bodies["/bad"] = BODY[::-1]
    assert fetch(wanted(server.url("bad"), server.url(), sha256=SHA256), tmp_path).url == server.url()


@pytest.mark.survives("attack", "a download that is redirected to file:// or ftp://", "refused")
@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/file.bin"])
def test_a_redirect_to_another_kind_of_address_is_refused(server, tmp_path, target):
    server.answers = [target]
    with pytest.raises(RadprobeError, match="only http and https are followed"):
        fetch(wanted(server.url()), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_honest_redirect_is_followed(server, tmp_path):
    server.answers = ["/elsewhere"]
    assert fetch(wanted(server.url()), tmp_path).path.read_bytes() == BODY


@pytest.mark.survives("attack", "a download from file://", "refused")
def test_only_http_is_used(tmp_path):
    with pytest.raises(RadprobeError, match="only http and https"):
        fetch(wanted("file:///etc/hostname"), tmp_path)


def test_a_web_page_is_not_taken_for_the_file(server, tmp_path):
    server.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(RadprobeError, match="web page"):
        fetch(wanted(server.url()), tmp_path)


def test_when_all_fail_each_url_has_its_reason_and_the_folder_is_named(server, tmp_path):
    nobody = "http://127.0.0.1:9/file.bin"  # the discard port: refused
    urls = server.url("missing"), nobody, "ftp://127.0.0.1/file.bin"
    with pytest.raises(RadprobeError) as error:
        fetch(wanted(*urls), tmp_path)
    lines = error.value.reason.splitlines()[1:]
    for url, line, why in zip(urls, lines, ("404", "refused", "only http"), strict=True):
        assert url in line
        assert why in line
    assert str(tmp_path) in error.value.remedy


@pytest.mark.survives("fault", "a disk too small for a download", "said before a byte comes")
def test_a_full_disk_is_seen_before_anything_is_written(server, tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(RadprobeError, match=r"1\.0 MB are to come, and 1\.0 kB are free"):
        fetch(wanted(server.url()), tmp_path)
    assert not (tmp_path / "file.bin.partial").exists()


def test_the_stored_bytes_are_kept_where_a_server_calls_them_compressed(server, tmp_path):
    server.headers = {"Content-Encoding": "gzip"}  # as Apache says of .tar.gz
    assert fetch(wanted(server.url(), sha256=SHA256), tmp_path).path.read_bytes() == BODY
