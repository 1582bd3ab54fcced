"""Where the page of each cell lies, for those who write the pages and those who link to them."""

from radprobe.names import slug
from radprobe.report.collect import Findings
from radprobe.report.ranking import FEW_SHOT

FOLDER = "cells"  # beside explorer.html
UP = "../../../explorer.html"  # from a page
DRAWING = ("logistic", "linear-decoder")  # the protocols whose heads are fitted to few-shot draws too


def address(dataset: str, backbone: str, protocol: str) -> str:
    """Return where the page of a cell lies, from the explorer."""
    return f"{FOLDER}/{dataset}/{slug(backbone)}/{slug(protocol)}.html"


def protocols(findings: Findings) -> dict[tuple[str, str], list[str]]:
    """Return the protocols that have pages, by dataset and backbone: those with scores; draws stand on one of them.

    Further random initialisations have no pages: that of the first shows their scores.
    """
    every = findings.shown[["dataset", "backbone", "protocol"]].drop_duplicates()
    found: dict[tuple[str, str], list[str]] = {}
    for dataset, backbone, protocol in every.itertuples(index=False):
        if not protocol.startswith(FEW_SHOT):
            found.setdefault((dataset, backbone), []).append(protocol)
    return found


def of_draws(names: list[str]) -> str:
    """Return which of a backbone's protocols shows its few-shot draws."""
    return next((name for name in DRAWING if name in names), names[0])


def addresses(findings: Findings) -> dict[str, dict[str, dict[str, str]]]:
    """Return the address of every page by dataset, backbone and protocol; few-shot protocols lead to their section."""
    every = protocols(findings)
    found: dict[str, dict[str, dict[str, str]]] = {}
    named = findings.shown[["dataset", "backbone", "protocol"]].drop_duplicates()
    for dataset, backbone, protocol in named.itertuples(index=False):
        names = every.get((dataset, backbone))
        if not names:
            continue
        is_draw = protocol.startswith(FEW_SHOT)
        place = address(dataset, backbone, of_draws(names) if is_draw else protocol)
        found.setdefault(dataset, {}).setdefault(backbone, {})[protocol] = place + ("#few-shot" if is_draw else "")
    return found
