import numpy as np
import pytest
import safetensors.numpy
from doctored import look


def test_no_weights_at_all_are_a_problem(folder, capsys):
    well, checks = look(
        capsys, backbones=["rad_dino"], controls={"random_inits": 0, "metadata": False, "ceiling": False}
    )
    assert not well
    assert checks["weights"]["state"] == "problem"
    assert "data/weights" in checks["weights: rad_dino"]["remedy"]


def test_absent_weights_are_said_once_and_not_for_each_random_init(folder, capsys):
    _, checks = look(capsys, backbones=["rad_dino"])  # with the controls that a study has if it says nothing
    assert [name for name in checks if "rad_dino" in name] == ["weights: rad_dino"]


@pytest.mark.parametrize(
    ("kept", "words"), [(1.0, None), (0.9, "bytes are missing"), (0.01, "within its header"), (0, "within its header")]
)
def test_weights_that_are_cut_off_are_a_problem(folder, capsys, kept, words):
    (folder / "data/weights").mkdir(parents=True)
    whole = safetensors.numpy.save({"a": np.zeros((50, 40), np.float32), "b": np.ones(3)}, {"format": "pt"})
    (folder / "data/weights/rad-dino.safetensors").write_bytes(whole[: int(len(whole) * kept)])
    well, checks = look(capsys, backbones=["rad_dino"])
    assert well == (words is None)
    if words:
        assert words in checks["weights: rad_dino"]["found"]
        assert "huggingface.co/microsoft/rad-dino" in checks["weights: rad_dino"]["remedy"]
    assert checks["weights"]["found"] == "here: rad_dino"


def test_the_hub_is_asked_only_where_weights_are_wanted_of_it(folder, capsys, monkeypatch, server):
    monkeypatch.setenv("HF_ENDPOINT", server.url(""))
    _, checks = look(capsys, hub=True, backbones=["mae_large"])
    assert checks["hub"]["state"] == "ok"
    assert "mae_large (about" in checks["hub"]["found"]
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1/")
    well, checks = look(capsys, hub=True, backbones=["mae_large"])
    assert not well
    assert "radprobe pack" in checks["hub"]["remedy"]
    well, checks = look(capsys, hub=True)  # a backbone that needs no weights
    assert well
    assert "hub" not in checks
