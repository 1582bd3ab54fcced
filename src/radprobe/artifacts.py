"""The contracts between stages: what lies on disk between one verb and the next.

Each artifact is a manifest `<kind>.json`, written last, beside the data files whose bytes and SHA-256 it lists. Loading
checks them; a manifest whose files are missing or changed is set aside, so that the next run makes the artifact again.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import pandera.pandas as pa

from radprobe import files
from radprobe.files import RadprobeError
from radprobe.manifests import seal, set_aside, unseal
from radprobe.tables import read_array, read_table, reading, write_array, write_table

PARTS = ("train", "val", "test")
LABEL, META = "label:", "meta:"


# --- raw data and weights ---------------------------------------------------------------------------------------------


@dataclass
class RawManifest:
    """The raw files of a dataset: `table` has path (relative to `root`), bytes, sha256."""

    KIND: ClassVar[str] = "raw"
    root: Path
    variant: str  # the layout found: official, flat, ...
    source: str  # user | download | phantom | package:<name>==<version>
    table: pd.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)  # downloads: url, bytes, sha256 of each file

    def save(self, folder: Path, spec: str) -> None:
        """Write raw.parquet and raw.json."""
        write_table(folder / "raw.parquet", self.table)
        facts = {"root": str(self.root), "variant": self.variant, "source": self.source, "n_files": len(self.table)}
        facts["bytes"] = int(self.table["bytes"].sum())
        seal(folder, self.KIND, spec, {**self.facts, **facts}, ["raw.parquet"])

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read it; the raw files themselves are not touched."""
        facts = unseal(folder, cls.KIND).facts
        table = read_table(Path(folder) / "raw.parquet")
        return cls(Path(facts["root"]), facts["variant"], facts["source"], table, facts)


@dataclass
class Weights:
    """A verified weights file. `file` is None where the backbone is random-initialised from `seed`."""

    KIND: ClassVar[str] = "weights"
    file: Path | None
    sha256: str | None
    source: str  # local | package:<name> | hub:<repo>@<revision> | random
    facts: dict[str, Any] = field(default_factory=dict)  # bytes, tensors, parameters, derived, seed

    def save(self, folder: Path, spec: str) -> None:
        """Write weights.json (the weights stay where they are)."""
        file = str(self.file) if self.file else None
        facts = {**self.facts, "file": file, "sha256": self.sha256, "source": self.source}
        seal(folder, self.KIND, spec, facts, [])

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read it and check the weights file's hash."""
        facts = dict(unseal(folder, cls.KIND).facts)
        file, sha256, source = facts.pop("file"), facts.pop("sha256"), facts.pop("source")
        manifest = Path(folder) / f"{cls.KIND}.json"
        if file and not Path(file).is_file() and files.was_pulled(manifest):
            remedy = "score what was pulled (`make rescore`), or get them: `radprobe --again retrieve --backbone <id>`"
            raise RadprobeError(file, "the weights are not here: DVC brought none", remedy)
        if file and (not Path(file).is_file() or files.sha256(Path(file)) != sha256):
            set_aside(manifest)
            raise RadprobeError(file, "the weights changed since they were verified", "run again to verify them anew")
        return cls(Path(file) if file else None, sha256, source, facts)


# --- samples ----------------------------------------------------------------------------------------------------------

INDEX_SCHEMA = pa.DataFrameSchema(
    {
        "sample_id": pa.Column(str, unique=True),  # one per image or slice, sorted
        "patient_id": pa.Column(str),
        "volume_id": pa.Column(str),  # the case that a slice belongs to; the sample itself for films
        "slice": pa.Column(int, pa.Check.ge(0)),  # position in the volume; 0 for films
        "image": pa.Column(str),  # relative to the raw root
        "masks": pa.Column(object),  # list of paths: [] none, [one] a label map, [k] one binary mask per class
        "spacing": pa.Column(object),  # mm per pixel along each axis of the original grid; [] where unknown
        "affine": pa.Column(object),  # slices of volumes: 4x4 row by row, voxel to RAS mm; [] for films
        f"^{LABEL}.+$": pa.Column(float, nullable=True, required=False, regex=True),  # 1, 0, -1 uncertain, NaN blank
        f"^{META}.+$": pa.Column(object, nullable=True, required=False, regex=True),  # age, sex, view: the controls
    },
    strict=True,
    checks=pa.Check(lambda table: table["sample_id"].is_monotonic_increasing, error="rows sorted by sample_id"),
)


