"""How often the sentences of a verdict are false, and its intervals miss, where the truth is known.

    python benchmarks/verdict_truth.py [--trials 2000] [--resamples 500] [--jobs 2] [--few] [--write] [--at-most 0.06]

Test sets are simulated, and every sentence is made by the code that makes it for the page: compare's table, the column,
the verdict. Then the sentences are parsed: a claim of superiority is false where the truth is no higher. `--few` runs
some conditions only; `--write` puts the table into docs/intervals.md.
"""

import argparse
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from radprobe.metrics.classification import Classifier
from radprobe.metrics.comparing import ComparedTable
from radprobe.metrics.options import Bootstrap, ComparedRow
from radprobe.metrics.resampling import Resampled
from radprobe.metrics.segmentation import Segmenter
from radprobe.report import recommendation, verdict
from radprobe.report.ranking import Column, compared, estimate

PAGE = Path(__file__).parents[1] / "docs/intervals.md"
START, END = "<!-- verdict_truth: start -->", "<!-- verdict_truth: end -->"
ROW = r"(row \d\d|pixels)"
CORRELATION = 0.7  # of the scores of two rows, given the label
PIXELS, MARGIN, PIXEL_COUNT = "pixels", 0.02, 2000
FAILING, TRUTH_DRAWS = 0.1, 1_000_000  # share of cases that a heavy-tailed segmentation misses


