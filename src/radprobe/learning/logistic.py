"""L2-regularised logistic regression over a sweep of regularisations, scikit-learn's objective, many times faster.

For each class (or, where exactly one class is true, for all classes by softmax) it minimises
0.5 ||w||^2 + C * sum of losses, the intercept not penalised, unlabelled entries (NaN) without a loss. Each feature is
standardised and divided by the square root of the number of features, so that a sample has length 1 on average: one C
then regularises as strongly whatever the width and the unit of the features. It is scikit-learn's C on standardised
features, times their number.

Features are turned once into the eigenbasis of their covariance (only as many axes as there are samples), and
scaled there by the curvature of the loss at the start: L-BFGS (scipy) then sees a nearly round bowl. All classes are
one batched problem. The strongest regularisation comes first; each next value of C starts from the solution before
it, or from the line through the last two where that is better. Separable classes drive the loss towards 0 as C grows,
so all tolerances are relative to the loss. Products with the features are float32, everything else is float64.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import torch
from scipy.optimize import minimize
from torch.nn.functional import softplus

from radprobe.learning.device import threads

STEPS, MEMORY = 500, 12  # of L-BFGS, at most
TOLERANCE = 5e-5  # slope in the round bowl that counts as none; the bowl is scaled by the loss at the start
DECREASE = 1e-11  # of the loss in a step, relative, below which single precision only sees noise
STD_FLOOR = 1e-6  # of a feature's own size: one that changes less is left at 0
LEAST = 1e-2  # curvature of a sample as a share of the mean: none counts as flat, which steps would overshoot
FLAT = 1e-12  # curvature of a bias of which every sample is certain
SETTLED = 0.9  # of the loss at the start: where it fell further, the bowl was another one, and is drawn again
RANK = 1e-10  # of the largest variance: axes with less are rounding errors
HALF = 0.5  # added to both counts of a class that has only one label: its logit is constant
CHUNK = 4096  # rows held in higher precision at a time


@dataclass(frozen=True)
class Sweep:
    """Fitted heads on raw features, one for each value of C."""

    values: tuple[float, ...]
    weight: torch.Tensor  # [values, classes, D]
    bias: torch.Tensor  # [values, classes]
    not_converged: list[float]  # the values of C for which L-BFGS ran out of steps or gave up

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits [values, m, classes] of features [m, D]."""
        with threads(1):
            flat = x.float() @ self.weight.flatten(0, 1).T
            return flat.reshape(len(x), *self.bias.shape).transpose(0, 1) + self.bias[:, None]


def fit(x: torch.Tensor, y: torch.Tensor, values: Sequence[float], exclusive: bool) -> Sweep:
    """Fit features x [n, D] to labels y [n, classes] (1, 0, NaN), for each C of `values`."""
    return EigenFeatures(x).fit(y, values, exclusive)


