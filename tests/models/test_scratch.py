import pytest
import torch
from torch.nn.functional import cross_entropy

from radprobe.models import scratch

NETWORKS = {"unet": lambda side: scratch.unet(3, 4), "transunet": lambda side: scratch.transunet(3, side, 4)}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("side", [32, 80])
def test_logits_have_the_size_of_the_image_and_train_all_there_is(name, side):
    torch.manual_seed(0)
    network, images = NETWORKS[name](side), torch.rand(2, 1, side, side)
    labels = (images[:, 0] > 0.5).long()
    before = {key: value.clone() for key, value in network.named_parameters()}
    adam = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(3):  # the last norm of a residual block starts at 0, and what is before it learns a step later
        adam.zero_grad()
        logits = network(images)
        cross_entropy(logits, labels).backward()
        adam.step()
    assert logits.shape == (2, 3, side, side)
    still = [key for key, value in network.named_parameters() if torch.equal(value, before[key])]
    assert still == []


@pytest.mark.parametrize("name", NETWORKS)
def test_it_learns_an_image_by_heart(name):
    torch.manual_seed(0)
    network, images = NETWORKS[name](32), torch.rand(1, 1, 32, 32) * 0.2
    labels = torch.zeros((1, 32, 32), dtype=torch.long)
    labels[:, 4:20, 6:18], labels[:, 22:30, 20:30] = 1, 2
    images += labels[:, None] * 0.3
    adam = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(80):
        adam.zero_grad()
        logits = network(images)
        cross_entropy(logits, labels).backward()
        adam.step()
    found = logits.argmax(1)
    for label in (1, 2):
        both = ((found == label) & (labels == label)).sum()
        assert 2 * both / ((found == label).sum() + (labels == label).sum()) > 0.9


def test_at_width_64_they_are_the_studys():
    with torch.device("meta"):
        unet, transunet = scratch.unet(3), scratch.transunet(3, 448)
        assert transunet(torch.zeros(1, 1, 448, 448)).shape == (1, 3, 448, 448)
    widths = sorted({module.out_channels for module in unet.modules() if isinstance(module, torch.nn.Conv2d)})
    assert widths == [3, 64, 128, 256, 512, 1024]
    assert len(transunet.encoder.blocks) == 24
    assert transunet.encoder.embed_dim == 1024
    assert [len(stage.blocks) for stage in transunet.encoder.patch_embed.backbone.stages] == [3, 4, 9]
    millions = [round(sum(p.numel() for p in network.parameters()) / 1e6) for network in (unet, transunet)]
    assert millions == [31, 322]
