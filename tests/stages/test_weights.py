import pytest
import running
import torch
from safetensors.torch import save_file

from radprobe import catalog, files
from radprobe.artifacts import Weights
from radprobe.files import RadprobeError
from radprobe.models.architectures import build as architecture
from radprobe.study import Study


@pytest.mark.survives("fault", "weights that change under one name", "refused")
def test_weights_without_a_known_hash_must_stay_those_of_their_first_use(tmp_path):
    own = {"mine": {"like": "test_vit", "title": "Mine", "file": "mine.safetensors"}}
    paths = {"root": str(tmp_path), "weights": "weights"}
    file = tmp_path / "weights/mine.safetensors"
    file.parent.mkdir()
    entry = catalog.backbones()["test_vit"]

    def put(seed):
        torch.manual_seed(seed)
        save_file(architecture(entry).model.state_dict(), file)

    def verified():
        params = {"study": "s", "paths": paths, "datasets": {"montgomery": {}}, "backbones": ["mine"]}
        chosen = Study({**params, "own_backbones": own})
        step = chosen.step("weights", None, "mine")
        running.run(chosen, step)
        return Weights.load(step.folder)

    put(0)
    assert verified().sha256 == verified().sha256 == files.sha256(file)
    put(1)
    with pytest.raises(RadprobeError, match="when first used"):
        verified()
    own["mine"]["sha256"] = files.sha256(file)  # stated, so it is meant
    assert verified().sha256 == files.sha256(file)
