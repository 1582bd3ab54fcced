"""Views: augmented copies of images, and of their label maps moved alike (D10: the study's were not flipped sideways).

A view is a function of the seed, its number and the place of the image, so the same copy is made whoever makes it.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.nn.functional import affine_grid, grid_sample

SCALE, RATIO = (0.75, 1.0), (3 / 4, 4 / 3)  # of crops, share of the area and width by height: the study's
ANGLE = 90.0  # degrees, either way: the study's


@dataclass(frozen=True)
class Views:
    """Augmented copies of n images. View 0 is the image as it is.

    kind: `crop`, a random crop resized and turned over sideways, to classify; `turn`, flips and a rotation, to segment.
    count: how many there are; None: a new one for every epoch.
    """

    kind: str
    n: int
    seed: int
    count: int | None

    def of_epoch(self, epoch: int) -> int:
        """Return the view of an epoch (0 is the first): one after the other, the image as it is among them."""
        return epoch + 1 if self.count is None else epoch % (self.count + 1)

    def matrices(self, rows: ArrayLike, view: int) -> torch.Tensor:
        """Return for each of `rows` the affine map [len(rows), 2, 3] from places in the view to places in the image.

        Coordinates run from -1 to 1, x first, as torch's `affine_grid` has them.
        """
        return _drawn(self.kind, self.n, self.seed, view)[torch.as_tensor(np.asarray(rows))]


@lru_cache(maxsize=4)
def _drawn(kind: str, n: int, seed: int, view: int) -> torch.Tensor:
    generator = np.random.default_rng([seed, view])
    drawn = {"crop": _crops, "turn": _turns}[kind](generator, n)
    return torch.from_numpy(drawn.astype(np.float32))


def _crops(generator: np.random.Generator, n: int) -> np.ndarray:
    area, flips = generator.uniform(*SCALE, n), np.where(generator.random(n) < 0.5, -1, 1)
    low, high = np.log(RATIO)
    ratio = np.exp(generator.uniform(float(low), float(high), n))
    width, height = np.minimum(np.sqrt(area * ratio), 1), np.minimum(np.sqrt(area / ratio), 1)
    found = np.zeros((n, 2, 3))
    found[:, 0, 0], found[:, 1, 1] = width * flips, height
    found[:, 0, 2] = generator.uniform(-1, 1, n) * (1 - width)
    found[:, 1, 2] = generator.uniform(-1, 1, n) * (1 - height)
    return found


def _turns(generator: np.random.Generator, n: int) -> np.ndarray:
    angle = np.radians(generator.uniform(-ANGLE, ANGLE, n))
    sideways, upside = (np.where(generator.random(n) < 0.5, -1, 1) for _ in range(2))
    found = np.zeros((n, 2, 3))
    found[:, 0, 0], found[:, 0, 1] = np.cos(angle) * sideways, -np.sin(angle) * sideways
    found[:, 1, 0], found[:, 1, 1] = np.sin(angle) * upside, np.cos(angle) * upside
    return found


def moved(images: torch.Tensor, matrices: torch.Tensor, nearest: bool) -> torch.Tensor:
    """Return images [B, H, W] as seen through `matrices` [B, 2, 3]: float32, or for `nearest` their own type.

    Outside of an image lies its least value; of a label map, 0.
    """
    grid = affine_grid(matrices.to(images.device), [len(images), 1, *images.shape[1:]], align_corners=False)
    values = images[:, None].float()
    least = torch.zeros_like(values[:, :, :1, :1]) if nearest else values.amin((2, 3), keepdim=True)
    mode = "nearest" if nearest else "bilinear"
    found = grid_sample(values - least, grid, mode=mode, padding_mode="zeros", align_corners=False) + least
    return found[:, 0].to(images.dtype) if nearest else found[:, 0]
