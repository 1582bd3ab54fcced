"""The weights of a study: which are here and whole, and whether the hub gives the others."""

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

from radprobe import catalog, files
from radprobe.checks import Check, State, some
from radprobe.names import with_weights
from radprobe.study import Study

HUB, HUB_WAIT_S = "https://huggingface.co", 4


def backbones(study: Study, fail: bool) -> Iterator[Check]:
    """Look for the weights of every backbone of a study; `fail`: those that are missing stop a run."""
    state: State = "problem" if fail else "note"
    gone = [one for one in study.missing if one.kind not in ("dataset", "predictions")]
    for one in gone:
        then = "stops a run (on_missing: fail)" if fail else "left out"
        yield Check(f"weights: {one.name}", state, f"{one.why}: {then}", one.remedy)
    if not set(study.params.backbones) & set(study.backbones_here):
        yield Check("weights", "problem", "none of the study's backbones is here", "see the lines above")
    here: list[str] = []
    fetched: list[str] = []
    for name in dict.fromkeys(map(with_weights, study.backbones_here)):
        if not study.backbone(name).random:
            (here if _is_here(study, name) else fetched).append(name)
    for name in here:
        yield from _cut_off(study, name)
    if here:
        yield Check("weights", "ok", f"here: {some(here)}")
    if fetched:
        yield _from_the_hub(study, fetched)
    elif not study.may_fetch:
        yield Check("hub", "ok", "offline by choice (hub: false, or HF_HUB_OFFLINE)")


def _is_here(study: Study, name: str) -> bool:
    entry = study.backbone(name)
    if study.weights_file(name) or (entry.package and catalog.package_folder(entry.package)):
        return True
    return study.step("weights", None, name).done


def _cut_off(study: Study, name: str) -> Iterator[Check]:
    """Say where a safetensors file ends before its tensors do, by its header; the rest is verified by `retrieve`."""
    entry, file = study.backbone(name), study.weights_file(name)
    if file is None or file.suffix != ".safetensors":
        return
    try:
        header, start = files.safetensors_header(file)
        header.pop("__metadata__", None)
        missing = start + max(one["data_offsets"][1] for one in header.values()) - file.stat().st_size
        found = f"{file} is cut off: {missing:,} bytes are missing" if missing > 0 else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        found = f"{file} is cut off within its header, or no safetensors file"
    if found:
        how = catalog.how_to_get_weights(entry, study.path("weights"))
        yield Check(f"weights: {name}", "problem", found, f"copy it again: {how}")


def _from_the_hub(study: Study, names: list[str]) -> Check:
    hub = os.environ.get("HF_ENDPOINT") or HUB
    largest = [f"{name} ({catalog.weights_size(study.backbone(name))})" for name in names]
    if why := _unreachable(hub):
        remedy = "where there is a network, `radprobe pack FOLDER`; then RADPROBE_WEIGHTS=FOLDER here"
        remedy += "; `hub: false` in params, or HF_HUB_OFFLINE=1, leaves out what is not here"
        return Check("hub", "problem", f"{hub} is not reached ({why}); wanted from it: {some(largest)}", remedy)
    return Check("hub", "ok", f"{hub} answers; fetched by the next run: {some(largest)}")


def _unreachable(url: str) -> str | None:
    """Return why a page does not answer, None where it does; names that nobody resolves may take longer than asked."""
    why: list[str | None] = [f"no answer in {HUB_WAIT_S} s"]

    def ask() -> None:
        try:
            asked = urllib.request.Request(url, method="HEAD")  # noqa: S310 - nothing of the answer is read
            with urllib.request.urlopen(asked, timeout=HUB_WAIT_S):  # noqa: S310
                why[0] = None
        except urllib.error.HTTPError:
            why[0] = None  # it answers, if only to say no
        except (OSError, ValueError) as error:
            why[0] = str(getattr(error, "reason", None) or error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_WAIT_S + 1)
    return why[0]
