import json
import signal
import subprocess
import sys

import numpy as np
import pytest
import running
import torch
import yaml
from frozen import films, prepare, study
from models import tiny

from radprobe.artifacts import Embeddings, Weights
from radprobe.files import RadprobeError
from radprobe.learning import features
from radprobe.learning.augment import Views, moved
from radprobe.manifests import Place, seal
from radprobe.models import backbones
from radprobe.stages import segment

NIH, MONTGOMERY = "nih_chestxray14", "montgomery"
FP32 = {"precision": "fp32", "shard_rows": 4, "batch_size": 3}


def made(root, dataset=NIH, images=None, **knobs):
    s = study(root, dataset, embed={**FP32, **knobs})
    images = films(10, 64) if images is None else images
    prepare(s, dataset, images, masks=np.zeros_like(images), classes=("a",), labels=np.zeros((len(images), 1)))
    return s, s.step("embed", dataset, "test_vit")


def vectors(step):
    found = Embeddings.load(step.folder)
    return [found.cls, found.patch_mean]


def test_it_holds_what_the_encoder_gives_in_the_rows_of_the_index(tmp_path):
    s, step = made(tmp_path, MONTGOMERY)
    running.run(s, step)
    found = Embeddings.load(step.folder)
    weights = Weights.load(step.dependency("weights").folder)
    enc = backbones.build(s.backbone("test_vit"), weights, step.job.encoding.size, 4, [-1])
    expected = enc(torch.from_numpy(films(10, 64)))
    for ours, theirs in ((found.cls, expected.cls), (found.patch_mean, expected.patch_mean)):
        assert ours.dtype == np.float16
        np.testing.assert_allclose(ours, theirs, atol=2e-3)
    np.testing.assert_allclose(found.dense[-1][np.arange(10)], expected.dense[0], atol=2e-3)
    facts = found.facts
    assert (facts["n"], facts["dense"]["-1"], facts["dim"]) == (
        10,
        list(expected.dense[0].shape[1:]),
        expected.cls.shape[-1],
    )


