"""compare: which backbones of a dataset differ, from the predictions of all of them on the same test patients."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from radprobe import catalog, console
from radprobe.artifacts import COMPARISON_SCHEMA, ROWS_SCHEMA, VARIANTS_SCHEMA, Comparison, Predictions, Truth, again
from radprobe.catalog import PAPER
from radprobe.files import RadprobeError
from radprobe.metrics import delong, simultaneous
from radprobe.metrics.resampling import Bootstrap, Resampled, average
from radprobe.metrics.scoring import Cell, Classified, Segmented, protocols_of
from radprobe.metrics.simultaneous import Chance, Difference, Family
from radprobe.names import FLOOR, RANDOM, STANDING, first_init, mode_of
from radprobe.study import Step, Study


def run(study: Study, step: Step) -> None:
    """Read the Predictions of all backbones of a dataset; write what tells their primary macro scores apart.

    For every protocol: the paired differences of all rows, simultaneous over the rows; the score of each row, that of
    the best corrected for having been chosen. And for each backbone that is no control the differences between ours
    and what is made as the paper did.
    """
    metric = catalog.PRIMARY_METRIC[study.dataset(step.dataset).task]
    how = Bootstrap.of(step.knobs)
    truth = _truth(study, step)
    tested: dict[tuple[str, str], Tested] = {}
    for need in step.dependencies:
        if need.backbone:
            predictions = Predictions.load(need.folder)
            cell = Cell(predictions, truth, metric, how)
            tested |= {(need.backbone, name): Tested(cell, name) for name in protocols_of(predictions)}
    controls = {backbone for backbone, _ in tested if study.backbone(backbone).family == "control"}
    pairs = step.knobs["variants"]
    metrics = [metric, *sorted({name for of, *names in pairs if of == "metric" for name in names} - {metric})]
    differences, rows, of_variants, samples = [], [], {}, {}
    for protocol in _protocols(tested):
        of_protocol = _of_protocol(tested, protocol)
        samples = {**dict(itertools.islice(samples.items(), 1)), **_samples(of_protocol, protocol)}
        _same_samples(step.dataset, samples)
        table = Table(of_protocol, metric, controls)
        differences += [{**row, "protocol": protocol} for row in table.differences(step.knobs["margin"])]
        rows += [{**row, "protocol": protocol} for row in table.rows()]
        for name, each in of_protocol.items():
            if name not in controls:
                of_variants |= {(name, each.protocol, other): each.macro(other) for other in metrics}
            each.forget()
    variants = [row for pair in pairs for row in _variants(of_variants, pair, metric)]
    shared = {"dataset": step.dataset, "metric": metric}
    Comparison(
        _typed(differences, COMPARISON_SCHEMA, **shared),
        _typed(variants, VARIANTS_SCHEMA, dataset=step.dataset),
        _typed(rows, ROWS_SCHEMA, **shared),
        {"margin": step.knobs["margin"]},
    ).save(step.place)
    console.say(f"{step.dataset}: {len(differences)} paired differences, {len(variants)} from what the paper did")


@dataclass(frozen=True)
class Tested:
    """One protocol of a backbone on test: its predictions, and its macro scores on resampled patients."""

    cell: Cell
    protocol: str

    @cached_property
    def scored(self) -> Classified | Segmented:
        """The predictions of test."""
        return self.cell.scored(self.protocol, "test")

    @cached_property
    def samples(self) -> pd.DataFrame:
        """The samples of test and their patients."""
        return self.scored.samples

    def forget(self) -> None:
        """Free the predictions, unless other protocols have them beside them; what was made of them stays."""
        if self.protocol not in STANDING:
            self.__dict__.pop("scored", None)

    def macro(self, metric: str) -> Resampled:
        """Return a macro score of all patients and of every resample, made once."""
        if metric not in self._macros:
            self._macros[metric] = self.scored.macro(metric, self.cell.how)
        return self._macros[metric]

    @cached_property
    def _macros(self) -> dict[str, Resampled]:
        return {}

    def over_seeds(self, metric: str) -> list[float]:
        """Return the score of every fit with a seed of its own, the first one first."""
        others = range(1, len(self.cell.predictions.facts["protocols"][self.protocol].get("seeds", [0])))
        of_others = (self.cell.scored(again(self.protocol, number), "test") for number in others)
        return [
            float(self.macro(metric).point),
            *(float(each.macro(metric, self.cell.how.alone).point) for each in of_others),
        ]


class Table:
    """All rows of one protocol as one family; the inits of a random backbone are one row, their mean."""

    def __init__(self, tested: Mapping[str, Tested], metric: str, controls: set[str]):
        self.tested, self.metric, self.controls = tested, metric, controls
        self.inits: dict[str, list[str]] = {}
        for name in tested:
            self.inits.setdefault(first_init(name), []).append(name)
        statistics = {row: average([tested[name].macro(metric) for name in names]) for row, names in self.inits.items()}
        self.family = Family(statistics, self._chance())

    def _chance(self) -> dict[str, Chance]:
        """Return how far rows vary by the chance of seeds or inits, each pooled over backbones, where it is known."""
        fits = {name: each.over_seeds(self.metric) for name, each in self.tested.items() if name in self.inits}
        of_seeds = simultaneous.pooled(list(fits.values()))
        known = {name: of_seeds for name, values in fits.items() if of_seeds and len(values) > 1}
        if of_inits := simultaneous.pooled([self._points(names) for names in self.inits.values()]):
            random = {row: names for row, names in self.inits.items() if row.startswith(RANDOM) and not mode_of(row)}
            known |= {row: Chance(of_inits.variance / len(names), of_inits.df) for row, names in random.items()}
        return known

    def _points(self, names: list[str]) -> list[float]:
        return [float(self.tested[name].macro(self.metric).point) for name in names]

    def differences(self, margin: float) -> Iterator[dict]:
        """Yield the difference of every two rows; and how many test patients would detect `margin` between them."""
        patients = self._patients
        for each in self.family.differences:
            needed = self.family.patients_needed(each, margin)
            yield {
                "backbone": each.one,
                "other": each.other,
                **_columns(each),
                "p": each.p,
                "p_delong": self._delong(each),
                "standard_error": each.standard_error,
                **dict(zip(("needed", "needed_low", "needed_high"), needed, strict=True)),
                "n_patients": patients,
            }

    def rows(self) -> Iterator[dict]:
        """Yield the score of every row with its own interval, and that of the best one corrected."""
        candidates = [row for row in self.inits if row not in self.controls] or list(self.inits)
        winner = self.family.winner(candidates)
        beaten = self.family.beaten(candidates)
        for row, names in self.inits.items():
            statistic = self.family.rows[row]
            low, high, note = statistic.interval()
            points = self._points(names)
            is_winner = winner is not None and winner.name == row
            yield {
                "backbone": row,
                "value": float(statistic.point),
                "low": low,
                "high": high,
                "corrected": winner.value if is_winner else np.nan,
                "corrected_low": winner.low if is_winner else np.nan,
                "corrected_high": winner.high if is_winner else np.nan,
                "may_be_best": row in candidates and row not in beaten and not np.isnan(statistic.point),
                "n_inits": len(names),
                "init_sd": float(np.std(points, ddof=1)) if len(names) > 1 else np.nan,
                "n_patients": self._patients,
                "note": note,
            }

    @property
    def _patients(self) -> int:
        return next(iter(self.tested.values())).samples["patient_id"].nunique()

    def _delong(self, pair: Difference) -> float:
        """Return DeLong's p-value of a pair; NaN for label maps, inits, folds, and several samples of a patient."""
        names = [*self.inits[pair.one], *self.inits[pair.other]]
        if len(names) > 2:
            return np.nan
        one, other = (self.tested[name].scored for name in names)
        if isinstance(one, Segmented) or isinstance(other, Segmented) or one.folds is not None:
            return np.nan
        if one.samples["patient_id"].duplicated().any():
            return np.nan
        counted = one.counted(self.family.rows[pair.one].how)
        scores = (each.scores[:, counted] for each in (one, other))
        return delong.p_value(*scores, one.targets[:, counted])


