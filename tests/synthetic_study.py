"""A small finished study, made through the artifacts API without any model: predictions are truth plus known noise."""

import numpy as np
import pandas as pd
import running

from radprobe import files
from radprobe.artifacts import (
    FewShotScores,
    Index,
    LabelMaps,
    LeakCertificate,
    Pixels,
    Predictions,
    RawManifest,
    Split,
    Truth,
    Weights,
)
from radprobe.artifacts.tables import write_array
from radprobe.manifests import seal
from radprobe.study import Study

PARTS = {"montgomery": {"train": 30, "val": 12, "test": 24}, "nih_chestxray14": {"train": 80, "val": 40, "test": 80}}
# How wrong each backbone is: pixels of shift of the lungs, and noise on the logits.
SHIFT = {"ceiling": 0.2, "derived": 1.0, "tf_efficientnet_lite0": 1.02, "test_vit": 6}
NOISE = {"derived": 0.8, "tf_efficientnet_lite0": 1.3, "test_vit": 6}
SHIFT_OF_RANDOM, NOISE_OF_RANDOM = 4, 5
NASTY = "<script>alert(1)</script>&\"'$x$"


def params(root, **changes):
    content = {
        "study": f"Synthetic {NASTY}",
        "datasets": {
            "montgomery": {"phantom": {"patients": 66}},
            "nih_chestxray14": {"phantom": {"patients": 200}},
            "mni152": {"phantom": {"patients": 1}},
        },
        "backbones": ["derived", "tf_efficientnet_lite0", "vit_small_patch14_dinov2", "test_vit"],
        "own_backbones": {
            "derived": {
                "like": "vit_small_patch14_dinov2",
                "title": f"DINOv2 derived {NASTY}",
                "file": "derived.safetensors",
                "derived": f"fine-tuned by a packager {NASTY}",
            }
        },
        "hub": False,
        "controls": {"random_inits": 2},
        "score": {"resamples": 200},
        "paths": {"root": str(root)},
    }
    return content | changes


def study(root, **changes):
    """Return the study under `root`; two weights files are there, DINOv2's are not."""
    for name in ("derived", "tf_efficientnet_lite0.in1k"):
        path = root / "data/weights" / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(b"weights")
    return Study(params(root, **changes))


def build(root, **changes):
    """Make every artifact of the study that a test needs and that is missing, scores by the real stage.

    Returns the study. A folder that holds a copy of a finished study gets only what `changes` add.
    """
    made = study(root, **changes)
    for step in made.steps.values():
        if step.done:
            continue
        MAKERS[step.verb](made, step, np.random.default_rng(list((step.backbone or "").encode())))
    return made


def _retrieve(made, step, generator):
    table = pd.DataFrame({"path": ["a.png"], "bytes": [10], "sha256": ["0" * 64]})
    RawManifest(step.folder, "official", "phantom", table).save(step.place)
    _index(made, step).save(step.place)


def _weights(made, step, generator):
    entry = made.backbone(step.backbone)
    file = None if entry.random else made.weights_file(step.backbone)
    digest = None if file is None else files.sha256(file)
    facts = {"parameters": 22_000_000, "derived": entry.derived}
    Weights(file, digest, "random" if entry.random else "local", facts).save(step.place)


def _patients(dataset):
    n = sum(PARTS.get(dataset, {"": 9}).values())
    return [f"p{number:04d}" for number in range(n)]


def _labels(n, classes):
    generator = np.random.default_rng(7)
    labels = (generator.random((n, classes)) < 0.3).astype(float)
    labels[:, 7] = 0  # Hernia has no positive: undefined
    return labels


def _index(made, step):
    dataset, patients = step.dataset, _patients(step.dataset)
    table = pd.DataFrame({"sample_id": patients, "patient_id": patients, "volume_id": patients})
    if dataset == "mni152":
        table["volume_id"] = table["patient_id"] = "mni"
    table["slice"] = np.arange(len(table)) if dataset == "mni152" else 0
    table["image"] = "a.png"
    table["masks"] = [[] for _ in patients]
    table["spacing"] = [[] for _ in patients]
    table["affine"] = [[] for _ in patients]
    if dataset == "nih_chestxray14":
        classes = classes_of(dataset)
        labels = pd.DataFrame(_labels(len(table), len(classes)), columns=[f"label:{name}" for name in classes])
        table = pd.concat([table, labels], axis=1)
    partial = {"partial": True, "n_listed": 112120, "n_absent": 111920} if dataset == "nih_chestxray14" else {}
    return Index(table, {"n_samples": len(table), "quarantine": [NASTY], **partial})


def classes_of(dataset):
    from radprobe import catalog

    return catalog.datasets()[dataset].classes


def lungs(patient, side=64, shift=0):
    """Return a label map of two ellipses; `shift` moves them sideways, more for later patients."""
    number = int(patient[1:]) if patient[1:].isdigit() else 0
    y, x = np.mgrid[:side, :side] / side
    x = x - shift / side * (0.5 + number % 7 / 6)
    labels = np.zeros((side, side), np.uint8)
    for label, centre in ((1, 0.3), (2, 0.7)):
        labels[((x - centre) / 0.14) ** 2 + ((y - 0.5) / 0.32) ** 2 < 1] = label
    return labels


