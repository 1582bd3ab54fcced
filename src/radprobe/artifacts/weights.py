"""The verified weights of a backbone."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from radprobe import files, manifests
from radprobe.files import RadprobeError
from radprobe.manifests import Place


@dataclass
class Weights:
    """A verified weights file. `file` is None where the backbone is random-initialised from `seed`."""

    KIND: ClassVar[str] = "weights"
    file: Path | None
    sha256: str | None
    source: str  # local | package:<name> | hub:<repo>@<revision> | random
    facts: dict[str, Any] = field(default_factory=dict)  # bytes, tensors, parameters, derived, seed

    def save(self, place: Place) -> None:
        """Write weights.json (the weights stay where they are)."""
        file = str(self.file) if self.file else None
        facts = {**self.facts, "file": file, "sha256": self.sha256, "source": self.source}
        manifests.seal(place, self.KIND, facts, [], identity=[self.sha256, self.facts.get("seed")])

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read it and check the weights file's hash."""
        facts = dict(manifests.unseal(folder, cls.KIND).facts)
        file, sha256, source = facts.pop("file"), facts.pop("sha256"), facts.pop("source")
        manifest = Path(folder) / f"{cls.KIND}.json"
        if file and not Path(file).is_file() and files.was_pulled(manifest):
            remedy = "score what was pulled (`make rescore`), or get them: `radprobe --force weights <id>`"
            raise RadprobeError(file, "the weights are not here: DVC brought none", remedy)
        if file and (not Path(file).is_file() or files.sha256(Path(file)) != sha256):
            manifests.set_aside(manifest)
            raise RadprobeError(file, "the weights changed since they were verified", "run again to verify them anew")
        return cls(Path(file) if file else None, sha256, source, facts)
