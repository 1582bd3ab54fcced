"""compare: which backbones of a dataset differ, from the predictions of all of them on the same test patients."""

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pandera.pandas as pa

from radprobe import console
from radprobe.artifacts import COMPARISON_SCHEMA, ROWS_SCHEMA, VARIANTS_SCHEMA, Comparison, Predictions
from radprobe.artifacts.tables import Record
from radprobe.files import RadprobeError
from radprobe.jobs import Inputs, Runtime
from radprobe.jobs.compare import CompareJob
from radprobe.metrics import comparing
from radprobe.metrics.comparing import ComparedTable, ScoreName, Tested
from radprobe.metrics.resampling import Resampled
from radprobe.metrics.scoring import ScoredCell, truth_of
from radprobe.names import FLOOR, STANDING


def run(job: CompareJob, inputs: Inputs, runtime: Runtime) -> None:
    """Read the Predictions of all backbones of a dataset; write what tells their primary macro scores apart.

    For every protocol: the paired differences of all rows, simultaneous over the rows; the score of each row, that of
    the best corrected for having been chosen. And for each backbone that is no control the differences between ours
    and what is made as the paper did.
    """
    tested = _tested(job, inputs)
    controls = {backbone for row in job.rows if row.is_control for backbone in row.backbones}
    metrics = _metrics(job)
    differences: list[Record] = []
    rows: list[Record] = []
    of_variants: dict[ScoreName, Resampled] = {}
    samples: dict[str, pd.DataFrame] = {}
    for protocol in _protocols(tested):
        of_protocol = _of_protocol(tested, protocol)
        samples = dict(itertools.islice(samples.items(), 1))  # all are compared with the first
        samples |= {f"{name} {protocol}": each.samples for name, each in of_protocol.items()}
        _same_samples(job.dataset, samples)
        table = ComparedTable(of_protocol, job.metric, job.rows)
        differences += [{**row, "protocol": protocol} for row in table.differences(job.margin)]
        rows += [{**row, "protocol": protocol} for row in table.scores()]
        for name, each in of_protocol.items():
            if name not in controls:
                of_variants |= {ScoreName(name, each.protocol, metric): each.macro(metric) for metric in metrics}
            each.forget()
    variants = [row for pair in job.variants for row in comparing.variants(of_variants, pair, job.metric)]
    shared = {"dataset": job.dataset, "metric": job.metric}
    Comparison(
        _typed(differences, COMPARISON_SCHEMA, **shared),
        _typed(variants, VARIANTS_SCHEMA, dataset=job.dataset),
        _typed(rows, ROWS_SCHEMA, **shared),
        {"margin": job.margin},
    ).save(inputs.place)
    console.say(f"{job.dataset}: {len(differences)} paired differences, {len(variants)} from what the paper did")


def _tested(job: CompareJob, inputs: Inputs) -> dict[tuple[str, str], Tested]:
    """Return what every backbone has on test, by backbone and protocol."""
    truth = truth_of(inputs.folder("prepare"), job.task)
    tested: dict[tuple[str, str], Tested] = {}
    for backbone, folder in inputs.by_backbone().items():
        predictions = Predictions.load(folder)
        cell = ScoredCell(predictions, truth, job.metric, job.intervals)
        tested |= {(backbone, protocol): Tested(cell, protocol) for protocol in predictions.protocols}
    return tested


def _metrics(job: CompareJob) -> list[str]:
    """Return the primary metric, and those by which the paper's way and ours differ."""
    named = {name for pair in job.variants if pair.of == "metric" for name in (pair.ours, pair.theirs)}
    return [job.metric, *sorted(named - {job.metric})]


def _protocols(tested: Mapping[tuple[str, str], Tested]) -> list[str]:
    """Return the protocols that order rows: of frozen features, or, if there is none, of trained networks."""
    names = list(dict.fromkeys(protocol for _, protocol in tested if protocol != FLOOR))
    return [name for name in names if name not in STANDING] or names[:1]


def _of_protocol(tested: Mapping[tuple[str, str], Tested], protocol: str) -> dict[str, Tested]:
    """Return what each backbone has under a protocol, or what was trained as a whole, which stands beside each."""
    found = {}
    for name in dict.fromkeys(backbone for backbone, _ in tested):
        having = [tested[name, each] for each in (protocol, *STANDING) if (name, each) in tested]
        if having:
            found[name] = having[0]
    return found


def _same_samples(dataset: str, samples: Mapping[str, pd.DataFrame]) -> None:
    """Raise unless every backbone predicted the same samples of the same patients."""
    (first, expected), *others = samples.items()
    for name, each in others:
        if not np.array_equal(expected.to_numpy(), each.to_numpy()):
            reason = f"{first} and {name} were tested on different samples, so no paired difference exists"
            raise RadprobeError(dataset, reason, "run both on the same split")


def _typed(rows: list[Record], schema: pa.DataFrameSchema, **shared: str) -> pd.DataFrame:
    """Return rows as a table of a schema, with its types also if it is empty."""
    table = pd.DataFrame(rows, columns=[name for name in schema.columns if name not in shared]).assign(**shared)
    texts = [name for name, column in schema.columns.items() if "str" in str(column.dtype)]
    return table.astype(dict.fromkeys(texts, "str"))[list(schema.columns)]
