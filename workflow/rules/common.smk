"""The study, and the functions that turn wildcards into inputs and arguments."""

import os
import shlex
import sys
import time
from pathlib import Path

import yaml

SOURCE = str(Path(workflow.basedir) / "src")
sys.path.insert(0, SOURCE)

from radprobe import files, machine, params
from radprobe.datasets import external
from radprobe.report import figures
from radprobe.names import slug
from radprobe.study import Study

# A job of Slurm goes by the study that its run began with, though the params file may have changed since.
BEGUN = os.environ.get("RADPROBE_PARAMS") if workflow.remote_exec else None
try:
    for file in [BEGUN] if BEGUN else workflow.configfiles:
        content = params.read(Path(file))  # Snakemake would take the last of two equal keys
    if BEGUN:
        config.clear()
        config.update(content)
    STUDY = Study(dict(config), Path(os.environ.get("RADPROBE_IDENTITIES", "")) if BEGUN else None)
    for row in [] if BEGUN else STUDY.external_here:
        STUDY.check_predictions(row)  # in seconds, before anything long has run
    STEPS = {(step.dataset, slug(step.backbone or ""), step.key): step for step in STUDY.steps.values()}
except files.RadprobeError as error:
    raise WorkflowError(str(error)) from None

# Jobs read the study as it is now, from files named by their content: editing params.yaml or replacing raw files under a
# run changes nothing. `radprobe gc` reads there which studies have worked in these folders.
FROZEN, RECORD = (STUDY.path(place) / "studies" / f"{files.digest(config)}.yaml" for place in ("work", "results"))
IDENTITIES = FROZEN.with_name(f"{FROZEN.stem}-{files.digest(STUDY.identities)}.json")
for file in (FROZEN, RECORD):
    if not file.is_file():
        files.write_text(file, yaml.safe_dump(dict(config), sort_keys=False))
if not BEGUN:
    for place in (FROZEN.parent, RECORD.parent):
        files.write_json(place / IDENTITIES.name, STUDY.identities)
    for line in (line for one in STEPS.values() for line in STUDY.set_aside_foreign(one)):
        logger.warning(line)
# By the environment, and not in the commands: a command that named the study would re-run for any change of it.
# PYTHONPATH, so that conda environments and containers run this checkout and need no installed radprobe.
os.environ.update(
    RADPROBE_PARAMS=str(FROZEN.resolve()),
    RADPROBE_IDENTITIES=os.environ.get("RADPROBE_IDENTITIES", "") if BEGUN else str(IDENTITIES.resolve()),
    RADPROBE_SOURCE=SOURCE,
    PYTHONPATH=SOURCE,
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]),
)
# Of a job in a conda environment Snakemake takes PYTHONPATH away, before this runs.
shell.prefix('set -euo pipefail; export PYTHONPATH="$RADPROBE_SOURCE"; ')
# Where one is active already, conda puts the next in its place on PATH, which is behind ours; else in front.
os.environ.pop("CONDA_SHLVL", None)
# With --sdm apptainer: the image of envs/Containerfile, for every rule.
if image := os.environ.get("RADPROBE_IMAGE"):

    container: image


PLACES = [
    f"{name}={shlex.quote(os.environ[name])}" for name in ("RADPROBE_RAW", "RADPROBE_WEIGHTS") if name in os.environ
]
os.environ.setdefault("RADPROBE_STARTED", str(time.time()))
TYPED = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
os.environ.setdefault("RADPROBE_COMMAND", " ".join([*PLACES, TYPED]))

