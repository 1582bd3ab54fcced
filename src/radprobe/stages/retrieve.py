"""retrieve: find (or generate) raw downloads and weights, and hash every file of them."""

import json
import shutil
from pathlib import Path

import pandas as pd

from radprobe import catalog, files, phantoms
from radprobe.artifacts import Index, RawManifest, Weights
from radprobe.catalog import Dataset, Package
from radprobe.console import say, track
from radprobe.datasets import DOWNLOADED, DOWNLOADING, PHANTOM_MARKER, UNLESS_BY_HAND, Layout, locate, raw
from radprobe.downloads.archives import folder_name
from radprobe.files import RadprobeError
from radprobe.jobs.external import ExternalJob
from radprobe.manifests import Manifest
from radprobe.names import EXTERNAL
from radprobe.params import Params, Paths, Phantom
from radprobe.phantoms import anatomy
from radprobe.splitting import splits
from radprobe.study import Step, Study


def run(study: Study, step: Step) -> None:
    """Write the RawManifest of a dataset. Raises RadprobeError where no raw folder of a known layout is there."""
    dataset, folder = step.dataset, study.raw_folder(step.dataset)
    entry, choice = study.dataset(dataset), study.params.datasets[dataset]
    params = study.params
    if choice.phantom:
        _generate(entry, choice.phantom, folder)
    elif study.will_download(dataset):
        from radprobe.downloads.acquire import acquire  # it needs requests; data that are here need none

        acquire(entry, folder)
    layout = locate(entry, folder)
    if layout is None:
        raise RadprobeError(folder, _why_absent(folder), catalog.how_to_get(entry, folder))
    say(f"{dataset}: layout '{layout.variant}' in {layout.root}")
    # what is wrong with tables, lists and headers is said before anything is hashed
    how = choice.allow_missing, None, choice.uncertain
    index = splits.checked_samples(entry, layout, *how, choice.split_name, params.seed)
    splits.check_split(splits.limited(index, entry, params.limit), entry, choice.split_name, params.seed)
    table = _hashed(layout, index, params.threads)
    downloads = _downloads(folder)
    source = "phantom" if choice.phantom else "download" if downloads else "user"
    if entry.package and layout.variant == "package":
        _check_package(entry.package, layout, table)
        source = f"package:{entry.package.name}=={entry.package.version}"
    counts = {"samples": len(index.table), "patients": int(index.table["patient_id"].nunique())}
    facts = {"counts": counts, "identity": step.knobs["fingerprint"], **({"downloads": downloads} if downloads else {})}
    RawManifest(layout.root, layout.variant, source, table, facts).save(step.place)


def _downloads(folder: Path) -> dict[str, dict]:
    """Return url, bytes and sha256 of each file that was downloaded to a raw folder; {} where it was not."""
    record = folder / DOWNLOADED
    return json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}


def _why_absent(folder: Path) -> str:
    if not folder.is_dir():
        return "is not there"
    if (folder / DOWNLOADING).is_file():
        return f"its download is not finished ({UNLESS_BY_HAND.format(folder / DOWNLOADING)})"
    if _downloads(folder):
        return "what was downloaded is not the whole dataset, or has no known layout"
    packed = [path.name for path in sorted(folder.iterdir()) if folder_name(path.name) != path.name and path.is_file()]
    archives = f", only {', '.join(packed)}: not unpacked, or not what is wanted" if packed else ""
    return f"no known layout is in it{archives}"


def weights(study: Study, step: Step) -> None:
    """Find (or fetch, or convert) the weights of a backbone, and verify them."""
    from radprobe.models.weights import obtain  # needs torch and timm; raw data do not

    name, params = step.backbone, study.params
    entry, local = study.backbone(name), study.weights_file(name)
    if facts := study.adapter(name):
        from radprobe.models.adapters import merged

        base, known = Weights.load(step.dependency("weights").folder), files.sha256(local)
        if entry.sha256 not in (None, known):
            raise RadprobeError(
                local, f"sha256 is {known}, not the known {entry.sha256}", "get it again, or mend params"
            )
        found = merged(study.backbone(facts["backbone"]), base, local, facts, step.folder)
        found.facts |= {"derived": entry.derived, "sha256_known": entry.sha256 is not None}
        found.facts["identity"] = step.knobs["identity"]
        found.save(step.place)
        return
    seed = step.knobs.get("seed", params.seed)  # each random initialisation has its own
    found = obtain(name, entry, local, step.folder, study.path("weights"), seed, study.may_fetch)
    say(f"{name}: {found.source}" + (f", sha256 {found.sha256}" if found.sha256 else ""))
    if found.file and not found.facts["sha256_known"]:
        _as_at_first_use(found, step.folder.parent / "first-use.json")
    found.facts["identity"] = step.knobs["identity"]
    found.save(step.place)


