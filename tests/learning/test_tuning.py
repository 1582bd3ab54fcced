import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from radprobe.learning import tuning
from radprobe.learning.augment import Views
from radprobe.learning.features import Grey
from radprobe.learning.loop import Schedule
from radprobe.models.tuned import LinearHead

CPU, N, SIDE, CLASSES = torch.device("cpu"), 12, 8, 3


class Network(nn.Module):
    """In the place of a backbone: the mean of each quarter of an image."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Identity()
        self.scale = nn.Parameter(torch.ones(4))
        self.head = LinearHead(torch.full((4,), 0.5), torch.full((4,), 0.1), CLASSES)
        nn.init.normal_(self.head.weight)

    def vectors(self, images):
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1) * self.scale

    def forward(self, vectors):
        return self.head(vectors)


def images(rows, labels=None, every=5):
    pixels = np.random.default_rng(0).integers(0, 255, (N, SIDE, SIDE)).astype(np.uint8)
    grey = Grey(pixels, None, SIDE, Views("crop", N, 0, None))
    labels = torch.zeros((len(rows), CLASSES)) if labels is None else labels
    return tuning.Images(grey, [np.array(each) for each in rows], labels, CPU, every)


@pytest.mark.parametrize("rows", [[[i] for i in range(N)], [[0, 1, 2], [3], list(range(4, N))]])
def test_a_case_is_the_mean_vector_of_all_its_images(rows):
    network, given = Network(), images(rows)
    with torch.no_grad():
        expected = [network(network.vectors(given.take(np.array(each))).mean(0, keepdim=True)) for each in rows]
    torch.testing.assert_close(tuning.logits(network, given), torch.cat(expected))


@pytest.mark.parametrize("exclusive", [False, True])
def test_the_loss_is_torchs_without_what_is_unknown(exclusive):
    network, generator = Network(), torch.Generator().manual_seed(0)
    x, case = torch.rand((6, 1, SIDE, SIDE), generator=generator), torch.tensor([0, 0, 1, 2, 2, 3])
    labels = (
        torch.eye(CLASSES)[[0, 2, 1, 0]] if exclusive else torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]])
    )
    labels[3] = torch.nan
    if not exclusive:
        labels[0, 1] = torch.nan
    found = tuning._loss(network, tuning.ImageBatch(x, case, labels), exclusive)
    vectors = network.vectors(x)
    logits = network(torch.stack([vectors[case == each].mean(0) for each in range(4)]))
    if exclusive:
        expected = cross_entropy(logits[:3], labels[:3].argmax(1), reduction="sum") / 4
    else:
        known = ~labels.isnan()
        expected = binary_cross_entropy_with_logits(logits[known], labels[known], reduction="sum") / 4
    torch.testing.assert_close(found, expected)


def test_a_batch_holds_so_many_images_and_of_a_volume_so_many_slices():
    volumes = images([range(0, 6), range(6, 9), range(9, 12)])
    assert volumes.together(batch_size=8, slices=4) == 2
    assert volumes.together(batch_size=2, slices=4) == 1
    assert images([[i] for i in range(N)]).together(batch_size=8, slices=4) == 8
    how = tuning.TuningRecipe(8, 4, False, 0.1, 0.1, Schedule(1, seed=0))
    batches = [list(tuning._batches(volumes, how, 0, torch.Generator().manual_seed(seed))) for seed in (0, 0, 1)]
    for batch in batches[0]:
        counts = torch.bincount(batch.case)
        assert counts.max() <= 4
        assert len(counts) == len(batch.labels) <= 2
    assert torch.equal(batches[0][0].images, batches[1][0].images)
    assert sum(len(batch.labels) for batch in batches[0]) == 3


def test_logits_under_autocast_have_full_precision():
    network = Network()
    vectors = torch.rand((2000, 4), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = network(vectors)
    assert found.dtype == torch.float32
    assert len(found[:, 0].unique()) > 1900
