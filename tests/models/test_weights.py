import http.server
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from radprobe import catalog, files
from radprobe.artifacts import Weights
from radprobe.files import RadprobeError
from radprobe.models import weights

TINY = catalog.backbones()["test_vit"].model_copy(update={"random": False, "local": ["tiny.safetensors"]})
CNN = catalog.backbones()["tf_efficientnet_lite0"].model_copy(
    update={"name": "test_efficientnet.r160_in1k", "sha256": None}
)


def obtain(tmp_path, entry, local=None, hub=False):
    return weights.obtain("tiny", entry, local, tmp_path / "step", tmp_path / "weights", 7, hub)


def write(tmp_path, change=lambda state: None, entry=TINY):
    state = weights.architecture(entry).state_dict()
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
    found.save(tmp_path / "artifact", "spec")
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
        (lambda state: state["norm.bias"].fill_(torch.nan), "norm.bias has NaN"),
    ],
)
def test_a_wrong_tensor_is_named(tmp_path, change, named):
    with pytest.raises(RadprobeError) as error:
        obtain(tmp_path, TINY, write(tmp_path, change))
    assert named in str(error.value)


def test_the_checkpoints_own_classifier_may_be_there_or_not(tmp_path):
    for change in (lambda state: None, lambda state: [state.pop(name) for name in ("head.weight", "head.bias")]):
        found = obtain(tmp_path, TINY, write(tmp_path, change))
        assert not any(name.startswith("head.") for name in weights.read(found.file, TINY))


def test_wrong_hash_truncated_file_and_pickle_are_refused(tmp_path):
    path = write(tmp_path)
    with pytest.raises(RadprobeError, match="not the known 00"):
        obtain(tmp_path, TINY.model_copy(update={"sha256": "00"}), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RadprobeError, match="no complete safetensors"):
        obtain(tmp_path, TINY, path)
    torch.save({}, path)
    with pytest.raises(RadprobeError, match="no complete safetensors"):
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
    ours = weights.architecture(CNN).state_dict()
    entry = package(tmp_path, monkeypatch, {f"their.{i}": tensor for i, tensor in enumerate(ours.values())})
    found = obtain(tmp_path, entry)
    assert found.source.startswith("package:")
    assert found.file.parent == tmp_path / "step"
    assert all(torch.equal(tensor, ours[name]) for name, tensor in load_file(found.file).items())


def test_a_package_of_other_shapes_or_bytes_is_refused(tmp_path, monkeypatch):
    ours = list(weights.architecture(CNN).state_dict().values())
    entry = package(
        tmp_path, monkeypatch, {f"their.{i}": tensor for i, tensor in enumerate([ours[1], ours[0], *ours[2:]])}
    )
    with pytest.raises(RadprobeError, match=r"their\.0 is"):
        obtain(tmp_path, entry)
    (tmp_path / "theirs.pth").write_bytes(b"other")
    with pytest.raises(RadprobeError, match="not the known"):
        obtain(tmp_path, entry)


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
