import http.server
import re
import threading

import pytest
import timm
import torch
from models import tiny
from safetensors.torch import load_file, save_file

from radprobe import catalog, files
from radprobe.artifacts import Weights
from radprobe.files import RadprobeError
from radprobe.manifests import Place
from radprobe.models import architectures, weights

TINY = catalog.backbones()["test_vit"].model_copy(update={"random": False, "local": ["tiny.safetensors"]})
CNN = catalog.backbones()["tf_efficientnet_lite0"].model_copy(
    update={"name": "test_efficientnet.r160_in1k", "sha256": None}
)


def obtain(tmp_path, entry, local=None, hub=False):
    return weights.obtain("tiny", entry, local, tmp_path / "step", tmp_path / "weights", 7, hub)


def write(tmp_path, change=lambda state: None, entry=TINY):
    state = timm.create_model(entry.name).state_dict()  # with its classifier
    change(state)
    path = tmp_path / "tiny.safetensors"
    save_file(state, path)
    return path


def test_local_file_is_verified_recorded_and_found_again(tmp_path):
    path = write(tmp_path)
    found = obtain(tmp_path, TINY, path)
    assert (found.file, found.sha256, found.source) == (path, files.sha256(path), "local")
    state = load_file(path)
    assert found.facts["parameters"] == sum(tensor.numel() for tensor in state.values())
    assert (found.facts["tensors"], found.facts["dtype"]) == (len(state), "F32")
    found.save(Place(tmp_path / "artifact", "key"))
    assert Weights.load(tmp_path / "artifact") == found


def rename(state):
    state["other.weight"] = state.pop("norm.weight")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: state.pop("blocks.0.norm1.weight"), "lacks tensor blocks.0.norm1.weight"),
        (lambda state: state.update({"neck.weight": torch.ones(2)}), "unknown tensor neck.weight"),
        (rename, "lacks tensor norm.weight"),
        (lambda state: state.update({"norm.bias": torch.ones(3)}), "norm.bias is [3], not [64]"),
        (lambda state: state.update({"norm.bias": torch.ones(64, dtype=torch.int8)}), "quantised ones are not read"),
        (lambda state: state["norm.bias"].fill_(torch.nan), "norm.bias has NaN"),
    ],
)
def test_d18_a_wrong_tensor_is_named(tmp_path, change, named):
    with pytest.raises(RadprobeError) as error:
        obtain(tmp_path, TINY, write(tmp_path, change))
    assert named in str(error.value)


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_d18_what_fills_a_network_fits_all_of_it(tmp_path, library):
    tower = architectures.build(TINY if library == "timm" else tiny.TOKENS["msn"])
    state = tower.model.state_dict()
    some = [name for name in state if name.endswith("bias")][1]
    for change in ({some: None}, {"neck.weight": torch.ones(2)}, {some: torch.ones(3)}):
        other = {name: each for name, each in {**state, **change}.items() if each is not None}
        with pytest.raises(RadprobeError, match=next(iter(change))):
            weights.fill(tower, other, tmp_path)


def test_the_checkpoints_own_classifier_may_be_there_or_not(tmp_path):
    for change in (lambda state: None, lambda state: [state.pop(name) for name in ("head.weight", "head.bias")]):
        found = obtain(tmp_path, TINY, write(tmp_path, change))
        assert not any(name.startswith("head.") for name in weights.read(found.file, TINY))


@pytest.mark.survives("fault", "weights of other bytes than are known", "refused")
def test_wrong_hash_truncated_file_and_pickle_are_refused(tmp_path):
    path = write(tmp_path)
    with pytest.raises(RadprobeError, match="not the known 00"):
        obtain(tmp_path, TINY.model_copy(update={"sha256": "00"}), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RadprobeError, match="no complete safetensors"):
        obtain(tmp_path, TINY, path)
    torch.save({}, path)
    with pytest.raises(RadprobeError, match="a pickle must not be called"):
        obtain(tmp_path, TINY, path)


def test_random_needs_no_file(tmp_path):
    found = obtain(tmp_path, catalog.backbones()["test_vit"])
    assert (found.file, found.source, found.facts) == (None, "random", {"seed": 7})


# --- a package's .pth -------------------------------------------------------------------------------------------------


def package(tmp_path, monkeypatch, state):
    torch.save(state, tmp_path / "theirs.pth")
    monkeypatch.setattr(catalog, "package_folder", lambda package: tmp_path)
    known = {"file": "theirs.pth", "sha256": files.sha256(tmp_path / "theirs.pth")}
    return CNN.model_copy(update={"package": CNN.package.model_copy(update=known)})


