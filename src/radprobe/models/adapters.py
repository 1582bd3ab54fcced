"""Which parameters of a backbone are trained: all, every bias (BitFit), low-rank adapters (LoRA), or none (head only).

LoRA (Hu et al. 2022, arXiv 2106.09685) is peft's, on the linear layers of attention and MLP: query, key and value, and
the layers of the MLP, SwiGLU ones too, as in the study. BitFit (Ben Zaken et al. 2022, arXiv 2106.10199) trains every
parameter that is called a bias. What was trained is saved alone, and merged into the weights that it was trained from.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from radprobe import files
from radprobe.artifacts import Weights
from radprobe.catalog import WeightsEntry
from radprobe.files import RadprobeError
from radprobe.models.architectures import Tower
from radprobe.models.backbones import Encoder, build
from radprobe.names import HEAD as HEAD_ONLY

if TYPE_CHECKING:
    from peft import LoraModel

BITFIT, LORA, END_TO_END = "bitfit", "lora", "end_to_end"
# How timm, transformers and open_clip, and DINOv2's own code, call the layers that LoRA adapts.
ATTENTION = ("qkv", "q_proj", "k_proj", "v_proj", "query", "key", "value")
MLP = ("fc1", "fc2", "c_fc", "c_proj", "fc1_g", "fc1_x", "w12", "w3", "weights_in", "weights_out")
BACKBONE, HEAD = "backbone.", "head."  # how the names in a file of adapters begin
ADAPTER = "default"  # peft's name of the one adapter


@dataclass(frozen=True)
class LoraOptions:
    """LoRA: the rank of the two matrices, their product scaled by alpha / rank, the dropout of their input.

    targets: names of layers besides those of attention and MLP; None: no others.
    """

    rank: int
    alpha: int
    dropout: float
    targets: tuple[str, ...] | None = None


def adapt(encoder: Encoder, mode: str, lora: LoraOptions | None = None) -> None:
    """Let exactly the parameters of `mode` move; LoRA needs its options.

    New adapters take their first values from torch's generator and change nothing until they are trained. Raises
    RadprobeError if the backbone has no such parameter or layer.
    """
    model, title = encoder.tower.model, encoder.recipe.title
    encoder.fixed_statistics = mode != END_TO_END
    if mode == HEAD_ONLY:
        model.requires_grad_(False)
        return
    if mode == LORA and lora is not None:
        _inject(encoder.tower, lora)
        return
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(mode == END_TO_END or name.rpartition(".")[2].endswith("bias"))
    if not trained(encoder):
        raise RadprobeError(f"{mode} of {title}", "the network has no such parameter", "choose another way to adapt it")


def trained(encoder: Encoder) -> dict[str, torch.nn.Parameter]:
    """Return the parameters of the backbone that move, by name."""
    named = encoder.tower.model.named_parameters()
    return {name: parameter for name, parameter in named if parameter.requires_grad}


def rest(encoder: Encoder, *outputs: torch.Tensor) -> None:
    """Let nothing move that no output depends on: a token for masking, stages after the map that is read."""
    moving = list(trained(encoder).values())
    if not moving:
        return
    found = torch.autograd.grad([each.sum() for each in outputs], moving, allow_unused=True)
    for parameter, gradient in zip(moving, found, strict=True):
        parameter.requires_grad_(gradient is not None)


def targets(model: torch.nn.Module, wanted: Sequence[str] | None = None) -> list[str]:
    """Return the full names of the layers that LoRA adapts: linear ones of known names, and those that are `wanted`.

    A wanted name is the last part of a layer's, and the layer may be a convolution too, but not one by groups of
    channels: peft cannot merge these.
    """
    known, more = ATTENTION + MLP, tuple(wanted or ())
    linear = {name for name, each in _layers(model) if isinstance(each, torch.nn.Linear)}
    named = [name for name, _ in _layers(model)]
    return [name for name in named if (last := name.split(".")[-1]) in more or (last in known and name in linear)]


def _layers(model: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    layers = [
        (name, each) for name, each in model.named_modules() if isinstance(each, torch.nn.Linear | torch.nn.Conv2d)
    ]
    return [(name, each) for name, each in layers if getattr(each, "groups", 1) == 1]


def _inject(tower: Tower, lora: LoraOptions) -> "LoraModel":
    """Put adapters into a tower; return peft's own view of it, which can merge them."""
    from peft import LoraConfig, LoraModel  # takes seconds to import

    found = targets(tower.model, lora.targets)
    if not found:
        asked = f"named {', '.join(lora.targets)}" if lora.targets else "of attention or MLP"
        known = {name.split(".")[-1] for name, _ in _layers(tower.model)}
        reason = f"it has no layer {asked}; its layers are called {', '.join(sorted(known))}"
        remedy = "name some of them in adapt.lora.targets, or choose bitfit or end_to_end"
        raise RadprobeError(f"lora of {tower.entry.title}", reason, remedy)
    config = LoraConfig(
        target_modules=found, bias="none", r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout
    )
    return LoraModel(tower.model, config, ADAPTER)


