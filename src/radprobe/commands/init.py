"""init: look at a folder of one's own images, propose a study of it, show a few as they will be fed, write the params.

Nothing is written into the folder.
"""

import csv
import io
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import radprobe
from radprobe import catalog, files
from radprobe.artifacts import LABEL, Index
from radprobe.catalog import Dataset
from radprobe.console import say, track
from radprobe.datasets import decoding
from radprobe.datasets.decoding import Bad, Decoded, Picture
from radprobe.files import RadprobeError
from radprobe.imaging import intensity
from radprobe.models.backbones import grey
from radprobe.params import TAKEN
from radprobe.report import sheet
from radprobe.report.sheet import Shown
from radprobe.study import Study
from radprobe.survey.cases import Decision
from radprobe.survey.doubts import MANY_BAD
from radprobe.survey.proposal import Proposal, decide
from radprobe.survey.survey import survey

BACKBONES = {  # small ones of three kinds; the medical one by what the images are
    "vit_small_patch14_dinov2": "self-supervised",
    "rad_dino": "of X-rays",
    "tf_efficientnet_lite0": "small, supervised",
}
SHEET = 12  # images on it
SNAKEFILE = Path(radprobe.__file__).parents[2] / "Snakefile"  # of a checkout


def run(folder: Path, table: Path | None, task: str | None, out: Path | None, force: bool) -> Path:
    """Write the params file of a study of `folder`, its contact sheet, and a table where the user's own is not fit.

    Returns the params file. Raises RadprobeError where the folder holds nothing that can be asked, where retrieve would
    refuse what is proposed, where a file is there already (without `force`), and rather than write into the folder or
    over `table`.
    """
    folder = Path(os.path.normpath(folder.absolute()))
    name = _id(folder)
    out = out or Path(f"{name}.yaml")
    if out.suffix.lower() not in (".yaml", ".yml"):
        raise RadprobeError(out, "is no name of a params file", f"call it {out.stem}.yaml")
    own_table, picture = _own_table(out, table), out.with_name(f"{out.stem}_sheet.png")
    _refuse_places(folder, table, (out, own_table, picture), force)
    proposal = decide(survey(folder, table), task)
    _tell(folder, proposal)
    with files.writing(out.absolute().parent):
        with _written_table(own_table, proposal) as given:
            study = Study(_content(name, folder, proposal, given))
            index = _samples(study, name)
        files.write_bytes(picture, _sheet(study.dataset(name), folder, index))
        commands = _commands(out)
        content = _content(name, folder, proposal, own_table if given else None)
        warnings = [*proposal.warnings, *index.facts["warnings"]]
        files.write_text(out, _text(content, proposal.decisions, warnings, picture, commands))
    Study(out)
    written = [own_table] if given else []
    say(f"\nwritten: {', '.join(str(path) for path in (out, *written, picture))}")
    say(f"Look at {picture}: so the images reach a backbone. Change {out} where it is wrong. Then type:\n")
    for command in commands:
        say(f"  {command}")
    return out


def _id(folder: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9_]+", "_", folder.name).strip("_") or "images"
    return f"own_{name}" if name in catalog.datasets() or name.lower() in TAKEN else name


def _own_table(out: Path, table: Path | None) -> Path:
    """Return where a table is written: beside the params, by their name, but not over the user's own."""
    own = out.with_suffix(".csv")
    return out.with_name(f"{out.stem}_table.csv") if _same(own, table) else own


def _same(path: Path, table: Path | None) -> bool:
    return bool(table and path.exists() and table.exists() and path.samefile(table))


def _refuse_places(folder: Path, table: Path | None, paths: tuple[Path, ...], force: bool) -> None:
    for path in paths:
        if _same(path, table):
            raise RadprobeError(path, "is your own table, which is not overwritten", "name another file: --out FILE")
        if path.absolute().parent.resolve().is_relative_to(folder.resolve()):
            reason = "lies in the folder of your images, into which nothing is written"
            raise RadprobeError(path.absolute(), reason, "go to another folder, or name a file elsewhere: --out FILE")
        if path.exists() and not force:
            own = f"if it is your own table, say so: --table {path}; else " if path.suffix == ".csv" else ""
            remedy = f"{own}name another file: --out FILE, or overwrite it: --force"
            raise RadprobeError(path, "is there already", remedy)


