import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import tiny
from torch.testing import assert_close

from radprobe import catalog
from radprobe.files import RadprobeError
from radprobe.learning import grid
from radprobe.models import architectures, backbones
from radprobe.study import Study

TOKENS = pytest.mark.parametrize("entry", tiny.TOKENS.values(), ids=tiny.TOKENS)
NORMED = {name: entry for name, entry in tiny.TOKENS.items() if entry.norm}
EVERY = {**tiny.TOKENS, **tiny.STAGES, "pixels": tiny.like("pixels")}
ALL = pytest.mark.parametrize("entry", EVERY.values(), ids=EVERY)


def library_tokens(model, entry, images):
    """The tokens [B, prefix + places, C] that the library's own forward pass ends with."""
    if entry.library == "transformers":
        return model(images, **interpolated(model)).last_hidden_state
    if entry.library == "open_clip":
        if hasattr(model, "trunk"):
            return model.trunk.forward_features(images)
        return model.ln_post(model.transformer(model._embeds(images)))
    if entry.pool == "mean":  # SAM: what enters its neck
        kept = []
        hook = model.neck.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
        model.forward_features(images)
        hook.remove()
        return kept[0].flatten(2).transpose(1, 2)
    return model.forward_features(images)


def interpolated(model):
    return {} if model.config.model_type == "dinov2" else {"interpolate_pos_encoding": True}


@TOKENS
@torch.no_grad()
def test_the_recipe_is_what_comes_out_of_the_librarys_own_forward_pass(entry):
    encoder = tiny.encoder(entry, 224)
    features, images = encoder(tiny.pixels()), encoder.normalise(tiny.pixels())
    tokens = library_tokens(encoder.tower.model, entry, images)
    patches = tokens[:, entry.prefix_tokens :]
    side = 224 // entry.patch
    assert patches.shape[1] == side * side
    vector = tokens[:, 0] if entry.pool == "cls" else patches.mean(1)
    assert_close(features.cls[:, -1], vector, atol=1e-5, rtol=1e-5)
    assert_close(features.dense[0], patches.transpose(1, 2).unflatten(2, (side, side)), atol=1e-5, rtol=1e-5)
    if entry.pool == "cls":
        assert_close(features.patch_mean, patches.mean(1), atol=1e-5, rtol=1e-5)
    else:
        assert features.patch_mean is None
    assert features.cls.shape == (2, 2, tokens.shape[2])


@TOKENS
@torch.no_grad()
def test_an_earlier_block_is_what_the_network_gives_when_the_later_ones_are_cut_off(entry):
    encoder = tiny.encoder(entry, 224)
    found, _ = encoder.tower(encoder.normalise(tiny.pixels()), [-2], False)
    images = encoder.normalise(tiny.pixels())
    both, _ = encoder.tower(images, [-2, -1], False)
    assert (both[0].map - both[1].map).abs().max() > 0.01  # so that the wrong block would be noticed
    blocks(encoder.tower.model)[-1] = Passing()
    tokens = library_tokens(encoder.tower.model, entry, images)
    assert_close(found[0].map.flatten(2).transpose(1, 2), tokens[:, entry.prefix_tokens :], atol=1e-5, rtol=1e-5)


class Passing(torch.nn.Module):
    """A block that changes nothing."""

    def forward(self, tokens, *_, **__):
        return tokens


def blocks(model):
    for path in ("trunk.blocks", "transformer.resblocks", "blocks", "layers", "encoder.layer"):
        try:
            return model.get_submodule(path)
        except AttributeError:
            continue
    raise AssertionError(model)


