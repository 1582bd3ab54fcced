"""What parts of a split must not share (patients, studies, volumes, identical pixels), and what looks nearly the same.

Identities fail, unless an exception with a reason stands in params. Near-duplicates (see `duplicates`) warn.
"""

import hashlib
import mmap
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from radprobe.artifacts import META, Index, LeakCertificate, Split
from radprobe.console import track
from radprobe.files import RadprobeError
from radprobe.splitting import duplicates

STUDY = f"{META}study"
FLAT = 1  # grey values: pictures whose range is no more are blank, equal everywhere, and no leak
BATCH = 64  # pictures in memory at once
STILL = 0.01  # motion (of half the side) below which a copy lies where its original does


def compare(index: Index, split: Split, images: np.ndarray, allowed: Sequence[dict[str, Any]] = ()) -> LeakCertificate:
    """Compare all parts (or folds) with each other; images [n, H, W] are the stored pixels, rows as in the Index.

    `overlaps` has one entry per patient, study, volume or picture that occurs in several parts: kind, what, samples
    (all of them, first those of train), parts (of each sample) and cases. Identical pictures of the same cases are one
    entry, `whole` where the cases have no other (blank ones left aside). `allowed` holds exceptions, each with samples
    (sample or case ids) and a reason: an overlap whose samples one of them names all moves to `excepted`. `near` has
    one entry per pair of cases that look the same; it is searched where nothing overlaps. Patients, studies and volumes
    are those of the Index, whatever the Split says; a `meta:study` is unique in the dataset, not only for its patient.
    Raises RadprobeError where an exception has no reason.
    """
    _check_exceptions(allowed)
    rows = _rows(index, split)
    pictures = scan(images, rows["row"].to_numpy())
    rows["pixels"] = pictures.digests
    overlaps = [overlap for kind in ("patient", "study", "volume") for overlap in _shared(kind, rows)]
    overlaps += _identical(rows[~pictures.blank])
    kept, excepted, unused = _except(overlaps, allowed, rows)
    near = _near(rows, pictures, images)
    certificate = LeakCertificate(_compared(rows, pictures, images), kept, excepted, unused, near)
    tested = set(split.group_names) if split.is_folded else {"test"}  # every fold is test once
    in_test = {
        case for entry in near for case, part in zip(entry["cases"], entry["parts"], strict=True) if part in tested
    }
    leaky = rows["volume"].isin(in_test) & rows["part"].isin(tested)
    certificate.near_test_samples = sorted(rows.loc[leaky, "sample"])
    return certificate


def _rows(index: Index, split: Split) -> pd.DataFrame:
    """Return a row per sample that has a part, train first: part, sample, patient, study, volume, row in the Index."""
    table = index.table.reset_index(names="row").rename(columns={"sample_id": "sample", "patient_id": "patient"})
    table = table.rename(columns={"volume_id": "volume"}).assign(study=table.get(STUDY))
    part = pd.Series(split.groups.to_numpy(), split.table["sample_id"])
    table["part"] = pd.Categorical(table["sample"].map(part), split.group_names, ordered=True)
    table = table.dropna(subset="part").sort_values(["part", "sample"], ignore_index=True)
    return table.astype({"part": str})[["part", "sample", "patient", "study", "volume", "row"]]


def _compared(rows: pd.DataFrame, pictures: "Pictures", images: np.ndarray) -> dict[str, Any]:
    return {
        "samples": len(rows),
        "patients": int(rows["patient"].nunique()),
        "studies": int(rows["study"].nunique()),  # 0 where the set names none
        "volumes": int(rows["volume"].nunique()),
        "pictures": int(rows["pixels"].nunique()),
        "repeated_within_parts": int(rows[~pictures.blank].duplicated(["part", "pixels"]).sum()),
        "blank": int(pictures.blank.sum()),
        "pixels": f"sha256 of the stored {images.shape[1]} x {images.shape[2]} pixels",
        "too_plain_for_near": int((~pictures.structured & ~pictures.blank).sum()),
        "near": f"registered correlation of at least {duplicates.LEVELS[max(duplicates.LEVELS)]}",
    }


# --- pixels -----------------------------------------------------------------------------------------------------------


@dataclass
class Pictures:
    """What is kept of every picture: digest of its pixels, is it blank, its thumbnail, does that show much."""

    digests: list[str]
    blank: np.ndarray
    thumbs: torch.Tensor
    structured: np.ndarray


def scan(images: np.ndarray, rows: np.ndarray) -> Pictures:
    """Read the pictures `rows` of images [n, H, W] once, a batch at a time; about 4 KB stay in memory for each."""
    digests = np.empty(len(rows), object)
    blank, structured = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    thumbs = torch.zeros((len(rows), duplicates.THUMB, duplicates.THUMB), dtype=torch.int8)
    order = np.argsort(rows, kind="stable")  # as they lie on disk
    starts = range(0, len(rows), BATCH)
    for start in track(starts, "compare pictures (batches)", len(starts)):
        places = order[start : start + BATCH]
        batch = images[rows[places]]
        digests[places] = [hashlib.sha256(picture).hexdigest() for picture in batch]
        blank[places] = batch.max((1, 2)).astype(int) - batch.min((1, 2)) <= FLAT
        thumbs[places] = small = duplicates.thumbnails(batch)
        structured[places] = duplicates.structured(small).numpy()
        _forget(images)
    return Pictures(list(digests), blank, thumbs, structured & ~blank)


