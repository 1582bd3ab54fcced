"""L2-regularised logistic regression over a sweep of regularisations, scikit-learn's objective, many times faster.

For each class (or, where exactly one class is true, for all classes by softmax) it minimises
0.5 ||w||^2 + C * sum of losses on standardised features, the intercept not penalised, unlabelled entries (NaN) without
a loss. Features are turned once into the eigenbasis of their covariance, and scaled there by the curvature of the loss
at the start: L-BFGS (scipy) then sees a nearly round bowl. All classes are one batched problem, and each value of C
starts from the solution of the one before, strongest regularisation first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch.nn.functional import binary_cross_entropy_with_logits

from radprobe.learning.device import threads

STEPS = 200  # of L-BFGS, at most
TOLERANCE = 5e-5  # slope of the mean loss in the round bowl that counts as none
DECREASE = 1e-11  # of the mean loss in a step, below which single precision only sees noise
STD_FLOOR = 1e-6  # a feature that never changes is left at 0
LEAST = 1e-4  # curvature of a sample: none counts as flat, which steps would overshoot
HALF = 0.5  # added to both counts of a class that has only one label: its logit is constant


@dataclass(frozen=True)
class Sweep:
    """Fitted heads on raw features, one for each value of C."""

    values: tuple[float, ...]
    weight: torch.Tensor  # [values, classes, D]
    bias: torch.Tensor  # [values, classes]
    not_converged: list[float]  # the values of C whose iterations ran out

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits [values, m, classes] of features [m, D]."""
        with threads(1):
            flat = x.float() @ self.weight.flatten(0, 1).T
            return flat.unflatten(1, self.bias.shape).transpose(0, 1) + self.bias[:, None]


def fit(x: torch.Tensor, y: torch.Tensor, values: Sequence[float], exclusive: bool) -> Sweep:
    """Fit features x [n, D] to labels y [n, classes] (1, 0, NaN), for each C of `values`.

    One torch thread, so that the result is the same for any number of cores. A class of which only one label is there
    gets a constant logit: the log odds of its frequency, each count half a sample more.
    """
    with threads(1), torch.inference_mode():
        problem = _Problem(x, y, exclusive)
        order = sorted(range(len(values)), key=lambda index: values[index])
        solution, found, late = problem.start(), {}, []
        for index in order:
            solution, converged = problem.solve(values[index], solution)
            found[index] = problem.raw(solution)
            if not converged:
                late.append(values[index])
    weights, biases = zip(*(found[index] for index in range(len(values))), strict=True)
    return Sweep(tuple(values), torch.stack(weights), torch.stack(biases), late)


class _Problem:
    """Standardised features in their eigenbasis, and the labels of the classes that can be learnt."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, exclusive: bool):
        self.exclusive, self.n = exclusive, len(x)
        known = ~y.isnan()
        positives, total = (y == 1).sum(0), known.sum(0)
        self.learnt = (positives > 0) & (positives < total)
        self.constant = ((positives + HALF) / (total - positives + HALF)).log().float()
        self.y, self.known = y[:, self.learnt].nan_to_num(0.0).float(), known[:, self.learnt].float()
        wide = x.float()
        mean, std = wide.double().mean(0), wide.double().std(0, correction=0).clamp_min(STD_FLOOR)
        self.mean, self.std = mean.float(), std.float()
        wide = (wide - self.mean) / self.std
        self.basis = torch.linalg.eigh((wide.T @ wide).double() / self.n).eigenvectors
        self.z = wide @ self.basis.float()
        self.squares = self.z**2

    @property
    def shape(self) -> tuple[int, int]:
        """Classes, and numbers of each: its weights in the eigenbasis, then the bias."""
        return int(self.learnt.sum()), self.z.shape[1] + 1

    def start(self) -> np.ndarray:
        solution = np.zeros(self.shape)
        solution[:, -1] = self.constant[self.learnt].numpy()
        return solution

    def solve(self, c: float, start: np.ndarray) -> tuple[np.ndarray, bool]:
        """Return the weights and biases in the eigenbasis for one C, from those of another, and if it converged."""
        if not self.shape[0]:
            return start, True
        ridge = 1 / (c * self.n)
        scale = self._bowl(start, ridge).rsqrt().numpy()

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            at = flat.reshape(self.shape) * scale
            value, slope = self._loss(at, ridge)
            return value, (slope * scale).ravel()

        options = {"maxiter": STEPS, "maxfun": 2 * STEPS, "gtol": TOLERANCE, "ftol": DECREASE, "maxcor": 6}
        done = minimize(loss, (start / scale).ravel(), jac=True, method="L-BFGS-B", options=options)
        return done.x.reshape(self.shape) * scale, done.nit < STEPS

    def _bowl(self, at: np.ndarray, ridge: float) -> torch.Tensor:
        """Return the curvature of the objective along each axis, its Hessian's diagonal, float64 [classes, D + 1]."""
        likely = self._likely(torch.from_numpy(at).float())
        weight = (likely * (1 - likely) * self.known).clamp_min(LEAST) / self.n
        along = (weight.T @ self.squares).double() + ridge
        return torch.cat([along, weight.sum(0, dtype=torch.float64)[:, None]], 1)

    def _likely(self, at: torch.Tensor) -> torch.Tensor:
        logits = torch.addmm(at[:, -1], self.z, at[:, :-1].T)
        return logits.softmax(1) if self.exclusive else logits.sigmoid()

    def _loss(self, at: np.ndarray, ridge: float) -> tuple[float, np.ndarray]:
        weight, bias = torch.from_numpy(at[:, :-1]), torch.from_numpy(at[:, -1])
        logits = torch.addmm(bias.float(), self.z, weight.float().T)
        if self.exclusive:
            likely = logits.softmax(1)
            fit_ = -(logits.log_softmax(1) * self.y).sum(dtype=torch.float64)
        else:
            likely = logits.sigmoid()
            fit_ = binary_cross_entropy_with_logits(logits, self.y, self.known, reduction="none").sum(
                dtype=torch.float64
            )
        residual = (likely - self.y) * self.known / self.n
        value = float(fit_ / self.n + 0.5 * ridge * (weight**2).sum())
        slope = (residual.T @ self.z).double() + ridge * weight
        return value, torch.cat([slope, residual.sum(0, dtype=torch.float64)[:, None]], 1).numpy()

    def raw(self, solution: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weight [classes, D] and bias [classes] on raw features."""
        weight = torch.zeros((len(self.learnt), self.z.shape[1]))
        bias = self.constant.clone()
        found = torch.from_numpy(solution[:, :-1]) @ self.basis.T / self.std
        weight[self.learnt] = found.float()
        bias[self.learnt] = (torch.from_numpy(solution[:, -1]) - found @ self.mean.double()).float()
        return weight, bias
