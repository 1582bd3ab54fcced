"""plan --power: how many test patients a stated difference takes, from validation predictions of a pilot or a study.

The test set has no part in it, so it can be asked before the test set is used. Standard errors are paired, as in the
comparison that the report will make; its critical value is that of the backbones alone, so controls and trained rows
raise it a little.
"""

from radprobe import estimate
from radprobe.artifacts import Predictions
from radprobe.console import about, say
from radprobe.jobs.compare import CompareJob
from radprobe.manifests import Manifest
from radprobe.metrics.scoring import ScoredCell, truth_of
from radprobe.metrics.simultaneous import Family
from radprobe.names import FLOOR, PREFERRED, STANDING, first_init
from radprobe.study import Step, Study

REMEDY = "run a pilot first (`limit: 120` in a params file), or the study up to `probe` and `segment`"


def run(study: Study) -> None:
    """Print, for every dataset with predictions of two backbones or more, how many test patients it would take."""
    studies = [study, *estimate.recorded(study)]
    for dataset in study.datasets_here:
        if study.dataset(dataset).task == "look":
            continue
        said = (_of(each, dataset) for each in studies if dataset in each.datasets_here)
        say(next(filter(None, said), None) or f"{dataset}: no predictions of two backbones yet; {REMEDY}")


def _of(study: Study, dataset: str) -> str:
    """Return what validation predictions of a study say of a dataset, "" where fewer than two backbones have any."""
    steps = [step for step in study.steps.values() if step.dataset == dataset and step.verb == "score"]
    made = {step.backbone: source for step in steps if step.backbone and (source := _predictions(step)).done}
    candidates = [name for name in made if study.backbone(name).family != "control" and first_init(name) == name]
    if len(candidates) < 2:
        return ""
    found = {name: Predictions.load(made[name].folder) for name in candidates}
    protocol = _protocol(study, found)
    if protocol is None:
        return ""
    having = {name: each for name, each in found.items() if protocol in each.protocols}
    if len(having) < 2:
        return ""
    job = CompareJob.of(dataset, study.dataset(dataset), {}, [], study.params)
    truth = truth_of(study.step("prepare", dataset).folder, job.task)
    cells = {name: ScoredCell(each, truth, job.metric, job.intervals) for name, each in having.items()}
    scores = {name: cell.scored(protocol, "val").macro(job.metric, cell.how) for name, cell in cells.items()}
    family = Family(scores, {})
    return _sentence(study, dataset, protocol, family)


def _predictions(score: Step) -> Step:
    return next(need for need in score.dependencies if need.backbone)


def _protocol(study: Study, found: dict[str, Predictions]) -> str | None:
    """Return the protocol of the verdict, else the first that two backbones have; None where none has val for two."""
    names = [name for each in found.values() for name in each.protocols]
    frozen = [name for name in dict.fromkeys(names) if name not in (FLOOR, *STANDING) and names.count(name) > 1]
    preferred = [name for name in (study.params.report.headline, *PREFERRED) if name in frozen]
    return next(iter([*preferred, *frozen]), None)


def _sentence(study: Study, dataset: str, protocol: str, family: Family) -> str:
    margin = study.params.score.margin
    patients = next(iter(family.rows.values())).patients
    where = f"{dataset}, {protocol}, {len(family.rows)} backbones on {patients} validation patients"
    if family.refused:
        return f"{where}: {family.refused}; {REMEDY}"
    known = [each for each in family.differences if each.standard_error > 0]
    if not known:
        return f"{where}: no two of them differ in any resample"
    known.sort(key=lambda each: each.standard_error)
    middle = known[len(known) // 2]
    needed, low, high = family.patients_needed(middle, margin)
    ends = [family.patients_needed(each, margin)[0] for each in (known[0], known[-1])]
    rarer = family.support.patients / patients if family.support.rarer else None
    of_rarer = f", {about(needed * rarer)} of them with the rarer label" if rarer else ""
    return (
        f"{where}: to detect a difference of {margin:g} at 80 % power, about {about(needed)} test patients{of_rarer} "
        f"({about(low)} to {about(high)}); {about(ends[0])} for the pair that is most alike, {about(ends[1])} for "
        f"the least alike. {_have(study, dataset)}"
    )


def _have(study: Study, dataset: str) -> str:
    parts = Manifest.read(study.step("split", dataset).outputs[0]).facts["parts"]
    pilot = f" (a pilot, limit: {study.params.limit})" if study.params.limit else ""
    if "test" not in parts:
        return f"Cross-validation tests each of {sum(each['patients'] for each in parts.values()):,} patients{pilot}."
    return f"The test set has {parts['test']['patients']:,}{pilot}."
