"""Networks of timm, transformers and open_clip behind one door: images in, the maps of chosen layers out.

A tower is called as `tower(images, layers, pool)` and returns a `Layer` for each of `layers` (block or stage, counted
from the last one, -1) and, if `pool`, the vector [B, C] that its library pools. The prefix tokens (CLS, registers) are
taken off by their number, which the catalog states, so that none is ever in the grid.
"""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import avg_pool2d, interpolate, pixel_unshuffle
from typing_extensions import override

from radprobe.catalog import EncoderEntry
from radprobe.files import RadprobeError
from radprobe.models import torchvision_ops  # noqa: F401 - before timm and open_clip

OFFSET = 0.1  # of the official DINOv2: github.com/facebookresearch/dinov2, `interpolate_offset`
LAYER_SCALES = ("gamma", "gamma_1", "gamma_2", "lambda1")  # of timm and transformers
EMBEDDINGS = ("pos_embed", "cls_token", "reg_token", "position_embeddings", "positional_embedding", "register_tokens")
NORMS = ("layernorm", "norm")  # how models of transformers call their final norm


@dataclass(frozen=True)
class Layer:
    """What a block or stage gives: prefix [B, P, C] (None: it has none) and the map [B, C, h, w]."""

    prefix: torch.Tensor | None
    map: torch.Tensor


Output = tuple[list[Layer], torch.Tensor | None]


class Tower(torch.nn.Module):
    """A network with its weights inside `model`, as its library names them."""

    model: Any  # each library gives its networks attributes of its own

    def __init__(self, model: torch.nn.Module, entry: EncoderEntry):
        super().__init__()
        self.model, self.entry = model, entry

    @property
    def depth(self) -> int:
        """Blocks, or stages of a CNN."""
        return len(self.model.blocks)

    @property
    def patch(self) -> int:
        """Side of a patch in pixels. Raises ValueError for a CNN."""
        if self.entry.patch is None:
            raise ValueError(f"{self.entry.name} has no patches")
        return self.entry.patch

    def resize(self, size: int) -> None:
        """Make the positions those of images of side `size`, once and for all."""

    def forward(self, images: torch.Tensor, layers: Sequence[int], pool: bool) -> Output:
        """Return a Layer for each of `layers`, and the pooled vector if `pool`."""
        raise NotImplementedError


