"""The command line: one subcommand per verb. Snakemake's rules call these, and so can a person."""

import importlib
import os
import shlex
import shutil
import signal
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType, ModuleType
from typing import Annotated

import typer

from radprobe import __version__, files, gpus, machine
from radprobe.console import say
from radprobe.files import RadprobeError
from radprobe.study import ON_GPU, ON_ONE_CORE, Step, Study, in_order

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
ParamsFile = Annotated[Path, typer.Option("--params", envvar="RADPROBE_PARAMS", help="The params file of the study.")]
DatasetId = Annotated[str, typer.Argument(help="A dataset of the study.")]
BackboneId = Annotated[str, typer.Argument(help="A backbone of the study.")]

MORE_MEMORY = "run it where there is more, with fewer threads, or with a smaller batch_size"
IDENTITIES = "RADPROBE_IDENTITIES"  # the file with what raw data and weights were when a run began
STARTED = "RADPROBE_STARTED"  # when the graph was built of which this is a job, in seconds since 1970
OPTIONS = {"force": False}  # of the whole command line, before the verb


def main() -> None:
    """Run the command line; an error that the user can mend is printed in three lines, without a traceback."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        app()
    except RadprobeError as error:
        print(f"radprobe: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not machine.lacks_memory(error):
            raise
        print(f"radprobe: out of memory ({error})\n  -> {MORE_MEMORY}", file=sys.stderr, flush=True)
        sys.exit(2)


def _stop(number: int, frame: FrameType | None) -> None:
    """Leave as after an error, so that no temporary file stays: Slurm sends SIGTERM some seconds before it kills."""
    print("radprobe: stopped by SIGTERM; the same command goes on", file=sys.stderr, flush=True)
    sys.exit(128 + number)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Make it again, even if it is already made.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit
    OPTIONS["force"] = force


@app.command()
def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Look for what would stop a run: packages, GPU, disk, data, weights, Slurm; each with a remedy."""
    source = context.get_parameter_source("params")
    default = source is not None and source.name == "DEFAULT"
    if not _command("doctor").run(params, default, as_json):
        raise typer.Exit(1)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Your images, and their CSV if they have one.")],
    table: Annotated[Path | None, typer.Option(help="The CSV, where it lies elsewhere.")] = None,
    task: Annotated[
        str | None, typer.Option(help="binary, multilabel, multiclass or segmentation; else what the folder suggests.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The params file; default <folder>.yaml, here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what an earlier init wrote.")] = False,
) -> None:
    """Look at a folder of your own images, propose a study of it, and write its params file and a contact sheet."""
    _command("init").run(folder, table, task, out, force)


