"""What the catalog says of a backbone, in words: for lists and for the report."""

import re

from radprobe.catalog import PAPER, Backbone

NON_COMMERCIAL = re.compile(r"\bNC\b|non-?commercial", re.IGNORECASE)
# The vectors of rows that no library builds; networks from scratch and the ceiling have none.
WITHOUT_NETWORK = {
    "pixels": "grey values, averaged over each patch",
    "metadata": "what the tables say of a patient",
}


def restriction(licence: str, gated: bool) -> str:
    """Say how a licence restricts use, "" where it is an open one."""
    if gated:
        return "gated: each user accepts its terms"
    return "non-commercial" if NON_COMMERCIAL.search(licence) else ""


def recipe(entry: Backbone, dim: int | None) -> dict[str, str]:
    """Say how images become features, fact by fact; what does not concern a backbone is empty."""
    network = entry.library != "none"
    images = network or entry.patch is not None
    tokens, layer = network and entry.patch is not None, "block" if entry.patch else "stage"
    options = f", {entry.options}" if entry.options else ""
    return {
        "architecture": f"{entry.name}, by {entry.library}{options}" if network else "none",
        "vector": vector(entry, dim) + (" numbers" if dim else ""),
        "final norm": ("tokens pass it" if entry.norm else "tokens do not pass it") if tokens else "",
        "mean and std": f"{_numbers(entry.mean)} and {_numbers(entry.std)}, of images from 0 to 1" if images else "",
        "patch": f"{entry.patch} px" if entry.patch else "none, it is a CNN" if images else "",
        "prefix tokens": str(entry.prefix_tokens) if tokens else "",
        "native size": f"{entry.native_size:,} px" if images else "",
        "sizes": _sizes(entry) if images else "",
        "positions": _positions(entry) if tokens else "",
        "dense map": f"of {layer} {-entry.dense_layer} from the end" if network else "",
    }


def vector(entry: Backbone, dim: int | None = None) -> str:
    """Say what the vector is, and how long."""
    by = f"pooled by {entry.library}" if entry.library != "none" else WITHOUT_NETWORK.get(entry.name, "none")
    what = {"cls": "CLS token", "mean": "mean patch token", "library": by}[entry.pool]
    return f"{what}, {dim:,}" if dim else what


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


def _sizes(entry: Backbone) -> str:
    if not entry.sizes:
        return "as the dataset says" + (f", a multiple of {entry.patch} px" if entry.patch else "")
    first, *others = [f"{side:,}" for side in entry.sizes]
    return f"{first} px, or {', '.join(others)} px where the dataset says so" if others else f"always {first} px"


def _positions(entry: Backbone) -> str:
    rule = "the official DINOv2" if entry.positions == "dinov2" else entry.library
    return f"fitted to other sizes as {rule} does"


def as_in_the_study(entry: Backbone) -> str:
    """Say what the study did otherwise."""
    if entry.paper is None:
        return "not used"
    changes = entry.paper.model_dump(exclude_none=True)
    if not changes:
        return "used, with features as here"
    words = {
        "mean": lambda value: f"mean {_numbers(value)}",
        "std": lambda value: f"std {_numbers(value)}",
        "norm": lambda value: f"{'after' if value else 'before'} the final norm",
        "pool": lambda value: vector(entry.model_copy(update={"pool": value})),
    }
    return f"used otherwise ({entry.id}{PAPER}): " + ", ".join(words[key](value) for key, value in changes.items())
