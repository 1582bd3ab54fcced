"""Make it again: the command, the versions, the params, and for every cell its key, weights and chosen settings."""

import importlib.metadata
import os
import platform
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import yaml

from radprobe import __version__
from radprobe.artifacts.tables import Record
from radprobe.names import with_weights
from radprobe.report import tables, trust, words
from radprobe.report.collect import Cell, Findings
from radprobe.study import Step

PACKAGES = ["torch", "torchvision", "timm", "monai", "numpy", "scipy", "scikit-learn", "pandas", "matplotlib"]
PACKAGES += ["nibabel", "pillow", "snakemake", "dvc"]
FEW = 8  # candidate values that are told one by one


def command() -> str:
    """Return the command that makes the whole study (RADPROBE_COMMAND where the workflow sets it)."""
    return os.environ.get("RADPROBE_COMMAND", "snakemake --cores all")


def step_command(step: Step) -> str:
    """Return the one command that makes a step."""
    return f"radprobe --force {step.command} --params params.yaml"


def versions() -> dict[str, str]:
    """Return the versions of radprobe, python and the packages that results depend on."""
    found = {"radprobe": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not in this environment"
    return found


def commit() -> str:
    """Return the git commit of the code, marked when files differ from it."""
    call = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(call, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "not in a git checkout"


def hardware(findings: Findings) -> str:
    """Return what computed the features and trained backbones (from manifests), and what this page was written on."""
    done = ((cell.dataset, cell.backbone) for cell in findings.cells if cell.state == "done")
    devices = sorted({findings.device(name, backbone) for name, backbone in done if backbone} - {"an unknown device"})
    memory = psutil.virtual_memory().total / 1e9
    here = f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GB"
    return f"features on {', '.join(devices) or 'nothing yet'}; this page on {here}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def params_yaml(findings: Findings) -> str:
    """Return the whole params of the study, defaults included."""
    return yaml.safe_dump(findings.study.params.model_dump(mode="json"), sort_keys=False)


@dataclass(frozen=True)
class ProtocolRecipe:
    """What was chosen for a protocol, by which part and among what; and how long it took."""

    name: str
    told: str
    seconds: str


@dataclass(frozen=True)
class CellRecipe:
    """How a cell is made again: the keys of its steps, the one command, and what it was made from, as lines."""

    cell: Cell
    anchor: str
    name: str
    step_keys: dict[str, str]
    command: str
    weights: list[tuple[str, str]] = field(default_factory=list)
    features: list[tuple[str, str]] = field(default_factory=list)
    protocols: list[ProtocolRecipe] = field(default_factory=list)


def cells(findings: Findings) -> list[CellRecipe]:
    """Return how each cell is made again."""
    return [cell_of(findings, each) for each in findings.cells]


def cell_of(findings: Findings, cell: Cell) -> CellRecipe:
    """Return how one cell is made again."""
    steps = findings.study.steps
    verb = findings.study.predicting(cell.dataset, cell.backbone) or "embed"
    made = [steps.get((name, cell.dataset, cell.backbone)) for name in ("embed", verb, "score", "compare")]
    keys = {step.verb: step.key for step in made if step}
    again = cell.step if cell.state != "done" else steps.get((verb, cell.dataset, cell.backbone), cell.step)
    found = CellRecipe(
        cell=cell,
        anchor=tables.anchor(cell.dataset, cell.backbone or "comparison"),
        name=findings.title(cell.backbone) if cell.backbone else "paired comparison",
        step_keys=keys,
        command=step_command(again),
    )
    if cell.backbone is None:
        return found
    weights = findings.facts("weights", None, with_weights(cell.backbone))
    shown: Record = {
        key: weights[key] for key in ("source", "sha256", "seed", "parameters", "derived") if key in weights
    }
    features = findings.facts("embed", cell.dataset, cell.backbone)
    wanted = ("size", "precision", "device", "dim", "dense", "images_per_second", "seconds", "peak_gb")
    return replace(
        found,
        weights=trust.flat(shown),
        features=trust.flat({key: features[key] for key in wanted if key in features}),
        protocols=_protocols(findings.facts(verb, cell.dataset, cell.backbone)),
    )


def _protocols(facts: Record) -> list[ProtocolRecipe]:
    """Return each protocol's chosen settings, the part that chose them, among what, and how long it took."""
    found = [ProtocolRecipe(name, _chosen(each), _took(each)) for name, each in facts.get("protocols", {}).items()]
    if few_shot := facts.get("few_shot"):
        fixed = {key: few_shot[key] for key in ("c", "learning_rate", "steps", "shots", "draws") if key in few_shot}
        found.append(ProtocolRecipe("few-shot", f"{_settings(fixed)}; fixed beforehand", _took(few_shot)))
    return found


def _took(facts: Record) -> str:
    return words.duration(facts["seconds"]) if "seconds" in facts else "–"


def _settings(values: Record) -> str:
    return ", ".join(f"{name} {text}" for name, text in trust.flat(values))


def _chosen(facts: Record) -> str:
    """Say what was chosen, from which part, among how many candidates, and which of them diverged or went on."""
    if "external" in facts:
        scale = f", read as {facts['scale']}" if "scale" in facts else ""
        return f"made elsewhere, {facts['external']}{scale}"
    if folds := facts.get("folds"):
        settings = " | ".join(_settings(each["chosen"]) for each in folds)
        return f"of {len(folds)} folds, each with its own val: {settings}"
    chosen, candidates = facts.get("chosen", {}), facts.get("candidates", [])
    diverged = sum(each.get("value", 0) is None for each in candidates)
    again, late = (len(facts.get(name, [])) for name in ("diverged_when_refitted", "not_converged"))
    said = [_settings(chosen), _selection(chosen, candidates, facts.get("selected_on", "a part not stated"))]
    said += [f"fitted again for {facts['refit_epochs']} epochs, as params fix"] if "refit_epochs" in facts else []
    said += [f"{diverged} of them diverged"] if diverged else []
    said += [f"{late} of them had not converged"] if late else []
    said += [f"the grid was widened {facts['widened']} times"] if facts.get("widened") else []
    said += [f"the chosen {_spaced(facts['at_edge'])} lies at the edge of the grid"] if facts.get("at_edge") else []
    said += [f"{again} better on val diverged when fitted again on train + val"] if again else []
    return "; ".join(said)


def _selection(chosen: Record, candidates: list[Record], part: str) -> str:
    if len(candidates) < 2:
        return "the only candidate" if candidates else "fixed beforehand"
    return f"chosen on {part} among {len(candidates)} candidates ({'; '.join(_span(n, candidates) for n in chosen)})"


def _span(name: str, candidates: list[Record]) -> str:
    """Return the candidate values of a setting: all of a few, else the least and the most."""
    values = sorted({each[name] for each in candidates})
    told = trust.inline(values) if len(values) <= FEW else " to ".join(map(trust.inline, (values[0], values[-1])))
    return f"{_spaced(name)} {told}"


def _spaced(name: str) -> str:
    return name.replace("_", " ")
