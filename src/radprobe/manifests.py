"""The manifest of an artifact: written last, checked on load, and set aside if its files or origin do not match it."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from radprobe import __version__, files
from radprobe.files import RadprobeError

KEY = re.compile(r"[0-9a-f]{12}")  # the name of an artifact's folder


@dataclass(frozen=True)
class Place:
    """Where a job writes: the folder, its key, what it makes, and what it makes it from.

    `of` names the job, as `probe montgomery dinov2`. `sources` holds the content digest of each manifest that the job
    reads, by a name such as `prepare/index`.
    """

    folder: Path
    key: str
    of: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Manifest:
    """What an artifact holds: its key and origin, its files with bytes and sha256, and facts that its readers need."""

    kind: str
    key: str
    facts: dict[str, Any]
    files: dict[str, dict[str, Any]]
    of: str = ""
    sources: dict[str, str] = field(default_factory=dict)
    content: str = ""  # digest of what it holds, the same wherever and whenever it was made
    made: str = ""
    radprobe: str = __version__
    check: str = ""  # digest of all the above

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a manifest, without looking at the files that it lists. Raises RadprobeError if it is damaged."""
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            if found.get("check") and found["check"] != _digest(found):
                raise ValueError("it changed since it was written")
            if "spec" in found:  # versions before 0.2 called the key so
                found["key"] = found.pop("spec")
            manifest = cls(**found)
            manifest._check(Path(path).stem)
            return manifest
        except FileNotFoundError:
            raise RadprobeError(path, "is not there", "run the stage that makes it, or `snakemake`") from None
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            set_aside(Path(path))
            raise RadprobeError(path, f"is no manifest ({error}); set aside", "run again: it is re-made") from None

    def _check(self, kind: str) -> None:
        """Raise ValueError unless it is of that kind, and lists plain names with bytes and sha256."""
        if self.kind != kind or not isinstance(self.facts, dict) or not isinstance(self.files, dict):
            raise ValueError(f"it is no list of the files of {kind}")
        for name, file in self.files.items():
            if Path(name).name != name or not isinstance(file, dict) or not {"bytes", "sha256"} <= set(file):
                raise ValueError(f"{name!r} is no file beside it, with bytes and sha256")


def _digest(manifest: Mapping[str, Any]) -> str:
    return files.digest({**manifest, "check": ""})


def seal(place: Place, kind: str, facts: dict[str, Any], names: list[str], identity: Any = None) -> None:
    """Write the manifest of files that already lie in the folder of `place`.

    Its content digest covers the files; `identity` stands for artifacts whose content is in their facts.
    """
    digests = files.in_threads(lambda name: files.sha256(place.folder / name), names)
    listed = {
        name: {"bytes": (place.folder / name).stat().st_size, "sha256": digest}
        for name, digest in zip(names, digests, strict=True)
    }
    manifest = Manifest(
        kind=kind,
        key=place.key,
        facts=facts,
        files=listed,
        of=place.of,
        sources=dict(place.sources),
        content=files.digest([kind, place.key, listed, identity]),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    manifest.check = _digest(json.loads(json.dumps(vars(manifest))))  # as it comes back from JSON
    files.write_json(place.folder / f"{kind}.json", vars(manifest))


def foreign(path: Path, place: Place) -> str | None:
    """Return why a manifest is not the one that the job of `place` writes now; None if it is.

    It may have been copied from another study, or made from artifacts that have changed since. Raises RadprobeError if
    it is damaged.
    """
    manifest = Manifest.read(path)
    if manifest.key != place.key:
        whose = f"`{manifest.of}` with key {manifest.key}" if manifest.of else f"a job with key {manifest.key}"
        return f"was made by {whose}, not by `{place.of}` with key {place.key}"
    changed = [name for name, digest in place.sources.items() if manifest.sources.get(name) != digest]
    if changed:
        return f"was made from another {', '.join(changed)} than the one here"
    return None


def unseal(folder: Path, kind: str) -> Manifest:
    """Read a manifest and check every file that it lists; if one is missing or changed, set the manifest aside.

    Of what came through DVC, and has no second copy here, pixels and dense maps are not there: nothing is set aside.
    """
    path = Path(folder) / f"{kind}.json"
    manifest = Manifest.read(path)
    if KEY.fullmatch(path.parent.name) and manifest.key != path.parent.name:
        set_aside(path)
        reason = f"was made by `{manifest.of}` with key {manifest.key}, and lies in another folder; set aside"
        raise RadprobeError(path, reason, "run the same command again: the artifact is made again")
    if kind in PARTLY_VERSIONED and not all_here(folder, kind) and files.was_pulled(path):
        remedy = "score what was pulled (`make rescore`), or get the raw files and remove the folder"
        raise RadprobeError(path.parent, f"the {PARTLY_VERSIONED[kind]} are not here: DVC brought none", remedy)
    broken = faults(folder, manifest)
    if broken:
        set_aside(path)
        raise RadprobeError(
            path.parent / broken[0],
            f"is missing or does not match its manifest ({len(broken)} of {len(manifest.files)} files); "
            "manifest set aside",
            "run the same command again: the artifact is made anew",
        )
    return manifest


PARTLY_VERSIONED = {"pixels": "pixels", "embeddings": "dense maps"}  # what .dvcignore leaves out of these kinds


def all_here(folder: Path, kind: str) -> bool:
    """Are the files of a manifest there?"""
    return all((folder / name).is_file() for name in Manifest.read(folder / f"{kind}.json").files)


def faults(folder: Path, manifest: Manifest) -> list[str]:
    """Return which files of a manifest are missing from its folder or have changed; nothing is set aside."""

    def is_faulty(name: str) -> bool:
        file, expected = Path(folder) / name, manifest.files[name]
        return (
            not file.is_file() or file.stat().st_size != expected["bytes"] or files.sha256(file) != expected["sha256"]
        )

    names = list(manifest.files)
    return [name for name, faulty in zip(names, files.in_threads(is_faulty, names), strict=True) if faulty]


TOGETHER = (
    {"raw", "index"},
    {"index", "truth", "pixels"},
    {"split", "leaks"},
    {"predictions", "adapter"},
)  # made by one step, so made again together


def set_aside(path: Path) -> None:
    """Take a manifest, and those that are made together with it, out of sight: they are made again."""
    kinds = {path.stem}.union(*(kinds for kinds in TOGETHER if path.stem in kinds))
    for manifest in (path.with_name(f"{kind}.json") for kind in sorted(kinds)):
        files.twin(manifest).unlink(missing_ok=True)
        with suppress(FileNotFoundError):  # or another thread has done so
            manifest.replace(manifest.with_name(f"{manifest.name}.set-aside"))
