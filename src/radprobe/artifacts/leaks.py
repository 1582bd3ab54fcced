"""What was compared across the parts of a split, and what overlaps."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from radprobe import manifests
from radprobe.manifests import Place


@dataclass
class LeakCertificate:
    """What was compared across parts, what overlaps and what looks the same. Every training rule takes it as input."""

    KIND: ClassVar[str] = "leaks"
    compared: dict[str, Any]
    overlaps: list[dict[str, Any]]  # empty, or the stage has failed: kind, what, samples, parts, cases
    excepted: list[dict[str, Any]] = field(default_factory=list)  # the same, each with the reason that params give
    unused: list[dict[str, Any]] = field(default_factory=list)  # exceptions of params that nothing needs
    near: list[dict[str, Any]] = field(default_factory=list)  # pairs: cases, samples, parts, correlation, pairs, change
    near_test_samples: list[str] = field(default_factory=list)  # of the test cases that `near` names

    def save(self, place: Place) -> None:
        """Write leaks.json."""
        manifests.seal(place, self.KIND, vars(self), [], identity=vars(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read it."""
        return cls(**manifests.unseal(folder, cls.KIND).facts)
