"""The datasets of a study: which are here, and how to get the others."""

import io
import os
from collections.abc import Iterator
from contextlib import redirect_stdout

from radprobe import catalog
from radprobe.checks import Check
from radprobe.datasets import Layout
from radprobe.files import RadprobeError
from radprobe.study import Missing, Study


def datasets(study: Study, fail: bool) -> Iterator[Check]:
    """Look for every dataset of a study; `fail`: one that is missing stops a run."""
    missing = {one.name: one for one in study.missing if one.kind == "dataset"}
    for name, choice in study.params.datasets.items():
        what = f"data: {name}"
        if choice.phantom:
            yield Check(what, "ok", f"generated, {choice.phantom.patients} patients: a phantom, not real images")
        elif one := missing.get(name):
            then = "stops a run (on_missing: fail)" if fail else "left out"
            yield Check(what, "problem" if fail else "note", f"{one.why}: {then}", _how_to_get(study, name, one))
        elif study.will_download(name):
            yield Check(what, "note", f"downloaded to {study.raw_folder(name)} by the next run")
        elif layout := study.layout(name):
            yield from _readable(what, study, name, layout)
    if len(missing) == len(study.params.datasets):
        yield Check("data", "problem", "none of the study's datasets is here", "put one where the lines above say")


def _how_to_get(study: Study, name: str, missing: Missing) -> str:
    entry = study.dataset(name)
    if entry.folder or entry.package:
        return missing.remedy
    fetch = f"{catalog.by_hand(entry)}set download: true; or " if entry.downloads else ""
    where = f"put in {study.raw_folder(name)}: {entry.layout}; or say where it is: datasets.{name}.raw"
    return f"{fetch}get it (`radprobe datasets {name}` says how), and {where}"


def _readable(what: str, study: Study, name: str, layout: Layout) -> Iterator[Check]:
    where = f"{layout.variant} layout in {layout.root}"
    places = [layout.root, *layout.folders, *layout.tables, *layout.files[:1]]
    shut = [path for path in places if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0))]
    if shut:
        yield Check(what, "problem", f"{shut[0]} may not be read", f"chmod -R a+rX {shut[0]}, or ask its owner")
    elif study.dataset(name).folder:
        yield from _listed(what, study, name, where)
    else:
        yield Check(what, "ok", where)


def _listed(what: str, study: Study, name: str, where: str) -> Iterator[Check]:
    """Read the table of one's own images, as `retrieve` will."""
    try:
        with redirect_stdout(io.StringIO()):  # its warnings are notes here
            index = study.samples(name)  # it needs packages, which are a check of their own
    except ImportError:
        yield Check(what, "ok", where)
    except RadprobeError as error:
        yield Check(what, "problem", f"{error.what}: {error.reason}", error.remedy)
    else:
        images, patients = (index.table[column].nunique() for column in ("volume_id", "patient_id"))
        yield Check(what, "ok", f"{where}: {images:,} images or volumes of {patients:,} patients")
        yield from (Check(what, "note", warning) for warning in index.facts["warnings"])