def test_a_packages_tensors_are_mapped_by_position(tmp_path, monkeypatch):
    ours = timm.create_model(CNN.name).state_dict()
    entry = package(tmp_path, monkeypatch, {f"their.{i}": tensor for i, tensor in enumerate(ours.values())})
    found = obtain(tmp_path, entry)
    assert found.source.startswith("package:")
    assert found.file.parent == tmp_path / "step"
    assert all(torch.equal(tensor, ours[name]) for name, tensor in load_file(found.file).items())
    assert set(load_file(found.file)) == set(ours) - {"classifier.weight", "classifier.bias"}


def test_a_package_of_other_shapes_or_bytes_is_refused(tmp_path, monkeypatch):
    ours = list(timm.create_model(CNN.name).state_dict().values())
    entry = package(
        tmp_path, monkeypatch, {f"their.{i}": tensor for i, tensor in enumerate([ours[1], ours[0], *ours[2:]])}
    )
    with pytest.raises(RadprobeError, match=r"their\.0 is"):
        obtain(tmp_path, entry)
    (tmp_path / "theirs.pth").write_bytes(b"other")
    with pytest.raises(RadprobeError, match="not the known"):
        obtain(tmp_path, entry)


# --- checkpoints of PyTorch -------------------------------------------------------------------------------------------


class Evil:
    """What a hostile pickle does when it is read."""

    def __reduce__(self):
        return print, ("code of a checkpoint ran",)


@pytest.mark.parametrize("inside", [None, "state_dict", "model"])
def test_a_checkpoint_of_pytorch_is_converted(tmp_path, inside):
    state = timm.create_model(TINY.name).state_dict()
    path = tmp_path / "tiny.pth"
    torch.save({inside: state, "epoch": 3} if inside else state, path)
    found = obtain(tmp_path, TINY.model_copy(update={"sha256": files.sha256(path)}), path)
    assert found.file == tmp_path / "step" / "weights.safetensors"
    assert found.facts["converted_from"] == "tiny.pth"
    assert found.facts["sha256_of_original"] == files.sha256(path)
    assert found.facts["sha256_known"]
    read = weights.read(found.file, TINY)
    assert all(torch.equal(tensor, state[name]) for name, tensor in read.items())