@pytest.mark.parametrize("entry", NORMED.values(), ids=NORMED)
def test_paper_features_come_before_the_final_norm(entry):
    before = tiny.encoder(entry.model_copy(update={"norm": False}), 224)
    norm = next(
        module
        for name, module in before.tower.model.named_modules()
        if name in ("norm", "trunk.norm", "layernorm", "ln_post")
    )
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.uniform_(0.5, 2)
        after = tiny.encoder(entry, 224)
        after.tower.model.load_state_dict(before.tower.model.state_dict())
        assert_close(norm(before(tiny.pixels()).cls), after(tiny.pixels()).cls, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("entry", tiny.STAGES.values(), ids=tiny.STAGES)
@torch.no_grad()
def test_a_cnn_gives_its_pooled_output_and_the_stage_of_stride_16(entry):
    encoder = tiny.encoder(entry, 192)
    features, images = encoder(tiny.pixels()), encoder.normalise(tiny.pixels())
    model = timm.create_model(entry.name, num_classes=0, **entry.options).eval()
    model.load_state_dict(encoder.tower.model.state_dict())
    assert_close(features.cls[:, 0], model(images), atol=1e-5, rtol=1e-5)
    assert features.patch_mean is None
    stages = timm.create_model(entry.name, features_only=True, **entry.options).eval()
    named, given = stages.state_dict(), encoder.tower.model.state_dict()  # the same tensors, in part other names
    stages.load_state_dict(dict(zip(named, given.values(), strict=False)))
    expected = stages(images)[entry.dense_layer]
    assert_close(features.dense[0], expected, atol=1e-5, rtol=1e-5)
    assert features.dense[0].shape[2:] == (12, 12)
    if entry.dense_layer in features.stages:
        assert_close(features.stages[entry.dense_layer], expected.mean((2, 3)), atol=1e-5, rtol=1e-5)


def deeper(options):
    """Return the options of a network of four blocks."""
    inner = {"vision_cfg": deeper(options["vision_cfg"])} if "vision_cfg" in options else {}
    return options | {name: 4 for name in ("depth", "num_hidden_layers", "layers") if name in options} | inner


@ALL
@torch.no_grad()
def test_every_backbone_gives_heads_as_many_candidate_inputs(entry):
    encoder = tiny.encoder(entry.model_copy(update={"options": deeper(entry.options)}), entry.side(224), blocks=4)
    features = encoder(tiny.pixels())
    vectors = [features.stages[layer] for layer in sorted(features.stages)] + [*features.cls.unbind(1)]
    inputs = grid.inputs(grid.FeatureTable.of(vectors, features.patch_mean), [1, 4], [False, True])
    assert len(inputs) == len(set(inputs)) == (1 if entry.id == "pixels" else 4)


@torch.no_grad()
def test_what_the_library_pools_is_the_projection_of_a_model_of_open_clip():
    for entry in (tiny.TOKENS["biomedclip"], tiny.TOKENS["open_clip's own"]):
        entry = entry.model_copy(update={"pool": "library"})
        encoder = tiny.encoder(entry, entry.native_size)
        features = encoder(tiny.pixels())
        expected = encoder.tower.model(encoder.normalise(tiny.pixels()))
        assert features.cls.shape == (2, 1, 48)
        assert_close(features.cls[:, 0], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_pixels_are_the_image_and_nothing_else():
    encoder = tiny.encoder(tiny.like("pixels"), 448)
    images = tiny.pixels(side=448)
    features = encoder(images)
    grey = encoder.normalise(images)[:, 0]
    assert features.cls.shape == (2, 1, 1024)
    assert_close(features.cls[:, 0].unflatten(1, (32, 32))[:, 3, 5], grey[:, 42:56, 70:84].mean((1, 2)))
    assert_close(features.dense[0][:, :, 3, 5], grey[:, 42:56, 70:84].flatten(1))
    assert encoder.parameters_count == 0


# --- what holds for every family --------------------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 1), (1, 0), (1, 1)])
@torch.no_grad()
def test_a_bright_quadrant_lights_its_own_places_of_the_grid(entry, row, column):
    images = torch.zeros((1, 224, 224), dtype=torch.uint8)
    images[:, row * 112 : row * 112 + 112, column * 112 : column * 112 + 112] = 255
    encoder = tiny.encoder(entry, entry.side(224))
    change = (encoder(images).dense[0] - encoder(torch.zeros_like(images)).dense[0])[0].norm(dim=0)
    half = len(change) // 2
    assert change.unfold(0, half, half).unfold(1, half, half).mean((2, 3)).argmax() == row * 2 + column


@ALL
def test_frozen_leaves_no_gradient_and_nothing_changes(entry):
    encoder = tiny.encoder(entry, entry.side(224))
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    encoder.train()  # as a loop over the whole model would
    features = encoder(tiny.pixels())
    assert not any(each.requires_grad for each in (features.cls, *features.dense, *encoder.parameters()))
    assert not any(module.training for module in encoder.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


@pytest.mark.parametrize("entry", {**tiny.TOKENS, **tiny.STAGES}.values(), ids={**tiny.TOKENS, **tiny.STAGES})
def test_a_trainable_backbone_gets_a_gradient_down_to_its_first_layer(entry):
    encoder = tiny.encoder(entry, 224, frozen=False)
    features = encoder(tiny.pixels())
    sum((each.float() ** 2).sum() for each in (features.cls, *features.dense)).backward()
    first = next(module for module in encoder.tower.modules() if isinstance(module, torch.nn.Conv2d))
    assert encoder.training
    assert first.weight.grad.abs().sum() > 0
    encoder.eval()
    assert not any(module.training for module in encoder.modules())


@TOKENS
@torch.no_grad()
def test_it_runs_at_other_sizes(entry):
    for size in (2 * 224, entry.patch * 7):
        features = tiny.encoder(entry, size)(tiny.pixels(1))
        assert features.dense[0].shape[2:] == (size // entry.patch,) * 2
        assert features.cls.isfinite().all()


def test_a_size_that_the_patch_does_not_divide_is_refused():
    with pytest.raises(RadprobeError, match="multiples of its patch, 14 px"):
        tiny.encoder(tiny.TOKENS["dinov2"], 225)
    with pytest.raises(RadprobeError, match=r"only the sides \[1024\]"):
        tiny.encoder(tiny.like("sam_large", options=tiny.SAM), 224)


def test_more_blocks_than_there_are_is_refused():
    with pytest.raises(RadprobeError, match=r"asks for 4 blocks, but .* has 3"):
        tiny.encoder(tiny.TOKENS["dinov2"], 224, blocks=4)


def test_an_unknown_architecture_is_told_by_its_library():
    for library in ("timm", "transformers", "open_clip"):
        entry = tiny.like("test_vit", library=library, name="no_such_model")
        with pytest.raises(RadprobeError, match=f"{library} cannot build 'no_such_model'"):
            architectures.build(entry)


def test_a_final_norm_that_follows_pooling_is_refused_for_tokens():
    entry = tiny.like("test_vit", options={"global_pool": "avg", "fc_norm": True})
    with pytest.raises(RadprobeError, match="set pool: library"):
        architectures.build(entry)
    pooled = tiny.encoder(entry.model_copy(update={"pool": "library"}), 160)
    with torch.no_grad():
        expected = pooled.tower.model(pooled.normalise(tiny.pixels()))
        assert_close(pooled(tiny.pixels()).cls[:, 0], expected, atol=1e-5, rtol=1e-5)


@TOKENS
@torch.no_grad()
def test_a_random_twin_sees_its_image(entry):
    """A control whose vector is a constant would be beaten by anything."""
    images = torch.stack([(tiny.pixels(1, seed=seed)[0].float() * (0.2 + 0.1 * seed)).byte() for seed in range(6)])
    images[:, :80] = torch.arange(6, dtype=torch.uint8)[:, None, None] * 40
    encoder = tiny.encoder(entry, 224)
    exact = encoder(images).cls[:, -1]
    with torch.autocast("cpu", torch.bfloat16):
        coarse = encoder(images).cls[:, -1].half().float()
    spread = (exact - exact.mean(0)).norm(dim=1).mean()
    assert spread > 3 * (coarse - exact).norm(dim=1).mean()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"patch": 32}, "is not that of patches of 32 px"),
        ({"prefix_tokens": 5}, "it has 1 tokens before the patches, not 5"),
        ({"dense_layer": -9}, "fewer than dense_layer asks for"),
        ({"name": "swin_tiny_patch4_window7_224", "patch": None, "pool": "library", "native_size": 224}, "square grid"),
        ({"name": "swin_tiny_patch4_window7_224", "patch": 4, "pool": "mean", "native_size": 224}, "does not run"),
    ],
)
def test_a_recipe_that_the_network_does_not_keep_is_refused_before_any_weights(changes, reason):
    with pytest.raises(RadprobeError, match=reason):
        architectures.check(tiny.like("test_vit", **changes))


