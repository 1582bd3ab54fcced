"""What the heads of a backbone say of the validation and test sets."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from radprobe import manifests
from radprobe.artifacts.few_shot import FewShotScores
from radprobe.artifacts.label_maps import LabelMaps
from radprobe.artifacts.tables import read_table, write_table
from radprobe.manifests import Place

PREDICTED = ("val", "test")


def again(protocol: str, number: int) -> str:
    """Return the name under which Predictions hold what the fit with the n-th other seed says of test."""
    return f"{protocol}~{number}" if number else protocol


@dataclass
class Predictions:
    """What the heads of one job say of val and test; scores come from here and never from inside training.

    Classification: `table` has protocol, part, sample_id, patient_id, `score:<class>` (logits, log-odds or similar:
    higher is more likely), `target:<class>` (1, 0, NaN undefined) and, where the scores are a softmax, `logit:<class>`.
    Segmentation: `maps[protocol]` are LabelMaps on the original grid, with case_id, patient_id and part.
    Under cross-validation each sample is once in test and once in val, the column `fold` of `table` says whose fit made
    the row, and `facts["protocols"][name]["folds"]` what each fit chose.
    `facts["protocols"][name]` holds the hyperparameters chosen, from which part, the seconds and memory taken;
    `facts["embedding"]` the seconds and memory of the embedding. Where a protocol was fitted with several seeds, its
    facts have them as `seeds`, and what the others say of test stands under the names that `again` gives.
    `decoders` are the protocols whose decoder lies beside, as <protocol>.safetensors; none under cross-validation.
    """

    KIND: ClassVar[str] = "predictions"
    classes: list[str]
    table: pd.DataFrame | None = None
    maps: dict[str, LabelMaps] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    few_shot: FewShotScores | None = None
    training: pd.DataFrame | None = None  # curves: protocol, phase, head, epoch, loss, value, learning_rate, seconds
    decoders: list[str] = field(default_factory=list)

    def save(self, place: Place) -> None:
        """Write predictions.parquet (or seal maps already written by `LabelMaps.write`) and predictions.json."""
        names = [file for name in self.maps for file in (f"{name}.bin", f"{name}.parquet")]
        names += [f"{name}.safetensors" for name in self.decoders]
        if self.table is not None:
            write_table(place.folder / "predictions.parquet", self.table)
            names.append("predictions.parquet")
        if self.few_shot is not None:
            names += self.few_shot.write(place.folder)
        if self.training is not None:
            write_table(place.folder / "training.parquet", self.training)
            names.append("training.parquet")
        manifests.seal(place, self.KIND, {**self.facts, "classes": self.classes, "maps": list(self.maps)}, names)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the table, open the maps."""
        manifest = manifests.unseal(folder, cls.KIND)
        facts = dict(manifest.facts)
        maps = {name: LabelMaps.read(folder, name) for name in facts.pop("maps")}
        table, training = (
            read_table(Path(folder) / name) if name in manifest.files else None
            for name in ("predictions.parquet", "training.parquet")
        )
        few_shot = FewShotScores.read(Path(folder)) if "few_shot.npy" in manifest.files else None
        decoders = [Path(name).stem for name in manifest.files if name.endswith(".safetensors")]
        return cls(facts.pop("classes"), table, maps, facts, few_shot, training, decoders)

    @property
    def protocols(self) -> list[str]:
        """The names of all protocols."""
        return list(self.facts["protocols"])

    @property
    def embedding(self) -> dict[str, Any]:
        """What is recorded of the embedding."""
        recorded: dict[str, Any] = self.facts["embedding"]
        return recorded

    @property
    def few_shot_fits(self) -> dict[str, Any]:
        """What is recorded of the fits of few-shot draws."""
        recorded: dict[str, Any] = self.facts["few_shot"]
        return recorded

    def protocol(self, name: str) -> dict[str, Any]:
        """Return what is recorded of a protocol."""
        recorded: dict[str, Any] = self.facts["protocols"][name]
        return recorded

    def other_fits(self, protocol: str) -> list[str]:
        """Return the names under which the fits of a protocol with other seeds, or other shuffles, are held."""
        seeds = self.protocol(protocol).get("seeds", [0])
        return [again(protocol, number) for number in range(1, len(seeds))]

    def parts(self, protocol: str) -> list[str]:
        """Return the parts that a protocol predicts: of predictions from elsewhere, val may be missing."""
        facts = self.protocol(protocol)
        return [part for part in PREDICTED if "external" not in facts or f"n_{part}" in facts]

    def rows(self, protocol: str, part: str) -> pd.DataFrame:
        """Return the rows of `table` that are of a protocol and part, by sample_id."""
        table = self.table if self.table is not None else pd.DataFrame(columns=["protocol", "part", "sample_id"])
        return table[(table["protocol"] == protocol) & (table["part"] == part)].sort_values("sample_id")

    def matrices(self, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores and the targets of rows, each [n, classes]."""
        scores, targets = (rows[[f"{kind}:{name}" for name in self.classes]] for kind in ("score", "target"))
        return scores.to_numpy(), targets.to_numpy()
