from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radprobe.files import RadprobeError
from radprobe.imaging.volumes import Slicing, same_grid

ALL = list(product(permutations(range(3)), product((1, -1), repeat=3)))  # the 48 orientations
quick = settings(max_examples=60, deadline=None)
orientations = st.sampled_from(ALL)
shapes = st.tuples(*[st.integers(1, 7)] * 3)
spacings = st.tuples(*[st.floats(0.2, 9)] * 3)
hows = st.sampled_from(["canonical", "paper"])


def affine_of(orientation, spacing, tilt=0.0):
    """The affine of a volume whose axes lie along the world's in this order and direction, turned by `tilt` radians."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, way) in enumerate(zip(*orientation, strict=True)):
        affine[world, axis] = way * spacing[axis]
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    affine[:3, 3] = 3, -20, 40
    return turn @ affine


def volume_of(shape, seed=0):
    return np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)


@quick
@given(orientations, shapes, spacings, hows, st.floats(-0.7, 0.7))
def test_join_is_the_inverse_of_cut(orientation, shape, spacing, how, tilt):
    volume, slicing = volume_of(shape), Slicing.of(affine_of(orientation, spacing, tilt), how)
    slices = slicing.cut(volume)
    assert np.shares_memory(slices, volume)
    assert slices.shape == slicing.shape(shape)
    np.testing.assert_array_equal(slicing.join(slices), volume)
    np.testing.assert_array_equal(slicing.join(slices.copy()), volume)


@pytest.mark.parametrize("orientation", ALL)
def test_canonical_slices_are_those_of_nibabels_closest_canonical(orientation):
    shape, spacing = (3, 4, 5), (0.7, 1.3, 2.5)
    image = nibabel.Nifti1Image(volume_of(shape), affine_of(orientation, spacing, 0.3))
    closest = nibabel.as_closest_canonical(image)  # RAS
    slicing = Slicing.of(image.affine, "canonical")
    expected = np.asarray(closest.dataobj).transpose(2, 1, 0)[:, ::-1, ::-1]  # S, P, L
    np.testing.assert_array_equal(slicing.cut(np.asarray(image.dataobj)), expected)
    np.testing.assert_allclose(slicing.spacing(spacing), closest.header.get_zooms()[::-1], rtol=1e-5)


@quick
@given(orientations, orientations, shapes, spacings)
def test_canonical_slices_do_not_depend_on_how_a_volume_is_stored(one, other, shape, spacing):
    image = nibabel.Nifti1Image(volume_of(shape), affine_of(one, spacing))
    wanted = nibabel.orientations.axcodes2ornt(nibabel.aff2axcodes(affine_of(other, (1, 1, 1))))
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), wanted))
    first, second = (Slicing.of(stored.affine, "canonical") for stored in (image, turned))
    np.testing.assert_array_equal(first.cut(np.asarray(image.dataobj)), second.cut(np.asarray(turned.dataobj)))


@pytest.mark.parametrize("orientation", ALL)
def test_canonical_axes_lead_to_head_back_and_left(orientation):
    affine, shape = affine_of(orientation, (1, 2, 3)), (3, 4, 5)
    places = (np.indices(shape).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]).reshape(*shape, 3)
    x, y, z = (Slicing.of(affine, "canonical").cut(places[..., world]) for world in range(3))
    assert (np.diff(z, axis=0) > 0).all()
    assert (np.diff(y, axis=1) < 0).all()
    assert (np.diff(x, axis=2) < 0).all()


@quick
@given(orientations, shapes)
def test_paper_slices_lie_along_the_last_stored_axis(orientation, shape):
    volume, slicing = volume_of(shape), Slicing.of(affine_of(orientation, (1, 1, 1)), "paper")
    slices = slicing.cut(volume)
    assert len(slices) == shape[2]
    for k in range(shape[2]):
        np.testing.assert_array_equal(slices[k], volume[:, :, k])
    assert slicing.spacing((1, 2, 3)) == (3, 1, 2)


def test_another_way_of_slicing_is_refused():
    with pytest.raises(ValueError, match="sagittal"):
        Slicing.of(np.eye(4), "sagittal")


# --- masks on the grid of their image ---------------------------------------------------------------------------------


@quick
@given(orientations, orientations, st.tuples(*[st.integers(2, 7)] * 3), spacings, st.floats(-0.7, 0.7))
def test_a_mask_that_is_stored_otherwise_comes_to_the_grid_of_its_image(one, other, shape, spacing, tilt):
    image = nibabel.Nifti1Image(volume_of(shape), affine_of(one, spacing, tilt))
    wanted = nibabel.orientations.axcodes2ornt(nibabel.aff2axcodes(affine_of(other, (1, 1, 1))))
    mask = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), wanted))
    brought = same_grid(Path("m.nii"), np.asarray(mask.dataobj), mask.affine, image.shape, image.affine)
    np.testing.assert_array_equal(brought, np.asarray(image.dataobj))


def moved_by(x):
    moved = np.diag([1.0, 2, 3, 1])
    moved[0, 3] = x
    return moved


def test_a_mask_on_another_grid_is_refused():
    mask, affine = np.zeros((4, 5, 6), np.uint8), np.diag([1.0, 2, 3, 1])
    assert same_grid(Path("m.nii"), mask, moved_by(0.2), mask.shape, affine).shape == mask.shape
    for labels, own, why in (
        (mask, moved_by(0.3), r"0\.3 mm apart \(0\.25 allowed\)"),
        (mask[:3], affine, "shapes do not match"),
        (mask, np.diag([0.0, 2, 3, 1]), "axes do not match"),
        (mask, np.diag([1.0, 2, 4, 1]), "mm apart"),
        (mask, affine_of(((0, 1, 2), (1, 1, 1)), (1, 2, 3), 0.3), "mm apart"),
    ):
        with pytest.raises(RadprobeError, match=why) as error:
            same_grid(Path("m.nii"), labels, own, mask.shape, affine)
        assert "m.nii" in str(error.value)
