"""What a way to adapt says it trains is what moves, and nothing else; what it saves is what it trained."""

import dataclasses

import pytest
import torch
from models import tiny
from safetensors.torch import load_file
from torch.testing import assert_close

from radprobe import catalog
from radprobe.artifacts import Weights
from radprobe.entries import read_adapter
from radprobe.files import RadprobeError
from radprobe.learning import loop
from radprobe.models import adapters, architectures, backbones, weights
from radprobe.models.adapters import BITFIT, END_TO_END, LORA
from radprobe.models.decoders import PixelwiseLinear, UNet
from radprobe.models.tuned import BackboneClassifier, BackboneSegmenter, encode, groups, vectors
from radprobe.names import HEAD, MODES

SWIGLU = tiny.like("vit_giant_patch14_dinov2", 28, options={"depth": 2, "embed_dim": 48, "num_heads": 2})
NETWORKS = {
    "ViT": tiny.like("vit_small_patch14_dinov2", 28, options={"depth": 2, "embed_dim": 48, "num_heads": 2}),
    "ViT with SwiGLU": SWIGLU,
    "CNN": tiny.STAGES["efficientnet"],
    # timm starts its residual branches at 0: no gradient passes them where weights stay as they are
    "CNN with batch norm": tiny.STAGES["resnet"].model_copy(update={"options": {"zero_init_last": False}}),
    "transformers": tiny.TOKENS["rad-dino"],
    "open_clip": tiny.TOKENS["open_clip's own"],
}
SETTINGS = adapters.LoraOptions(rank=4, alpha=8, dropout=0.1)
CASES = [(mode, name) for mode in MODES for name in NETWORKS if not (mode == LORA and "CNN" in name)]
CNN_LORA = dataclasses.replace(SETTINGS, targets=("conv_pw", "conv1"))
RATES, N = (0.01, 0.1), 4


def side(entry):
    return 32 if entry.patch is None else 2 * entry.patch


def images(entry, n=N):
    return torch.rand((n, 1, side(entry), side(entry)), generator=torch.Generator().manual_seed(0))


def encoder(entry, mode, lora=SETTINGS, dense=(), seed=0):
    made = backbones.build(entry, Weights(None, None, "random", {"seed": seed}), side(entry), 1, dense, frozen=False)
    adapters.adapt(made, mode, lora)
    one = encode(made.eval(), images(entry, 1))
    adapters.rest(made, one.dense[0] if dense else one.cls[:, -1])
    return made


def statistics(channels):
    return [(torch.zeros(channels), torch.ones(channels))]


def classifier(entry, mode, **how):
    made = encoder(entry, mode, **how)
    with torch.no_grad():
        channels = vectors(made.eval(), images(entry)).shape[1]
    return BackboneClassifier(made, statistics(channels), 3)


def step(network, parameters, loss, steps=2):
    """Take steps of the loop itself: the first moves LoRA's second matrix only, which starts at 0."""
    schedule = loop.Schedule(steps, seed=0)
    one = torch.device("cpu")
    loop.fit(
        [loop.Trainee("x", network, parameters)],
        lambda *_: [0],
        lambda _: iter([loss()]),
        schedule,
        one,
        steps_per_epoch=1,
    )