class TimmTokens(Tower):
    """A vision transformer of timm."""

    def __init__(self, model: torch.nn.Module, entry: EncoderEntry):
        super().__init__(model, entry)
        late = not isinstance(getattr(model, "fc_norm", None), torch.nn.Identity | None)
        if entry.norm and late and entry.pool != "library":
            reason = f"{entry.name} has its final norm after pooling, so tokens cannot pass it"
            raise RadprobeError(f"recipe of {entry.title}", reason, "set pool: library, or norm: false")

    @override
    def resize(self, size: int) -> None:
        positions = getattr(self.model, "pos_embed", None)
        if not hasattr(self.model, "set_input_size"):
            return  # SAM resizes as it runs
        self.model.set_input_size(img_size=size)
        if self.entry.positions != "dinov2" or positions is None:
            return
        if positions.shape != self.model.pos_embed.shape:
            self.model.pos_embed = torch.nn.Parameter(dinov2_positions(positions.detach(), size // self.patch))

    @override
    def forward(self, images: torch.Tensor, layers: Sequence[int], pool: bool) -> Output:
        options: dict[str, Any] = {"indices": _from_start(layers, self.depth), "norm": self.entry.norm}
        if self.entry.prefix_tokens:
            options["return_prefix_tokens"] = True
        if pool:
            final, found = self.model.forward_intermediates(images, **options)
            pooled = self.model.forward_head(final, pre_logits=True)
        else:
            found, pooled = self.model.forward_intermediates(images, **options, intermediates_only=True), None
        maps = [Layer(each[1], each[0]) if self.entry.prefix_tokens else Layer(None, each) for each in found]
        return _in_order(maps, layers), pooled


class TimmStages(Tower):
    """A CNN of timm: its stages, each before the next one's pooling or stride, as timm lists them."""

    def __init__(self, model: torch.nn.Module, entry: EncoderEntry):
        super().__init__(model, entry)
        info: Any = model.feature_info
        self.stages = [stage["module"] for stage in (info if isinstance(info, list) else info.get_dicts())]

    @property
    @override
    def depth(self) -> int:
        return len(self.stages)

    @override
    def forward(self, images: torch.Tensor, layers: Sequence[int], pool: bool) -> Output:
        kept: dict[int, torch.Tensor] = {}
        hooks = [self._keep(layer, kept) for layer in layers]
        try:
            final = self.model.forward_features(images)
        finally:
            for hook in hooks:
                hook.remove()
        pooled = self.model.forward_head(final, pre_logits=True) if pool else None
        return [Layer(None, kept[layer]) for layer in layers], pooled

    def _keep(self, layer: int, kept: dict[int, torch.Tensor]) -> torch.utils.hooks.RemovableHandle:
        stage: torch.nn.Module = self.model.get_submodule(self.stages[layer])
        return stage.register_forward_hook(lambda _, __, output: kept.update({layer: output}))


class TransformersTokens(Tower):
    """A vision transformer of transformers. It resizes its positions as it runs."""

    def __init__(self, model: torch.nn.Module, entry: EncoderEntry):
        super().__init__(model, entry)
        self.norm = next((name for name in NORMS if hasattr(model, name)), None)
        if entry.norm and self.norm is None:
            reason = f"{entry.name} has no final norm under a known name ({', '.join(NORMS)})"
            raise RadprobeError(f"recipe of {entry.title}", reason, "set norm: false")
        resizes = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if resizes else {}

    @property
    @override
    def depth(self) -> int:
        return int(self.model.config.num_hidden_layers)

    @override
    def forward(self, images: torch.Tensor, layers: Sequence[int], pool: bool) -> Output:
        output = self.model(images, output_hidden_states=True, **self.options)
        found = [output.hidden_states[layer] for layer in layers]
        if self.entry.norm and self.norm:
            found = [getattr(self.model, self.norm)(tokens) for tokens in found]
        sides = [side // self.patch for side in images.shape[2:]]
        return [_split(tokens, self.entry, sides) for tokens in found], output.pooler_output if pool else None


class OpenClipTokens(Tower):
    """The vision tower of a model of open_clip."""

    @property
    @override
    def depth(self) -> int:
        return len(self.model.trunk.blocks if hasattr(self.model, "trunk") else self.model.transformer.resblocks)

    @override
    def resize(self, size: int) -> None:
        if hasattr(self.model, "set_input_size"):  # a network of timm
            self.model.set_input_size(size)
        else:
            from timm.layers.pos_embed import resample_abs_pos_embed

            side = size // self.patch
            found = resample_abs_pos_embed(self.model.positional_embedding.detach()[None], [side, side])[0]
            self.model.positional_embedding = torch.nn.Parameter(found)

    @override
    def forward(self, images: torch.Tensor, layers: Sequence[int], pool: bool) -> Output:
        output = self.model.forward_intermediates(
            images,
            indices=_from_start(layers, self.depth),
            normalize_intermediates=self.entry.norm,
            intermediates_only=not pool,
            output_extra_tokens=True,
        )
        both = zip(output["image_intermediates_prefix"], output["image_intermediates"], strict=True)
        return _in_order([Layer(*each) for each in both], layers), output.get("image_features")


class PixelTower(Tower):
    """No network: the grey values of a patch as its map, [B, patch * patch, h, w], and their means as the vector."""

    def __init__(self, entry: EncoderEntry):
        super().__init__(torch.nn.Identity(), entry)

    @property
    @override
    def depth(self) -> int:
        return 1

    @override
    def forward(self, images: torch.Tensor, layers: Sequence[int], pool: bool) -> Output:
        grey = images[:, :1]
        vector = avg_pool2d(grey, self.patch).flatten(1) if pool else None
        return [Layer(None, pixel_unshuffle(grey, self.patch)) for _ in layers], vector


# --- building ---------------------------------------------------------------------------------------------------------


def build(entry: EncoderEntry) -> Tower:
    """Build an entry's network for its native size, randomly initialised, on the current device.

    Raises RadprobeError where its library does not know it.
    """
    try:
        return BUILDERS[entry.library](entry)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = f"{entry.library} cannot build '{entry.name}' ({type(error).__name__}: {error})"
        raise RadprobeError(f"architecture of {entry.title}", reason, "mend its name or options") from None


def _timm(entry: EncoderEntry) -> Tower:
    import timm

    side = {"img_size": entry.native_size} if entry.patch else {}
    model = timm.create_model(entry.name, pretrained=False, num_classes=0, **{**side, **entry.options})
    return (TimmStages if entry.patch is None else TimmTokens)(model, entry)


def _transformers(entry: EncoderEntry) -> Tower:
    from transformers import AutoConfig, AutoModel

    options = {"image_size": entry.native_size, "patch_size": entry.patch, **entry.options}
    return TransformersTokens(AutoModel.from_config(AutoConfig.for_model(entry.name, **options)), entry)


def _open_clip(entry: EncoderEntry) -> Tower:
    import open_clip

    config = entry.options or open_clip.get_model_config(entry.name)
    if config is None:
        raise KeyError("no model of that name")
    text = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}  # thrown away
    how = {key: config[key] for key in ("embed_dim", "vision_cfg", "quick_gelu") if key in config}
    return OpenClipTokens(open_clip.CLIP(**how, text_cfg=text).visual, entry)


def check(entry: EncoderEntry) -> None:
    """Try a recipe without weights or memory: does what comes out have the tokens and the grid that it states?

    Raises RadprobeError that names what differs.
    """
    with torch.device("meta"), torch.no_grad():
        tower = build(entry).eval()
        side = entry.side(entry.native_size)
        try:
            tower.resize(side)
            (layer,), _ = tower(torch.zeros(1, 3, side, side), [entry.dense_layer], entry.pool == "library")
            depth = tower.depth
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, AssertionError) as error:
            reason = f"{entry.name} does not run as a backbone ({type(error).__name__}: {error})"
            raise RadprobeError(
                f"recipe of {entry.title}", reason, "mend patch, pool and sizes, or use another"
            ) from None
    prefix, grid = 0 if layer.prefix is None else layer.prefix.shape[1], list(layer.map.shape[2:])
    wrong = []
    if entry.patch and grid != [side // entry.patch] * 2:
        wrong.append(f"its grid is {grid}, which is not that of patches of {entry.patch} px in {side} px")
    if len(grid) != 2 or grid[0] != grid[1]:
        wrong.append(f"its map is {list(layer.map.shape)}, not channels and then a square grid")
    if entry.patch and prefix != entry.prefix_tokens:
        wrong.append(f"it has {prefix} tokens before the patches, not {entry.prefix_tokens}")
    if wrong or -entry.dense_layer > depth:
        reason = "; ".join(wrong) or f"it has {depth} layers, fewer than dense_layer asks for"
        raise RadprobeError(f"recipe of {entry.title}", reason, "mend patch, prefix_tokens or dense_layer")


def awaken(model: torch.nn.Module) -> None:
    """Make a random network one whose output depends on its input: LayerScale of 1, positions that differ.

    Libraries start LayerScale at 1e-5 and some positions at 0: the CLS token of such a network is a constant, and as
    a control it would be beaten by anything.
    """
    for name, parameter in model.named_parameters():
        last = name.rpartition(".")[2]
        if last in LAYER_SCALES:
            torch.nn.init.ones_(parameter)
        elif last in EMBEDDINGS and not parameter.any():
            torch.nn.init.trunc_normal_(parameter, std=0.02)


BUILDERS = {"timm": _timm, "transformers": _transformers, "open_clip": _open_clip, "none": PixelTower}


def classifier(entry: EncoderEntry) -> tuple[str, ...]:
    """Return what the names of a checkpoint's own classifier start with; it is left out."""
    if entry.library != "timm":
        return ()
    import timm

    found = timm.get_pretrained_cfg(entry.name)
    names = (found.classifier if found else None) or ()
    return tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names))