@pytest.mark.survives("attack", "a pickle in .pt that would run code", "refused; no code runs")
def test_a_pickle_that_would_run_code_a_cut_one_and_other_things_are_refused(tmp_path, capfd):
    path = tmp_path / "tiny.pth"
    torch.save({"state_dict": Evil()}, path)
    with pytest.raises(RadprobeError, match="no checkpoint of tensors alone"):
        obtain(tmp_path, TINY, path)
    assert "code of a checkpoint ran" not in capfd.readouterr().out
    torch.save(timm.create_model(TINY.name).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(RadprobeError, match="not complete"):
        obtain(tmp_path, TINY, path)
    torch.save({"weights": [1, 2]}, path)
    with pytest.raises(RadprobeError, match="is not a state dict"):
        obtain(tmp_path, TINY, path)
    assert not (tmp_path / "step" / "weights.safetensors").exists()


# --- other libraries --------------------------------------------------------------------------------------------------


def test_of_a_model_of_open_clip_only_the_vision_tower_is_taken(tmp_path):
    entry = tiny.TOKENS["biomedclip"]
    ours = architectures.build(entry).model.state_dict()
    state = {f"visual.{name}": tensor for name, tensor in ours.items()}
    state |= {"text.transformer.x": torch.ones(2), "logit_scale": torch.ones(1)}
    path = tmp_path / "clip.safetensors"
    save_file(state, path)
    found = obtain(tmp_path, entry, path)
    encoder = tiny.encoder(entry, 160, weights=found)
    assert all(torch.equal(tensor, ours[name]) for name, tensor in encoder.tower.model.state_dict().items())
    save_file({**state, "neck": torch.ones(2)}, path)
    with pytest.raises(RadprobeError, match="unknown tensor neck"):
        obtain(tmp_path, entry, path)
    del state["visual.trunk.norm.weight"]
    save_file(state, path)
    with pytest.raises(RadprobeError, match=r"lacks tensor trunk\.norm\.weight"):
        obtain(tmp_path, entry, path)


def older(state):
    """Name tensors as the checkpoints of ViT and MSN on the hub do."""
    names = {"attention.q_proj": "attention.attention.query", "attention.k_proj": "attention.attention.key"}
    names |= {"attention.v_proj": "attention.attention.value", "attention.o_proj": "attention.output.dense"}
    names |= {"mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}
    found = {}
    for name, tensor in state.items():
        old = re.sub(r"^layers\.", "encoder.layer.", name)
        for ours, theirs in names.items():
            old = old.replace(ours, theirs)
        found[f"vit.{old}"] = tensor
    return found


@pytest.mark.parametrize("name", ["msn", "supervised, transformers"])
def test_a_checkpoint_of_transformers_may_have_older_names(tmp_path, name):
    entry = tiny.TOKENS[name].model_copy(update={"ignored": ["classifier."]})
    ours = {k: v for k, v in architectures.build(entry).model.state_dict().items() if not k.startswith("pooler.")}
    state = {**older(ours), "classifier.weight": torch.ones(3, 64)}
    path = tmp_path / "hf.safetensors"
    save_file(state, path)
    encoder = tiny.encoder(entry, 224, weights=obtain(tmp_path, entry, path))
    found = encoder.tower.model.state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in ours.items())
    for change, named in (
        (lambda each: each.pop("vit.layernorm.weight"), "lacks tensor layernorm.weight"),
        (lambda each: each.update({"vit.neck.weight": torch.ones(2)}), "unknown tensor .*neck.weight"),
        (lambda each: each.update({"vit.layernorm.weight": torch.ones(5)}), r"layernorm.weight is \[5\], not \[64\]"),
    ):
        other = dict(state)
        change(other)
        save_file(other, path)
        with pytest.raises(RadprobeError, match=named):
            obtain(tmp_path, entry, path)


def test_a_tensor_that_is_there_under_two_names_is_refused(tmp_path):
    entry = tiny.TOKENS["biomedclip"]
    ours = architectures.build(entry).model.state_dict()
    path = tmp_path / "two.safetensors"
    save_file({**{f"visual.{name}": each for name, each in ours.items()}, "head.proj.weight": torch.ones(48, 64)}, path)
    with pytest.raises(RadprobeError, match=r"unknown tensor head\.proj\.weight"):
        obtain(tmp_path, entry, path)
    entry = tiny.TOKENS["msn"]
    ours = architectures.build(entry).model.state_dict()
    save_file({**older(ours), **{name: each.clone() for name, each in ours.items()}}, path)
    with pytest.raises(RadprobeError, match="two names"):
        obtain(tmp_path, entry, path)


# --- the hub ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Serve one file on the loopback as the hub does: a commit, an etag, the bytes."""
    content, commit = write(tmp_path).read_bytes(), "a" * 40

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            for name, value in (("X-Repo-Commit", commit), ("ETag", '"tag"'), ("Content-Length", str(len(content)))):
                self.send_header(name, value)
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield content, commit
    server.shutdown()
    server.server_close()


def test_the_hub_file_lands_in_the_folder_of_the_step_with_its_commit(tmp_path, hub):
    content, commit = hub
    found = obtain(tmp_path, TINY.model_copy(update={"repo": "some/repo"}), hub=True)
    assert found.source == f"hub:some/repo@{commit}"
    assert found.file == tmp_path / "step" / "weights.safetensors"
    assert found.file.read_bytes() == content
    assert list(found.file.parent.rglob("*.safetensors")) == [found.file]


def test_offline_says_at_once_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    entry = TINY.model_copy(update={"repo": "some/repo"})
    for hub_allowed in (True, False):
        with pytest.raises(RadprobeError) as error:
            obtain(tmp_path, entry, hub=hub_allowed)
        for word in ("tiny.safetensors", "some/repo", str(tmp_path / "weights")):
            assert word in str(error.value)


def test_a_pickle_of_the_hub_is_converted_and_a_wrong_one_stays_until_it_is_verified(tmp_path, hub, monkeypatch):
    content, _ = hub
    torch.save(load_file(tmp_path / "tiny.safetensors"), tmp_path / "tiny.pth")
    entry = TINY.model_copy(update={"repo": "some/repo", "sha256": "00"})
    with pytest.raises(RadprobeError, match="not the known 00"):
        obtain(tmp_path, entry, hub=True)
    kept = tmp_path / "step/download/model.safetensors"
    assert kept.read_bytes() == content  # a second call need not fetch it again
    found = obtain(tmp_path, entry.model_copy(update={"sha256": files.sha256(kept)}), hub=True)
    assert found.facts["sha256_known"]
    assert not kept.parent.exists()