@dataclass
class Index:
    """One row per sample, as INDEX_SCHEMA says; label columns `label:<class>` in the catalog's order."""

    KIND: ClassVar[str] = "index"
    table: pd.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)  # partial, n_listed, n_absent, limit, quarantine, ...

    def __post_init__(self):
        self.table = INDEX_SCHEMA.validate(self.table)

    @property
    def classes(self) -> list[str]:
        """Names of the label columns, in order."""
        return [name.removeprefix(LABEL) for name in self.table.columns if name.startswith(LABEL)]

    def labels(self) -> np.ndarray:
        """Return the labels 1, 0 or NaN (ignored), float32 [n, classes].

        What uncertain (-1) and blank labels count as is stated in facts: zeros, ones or ignore; by default ignore.
        """
        labels = self.table[[LABEL + name for name in self.classes]].to_numpy(np.float32, copy=True)
        meaning = {"zeros": 0, "ones": 1, "ignore": np.nan}
        blank, uncertain = np.isnan(labels), labels == -1
        labels[blank] = meaning[self.facts.get("blank", "ignore")]
        labels[uncertain] = meaning[self.facts.get("uncertain", "ignore")]
        return labels

    def save(self, folder: Path, spec: str) -> None:
        """Write index.parquet and index.json."""
        write_table(folder / "index.parquet", self.table)
        seal(folder, self.KIND, spec, self.facts, ["index.parquet"])

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read and validate it."""
        facts = unseal(folder, cls.KIND).facts
        table = read_table(path := Path(folder) / "index.parquet")
        with reading(path):
            for column in ("masks", "spacing", "affine"):
                table[column] = table[column].map(list)
            meta = [column for column in table if column.startswith(META)]
            return cls(table.astype(dict.fromkeys(meta, object)), facts)


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

    def save(self, folder: Path, spec: str) -> None:
        """Seal images.npy (already streamed there, or written now), masks.npy, shapes.npy."""
        for name, array in (("images", self.images), ("masks", self.masks), ("shapes", self.shapes)):
            if array is not None and not _is_mapped(array, folder / f"{name}.npy"):
                write_array(folder / f"{name}.npy", array)
        names = ["images.npy", "shapes.npy"] + (["masks.npy"] if self.masks is not None else [])
        seal(folder, self.KIND, spec, self.facts, names)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map the arrays read-only."""
        manifest = unseal(folder, cls.KIND)
        arrays = {Path(name).stem: read_array(Path(folder) / name) for name in manifest.files}
        return cls(arrays["images"], arrays.get("masks"), arrays["shapes"], manifest.facts)


def _is_mapped(array: np.ndarray, path: Path) -> bool:
    return isinstance(array, np.memmap) and Path(str(array.filename)).resolve() == path.resolve()


