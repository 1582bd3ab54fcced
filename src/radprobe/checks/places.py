"""The folders that a study writes to: room, permission, and the traps of their file systems."""

from collections.abc import Iterator

from radprobe import estimate, machine
from radprobe.checks import Check
from radprobe.console import size
from radprobe.machine import FileSystem
from radprobe.study import Study

WRITTEN = ("work", "results", "reports")
FEW_INODES = 100_000  # a study of many cells makes some ten thousand files
# file systems of several hosts
SHARED = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "fuse", "9p", "afs")


def folders(study: Study) -> Iterator[Check]:
    """Try every folder that a study writes to, and compare its room with what the study needs."""
    need = estimate.disk(study)
    for name in WRITTEN:
        found = machine.place(study.path(name))
        what = f"paths.{name}"  # in params
        if found.error:
            remedy = f"name a folder that you may write: {what}, or ask the owner of {found.at}"
            yield Check(what, "problem", f"{study.path(name)} cannot be written ({found.error})", remedy)
            continue
        yield from _traps(what, found)
        yield _space(what, found, *(need if name == "work" else (0, 0)))
    raw = study.path("raw")
    if raw.is_dir():
        yield Check("paths.raw", "ok", f"{raw}: only read, unless `download: true`")


def _space(what: str, found: FileSystem, least: int, with_maps: int) -> Check:
    words = f"{found.at}: {size(found.free)} free"
    if with_maps:
        words += f"; pixels and vectors take about {size(least)}, with all dense maps {size(with_maps)}"
        words += " (those not made yet, of the datasets that are here, by their published counts)"
    remedy = "name a larger disk: paths.work; or a smaller study: limit, fewer backbones, embed.max_dense_cache_gb"
    if found.free < max(least, 100_000_000):
        return Check(what, "problem", words, remedy)
    return Check(what, "note", words, remedy) if found.free < with_maps else Check(what, "ok", words)


def _traps(what: str, found: FileSystem) -> Iterator[Check]:
    if not found.locks:
        reason = f"{found.at} ({found.kind}): files cannot be locked there, so two runs could write the same file"
        yield Check(what, "problem", reason, f"name a folder on a disk that locks: {what}")
    if not found.case_sensitive:
        reason = f"{found.at}: names that differ only in case are one file there"
        yield Check(what, "note", reason, "give datasets and own backbones names that differ in more than case")
    if found.inodes is not None and found.inodes < FEW_INODES:
        reason = f"{found.at}: room for {found.inodes:,} more files only"
        yield Check(what, "note", reason, "remove files, ask for a larger quota, or name another disk")
    if found.kind.startswith(SHARED):
        reason = f"{found.at} is on {found.kind}, a file system that is shared or slow with many small files"
        remedy = "fine on a cluster (the slurm profile waits for files to show up); on one machine a local disk is"
        yield Check(what, "note", reason, f"{remedy} faster: {what}")
