import json

import pytest
import torch

from radprobe.files import RadprobeError
from radprobe.models import decoders

STATISTICS = [(torch.randn(8), torch.rand(8) + 0.5) for _ in range(5)]
PLANS = {
    "linear": ({}, 1),
    "unet": ({"widths": (8, 4)}, 3),
    "unet@paper": ({}, 5),
    "scratch-unet": ({"width": 4, "side": 32}, 0),
    "scratch-transunet": ({"width": 8, "side": 32}, 0),
}


@pytest.mark.parametrize("kind", PLANS)
def test_a_decoder_that_was_saved_and_loaded_gives_the_same_logits(tmp_path, kind):
    options, maps = PLANS[kind]
    plan = decoders.DecoderPlan(kind, 3, **options)
    decoder = decoders.build(plan, STATISTICS[:maps])
    decoder.train()([torch.randn(2, 8, 4, 4)] * maps or [torch.randn(2, 1, 32, 32)], (32, 32))  # norms move
    decoders.save(tmp_path / "it.safetensors", decoder, plan, {"layers": [-1]})
    loaded, facts = decoders.load(tmp_path / "it.safetensors")
    assert facts == {"layers": [-1], "plan": json.loads(json.dumps(plan.header))}
    images = [torch.randn(1, 8, 4, 4) for _ in range(maps)] or [torch.randn(1, 1, 32, 32)]
    with torch.inference_mode():
        assert torch.equal(loaded(images, (32, 32)), decoder.eval()(images, (32, 32)))


@pytest.mark.parametrize("content", [b"", b"no safetensors", b"\x02\0\0\0\0\0\0\0{}"])
def test_what_is_no_decoder_is_refused_by_name(tmp_path, content):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(RadprobeError, match=r"bad\.safetensors: is no decoder of ours"):
        decoders.load(path)
