"""pack: the verified weights of a study in one folder, which a machine without a network is then given.

A study finds them there with RADPROBE_WEIGHTS=<folder> HF_HUB_OFFLINE=1. The folder also holds weights.json (what
each file is) and SHA256SUMS (for `sha256sum -c`).
"""

import glob
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NotRequired, TypedDict

from radprobe import catalog, files
from radprobe.artifacts import Weights
from radprobe.catalog import Backbone
from radprobe.catalog.describe import restriction
from radprobe.console import say, size
from radprobe.files import RadprobeError
from radprobe.names import with_weights
from radprobe.study import Step, Study

RECORD, SUMS, LOCK = "weights.json", "SHA256SUMS", ".lock"


@dataclass(frozen=True)
class File:
    """A file to pack: what it is called in the folder, where it is now, and the hash that it was verified to have."""

    name: str
    path: Path
    sha256: str


class Packed(TypedDict):
    """What weights.json says of a file in the folder."""

    backbones: list[str]
    source: str
    revision: str | None
    licence: str
    gated: bool
    sha256: str
    bytes: int
    converted_from: NotRequired[str]
    sha256_of_original: NotRequired[str]


def run(study: Study, folder: Path, make: Callable[[Step], None]) -> None:
    """Pack the weights of every backbone of the study into `folder`; what is there already is not copied again.

    `make` makes a step unless it is made: it finds, fetches or converts the weights, and verifies them. Raises
    RadprobeError after everything else is packed, where the weights of some backbone could not be had.
    """
    study = study.as_if_skipping()  # it is said at the end
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LOCK).touch()
    except OSError as error:
        raise RadprobeError(folder, f"cannot be written ({error.strerror})", "name another folder") from None
    with files.lock(folder / LOCK, on_wait=say):
        failed = _pack(study, folder, make)
    _say_licences(folder)
    for name, why in failed.items():
        say(f"{name} is not packed: {why.reason} ({why.what})\n  -> {why.remedy}")
    if failed:
        remedy = "mend what is said above and run it again: what is packed stays"
        raise RadprobeError(folder, f"lacks the weights of {', '.join(failed)}", remedy)
    say(f"RADPROBE_WEIGHTS={folder} HF_HUB_OFFLINE=1 runs the study")


def _pack(study: Study, folder: Path, make: Callable[[Step], None]) -> dict[str, RadprobeError]:
    """Put every file in the folder, then its sums and record; return the backbones that failed, and why."""
    before = _record(folder)
    packed: dict[str, Packed] = {}
    failed = _failed_already(study)
    for name in _with_files(study):
        try:
            step = study.step("weights", None, name)
            make(step)
            found, entry = Weights.load(step.folder), study.backbone(name)
            file = _choose(study, name, entry, found, step.folder)
            earlier = packed.get(file.name), before.get(file.name)
            _place(file, folder, *earlier)
        except RadprobeError as error:
            failed[name] = error
            continue
        packed[file.name] = _facts(file, entry, found, _used_by(name, file, *earlier))
        _say_what_to_change(study, name, file)
    kept = {name: fact for name, fact in before.items() if (folder / name).is_file()}  # of other studies
    _seal(folder, kept | packed)
    total = sum(fact["bytes"] for fact in packed.values())
    say(f"{folder}: {len(packed)} file(s), {size(total)}")
    return failed


def _failed_already(study: Study) -> dict[str, RadprobeError]:
    missing = (one for one in study.missing if one.kind == "backbone")
    return {with_weights(one.name): RadprobeError(study.path("weights"), one.why, one.remedy) for one in missing}


def _with_files(study: Study) -> list[str]:
    """Return the backbones of the study that are here, or can be fetched, and that have weights."""
    named = dict.fromkeys(each for name in study.backbones_here for each in _and_base(study, with_weights(name)))
    return [name for name in named if not study.backbone(name).random]


def _and_base(study: Study, name: str) -> list[str]:
    facts = study.adapter(name)
    return [*_and_base(study, facts["backbone"]), name] if facts else [name]


def _used_by(name: str, file: File, *earlier: Packed | None) -> list[str]:
    same = [fact["backbones"] for fact in earlier if fact and fact["sha256"] == file.sha256]
    return sorted({name, *(one for backbones in same for one in backbones)})


def _say_what_to_change(study: Study, name: str, file: File) -> None:
    own = study.params.own_backbones.get(name)
    if own and own.adapter:
        say(f"{name}: where the folder is used, set own_backbones.{name}.adapter to its {file.name}")
    elif own and own.file and str(PurePosixPath(own.file)) != file.name:
        say(f"{name}: where the folder is used, set own_backbones.{name}.file: {file.name} in params")