@pytest.mark.parametrize("knobs", [{"shard_rows": 100}, {"shard_rows": 3}, {"shard_rows": 1}])
def test_the_size_of_shards_changes_no_bit(tmp_path, knobs):
    s, step = made(tmp_path / "a")
    running.run(s, step)
    other, again = made(tmp_path / "b", **knobs)
    assert again.key == step.key
    running.run(other, again)
    for one, two in zip(vectors(step), vectors(again), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("knobs", [{"batch_size": 10}, {"batch_size": 1}])
def test_batches_change_only_float_noise(tmp_path, knobs):
    s, step = made(tmp_path / "a")
    running.run(s, step)
    other, again = made(tmp_path / "b", **knobs)
    assert again.key == step.key
    running.run(other, again)
    for one, two in zip(vectors(step), vectors(again), strict=True):
        np.testing.assert_allclose(one, two, atol=2e-3)


def test_bf16_is_near_fp32(tmp_path):
    (s, step), (other, again) = made(tmp_path / "a"), made(tmp_path / "b", precision="bf16")
    running.run(s, step)
    running.run(other, again)
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
    running.run(s, step)
    other, again = made(tmp_path / "b")
    with monkeypatch.context() as patch:
        calls(patch, fail_at=4)  # one for the shapes, two for the first shard, one of the second
        with pytest.raises(Killed):
            running.run(other, again)
    assert not (again.folder / "embeddings.json").exists()
    with monkeypatch.context() as patch:
        seen = calls(patch)
        running.run(other, again)
    assert seen == [1, 3, 3, 3]  # one image for the shapes; the second shard in two passes; the third, filled up
    for one, two in zip(vectors(step), vectors(again), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.survives(
    "bug", "weights that change while a frozen backbone embeds", "it fails, and there are no features"
)
@pytest.mark.parametrize(
    "write",
    [
        lambda weights: weights.mul_(2),  # as an optimiser does
        lambda weights: weights.data.mul_(2),  # these two: unnoticed by torch's counter of writes
        lambda weights: np.multiply(weights.detach().numpy(), 2, out=weights.detach().numpy()),
    ],
)
def test_a_backbone_that_does_not_stay_frozen_is_refused(tmp_path, monkeypatch, write):
    s, step = made(tmp_path)
    forward = backbones.Encoder.forward

    def learning(self, pixels, ranges):
        write(self.tower.model.pos_embed)
        return forward(self, pixels, ranges)

    with monkeypatch.context() as patch:
        patch.setattr(backbones.Encoder, "forward", learning)
        with pytest.raises(RadprobeError, match=r"tower\.model\.pos_embed changed while it was frozen"):
            running.run(s, step)
    assert not list(step.folder.glob("*.json"))  # so that no shard of it is taken for whole
    seen = calls(monkeypatch)
    running.run(s, step)
    assert sum(seen) > 10


def test_a_backbone_that_drops_a_row_is_refused(tmp_path, monkeypatch):
    s, step = made(tmp_path)
    forward = features.Source._forward
    monkeypatch.setattr(
        features.Source, "_forward", lambda self, rows: {kind: each[1:] for kind, each in forward(self, rows).items()}
    )
    monkeypatch.setattr(features.Source, "shapes", {"cls": (4, 64), "patch_mean": (64,)})
    with pytest.raises(RadprobeError, match="gives 2 cls features for 3 images"):
        running.run(s, step)
    assert not list(step.folder.glob("*.json"))


@pytest.mark.survives("fault", "a changed shard of features", "that shard is made again")
def test_a_corrupt_shard_is_made_again_and_only_that(tmp_path, monkeypatch):
    s, step = made(tmp_path)
    running.run(s, step)
    before = vectors(step)
    path = step.folder / "00001.cls.npy"
    path.write_bytes(path.read_bytes()[:-2] + b"xx")
    with pytest.raises(RadprobeError, match="manifest set aside"):
        Embeddings.load(step.folder)
    seen = calls(monkeypatch)
    running.run(s, step)
    assert len(seen) == 3  # shapes; the shard in two passes
    for one, two in zip(before, vectors(step), strict=True):
        np.testing.assert_array_equal(one, two)


def test_shards_of_another_size_or_of_other_pixels_are_not_taken_for_ours(tmp_path, monkeypatch):
    s, step = made(tmp_path)
    running.run(s, step)
    other, again = made(tmp_path, shard_rows=2)
    assert again.folder == step.folder
    running.run(other, again)
    names = {path.name for path in again.folder.glob("0*.cls.npy")}
    assert names == {f"{i:05d}.cls.npy" for i in range(5)} == {n for n in _manifest(again) if ".cls." in n}
    changed, third = made(tmp_path, shard_rows=2, images=films(10, 64, seed=1))
    seen = calls(monkeypatch)
    running.run(changed, third)
    assert len(seen) == 6  # shapes; five shards


def _manifest(step):
    return json.loads((step.folder / "embeddings.json").read_text())["files"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("rows", [[3], [9, 2], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [5, 5, 1, 7]])
def test_maps_beyond_the_budget_are_made_again_and_are_those_that_would_be_stored(tmp_path, precision, rows):
    s, step = made(tmp_path / "a", MONTGOMERY, precision=precision, views=1)
    running.run(s, step)
    cached = features.Cached(Embeddings.load(step.folder))
    other, again = made(tmp_path / "b", MONTGOMERY, precision=precision, views=1, max_dense_cache_gb=1e-6)
    running.run(other, again)
    found = Embeddings.load(again.folder)
    assert found.facts["streamed"]
    assert not found.dense
    np.testing.assert_array_equal(found.tokens, Embeddings.load(step.folder).tokens)
    reading = other.step("segment", MONTGOMERY, "test_vit")
    streamed = features.Streamed(segment.source_of(reading.job.embed, reading.inputs, other.runtime(reading)))
    assert streamed.shapes == cached.shapes
    layers = sorted(cached.shapes)
    assert len(layers) > 1
    for view in (0, 1):
        pairs = zip(*(dense.take(np.array(rows), layers, view) for dense in (cached, streamed)), strict=True)
        assert all(torch.equal(one, two.cpu()) for one, two in pairs)


def test_augmented_copies_are_crops_of_the_stored_image_and_follow_the_images_view_by_view(tmp_path):
    s, step = made(tmp_path, views=2)
    running.run(s, step)
    found, images = Embeddings.load(step.folder), torch.from_numpy(films(10, 64))
    encoder = backbones.build(
        s.backbone("test_vit"), Weights.load(step.dependency("weights").folder), step.job.encoding.size, 4
    )
    views, whole = Views("crop", 10, s.params.seed, 2), features.extremes(images)
    plain, *copies = found.views()
    assert len(copies) == 2
    np.testing.assert_array_equal(np.stack(plain[0], axis=1), found.cls)
    for view, (tokens, patch_mean) in enumerate([plain, *copies]):
        seen = moved(images.float(), views.matrices(range(10), view), nearest=False) if view else images
        expected = encoder(seen, whole)  # on the grey scale of the whole image, not of the crop
        np.testing.assert_allclose(np.stack(tokens, axis=1), expected.cls, atol=2e-3)
        np.testing.assert_allclose(patch_mean, expected.patch_mean, atol=2e-3)
    assert np.abs(np.stack(copies[0][0]) - np.stack(copies[1][0])).max() > 0.05
    assert np.abs(np.stack(copies[0][0]) - np.stack(plain[0])).max() > 0.05


KILLED = """
import os, signal, sys
from radprobe.learning import features
from radprobe.learning.augment import Views, moved
from radprobe.manifests import seal
from radprobe.models import backbones
from radprobe.stages import embed
from radprobe.study import Study
forward, left = backbones.Encoder.forward, [int(sys.argv[2])]
def counted(self, *given):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return forward(self, *given)
backbones.Encoder.forward = counted
study = Study(sys.argv[1])
step = study.step("embed", "montgomery", "test_vit")
embed.run(step.job, step.inputs, study.runtime(step))
"""


@pytest.mark.survives("fault", "kill -9 of an embedding", "one shard is lost; the same bytes")
@pytest.mark.slow
def test_a_real_kill_loses_one_shard_at_most_and_changes_no_byte(tmp_path, monkeypatch):
    s, step = made(tmp_path / "a", MONTGOMERY)
    running.run(s, step)
    for at in (3, 5, 6):
        other, again = made(tmp_path / str(at), MONTGOMERY)
        params = tmp_path / f"{at}.yaml"
        params.write_text(yaml.safe_dump(other.params.model_dump(mode="json")))
        died = subprocess.run([sys.executable, "-c", KILLED, str(params), str(at)], capture_output=True, check=False)
        assert died.returncode == -signal.SIGKILL
        with monkeypatch.context() as patch:
            seen = calls(patch)
            running.run(other, again)
        # passes: one for the shapes; two, two and one for the shards; at most a shard (of two) is done again
        done, anew = at - 2, len(seen) - 1
        assert anew <= 5 - done + 2
        for name in _manifest(step):
            assert (step.folder / name).read_bytes() == (again.folder / name).read_bytes()
        assert not list(again.folder.glob("*.partial"))


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
        running.run(s, step)
    assert not (step.folder / "embeddings.json").exists()


@pytest.mark.parametrize("name", tiny.STAGES)
def test_it_holds_the_pooled_stages_of_a_cnn_each_of_its_own_width(tmp_path, name):
    encoder, images = tiny.encoder(tiny.STAGES[name], 160, blocks=4), films(5, 64)
    views = Views("crop", 5, 0, 1)
    source = features.Source(encoder, {}, images, None, views, [*"abcde"], "fp32", 2, torch.device("cpu"))
    facts, names = features.encode(source, features.Store(tmp_path, 4, "test", 20))
    seal(Place(tmp_path, "key"), Embeddings.KIND, facts, names)
    found, expected = Embeddings.load(tmp_path), encoder(torch.from_numpy(images))
    assert sorted(found.stages) == [-4, -3, -2]
    for layer, stage in found.stages.items():
        assert stage.dtype == np.float16
        assert facts["stages"][f"stage{-layer}"] == stage.shape[1]
        np.testing.assert_allclose(stage[:5], expected.stages[layer], atol=2e-3, rtol=2e-3)
    plain, copies = found.views()
    assert [each.shape for each in plain[0]] == [each.shape for each in copies[0]]
    assert [each.shape[1] for each in plain[0]] == [
        found.stages[-4].shape[1],
        found.stages[-3].shape[1],
        found.stages[-2].shape[1],
        found.cls.shape[2],
    ]
    np.testing.assert_array_equal(plain[0][-1], found.cls[:, -1])
    assert not np.array_equal(plain[0][0], copies[0][0])