def found(study: Study) -> str:
    """Return as JSON the SHA-256 of each dataset's list of raw files and of each backbone's weights; null: not here.

    And, by dataset, the content of the predictions that were made elsewhere.
    Raises RadprobeError where dvc.yaml, which asks for it, does not fit the params.
    """
    _check_versioned(study.params)
    raw: dict[str, str | None] = dict.fromkeys(study.params.datasets)
    weights: dict[str, str | None] = {}
    for step in study.steps.values():
        if step.verb == "retrieve" and step.done:
            raw[step.dataset] = Manifest.read(step.outputs[0]).files["raw.parquet"]["sha256"]
        elif step.verb == "weights" and step.done:
            weights[step.backbone] = Manifest.read(step.outputs[0]).facts["sha256"]
    elsewhere: dict[str, dict[str, str | None]] = {name: {} for name in study.params.datasets}
    for row, dataset in study.external.items():
        step = study.steps.get((EXTERNAL, dataset, row))
        elsewhere[dataset][row] = step.job.content if step and isinstance(step.job, ExternalJob) else None
    found = {"datasets": raw, "backbones": weights, "predictions": elsewhere, "identities": study.identities}
    return json.dumps(found, indent=1)


MEND = "list each dataset of the study once, under dvc.push or dvc.keep, and nothing else"


def _check_versioned(params: Params) -> None:
    """Raise RadprobeError where params do not say for each dataset whether it is pushed, or name other folders."""
    listed, known = params.dvc.push + params.dvc.keep if params.dvc else [], list(params.datasets)
    for name in sorted({*listed, *known}):
        if listed.count(name) != known.count(name):
            raise RadprobeError("params: dvc", f"{name} is not once under push or keep, or is no dataset", MEND)
    default = Paths()
    for name in ("root", "work", "results", "reports"):
        if getattr(params.paths, name) != getattr(default, name):
            raise RadprobeError(f"params: paths.{name}", "dvc.yaml names this folder itself", "leave it out")


def _as_at_first_use(found: Weights, record: Path) -> None:
    """Compare weights of which no hash is known with those of their first use, or record this one as the first."""
    if not record.is_file():
        files.write_json(record, {"sha256": found.sha256, "source": found.source})
        return
    first = json.loads(record.read_text(encoding="utf-8"))["sha256"]
    if found.sha256 != first:
        reason = f"sha256 is {found.sha256}, but it was {first} when first used: other weights under the same name"
        raise RadprobeError(found.file, reason, f"put the first file back, or accept this one by removing {record}")


def _generate(entry: Dataset, phantom: Phantom, folder: Path) -> None:
    """Generate a phantom, in a folder that gets its name when complete; one that is there and complete stays."""
    if entry.folder or entry.package:
        reason = "there is no generator of it: only downloads are generated"
        raise RadprobeError(f"params: datasets.{entry.id}.phantom", reason, "remove phantom")
    layout = locate(entry, folder)
    if layout and _complete(layout, phantom):
        return
    partial = folder.with_name(folder.name + files.TEMPORARY)
    for leftover in (partial, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    phantoms.generate(partial, entry, phantom.patients, phantom.seed)
    partial.rename(folder)


def _complete(layout: Layout, phantom: Phantom) -> bool:
    marker = layout.root / PHANTOM_MARKER
    if not marker.is_file():
        return False
    n_files = sum(path.is_file() for path in layout.root.rglob("*")) - 1  # without the marker
    expected = {"patients": phantom.patients, "seed": phantom.seed, "generator": anatomy.VERSION, "files": n_files}
    return json.loads(marker.read_text(encoding="utf-8")) == expected


def _hashed(layout: Layout, index: Index, threads: int) -> pd.DataFrame:
    """Return path, bytes and sha256 of the tables and of every file that the samples name."""
    rows = index.table[["image", "masks"]].itertuples()
    named = dict.fromkeys(path for row in rows for path in (row.image, *row.masks))
    inside = (file for path in named for file in raw.files_of(layout.root / path))
    wanted = dict.fromkeys([*layout.tables, *layout.files, *inside])
    if skipped := sum(raw.junk(path) for folder in layout.folders for path in folder.iterdir()):
        say(f"{skipped} hidden file(s), as macOS leaves in archives, skipped")

    def row(path: Path) -> tuple[str, int, str]:
        if not path.is_file():  # a device or a pipe would be read without end
            raise RadprobeError(path, "is no file, or a link that leads to none", "put the file there, or unlist it")
        inside = path.is_relative_to(layout.root)  # a table may lie elsewhere
        name = path.relative_to(layout.root) if inside else path
        return name.as_posix(), path.stat().st_size, files.sha256(path)

    rows = list(track(files.stream_in_threads(row, wanted, threads), "hash files", len(wanted)))
    return pd.DataFrame(rows, columns=["path", "bytes", "sha256"])


def _check_package(package: Package, layout: Layout, table: pd.DataFrame) -> None:
    found = table["sha256"].iloc[0]
    if package.sha256 and found != package.sha256:
        reason = f"sha256 is {found}, not {package.sha256}"
        raise RadprobeError(layout.files[0], reason, f"pip install --force-reinstall {package.name}=={package.version}")