def test_the_catalogs_recipes_are_kept():
    for name in ("vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3", "rad_dino", "resnet152", "sam_large"):
        architectures.check(catalog.backbones()[name])


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": {"name": "test_vit", "options": {"checkpoint_path": "x.pth"}}},
        {"architecture": {"name": "hf-hub:someone/model"}},
        {
            "architecture": {
                "library": "open_clip",
                "name": "x",
                "options": {"vision_cfg": {"timm_model_pretrained": True}},
            }
        },
        {"recipe": {"patch": None}},
        {"recipe": {"prefix_tokens": 0}},
    ],
)
def test_options_that_bring_weights_and_vectors_that_are_not_there_are_refused(changes):
    own = {
        "title": "t",
        "file": "f.safetensors",
        "architecture": {"name": "test_vit"},
        "recipe": {"patch": 16, "native_size": 160, "mean": [0.5] * 3, "std": [0.5] * 3, **changes.pop("recipe", {})},
        **changes,
    }
    content = {"study": "s", "datasets": {"montgomery": {}}, "backbones": ["mine"], "own_backbones": {"mine": own}}
    with pytest.raises(RadprobeError, match=r"own_backbones\.mine"):
        Study(content)


# --- positions --------------------------------------------------------------------------------------------------------


def cubic(t, a=-0.75):
    t = abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def official(grid, side):
    """The rule of the official DINOv2 in NumPy: Keys' cubic kernel at ((i + 0.5) * n / (side + 0.1) - 0.5), clamped."""
    n = grid.shape[0]
    weights = np.zeros((side, n))
    for i in range(side):
        at = (i + 0.5) * n / (side + 0.1) - 0.5
        for j in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            weights[i, min(max(j, 0), n - 1)] += cubic(at - j)
    return np.einsum("ai,ijc,bj->abc", weights, grid, weights)