@dataclass(frozen=True)
class Condition:
    """A simulated task. gap: by how much the first half of the rows is better; lead: only the first row."""

    metric: str  # auroc | dsc (skewed) | dsc_heavy (with failures)
    patients: int
    rows: int
    truth: float = 0.8
    prevalence: float = 0.33
    images: int = 1
    gap: float = 0.0
    lead: bool = False
    tasks: int = 1

    @property
    def name(self) -> str:
        """The condition in one word."""
        parts = [self.metric, f"n{self.patients}", f"rows{self.rows}"]
        parts += [f"auroc{self.truth:g}", f"prevalence{self.prevalence:g}"] if self.metric == "auroc" else []
        parts += [f"images{self.images}"] if self.images > 1 else []
        parts += [f"{'lead' if self.lead else 'half'}{self.gap:g}"] if self.gap else []
        parts += [f"tasks{self.tasks}"] if self.tasks > 1 else []
        return "_".join(parts)

    @property
    def names(self) -> list[str]:
        """The rows; the last is a control."""
        return [*(f"row {number:02d}" for number in range(self.rows - 1)), PIXELS]

    @property
    def better(self) -> np.ndarray:
        """Which rows are better, bool [rows]."""
        return np.arange(self.rows) < (1 if self.lead else self.rows // 2)

    @property
    def truths(self) -> dict[str, float]:
        """The true score of every row."""
        base = self.truth if self.metric == "auroc" else _mean_dsc(self.metric, 0.0)
        high = base + self.gap if self.metric == "auroc" else _mean_dsc(self.metric, self.gap)
        return dict(zip(self.names, np.where(self.better, high, base).tolist(), strict=True))


class Simulated:
    """What compare's table reads of a row: its macro score on resampled patients, and its samples."""

    def __init__(self, statistic: Resampled, patients: int):
        self.statistic = statistic
        self.samples = pd.DataFrame({"patient_id": range(patients)})

    def macro(self, metric: str) -> Resampled:
        """Return the statistic."""
        return self.statistic

    def over_seeds(self, metric: str) -> list[float]:
        """Return the score of the only fit."""
        return [float(self.statistic.point)]


class SimulatedTable(ComparedTable):
    """Compare's table without DeLong's p-value, which has no part in any sentence."""

    def _delong(self, pair) -> float:
        return np.nan


def _dsc(metric: str, shift: float, normal: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return DSC by case from correlated normal numbers: skewed, and with failures where tails are heavy."""
    from scipy.stats import beta

    values = beta.ppf(norm.cdf(normal), 9, 1) if metric == "dsc" else beta.ppf(norm.cdf(normal), 30, 2)
    if metric == "dsc_heavy":
        failed = generator.random(values.shape) < FAILING
        values = np.where(failed, generator.uniform(0, 0.6, values.shape), values)
    return values + shift * (1 - values)  # a share of what is missing to 1


@cache
def _mean_dsc(metric: str, gap: float) -> float:
    """Return the true mean DSC of a row; a gap is the share of what is missing to 1."""
    generator = np.random.default_rng(0)
    return float(_dsc(metric, gap, generator.normal(size=TRUTH_DRAWS), generator).mean())


def simulate(condition: Condition, generator: np.random.Generator, how: Bootstrap) -> dict[str, Simulated] | None:
    """Return the rows of one simulated test set; None where it has no two labels."""
    n, k = condition.patients, condition.rows
    shape = (n, condition.images, k)
    shared = generator.normal(size=(n, condition.images, 1)) if condition.images == 1 else None
    if shared is None:  # the images of a patient go together too
        shared = (generator.normal(size=(n, 1, 1)) + generator.normal(size=(n, condition.images, 1))) / np.sqrt(2)
    normal = np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * generator.normal(size=shape)
    ids = np.repeat(np.arange(n), condition.images)
    if condition.metric == "auroc":
        targets = np.repeat(generator.random(n) < condition.prevalence, condition.images)
        if targets.all() or not targets.any():
            return None
        truths = np.array(list(condition.truths.values()))
        scores = normal.reshape(-1, k) + np.sqrt(2) * norm.ppf(truths) * targets[:, None]
        found = [
            Classifier(column[:, None], targets[:, None].astype(float), ids, fewest=how.min_patients).resampled(how)
            for column in scores.T
        ]
    else:
        shift = np.where(condition.better, condition.gap, 0.0)
        values = _dsc(condition.metric, shift, normal.reshape(-1, k), generator)
        found = [Segmenter(_matrices(column), ids).resampled("dsc", how) for column in values.T]
    return {name: Simulated(each, n) for name, each in zip(condition.names, found, strict=True)}


def _matrices(dsc: np.ndarray) -> np.ndarray:
    """Return confusion matrices [cases, 2, 2] of these DSC, to 1 / PIXEL_COUNT."""
    hit = np.rint(dsc * PIXEL_COUNT).astype(int)
    miss = PIXEL_COUNT - hit
    return np.stack([np.stack([np.full_like(hit, PIXEL_COUNT), miss], 1), np.stack([miss, hit], 1)], 1)


def column_of(rows: dict[str, Simulated], metric: str) -> Column:
    """Return the column that the page shows of these rows."""
    table = SimulatedTable(rows, metric, [ComparedRow(name, (name,), name == PIXELS, is_random=False) for name in rows])
    found = list(table.scores())
    scores = {row["backbone"]: estimate(row, "value") for row in found}
    column = Column("task", "logistic", metric, scores, dict.fromkeys(rows, 60.0), frozenset({PIXELS}))
    return compared(column, list(table.differences(MARGIN)), found, MARGIN)


def claims(column: Column) -> Iterator[tuple[str, str]]:
    """Yield (higher, lower) of every sentence of superiority on the page, parsed from its words."""
    said = verdict.verdict(column, str, "CPU")
    sentences = [*said.lines, *said.details, f"{verdict.finding(column, str)}."]
    others = [name for name in column.candidates if name != column.best]
    for sentence in sentences:
        if re.search(r"significantly higher than (the \d+ other backbones|all others)", sentence):
            yield from zip(repeat(column.best), others, strict=False)
        elif re.match(rf"{ROW} scores significantly higher than raw pixels\.", sentence):
            yield column.best, PIXELS
        elif found := re.match(rf"Best: {ROW}\. It scores significantly higher than {ROW}\.", sentence):
            yield found.group(1), found.group(2)
        elif sentence.startswith("Significantly higher than"):
            yield from zip(repeat(column.best), re.findall(ROW, sentence), strict=False)
        elif sentence.startswith("Significantly lower than"):
            yield from zip(re.findall(ROW, sentence), repeat(column.best), strict=False)


def intervals(column: Column, truths: dict[str, float]) -> Iterator[tuple[str, bool, float]]:
    """Yield the kind, whether it holds the truth, and the width of every interval on the page."""
    line = verdict.verdict(column, str, "CPU").lines[1]
    if found := re.search(r"\[(-?[\d.]+), (-?[\d.]+)\]", line):
        low, high = map(float, found.groups())
        yield "winner", low - 0.0005 <= truths[column.best] <= high + 0.0005, high - low
    for name, score in column.scores.items():
        if not np.isnan(score.low):
            yield "score", score.low <= truths[name] <= score.high, score.high - score.low
    for (one, other), each in column.differences.items():
        if not np.isnan(each.low):
            yield "difference", each.low <= truths[one] - truths[other] <= each.high, each.high - each.low


def trial(condition: Condition, seed: int, resamples: int) -> dict[str, float]:
    """Return what one simulated study says: whether any claim is false, what its intervals hold, how far it errs."""
    generator = np.random.default_rng([seed, *condition.name.encode()])
    how = Bootstrap(resamples, seed, min_patients=10)
    truths, heads = condition.truths, {}
    for number in range(condition.tasks):
        if rows := simulate(condition, generator, how):
            heads[f"task {number}"] = column_of(rows, "auroc" if condition.metric == "auroc" else "dsc")
    found: dict[str, list[float]] = {}
    false, significant = [], set()
    for column in heads.values():
        said = set(claims(column))
        significant |= said
        false += [truths[high] <= truths[low] for high, low in said]
        top = max(truths[name] for name in column.candidates)
        if column.contenders:  # a row without a mark in the map is said to be exceeded
            false += [truths[name] == top for name in column.candidates if name not in column.contenders]
        for kind, holds, width in intervals(column, truths):
            found.setdefault(f"{kind}_covers", []).append(holds)
            found.setdefault(f"{kind}_width", []).append(width)
        best = column.corrected or column.scores[column.best]
        found.setdefault("bias_measured", []).append(column.scores[column.best].value - truths[column.best])
        found.setdefault("bias_corrected", []).append(best.value - truths[column.best])
    if condition.tasks > 1 and (made := recommendation.recommend(heads, str, str)):
        false = [bool(tasks) for tasks in made.exceeded.values()]  # corrected over tasks: any false one in the study
    found["false_claim"] = [any(false)]
    if condition.lead:
        found["power"] = [(condition.names[0], condition.names[1]) in significant]
    return {name: float(np.mean(values)) for name, values in found.items()}


def run(condition: Condition, trials: int, resamples: int, first: int = 0) -> pd.DataFrame:
    """Return a row for each trial."""
    return pd.DataFrame([trial(condition, seed, resamples) for seed in range(first, first + trials)])


SIZES = [(40, 0.33), (100, 0.1), (100, 0.33), (400, 0.1), (400, 0.33)]  # 40 patients at 0.1 have too few positives
FULL = [
    *(Condition("auroc", n, 8, truth, p) for truth in (0.6, 0.8, 0.95) for n, p in SIZES),
    *(Condition("auroc", 100, rows) for rows in (2, 4, 14, 30)),
    *(Condition("auroc", 100, rows, 0.6, 0.1) for rows in (2, 4, 14, 30)),
    *(Condition("auroc", 60, rows, images=3) for rows in (2, 14)),
    Condition("auroc", 100, 14, gap=0.05),
    *(Condition("auroc", n, 8, gap=gap, lead=True) for n in (100, 400) for gap in (0.05, 0.1)),
    *(Condition(metric, n, 8) for metric in ("dsc", "dsc_heavy") for n in (40, 100, 400)),
    *(Condition(metric, 40, rows) for metric in ("dsc", "dsc_heavy") for rows in (2, 14, 30)),
    Condition("dsc", 12, 8),
    Condition("dsc", 20, 8),
    Condition("dsc_heavy", 40, 14, gap=0.3),
    Condition("auroc", 100, 6, tasks=5),
]
FEW = [
    Condition("auroc", 100, 8),
    Condition("auroc", 100, 14, 0.6, 0.1),
    Condition("auroc", 60, 14, images=3),
    Condition("auroc", 100, 14, gap=0.05),
    Condition("dsc", 40, 14),
    Condition("dsc_heavy", 40, 8),
    Condition("auroc", 100, 6, tasks=5),
]
SHOWN = {
    "false_claim": "false claim",
    "winner_covers": "winner's interval holds",
    "score_covers": "score's interval holds",
    "difference_covers": "difference's interval holds",
    "bias_measured": "bias of the highest score",
    "bias_corrected": "bias, corrected",
    "power": "power",
}


def table(results: dict[Condition, pd.Series]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| metric | patients | rows | what is true | " + " | ".join(SHOWN.values()) + " |"]
    lines.append("|---" * (4 + len(SHOWN)) + "|")
    for condition, found in results.items():
        numbers = [f"{found[name]:.3f}" if name in found and not np.isnan(found[name]) else "–" for name in SHOWN]
        cells = [condition.metric.replace("_", ", "), _patients(condition), str(condition.rows), _true(condition)]
        lines.append(f"| {' | '.join([*cells, *numbers])} |")
    return "\n".join(lines)


def _patients(condition: Condition) -> str:
    images = f" x {condition.images} images" if condition.images > 1 else ""
    positive = f", {condition.prevalence:.0%} positive" if condition.metric == "auroc" else ""
    return f"{condition.patients}{images}{positive}"


def _true(condition: Condition) -> str:
    base = f"AUROC {condition.truth:g}" if condition.metric == "auroc" else "mean DSC"
    unit = "" if condition.metric == "auroc" else " of what is missing to 1"
    if condition.lead:
        return f"{base}, one row higher by {condition.gap:g}{unit}"
    if condition.gap:
        return f"{base}, half of the rows higher by {condition.gap:g}{unit}"
    tasks = f", on each of {condition.tasks} tasks" if condition.tasks > 1 else ""
    return f"{base}, all equal{tasks}"


def main() -> None:
    """Print a line for each measure, and write the table where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--few", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--at-most", type=float, default=1.0, help="fail where a share of false claims is larger")
    asked = parser.parse_args()
    results = {}
    share = -(-asked.trials // asked.jobs)
    with ProcessPoolExecutor(asked.jobs) as pool:
        for condition in FEW if asked.few else FULL:
            starts = range(0, asked.trials, share)
            parts = pool.map(run, repeat(condition), repeat(share), repeat(asked.resamples), starts)
            results[condition] = pd.concat(parts).mean()
            for name, value in results[condition].items():
                print(f"measure {name}:{condition.name} {value:.4f}", flush=True)
    worst = max(each["false_claim"] for each in results.values())
    print(f"measure largest_share_of_false_claims {worst:.4f}")
    for kind in ("winner", "score", "difference"):
        covers = [each[f"{kind}_covers"] for each in results.values() if f"{kind}_covers" in each]
        print(f"measure least_coverage_{kind} {min(covers):.4f}")
    if worst > asked.at_most:
        raise SystemExit(f"false claims in {worst:.3f} of the studies of a condition, more than {asked.at_most:g}")
    if asked.write:
        text = PAGE.read_text(encoding="utf-8")
        before, after = text.split(START)[0], text.split(END)[1]
        PAGE.write_text(f"{before}{START}\n{table(results)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
