"""gc: what of `paths.work` and `paths.results` no study needs, listed and, after asking, removed; raw data never."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from radprobe import files
from radprobe.console import say, size
from radprobe.files import RadprobeError
from radprobe.manifests import KEY
from radprobe.study import OUTPUTS, Study

WORKED_IN = ("work", "results")
NAMED = "name the params files to keep: radprobe gc a.yaml b.yaml"


@dataclass(frozen=True)
class Unneeded:
    """The folder of an artifact that no study needs."""

    folder: Path
    n_bytes: int


def run(studies: list[Study], confirmed: Callable[[str], bool]) -> None:
    """List what none of the studies needs in the folders that they work in; remove it if `confirmed` says so."""
    everything = sorted(unneeded(studies), key=lambda one: -one.n_bytes)
    found = [one for one in everything if not is_of_other_version(one.folder)]
    if kept := len(everything) - len(found):
        say(f"{kept} folder(s) are of another version of radprobe, whose keys are not known: kept")
        say("  -> `radprobe adopt` takes over their frozen features if they equal those of this version")
    names = ", ".join(sorted({study.params.study for study in studies}))
    if not found:
        say(f"everything is needed by {names}")
        return
    for one in found:
        say(f"{size(one.n_bytes):>10}  {one.folder}")
    total = size(sum(one.n_bytes for one in found))
    say(f"{total:>10}  in {len(found)} folders that none of these needs: {names}")
    if not confirmed(f"Remove them ({total})?"):
        say("nothing was removed")
        return
    freed = sum(one.n_bytes for one in found if remove(one.folder))
    say(f"{size(freed)} removed")


def recorded(study: Study) -> list[Study]:
    """Return a study and those that Snakemake ran with the same `paths.work` or `paths.results`.

    Raises RadprobeError where it is not known what one of them needs.
    """
    found = {study.params.model_dump_json(): study}
    for place in WORKED_IN:
        for path in sorted((study.path(place) / "studies").glob("*.yaml")):
            other = _readable(path)
            if other.path(place).resolve() != study.path(place).resolve():
                raise RadprobeError(path, "ran from another folder", f"run gc where it ran, or {NAMED}")
            found[other.params.model_dump_json()] = other
    return list(found.values())


def _readable(path: Path) -> Study:
    try:
        return Study(path)
    except RadprobeError as error:
        reason = f"cannot be read ({error.what}: {error.reason}), so what it needs is not known"
        raise RadprobeError(path, reason, f"remove it, or {NAMED}") from None


def unneeded(studies: list[Study]) -> Iterator[Unneeded]:
    """Yield the artifacts in the studies' folders that none of them makes, uses or would make with all data here."""
    needed = {path.resolve() for study in studies for path in _needed(study)}
    needed |= {parent for path in needed for parent in path.parents}
    places = {study.path(name).resolve() for study in studies for name in WORKED_IN}
    for folder in sorted({folder for place in places if place.is_dir() for folder in _artifacts(place)}):
        if folder not in needed:
            yield Unneeded(folder, sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()))


def _needed(study: Study) -> Iterator[Path]:
    if study.absent_adapters:
        reason = "is not there, so what it needs is not known"
        name = study.absent_adapters[0]
        raise RadprobeError(study.adapter_file(name) or name, reason, "bring it back, or leave its study out")
    if study.absent_predictions:
        row = study.absent_predictions[0]
        raise RadprobeError(
            study.predictions_file(row),
            f"predictions of {row} are not there, so what they need is not known",
            "bring them back, or leave their study out",
        )
    study = study.as_if_skipping()  # it may lie on a machine without the data
    for one in (study, study.as_if_complete()):
        for step in one.steps.values():
            yield step.folder
            if step.verb == "prepare" and step.dataset:
                yield study.path("work") / "pixels" / step.dataset / step.key
    for name in study.params.own_backbones:
        if adapter := study.adapter_file(name):
            yield adapter
    for row in study.external:
        yield study.predictions_file(row)


def _artifacts(place: Path) -> Iterator[Path]:
    """Yield the folders of artifacts under a place, by their names alone; links are not followed.

    <dataset>/<verb>/<key>, <dataset>/<verb>/<backbone>/<key>, weights/<backbone>/<key>, and pixels/<dataset>/<key>,
    which is what DVC keeps of <dataset>/prepare/<key>.
    """
    for pattern in ("*/*/*", "*/*/*/*"):
        for folder in place.glob(pattern):
            parts = folder.relative_to(place).parts
            verb = {"weights": "weights", "pixels": "prepare"}.get(parts[0] if len(parts) == 3 else "", parts[1])
            linked = any(path.is_symlink() for path in (folder, *folder.parents) if place in path.parents)
            if verb in OUTPUTS and KEY.fullmatch(parts[-1]) and folder.is_dir() and not linked:
                yield folder


def is_of_other_version(folder: Path) -> bool:
    """Is an artifact of a version that called keys otherwise, so that no study of this version can name it?"""
    for manifest in folder.glob("*.json"):
        with suppress(OSError, ValueError):
            content = json.loads(manifest.read_text(encoding="utf-8"))
            if isinstance(content, dict) and "spec" in content:
                return True
    return False


def remove(folder: Path) -> bool:
    """Remove an artifact, its manifests first; return False where a run is making it."""
    guard = FileLock(folder / "lock")
    try:
        guard.acquire(timeout=0)
    except Timeout:
        say(f"left: a run is making {folder}")
        return False
    try:
        for manifest in [*folder.glob("*.json"), *folder.glob(f"*{files.TWIN}")]:
            manifest.unlink()  # a kill from here on leaves nothing that looks whole
        shutil.rmtree(folder)
    finally:
        guard.release()
    for parent in list(folder.parents)[:2]:  # of a backbone, and of a verb
        with suppress(OSError):  # not empty
            parent.rmdir()
    return True
