"""The search for near-duplicates: its speed at the size of NIH ChestX-ray14, and what it finds among real images.

    python benchmarks/near_duplicates.py [speed [pictures]]
    python benchmarks/near_duplicates.py accuracy

`speed` makes pictures of 128 x 128 by mixing, moving and shading 500 films (of NIH where RADPROBE_REAL_DATA names the
raw folders, else generated ones), in the parts of the official list, with 200 copies planted, and runs the whole search
with 2 threads. They are more alike than real films, of which no two share half their pixels. A part of it is done by
brute force too: the best correlation of 64 x 64 thumbnails over shifts of up to 2 pixels, for all pairs.

`accuracy` plants copies of each kind among the real images (RADPROBE_REAL_DATA) and counts what the gate says.
"""

import io
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.stats import binomtest
from torch.nn.functional import affine_grid, grid_sample, interpolate

from radprobe.artifacts import Index, Split
from radprobe.imaging import reading, resize
from radprobe.phantoms import anatomy
from radprobe.splitting import duplicates, leaks

PARTS = {"train": 76_522, "val": 10_002, "test": 25_596}
SIDE, FILMS, COPIES, THREADS, BATCH = 128, 500, 200, 2, 512
SUBSET = {"train": 6_000, "test": 2_000}
STORED, PLANTED, SLICES = 256, 150, 1_500

# --- copies -----------------------------------------------------------------------------------------------------------


def grey(image: np.ndarray) -> np.ndarray:
    """The picture in 8 bits, as an export makes it: int16 between its 0.5th and 99.5th percentile."""
    if image.dtype == np.uint8:
        return image
    low, high = np.percentile(image, [0.5, 99.5])
    return ((image.astype(np.float32) - low) / max(high - low, 1) * 255).clip(0, 255).astype(np.uint8)


def jpeg(quality: int) -> Callable:
    def copy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(grey(image)).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer))

    return copy