def moved(network, before):
    after = network.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def state(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def should_move(network, mode):
    """What must move, said by names alone: of what takes part in the vector or map of this network."""
    names = [name for name, _ in network.named_parameters()]
    head = {name for name in names if name.startswith("head.")}
    backbone = [name for name in names if name.startswith("encoder.tower.model.")]
    if mode == HEAD:
        return head
    if mode == LORA:
        return head | {name for name in backbone if ".lora_A." in name or ".lora_B." in name}
    if mode == BITFIT:
        return head | {name for name in backbone if name.endswith("bias")}
    statistics = {name for name, _ in network.named_buffers() if name.rpartition(".")[2] in STATISTICS}
    return head | set(backbone) | statistics


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def check(network, before, mode):
    """What moved is what was said to be trained, all of it, and belongs to the mode; return what of the mode rests."""
    found = {name for name in moved(network, before) if name.rpartition(".")[2] not in STATISTICS}
    assert found == {name for name, each in network.named_parameters() if each.requires_grad}
    expected = {name for name in should_move(network, mode) if name.rpartition(".")[2] not in STATISTICS}
    assert found <= expected
    if mode != END_TO_END:
        assert moved(network, before) == found  # no statistics either
    resting = expected - found
    whole_blocks = [name for name in resting if "block" in name or "layer." in name]
    assert not whole_blocks or network.encoder.recipe.patch is None
    return resting


@pytest.mark.parametrize(("mode", "name"), CASES)
def test_d02_after_steps_exactly_what_should_have_moved_has_moved_to_classify(mode, name):
    entry = NETWORKS[name]
    network, x = classifier(entry, mode), images(entry)

    def loss():
        return network(network.vectors(x)).square().sum() + network(network.vectors(x))[:, 0].sum()

    before = state(network)
    step(network, groups(network.encoder, network.head, *RATES), loss)
    check(network, before, mode)
    if mode == END_TO_END and "CNN" in name:
        assert any(each.endswith("running_mean") for each in moved(network, before))


@pytest.mark.parametrize("kind", ["linear", "unet"])
@pytest.mark.parametrize(("mode", "name"), CASES)
def test_d02_after_steps_exactly_what_should_have_moved_has_moved_to_segment(mode, name, kind):
    entry = NETWORKS[name]
    made = encoder(entry, mode, dense=backbones.layers(entry, [kind])[kind])
    x = images(entry)
    with torch.no_grad():
        maps = made.eval()(x[:, 0], torch.tensor([[0.0, 1.0]] * N)).dense
    known = [one for each in maps for one in statistics(each.shape[1])]
    network = BackboneSegmenter(
        made, PixelwiseLinear(known, 3) if kind == "linear" else UNet(known, 3, [8, 4]), RATES[0]
    )

    def loss():
        return network([x], (8, 8)).square().mean() + network([x], (8, 8))[:, 0].mean()

    before = state(network)
    step(network, network.groups(RATES[1]), loss)
    resting = check(network, before, mode)
    if "CNN" in name and mode not in (LORA, HEAD) and kind == "linear":  # stages after the map that is read
        assert resting


@pytest.mark.parametrize("name", ["CNN", "CNN with batch norm"])
def test_lora_of_a_cnn_is_refused_with_its_layers_and_done_where_they_are_named(name):
    with pytest.raises(RadprobeError, match=r"no layer of attention or MLP; its layers are called .*conv") as error:
        classifier(NETWORKS[name], LORA)
    assert "adapt.lora.targets" in str(error.value)
    network, x = classifier(NETWORKS[name], LORA, lora=CNN_LORA), images(NETWORKS[name])
    before = state(network)
    step(network, groups(network.encoder, network.head, *RATES), lambda: network(network.vectors(x)).square().sum())
    assert moved(network, before) == should_move(network, LORA)


def test_names_that_no_layer_has_are_refused_by_name():
    with pytest.raises(RadprobeError, match=r"no layer named nowhere; its layers are called .*conv_pw"):
        classifier(NETWORKS["CNN"], LORA, lora=dataclasses.replace(SETTINGS, targets=("nowhere",)))
    with pytest.raises(RadprobeError, match="no layer named conv_dw"):  # by groups of channels: cannot be merged
        classifier(NETWORKS["CNN"], LORA, lora=dataclasses.replace(SETTINGS, targets=("conv_dw",)))


def test_named_layers_are_adapted_besides_those_of_attention_and_mlp():
    model = encoder(NETWORKS["ViT"], END_TO_END).tower.model
    assert set(adapters.targets(model, ["proj"])) > set(adapters.targets(model))


@pytest.mark.parametrize(("size", "share"), [("small", 0.14), ("large", 0.054), ("giant", 0.036)])
def test_lora_of_rank_48_is_the_share_that_the_study_trained(size, share):
    with torch.device("meta"):
        model = architectures.build(catalog.backbones()[f"vit_{size}_patch14_dinov2"]).model
    layers = [model.get_submodule(name) for name in adapters.targets(model)]
    added = sum(48 * (each.in_features + each.out_features) for each in layers)
    assert added / sum(each.numel() for each in model.parameters()) == pytest.approx(share, abs=0.0006)


def test_new_adapters_change_nothing():
    entry = NETWORKS["ViT"]
    plain = backbones.build(entry, tiny.RANDOM, side(entry))
    adapted = encoder(entry, LORA).eval()
    with torch.no_grad():
        assert_close(vectors(adapted, images(entry)), vectors(plain, images(entry)))


@pytest.mark.parametrize("name", NETWORKS)
def test_lora_reaches_query_key_value_and_the_mlp_of_every_block(name):
    model = encoder(NETWORKS[name], END_TO_END).tower.model
    found = adapters.targets(model)
    if "CNN" in name:
        assert found == []
        return
    each = {name.split(".")[-1] for name in found}
    assert each & set(adapters.MLP)
    assert each & set(adapters.ATTENTION) or name == "open_clip"  # its attention is one module of torch
    assert not each & {"proj", "o_proj", "out_proj"}


FAMILIES = {name: entry for name, entry in tiny.TOKENS.items() if name not in ("sam", "biomedclip")}  # fixed sides
MERGED = [case for case in CASES if case[0] != HEAD]
MERGED += [(LORA, "CNN"), *((END_TO_END, name) for name in FAMILIES)]


@pytest.mark.parametrize(("mode", "name"), MERGED)
def test_what_was_trained_is_saved_alone_and_merged_into_plain_weights_that_give_the_same(mode, name, tmp_path):
    entry = {**FAMILIES, **NETWORKS}[name]
    lora = CNN_LORA if "CNN" in name else SETTINGS
    network, x = classifier(entry, mode, lora=lora), images(entry)
    step(network, groups(network.encoder, network.head, *RATES), lambda: network(network.vectors(x)).square().sum())
    network.eval()
    path = tmp_path / "adapter.safetensors"
    base = Weights(None, None, "random", {"seed": 0})
    facts = {
        "backbone": "x",
        "mode": mode,
        "lora": dataclasses.asdict(lora),
        "base": adapters.identity(base),
        "dataset": "d",
    }
    adapters.save(path, network.encoder, network.head.state_dict(), facts)
    told = read_adapter(path)
    found = adapters.merged(entry, base, path, told, tmp_path)
    plain = backbones.build(entry, found, side(entry))
    assert not [name for name, _ in plain.tower.model.named_modules() if name.endswith("base_layer")]
    with torch.no_grad():
        merged, expected = vectors(plain, x), vectors(network.encoder, x)
        untrained = vectors(backbones.build(entry, base, side(entry)), x)
    assert_close(merged, expected, atol=1e-4, rtol=1e-4)
    assert (merged - expected).abs().max() < (merged - untrained).abs().max() / 20
    kept = weights.read(found.file, entry)
    assert set(kept) == set(plain.tower.model.state_dict())


@pytest.mark.parametrize("name", ["ViT", "CNN with batch norm"])
def test_a_head_alone_is_saved_without_its_backbone_and_merges_into_none(name, tmp_path):
    entry, path = NETWORKS[name], tmp_path / "adapter.safetensors"
    network = classifier(entry, HEAD)
    facts = {"backbone": "x", "mode": HEAD, "lora": None, "base": adapters.identity(tiny.RANDOM), "dataset": "d"}
    adapters.save(path, network.encoder, network.head.state_dict(), facts)
    kept = load_file(path)
    assert set(kept) == {f"head.{each}" for each in network.head.state_dict()}
    with pytest.raises(RadprobeError, match="holds nothing of a backbone"):
        adapters.merged(entry, tiny.RANDOM, path, read_adapter(path), tmp_path)


def test_an_adapter_of_other_weights_or_with_other_bytes_is_refused(tmp_path):
    entry = NETWORKS["ViT"]
    network, path = classifier(entry, BITFIT), tmp_path / "adapter.safetensors"
    facts = {"backbone": "x", "mode": BITFIT, "lora": None, "base": adapters.identity(tiny.RANDOM), "dataset": "d"}
    adapters.save(path, network.encoder, network.head.state_dict(), facts)
    told = read_adapter(path)
    other = Weights(None, None, "random", {"seed": 5})
    with pytest.raises(RadprobeError, match="trained from random weights of seed 0, not from random weights of seed 5"):
        adapters.merged(entry, other, path, told, tmp_path)
    wider = entry.model_copy(update={"options": {**entry.options, "embed_dim": 96}})
    with pytest.raises(RadprobeError, match="has no place in"):
        adapters.merged(wider, tiny.RANDOM, path, told, tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(RadprobeError, match="not those that were written"):
        adapters.merged(entry, tiny.RANDOM, path, told, tmp_path)
    path.write_bytes(b"no adapter at all")
    with pytest.raises(RadprobeError, match="no adapter that radprobe wrote"):
        read_adapter(path)
