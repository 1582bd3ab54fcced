"""Decoded images at the stored size."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from radprobe import manifests
from radprobe.artifacts.tables import read_array, write_array
from radprobe.manifests import Place


@dataclass
class Pixels:
    """Decoded images at the stored size, rows as in the Index. Intensities are native: windows are applied later.

    images: [n, H, W] uint8 (8-bit sources) or int16 (CT, MR). masks: [n, H, W] uint8 label maps (nearest), or None.
    shapes: [n, 2] height and width of each original image.
    """

    KIND: ClassVar[str] = "pixels"
    images: np.ndarray
    masks: np.ndarray | None
    shapes: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)  # verification report: checked, warnings, quarantined

    def save(self, place: Place) -> None:
        """Seal images.npy (already streamed there, or written now), masks.npy, shapes.npy."""
        for name, array in (("images", self.images), ("masks", self.masks), ("shapes", self.shapes)):
            if array is not None and not _is_mapped(array, place.folder / f"{name}.npy"):
                write_array(place.folder / f"{name}.npy", array)
        names = ["images.npy", "shapes.npy"] + (["masks.npy"] if self.masks is not None else [])
        manifests.seal(place, self.KIND, self.facts, names)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map the arrays read-only."""
        manifest = manifests.unseal(folder, cls.KIND)
        arrays = {Path(name).stem: read_array(Path(folder) / name) for name in manifest.files}
        return cls(arrays["images"], arrays.get("masks"), arrays["shapes"], manifest.facts)


def _is_mapped(array: np.ndarray, path: Path) -> bool:
    return isinstance(array, np.memmap) and Path(str(array.filename)).resolve() == path.resolve()
