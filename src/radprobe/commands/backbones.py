"""backbones: whose weights are here, and what each costs; all facts of one; the table of docs/backbones.md.

Costs of catalog entries are read (catalog/backbone_costs.csv), so that listing them needs no torch.
"""

import csv
import io
from dataclasses import astuple, dataclass, fields

from radprobe import catalog, params
from radprobe.catalog import PAPER, Backbone, Cost
from radprobe.catalog.describe import as_in_the_study, recipe, vector
from radprobe.console import markdown_table, say, say_facts, show_table, size
from radprobe.files import RadprobeError
from radprobe.study import Study, logged_in

SIDES = (224, 448)  # of images, for which costs are stated


@dataclass(frozen=True)
class BackboneRow:
    """A backbone as the table shows it."""

    id: str
    family: str
    status: str
    licence: str
    gated: str
    weights: str
    parameters: str
    gflops: str
    tokens: str


def run(study: Study) -> None:
    """Print every backbone of the catalog and every own one of the study."""
    columns = [field.name for field in fields(BackboneRow)]
    both = " / ".join(str(side) for side in SIDES)
    columns[-2:] = [f"GFLOPs at {both} px", f"tokens at {both} px"]
    show_table(columns, [astuple(row(study, name)) for name in _names(study)])
    say(
        "One image, a multiply-add counted as two. '@' names the only side that a backbone gets (SAM: always 1,024 px)."
    )
    say("`radprobe backbones <id>` says how to get one, and how its features are made.")


def row(study: Study, name: str) -> BackboneRow:
    """Return the row of a backbone of the catalog or of the study. Weights are looked at by name, and not read."""
    entry, cost = study.backbone(name), _cost(study, name)
    gflops, tokens = _at_both(entry, cost) if cost else ("not known", "not known")
    return BackboneRow(
        id=name,
        family=entry.family,
        status=status(study, name),
        licence=entry.licence,
        gated="yes" if entry.gated else "",
        weights=_size(study, name),
        parameters=f"{cost.parameters:,}" if cost else "not known",
        gflops=gflops,
        tokens=tokens,
    )


def status(study: Study, name: str) -> str:
    """Say in a few words where the weights of a backbone are, or how they can be had."""
    entry, file = study.backbone(name), study.weights_file(name)
    if entry.random:
        return "needs no weights"
    if file:
        return f"here: {file}"
    if entry.package and catalog.package_folder(entry.package):
        return f"here: in the Python package {entry.package.name} {entry.package.version}"
    if not entry.repo or not study.may_fetch:
        return "not here"
    if entry.gated and not logged_in():
        return "gated: terms and a token are needed"
    return f"fetched from the hub {'by the next run' if _in_the_study(study, name) else 'when the study names it'}"


def facts(study: Study, name: str) -> None:
    """Print all facts of a backbone, one a line. Raises RadprobeError for an unknown name."""
    names = _names(study)
    if name not in names:
        near = params.nearest_name(name, names)
        raise RadprobeError("radprobe backbones", f"unknown name '{name}'", f"did you mean {near}?")
    entry, cost = study.backbone(name), _cost(study, name)
    lines = {
        "family": entry.family,
        "status": status(study, name),
        "licence": entry.licence + (", gated: a person must accept its terms" if entry.gated else ""),
        "derived": entry.derived or "",
        **(_source(study, entry) if not entry.random else {}),
        **recipe(entry, cost.dim if cost else None),
        **(_costs_in_words(entry, cost) if cost else {"costs": f"not known: it cannot take images of {SIDES} px"}),
        "in the study": as_in_the_study(entry),
        "notes": entry.notes or "",
        "cite": entry.citation,
    }
    say_facts(f"{name}: {entry.title}", lines)


def _names(study: Study) -> list[str]:
    own = [name for name in study.params.own_backbones if name not in study.absent_adapters]
    return list(dict.fromkeys([*catalog.encoders(), *own]))


def _in_the_study(study: Study, name: str) -> bool:
    return not {name, name + PAPER}.isdisjoint(study.backbones)


# --- sizes and costs --------------------------------------------------------------------------------------------------


def _size(study: Study, name: str) -> str:
    """Say how large the weights of a backbone are: on disk, as published, or as their parameters take."""
    entry, file = study.backbone(name), study.weights_file(name)
    if entry.random:
        return ""
    return size(file.stat().st_size) if file else catalog.weights_size(entry)


def _cost(study: Study, name: str) -> Cost | None:
    """Return what a backbone costs: as the catalog has it, else computed; None where no such image fits it."""
    if known := study.cost(name):
        return known
    entry = study.backbone(name)
    if not all(entry.fits(entry.side(side)) for side in SIDES):
        return None
    from radprobe.models.costs import cost  # it needs torch

    return cost(entry)