def _prepare(made, step, generator):
    index, side = _index(made, step), 64
    maps = np.stack([lungs(patient) for patient in index.table["sample_id"]])
    images = (40 + 100 * (maps == 0) + generator.normal(0, 12, maps.shape)).clip(0, 255).astype(np.uint8)
    if step.dataset == "mni152":
        images = images.astype(np.int16) * 7
    shapes = np.tile([side, side * 3 // 4], (len(maps), 1))
    report = {"checked": len(maps), "warnings": [f"constant image {NASTY}"], "quarantined": []}
    Pixels(images, None, shapes, report).save(step.place)
    with_maps = index.table["sample_id"] if step.dataset == "montgomery" else ()
    cases = ((patient, patient, "", lungs(patient), []) for patient in with_maps)
    Truth.write(step.place, cases, classes_of(step.dataset))
    index.save(step.place)


def _split(made, step, generator):
    patients, parts = _patients(step.dataset), PARTS[step.dataset]
    table = pd.DataFrame({"sample_id": patients, "patient_id": patients})
    table["part"] = np.repeat(list(parts), list(parts.values()))
    counts = {
        name: {"samples": n, "patients": n, "positives": {}, "positive_patients": {}} for name, n in parts.items()
    }
    if step.dataset == "nih_chestxray14":
        counts["test"]["positives"] = counts["test"]["positive_patients"] = {"Hernia": 0}
    facts = {"recipe": {"recipe": "systematic"}, "parts": counts}
    Split(table, classes_of(step.dataset), facts).save(step.place)
    certificate = LeakCertificate({"patients": len(patients), "identical pixels": "none"}, [])
    if step.dataset == "montgomery":  # the first film of train and the last of test look alike
        pair = [patients[0], patients[-1]]
        certificate.near = [
            {
                "cases": pair,
                "samples": pair,
                "parts": ["train", "test"],
                "correlation": 0.98,
                "pairs": 1,
                "change": NASTY,
            }
        ]
        certificate.near_test_samples = [patients[-1]]
    certificate.save(step.place)


def _embed(made, step, generator):
    n, names = len(_patients(step.dataset)), ["00000.cls.npy"]
    write_array(step.folder / names[0], generator.normal(size=(n, 1, 8)).astype(np.float16))
    if step.dataset != "nih_chestxray14" and step.backbone != "metadata":
        x = np.linspace(0, 1, 8)
        ramps = np.stack(np.broadcast_arrays(x[:, None], x[None], np.outer(x, x), np.outer(x, 1 - x)))
        dense = ramps[None] + generator.normal(0, 0.1, (n, 4, 8, 8))
        write_array(step.folder / "00000.dense1.npy", dense.astype(np.float16))
        names.append("00000.dense1.npy")
    facts = {"n": n, **EMBEDDING, "device": "cpu", "size": 224, "dim": 8, "precision": "bf16"}
    facts["images_per_second"] = n / EMBEDDING["seconds"]
    seal(step.place, "embeddings", facts, names)


EMBEDDING = {"seconds": 150.0, "peak_gb": 1.5}


def _took(chosen, *others):
    candidates = [{"value": 0.7, **each} for each in (chosen, *others)]
    return {"selected_on": "val", "chosen": chosen, "candidates": candidates, "seconds": 30.0, "peak_gb": 1.0}


def _probe(made, step, generator):
    patients, classes = _patients(step.dataset), classes_of(step.dataset)
    labels, tables, noise = _labels(len(patients), len(classes)), [], NOISE.get(step.backbone, NOISE_OF_RANDOM)
    part = np.repeat(list(PARTS[step.dataset]), list(PARTS[step.dataset].values()))
    for protocol, (signal, extra) in HEADS.items():
        table = pd.DataFrame({"protocol": protocol, "part": part, "sample_id": patients, "patient_id": patients})
        for column, name in enumerate(classes):
            table[f"score:{name}"] = labels[:, column] * signal + generator.normal(0, noise + extra, len(table))
            table[f"target:{name}"] = labels[:, column]
        tables.append(table[table["part"] != "train"])
    facts = {
        "protocols": dict(CHOSEN),
        "embedding": EMBEDDING,
        "few_shot": {"c": 0.01, "seconds": 30.0, "peak_gb": 1.0},
    }
    few_shot = _few_shot(labels[part == "test"], noise, generator) if step.job.heads.few_shot else None
    Predictions(classes, pd.concat(tables, ignore_index=True), {}, facts, few_shot).save(step.place)


CS = [{"c": c} for c in np.geomspace(1e-6, 1e5, 45).tolist()]
DIVERGED = {"learning_rate": 0.5, "value": None}
CHOSEN = {
    "knn": _took({"k": 5}),
    "mlknn": _took({"k": 5}),
    "linear": _took({"learning_rate": 0.01}),
    "linear@paper": _took({"learning_rate": 0.01}, {"learning_rate": 0.05}, DIVERGED),
    "logistic": {**_took(CS[20], *CS[:20], *CS[21:]), "not_converged": [1e5]},
    "shuffled": {"chosen": {"c": 0.01}, "selected_on": "nothing: C is fixed", "seconds": 30.0, "peak_gb": 1.0},
}
# What each head makes of the labels, and how much noise it adds to that of its backbone.
HEADS = {"knn": (2, 1.0), "mlknn": (2, 0.5), "linear": (2, 0), "linear@paper": (2, 0.2)}
HEADS |= {"logistic": (2, 0.1), "shuffled": (0, 0)}
DRAWS = {1: 5, 2: 5, 4: 5, 8: 5, 16: 5, 32: 5, 0: 1}  # of each number of shots; 0: all
RARE = 6  # a class of which draws of one patient a class have none


def _few_shot(labels, noise, generator):
    """Return draws that say more of the labels [n test, classes] the more patients they have."""
    rows, scores = [], []
    for protocol, draws in (("few-shot", DRAWS), ("few-shot@paper", dict.fromkeys(list(DRAWS)[:-1], 1))):
        for shots, draw in ((shots, draw) for shots, n in draws.items() for draw in range(n)):
            patients = min(14 * (shots or 80) - draw, 80)
            note = "no positive of Fibrosis" if shots == 1 else ""
            rows.append((protocol, shots, draw, patients, patients + draw % 3, note))
            luck = generator.normal(0, 0.25) if shots else 0
            signal = 2 * (1 - 0.9 / (shots or 99) ** 0.4) + luck
            scores.append(labels * signal + generator.normal(0, noise, labels.shape))
            if note:
                scores[-1][:, RARE] = np.nan
    return FewShotScores(pd.DataFrame(rows, columns=FewShotScores.COLUMNS), np.array(scores, np.float32))


def _segment(made, step, generator):
    parts, protocol = PARTS[step.dataset], "ceiling" if step.backbone == "ceiling" else "linear-decoder"
    part = np.repeat(list(parts), list(parts.values()))
    shift = SHIFT.get(step.backbone, SHIFT_OF_RANDOM) + 0.2 * generator.normal(size=len(part))
    cases = (
        (patient, patient, where, lungs(patient, shift=by), [])
        for patient, where, by in zip(_patients(step.dataset), part, shift, strict=True)
        if where != "train"
    )
    LabelMaps.write(step.folder, protocol, cases)
    maps = {protocol: LabelMaps.read(step.folder, protocol)}
    protocols = {protocol: _took({"learning_rate": 0.003}) | {f"n_{name}": n for name, n in parts.items()}}
    Predictions(classes_of(step.dataset), None, maps, {"protocols": protocols, "embedding": EMBEDDING}).save(step.place)


def _adapt(made, step, generator):
    """A backbone that was trained is much better than its frozen self, which the head alone is near."""
    mode, n = step.job.mode, {"head": 400, "bitfit": 20_000, "lora": 3_000_000, "end_to_end": 22_000_000}
    took = {**_took({"backbone_rate": 0.001, "head_rate": 0.01, "epochs": 7}), "seconds": 600.0}
    facts = {"protocols": {mode: {**took, "parameters": n[mode], "parameters_of_all": 22_000_000}}}
    facts["embedding"] = {"seconds": 0.0, "peak_gb": 0.0}
    parts, patients = PARTS[step.dataset], _patients(step.dataset)
    part = np.repeat(list(parts), list(parts.values()))
    if step.dataset == "montgomery":
        shift = (1.1 if mode == "head" else 0.8) + 0.2 * generator.normal(size=len(part))
        cases = [(p, p, where, lungs(p, shift=by), []) for p, where, by in zip(patients, part, shift, strict=True)]
        LabelMaps.write(step.folder, mode, [case for case in cases if case[2] != "train"])
        maps = {mode: LabelMaps.read(step.folder, mode)}
        Predictions(classes_of(step.dataset), None, maps, facts).save(step.place)
    else:
        classes = classes_of(step.dataset)
        labels, noise = _labels(len(patients), len(classes)), 1 if mode == "head" else 0.7
        table = pd.DataFrame({"protocol": mode, "part": part, "sample_id": patients, "patient_id": patients})
        for column, name in enumerate(classes):
            table[f"score:{name}"] = labels[:, column] * 2 + generator.normal(0, noise, len(table))
            table[f"target:{name}"] = labels[:, column]
        Predictions(classes, table[table["part"] != "train"], {}, facts).save(step.place)
    seal(step.place, "adapter", {}, [])


MAKERS = {
    "weights": _weights,
    "retrieve": _retrieve,
    "prepare": _prepare,
    "split": _split,
    "embed": _embed,
    "probe": _probe,
    "segment": _segment,
    "adapt": _adapt,
    "external": lambda made, step, generator: running.run(made, step),
    "score": lambda made, step, generator: running.run(made, step),
    "compare": lambda made, step, generator: running.run(made, step),
}