# --- tokens and positions ---------------------------------------------------------------------------------------------


def dinov2_positions(positions: torch.Tensor, side: int) -> torch.Tensor:
    """Resize position embeddings [1, prefix + n * n, C] to a grid of `side` as the official DINOv2 does.

    Bicubic, not antialiased, by the factor (side + 0.1) / n, which moves every place a little; the features differ from
    those of timm's rule (github.com/facebookresearch/dinov2, `interpolate_pos_encoding`).
    """
    n = math.isqrt(positions.shape[1])
    prefix = positions.shape[1] - n * n
    grid = positions[:, prefix:].unflatten(1, (n, n)).permute(0, 3, 1, 2)
    factor = (side + OFFSET) / n
    grid = interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
    return torch.cat([positions[:, :prefix], grid.flatten(2).transpose(1, 2)], 1)


def _from_start(layers: Sequence[int], depth: int) -> list[int]:
    return sorted({depth + layer for layer in layers})


def _in_order(found: list[Layer], layers: Sequence[int]) -> list[Layer]:
    order = sorted(set(layers))
    return [found[order.index(layer)] for layer in layers]


def _split(tokens: torch.Tensor, entry: EncoderEntry, sides: Sequence[int]) -> Layer:
    prefix, patches = tokens[:, : entry.prefix_tokens], tokens[:, entry.prefix_tokens :]
    if patches.shape[1] != sides[0] * sides[1]:
        reason = f"{tokens.shape[1]} tokens are not {entry.prefix_tokens} before {sides[0]} x {sides[1]} patches"
        raise RadprobeError(f"recipe of {entry.title}", reason, "mend prefix_tokens or patch")
    return Layer(prefix, patches.transpose(1, 2).unflatten(2, tuple(sides)))
