import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter
from sklearn.tree import DecisionTreeClassifier

from radprobe import catalog
from radprobe.imaging import reading
from radprobe.imaging.volumes import Slicing
from radprobe.phantoms import organs

AMOS, BTCV = (catalog.datasets()[name].classes for name in ("amos", "btcv"))
SHAPE = (72, 80, 18)
quick = settings(max_examples=10, deadline=None)


def drawings(kind, seed):
    rng = np.random.default_rng(seed)
    if kind == "heart":
        return organs.heart(SHAPE, rng)
    if kind == "hippocampus":
        return organs.hippocampus((35, 50, 36), rng)
    return organs.abdomen(SHAPE, {"amos": AMOS, "btcv": BTCV, "spleen": ["spleen"]}[kind], rng)


def features(values, of):
    """What some axial slices show of each pixel: place, value, mean value around it; scaled per volume."""
    low, high = np.percentile(values, [1, 99])
    rows = []
    for z in of:
        image = (values[:, :, z].astype(np.float32) - low) / (high - low)
        x, y = np.indices(image.shape, dtype=np.float32) / np.reshape(image.shape, (2, 1, 1))
        rows.append(np.stack([x, y, image, uniform_filter(image, 3)], axis=-1).reshape(-1, 4))
    return np.concatenate(rows)


@quick
@given(st.integers(0, 10_000))
def test_every_organ_is_in_every_patient(seed):
    for kind, n in (("amos", 15), ("btcv", 13), ("spleen", 1), ("heart", 1), ("hippocampus", 2)):
        values, labels = drawings(kind, seed)
        assert set(np.unique(labels)) == set(range(n + 1))
        assert labels.shape == values.shape
        assert np.isfinite(values).all()
        assert values.std(axis=(0, 1)).min() > 0, "no slice is constant"


@pytest.mark.parametrize("kind", ["amos", "btcv", "spleen", "heart", "hippocampus"])
def test_organs_can_be_learnt_from_single_slices(kind):
    """A tree that sees place and grey value learns on six patients what it finds in the next two."""
    tree = DecisionTreeClassifier(max_depth=14, min_samples_leaf=5, random_state=0)
    train, test = ([drawings(kind, seed) for seed in seeds] for seeds in (range(6), range(6, 8)))
    every = range(0, 18, 2)
    picked = np.random.default_rng(0).permutation(sum(len(features(values, every)) for values, _ in train))[:60_000]
    inputs = np.concatenate([features(values, every) for values, _ in train])
    targets = np.concatenate([labels[:, :, z].reshape(-1) for _, labels in train for z in every])
    tree.fit(inputs[picked], targets[picked])
    truth = np.concatenate([labels[:, :, z].reshape(-1) for _, labels in test for z in every])
    found = np.concatenate([tree.predict(features(values, every)) for values, _ in test])
    dice = [
        2 * ((found == k) & (truth == k)).sum() / ((found == k).sum() + (truth == k).sum()) for k in set(targets) - {0}
    ]
    assert np.mean(dice) > 0.7, dice
    assert min(dice) > 0.3, dice


def test_sides_are_those_of_the_patient():
    _, labels = drawings("amos", 0)
    middle = {name: np.argwhere(labels == k).mean(axis=0) / labels.shape for k, name in enumerate(AMOS, 1)}
    for right, left in (
        ("right kidney", "left kidney"),
        ("right adrenal gland", "left adrenal gland"),
        ("liver", "spleen"),
    ):
        assert middle[right][0] > 0.5 > middle[left][0]
    assert middle["bladder"][2] < middle["left kidney"][2] < middle["esophagus"][2]


@quick
@given(
    st.permutations([0, 1, 2]),
    st.tuples(*[st.booleans()] * 3),
    st.integers(-1100, 100),
    st.tuples(*[st.floats(0.5, 5)] * 3),
)
def test_whatever_the_stored_axes_the_canonical_slices_are_the_same(tmp_path_factory, order, flips, inter, spacing):
    folder = tmp_path_factory.mktemp("scan")
    axes = "".join("RAS"[axis] if not flip else "LPI"[axis] for axis, flip in zip(order, flips, strict=True))
    values, labels = organs.abdomen((20, 24, 9), AMOS, np.random.default_rng(0))
    organs.save(organs.Scan(values, labels, spacing, axes, inter), folder / "i", folder / "l", "a")
    volume = reading.read_volume(folder / "i/a.nii.gz")
    assert "".join(nibabel.aff2axcodes(volume.affine)) == axes
    np.testing.assert_allclose(volume.spacing, np.array(spacing)[list(order)], rtol=1e-5)
    slicing = Slicing.of(volume.affine, "canonical")
    # anterior up, the patient's right at the left: RAS turned by hand
    np.testing.assert_array_equal(slicing.cut(volume.values), values.transpose(2, 1, 0)[:, ::-1, ::-1])
    stored = reading.read_labels(folder / "l/a.nii.gz")
    np.testing.assert_array_equal(slicing.cut(stored), labels.transpose(2, 1, 0)[:, ::-1, ::-1])