# --- which file, under which name -------------------------------------------------------------------------------------


def _choose(study: Study, name: str, entry: Backbone, found: Weights, made: Path) -> File:
    """Return the file, of those that hold these weights, which a study finds and accepts in the folder.

    That is the verified safetensors, or the file that it was converted from where only that has a name or the hash
    which the entry knows.
    """
    if adapter := study.adapter_file(name):
        return File(f"{name}.adapter.safetensors", adapter, files.sha256(adapter))
    choices = [(found.file, found.sha256)] if found.file and found.sha256 else []
    if "converted_from" in found.facts:
        original = found.facts["sha256_of_original"]
        paths = [study.weights_file(name), made / found.facts["converted_from"]]
        choices += [(path, original) for path in paths if path and path.is_file() and files.sha256(path) == original]
    for path, sha256 in choices:
        called = next((_inside(local) for local in entry.local if Path(local).suffix == path.suffix), None)
        if called and entry.sha256 in (None, sha256):
            return File(called, path, sha256)
    reason = f"no file here holds what was verified ({found.source}) and is accepted in a folder"
    remedy = f"verify them anew (`radprobe --force weights {name}`), or "
    raise RadprobeError(f"weights of {name}", reason, remedy + catalog.how_to_get_weights(entry, study.path("weights")))


def _inside(local: str) -> str:
    """Return a name under paths.weights as it is, of a file elsewhere its file name."""
    path = PurePosixPath(local)
    return path.name if path.is_absolute() or ".." in path.parts else str(path)


# --- the folder -------------------------------------------------------------------------------------------------------


def _place(file: File, folder: Path, packed: Packed | None, before: Packed | None) -> None:
    """Put a file in the folder: a hard link where that is possible, else a copy. One that is there with its hash stays.

    Raises RadprobeError rather than overwrite what this command did not put there.
    """
    target = folder / file.name
    if packed and packed["sha256"] != file.sha256:
        reason = f"is wanted for {packed['backbones'][0]} and, with other bytes, for this one"
        raise RadprobeError(target, reason, "give one of the files another name")
    if target.exists():
        here = file.sha256 if target.samefile(file.path) else files.sha256(target)
        if here == file.sha256:
            say(f"{file.name}: is there")
            return
        if before is None:
            raise RadprobeError(target, "is there with other bytes, and not from here", "move it elsewhere")
    for leftover in target.parent.glob(f"{glob.escape(target.name)}.*{files.TEMPORARY}"):  # of a kill
        leftover.unlink()
    try:
        with files.atomic(target) as temporary:
            how = files.link_or_copy(file.path.resolve(), temporary)
    except OSError as error:
        reason = f"cannot be written ({error.strerror}; it takes {size(file.path.stat().st_size)})"
        raise RadprobeError(target, reason, "make room, or name another folder") from None
    say(f"{file.name}: {how}, {size(target.stat().st_size)}")


def _facts(file: File, entry: Backbone, found: Weights, used_by: list[str]) -> Packed:
    facts = Packed(
        backbones=used_by,
        source=found.source,
        revision=_revision(entry, found),
        licence=entry.licence,
        gated=entry.gated,
        sha256=file.sha256,
        bytes=file.path.stat().st_size,
    )
    if file.path == found.file and "converted_from" in found.facts:
        facts["converted_from"] = found.facts["converted_from"]
        facts["sha256_of_original"] = found.facts["sha256_of_original"]
    return facts


def _revision(entry: Backbone, found: Weights) -> str | None:
    """Return the commit of the hub that the weights are of, or None where that is not known."""
    if found.source.startswith("hub:"):
        return found.source.partition("@")[2]
    return entry.revision if found.source == "local" and found.facts["sha256_known"] else None


def _record(folder: Path) -> dict[str, Packed]:
    try:
        record: dict[str, Packed] = json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError):
        raise RadprobeError(folder / RECORD, "is not what this command writes", "remove it") from None
    return record


def _seal(folder: Path, facts: dict[str, Packed]) -> None:
    files.write_text(folder / SUMS, "".join(f"{facts[name]['sha256']}  {name}\n" for name in sorted(facts)))
    files.write_json(folder / RECORD, {"files": facts})


def _say_licences(folder: Path) -> None:
    for name, fact in sorted(_record(folder).items()):
        if why := restriction(fact["licence"], fact["gated"]):
            say(f"licence of {name} restricts use: {fact['licence']} ({why})")
