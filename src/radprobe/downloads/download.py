"""Downloads over HTTP that survive bad networks: resumed, tried again, from mirrors, and never accepted unverified."""

import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
import urllib3

from radprobe import files
from radprobe.catalog import Download
from radprobe.console import say, size, track_bytes
from radprobe.files import TEMPORARY, RadprobeError

CONNECT_S, STALL_S = 15, 60  # a server that answers nothing, or sends nothing, for so long
ATTEMPTS = 5  # in a row, of one URL, in which no new byte came
FIRST_WAIT_S = 1  # before the second attempt; doubled each time
CHUNK = 1 << 16  # bytes read at once: what a stall or kill may lose
RETRIED = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Fetched:
    """A verified file, its size and SHA-256, and where it is from: its URL, or None where it was there already."""

    path: Path
    bytes: int
    sha256: str
    url: str | None


class _Refused(Exception):
    """This URL does not give the file; the next one may."""


class _Interrupted(Exception):
    """This URL may give the file (or the rest of it) in a moment."""


def fetch(download: Download, folder: Path) -> Fetched:
    """Return `download` as a verified file in `folder`, from the first of its URLs that gives it.

    A right file that is there already stays: that is how a person puts one by hand; a wrong one is set aside. What has
    come of a file is kept as `<file>.partial` and the next call goes on with it. Raises RadprobeError that lists each
    URL with its reason.
    """
    path = folder / download.file
    folder.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        sha256, fault = _checked(path, download)
        if not fault:
            say(f"{path}: is here already, {_verified(download, sha256)}")
            return Fetched(path, path.stat().st_size, sha256, None)
        aside = path.replace(path.with_name(f"{path.name}.wrong"))
        say(f"{path}: {fault}; set aside as {aside.name}, and fetched anew")
    partial = _Partial(path)
    reasons = {}
    for url in sorted(download.urls, key=lambda url: url != partial.state.get("url")):  # what has begun goes on
        try:
            _get(download, url, partial)
            sha256, fault = _checked(partial.path, download)
            if fault:
                partial.drop()
                raise _Refused(fault)
        except _Refused as why:
            reasons[url] = str(why)
            say(f"{url}: {why}")
            continue
        partial.finish(path)
        say(f"{path}: {size(path.stat().st_size)} from {url}, {_verified(download, sha256)}")
        return Fetched(path, path.stat().st_size, sha256, url)
    listed = "".join(f"\n  {url}: {why}" for url, why in reasons.items())
    remedy = f"run again (what has come is kept), or get {download.file} by hand and put it in {folder}"
    raise RadprobeError(path, f"could not be downloaded{listed}", remedy)


# --- verification -----------------------------------------------------------------------------------------------------


def _checked(path: Path, download: Download) -> tuple[str, str | None]:
    """Return the SHA-256 of a file, and what is wrong with it (None: nothing that is known)."""
    sha256 = files.sha256(path)
    found: dict[str, str | int | None] = {"size": path.stat().st_size, "sha256": sha256}
    found["md5"] = _md5(path) if download.md5 else None
    expected = {"size": download.bytes, "sha256": download.sha256, "md5": download.md5}
    wrong = [name for name, value in expected.items() if value is not None and _same(value) != _same(found[name])]
    return sha256, "; ".join(f"{name} is {found[name]}, expected {expected[name]}" for name in wrong) or None


def _same(value: str | int | None) -> str:
    return str(value).lower()


