import numpy as np
import pytest
from frozen import PARTS, prepare, study

from radprobe import artifacts
from radprobe.artifacts import Embeddings, Predictions
from radprobe.files import RadprobeError
from radprobe.stages import segment

MONTGOMERY, CLASSES, N, SIDE = "montgomery", ("left lung", "right lung"), 16, 32
KNOBS = {"linear": {"learning_rates": [0.001, 0.1], "epochs": 30, "batch_size": 4}, "unet": None, "few_shot": None}
FACTS = {"seconds": 2.0, "peak_gb": 0.5, "streamed": False, "seed": 0, "views": 0, "decoders": {"linear": [-1]}}


def made(root, masks=None):
    """A study whose dense maps hold the labels of their cells, under noise; originals are 40 x 24."""
    s = study(root, MONTGOMERY, segment=KNOBS)
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.integers(0, 3, (N, 2, 2)), np.ones((4, 4), int))
    truth = np.kron(coarse, np.ones((4, 4), int)).astype(np.uint8) if masks is None else masks
    prepare(s, MONTGOMERY, np.zeros((N, SIDE, SIDE), np.uint8), masks=truth, classes=CLASSES)
    step = s.step("prepare", MONTGOMERY)
    pixels = artifacts.Pixels.load(step.folder)
    artifacts.Pixels(pixels.images, pixels.masks, np.tile([40, 24], (N, 1))).save(step.folder, step.spec)
    step = s.step("embed", MONTGOMERY, "test_vit")
    dense = rng.normal(size=(N, 6, 8, 8), scale=0.3)
    for label in range(3):
        dense[:, label] += coarse == label
    names = ["00000.cls.npy", "00000.dense1.npy", "00001.cls.npy", "00001.dense1.npy"]
    for name, array in zip(
        names, (dense[:7, None, :, 0, 0], dense[:7], dense[7:, None, :, 0, 0], dense[7:]), strict=True
    ):
        artifacts.write_array(step.folder / name, array.astype(np.float16))
    artifacts.seal(step.folder, Embeddings.KIND, step.spec, FACTS, names)
    return s, s.step("segment", MONTGOMERY, "test_vit"), coarse


def test_it_predicts_val_and_test_on_the_original_grid_and_learns(tmp_path):
    s, step, coarse = made(tmp_path)
    segment.run(s, step)
    found = Predictions.load(step.folder)
    maps = found.maps["linear-decoder"]
    assert list(maps) == [f"film{i:04d}" for part in ("val", "test") for i in range(N) if PARTS[i % 4] == part]
    assert set(maps.table["part"]) == {"val", "test"}
    for case in maps:
        truth = np.kron(coarse[int(case.removeprefix("film"))], np.ones((5, 3), int))
        assert maps[case].shape == truth.shape == (40, 24)
        assert (maps[case] == truth).mean() > 0.75
    facts = found.facts["protocols"]["linear-decoder"]
    assert facts["chosen"]["learning_rate"] == 0.1
    assert 1 <= facts["chosen"]["epochs"] <= 30
    assert [candidate["learning_rate"] for candidate in facts["candidates"]] == [0.001, 0.1]
    assert (facts["n_train"], facts["n_val"], facts["n_test"]) == (8, 4, 4)


def test_the_same_job_gives_the_same_bytes_and_test_masks_change_nothing(tmp_path):
    s, step, coarse = made(tmp_path / "a")
    masks = np.kron(coarse, np.ones((4, 4), int)).astype(np.uint8)
    masks[3::4] = 1
    other, again, _ = made(tmp_path / "b", masks)
    for which in ((s, step), (other, again)):
        segment.run(*which)
    name = "linear-decoder.bin"
    assert (step.folder / name).read_bytes() == (again.folder / name).read_bytes()


def test_masks_that_are_absent_or_beyond_the_classes_stop_it(tmp_path):
    with pytest.raises(RadprobeError, match="have label 3"):
        segment.run(*made(tmp_path / "a", np.full((N, SIDE, SIDE), 3, np.uint8))[:2])
    s, step, _ = made(tmp_path / "b")
    (step.need("split").folder / "leaks.json").unlink()
    with pytest.raises(RadprobeError, match=r"leaks\.json"):
        segment.run(s, step)
