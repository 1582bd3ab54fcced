"""Weights: found, fetched or converted, then verified before anything runs.

Every file is safetensors, its tensors match the architecture name by name and shape by shape, and its SHA-256 is the
known one, or is recorded where none is known. Only the tensors of the checkpoint's own classifier may be extra.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from radprobe import catalog, files
from radprobe.artifacts import Weights
from radprobe.files import RadprobeError
from radprobe.models import torchvision_ops  # noqa: F401 - before timm

HUB_TIMEOUT_S = 10
FLOATS = {"F64", "F32", "F16", "BF16"}


def obtain(
    name: str, entry: catalog.Backbone, local: Path | None, folder: Path, weights_folder: Path, seed: int, hub: bool
) -> Weights:
    """Return the verified weights of backbone `name`: random, local, from an installed package, or from the hub.

    `local` is a safetensors file that is here already; `folder` takes a converted or downloaded one;
    `weights_folder` is where the user would put one. Raises RadprobeError that names the file and what to do.
    """
    if entry.random:
        return Weights(None, None, "random", {"seed": seed})
    if local:
        return _verified(local, entry, "local", entry.sha256)
    package = catalog.package_folder(entry.package) if entry.package else None
    if package:
        file = _convert(package / entry.package.file, entry, folder / "weights.safetensors")
        return _verified(file, entry, f"package:{entry.package.name}=={entry.package.version}", None)
    if entry.repo and hub:
        file, revision = _download(name, entry, folder, weights_folder)
        return _verified(file, entry, f"hub:{entry.repo}@{revision}", entry.sha256)
    raise RadprobeError(f"weights of {name}", "are not here", _where_to_put(entry, weights_folder))


def architecture(entry: catalog.Backbone, **options: Any) -> torch.nn.Module:
    """Build an entry's architecture in timm, randomly initialised on the current device."""
    import timm

    if entry.patch is not None:
        options["dynamic_img_size"] = True
    return timm.create_model(entry.name, pretrained=False, **options)


def read(file: Path, entry: catalog.Backbone) -> dict[str, torch.Tensor]:
    """Read a verified file as float32 tensors, without the checkpoint's classifier."""
    with safe_open(file, "pt") as tensors:
        names = [name for name in tensors.keys() if not _is_head(name, _heads(entry))]  # noqa: SIM118 - no mapping
        state = {name: tensors.get_tensor(name) for name in names}
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


# --- verification -----------------------------------------------------------------------------------------------------


def _verified(file: Path, entry: catalog.Backbone, source: str, sha256: str | None) -> Weights:
    shapes, dtypes = _header(file)
    _match(file, shapes, entry)
    found = files.sha256(file)
    if sha256 and found != sha256:
        raise RadprobeError(file, f"sha256 is {found}, not the known {sha256}", "download it again, or mend the entry")
    parameters = 0
    with safe_open(file, "pt") as tensors:
        for name in shapes:
            tensor = tensors.get_tensor(name)
            if not torch.isfinite(tensor).all():
                raise RadprobeError(file, f"tensor {name} has NaN or infinite values", "get the file again")
            parameters += tensor.numel() if tensor.is_floating_point() else 0
    facts = {
        "bytes": file.stat().st_size,
        "tensors": len(shapes),
        "parameters": parameters,
        "dtype": "+".join(sorted(set(dtypes.values()) & FLOATS)),
        "derived": entry.derived,
        "sha256_known": bool(entry.package.sha256 if source.startswith("package:") else sha256),
    }
    return Weights(file, found, source, facts)


