"""The whole probe job on features of a size: seconds by head, and the most memory of the process.

    python benchmarks/all_probes.py [rows] [columns] [tokens] [threads]

Generated features (float16) and 14 labels as rare as those of NIH ChestX-ray14, split as its official lists are; the
shipped params but for 10 epochs of the linear probe. The columns are those of so many tokens: the CLS of the last
blocks and, of more than one token, the mean patch token. NIH's full size is 112120 rows; DINOv2 ViT-S has 1920 columns
of 5 tokens, ViT-L 5120; with 1 token, kNN and the logistic sweep see all columns, and the grid has 4 heads for 16.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from radprobe import catalog
from radprobe.artifacts import Embeddings, Index, LeakCertificate, Pixels, Predictions, Split, Truth
from radprobe.artifacts.tables import write_array
from radprobe.manifests import seal
from radprobe.study import Study

NIH, PARTS = "nih_chestxray14", {"train": 76522, "val": 10002, "test": 25596}
POSITIVE = [0.103, 0.025, 0.119, 0.177, 0.051, 0.056, 0.012, 0.047, 0.042, 0.021, 0.022, 0.015, 0.030, 0.002]
BACKBONE, SHARD = "test_vit", 16384


def study(root: Path, threads: int) -> Study:
    content = {
        "study": "benchmark",
        "paths": {"root": str(root)},
        "datasets": {NIH: {"phantom": {"patients": 9}}},
        "backbones": [BACKBONE],
        "controls": {"random_inits": 0, "pixels": False, "metadata": False, "ceiling": False},
        "threads": threads,
        "probe": {"linear": {"epochs": 10}},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(content))
    return Study(content)


def make(s: Study, rows: int, columns: int, tokens: int) -> None:
    """Write Index, Truth, Pixels that nobody reads, Split, its certificate and Embeddings, a shard at a time."""
    rng, classes = np.random.default_rng(0), catalog.datasets()[NIH].classes
    names = [f"film{i:06d}" for i in range(rows)]
    patients = [f"patient{i // 4:06d}" for i in range(rows)]
    table = pd.DataFrame({"sample_id": names, "patient_id": patients, "volume_id": names, "slice": 0, "image": names})
    table["masks"], table["spacing"], table["affine"] = ([[] for _ in names] for _ in range(3))
    labels = (rng.random((rows, len(classes))) < POSITIVE).astype(float)
    for column, name in enumerate(classes):
        table[f"label:{name}"] = labels[:, column]
    step = s.step("prepare", NIH)
    Index(table).save(step.place)
    Truth.write(step.place, (), [])
    Pixels(np.zeros((rows, 1, 1), np.uint8), None, np.ones((rows, 2), int)).save(step.place)
    ends = np.cumsum([round(rows * n / sum(PARTS.values()) / 4) * 4 for n in PARTS.values()])
    part = np.array(list(PARTS))[np.searchsorted(ends[:-1], np.arange(rows), side="right")]
    step = s.step("split", NIH)
    Split(table[["sample_id", "patient_id"]].assign(part=part), classes).save(step.place)
    LeakCertificate({}, []).save(step.place)
    step, dim, files = s.step("embed", NIH, BACKBONE), columns // tokens, []
    for number, start in enumerate(range(0, rows, SHARD)):
        of_shard = labels[start : start + SHARD]
        n, shift = len(of_shard), of_shard @ rng.normal(size=(len(classes), dim)) * 0.1
        found = rng.standard_normal((n, tokens, dim), np.float32)
        found[:, : max(tokens - 1, 1)] += shift[:, None].astype(np.float32)
        arrays = {"cls": found[:, :-1], "patch_mean": found[:, -1]} if tokens > 1 else {"cls": found}
        for kind, array in arrays.items():
            files.append(f"{number:05d}.{kind}.npy")
            write_array(step.folder / files[-1], array.astype(np.float16))
    seal(step.place, Embeddings.KIND, {"seconds": 0.0, "peak_gb": 0.0}, files)


def main(rows: str = "6000", columns: str = "1920", tokens: str = "5", threads: str = "2") -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        s = study(root, int(threads))
        make(s, int(rows), int(columns), int(tokens))
        begun = time.perf_counter()
        command = [sys.executable, "-m", "radprobe", "probe", NIH, BACKBONE, "--params", str(root / "params.yaml")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - begun
        facts = Predictions.load(s.step("probe", NIH, BACKBONE).folder).facts
        took = {name: round(each["seconds"], 1) for name, each in facts["protocols"].items()}
        took["few-shot"] = round(facts["few_shot"]["seconds"], 1)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        peak, cpu = used.ru_maxrss * 1024 / 1e9, used.ru_utime + used.ru_stime
    heads = facts["protocols"]["linear"]["heads"]
    print(f"{int(rows):,} rows of {columns} columns, {heads} heads, {threads} threads: {seconds:.0f} s, {peak:.2f} GB")
    print(f"CPU time {cpu:.0f} s: the most that it takes where nothing else runs")
    print(f"seconds: {json.dumps(took)} (each kNN counts the search that they share)")
    print(f"ratio all_probes_minutes {seconds / 60:.2f}")
    print(f"ratio all_probes_gb {peak:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