SNAKEMAKE_PAGE = STUDY.path("reports") / "report.html"
SNAKEMAKE_REPORT = shlex.join(
    ["python", "-m", "snakemake", "--snakefile", str(Path(workflow.basedir) / "Snakefile")]
    + ["--workflow-profile", "none", "--configfile", str(FROZEN)]
    + ["--report", str(SNAKEMAKE_PAGE)]
)
WORK, RESULTS, REPORTS = (str(STUDY.path(name)) for name in ("work", "results", "reports"))
GPUS = STUDY.gpus
THREADS = STUDY.params.threads
FIGURES = figures.of(STUDY)
NEEDED = {need.folder for one in STEPS.values() for need in one.dependencies}  # folders of steps that others need

for gone in STUDY.missing:
    logger.warning(f"Not run: {gone.kind} {gone.name}: {gone.why}. To run it, {gone.remedy}.")


wildcard_constraints:
    dataset="[A-Za-z0-9_]+",
    backbone="[A-Za-z0-9_.-]+",
    key="[0-9a-f]{12}",


def is_stale(page, source):
    """Is a page older than what it shows, or not there? Not where there is nothing to show, as after --until."""
    return source.is_file() and not (page.is_file() and page.stat().st_mtime_ns > source.stat().st_mtime_ns)


def step(wildcards):
    """The step that a job makes."""
    place = getattr(wildcards, "dataset", None), getattr(wildcards, "backbone", ""), wildcards.key
    if place not in STEPS:
        lost = "its raw data or weights are not here any more, have changed, or are not on this machine"
        raise WorkflowError(f"{' '.join(filter(None, place))}: {lost}; `radprobe doctor` says what is missing")
    return STEPS[place]


def made(verb=None, dataset=None):
    """The manifests of a verb or of all, of one dataset or of all. Weights that no dataset needs are not fetched."""
    steps = (one for one in STEPS.values() if verb in (None, one.verb) and dataset in (None, one.dataset))
    steps = (one for one in steps if one.dataset or one.folder in NEEDED)
    return [manifest for one in steps for manifest in one.outputs]


def dependency(*verbs):
    """Input function: the manifests of these verbs on which a job depends; none if it has no such dependency."""
    return lambda wildcards: [
        manifest for one in step(wildcards).dependencies if one.verb in verbs for manifest in one.outputs
    ]


def named(wildcards):
    """Params function: the dataset and backbone of a job, as arguments."""
    return shlex.join(filter(None, (step(wildcards).dataset, step(wildcards).backbone)))


def memory(wildcards, attempt):
    """Resource function: the memory that a job with a backbone needs, more with each attempt."""
    return attempt * STUDY.memory_mb(step(wildcards).backbone)


def growing(amount):
    """Resource function: so much at first, more with each attempt."""
    return lambda wildcards, attempt: attempt * amount


def external_files(wildcards):
    """Input function: the file, or the label maps, of predictions that were made elsewhere."""
    return external.read_files(STUDY.predictions_file(step(wildcards).backbone))


def code(*folders):
    """Params function: what the code in folders of src/radprobe is, for what no step's VERSION stands for."""
    found = [path for name in folders for path in Path(SOURCE, "radprobe", name).rglob("*") if path.is_file()]
    found = sorted(path for path in found if "__pycache__" not in path.parts)
    return lambda wildcards: files.digest([files.sha256(path) for path in found])


def final_manifests(wildcards):
    """Input function of the report: the last step of every chain. Weights that no dataset needs are not fetched."""
    last = (one for one in STEPS.values() if one.dataset and one.folder not in NEEDED)
    return [manifest for one in last for manifest in one.outputs]


# The report offers a switch between them, and shows the first by the alphabet.
FORMATS = {"svg": "image (SVG)", "pdf": "print (PDF)"}


def shown(figure, ending):
    """A figure as Snakemake's report shows it."""
    return report(
        f"{REPORTS}/figures/{figure.name}.{ending}",
        caption=f"../report/{figure.kind}.rst",
        category="Figures",
        subcategory=figures.KINDS[figure.kind],
        labels={
            "dataset": figure.dataset or "all",
            "figure": figures.KINDS[figure.kind],
            "format": FORMATS[ending],
        },
    )