def _header(file: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    try:
        with safe_open(file, "pt") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - no mapping
            return {k: tuple(v.get_shape()) for k, v in slices.items()}, {k: v.get_dtype() for k, v in slices.items()}
    except (SafetensorError, OSError) as error:
        remedy = "get it again; other formats (pickle) are not read: convert a state dict with safetensors.save_file"
        raise RadprobeError(file, f"is no complete safetensors file ({error})", remedy) from None


def _match(file: Path, shapes: dict[str, tuple[int, ...]], entry: catalog.Backbone) -> None:
    """Compare names and shapes with the architecture at its native size, built on the meta device."""
    with torch.device("meta"):
        expected = {k: tuple(v.shape) for k, v in architecture(entry, num_classes=0).state_dict().items()}
    heads = _heads(entry)
    missing = [name for name in expected if name not in shapes]
    extra = [name for name in shapes if name not in expected and not _is_head(name, heads)]
    wrong = [f"{k} is {list(shapes[k])}, not {list(v)}" for k, v in expected.items() if shapes.get(k, v) != v]
    for names, what in ((missing, "lacks tensor"), (extra, "has an unknown tensor"), (wrong, "has a wrong shape:")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            reason = f"{what} {names[0]}{more}, as {entry.name} of timm has it"
            raise RadprobeError(file, reason, "give the state dict of exactly this architecture")


def _heads(entry: catalog.Backbone) -> tuple[str, ...]:
    import timm

    heads = timm.get_pretrained_cfg(entry.name).classifier or ()
    return (heads,) if isinstance(heads, str) else tuple(heads)


def _is_head(name: str, heads: tuple[str, ...]) -> bool:
    return name.rpartition(".")[0] in heads


# --- sources ----------------------------------------------------------------------------------------------------------


def _convert(source: Path, entry: catalog.Backbone, file: Path) -> Path:
    """Map the tensors of a package's .pth by position onto timm's names (classifier included) and save safetensors.

    Two implementations of one architecture list their tensors in the same order; each shape is checked.
    """
    known = entry.package.sha256
    if not source.is_file():
        raise RadprobeError(source, "is not in the package", f"pip install --force-reinstall {entry.package.name}")
    if known and (found := files.sha256(source)) != known:
        raise RadprobeError(source, f"sha256 is {found}, not the known {known}", f"reinstall {entry.package.name}")
    state = torch.load(source, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        expected = architecture(entry).state_dict()
    if len(state) != len(expected):
        raise RadprobeError(source, f"has {len(state)} tensors, not {len(expected)}", "mend the catalog entry")
    mapped = {}
    for (theirs, tensor), (ours, wanted) in zip(state.items(), expected.items(), strict=True):
        if tensor.shape != wanted.shape:
            reason = f"{theirs} is {list(tensor.shape)}, but {ours} is {list(wanted.shape)}"
            raise RadprobeError(source, reason, "mend the catalog entry")
        mapped[ours] = tensor.contiguous()
    with files.atomic(file) as temporary:
        save_file(
            mapped,
            temporary,
            metadata={"format": "pt"},  # one key: safetensors writes several in any order
        )
    return file


def _download(name: str, entry: catalog.Backbone, folder: Path, weights_folder: Path) -> tuple[Path, str]:
    """Fetch from the hub at the pinned revision (or the one that is current now, which is returned)."""
    import huggingface_hub as hf

    parts, target = folder / "download", folder / "weights.safetensors"
    try:
        url = hf.hf_hub_url(entry.repo, entry.filename, revision=entry.revision)
        revision = hf.get_hf_file_metadata(url, timeout=HUB_TIMEOUT_S).commit_hash
        options = {"revision": revision, "local_dir": parts, "etag_timeout": HUB_TIMEOUT_S}
        hf.hf_hub_download(entry.repo, entry.filename, **options)
        (parts / entry.filename).replace(target)
    except Exception as error:  # network, gate, disk: the remedy is the same
        reason = f"{entry.filename} of {entry.repo} could not be fetched ({type(error).__name__}: {error})"
        raise RadprobeError(f"weights of {name}", reason, _where_to_put(entry, weights_folder)) from None
    shutil.rmtree(parts)
    return target, revision


def _where_to_put(entry: catalog.Backbone, weights_folder: Path) -> str:
    where = f"put {' or '.join(entry.local) or 'a safetensors file'} in {weights_folder}"
    if entry.repo:
        where += f" (get {entry.filename} at https://huggingface.co/{entry.repo} and rename it)"
    if entry.package:
        where += f", or pip install {entry.package.name}=={entry.package.version}"
    return where
