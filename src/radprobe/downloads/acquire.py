"""An open benchmark from the network into its raw folder: every file of it fetched, verified and unpacked."""

import json
from pathlib import Path

from radprobe import files
from radprobe.catalog import Dataset, Download
from radprobe.console import say, size
from radprobe.datasets import DOWNLOADED, DOWNLOADING, absent_by_hand, locate
from radprobe.downloads.archives import extract, folder_name
from radprobe.downloads.download import check_space, fetch
from radprobe.files import TEMPORARY, RadprobeError


def acquire(entry: Dataset, raw: Path) -> None:
    """Fetch, verify and unpack the files of a benchmark; what is there already, or put there by hand, stays.

    While DOWNLOADING.json is in the folder no layout is found in it, so a download that was killed is never taken for
    the dataset: the next call goes on with it. This record holds URL, bytes and SHA-256 of each file; when all are
    there it becomes DOWNLOADED.json. The archives stay. Raises RadprobeError where a file cannot be had or verified,
    or where one that has no link is not there.
    """
    try:
        raw.mkdir(parents=True, exist_ok=True)
        (raw / ".download.lock").touch()
    except OSError as error:
        reason = f"cannot be written ({error.strerror}), so nothing can be downloaded to it"
        raise RadprobeError(raw, reason, f"name another folder in params: datasets.{entry.id}.raw") from None
    with files.lock(raw / ".download.lock", on_wait=say):
        if locate(entry, raw) is None:  # else another process has done it meanwhile
            _refuse_without_what_has_no_link(entry, raw)
            _acquire(entry, raw)


def _refuse_without_what_has_no_link(entry: Dataset, raw: Path) -> None:
    for pattern in absent_by_hand(entry, raw):
        remedy = f"put it there first, from {' or '.join(entry.urls)}, so that nothing large is fetched in vain"
        raise RadprobeError(raw, f"holds no {pattern}, of which no direct link is known", remedy)


def _acquire(entry: Dataset, raw: Path) -> None:
    begun, done = raw / DOWNLOADING, raw / DOWNLOADED
    if done.is_file():
        done.replace(begun)  # there is one record
    record = json.loads(begun.read_text(encoding="utf-8")) if begun.is_file() else {}
    files.write_json(begun, record)
    check_space(raw, sum(_to_come(item, raw) for item in entry.downloads))
    for item in entry.downloads:
        unpacked = raw / folder_name(item.file)
        if item.unpack and unpacked.is_dir():
            say(f"{unpacked}: is unpacked already")
            continue
        fetched = fetch(item, raw)
        first = record.get(item.file, {})
        _compare(item, fetched.path, fetched.sha256, first.get("sha256"), begun)
        url = fetched.url or first.get("url")  # null where it was put there by hand
        record[item.file] = {"url": url, "bytes": fetched.bytes, "sha256": fetched.sha256}
        files.write_json(begun, record)
        if item.unpack:
            extract(fetched.path, unpacked)
    begun.replace(done)
    archives = [raw / item.file for item in entry.downloads if item.unpack and (raw / item.file).is_file()]
    if archives:
        freed = size(sum(path.stat().st_size for path in archives))
        say(f"{raw}: {len(archives)} archive(s) are unpacked and not needed any more; removing them frees {freed}")


def _to_come(item: Download, raw: Path) -> int:
    """Return the bytes that a file still needs on the disk, as far as its size is known."""
    if item.bytes is None or (raw / folder_name(item.file)).is_dir():
        return 0
    places = (raw / item.file, raw / (item.file + TEMPORARY))
    here = sum(path.stat().st_size for path in places if path.is_file())
    return max(item.bytes - here, 0) + (item.bytes if item.unpack else 0)  # it unpacks to its own size at least


def _compare(item: Download, path: Path, sha256: str, first: str | None, record: Path) -> None:
    """Compare a file of which the catalog knows no hash with the one that came first."""
    if first and sha256 != first and not (item.sha256 or item.md5):
        reason = f"sha256 is {sha256}, but it was {first} when first downloaded: another file under the same name"
        raise RadprobeError(path, reason, f"put the first file back, or accept this one by removing it from {record}")
