"""score: metrics with patient-clustered intervals from predictions."""

from collections.abc import Collection, Iterator, Mapping

import pandas as pd

from radprobe import console
from radprobe.artifacts import SCORES_SCHEMA, Index, LeakCertificate, Predictions, Scores
from radprobe.jobs import Inputs, Runtime
from radprobe.jobs.score import ScoreJob
from radprobe.metrics import draw_rows, score_rows
from radprobe.metrics.classification import MACRO
from radprobe.metrics.score_rows import Scored
from radprobe.metrics.scoring import ScoredCell, Segmented, truth_of


def run(job: ScoreJob, inputs: Inputs, runtime: Runtime) -> None:
    """Read Predictions (and Truth); write Scores of every protocol and metric on val and test, and per-case values."""
    source = inputs.by_backbone()[job.backbone]
    predictions = Predictions.load(source)
    truth = truth_of(inputs.folder("prepare"), job.task)
    cell = ScoredCell(predictions, truth, job.metric, job.intervals, job.tolerance)
    near = _near_cases(inputs)
    tables: list[pd.DataFrame] = []
    cases: list[pd.DataFrame] = []
    for protocol in predictions.protocols:
        scored = {part: cell.scored(protocol, part) for part in predictions.parts(protocol)}
        cases += _cases(scored, protocol)
        tables += _of_protocol(cell, protocol, scored, near)
    draws = None
    if predictions.few_shot:
        draws = draw_rows.scores(predictions, predictions.few_shot, job.metric, job.task == "multiclass")
        costs = score_rows.costs(predictions.embedding, predictions.few_shot_fits)
        tables.append(draw_rows.over_draws(draws, predictions).assign(part="test", **costs))
    shared = {"dataset": job.dataset, "backbone": job.backbone, "seed": job.seed, "key": source.name}
    table = pd.concat(tables, ignore_index=True).assign(**shared)[list(SCORES_SCHEMA.columns)]
    every_case = pd.concat(cases, ignore_index=True) if cases else None
    Scores(table, every_case, draws).save(inputs.place)
    _say(table, job.metric)


def _cases(scored: Mapping[str, Scored], protocol: str) -> Iterator[pd.DataFrame]:
    """Yield the per-case values of each part; none for classification."""
    for part, each in scored.items():
        if isinstance(each, Segmented):
            yield each.cases().assign(protocol=protocol, part=part)


def _of_protocol(
    cell: ScoredCell, protocol: str, scored: Mapping[str, Scored], near: Collection[str]
) -> Iterator[pd.DataFrame]:
    """Yield the rows of val and of test with what they cost."""
    test, val = scored["test"], scored.get("val")
    costs = score_rows.costs(cell.predictions.embedding, cell.predictions.protocol(protocol))
    of_val = score_rows.of_val(cell, protocol, val) if val else []
    yield pd.DataFrame(of_val).assign(protocol=protocol, part="val", **costs)
    of_test = score_rows.of_test(cell, protocol, test, val)
    of_test += score_rows.without_near(cell, protocol, test, near)
    yield pd.DataFrame(of_test).assign(protocol=protocol, part="test", **costs)


def _near_cases(inputs: Inputs) -> set[str]:
    """Return the test cases that look like a copy of one in another part."""
    names = LeakCertificate.load(inputs.folder("split")).near_test_samples
    if not names:
        return set()
    table = Index.load(inputs.folder("prepare")).table
    return set(table.loc[table["sample_id"].isin(names), "volume_id"])


def _say(table: pd.DataFrame, metric: str) -> None:
    chosen = table[(table["metric"] == metric) & (table["class"] == MACRO) & (table["part"] == "test")]
    for row in chosen.itertuples():
        console.say(f"{row.protocol}: test {metric} {row.value:.3f} [{row.low:.3f}, {row.high:.3f}]")