def halved(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    side = image.shape[0]
    small = Image.fromarray(grey(image)).resize((side // 2, side // 2), Image.Resampling.BILINEAR)
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))


def gamma(exponent: float) -> Callable:
    return lambda image, rng: (255 * (grey(image) / 255) ** exponent).astype(np.uint8)


def linear(gain: float, offset: float) -> Callable:
    return lambda image, rng: (grey(image) * float(gain) + offset).clip(0, 255).astype(np.uint8)


def cropped(share: float) -> Callable:
    """Cut up to `share` of the side off each edge and resize what is left."""

    def copy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        side = image.shape[0]
        left, top, right, bottom = rng.uniform(0, share, 4) * side
        box = (left, top, side - right, side - bottom)
        return np.asarray(Image.fromarray(grey(image)).resize((side, side), Image.Resampling.BICUBIC, box))

    return copy


def shifted(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    most = round(0.02 * image.shape[0])
    return np.roll(grey(image), rng.integers(-most, most + 1, 2), (0, 1))


def several(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return jpeg(60)(cropped(0.015)(gamma(1.2)(image, rng), rng), rng)


KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "JPEG, quality 90": jpeg(90),
    "JPEG, quality 50": jpeg(50),
    "JPEG, quality 30": jpeg(30),
    "half the size and back": halved,
    "gamma 0.7": gamma(0.7),
    "gamma 1.4": gamma(1.4),
    "0.7 x grey + 30": linear(0.7, 30),
    "1.3 x grey - 20": linear(1.3, -20),
    "one grey level lighter": linear(1, 1),
    "cropped by up to 1 %": cropped(0.01),
    "cropped by up to 2 %": cropped(0.02),
    "cropped by up to 4 %": cropped(0.04),
    "shifted by up to 2 %": shifted,
    "gamma 1.2, cropped by 1.5 %, JPEG 60": several,
    "mirrored, JPEG 60": lambda image, rng: jpeg(60)(image[:, ::-1], rng),
    "16 grey levels": lambda image, rng: grey(image) >> 4 << 4,
}

# --- accuracy ---------------------------------------------------------------------------------------------------------


def real_sets() -> Iterator[tuple[str, np.ndarray, list[str]]]:
    """Yield name, pictures [n, 256, 256], none of them twice, and the patient of each."""
    root = Path(os.environ["RADPROBE_REAL_DATA"])
    for name, patient in (("nih_chestxray14", slice(8)), ("montgomery", slice(None))):
        paths = sorted(path for path in (root / name).rglob("*.png") if "Mask" not in str(path))
        images = np.stack([stored(path) for path in paths])
        first = np.sort(np.unique(images, axis=0, return_index=True)[1])
        yield name, images[first], [paths[row].stem[patient] for row in first]
    volumes = sorted((root / "msd_hippocampus").rglob("imagesTr/hippocampus_*.nii.gz"))
    slices = [(path.name, slice_) for path in volumes for slice_ in axial(path)]
    chosen = np.linspace(0, len(slices) - 1, SLICES).round().astype(int)
    images = np.stack([resize.resize_image(slices[row][1], STORED) for row in chosen])
    yield "msd_hippocampus", images, [slices[row][0] for row in chosen]


def stored(path: Path) -> np.ndarray:
    return resize.resize_image(reading.read_grey(path), STORED)


def axial(path: Path) -> Iterator[np.ndarray]:
    import nibabel

    volume = np.asarray(nibabel.load(path).dataobj, np.float32)
    volume = (volume * (4000 / np.percentile(volume, 99.9))).clip(0, 30_000).astype(np.int16)  # some are in 0 to 1e6
    return iter(np.moveaxis(volume, 2, 0))


def films(names: list[str], patients: list[str], parts: list[str]) -> tuple[Index, Split]:
    table = pd.DataFrame({"sample_id": names, "patient_id": patients, "volume_id": names, "slice": 0, "image": names})
    for column in ("masks", "spacing", "affine"):
        table[column] = [[] for _ in names]
    return Index(table), Split(table[["sample_id", "patient_id"]].assign(part=parts), [])


def found(images: np.ndarray, patients: list[str], kind: str, seed: int = 0) -> tuple[int, int, int, int]:
    """Plant copies of one kind; return planted pairs, those found, other pairs reported, and pairs compared."""
    rng = np.random.default_rng(seed)
    people = sorted(set(patients))
    part_of = dict(zip(people, rng.choice(["train", "val", "test"], len(people), p=[0.6, 0.15, 0.25]), strict=True))
    parts = [part_of[patient] for patient in patients]
    source = np.sort(rng.permutation(np.flatnonzero(np.array(parts) == "train"))[:PLANTED])
    dtype = images.dtype
    copies = np.stack([KINDS[kind](images[row], rng) for row in source]).astype(dtype)
    names = [f"a{row:05d}" for row in range(len(images))] + [f"copy of a{row:05d}" for row in source]
    everyone = [*patients, *(f"copy {row}" for row in source)]
    index, split = films(names, everyone, [*parts, *["test"] * len(source)])
    certificate = leaks.compare(index, split, np.concatenate([images, copies]))
    reported = {tuple(entry["samples"]) for entry in [*certificate.near, *certificate.overlaps]}
    planted = {(f"a{row:05d}", f"copy of a{row:05d}") for row in source}
    sizes = split.table["part"].value_counts()
    compared = sum(sizes[a] * sizes[b] for a, b in (("train", "val"), ("train", "test"), ("val", "test")))
    return len(planted), len(planted & reported), len(reported - planted), int(compared)


def accuracy() -> None:
    sets = list(real_sets())
    for name, images, patients in sets:
        print(f"{name}: {len(images)} pictures of {len(set(patients))} patients", flush=True)
    for kind in KINDS:
        each = np.array([found(images, patients, kind) for _, images, patients in sets])
        planted, hits, other, compared = each.sum(0)
        low, high = binomtest(int(hits), int(planted)).proportion_ci(method="wilson")
        print(f"{kind}: {' '.join(f'{h}/{p}' for p, h, _, _ in each)}", end="; ")
        print(f"recall {hits / planted:.3f} ({low:.3f} to {high:.3f}); {other} other of {compared:,} pairs", flush=True)


# --- speed ------------------------------------------------------------------------------------------------------------


def basis() -> torch.Tensor:
    """Return FILMS pictures float [n, 1, 128, 128]."""
    if raw := os.environ.get("RADPROBE_REAL_DATA"):
        paths = sorted((Path(raw) / "nih_chestxray14").rglob("*.png"))[:FILMS]
        images = [resize.resize_image(reading.read_grey(path), SIDE) for path in paths]
    else:
        rngs = [np.random.default_rng([0, number]) for number in range(FILMS)]
        images = [anatomy.film(anatomy.person(rng), [], (SIDE, SIDE), rng)[0] for rng in rngs]
    return torch.from_numpy(np.stack(images)).float()[:, None]


def pictures(path: Path, n: int, of: np.ndarray, to: np.ndarray) -> None:
    """Write n pictures: two films mixed, one of them moved, under a smooth shade; `to` are copies of `of`."""
    films, draw = basis(), torch.Generator().manual_seed(0)
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (n, SIDE, SIDE))
    for start in range(0, n, BATCH):
        k = min(BATCH, n - start)
        one, two = (films[torch.randint(len(films), (k,), generator=draw)] for _ in range(2))
        motion = 0.08 * torch.randn((k, 2, 3), generator=draw) + torch.eye(3)[:2]
        moved = grid_sample(one, affine_grid(motion, one.shape, align_corners=False), align_corners=False)
        coarse, fine = (torch.randn((k, 1, side, side), generator=draw) for side in (6, 24))
        shade = 20 * interpolate(coarse, SIDE, mode="bilinear") + 10 * interpolate(fine, SIDE, mode="bilinear")
        images[start : start + k] = (0.6 * moved + 0.4 * two + shade).clamp(0, 255).to(torch.uint8)[:, 0].numpy()
    rng = np.random.default_rng(0)
    for a, b in zip(of, to, strict=True):
        images[b] = several(images[a], rng)
    images.flush()


def brute_force(thumbs: torch.Tensor, part: np.ndarray) -> int:
    """Count the pairs whose best correlation over 25 shifts is at least that of the search's level of 64 pixels."""
    side, reach = duplicates.THUMB, 2
    inner = side - 2 * reach

    def unit(top: int, left: int, which: str) -> torch.Tensor:
        chosen = thumbs[torch.from_numpy(part == which)][:, top : top + inner, left : left + inner].float().flatten(1)
        chosen = chosen - chosen.mean(1, keepdim=True)
        return chosen / chosen.norm(dim=1, keepdim=True)

    train, best = unit(reach, reach, "train"), None
    for top in range(2 * reach + 1):
        for left in range(2 * reach + 1):
            product = unit(top, left, "test") @ train.T
            best = product if best is None else torch.maximum(best, product)
    return int((best >= duplicates.LEVELS[side]).sum())


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def timed(function: Callable, *arguments) -> tuple:
    begun = time.perf_counter()
    return function(*arguments), time.perf_counter() - begun


def speed(n: str = str(sum(PARTS.values()))) -> None:
    torch.set_num_threads(THREADS)
    total, rows = int(n), np.arange(int(n))
    part = np.random.default_rng(0).permutation(np.repeat(list(PARTS), list(PARTS.values())))[:total]
    to = np.flatnonzero(part == "test")[:COPIES]
    of = np.flatnonzero(part == "train")[: len(to)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        with ProcessPoolExecutor(1, get_context("spawn")) as other:  # so that its memory is not counted here
            other.submit(pictures, path, total, of, to).result()
        images, before = np.load(path, mmap_mode="r"), peak_gb()
        scanned, scan_s = timed(leaks.scan, images, rows)
        alike, alike_s = timed(duplicates.candidates, scanned.thumbs, part, scanned.structured)
        n_alike = len(alike)
        near, near_s = timed(duplicates.confirmed, alike, scanned.thumbs, images, rows)
        hits = set(zip(near.a.tolist(), near.b.tolist(), strict=True)) & set(zip(of.tolist(), to.tolist(), strict=True))
        print(f"{total:,} pictures, {THREADS} threads: {scan_s:.1f} s to read, hash and shrink them")
        print(f"{n_alike:,} candidates in {alike_s:.1f} s, {len(near)} confirmed in {near_s:.1f} s", end="; ")
        print(f"{len(hits)} of {len(to)} planted copies found; search {alike_s + near_s:.1f} s")
        print(f"peak memory {peak_gb():.2f} GB, of which {before:.2f} GB for the interpreter and its libraries")
        chosen = np.sort(np.concatenate([np.flatnonzero(part == name)[:size] for name, size in SUBSET.items()]))
        few, few_part = scanned.thumbs[torch.from_numpy(chosen)], part[chosen]

        def search() -> duplicates.Pairs:
            found = duplicates.candidates(few, few_part, scanned.structured[chosen])
            return duplicates.confirmed(found, few, images, chosen)

        (_, ours), (_, brute) = timed(search), timed(brute_force, few, few_part)
        sizes = " x ".join(f"{np.sum(few_part == name):,}" for name in SUBSET)
        print(f"{sizes} pictures: search {ours:.2f} s (mirrored copies too), brute force {brute:.2f} s (without)")
        print(f"ratio near_duplicates_vs_brute_force {brute / ours:.2f}")
        print(f"ratio near_duplicates_60s_budget {(alike_s + near_s) / 60:.3f}")


if __name__ == "__main__":
    {"speed": speed, "accuracy": accuracy}[sys.argv[1] if len(sys.argv) > 1 else "speed"](*sys.argv[2:])
