"""One sound file of every format, small, as bytes; and how they are harmed."""

import gzip
import io
import tarfile
import tempfile
import zipfile
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas as pd
import yaml
from hypothesis import strategies as st
from imaging.dicom_files import write as write_dicom
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 4096, (12, 20)).astype(np.int16)
GREY = (PIXELS // 16).astype(np.uint8)


def _saved(write, name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path)
        return path.read_bytes()


def _picture(form: str, **how) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, form, **how)
    return buffer.getvalue()


def _nifti(name: str) -> bytes:
    image = nibabel.Nifti1Image(PIXELS[..., None] // 16, np.diag([2.0, 3, 4, 1]))
    return _saved(lambda path: nibabel.save(image, path), name)


def _mat(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        file["cjdata/image"] = PIXELS


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def npy(array, **how) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **how)
    return buffer.getvalue()


def index_table(n: int = 3) -> pd.DataFrame:
    names = [f"film{k}" for k in range(n)]
    table = pd.DataFrame({"sample_id": names, "patient_id": names, "volume_id": names, "slice": 0, "image": names})
    table["masks"], table["spacing"], table["affine"] = ([[] for _ in names] for _ in range(3))
    return table.assign(**{"label:ill": [0.0, 1.0, -1.0][:n]})


def parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def state_dict(change=lambda state: None) -> dict:
    from radprobe import catalog
    from radprobe.models import architectures

    state = architectures.build(catalog.backbones()["test_vit"]).model.state_dict()
    change(state)
    return state


def safetensors(change=lambda state: None) -> bytes:
    from safetensors.torch import save

    return save(state_dict(change))


def pickled(content) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _params() -> bytes:
    chosen = {"montgomery": {"phantom": {"patients": 9}}}
    return yaml.safe_dump({"study": "s", "datasets": chosen, "backbones": ["test_vit"], "hub": False}).encode()


def _adapter() -> bytes:
    import json

    import torch
    from safetensors.torch import save

    from radprobe.entries import ADAPTER_FACTS

    return save({"a": torch.ones(3)}, {"radprobe": json.dumps(dict.fromkeys(ADAPTER_FACTS, "x"))})


CSV = b"path,patient,ill,age\n" + b"".join(b"%d.png,p%d,%d,0%d0Y\n" % (k, k, k % 2, k) for k in range(1, 5))
MEMBERS = {"Task/a.nii": bytes(range(256)) * 12, "Task/b/c.txt": b"text" * 50, "Task/d": b""}

# name of the file -> its bytes, the readers that it goes through
SOUND = {
    "film.png": (lambda: _picture("PNG"), ("image", "mask")),
    "film.jpg": (lambda: _picture("JPEG"), ("image", "mask")),
    "film.tif": (lambda: _picture("TIFF"), ("image", "mask")),
    "packed.tif": (lambda: _picture("TIFF", compression="tiff_lzw"), ("image", "mask")),
    "film.bmp": (lambda: _picture("BMP"), ("image",)),
    "film.dcm": (lambda: _saved(lambda path: write_dicom(path, PIXELS, RescaleIntercept=-9), "x.dcm"), ("image",)),
    "film.mat": (lambda: _saved(_mat, "x.mat"), ("image",)),
    "volume.nii": (lambda: _nifti("x.nii"), ("volume", "mask")),
    "volume.nii.gz": (lambda: _nifti("x.nii.gz"), ("volume", "mask")),
    "labels.csv": (lambda: CSV, ("own table", "published table")),
    "params.yaml": (_params, ("params",)),
    "archive.zip": (lambda: zipped(MEMBERS), ("archive",)),
    "archive.tar": (lambda: tarred(MEMBERS), ("archive",)),
    "archive.tar.gz": (lambda: gzip.compress(tarred(MEMBERS)), ("archive",)),
    "weights.safetensors": (safetensors, ("weights",)),
    "weights.pt": (lambda: pickled(state_dict()), ("weights",)),
    "adapter.safetensors": (_adapter, ("adapter",)),
    "images.npy": (lambda: npy(np.zeros((3, 4, 4), np.uint8)), ("array",)),
    "index.parquet": (lambda: parquet(index_table()), ("table",)),
}


# --- harm -------------------------------------------------------------------------------------------------------------

NASTY = [
    *(
        b"\x00" * 4,
        b"\xff" * 4,
        b"\xff" * 8,
        b"\xff\xff\xff\x7f",
        b"\x7f\xff\xff\xff",
        b"\x80\x00\x00\x00",
        b"\x01\x00",
    ),
    *(np.float32("nan").tobytes(), np.float32("inf").tobytes(), np.float64("nan").tobytes(), np.float32(-1).tobytes()),
    *(b"-1", b"1e999", b"nan", b'"', b"\x00", b"{" * 40, b"\r\n", "Ж".encode(), b"<script>", b"../../x"),
]
HEADS = [
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"II*\x00",
    b"BM",
    b"PK\x03\x04",
    b"\x1f\x8b\x08\x00",
    b"\x93NUMPY\x01\x00",
]
HEADS += [b"PAR1", b"\x89HDF\r\n\x1a\n", b"\x80\x04", b"%PDF-1.7", b"<html>", b"MATLAB 5.0 MAT-file"]


@st.composite
def harms(draw, content: bytes) -> bytes:
    """Return `content` harmed in one to three ways, in its head more often than elsewhere."""
    for _ in range(draw(st.integers(1, 3))):
        n = len(content)
        at = draw(st.one_of(st.integers(0, max(0, min(n, 400) - 1)), st.integers(0, max(0, n - 1))))
        how = draw(
            st.sampled_from(["cut", "flip", "write", "write", "drop", "twice", "put in", "head", "packed", "end"])
        )
        more = draw(st.integers(1, 64))
        if how == "cut":
            content = content[:at]
        elif how == "flip" and n:
            content = content[:at] + bytes([content[at] ^ 1 << draw(st.integers(0, 7))]) + content[at + 1 :]
        elif how == "write":
            value = draw(st.sampled_from(NASTY))
            content = content[:at] + value + content[at + len(value) :]
        elif how == "drop":
            content = content[:at] + content[at + more :]
        elif how == "twice":
            content = content[: at + more] + content[at:]
        elif how == "put in":
            content = content[:at] + draw(st.sampled_from(NASTY)) * more + content[at:]
        elif how == "head":
            value = draw(st.sampled_from(HEADS))
            content = value + content[len(value) :]
        elif how == "packed":
            content = gzip.compress(content)
        elif how == "end":
            content = content[: -more or None]
    return content
