"""What prepare does to a file (decode, resize, pack) against the bare library calls that do the same.

    python benchmarks/prepare_vs_library.py [films] [volumes] [threads]

Films are the generated download of NIH ChestX-ray14 enlarged to the official 1,024 px, volumes are CT-like
.nii.gz of 512 x 512 x 60 voxels. Bare: Pillow for films, nibabel fed by isal for volumes, with the same filter, stored
size and threads. Both take turns in one process, warm, so that they meet the same other load. The second ratio is that
of reading a .nii.gz alone, against nibabel with Python's own gzip.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
from isal import igzip
from PIL import Image

from radprobe import catalog, datasets, files, phantoms
from radprobe.datasets import decoding, nih_chestxray14, raw
from radprobe.datasets.decoding import Picture
from radprobe.imaging import reading

TURNS, SIDE, OFFICIAL, SHAPE = 5, 256, 1024, (512, 512, 60)
BICUBIC = Image.Resampling.BICUBIC
ENTRIES = catalog.datasets()


def films(folder: Path, n: int) -> list[Picture]:
    entry = ENTRIES["nih_chestxray14"]
    phantoms.generate(folder, entry, n, 0)
    layout = datasets.locate(entry, folder)
    found = decoding.pictures(nih_chestxray14.samples(layout, entry, False), layout.root)[:n]
    for picture in found:
        Image.open(picture.image).resize((OFFICIAL, OFFICIAL), BICUBIC).save(picture.image)
    return found


def volumes(folder: Path, n: int) -> list[Picture]:
    """CT-like: 12 bits of smooth shapes under noise, so that gzip halves them about as it does real scans."""
    entry, rows = ENTRIES["amos"], []
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, side, dtype=np.float32) for side in SHAPE), indexing="ij")
    body = 600 * np.sin(5 * x) * np.cos(4 * y + z) - 900 * (x**2 + y**2 > 0.8)
    for k in range(n):
        noise = np.random.default_rng(k).normal(0, 8, SHAPE)
        path = folder / f"{k}.nii.gz"
        nibabel.save(nibabel.Nifti1Image((body + noise).astype(np.int16), np.diag([-0.8, -0.8, 5, 1])), path)
        rows += raw.slices(folder, path, entry.slices, volume_id=str(k), patient_id=str(k), masks=[])
    return decoding.pictures(raw.index(entry, rows, {}), folder)


def ours(pictures: list[Picture], entry: catalog.Dataset, dtype: type, target: Path, threads: int) -> None:
    decode = partial(decoding.decode, entry=entry.decoding, side=SIDE)
    with decoding.RowWriter(target, (SIDE, SIDE), dtype) as writer:
        for decoded in files.stream_in_threads(decode, pictures, threads):
            for image in decoded.images:
                writer.append(image)


def bare(pictures: list[Picture], read: Callable[[Path], list[np.ndarray]], target: Path, threads: int) -> None:
    with target.open("wb") as handle:
        for images in files.stream_in_threads(read, [picture.image for picture in pictures], threads):
            for image in images:
                handle.write(image.tobytes())


def bare_film(path: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path).convert("L").resize((SIDE, SIDE), BICUBIC))]


def bare_volume(path: Path) -> list[np.ndarray]:
    with igzip.open(path) as stream:
        image = nibabel.as_closest_canonical(nibabel.Nifti1Image.from_bytes(stream.read()))
    values = np.asarray(image.dataobj)
    slices = (Image.fromarray(np.ascontiguousarray(values[:, :, k], np.float32)) for k in range(values.shape[2]))
    return [np.rint(one.resize((SIDE, SIDE), BICUBIC)).astype(np.int16) for one in slices]


def seconds(call: Callable[[], None]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def ratio(name: str, library: Callable[[], None], own: Callable[[], None]) -> float:
    """The median over turns of library time / own time: own throughput as a share of the library's."""
    library(), own()  # warm
    times = np.array([(seconds(library), seconds(own)) for _ in range(TURNS)])
    found = float(np.median(times[:, 0] / times[:, 1]))
    print(f"{name}: library {np.median(times[:, 0]):.2f} s, radprobe {np.median(times[:, 1]):.2f} s, {found:.3f}")
    return found


def main(n_films: str = "60", n_volumes: str = "2", threads: str = "1") -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, n = Path(name), int(threads)
        target, ratios = folder / "packed.npy", []
        pictures = films(folder / "nih", int(n_films))
        entry = ENTRIES["nih_chestxray14"]
        library = partial(bare, pictures, bare_film, target, n)
        ratios.append(ratio("films", library, partial(ours, pictures, entry, np.uint8, target, n)))
        (folder / "ct").mkdir()
        pictures = volumes(folder / "ct", int(n_volumes))
        library = partial(bare, pictures, bare_volume, target, n)
        ratios.append(ratio("volumes", library, partial(ours, pictures, ENTRIES["amos"], np.int16, target, n)))
        path = pictures[0].image
        plain = partial(lambda: np.asarray(nibabel.load(path).dataobj))
        reads = ratio(".nii.gz alone", plain, lambda: reading.read_volume(path))
    print(f"ratio prepare_vs_library {min(ratios):.3f}")
    print(f"ratio nii_gz_isal_vs_nibabel {reads:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