# --- what was trained, as a file --------------------------------------------------------------------------------------


def save(path: Path, encoder: Encoder, head: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
    """Write what was trained of a backbone, and its head, as safetensors; `facts` go into its header.

    They name at least the backbone, the mode, LoRA's settings, and the `identity` of the weights that it started from.
    What was trained end to end is the whole backbone, with the statistics of its norms; of a head alone it is nothing.
    """
    moved = encoder.tower.model.state_dict() if facts["mode"] == END_TO_END else trained(encoder)
    named = {BACKBONE + name: value for name, value in moved.items()} | {HEAD + name: head[name] for name in head}
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in named.items()}
    facts = {**facts, "size": encoder.size, "tensors_sha256": _digest(tensors)}
    with files.atomic(path) as temporary:
        # one key of metadata: safetensors writes several in any order
        save_file(tensors, temporary, metadata={"radprobe": json.dumps(facts, sort_keys=True)})
        temporary.chmod(0o644)  # safetensors lets nobody else read


def identity(weights: Weights) -> str:
    """Say which weights these are: by their SHA-256, random ones by their seed."""
    return f"sha256 {weights.sha256}" if weights.file else f"random weights of seed {weights.facts['seed']}"


def merged(entry: WeightsEntry, base: Weights, path: Path, facts: dict[str, Any], folder: Path) -> Weights:
    """Put what `save` wrote into the backbone that it was trained from; write plain weights to `folder`.

    Raises RadprobeError where the file is broken, or where `base` are other weights than those it started from.
    """
    if facts["base"] != identity(base):
        reason = f"was trained from {facts['base']}, not from {identity(base)}"
        raise RadprobeError(path, reason, f"get those weights of {facts['backbone']}, or set that seed")
    size = facts["size"] if facts["mode"] == END_TO_END else entry.side(entry.native_size)
    tower = build(entry, base, size).tower
    adapted = _inject(tower, LoraOptions(**facts["lora"])) if facts["mode"] == LORA else None
    state, expected = _read(path, facts), tower.model.state_dict()
    wrong = [name for name, each in state.items() if name not in expected or expected[name].shape != each.shape]
    if wrong or not state:
        reason = f"its tensor {wrong[0]} has no place in {entry.name}" if wrong else "holds nothing of a backbone"
        raise RadprobeError(path, reason, "name the adapter that `radprobe adapt` wrote")
    tower.model.load_state_dict(state, strict=False)
    model = adapted.merge_and_unload() if adapted else tower.model
    file = folder / "weights.safetensors"
    plain = {entry.prefix + name: value.clone().contiguous() for name, value in model.state_dict().items()}
    with files.atomic(file) as temporary:
        save_file(plain, temporary, metadata={"format": "pt"})
        temporary.chmod(0o644)
    parameters = sum(each.numel() for each in model.parameters())
    told = {"bytes": file.stat().st_size, "tensors": len(plain), "parameters": parameters, "sha256_known": False}
    told |= {"size": size} if facts["mode"] == END_TO_END else {}
    return Weights(file, files.sha256(file), f"adapter:{path.name} of {facts['backbone']}", told)


def _read(path: Path, facts: dict[str, Any]) -> dict[str, torch.Tensor]:
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise RadprobeError(path, f"is no complete safetensors file ({error})", "copy it again") from None
    if _digest(state) != facts["tensors_sha256"]:
        raise RadprobeError(path, "its tensors are not those that were written", "copy it again")
    return {name.removeprefix(BACKBONE): each for name, each in state.items() if name.startswith(BACKBONE)}


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
