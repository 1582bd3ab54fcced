"""plan: what a study is before it runs: cells, jobs done and to do, what is missing, disk and hours."""

import shutil
from collections.abc import Iterator

from radprobe import catalog, estimate, machine
from radprobe.console import say, show_table, size
from radprobe.estimate import Earlier, TimeEstimate
from radprobe.study import ON_GPU, ON_ONE_CORE, OUTPUTS, Missing, Step, Study

CELLS = ("probe", "segment", "adapt", "external")
COLUMNS = ("stage", "jobs", "done", "can run now", "hours of those", "hours of all to do", "which rests on")
HOUR = 3600


def run(study: Study) -> None:
    """Print the plan of a study, now and as if nothing were missing. Nothing is computed; only manifests are read."""
    study = study.as_if_skipping()  # to tell all that is missing, not the first
    whole = study.as_if_complete()
    _check_external(study)
    _say_cells(study, whole)
    show_table(COLUMNS, list(_stages(study, whole)))
    gpu = f" and, of {', '.join(sorted(ON_GPU))}, of a GPU" if study.gpus else ""
    one = ", ".join(sorted(ON_ONE_CORE))
    say(f"An hour is one of {study.params.threads} thread(s){gpu}; of {one}, of one thread.")
    _say_missing(study.missing)
    _say_disk("what can run now", study)
    if len(whole.steps) > len(study.steps):
        _say_disk("all of it", whole)


def _check_external(study: Study) -> None:
    """Check the files of rows from elsewhere, and say what of them is ignored. Raises RadprobeError."""
    for row in study.external_here:
        for line in study.check_predictions(row):
            say(f"note: {row}: {line}")


def _say_cells(study: Study, whole: Study) -> None:
    cells = [step for step in whole.steps.values() if step.verb in CELLS]
    here = [step for step in study.steps.values() if step.verb in CELLS]
    say(f"{study.params.study}: {len(cells)} cells (dataset x backbone), {len(here)} can run here")
    for dataset in whole.datasets_here:
        of, can = ([step for step in some if step.dataset == dataset] for some in (cells, here))
        n = estimate.images(study, dataset)
        counted = f"{n:,.0f} images" if n else "images not counted yet"
        say(f"  {dataset}: {len(of)} cells, {len(can)} here, {sum(step.done for step in can)} done; {counted}")


def _stages(study: Study, whole: Study) -> Iterator[tuple[str, ...]]:
    earlier = Earlier(study)
    for verb in OUTPUTS:
        keys = [key for key in whole.steps if key[0] == verb]
        if not keys:
            continue
        finished = {key for key in keys if key in study.steps and study.steps[key].done}
        todo = [whole.steps[key] for key in keys if key not in finished]
        now = [study.steps[key] for key in keys if key in study.steps and key not in finished]
        found = [estimate for step in todo if (estimate := earlier.estimate(whole, step))]
        at_once = [estimate for step in now if (estimate := earlier.estimate(study, step))]
        counts = (str(len(each)) for each in (keys, finished, now))
        yield verb, *counts, _hours(now, at_once), _hours(todo, found), _source(verb, todo, found)


def _hours(todo: list[Step], found: list[TimeEstimate]) -> str:
    if not todo:
        return "none"
    if not found:
        return "not estimated"
    low, high = sum(each.low for each in found) / HOUR, sum(each.high for each in found) / HOUR
    rest = f", and {len(todo) - len(found)} jobs not estimated" if len(found) < len(todo) else ""
    digits = ",.0f" if high >= 10 else ".1f"
    return (f"{low:{digits}} to {high:{digits}}" if high >= 0.1 else "under 0.1") + rest


def _source(verb: str, todo: list[Step], found: list[TimeEstimate]) -> str:
    if not todo:
        return ""
    if verb in ("retrieve", "weights"):
        return "disk and network"
    if not found:
        return "no job like these has run here: run a pilot (limit: 20) and plan again"
    measured = sorted({each.jobs for each in found} - {0})
    words = []
    if measured:
        many = f"{measured[0]} to {measured[-1]}" if len(measured) > 1 else f"{measured[0]}"
        words.append(f"{many} earlier {'job' if many == '1' else 'jobs'} like each, here")
    if any(each.jobs == 0 for each in found):
        machines = sorted({f"{row.machine}, {row.precision}" for row in catalog.throughput()})
        words.append(f"forward passes alone, as timed on {' and '.join(machines)}: yours will differ")
    return "; ".join(words)


def _say_missing(missing: list[Missing]) -> None:
    if not missing:
        say("Nothing is missing: data and weights are here, or are fetched by the run.")
    for gone in missing:
        say(f"missing: {gone.kind} {gone.name}: {gone.why}. To run it, {gone.remedy}.")


def _say_disk(what: str, study: Study) -> None:
    least, with_maps = estimate.disk(study)
    at = machine.existing(study.path("work"))
    most = f"at most {study.params.embed.max_dense_cache_gb:g} GB for each dataset and backbone"
    uncounted = [name for name in study.datasets_here if not estimate.images(study, name)]
    if len(uncounted) < len(study.datasets_here):
        say(f"Disk for {what}: pixels and vectors about {size(least)}, with dense maps {size(with_maps)} ({most});")
        say("  of what is not made yet; raw downloads and predictions come on top.")
    if uncounted:
        say(f"Disk for {what}: not known yet of {', '.join(uncounted)}: the first job of each counts its images.")
    say(f"  {size(shutil.disk_usage(at).free)} free in {at}.")
