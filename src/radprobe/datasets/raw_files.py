"""The raw files that `retrieve` hashed, as `prepare` finds them."""

from pathlib import Path

from radprobe import files
from radprobe.artifacts import RawManifest
from radprobe.datasets.decoding import Picture
from radprobe.files import RadprobeError
from radprobe.manifests import set_aside


class RawFiles:
    """The raw files that were hashed, below their root on this machine."""

    def __init__(self, listed: RawManifest, manifest: Path, folder: Path | None):
        self.manifest = manifest
        self.root = folder / listed.facts["inside"] if folder else listed.root
        self.bytes = dict(zip(listed.table["path"], listed.table["bytes"], strict=True))
        self.sha256 = dict(zip(listed.table["path"], listed.table["sha256"], strict=True))

    def check_sizes(self, pictures: list[Picture]) -> None:
        """Raise RadprobeError if a file of the pictures is missing or has another size than when it was hashed."""
        for path in (path for picture in pictures for path in picture.files):
            if not path.is_file() or self.bytes.get(self._name(path)) != path.stat().st_size:
                raise self._changed(path)

    def check_content(self, picture: Picture) -> None:
        """Raise RadprobeError if a file of a picture is not the one that was hashed.

        It is asked after the file was decoded, so that a file which changes under this stage is noticed as well.
        """
        for path in picture.files:
            if not path.is_file() or files.sha256(path) != self.sha256.get(self._name(path)):
                raise self._changed(path)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _changed(self, what: Path) -> RadprobeError:
        set_aside(self.manifest)
        reason = "changed since it was retrieved; the manifest of the raw files is set aside"
        return RadprobeError(what, reason, "run again: the raw files are found and hashed again")