def _at_both(entry: Backbone, cost: Cost) -> tuple[str, str]:
    """Return GFLOPs and tokens for both sides, "1.0 / 4.0", or for the only one, "9.0 @ 1,024"."""
    sides = [entry.side(side) for side in SIDES]
    gflops = [f"{number:,.1f}" for number in (cost.gflops_224, cost.gflops_448)]
    tokens = [f"{number:,}" for number in (cost.tokens_224, cost.tokens_448)]
    if sides[0] == sides[1]:
        return f"{gflops[0]} @ {sides[0]:,}", f"{tokens[0]} @ {sides[0]:,}"
    return " / ".join(gflops), " / ".join(tokens)


def costs_csv() -> str:
    """Compute what every backbone of the catalog costs; return it as catalog/backbone_costs.csv has it."""
    from radprobe.models.costs import cost  # it needs torch

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", *Cost.model_fields])
    writer.writerows([name, *cost(entry).model_dump().values()] for name, entry in catalog.encoders().items())
    return text.getvalue()


# --- facts in words ---------------------------------------------------------------------------------------------------


def _source(study: Study, entry: Backbone) -> dict[str, str]:
    return {
        "weights": _size(study, entry.id),
        "repository": _page(entry) or "",
        "revision": (entry.revision or "not known: the current one, recorded when it is fetched") if entry.repo else "",
        "sha256": entry.sha256 or "not known: recorded at first use, and compared after",
        "how": catalog.how_to_get_weights(entry, study.path("weights")),
    }


def _page(entry: Backbone) -> str | None:
    return f"https://huggingface.co/{entry.repo}" if entry.repo else None


def _costs_in_words(entry: Backbone, cost: Cost) -> dict[str, str]:
    gflops, tokens = _at_both(entry, cost)
    sides = " px" if "@" in gflops else f" at {' / '.join(str(side) for side in SIDES)} px"
    return {
        "parameters": f"{cost.parameters:,}",
        "depth": f"{cost.blocks} {'blocks' if entry.patch else 'stages'}" if cost.parameters else "",
        "GFLOPs": gflops + sides,
        "tokens": tokens + sides,
    }


# --- docs/backbones.md ------------------------------------------------------------------------------------------------

HEAD = """# The backbones

Made from the catalog by `make backbones-table`. `radprobe backbones` shows which weights are on your disk, `radprobe
backbones <id>` how to get them and how features are made of them. GFLOPs are of one image, a multiply-add counted as
two; tokens are patch tokens, or places of a CNN's dense map; `@` names the only side that a backbone gets: SAM always
gets 1,024 px, whatever the dataset says.

Beside these ids, params may name

- `random:<id>`: the same architecture with seeded random weights, the control that a backbone has to beat;
- `pixels`: the control without any network, grey values alone;
- `metadata`: the control without any image: age, sex and view, where the benchmark's tables have them;
- `unet`, `transunet`: networks that are trained from scratch, to segment: they have no weights;
- `<id>@paper`: features as the study made them (arXiv 2312.02366), where that differs: ImageNet's mean and std for all,
  tokens before the final norm, or a projection. It differs for the ids marked \\*.
"""
COLUMNS = ["id", "backbone", "library", "licence", "gated", "weights", "parameters", "vector", "patch", "native size"]
COLUMNS += [f"GFLOPs at {SIDES[0]} / {SIDES[1]}", f"tokens at {SIDES[0]} / {SIDES[1]}", "citation"]


def markdown() -> str:
    """Return docs/backbones.md: a row for each backbone of the catalog, by family, from its entry and cost alone."""
    entries = catalog.encoders().values()
    text = HEAD
    for family in dict.fromkeys(entry.family for entry in entries):
        rows = [_cells(entry, catalog.costs()[entry.id]) for entry in entries if entry.family == family]
        text += f"\n## {family.capitalize()}\n\n{markdown_table(COLUMNS, rows)}"
    return text


def _cells(entry: Backbone, cost: Cost) -> list[str]:
    mark = " \\*" if entry.paper and entry.paper.model_dump(exclude_none=True) else ""
    weights = f"[{entry.repo}]({_page(entry)})" if entry.repo else "none"
    patch = f"{entry.patch}" if entry.patch else ""
    start = [f"`{entry.id}`{mark}", entry.title, entry.library, entry.licence, "**yes**" if entry.gated else ""]
    middle = [weights, f"{cost.parameters:,}", vector(entry, cost.dim), patch, f"{entry.native_size:,}"]
    return [*start, *middle, *_at_both(entry, cost), entry.citation]
