"""retrieve: find (or generate, or fetch) a raw download, list its samples, and hash every file of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from radprobe import files, phantoms
from radprobe.artifacts import Index, RawManifest
from radprobe.catalog import Package
from radprobe.console import say, track
from radprobe.datasets import DOWNLOADED, DOWNLOADING, PHANTOM_MARKER, UNLESS_BY_HAND, Layout, loader, locate, raw
from radprobe.downloads.archives import folder_name
from radprobe.files import RadprobeError
from radprobe.jobs import Inputs, Runtime
from radprobe.jobs.retrieve import RetrieveJob
from radprobe.phantoms import anatomy


def run(job: RetrieveJob, inputs: Inputs, runtime: Runtime) -> None:
    """Write the RawManifest and the whole Index of a dataset.

    What is wrong with tables, lists, names and headers is said before anything is hashed. Raises RadprobeError if no
    raw folder of a known layout is there.
    """
    folder = runtime.raw
    if folder is None:
        raise ValueError(f"{job.entry.id} has no raw folder")
    if job.phantom:
        _generate(job, job.phantom.patients, job.phantom.seed, folder)
    elif runtime.download:
        from radprobe.downloads.acquire import acquire  # it needs requests; data that are here need none

        acquire(runtime.download, folder)
    layout = locate(job.entry, folder)
    if layout is None:
        raise RadprobeError(folder, _why_absent(folder), runtime.remedy)
    say(f"{job.entry.id}: layout '{layout.variant}' in {layout.root}")
    index = loader(job.entry).samples(layout, job.entry, job.allow_missing)
    index.facts |= {"uncertain": job.uncertain, "slices": job.entry.slices}
    if runtime.check_split:
        runtime.check_split(index)
    manifest = _manifest(job, layout, _hashed(layout, index, runtime.threads), _downloads(folder))
    counts = {"samples": len(index.table), "patients": int(index.table["patient_id"].nunique())}
    manifest.facts |= {"counts": counts, "identity": job.fingerprint, "inside": str(layout.root.relative_to(folder))}
    index.save(inputs.place)
    manifest.save(inputs.place)


def _manifest(
    job: RetrieveJob, layout: Layout, table: pd.DataFrame, downloads: dict[str, dict[str, Any]]
) -> RawManifest:
    """Return the list of the raw files, with where they come from."""
    source = "phantom" if job.phantom else "download" if downloads else "user"
    package = job.entry.package
    if package and layout.variant == "package":
        _check_package(package, layout, table)
        source = f"package:{package.name}=={package.version}"
    return RawManifest(layout.root, layout.variant, source, table, {"downloads": downloads} if downloads else {})


def _downloads(folder: Path) -> dict[str, dict[str, Any]]:
    """Return url, bytes and sha256 of each file that was downloaded to a raw folder; {} where it was not."""
    record = folder / DOWNLOADED
    return json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}


def _why_absent(folder: Path) -> str:
    if not folder.is_dir():
        return "is not there"
    if (folder / DOWNLOADING).is_file():
        return f"its download is not finished ({UNLESS_BY_HAND.format(folder / DOWNLOADING)})"
    if _downloads(folder):
        return "what was downloaded is not the whole dataset, or has no known layout"
    packed = [path.name for path in sorted(folder.iterdir()) if folder_name(path.name) != path.name and path.is_file()]
    archives = f", only {', '.join(packed)}: not unpacked, or not what is wanted" if packed else ""
    return f"no known layout is in it{archives}"


def _generate(job: RetrieveJob, patients: int, seed: int, folder: Path) -> None:
    """Generate a phantom, in a folder that gets its name when complete; one that is there and complete stays."""
    if job.entry.folder or job.entry.package:
        reason = "there is no generator of it: only downloads are generated"
        raise RadprobeError(f"params: datasets.{job.entry.id}.phantom", reason, "remove phantom")
    layout = locate(job.entry, folder)
    if layout and _complete(layout, patients, seed):
        return
    partial = folder.with_name(folder.name + files.TEMPORARY)
    for leftover in (partial, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    phantoms.generate(partial, job.entry, patients, seed)
    partial.rename(folder)


def _complete(layout: Layout, patients: int, seed: int) -> bool:
    marker = layout.root / PHANTOM_MARKER
    if not marker.is_file():
        return False
    n_files = sum(path.is_file() for path in layout.root.rglob("*")) - 1  # without the marker
    expected = {"patients": patients, "seed": seed, "generator": anatomy.VERSION, "files": n_files}
    return bool(json.loads(marker.read_text(encoding="utf-8")) == expected)


def _hashed(layout: Layout, index: Index, threads: int) -> pd.DataFrame:
    """Return path, bytes and sha256 of the tables and of every file that the samples name."""
    rows = index.table[["image", "masks"]].itertuples()
    named = dict.fromkeys(path for row in rows for path in (row.image, *row.masks))
    inside = (file for path in named for file in raw.files_of(layout.root / path))
    wanted = dict.fromkeys([*layout.tables, *layout.files, *inside])
    if skipped := sum(raw.junk(path) for folder in layout.folders for path in folder.iterdir()):
        say(f"{skipped} hidden file(s), as macOS leaves in archives, skipped")

    def row(path: Path) -> tuple[str, int, str]:
        if not path.is_file():  # a device or a pipe would be read without end
            raise RadprobeError(path, "is no file, or a link that leads to none", "put the file there, or unlist it")
        inside = path.is_relative_to(layout.root)  # a table may lie elsewhere
        name = path.relative_to(layout.root) if inside else Path("table", path.name)  # wherever it lies
        return name.as_posix(), path.stat().st_size, files.sha256(path)

    rows = list(track(files.stream_in_threads(row, wanted, threads), "hash files", len(wanted)))
    return pd.DataFrame(rows, columns=["path", "bytes", "sha256"])


def _check_package(package: Package, layout: Layout, table: pd.DataFrame) -> None:
    found = table["sha256"].iloc[0]
    if package.sha256 and found != package.sha256:
        reason = f"sha256 is {found}, not {package.sha256}"
        raise RadprobeError(layout.files[0], reason, f"pip install --force-reinstall {package.name}=={package.version}")
