"""segment: decoders on the frozen dense maps of one dataset and backbone."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np

from radprobe import console
from radprobe.artifacts import Embeddings, Index, LabelMaps, LeakCertificate, Pixels, Predictions, Split
from radprobe.files import RadprobeError
from radprobe.imaging.resize import to_original
from radprobe.learning import decoders, selection
from radprobe.learning.decoders import Decoder, Maps
from radprobe.learning.device import device, measured
from radprobe.study import Step, Study

LINEAR = "linear-decoder"


def run(study: Study, step: Step) -> None:
    """Read Index, Pixels, Split, its LeakCertificate and dense Embeddings; write Predictions of the linear decoder."""
    knobs = step.knobs["linear"]
    if knobs is None:
        raise RadprobeError("params: segment", "every decoder is null", "leave linear in")
    source = step.need("prepare").folder
    LeakCertificate.load(step.need("split").folder)
    index, pixels, split = Index.load(source), Pixels.load(source), Split.load(step.need("split").folder)
    classes = len(split.classes) + 1
    _check(index, pixels, split, classes)
    embeddings, where = Embeddings.load(step.need("embed").folder, dense=True), device(study.params.device)
    parts = {
        "+".join(names): Maps(embeddings.dense, pixels.masks, split.rows(index, *names), where)
        for names in (("train",), ("val",), ("test",), ("train", "val"))
    }
    took: dict[str, Any] = {}
    with measured(took, where):
        how = (knobs["epochs"], knobs["batch_size"], step.knobs["seed"])
        candidates = decoders.fit(parts["train"], classes, knobs["learning_rates"], *how)
        values = [decoders.mean_dsc(decoder, parts["val"], classes) for decoder in candidates]
        best = selection.best(values, "learning rates of the decoder")
        chosen = candidates[best]
        (refitted,) = decoders.fit(parts["train+val"], classes, [chosen.learning_rate], *how)
    cases = chain(
        _cases(chosen, parts["val"], index, pixels, "val"),
        _cases(refitted, parts["test"], index, pixels, "test"),
    )
    LabelMaps.write(step.folder, LINEAR, cases)
    facts = {
        "chosen": {"learning_rate": chosen.learning_rate},
        "selected_on": "val",
        "selected_by": "mean DSC per case over foreground classes, at the stored size",
        "candidates": [
            {"learning_rate": decoder.learning_rate, "value": None if np.isnan(value) else value}
            for decoder, value in zip(candidates, values, strict=True)
        ],
        **{f"n_{part}": len(parts[part]) for part in ("train", "val", "test")},
        **took,
    }
    maps = {LINEAR: LabelMaps.read(step.folder, LINEAR)}
    facts = {"protocols": {LINEAR: facts}, "embedding": embeddings.costs}
    Predictions(split.classes, maps=maps, facts=facts).save(step.folder, step.spec)
    console.say(f"{step.dataset} {step.backbone} {LINEAR}: val DSC {values[best]:.4f} at {chosen.learning_rate:g}")


def _check(index: Index, pixels: Pixels, split: Split, classes: int) -> None:
    for part in ("train", "val", "test"):
        if not len(split.rows(index, part)):
            reason = f"its part {part} has no sample here"
            raise RadprobeError("the split", reason, "choose another split, or get the whole download")
    if pixels.masks is None:
        raise RadprobeError("pixels", "have no masks, so no decoder can be trained", "run prepare again")
    if (most := int(pixels.masks.max())) >= classes:
        raise RadprobeError("masks", f"have label {most}, but the split has {classes - 1} classes", "mend the loader")


def _cases(decoder: Decoder, maps: Maps, index: Index, pixels: Pixels, part: str) -> Iterator[tuple]:
    """Yield (case_id, patient_id, part, label map on the original grid, spacing)."""
    for case, row in enumerate(maps.rows):
        probabilities = decoder.logits(maps.features([case]), pixels.images.shape[1:])[0].softmax(0)
        labels = to_original(probabilities.cpu().numpy(), tuple(int(side) for side in pixels.shapes[row]))
        sample = index.table.iloc[row]
        yield sample["volume_id"], sample["patient_id"], part, labels.astype(np.uint8), sample["spacing"]
