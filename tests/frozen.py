"""Small studies whose films are made in memory, for tests of what reads prepared artifacts."""

import numpy as np
import pandas as pd

from radprobe.artifacts import Index, LeakCertificate, Pixels, Split, Truth
from radprobe.models.weights import obtain
from radprobe.study import Study

PARTS = ("train", "train", "val", "test")


def study(root, dataset="nih_chestxray14", **sections) -> Study:
    """A study of one generated dataset by the tiny random ViT, on the CPU."""
    return Study(
        {
            "study": "test",
            "device": "cpu",
            "threads": 1,
            "paths": {"root": str(root)},
            "datasets": {dataset: {"phantom": {"patients": 1}}},
            "backbones": ["test_vit"],
            **sections,
        }
    )


def prepare(study: Study, dataset: str, images, labels=None, masks=None, classes=()) -> None:
    """Write Index, Truth, Pixels, Split (train, train, val, test in turn), its certificate and the weights."""
    n = len(images)
    names = [f"film{i:04d}" for i in range(n)]
    table = pd.DataFrame({"sample_id": names, "patient_id": names, "volume_id": names, "slice": 0, "image": names})
    table["masks"], table["spacing"], table["affine"] = ([[] for _ in names] for _ in range(3))
    for column, name in enumerate(classes if labels is not None else ()):
        table[f"label:{name}"] = labels[:, column].astype(float)
    step = study.step("prepare", dataset)
    Index(table).save(step.place)
    cases = ((name, name, "", mask, []) for name, mask in zip(names, masks, strict=True)) if masks is not None else ()
    Truth.write(step.place, cases, list(classes))
    Pixels(images, masks, np.array([image.shape for image in images])).save(step.place)
    step = study.step("split", dataset)
    parts = [PARTS[i % len(PARTS)] for i in range(n)]
    split = pd.DataFrame({"sample_id": names, "patient_id": names, "part": parts})
    Split(split, list(classes)).save(step.place)
    LeakCertificate({}, []).save(step.place)
    step = study.step("weights", None, "test_vit")
    entry = study.backbone("test_vit")
    obtain("test_vit", entry, None, step.folder, root := study.path("weights"), 0, False).save(step.place)
    assert not root.exists()


def leave_out(study: Study, dataset: str, part: str) -> None:
    """Take a part out of the split."""
    step = study.step("split", dataset)
    split = Split.load(step.folder)
    Split(split.table[split.table["part"] != part], split.classes).save(step.place)


def films(n: int, side: int, seed: int = 0) -> np.ndarray:
    """Noise films, uint8 [n, side, side]."""
    return np.random.default_rng(seed).integers(0, 255, (n, side, side)).astype(np.uint8)
