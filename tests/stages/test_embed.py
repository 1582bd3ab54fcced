import json

import numpy as np
import pytest
import torch
from frozen import films, prepare, study

from radprobe.artifacts import Embeddings, Weights
from radprobe.files import RadprobeError
from radprobe.models import backbones
from radprobe.stages import embed

NIH, MONTGOMERY = "nih_chestxray14", "montgomery"
FP32 = {"precision": "fp32", "shard_rows": 4, "batch_size": 3}


def made(root, dataset=NIH, images=None, **knobs):
    s = study(root, dataset, embed={**FP32, **knobs})
    images = films(10, 64) if images is None else images
    prepare(s, dataset, images, masks=np.zeros_like(images), classes=("a",), labels=np.zeros((len(images), 1)))
    return s, s.step("embed", dataset, "test_vit")


def vectors(step, dense=False):
    found = Embeddings.load(step.folder, dense)
    return [found.cls, found.patch_mean, *([found.dense[np.arange(10)]] if dense else [])]


def test_it_holds_what_the_encoder_gives_in_the_rows_of_the_index(tmp_path):
    s, step = made(tmp_path, MONTGOMERY)
    embed.run(s, step)
    found = Embeddings.load(step.folder, dense=True)
    weights = Weights.load(step.need("weights").folder)
    enc = backbones.build(s.backbone("test_vit"), weights, step.knobs["size"], 4, [-1])
    expected = enc(torch.from_numpy(films(10, 64)))
    for ours, theirs in ((found.cls, expected.cls), (found.patch_mean, expected.patch_mean)):
        assert ours.dtype == np.float16
        np.testing.assert_allclose(ours, theirs, atol=2e-3)
    np.testing.assert_allclose(found.dense[np.arange(10)], expected.dense[0], atol=2e-3)
    facts = found.facts
    assert (facts["n"], facts["grid"], facts["dim"]) == (10, list(expected.dense[0].shape[2:]), expected.cls.shape[-1])


@pytest.mark.parametrize("knobs", [{"shard_rows": 100}, {"shard_rows": 3}, {"batch_size": 10}, {"batch_size": 1}])
def test_shards_and_batches_change_only_float_noise(tmp_path, knobs):
    s, step = made(tmp_path / "a")
    embed.run(s, step)
    other, again = made(tmp_path / "b", **knobs)
    assert again.spec == step.spec
    embed.run(other, again)
    for one, two in zip(vectors(step), vectors(again), strict=True):
        np.testing.assert_allclose(one, two, atol=2e-3)


def test_bf16_is_near_fp32(tmp_path):
    (s, step), (other, again) = made(tmp_path / "a"), made(tmp_path / "b", precision="bf16")
    embed.run(s, step)
    embed.run(other, again)
    one, two = vectors(step)[0][:, -1].astype(float), vectors(again)[0][:, -1].astype(float)
    cosine = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    assert cosine.min() > 0.999


class Killed(BaseException):
    """Stands for the end of the process."""


def calls(monkeypatch, fail_at=None):
    """Count the images encoded; end the process at some batch."""
    forward, seen = backbones.Encoder.forward, []

    def counted(self, pixels, ranges):
        if fail_at is not None and len(seen) == fail_at:
            raise Killed
        seen.append(len(pixels))
        return forward(self, pixels, ranges)

    monkeypatch.setattr(backbones.Encoder, "forward", counted)
    return seen


def test_after_a_kill_only_what_is_missing_is_encoded_and_the_result_is_the_same(tmp_path, monkeypatch):
    s, step = made(tmp_path / "a")
    embed.run(s, step)
    other, again = made(tmp_path / "b")
    with monkeypatch.context() as patch:
        calls(patch, fail_at=4)  # one for the shapes, two for the first shard, one of the second
        with pytest.raises(Killed):
            embed.run(other, again)
    assert not (again.folder / "embeddings.json").exists()
    with monkeypatch.context() as patch:
        seen = calls(patch)
        embed.run(other, again)
    assert seen == [1, 3, 1, 2]  # shapes; the second shard; the third
    for one, two in zip(vectors(step), vectors(again), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_corrupt_shard_is_made_again_and_only_that(tmp_path, monkeypatch):
    s, step = made(tmp_path)
    embed.run(s, step)
    before = vectors(step)
    path = step.folder / "00001.cls.npy"
    path.write_bytes(path.read_bytes()[:-2] + b"xx")
    with pytest.raises(RadprobeError, match="manifest set aside"):
        Embeddings.load(step.folder)
    seen = calls(monkeypatch)
    embed.run(s, step)
    assert seen == [1, 3, 1]
    for one, two in zip(before, vectors(step), strict=True):
        np.testing.assert_array_equal(one, two)


def test_shards_of_another_size_or_of_other_pixels_are_not_taken_for_ours(tmp_path, monkeypatch):
    s, step = made(tmp_path)
    embed.run(s, step)
    other, again = made(tmp_path, shard_rows=2)
    assert again.folder == step.folder
    embed.run(other, again)
    names = {path.name for path in again.folder.glob("0*.cls.npy")}
    assert names == {f"{i:05d}.cls.npy" for i in range(5)} == {n for n in _manifest(again) if ".cls." in n}
    changed, third = made(tmp_path, shard_rows=2, images=films(10, 64, seed=1))
    seen = calls(monkeypatch)
    embed.run(changed, third)
    assert sum(seen) == 11


def _manifest(step):
    return json.loads((step.folder / "embeddings.json").read_text())["files"]


def test_a_budget_that_is_too_small_stops_before_any_shard(tmp_path):
    s, step = made(tmp_path, MONTGOMERY, max_dense_cache_gb=1e-6)
    with pytest.raises(RadprobeError, match="max_dense_cache_gb"):
        embed.run(s, step)
    assert not list(step.folder.glob("0*"))


@pytest.mark.parametrize(("factor", "why"), [(torch.inf, "NaN or infinite"), (1e6, "beyond the range of float16")])
def test_features_that_float16_cannot_hold_name_the_sample(tmp_path, monkeypatch, factor, why):
    s, step = made(tmp_path)
    wild, forward = torch.from_numpy(films(10, 64)[6]), backbones.Encoder.forward

    def with_one_wild(self, pixels, ranges):
        features = forward(self, pixels, ranges)
        features.cls[(pixels == wild).flatten(1).all(1)] *= factor
        return features

    monkeypatch.setattr(backbones.Encoder, "forward", with_one_wild)
    with pytest.raises(RadprobeError, match=f"sample film0006: .*{why}"):
        embed.run(s, step)
    assert not (step.folder / "embeddings.json").exists()