class EigenFeatures:
    """Standardised features of length 1 in their eigenbasis: made once, to be fitted to any number of labels.

    One torch thread, so that the result is the same for any number of cores.
    """

    def __init__(self, x: torch.Tensor):
        self.n = len(x)
        with threads(1), torch.inference_mode():
            nothing = torch.zeros((), dtype=torch.float64)
            chunks = torch.split(x, CHUNK)
            self.mean = sum((rows.double().sum(0) for rows in chunks), nothing) / self.n
            variance = sum((((rows.double() - self.mean) ** 2).sum(0) for rows in chunks), nothing) / self.n
            still = variance.sqrt() <= STD_FLOOR * (self.mean**2 + variance).sqrt()
            moving = max(1, int((~still).sum()))
            self.std = (variance * moving).sqrt().masked_fill(still, torch.inf)
            self.basis = self._basis(x)
            self.z = torch.cat([rows @ self.basis.float() for rows in self._standardised(x)])

    def fit(self, y: torch.Tensor, values: Sequence[float], exclusive: bool) -> Sweep:
        """Fit labels y [n, classes] (1, 0, NaN), for each C of `values`.

        A class of which only one label is there gets a constant logit: the log odds of its frequency, each count half a
        sample more.
        """
        with threads(1), torch.inference_mode():
            problem = _Problem(self, y, exclusive)
            order = sorted(range(len(values)), key=lambda index: values[index])
            before = solution = problem.start()
            found, late = {}, []
            for index in order:
                starts = solution, 2 * solution - before
                before, (solution, converged) = solution, problem.solve(values[index], starts)
                found[index] = solution
                if not converged:
                    late.append(values[index])
            weight, bias = problem.raw(np.stack([found[index] for index in range(len(values))]))
        return Sweep(tuple(values), weight, bias, late)

    def _standardised(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        for rows in torch.split(x, CHUNK):
            yield ((rows.double() - self.mean) / self.std).float()

    def _basis(self, x: torch.Tensor) -> torch.Tensor:
        """Return the axes [D, at most n] of the covariance: the optimum lies in the span of the samples."""
        if self.n >= x.shape[1]:
            nothing = torch.zeros((), dtype=torch.float64)
            covariance = sum(((rows.T @ rows).double() for rows in self._standardised(x)), nothing) / self.n
            eigenvectors: torch.Tensor = torch.linalg.eigh(covariance).eigenvectors
            return eigenvectors
        rows = torch.cat(list(self._standardised(x))).double()
        variance, axes = torch.linalg.eigh(rows @ rows.T)
        kept = variance > RANK * variance[-1].clamp_min(RANK)
        basis: torch.Tensor = rows.T @ (axes[:, kept] / variance[kept].sqrt())
        return basis


class _Problem:
    """Features, and the labels of the classes that can be learnt."""

    def __init__(self, features: EigenFeatures, y: torch.Tensor, exclusive: bool):
        self.features = features
        self.exclusive = exclusive
        self.n, self.z = features.n, features.z
        known = ~y.isnan()
        positives, total = (y == 1).sum(0), known.sum(0)
        self.learnt = (positives > 0) & (positives < total)
        self.constant = ((positives + HALF) / (total - positives + HALF)).log().double()
        self.y, self.share = y[:, self.learnt].nan_to_num(0.0).double(), known[:, self.learnt].double() / self.n
        self.sign = 1 - 2 * self.y  # so that a small residual is no difference of two large numbers

    @property
    def shape(self) -> tuple[int, int]:
        """Classes, and numbers of each: its weights in the eigenbasis, then the bias."""
        return int(self.learnt.sum()), self.z.shape[1] + 1

    def start(self) -> np.ndarray:
        solution = np.zeros(self.shape)
        solution[:, -1] = self.constant[self.learnt].numpy()
        return solution

    def solve(self, c: float, starts: Sequence[np.ndarray]) -> tuple[np.ndarray, bool]:
        """Return the weights and biases in the eigenbasis for one C, from the best of some points; is it converged?"""
        if not self.shape[0]:
            return starts[0], True
        ridge, left = 1 / (c * self.n), STEPS
        before, at = min(((self._loss(each, ridge)[0], each) for each in starts), key=itemgetter(0))
        while left > 0:
            at, whole, steps, at_rest = self._descend(at, ridge, before, left)
            if at_rest and whole > SETTLED * before:
                return at, True
            if not at_rest and not steps:  # in single precision no step leads down, from here with any memory
                break
            before, left = whole, left - max(steps, 1)
        return at, False

    def _descend(
        self, start: np.ndarray, ridge: float, whole: float, steps: int
    ) -> tuple[np.ndarray, float, int, bool]:
        """Return where L-BFGS comes to from `start` (of loss `whole`), its loss, in how many steps, and if it rests."""
        scale = (whole / self._bowl(start, ridge)).sqrt().numpy()

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope = self._loss(flat.reshape(self.shape) * scale, ridge)
            return value / whole, (slope * scale / whole).ravel()

        options = {"maxiter": steps, "maxfun": 2 * steps, "gtol": TOLERANCE, "ftol": DECREASE, "maxcor": MEMORY}
        done = minimize(loss, (start / scale).ravel(), jac=True, method="L-BFGS-B", options=options)
        return done.x.reshape(self.shape) * scale, done.fun * whole, done.nit, done.status == 0

    def _bowl(self, at: np.ndarray, ridge: float) -> torch.Tensor:
        """Return the curvature of the objective along each axis, its Hessian's diagonal, float64 [classes, D + 1]."""
        logits = self._logits(at)
        likely = logits.softmax(1) if self.exclusive else logits.sigmoid()
        weight = likely * (1 - likely) * self.share
        weight = torch.maximum(weight, LEAST * weight.mean(0))
        chunks = zip(torch.split(weight.float(), CHUNK), torch.split(self.z, CHUNK), strict=True)
        nothing = torch.zeros((), dtype=torch.float64)
        along = sum(((each.T @ rows**2).double() for each, rows in chunks), nothing)
        return torch.cat([along + ridge, weight.sum(0).clamp_min(FLAT)[:, None]], 1)

    def _logits(self, at: np.ndarray) -> torch.Tensor:
        weight, bias = torch.from_numpy(at[:, :-1]), torch.from_numpy(at[:, -1])
        return (self.z @ weight.float().T).double() + bias

    def _loss(self, at: np.ndarray, ridge: float) -> tuple[float, np.ndarray]:
        logits, weight = self._logits(at), torch.from_numpy(at[:, :-1])
        if self.exclusive:
            log_likely = logits.log_softmax(1)
            losses, residual = -log_likely * self.y, log_likely.exp() - self.y
        else:
            wrong = self.sign * logits
            losses, residual = softplus(wrong), self.sign * wrong.sigmoid_()
        residual *= self.share
        value = float((losses * self.share).sum() + 0.5 * ridge * (weight**2).sum())
        slope = (residual.float().T @ self.z).double() + ridge * weight
        return value, torch.cat([slope, residual.sum(0)[:, None]], 1).numpy()

    def raw(self, solutions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weights [values, classes, D] and biases [values, classes] on raw features."""
        solved = torch.from_numpy(solutions)
        weight = torch.zeros((len(solved), len(self.learnt), len(self.features.std)))
        bias = self.constant.float().repeat(len(solved), 1)
        found = solved[:, :, :-1] @ self.features.basis.T / self.features.std
        weight[:, self.learnt] = found.float()
        bias[:, self.learnt] = (solved[:, :, -1] - found @ self.features.mean).float()
        return weight, bias
