"""segment: decoders on the frozen dense maps of one dataset and backbone."""

from collections.abc import Iterator
from itertools import chain, groupby
from typing import Any

import numpy as np

from radprobe import console
from radprobe.artifacts import Embeddings, Index, LabelMaps, LeakCertificate, Pixels, Predictions, Split
from radprobe.files import RadprobeError
from radprobe.imaging.resize import to_original
from radprobe.imaging.volumes import Slicing
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
    case_of = index.table["volume_id"].to_numpy()

    def maps_of(*names: str) -> Maps:
        rows = split.rows(index, *names)
        return Maps(embeddings.dense, pixels.masks, rows, case_of[rows], where)

    parts = {"+".join(names): maps_of(*names) for names in (("train",), ("val",), ("test",), ("train", "val"))}
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
    """Yield (case_id, patient_id, part, label map on the original grid, spacing) of every film or volume."""
    for case, places in groupby(range(len(maps)), key=lambda place: maps.cases[place]):
        places = list(places)
        slices = [_label_map(decoder, maps, pixels, place) for place in places]
        sample = index.table.iloc[maps.rows[places[0]]]
        labels = slices[0]
        if len(sample["affine"]):
            affine = np.reshape(sample["affine"], (4, 4))
            labels = Slicing.of(affine, index.facts["slices"]).join(np.stack(slices))
        yield case, sample["patient_id"], part, labels, sample["spacing"]


def _label_map(decoder: Decoder, maps: Maps, pixels: Pixels, place: int) -> np.ndarray:
    """Return the predicted label map of one image at its original size, uint8 [H, W]."""
    probabilities = decoder.logits(maps.features([place]), pixels.images.shape[1:])[0].softmax(0)
    return to_original(probabilities, tuple(int(side) for side in pixels.shapes[maps.rows[place]]))
