"""The manifest of an artifact: written last, checked on loading, set aside where its files are not as it says."""

import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from radprobe import __version__, files
from radprobe.files import RadprobeError


@dataclass
class Manifest:
    """What an artifact holds: its spec, its files with bytes and sha256, and facts that its readers need."""

    kind: str
    spec: str
    facts: dict[str, Any]
    files: dict[str, dict[str, Any]]
    made: str = ""
    radprobe: str = __version__
    check: str = ""  # digest of all the above; manifests of before there was one have none

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a manifest, without looking at the files that it lists."""
        try:
            found = cls(**json.loads(Path(path).read_text(encoding="utf-8")))
            found._check(Path(path).stem)
            return found
        except FileNotFoundError:
            raise RadprobeError(path, "is not there", "run the stage that makes it, or `snakemake`") from None
        except (ValueError, TypeError, RecursionError) as error:
            set_aside(Path(path))
            raise RadprobeError(path, f"is no manifest ({error}); set aside", "run again: it is re-made") from None

    @property
    def digest(self) -> str:
        """Digest of all but itself, as it comes back from JSON."""
        return files.digest(json.loads(json.dumps({**vars(self), "check": ""})))

    def _check(self, kind: str) -> None:
        """Raise ValueError unless it is as written, of that kind, and lists plain names with bytes and sha256."""
        if self.check and self.check != self.digest:
            raise ValueError("it changed since it was written")
        if self.kind != kind or not isinstance(self.facts, dict) or not isinstance(self.files, dict):
            raise ValueError(f"it is no list of the files of {kind}")
        for name, file in self.files.items():
            if Path(name).name != name or not isinstance(file, dict) or not {"bytes", "sha256"} <= set(file):
                raise ValueError(f"{name!r} is no file beside it, with bytes and sha256")


def seal(folder: Path, kind: str, spec: str, facts: dict[str, Any], names: list[str]) -> None:
    """Write the manifest of files that already lie in `folder`."""
    digests = files.in_threads(lambda name: files.sha256(folder / name), names)
    listed = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": digest}
        for name, digest in zip(names, digests, strict=True)
    }
    made = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = Manifest(kind=kind, spec=spec, facts=facts, files=listed, made=made)
    manifest.check = manifest.digest
    files.write_json(folder / f"{kind}.json", vars(manifest))


def unseal(folder: Path, kind: str) -> Manifest:
    """Read a manifest and check every file that it lists; if one is missing or changed, set the manifest aside.

    Of what came through DVC, and has no second copy here, pixels and dense maps are not there: nothing is set aside.
    """
    path = Path(folder) / f"{kind}.json"
    manifest = Manifest.read(path)
    if kind in PARTLY_VERSIONED and not all_here(folder, kind) and files.was_pulled(path):
        remedy = "score what was pulled (`make rescore`), or get the raw files and remove the folder"
        raise RadprobeError(path.parent, f"the {PARTLY_VERSIONED[kind]} are not here: DVC brought none", remedy)
    names = list(manifest.files)
    broken = [name for name, why in zip(names, files.in_threads(_fault(path, manifest), names), strict=True) if why]
    if broken:
        set_aside(path)
        raise RadprobeError(
            path.parent / broken[0],
            f"is missing or does not match its manifest ({len(broken)} of {len(names)} files); manifest set aside",
            "run the same command again: the artifact is made anew",
        )
    return manifest


PARTLY_VERSIONED = {"pixels": "pixels", "embeddings": "dense maps"}  # what .dvcignore leaves out of these kinds


def all_here(folder: Path, kind: str) -> bool:
    """Are the files of a manifest there?"""
    return all((folder / name).is_file() for name in Manifest.read(folder / f"{kind}.json").files)


def _fault(path: Path, manifest: Manifest):
    def fault(name: str) -> bool:
        file, expected = path.parent / name, manifest.files[name]
        return (
            not file.is_file() or file.stat().st_size != expected["bytes"] or files.sha256(file) != expected["sha256"]
        )

    return fault


TOGETHER = (
    {"index", "truth", "pixels"},
    {"split", "leaks"},
    {"predictions", "adapter"},
)  # made by one step, so made again together


def set_aside(path: Path) -> None:
    """Take a manifest, and those that are made together with it, out of sight: they are made again."""
    kinds = next((kinds for kinds in TOGETHER if path.stem in kinds), {path.stem})
    for manifest in (path.with_name(f"{kind}.json") for kind in sorted(kinds)):
        files.twin(manifest).unlink(missing_ok=True)
        with suppress(FileNotFoundError):  # or another thread has done so
            manifest.replace(manifest.with_name(f"{manifest.name}.set-aside"))