@app.command()
def plan(
    power: Annotated[
        bool, typer.Option("--power", help="Instead, how many test patients a difference takes, from a pilot.")
    ] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Print what a study is: cells, jobs done and to do, what is missing, disk, hours by what earlier jobs took."""
    _command("power" if power else "plan").run(_study(params))


@app.command()
def retrieve(
    dataset: Annotated[str | None, typer.Argument(help="A dataset of the study.")] = None,
    found: Annotated[bool, typer.Option("--found", help="Print the hashes of all that was found, as JSON.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Find (or generate) the raw download of a dataset, and verify it."""
    if bool(dataset) == found:
        raise RadprobeError("radprobe retrieve", "needs either a dataset or --found", "name one of them")
    if found:
        print(_command("retrieved").found(_study(params)))
    else:
        _make(params, "retrieve", dataset)


@app.command()
def weights(backbone: BackboneId, params: ParamsFile = Path("params.yaml")) -> None:
    """Find (or fetch) the weights of a backbone, and verify them."""
    _make(params, "weights", None, backbone)


@app.command()
def prepare(dataset: DatasetId, params: ParamsFile = Path("params.yaml")) -> None:
    """Verify and decode the images once; pack them."""
    _make(params, "prepare", dataset)


@app.command()
def split(
    dataset: DatasetId,
    listing: Annotated[Path | None, typer.Option(help="Also write it as a CSV: patient, case, split or fold.")] = None,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Give each sample its part, and certify that nothing leaks between the parts."""
    _make(params, "split", dataset)
    if listing:
        step = _study(params).step("split", dataset)
        _stage("split").write_listing(step.dependency("prepare").folder, step.folder, listing)


@app.command()
def embed(dataset: DatasetId, backbone: BackboneId, params: ParamsFile = Path("params.yaml")) -> None:
    """Compute the frozen features of a dataset, once."""
    _make(params, "embed", dataset, backbone)


@app.command()
def probe(dataset: DatasetId, backbone: BackboneId, params: ParamsFile = Path("params.yaml")) -> None:
    """Fit the cheap heads (kNN, ML-kNN, linear probe) on frozen features."""
    _make(params, "probe", dataset, backbone)


@app.command()
def segment(dataset: DatasetId, backbone: BackboneId, params: ParamsFile = Path("params.yaml")) -> None:
    """Fit decoders on frozen dense maps, or a network from scratch."""
    _make(params, "segment", dataset, backbone)


@app.command()
def adapt(
    dataset: DatasetId,
    backbone: Annotated[str, typer.Argument(help="A backbone, and how: <id>+bitfit, <id>+lora or <id>+end_to_end.")],
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Train a backbone with its head: every bias, LoRA, or end to end."""
    _make(params, "adapt", dataset, backbone)


@app.command()
def external(
    dataset: DatasetId,
    row: Annotated[str, typer.Argument(help="An id under `predictions` of the dataset in params.")],
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Read predictions that were made elsewhere: a CSV of scores, or a folder of label maps."""
    _make(params, "external", dataset, row)


@app.command()
def score(dataset: DatasetId, backbone: BackboneId, params: ParamsFile = Path("params.yaml")) -> None:
    """Score predictions, with intervals."""
    _make(params, "score", dataset, backbone)


@app.command()
def compare(dataset: DatasetId, params: ParamsFile = Path("params.yaml")) -> None:
    """Compare the backbones of a dataset pairwise."""
    _make(params, "compare", dataset)


@app.command()
def report(params: ParamsFile = Path("params.yaml")) -> None:
    """Write explorer.html and the figures from whatever has been made."""
    study = _study(params)
    _limit_threads(1)
    _stage("report").run(study)
    say(f"open {study.path('reports') / 'explorer.html'}")


@app.command()
def export(
    dataset: DatasetId,
    backbone: BackboneId,
    folder: Annotated[Path, typer.Argument(help="Where to put the label maps or tables.")],
    protocol: Annotated[
        str | None, typer.Option(help="Only those of this protocol: linear, linear-decoder, unet-decoder ...")
    ] = None,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Write the predictions of a cell: label maps as NIfTI (volumes) or PNG (films), scores as CSV."""
    study = _study(params)
    verb = study.predicting(dataset, backbone) if dataset in study.params.datasets else None
    step = study.step(verb or "segment", dataset, backbone)
    if not step.done:
        raise RadprobeError(step.folder, "has no predictions yet", f"run `{_typed(study, step)}`, or snakemake")
    _command("export").run(study, step, folder, protocol)


@app.command()
def datasets(
    dataset: Annotated[str | None, typer.Argument(help="All facts of this one, with links.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/datasets.md instead.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """List the datasets: what is here, what can be downloaded, what needs registration."""
    listing = _command("datasets")
    if markdown:
        print(listing.markdown(), end="")
    elif dataset:
        listing.facts(_study(params), dataset)
    else:
        listing.run(_study(params))


@app.command()
def backbones(
    backbone: Annotated[str | None, typer.Argument(help="All facts of this one, with links.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/backbones.md instead.")] = False,
    costs: Annotated[bool, typer.Option("--costs", help="Print catalog/backbone_costs.csv, computed anew.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """List the backbones: whose weights are here, which can be fetched, under which licence, what they cost."""
    listing = _command("backbones")
    if markdown:
        print(listing.markdown(), end="")
    elif costs:
        print(listing.costs_csv(), end="")
    elif backbone:
        listing.facts(_study(params), backbone)
    else:
        listing.run(_study(params))


@app.command()
def pack(
    folder: Annotated[Path, typer.Argument(help="Where to put the weights.")], params: ParamsFile = Path("params.yaml")
) -> None:
    """Put the verified weights of a study in one folder, for RADPROBE_WEIGHTS on a cluster."""
    study = _study(params)
    _command("pack").run(study, folder, lambda step: _make_step(study, step))


@app.command()
def gc(
    keep: Annotated[list[Path] | None, typer.Argument(help="Params files: what they do not need goes.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """List, and after asking remove, what no study needs: none of those named, or none that Snakemake ran here."""
    command = _command("gc")
    studies = [Study(path) for path in keep] if keep else command.recorded(_study(params))
    command.run(studies, lambda question: _confirmed(question, yes))


@app.command()
def adopt(
    yes: Annotated[bool, typer.Option("--yes", help="Adopt without asking.")] = False,
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """List, and after asking adopt, frozen features of another key that equal those that the study would compute."""
    study = _study(params)
    _limit_threads(study.params.threads)
    _command("adopt").run(study, lambda question: _confirmed(question, yes), lambda: _gpu(study, "embed"))


@app.command()
def schema() -> None:
    """Print the JSON schema of params.yaml."""
    from radprobe.params import schema as text

    print(text(), end="")


def _study(params: Path) -> Study:
    """Return the study of a params file; in a job of a run, with the identities that the run began with."""
    return Study(params, Path(os.environ[IDENTITIES]) if IDENTITIES in os.environ else None)


def _make(params: Path, verb: str, dataset: str | None, backbone: str | None = None) -> None:
    study = _study(params)
    _make_step(study, study.step(verb, dataset, backbone))


def _typed(study: Study, step: Step) -> str:
    """Return what a person types to make a step."""
    own = [] if study.file in (None, Path("params.yaml")) else ["--params", str(study.file)]
    return shlex.join(["radprobe", *step.command.split(), *own])


def _make_step(study: Study, step: Step) -> None:
    for each in in_order(step):
        for line in study.set_aside_foreign(each):
            say(line)
    for need in step.dependencies:
        files.wait_for(need.outputs, say)
        for manifest in need.outputs:
            if not manifest.is_file():
                reason = f"'{step.verb}' needs it and it is not there"
                raise RadprobeError(manifest, reason, f"run `{_typed(study, need)}`")
    with files.writing(step.folder), files.lock(step.folder / "lock", on_wait=say):
        if OPTIONS["force"]:
            for manifest in step.outputs:
                manifest.unlink(missing_ok=True)
                files.twin(manifest).unlink(missing_ok=True)
            shutil.rmtree(step.folder / "training", ignore_errors=True)
        for leftover in step.folder.rglob(f"*{files.TEMPORARY}"):  # of a kill, also one after the last manifest
            leftover.unlink()
        files.restore(step.outputs, float(os.environ.get(STARTED, "inf")))
        if step.done:
            shutil.rmtree(step.folder / "training", ignore_errors=True)  # a kill after the last manifest
            say(f"already made: {step.folder}")
            return
        for manifest in step.outputs:  # where another of them was lost
            manifest.unlink(missing_ok=True)  # a kill from here on leaves nothing that looks whole
        _limit_threads(1 if step.verb in ON_ONE_CORE else study.params.threads)
        started = time.monotonic()
        on_gpu = step.verb in ON_GPU and study.params.device != "cpu"
        with _gpu(study, step.verb):
            if on_gpu and gpus.VISIBLE in os.environ:
                say(f"{gpus.VISIBLE}={os.environ[gpus.VISIBLE]}")
            stage = _stage(step.verb)
            stage.run(step.job, step.inputs, study.runtime(step))
        if step.verb == "retrieve":
            study.note_raw_state(step)
        for manifest in step.outputs:
            files.keep_twin(manifest)
    say(f"{step.command}: {time.monotonic() - started:.1f} s, {step.folder}")


def _gpu(study: Study, verb: str) -> AbstractContextManager[object]:
    """Hold a GPU while a verb runs that needs one."""
    return gpus.one(say) if verb in ON_GPU and study.params.device != "cpu" else nullcontext()


def _confirmed(question: str, yes: bool) -> bool:
    """Ask, unless the answer is given; without a terminal it is no."""
    return yes or (sys.stdin.isatty() and typer.confirm(question))


def _stage(name: str) -> ModuleType:
    return importlib.import_module(f"radprobe.stages.{name}")


def _command(name: str) -> ModuleType:
    return importlib.import_module(f"radprobe.commands.{name}")


def _limit_threads(threads: int) -> None:
    """Give every numerical library `threads` threads: those already loaded, and (by the environment) those to come."""
    import threadpoolctl

    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    threadpoolctl.threadpool_limits(threads)