def _columns(difference: Difference) -> dict:
    return {
        "difference": difference.value,
        "low": difference.low,
        "high": difference.high,
        "note": difference.note,
    }


def _typed(rows: list[dict], schema, **shared: str) -> pd.DataFrame:
    """Return rows as a table of a schema, with its types also where it is empty."""
    table = pd.DataFrame(rows, columns=[name for name in schema.columns if name not in shared]).assign(**shared)
    texts = [name for name, column in schema.columns.items() if "str" in str(column.dtype)]
    return table.astype(dict.fromkeys(texts, "str"))[list(schema.columns)]


def _protocols(tested: Mapping[tuple[str, str], Tested]) -> list[str]:
    """Return the protocols that order rows: of frozen features, or, where there is none, of trained networks."""
    names = list(dict.fromkeys(protocol for _, protocol in tested if protocol != FLOOR))
    return [name for name in names if name not in STANDING] or names[:1]


def _of_protocol(tested: Mapping[tuple[str, str], Tested], protocol: str) -> dict[str, Tested]:
    """Return what each backbone has under a protocol, or what was trained as a whole, which stands beside each."""
    found = {}
    for name in dict.fromkeys(backbone for backbone, _ in tested):
        having = [tested[name, each] for each in (protocol, *STANDING) if (name, each) in tested]
        found |= {name: having[0]} if having else {}
    return found


Key = tuple[str, str, str]  # backbone, protocol, metric
SIDES = ("backbone", "protocol", "metric", "other_backbone", "other_protocol", "other_metric")


def _variants(every: Mapping[Key, Resampled], pair: list[str], metric: str) -> Iterator[dict]:
    """Yield the paired differences of the paper's way from ours, of [what tells them apart, ours, theirs]."""
    for ours, one in every.items():
        theirs = _theirs(ours, pair, metric)
        if theirs in every:
            names = dict(zip(SIDES, (*ours, *theirs), strict=True))
            difference = simultaneous.paired(every[theirs].minus(one))
            yield {**names, **_columns(difference), "n_patients": one.patients}


def _theirs(ours: Key, pair: list[str], metric: str) -> Key | None:
    """Return what is ours as the paper did it, by a pair; None where the pair is not about it."""
    (of, one, other), (backbone, protocol, name) = pair, ours
    if of == "metric":
        return (backbone, protocol, other) if name == one else None
    if name != metric:
        return None
    if of == "protocol":
        return (backbone, other, name) if protocol == one else None
    return (backbone + PAPER, protocol, name) if of == "backbone" else None


def _truth(study: Study, step: Step) -> Truth | None:
    task = study.dataset(step.dataset).task
    return Truth.load(step.dependency("prepare").folder) if task == "segmentation" else None


def _samples(of_protocol: Mapping[str, Tested], protocol: str) -> dict[str, pd.DataFrame]:
    return {f"{name} {protocol}": each.samples for name, each in of_protocol.items()}


def _same_samples(dataset: str, samples: Mapping[str, pd.DataFrame]) -> None:
    """Raise unless every backbone predicted the same samples of the same patients."""
    (first, expected), *others = samples.items()
    for name, each in others:
        if not np.array_equal(expected.to_numpy(), each.to_numpy()):
            reason = f"{first} and {name} were tested on different samples, so no paired difference exists"
            raise RadprobeError(dataset, reason, "run both on the same split")