class LabelMaps:
    """Label maps on their original grids, each deflated, in one file beside a table of offsets.

    Used by Truth and by Predictions of segmentation: `maps[case_id]` is uint8 [H, W] or [X, Y, Z]. Under
    cross-validation a case is in val and in test, with a map in each: `of` one part has each case once.
    """

    def __init__(self, blob: Path, table: pd.DataFrame):
        self.blob, self.table = Path(blob), table.set_index("case_id", drop=False)

    def of(self, part: str) -> Self:
        """Return the maps of one part."""
        return type(self)(self.blob, self.table[self.table["part"] == part].reset_index(drop=True))

    def by_part(self) -> dict[str, Self]:
        """Return the maps of each part that there is."""
        return {part: self.of(part) for part in self.table["part"].unique()}

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self):
        return iter(self.table["case_id"])

    def __getitem__(self, case_id: str) -> np.ndarray:
        row = self.table.loc[case_id]
        with self.blob.open("rb") as handle:
            handle.seek(int(row["offset"]))
            packed = handle.read(int(row["bytes"]))
        return np.frombuffer(zlib.decompress(packed), np.uint8).reshape([int(side) for side in row["shape"]])

    def spacing(self, case_id: str) -> list[float]:
        """Return mm per pixel along each axis, [] where unknown."""
        return [float(step) for step in self.table.loc[case_id]["spacing"]]

    def cases(self) -> Iterator[tuple]:
        """Yield (case_id, patient_id, part, label map, spacing) as `write` takes them; a case must occur once."""
        for row in self.table.itertuples():
            yield row.case_id, row.patient_id, row.part, self[row.case_id], self.spacing(row.case_id)

    @staticmethod
    def write(folder: Path, name: str, cases) -> list[str]:
        """Stream (case_id, patient_id, part, label map, spacing) to `name`.bin and `name`.parquet; return the names.

        `part` is "" for Truth. A case id occurs once in a part; a Predictions of several protocols writes one `name`
        for each.
        """
        rows, offset = [], 0
        with files.atomic(folder / f"{name}.bin") as temporary, temporary.open("wb") as handle:
            for case_id, patient_id, part, labels, spacing in cases:
                packed = zlib.compress(np.ascontiguousarray(labels, np.uint8).tobytes(), 1)
                handle.write(packed)
                rows.append((case_id, patient_id, part, offset, len(packed), list(labels.shape), list(spacing)))
                offset += len(packed)
        columns = ["case_id", "patient_id", "part", "offset", "bytes", "shape", "spacing"]
        write_table(folder / f"{name}.parquet", pd.DataFrame(rows, columns=columns))
        return [f"{name}.bin", f"{name}.parquet"]

    @classmethod
    def read(cls, folder: Path, name: str) -> Self:
        """Open the maps that `write` made."""
        return cls(Path(folder) / f"{name}.bin", read_table(Path(folder) / f"{name}.parquet"))