def _md5(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _verified(download: Download, sha256: str) -> str:
    known = " and ".join(name for name in ("sha256", "md5") if getattr(download, name))
    return f"{known} as expected" if known else f"sha256 {sha256} (the publisher's is not known to us)"


# --- one URL ----------------------------------------------------------------------------------------------------------


class _Partial:
    """What has come of a file, and beside it the URL and the version of the file (ETag or date) that it is of."""

    def __init__(self, path: Path):
        self.path = path.with_name(path.name + TEMPORARY)
        self.record = path.with_name(f"{path.name}{TEMPORARY}.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def state(self) -> dict[str, str | None]:
        try:
            state: dict[str, str | None] = json.loads(self.record.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return state

    def start(self, url: str, headers: Mapping[str, str]) -> None:
        """Begin anew with the version of the file that `headers` name."""
        self.drop()
        etag = headers.get("ETag", "")
        strong = etag if etag.startswith('"') else None  # a weak one (W/) does not promise equal bytes
        files.write_json(self.record, {"url": url, "version": strong or headers.get("Last-Modified")})

    def drop(self) -> None:
        for leftover in (self.path, self.record):
            leftover.unlink(missing_ok=True)

    def finish(self, path: Path) -> None:
        files.put_in_place(self.path, path)
        self.drop()


def _get(download: Download, url: str, partial: _Partial) -> None:
    """Make `partial` the whole file. Raises _Refused when the URL does not give it, also not after retries."""
    if not url.startswith(("http://", "https://")):
        raise _Refused("only http and https are used")
    best, idle = partial.size, 0
    while True:
        try:
            return _receive(download, url, partial)
        except _Interrupted as why:
            idle = 1 if partial.size > best else idle + 1
            best = max(best, partial.size)
            if idle >= ATTEMPTS:
                raise _Refused(f"{why} ({ATTEMPTS} times)") from None
            wait = FIRST_WAIT_S * 2 ** (idle - 1)
            say(f"{url}: {why}; {size(partial.size)} are here, again in {wait:g} s")
            time.sleep(wait)


def _receive(download: Download, url: str, partial: _Partial) -> None:
    """Ask once for the file, or for the rest of it, and append what comes."""
    asked = _range(download, url, partial)
    with _network_errors(), requests.Session() as session:
        response = session.get(
            url,
            headers={"Accept-Encoding": "identity", **asked},  # the bytes as stored, which the checksums are of
            stream=True,
            timeout=(CONNECT_S, STALL_S),
        )
        with response:
            if response.status_code == 416 and asked:
                return _nothing_more(response, partial)
            _check_answer(download, response)
            if response.status_code != 206:  # the whole file: new, changed, or from a server that knows no ranges
                partial.start(url, response.headers)
            total = _total(response)
            if total is not None and download.bytes not in (None, total):
                partial.drop()
                raise _Refused(f"the server has {total} bytes, expected {download.bytes}")
            _append(response, download, partial, total if total is not None else download.bytes)


def _range(download: Download, url: str, partial: _Partial) -> dict[str, str]:
    """Return the headers that ask for the rest of the same file; none where what is here cannot be trusted."""
    state, here = partial.state, partial.size
    if not here or state.get("url") != url:
        return {}
    asked = {"Range": f"bytes={here}-"}
    if state["version"]:
        return {**asked, "If-Range": state["version"]}  # a file that changed comes whole
    return asked if download.sha256 or download.md5 else {}  # the checksum would tell


def _nothing_more(response: requests.Response, partial: _Partial) -> None:
    """Accept a 416 that says that all bytes are here (a kill between the last byte and the rename)."""
    if _total(response) != partial.size:
        partial.drop()
        raise _Interrupted("the file changed")


def _check_answer(download: Download, response: requests.Response) -> None:
    status = response.status_code
    if status in RETRIED:
        raise _Interrupted(f"HTTP {status} {response.reason}")
    if status not in (200, 206):
        login = ": it wants a login" if status in (401, 403) else ""
        raise _Refused(f"HTTP {status} {response.reason}{login}")
    kind = response.headers.get("Content-Type", "")
    if kind.startswith("text/html") and not download.file.endswith((".html", ".htm")):
        raise _Refused("a web page came instead of the file")


def _total(response: requests.Response) -> int | None:
    """Return the size of the whole file, where the server says it."""
    if response.status_code in (206, 416):
        text = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
        return int(text[1]) if text else None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _append(response: requests.Response, download: Download, partial: _Partial, total: int | None) -> None:
    done = partial.size
    if response.status_code == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
        partial.drop()
        raise _Interrupted("the server sent another range than asked for")
    check_space(partial.path.parent, (total or done) - done)
    chunks = response.raw.stream(CHUNK, decode_content=False)
    with partial.path.open("ab") as handle:
        for chunk in track_bytes(chunks, download.file, total, done):
            handle.write(chunk)
            done += len(chunk)
            if total is not None and done > total:
                break
    if total is not None and done > total:
        partial.drop()
        raise _Refused(f"sends more than the {total} bytes expected")
    if total is not None and done < total:
        raise _Interrupted(f"cut off after {done} of {total} bytes")


def check_space(folder: Path, needed: int) -> None:
    """Raise RadprobeError where less than `needed` bytes are free on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        reason = f"{size(needed)} are to come, and {size(free)} are free on its disk"
        raise RadprobeError(folder, reason, "make room, or name another folder in params: datasets.<id>.raw")


@contextmanager
def _network_errors() -> Iterator[None]:
    """Say what went wrong in a few words, and whether it is worth another attempt."""
    try:
        yield
    except requests.exceptions.InvalidSchema as error:  # also of a redirect
        raise _Refused(f"only http and https are followed: {error}") from None
    except requests.exceptions.TooManyRedirects:
        raise _Refused("redirects in a circle") from None
    except requests.exceptions.SSLError as error:
        raise _Refused(f"its certificate is not accepted: {_cause(error)}") from None
    except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError):
        raise _Interrupted("no answer in time") from None
    except urllib3.exceptions.ProtocolError:
        raise _Interrupted("the connection broke off") from None
    except (requests.exceptions.ConnectionError, urllib3.exceptions.HTTPError, ConnectionError) as error:
        raise _Interrupted(_cause(error)) from None
    except requests.exceptions.RequestException as error:
        raise _Refused(_cause(error)) from None
    except OSError as error:
        reason = f"cannot be written ({error.strerror or error})"
        raise RadprobeError(error.filename or "the download", reason, "make room on its disk") from None


def _cause(error: BaseException) -> str:
    """Return the innermost reason of a nested network error, in words."""
    while True:
        inner = getattr(error, "reason", None) or next((arg for arg in error.args if isinstance(arg, Exception)), None)
        if not isinstance(inner, Exception):
            return str(error)
        error = inner