@given(side=st.integers(2, 40), n=st.integers(4, 37), prefix=st.integers(0, 5), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_positions_are_resized_as_the_official_dinov2_does(side, n, prefix, seed):
    positions = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, prefix + n * n, 3)))
    found = architectures.dinov2_positions(positions, side)
    assert torch.equal(found[:, :prefix], positions[:, :prefix])
    expected = official(positions[0, prefix:].unflatten(0, (n, n)).numpy(), side)
    assert_close(found[0, prefix:].unflatten(0, (side, side)), torch.from_numpy(expected), atol=1e-9, rtol=0)


@torch.no_grad()
def test_the_rule_is_the_entrys_and_changes_the_features():
    entry = tiny.TOKENS["dinov2"]
    ours = tiny.encoder(entry, 224)
    timms = tiny.encoder(entry.model_copy(update={"positions": "library"}), 224)
    original = architectures.build(entry).model.pos_embed.shape
    assert original[1] == 1 + 37 * 37
    assert ours.tower.model.pos_embed.shape == timms.tower.model.pos_embed.shape == (1, 257, 64)
    assert not torch.allclose(ours.tower.model.pos_embed, timms.tower.model.pos_embed, atol=1e-3)
    assert not torch.allclose(ours(tiny.pixels()).dense[0], timms(tiny.pixels()).dense[0], atol=1e-2)
    plain = timm.create_model(entry.name, num_classes=0, dynamic_img_size=True, **entry.options).eval()
    native = tiny.encoder(entry, 518).tower.model.state_dict()
    plain.load_state_dict(native)
    images = ours.normalise(tiny.pixels())
    assert_close(timms(tiny.pixels()).cls[:, -1], plain.forward_features(images)[:, 0], atol=1e-5, rtol=1e-5)
    plain.pos_embed.copy_(native["pos_embed"])
    whole = {name: tensor for name, tensor in native.items() if name != "pos_embed"}
    whole["pos_embed"] = architectures.dinov2_positions(native["pos_embed"], 16)
    at_size = timm.create_model(entry.name, num_classes=0, img_size=224, **entry.options).eval()
    at_size.load_state_dict(whole)
    assert_close(ours(tiny.pixels()).cls[:, -1], at_size.forward_features(images)[:, 0], atol=1e-5, rtol=1e-5)


# --- the catalog itself -----------------------------------------------------------------------------------------------

SMALL = 400_000_000  # parameters; larger ones are built on the meta device, which has shapes and no numbers
SIDES = (224, 448)


@pytest.mark.parametrize("name", catalog.encoders())
@torch.no_grad()
def test_every_entry_has_the_shapes_it_states(name):
    entry = catalog.backbones()[name]
    with torch.device("meta"):
        tower = architectures.build(entry)
        if entry.library == "timm" and entry.patch:
            assert getattr(tower.model, "num_prefix_tokens", 0) == entry.prefix_tokens
            assert tower.model.patch_embed.patch_size[0] == entry.patch
        for side in (entry.side(size) for size in SIDES):
            again = architectures.build(entry)
            again.resize(side)
            (layer,), pooled = again(torch.zeros(1, 3, side, side), [entry.dense_layer], entry.pool == "library")
            assert layer.map.shape[2:] == (side // (entry.patch or 16),) * 2
            assert (0 if layer.prefix is None else layer.prefix.shape[1]) == (entry.prefix_tokens if entry.patch else 0)
            assert (pooled is None) == (entry.pool != "library")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.full] if cost.parameters > 250_000_000 else [])
        for name, cost in catalog.costs().items()
        if 0 < cost.parameters < SMALL
    ],
)
@torch.inference_mode()
def test_every_entry_of_a_size_for_this_machine_runs_at_its_sizes(name):
    entry = catalog.backbones()[name]
    for side in dict.fromkeys(entry.side(size) for size in SIDES):
        encoder = backbones.build(entry, tiny.RANDOM, side, 1, [entry.dense_layer])
        features = encoder(tiny.pixels(1, 224))
        assert features.cls.shape == (1, 1, catalog.costs()[name].dim)
        assert features.dense[0].shape[2:] == (side // (entry.patch or 16),) * 2
        assert all(each.isfinite().all() for each in (features.cls, *features.dense))