@contextmanager
def _written_table(path: Path, proposal: Proposal) -> Iterator[Path | None]:
    """Write the rows of a proposal to `path`, which gets its name only if what follows succeeds; None without rows."""
    if proposal.rows is None:
        yield None
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(proposal.rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(proposal.rows)
    with files.atomic(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
        yield temporary


def _content(name: str, folder: Path, proposal: Proposal, table: Path | None) -> dict[str, Any]:
    """Return the params of the study."""
    described = {"title": folder.name, **proposal.choice["folder"]}
    if table:
        described = {"table": str(table.absolute()), **described}
    choice = {"raw": str(folder), **proposal.choice, "folder": described}
    xray = described["modality"] in ("X-ray", "not stated")
    return {
        "study": folder.name,
        "datasets": {name: choice},
        "backbones": [each for each in BACKBONES if each != "rad_dino" or xray],
        "paths": {"reports": f"reports/{name}"},
    }


def _samples(study: Study, name: str) -> Index:
    """Return the samples as retrieve will find them, or raise RadprobeError as it will."""
    return study.samples(name)


# --- what is said and written -----------------------------------------------------------------------------------------


def _tell(folder: Path, proposal: Proposal) -> None:
    say(f"{folder}:")
    for each in proposal.decisions:
        say(f"  {each.what}: {each.chosen}  ({each.why})")
    for warning in proposal.warnings:
        say(f"warning: {warning}")


def _commands(out: Path) -> list[str]:
    """Return what is to be typed next, from this folder."""
    snakefile = [] if Path("Snakefile").is_file() or not SNAKEFILE.is_file() else ["--snakefile", str(SNAKEFILE)]
    run = [_typed("snakemake"), "--cores", str(os.cpu_count() or 1), *snakefile, "--configfile", str(out)]
    return [shlex.join([_typed("radprobe"), "doctor", "--params", str(out)]), shlex.join(run)]


def _typed(program: str) -> str:
    """Return a program of this environment as it can be typed: with its folder where that is not searched."""
    own = Path(sys.executable).with_name(program)
    if not own.is_file() or shutil.which(program) == str(own):
        return program
    return str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)


def _text(
    content: dict[str, Any], decisions: list[Decision], warnings: list[str], picture: Path, commands: list[str]
) -> str:
    """Return the params as YAML, each decision with its reason as a comment."""
    why = {each.what: each.why for each in decisions}
    ((name, choice),) = content["datasets"].items()
    lines = ["# A study of your own images, as `radprobe init` proposes it; change what is wrong."]
    lines += [f"# {picture.name} shows how the images reach a backbone. All keys: workflow/schemas/params.schema.json"]
    lines += [f"# Run it: {_line(command)}" for command in commands]
    lines += [f"# Warning: {_line(warning)}" for warning in warnings]
    lines += ["", f"study: {_flow(content['study'])}", "", "datasets:", f"  {_flow(name)}:"]
    lines += [f"    {_reasoned(key, value, why)}" for key, value in choice.items() if key != "folder"]
    lines += ["    folder:"]
    lines += [f"      {_reasoned(key, value, why)}" for key, value in choice["folder"].items()]
    lines += ["", "backbones:    # `radprobe backbones` lists them"]
    lines += [f"  - {each}    # {BACKBONES[each]}" for each in content["backbones"]]
    lines += ["", f"paths: {_flow(content['paths'])}", "limit: null    # 20: a pilot on 20 patients first", ""]
    return "\n".join(lines)


def _reasoned(key: str, value: object, why: dict[str, str]) -> str:
    """Return a key of the params as a line, with the reason for its value as a comment."""
    return f"{key}: {_flow(value)}" + (f"    # {_line(why[key])}" if key in why else "")


def _line(text: str) -> str:
    return " ".join(text.split())


def _flow(value: object) -> str:
    """Return a value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


# --- the contact sheet ------------------------------------------------------------------------------------------------


def _sheet(entry: Dataset, folder: Path, index: Index) -> bytes:
    """Return the contact sheet; say what looks odd in it. Raises RadprobeError where many cannot be decoded."""
    shown, odd, bad = [], [], []
    pictures = {picture.rows[0].volume_id: picture for picture in decoding.pictures(index, folder)}
    # what its header says to be damaged has been told
    chosen = _chosen(index)
    chosen = [case for case in chosen if not isinstance(decoding.check(pictures[case]), Bad)] or chosen
    for case in track(chosen, "decode", len(chosen)):
        decoded = decoding.decode(_middle(pictures[case], entry), entry.decoding, entry.stored)
        if isinstance(decoded, Bad):
            bad.append(decoded)
            continue
        odd += [(kind, case, pixels) for kind, pixels in decoded.oddities.items() if kind != decoding.BURNED_IN]
        shown.append(_shown(decoded, entry, index))
    if len(bad) > MANY_BAD * len(chosen):
        reason = f"{bad[0].why}; {len(bad)} of the {len(chosen)} images that were decoded cannot be used"
        raise RadprobeError(bad[0].file, reason, bad[0].remedy)
    more = "others may be like it: a run stops at them unless max_quarantine lets them be set aside"
    for line in [*decoding.warnings(odd), *(f"cannot be decoded: {one.file}: {one.why}; {more}" for one in bad)]:
        say(f"warning: {line}")
    scale = " ".join(str(value) for value in entry.intensity.model_dump().values())
    heading = f"{entry.title}: {len(shown)} of {index.table['volume_id'].nunique()} as a backbone gets them, "
    return sheet.png(f"{heading}{entry.size} x {entry.size} pixels, grey values by {scale}", shown, entry.classes)


def _chosen(index: Index) -> list[str]:
    """Return cases of all classes in turn, of different patients as long as there are some."""
    table = index.table.drop_duplicates("volume_id")
    labels = [name for name in table if name.startswith(LABEL)]
    groups = [table[table[name] == 1] for name in labels] + [table[~(table[labels] == 1).any(axis=1)]]
    queues = []
    for group in groups:
        order = group.groupby("patient_id").cumcount().sort_values(kind="stable").index  # each patient's first before
        ids = table.loc[order, "volume_id"].tolist()
        queues.append([ids[k * len(ids) // min(SHEET, len(ids))] for k in range(min(SHEET, len(ids)))])
    turns = (case for turn in range(SHEET) for queue in queues for case in queue[turn : turn + 1])
    return list(dict.fromkeys(turns))[:SHEET]


def _middle(picture: Picture, entry: Dataset) -> Picture:
    """Return a volume with its middle slice alone where no mask says which slice shows most."""
    rows = picture.rows
    return picture if entry.task == "segmentation" else Picture(picture.image, (), rows[len(rows) // 2 :][:1])


def _shown(decoded: Decoded, entry: Dataset, index: Index) -> Shown:
    """Return the picture of a film, or of the slice of a volume that shows most, by the code that feeds a backbone."""

    k = max(range(len(decoded.images)), key=lambda row: np.count_nonzero(decoded.masks[row])) if decoded.masks else 0
    image, row = decoded.images[k][None], decoded.picture.rows[k]
    sample = index.table.loc[index.table["sample_id"] == row.sample_id].iloc[0]
    ranges = intensity.ranges(image, index.table["volume_id"].iloc[:1], entry.intensity)
    fed = grey(torch.from_numpy(image.copy()), None if ranges is None else torch.from_numpy(ranges), entry.size)
    held = [name for name in index.classes if sample[LABEL + name] == 1]
    height, width = decoded.shapes[k]
    at = f", slice {row.slice}" if len(sample["affine"]) else ""
    known = all(sample[LABEL + name] in (0, 1) for name in index.classes)
    nothing = f"not {entry.classes[0]}" if entry.task == "binary" else "none of the classes"
    nothing = nothing if known else "not known"
    label = (", ".join(held) or nothing) if index.classes else ""
    mask = decoded.masks[k] if decoded.masks else None
    return Shown(fed[0, 0].numpy(), sample["image"], f"{height} x {width}{at}", label, mask)
