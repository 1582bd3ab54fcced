"""Slices of volumes, and back; and label maps brought to the grid of their image."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Self

import nibabel
import numpy as np

from radprobe.files import RadprobeError

TOLERANCE = 0.25  # of the smallest voxel side: two grids whose corners differ by no more are the same


@dataclass(frozen=True)
class Slicing:
    """How 2-D slices are cut from a stored volume [X, Y, Z], and put back exactly.

    `axes` are the stored axes that become slice, row and column; `flips` say which of them are turned round.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @classmethod
    def of(cls, affine: np.ndarray, how: str) -> Self:
        """Return the slicing of a volume whose voxel-to-RAS affine [4, 4] is given.

        `canonical`: axial slices from foot to head, rows from front to back, columns from the patient's right to left,
        along the closest stored axes where these are oblique. `paper`: slice k is volume[:, :, k], nothing is turned.
        """
        if how == "paper":
            return cls((2, 0, 1), (False, False, False))
        if how != "canonical":
            raise ValueError(f"slices are cut 'canonical' or 'paper', not {how!r}")
        orientation = nibabel.io_orientation(affine)
        depth, row, column = (int(np.flatnonzero(orientation[:, 0] == world)[0]) for world in (2, 1, 0))
        # slices grow towards head; rows and columns towards back and left, against RAS
        flips = (orientation[depth, 1] != 1, orientation[row, 1] != -1, orientation[column, 1] != -1)
        return cls((depth, row, column), (bool(flips[0]), bool(flips[1]), bool(flips[2])))

    def cut(self, volume: np.ndarray) -> np.ndarray:
        """Return the slices [n, H, W] of a stored volume [X, Y, Z], as a view."""
        return volume.transpose(self.axes)[self._steps]

    def join(self, slices: np.ndarray) -> np.ndarray:
        """Return the stored volume [X, Y, Z] of slices [n, H, W], as a view: the inverse of `cut`."""
        return slices[self._steps].transpose(np.argsort(self.axes))

    def shape(self, stored: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return (n, H, W) of a volume of shape (X, Y, Z)."""
        depth, row, column = self.axes
        return stored[depth], stored[row], stored[column]

    def spacing(self, stored: tuple[float, float, float]) -> tuple[float, float, float]:
        """Return the mm between slices, rows and columns, from those along the stored axes."""
        depth, row, column = self.axes
        return stored[depth], stored[row], stored[column]

    @property
    def _steps(self) -> tuple[slice, slice, slice]:
        depth, row, column = (slice(None, None, -1 if flip else 1) for flip in self.flips)
        return depth, row, column


def same_grid(
    path: Path, labels: np.ndarray, own: np.ndarray, shape: tuple[int, ...], affine: np.ndarray
) -> np.ndarray:
    """Bring the label map `labels` [X, Y, Z] of affine `own` to the grid of its image (`shape`, `affine`), as a view.

    The two may differ in the order and direction of their axes only, as a NIfTI mask and a DICOM series do.
    Raises RadprobeError, naming `path`, where shapes differ, or corners by more than a quarter of the smallest voxel.
    """
    towards = nibabel.io_orientation(np.linalg.inv(affine) @ own)  # of the mask's axes among the image's
    if np.isnan(towards).any():
        raise _other_grid(path, labels.shape, shape, "their axes do not match")
    turned: np.ndarray = nibabel.apply_orientation(labels, towards)
    if turned.shape != tuple(shape):
        raise _other_grid(path, labels.shape, shape, "their shapes do not match")
    moved = own @ nibabel.orientations.inv_ornt_aff(towards, labels.shape)
    corners = np.array([(*corner, 1) for corner in product(*((0, side - 1) for side in shape))])
    distance = np.linalg.norm((corners @ (moved - affine).T)[:, :3], axis=1).max()
    allowed = TOLERANCE * np.linalg.norm(affine[:3, :3], axis=0).min()
    if distance > allowed:
        raise _other_grid(
            path, labels.shape, shape, f"their corners lie {distance:.3g} mm apart ({allowed:.3g} allowed)"
        )
    return turned


def _other_grid(path: Path, own: tuple[int, ...], shape: tuple[int, ...], why: str) -> RadprobeError:
    reason = f"the mask {tuple(own)} is not on the grid of its image {tuple(shape)}: {why}"
    return RadprobeError(path, reason, "resample the mask to its image (nearest neighbour), or correct its affine")
