"""What a job may ask of statistics, typed. The graph of a study reads this module, so it imports no numbers."""

from dataclasses import dataclass, replace
from typing import Literal, Self


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: the number of resamples, their seed, and the fewest patients that allow an interval.

    folds: of the cross-validation that the predictions come from, 1 without one.
    """

    resamples: int
    seed: int
    min_patients: int
    folds: int = 1

    @property
    def alone(self) -> Self:
        """What makes values without intervals: a macro is over the same classes."""
        return replace(self, resamples=1)

    def size(self, patients: int) -> int:
        """Return how many patients a resample draws: all, of k folds their number over 1 + (k - 1) / k.

        A patient that is tested in one fold has trained the fits of others, so the errors of folds go together. Nadeau
        and Bengio (2003, Machine Learning 52:239-281) put their correlation at the share of the test samples, 1 / k:
        the variance of a mean over k folds is then 1 + (k - 1) / k times that of independent ones, which resamples of
        so many fewer patients have (the m out of n bootstrap).
        """
        return max(1, round(patients / (2 - 1 / self.folds)))


@dataclass(frozen=True)
class ComparedRow:
    """A row of a comparison: one backbone, or the random initialisations whose mean it is.

    is_random: its weights are drawn at random and stay frozen, so that its score varies by the chance of the draw.
    """

    name: str
    backbones: tuple[str, ...]
    is_control: bool
    is_random: bool


@dataclass(frozen=True)
class VariantPair:
    """What the paper did otherwise: the name of ours and of theirs, and what kind of name it is."""

    of: Literal["metric", "protocol", "backbone"]
    ours: str
    theirs: str
