"""How files from outside are read: each reader takes a path and a scratch folder, and returns what it read."""

import json
from pathlib import Path

import numpy as np

from radprobe import catalog, datasets
from radprobe.artifacts import Index, Pixels
from radprobe.artifacts.tables import write_array
from radprobe.datasets import raw
from radprobe.downloads import archives
from radprobe.entries import read_adapter
from radprobe.imaging import reading
from radprobe.manifests import Manifest, Place, seal
from radprobe.models import weights
from radprobe.study import Study

TINY = catalog.backbones()["test_vit"].model_copy(update={"random": False, "local": ["tiny.safetensors"]})
OWN = {"task": "binary", "classes": ["ill"]}


def _image(path: Path, scratch: Path):
    return _agreeing(reading.probe(path), reading.read_grey(path))


def _volume(path: Path, scratch: Path):
    _agreeing(reading.probe(path), reading.read_volume(path, relative=True).values, dtype=False)
    return _agreeing(reading.probe(path), reading.read_volume(path).values)


def _mask(path: Path, scratch: Path):
    return _agreeing(reading.probe(path), reading.read_labels(path), dtype=False)


def _agreeing(header, values: np.ndarray, dtype: bool = True):
    assert header.shape == values.shape, f"the header says {header.shape}, the values are {values.shape}"
    assert not dtype or header.dtype == values.dtype, f"the header says {header.dtype}, the values are {values.dtype}"
    assert values.dtype in (np.uint8, np.int16)
    return values.shape, values.dtype, int(values.sum(dtype=np.int64))


def _own_table(path: Path, scratch: Path):
    study = Study(
        {"study": "own", "datasets": {"mine": {"folder": {**OWN, "table": path.name}}}, "backbones": ["test_vit"]}
    )
    entry = study.dataset("mine")
    index = datasets.loader(entry).samples(datasets.locate(entry, path.parent), entry, False)
    meta = [name for name in index.table if name.startswith("meta:age")]
    assert not meta or np.isfinite(index.table[meta[0]].dropna().astype(float)).all(), "an age that is no number"
    return index.labels().tolist(), index.table["sample_id"].tolist()


def _published_table(path: Path, scratch: Path):
    return raw.read_table(path).shape


def _params(path: Path, scratch: Path):
    study = Study(path)
    return len(study.steps)


def _archive(path: Path, scratch: Path):
    return archives.extract(path, scratch / "out")


def _weights(path: Path, scratch: Path):
    found = weights.obtain("tiny", TINY, path, scratch, scratch, 0, False)
    state = weights.read(found.file, TINY)
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())
    return found.facts["parameters"]


def _adapter(path: Path, scratch: Path):
    return read_adapter(path)


def _array(path: Path, scratch: Path):
    """Pixels whose images.npy is `path`: its manifest is true, so only the content can be wrong."""
    write_array(path.with_name("shapes.npy"), np.ones((3, 2), np.int32))
    seal(Place(path.parent, "key"), Pixels.KIND, {}, [path.name, "shapes.npy"])
    return Pixels.load(path.parent).images.shape


def _table(path: Path, scratch: Path):
    seal(Place(path.parent, "key"), Index.KIND, {}, [path.name])
    index = Index.load(path.parent)
    return index.table.shape, index.labels().tolist()


def _manifest(path: Path, scratch: Path):
    assert path.name == f"{Index.KIND}.json"
    index = Index.load(path.parent)
    return json.dumps(vars(Manifest.read(path))), len(index.table)


READERS = {
    "image": _image,
    "volume": _volume,
    "mask": _mask,
    "own table": _own_table,
    "published table": _published_table,
    "params": _params,
    "archive": _archive,
    "weights": _weights,
    "adapter": _adapter,
    "array": _array,
    "table": _table,
    "manifest": _manifest,
}
