"""The reference label maps of a dataset."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from radprobe import manifests
from radprobe.artifacts.label_maps import LabelCase, LabelMaps
from radprobe.manifests import Place


@dataclass
class Truth:
    """The reference label maps on the original grid: scores can be re-made from it without the images.

    Without a case where the task is to classify.
    """

    KIND: ClassVar[str] = "truth"
    maps: LabelMaps
    facts: dict[str, Any]

    @classmethod
    def write(cls, place: Place, cases: Iterable[LabelCase], classes: list[str]) -> None:
        """Stream (case_id, patient_id, "", label map, spacing) to disk; label i + 1 is classes[i]."""
        names = LabelMaps.write(place.folder, "truth", cases)
        manifests.seal(place, cls.KIND, {"classes": classes}, names)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Open it."""
        facts = manifests.unseal(folder, cls.KIND).facts
        return cls(LabelMaps.read(folder, "truth"), facts)
