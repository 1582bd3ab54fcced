"""The trained parameters of an adapted backbone."""

from pathlib import Path
from typing import ClassVar

from radprobe import manifests
from radprobe.manifests import Place


class Adapter:
    """What was trained of a backbone, and its head, alone; the header of the file says what it belongs to."""

    KIND: ClassVar[str] = "adapter"
    FILE: ClassVar[str] = "adapter.safetensors"

    @classmethod
    def seal(cls, place: Place) -> None:
        """Write adapter.json for the file that lies there."""
        manifests.seal(place, cls.KIND, {}, [cls.FILE])

    @classmethod
    def file(cls, folder: Path) -> Path:
        """Return the file, checked."""
        manifests.unseal(folder, cls.KIND)
        return Path(folder) / cls.FILE
