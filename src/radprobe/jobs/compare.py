"""The job of `compare`: what the differences between the rows of a dataset depend on, besides their predictions."""

from collections.abc import Mapping, Sequence
from typing import Self

from radprobe.catalog import PRIMARY_METRIC, Dataset, Task
from radprobe.catalog.paper import Pair
from radprobe.jobs import Job
from radprobe.jobs.score import intervals
from radprobe.metrics.options import Bootstrap, ComparedRow, VariantPair
from radprobe.names import RANDOM, first_init, mode_of
from radprobe.params import Params


class CompareJob(Job):
    """The paired differences of a dataset."""

    dataset: str
    task: Task
    metric: str  # the primary one
    intervals: Bootstrap
    margin: float  # the difference that matters
    rows: tuple[ComparedRow, ...]
    variants: tuple[VariantPair, ...]

    @classmethod
    def of(
        cls, dataset: str, entry: Dataset, families: Mapping[str, str], pairs: Sequence[Pair], params: Params
    ) -> Self:
        """Return the job of a dataset with the families of its backbones by name, each random initialisation named."""
        return cls(
            dataset=dataset,
            task=entry.task,
            metric=PRIMARY_METRIC[entry.task],
            intervals=intervals(dataset, params),
            margin=params.score.margin,
            rows=_rows(families),
            variants=tuple(
                VariantPair(of=pair.of, ours=pair.ours, theirs=pair.theirs) for pair in pairs if pair.of != "few-shot"
            ),
        )


def _rows(families: Mapping[str, str]) -> tuple[ComparedRow, ...]:
    """Return the rows in the order of their first backbone; the random initialisations of a backbone are one."""
    grouped: dict[str, list[str]] = {}
    for backbone in families:
        grouped.setdefault(first_init(backbone), []).append(backbone)
    return tuple(
        ComparedRow(
            name=name,
            backbones=tuple(backbones),
            is_control=families[backbones[0]] == "control",
            is_random=name.startswith(RANDOM) and not mode_of(name),
        )
        for name, backbones in grouped.items()
    )
