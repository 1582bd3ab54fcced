"""The frozen features of a dataset by one backbone."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from radprobe import manifests
from radprobe.artifacts.tables import read_array


@dataclass
class Embeddings:
    """Frozen features, rows as in the Index.

    Arrays hold the n images and then, view by view, their augmented copies.
    tokens: float16 [n (1 + views), blocks, C], the last entry from the last block (a CNN: its pooled output, 1 block).
    patch_means: float16 [n (1 + views), C], mean patch token of the last block, or None (CNNs).
    stages: float16 [n (1 + views), C of the stage], the mean of the map of each earlier stage (or block), by its number
    from the end (-2, -3 ...); none where `tokens` has several blocks.
    dense: float16 [n (1 + views), C, h, w] maps by layer (the last one is -1), memory-mapped shard by shard; none where
    they are not wanted or not stored. facts["decoders"] says which layers each decoder reads. facts["adopted"], of what
    `radprobe adopt` took over, has the key that it had, the number of images compared, and their largest difference.
    """

    KIND: ClassVar[str] = "embeddings"
    tokens: np.ndarray
    patch_means: np.ndarray | None
    dense: dict[int, "Shards"]
    facts: dict[str, Any]  # n, shard_rows, size, dtype, seconds, peak_gb, images_per_second, device, dense: shapes ...
    stages: dict[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the vectors into memory, map the dense maps."""
        manifest = manifests.unseal(folder, cls.KIND)
        shards = sorted({name.split(".")[0] for name in manifest.files})

        def vectors(kind: str) -> np.ndarray:
            return np.concatenate([read_array(Path(folder) / f"{shard}.{kind}.npy", mapped=False) for shard in shards])

        kinds = {name.split(".")[1] for name in manifest.files}
        dense = {-int(kind.removeprefix("dense")): kind for kind in kinds if kind.startswith("dense")}
        maps = {
            layer: Shards([read_array(Path(folder) / f"{shard}.{kind}.npy") for shard in shards])
            for layer, kind in dense.items()
        }
        stages = {-int(kind.removeprefix("stage")): vectors(kind) for kind in sorted(kinds) if kind.startswith("stage")}
        patch_means = vectors("patch_mean") if "patch_mean" in kinds else None
        return cls(vectors("cls"), patch_means, maps, manifest.facts, stages)

    @property
    def n(self) -> int:
        """Images, their augmented copies not counted."""
        views: int = self.facts.get("views", 0)
        return len(self.tokens) // (1 + views)

    @property
    def cls(self) -> np.ndarray:
        """Tokens [n, blocks, C] of the images as they are."""
        return self.tokens[: self.n]

    @property
    def patch_mean(self) -> np.ndarray | None:
        """Mean patch tokens [n, C] of the images as they are."""
        return None if self.patch_means is None else self.patch_means[: self.n]

    def views(self) -> Iterator[tuple[list[np.ndarray], np.ndarray | None]]:
        """Yield the vectors and the mean patch token [n, C] of the images, and then of each augmented copy.

        The vectors [n, C] are those of earlier stages, then of the blocks; the last one comes last.
        """
        for start in range(0, len(self.tokens), self.n):
            rows = slice(start, start + self.n)
            vectors = [self.stages[layer][rows] for layer in sorted(self.stages)]
            vectors += [self.tokens[rows, block] for block in range(self.tokens.shape[1])]
            yield vectors, None if self.patch_means is None else self.patch_means[rows]

    @property
    def costs(self) -> dict[str, float]:
        """Seconds, peak memory (GB) and parameters of the embedding, as its predictions carry them on."""
        return {key: self.facts[key] for key in ("seconds", "peak_gb", "parameters") if key in self.facts}


class Shards:
    """Several arrays read as one along the first axis: `shards[rows]` gathers rows into memory."""

    def __init__(self, arrays: list[np.ndarray]):
        self.arrays = arrays
        self.starts = np.cumsum([0] + [len(array) for array in arrays])
        self.shape: tuple[int, ...] = (int(self.starts[-1]), *arrays[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: ArrayLike) -> np.ndarray:
        rows = np.atleast_1d(np.asarray(rows))
        which = np.searchsorted(self.starts, rows, side="right") - 1
        return np.stack([self.arrays[s][row - self.starts[s]] for s, row in zip(which, rows, strict=True)])