@dataclass
class Truth:
    """The reference label maps on the original grid: scores can be re-made from it without the images.

    Without a case where the task is to classify.
    """

    KIND: ClassVar[str] = "truth"
    maps: LabelMaps
    facts: dict[str, Any]

    @classmethod
    def write(cls, folder: Path, spec: str, cases, classes: list[str]) -> None:
        """Stream (case_id, patient_id, "", label map, spacing) to disk; label i + 1 is classes[i]."""
        names = LabelMaps.write(folder, "truth", cases)
        seal(folder, cls.KIND, spec, {"classes": classes}, names)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Open it."""
        facts = unseal(folder, cls.KIND).facts
        return cls(LabelMaps.read(folder, "truth"), facts)


# --- parts ------------------------------------------------------------------------------------------------------------

SPLIT_SCHEMA = pa.DataFrameSchema(
    {
        "sample_id": pa.Column(str, unique=True),
        "patient_id": pa.Column(str),
        "part": pa.Column(str, pa.Check.isin(PARTS)),
        "fold": pa.Column(int, pa.Check.ge(1), coerce=True, required=False),  # of cross-validation; all parts are test
    },
    strict=True,
)


@dataclass
class Split:
    """Which sample is in which part; samples in no part are absent from the table. A few-shot draw is a Split too.

    Under cross-validation the table has a column `fold`, 1 ... k, and every sample is test: `folds` are the splits that
    heads are fitted on.
    """

    KIND: ClassVar[str] = "split"
    table: pd.DataFrame
    classes: list[str]  # the classes that this split evaluates, in order
    facts: dict[str, Any] = field(default_factory=dict)  # recipe, counts of samples, patients and positives by part

    def __post_init__(self):
        self.table = SPLIT_SCHEMA.validate(self.table.reset_index(drop=True))
        parts = self.groups.groupby(self.table["patient_id"]).nunique()
        if (shared := parts[parts > 1]).size:
            raise RadprobeError(
                f"patient {shared.index[0]}",
                f"is in two parts of the split ({shared.size} such patients)",
                "give every image of a patient the same part",
            )

    @property
    def is_folded(self) -> bool:
        """Does it say folds of a cross-validation?"""
        return "fold" in self.table

    @property
    def groups(self) -> pd.Series:
        """The group of each row of `table` that must share nothing with another: its part, or its fold as text."""
        return "fold " + self.table["fold"].astype(str) if self.is_folded else self.table["part"]

    @property
    def group_names(self) -> list[str]:
        """The names of all groups, in order."""
        if not self.is_folded:
            return list(PARTS)
        return [f"fold {number}" for number in sorted(self.table["fold"].unique())]

    @property
    def folds(self) -> "list[Split]":
        """The splits that heads are fitted on: of each fold one, else this one alone.

        In the split of a fold, the fold is test, the next one (after the last: the first) is val, all others are train.
        """
        if not self.is_folded:
            return [self]
        numbers = sorted(self.table["fold"].unique())
        splits = []
        for test, val in zip(numbers, [*numbers[1:], numbers[0]], strict=True):
            part = self.table["fold"].map({test: "test", val: "val"}).fillna("train")
            splits.append(Split(self.table.drop(columns="fold").assign(part=part), self.classes, self.facts))
        return splits

    def rows(self, index: Index, *groups: str) -> np.ndarray:
        """Return the positions in `index` of the samples of some parts (or folds, by `group_names`), sorted."""
        chosen = self.table.loc[self.groups.isin(groups), "sample_id"]
        return np.flatnonzero(index.table["sample_id"].isin(chosen).to_numpy())

    def targets(self, index: Index, exclusive: bool) -> np.ndarray:
        """Return the labels 1, 0 or NaN of every row of an index, of the classes of this split, float32 [n, classes].

        `exclusive`: one class is true of each row; a row of a class that the split leaves out is NaN.
        """
        found = index.labels()[:, [index.classes.index(name) for name in self.classes]]
        if exclusive:  # known to be none of the others, but not to be anything
            found[~(found == 1).any(axis=1)] = np.nan
        return found

    def save(self, folder: Path, spec: str) -> None:
        """Write split.csv and split.json."""
        with files.atomic(folder / "split.csv") as temporary:
            self.table.to_csv(temporary, index=False, lineterminator="\n")
        seal(folder, self.KIND, spec, {**self.facts, "classes": self.classes}, ["split.csv"])

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read and validate it."""
        facts = dict(unseal(folder, cls.KIND).facts)
        with reading(path := Path(folder) / "split.csv"):
            return cls(pd.read_csv(path, dtype=str, keep_default_na=False), facts.pop("classes"), facts)


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

    def save(self, folder: Path, spec: str) -> None:
        """Write leaks.json."""
        seal(folder, self.KIND, spec, vars(self), [])

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read it."""
        return cls(**unseal(folder, cls.KIND).facts)


# --- what a backbone and a head make ----------------------------------------------------------------------------------


@dataclass
class Embeddings:
    """Frozen features, rows as in the Index.

    Arrays hold the n images and then, view by view, their augmented copies.
    tokens: float16 [n (1 + views), blocks, C], the last entry from the last block (a CNN: its pooled output, 1 block).
    patch_means: float16 [n (1 + views), C], mean patch token of the last block, or None (CNNs).
    stages: float16 [n (1 + views), C of the stage], the mean of the map of each earlier stage (or block), by its number
    from the end (-2, -3 ...); none where `tokens` has several blocks.
    dense: float16 [n (1 + views), C, h, w] maps by layer (the last one is -1), memory-mapped shard by shard; none where
    they are not wanted or not stored. facts["decoders"] says which layers each decoder reads.
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
        manifest = unseal(folder, cls.KIND)
        shards = sorted({name.split(".")[0] for name in manifest.files})

        def vectors(kind: str) -> np.ndarray | None:
            names = [f"{shard}.{kind}.npy" for shard in shards if f"{shard}.{kind}.npy" in manifest.files]
            return np.concatenate([read_array(Path(folder) / name, mapped=False) for name in names]) if names else None

        kinds = {name.split(".")[1] for name in manifest.files}
        dense = {-int(kind.removeprefix("dense")): kind for kind in kinds if kind.startswith("dense")}
        maps = {
            layer: Shards([read_array(Path(folder) / f"{shard}.{kind}.npy") for shard in shards])
            for layer, kind in dense.items()
        }
        stages = {-int(kind.removeprefix("stage")): vectors(kind) for kind in sorted(kinds) if kind.startswith("stage")}
        return cls(vectors("cls"), vectors("patch_mean"), maps, manifest.facts, stages)

    @property
    def n(self) -> int:
        """Images, their augmented copies not counted."""
        return len(self.tokens) // (1 + self.facts.get("views", 0))

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
        self.shape = (int(self.starts[-1]), *arrays[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows) -> np.ndarray:
        rows = np.atleast_1d(np.asarray(rows))
        which = np.searchsorted(self.starts, rows, side="right") - 1
        return np.stack([self.arrays[s][row - self.starts[s]] for s, row in zip(which, rows, strict=True)])


@dataclass
class FewShot:
    """What heads that saw few patients say of the test part, draw by draw.

    table: one row a draw: protocol, shots (patients, or patients a class; 0 means all), draw, n_patients and n_samples
    that were drawn, note. scores: of classification float32 [draws, n test cases, classes], cases in the order of
    sample_id, NaN where a class could not be learnt from a draw; of segmentation pixels at the stored size by true
    (row) and predicted (column) label, int64 [draws, n test cases, K, K], cases sorted.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = ("protocol", "shots", "draw", "n_patients", "n_samples", "note")
    table: pd.DataFrame
    scores: np.ndarray

    def write(self, folder: Path) -> list[str]:
        """Write few_shot.parquet and few_shot.npy; return their names."""
        write_table(folder / "few_shot.parquet", self.table)
        write_array(folder / "few_shot.npy", self.scores)
        return ["few_shot.parquet", "few_shot.npy"]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the table, map the scores."""
        return cls(read_table(folder / "few_shot.parquet"), read_array(folder / "few_shot.npy"))


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
    few_shot: FewShot | None = None
    training: pd.DataFrame | None = None  # curves: protocol, phase, head, epoch, loss, value, learning_rate, seconds
    decoders: list[str] = field(default_factory=list)

    def save(self, folder: Path, spec: str) -> None:
        """Write predictions.parquet (or seal maps already written by `LabelMaps.write`) and predictions.json."""
        names = [file for name in self.maps for file in (f"{name}.bin", f"{name}.parquet")]
        names += [f"{name}.safetensors" for name in self.decoders]
        if self.table is not None:
            write_table(folder / "predictions.parquet", self.table)
            names.append("predictions.parquet")
        if self.few_shot is not None:
            names += self.few_shot.write(folder)
        if self.training is not None:
            write_table(folder / "training.parquet", self.training)
            names.append("training.parquet")
        seal(folder, self.KIND, spec, {**self.facts, "classes": self.classes, "maps": list(self.maps)}, names)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the table, open the maps."""
        manifest = unseal(folder, cls.KIND)
        facts = dict(manifest.facts)
        maps = {name: LabelMaps.read(folder, name) for name in facts.pop("maps")}
        table, training = (
            read_table(Path(folder) / name) if name in manifest.files else None
            for name in ("predictions.parquet", "training.parquet")
        )
        few_shot = FewShot.read(Path(folder)) if "few_shot.npy" in manifest.files else None
        decoders = [Path(name).stem for name in manifest.files if name.endswith(".safetensors")]
        return cls(facts.pop("classes"), table, maps, facts, few_shot, training, decoders)

    def rows(self, protocol: str, part: str) -> pd.DataFrame:
        """Return the rows of `table` that are of a protocol and part, by sample_id."""
        table = self.table
        return table[(table["protocol"] == protocol) & (table["part"] == part)].sort_values("sample_id")

    def matrices(self, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores and the targets of rows, each [n, classes]."""
        scores, targets = (rows[[f"{kind}:{name}" for name in self.classes]] for kind in ("score", "target"))
        return scores.to_numpy(), targets.to_numpy()


class Adapter:
    """What was trained of a backbone, and its head, alone; the header of the file says what it belongs to."""

    KIND: ClassVar[str] = "adapter"
    FILE: ClassVar[str] = "adapter.safetensors"

    @classmethod
    def seal(cls, folder: Path, spec: str) -> None:
        """Write adapter.json for the file that lies there."""
        seal(folder, cls.KIND, spec, {}, [cls.FILE])

    @classmethod
    def file(cls, folder: Path) -> Path:
        """Return the file, checked."""
        unseal(folder, cls.KIND)
        return Path(folder) / cls.FILE


# --- scores -----------------------------------------------------------------------------------------------------------

_number = {"coerce": True, "nullable": True}
SCORES_SCHEMA = pa.DataFrameSchema(
    {
        "dataset": pa.Column(str),
        "backbone": pa.Column(str),
        "protocol": pa.Column(str),
        "part": pa.Column(str, pa.Check.isin(PARTS)),
        "metric": pa.Column(str),  # auroc, auprc, dsc, dsc_pooled, ...
        "class": pa.Column(str),  # a class, or "macro"
        "value": pa.Column(float, **_number),  # NaN = undefined, never 0
        "low": pa.Column(float, **_number),  # 95 % interval; NaN under 10 patients
        "high": pa.Column(float, **_number),
        "n_patients": pa.Column(int, coerce=True),
        "n_samples": pa.Column(int, coerce=True),
        "n_classes": pa.Column(int, coerce=True),  # classes that are defined, for macro rows
        "note": pa.Column(str),  # why a value or an interval is missing
        "seed": pa.Column(int, coerce=True),
        "seconds": pa.Column(float, **_number),  # of embedding and fitting
        "peak_gb": pa.Column(float, **_number),
        "trained_parameters": pa.Column(float, **_number),  # head and decoder included; NaN where nothing is trained
        "trained_share": pa.Column(float, **_number),  # of all parameters, backbone and head
        "n_fits": pa.Column(int, coerce=True),  # with different seeds; `value` is that of the first
        "seed_sd": pa.Column(float, **_number),  # standard deviation of the value over these fits; NaN where it is one
        "seed_low": pa.Column(float, **_number),  # the least and the most of them
        "seed_high": pa.Column(float, **_number),
        "best_epoch": pa.Column(float, **_number),  # that val chose; NaN where there are no epochs to choose from
        "spec": pa.Column(str),  # of the Predictions
    },
    strict=True,
)


@dataclass
class Scores:
    """Tidy scores: one row a metric and class, as SCORES_SCHEMA says. `cases` holds per-case values (segmentation)."""

    KIND: ClassVar[str] = "scores"
    table: pd.DataFrame
    cases: pd.DataFrame | None = None  # protocol, part, case_id, patient_id, metric, class, value
    draws: pd.DataFrame | None = None  # few-shot, on test: FewShot.COLUMNS, metric, value (macro), n_classes
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        self.table = SCORES_SCHEMA.validate(self.table)

    def save(self, folder: Path, spec: str) -> None:
        """Write scores.parquet, where there are any cases.parquet and draws.parquet, and scores.json."""
        tables = {"scores": self.table, "cases": self.cases, "draws": self.draws}
        names = [f"{name}.parquet" for name, table in tables.items() if table is not None]
        for name in names:
            write_table(folder / name, tables[Path(name).stem])
        seal(folder, self.KIND, spec, self.facts, names)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read and validate it."""
        manifest = unseal(folder, cls.KIND)
        names = [f"{name}.parquet" for name in ("scores", "cases", "draws")]
        tables = [read_table(Path(folder) / name) if name in manifest.files else None for name in names]
        with reading(Path(folder) / names[0]):
            return cls(*tables, manifest.facts)


COMPARISON_SCHEMA = pa.DataFrameSchema(
    {
        "dataset": pa.Column(str),
        "protocol": pa.Column(str),
        "metric": pa.Column(str),  # the dataset's primary metric, macro, test part
        "backbone": pa.Column(str),
        "other": pa.Column(str),
        "difference": pa.Column(float, **_number),  # backbone minus other, on the same test patients
        "low": pa.Column(float, **_number),  # 95 % interval, simultaneous over all pairs of the dataset and protocol
        "high": pa.Column(float, **_number),
        "p": pa.Column(float, **_number),  # two-sided, corrected for all pairs of the dataset and protocol (max-T)
        "p_delong": pa.Column(float, **_number),  # not corrected; AUROC where each patient has one sample, else NaN
        "standard_error": pa.Column(float, **_number),  # of the difference, seeds and inits included
        "needed": pa.Column(float, **_number),  # test patients that detect facts["margin"] at 80 % power
        "needed_low": pa.Column(float, **_number),  # 95 % range of that number
        "needed_high": pa.Column(float, **_number),
        "n_patients": pa.Column(int, coerce=True),
        "note": pa.Column(str),
    },
    strict=True,
)


ROWS_SCHEMA = pa.DataFrameSchema(
    {
        "dataset": pa.Column(str),
        "protocol": pa.Column(str),
        "metric": pa.Column(str),
        "backbone": pa.Column(str),  # random:<id> stands for the mean of its inits
        "value": pa.Column(float, **_number),
        "low": pa.Column(float, **_number),  # 95 % interval of this row alone
        "high": pa.Column(float, **_number),
        "corrected": pa.Column(float, **_number),  # of the best row: corrected for having been chosen; else NaN
        "corrected_low": pa.Column(float, **_number),
        "corrected_high": pa.Column(float, **_number),
        "may_be_best": pa.Column(bool, coerce=True),  # no candidate is significantly higher; controls never
        "n_inits": pa.Column(int, coerce=True),
        "init_sd": pa.Column(float, **_number),  # between inits; NaN where there is one
        "n_patients": pa.Column(int, coerce=True),
        "note": pa.Column(str),
    },
    strict=True,
)


VARIANTS_SCHEMA = pa.DataFrameSchema(
    {
        "dataset": pa.Column(str),
        "backbone": pa.Column(str),  # ours ...
        "protocol": pa.Column(str),
        "metric": pa.Column(str),
        "other_backbone": pa.Column(str),  # ... and made as the study did
        "other_protocol": pa.Column(str),
        "other_metric": pa.Column(str),
        "difference": pa.Column(float, **_number),  # the other less ours, macro, on the same test patients
        "low": pa.Column(float, **_number),
        "high": pa.Column(float, **_number),
        "n_patients": pa.Column(int, coerce=True),
        "note": pa.Column(str),
    },
    strict=True,
)


@dataclass
class Comparison:
    """Paired differences on the same resampled test patients of a dataset.

    `table` holds those of every two rows, `rows` the rows themselves, `variants` the differences between ours and what
    is made as the paper did (the pairs of deviations.yaml; no controls). facts["margin"]: the difference that
    `needed` patients detect.
    """

    KIND: ClassVar[str] = "comparison"
    table: pd.DataFrame
    variants: pd.DataFrame
    rows: pd.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        self.table = COMPARISON_SCHEMA.validate(self.table)
        self.variants = VARIANTS_SCHEMA.validate(self.variants)
        self.rows = ROWS_SCHEMA.validate(self.rows)

    def save(self, folder: Path, spec: str) -> None:
        """Write comparison.parquet, variants.parquet, rows.parquet and comparison.json."""
        tables = {"comparison": self.table, "variants": self.variants, "rows": self.rows}
        for name, table in tables.items():
            write_table(folder / f"{name}.parquet", table)
        seal(folder, self.KIND, spec, self.facts, [f"{name}.parquet" for name in tables])

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read and validate it."""
        facts = unseal(folder, cls.KIND).facts
        schemas = {"comparison": COMPARISON_SCHEMA, "variants": VARIANTS_SCHEMA, "rows": ROWS_SCHEMA}
        tables = [read_table(Path(folder) / f"{name}.parquet", schema) for name, schema in schemas.items()]
        return cls(*tables, facts)