def _forget(images: np.ndarray) -> None:
    """Give the pages of a mapped file back: they would count as memory of this process until it is short of it."""
    if isinstance(images, np.memmap) and images.mode == "r" and isinstance(images.base, mmap.mmap):
        images.base.madvise(mmap.MADV_DONTNEED)


# --- identities -------------------------------------------------------------------------------------------------------


def _shared(kind: str, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the patients, studies or volumes that occur in several parts."""
    known = rows.dropna(subset=kind)
    spread = known.groupby(kind, sort=True)["part"].transform("nunique") > 1
    return [_overlap(kind, str(what), group) for what, group in known[spread].groupby(kind)]


def _overlap(kind: str, what: str, group: pd.DataFrame) -> dict[str, Any]:
    cases = list(dict.fromkeys(group["volume"]))
    return {"kind": kind, "what": what, "samples": list(group["sample"]), "parts": list(group["part"]), "cases": cases}


def _identical(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the identical pictures in several parts, one entry for all that the same cases share."""
    spread = rows.groupby("pixels")["part"].transform("nunique") > 1
    together: dict[tuple[str, ...], list[pd.DataFrame]] = defaultdict(list)
    for _, group in rows[spread].groupby("pixels", sort=False):
        together[tuple(sorted(set(group["volume"])))].append(group)
    size = rows.groupby("volume").size()
    entries = []
    for cases, groups in together.items():
        entry = _overlap("pixels", groups[0]["pixels"].iloc[0], pd.concat(groups).sort_index())
        entries.append(
            {**entry, "pictures": len(groups), "whole": len(entry["samples"]) == int(size[list(cases)].sum())}
        )
    return entries


# --- exceptions -------------------------------------------------------------------------------------------------------


def _check_exceptions(allowed: Sequence[dict[str, Any]]) -> None:
    for exception in allowed:
        if not exception["reason"].strip():
            where = f"params: leaks_allowed of {', '.join(exception['samples'])}"
            raise RadprobeError(where, "has no reason", "say why this overlap is harmless: the report repeats it")


def _except(
    overlaps: list[dict[str, Any]], allowed: Sequence[dict[str, Any]], rows: pd.DataFrame
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the overlaps that stay, those that an exception names (with its reason), and the exceptions left over."""
    case = dict(zip(rows["sample"], rows["volume"], strict=True))
    kept, excepted, used = [], [], set()
    for overlap in overlaps:
        for number, exception in enumerate(allowed):
            named = set(exception["samples"])
            if all(sample in named or case[sample] in named for sample in overlap["samples"]):
                excepted.append({**overlap, "reason": exception["reason"]})
                used.add(number)
                break
        else:
            kept.append(overlap)
    return kept, excepted, [dict(exception) for number, exception in enumerate(allowed) if number not in used]


# --- near-duplicates --------------------------------------------------------------------------------------------------


def _near(rows: pd.DataFrame, pictures: Pictures, images: np.ndarray) -> list[dict[str, Any]]:
    """Return one entry per pair of cases in different parts that look the same, most alike first.

    Not compared: pictures of one patient or case, and those with identical pixels, which are overlaps.
    """
    pairs = duplicates.candidates(pictures.thumbs, rows["part"].to_numpy(), pictures.structured)
    a, b = pairs.a.numpy(), pairs.b.numpy()
    other = np.ones(len(pairs), bool)
    for column in ("patient", "volume", "pixels"):
        values = rows[column].to_numpy()
        other &= values[a] != values[b]
    pairs = duplicates.confirmed(pairs[torch.from_numpy(other)], pictures.thumbs, images, rows["row"].to_numpy())
    found = pd.DataFrame({"a": pairs.a, "b": pairs.b, "correlation": pairs.correlation})
    found["change"] = [_change(*pair) for pair in zip(pairs.mirrored.tolist(), pairs.motion.tolist(), strict=True)]
    found["cases"] = [tuple(rows["volume"].iloc[sorted(pair)]) for pair in zip(found["a"], found["b"], strict=True)]
    found = found.sort_values("correlation", ascending=False, kind="stable")
    return [_entry(cases, group, rows) for cases, group in found.groupby("cases", sort=False)]


def _entry(cases: tuple[str, str], group: pd.DataFrame, rows: pd.DataFrame) -> dict[str, Any]:
    best = group.iloc[0]
    pair = rows.iloc[sorted([best["a"], best["b"]])]  # rows are sorted by part
    return {
        "cases": list(cases),
        "samples": list(pair["sample"]),
        "parts": list(pair["part"]),
        "correlation": round(float(best["correlation"]), 4),
        "pairs": int(group["b"].nunique()),  # pictures of one case with a match in the other
        "change": best["change"],
    }


def _change(mirrored: bool, motion: Iterable[float]) -> str:
    """Guess what was done to a copy."""
    if mirrored:
        return "mirrored"
    if max(abs(value) for value in motion) > STILL:
        return "cropped, moved or stretched"
    return "re-encoded, resized or other brightness"
