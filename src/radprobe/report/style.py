"""How everything looks, in one place: the accent, a colour for each family, fonts. Families: Okabe and Ito 2008."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # colours alone need no matplotlib
    from matplotlib.typing import RcKeyType

ACCENT, ACCENT_DARK = "#5b3fa8", "#b9a5f5"  # on light and on dark paper
FAMILIES = {
    "self-supervised": "#0072b2",
    "supervised": "#d55e00",
    "weakly supervised": "#009e73",
    "medical": "#cc79a7",
    "own": "#56b4e9",
    "external": "#775533",
    "from scratch": "#e69f00",
    "control": "#6a6a6a",
}
TRUTH, PREDICTION, BOTH = (86, 180, 233), (230, 159, 0), (255, 255, 255)  # contours on grey images, RGB
INK, PAPER = "#1b1d22", "#ffffff"
MARKERS = ("o", "D", "^", "s", "v", "P")  # protocols, in order
RC: "dict[RcKeyType, Any]" = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "figure.titlesize": 11,
    "legend.frameon": False,
    "axes.axisbelow": True,
    "grid.color": "#8888884d",
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",  # text stays text: it can be searched, and read aloud
    "svg.hashsalt": "radprobe",  # the same figure is the same file
    "pdf.fonttype": 42,  # TrueType: journals take it, and its text can be edited
    "text.parse_math": False,  # a dollar in a name is a dollar
}


def family(name: str) -> str:
    """Return a family as a legend names it."""
    return {"control": "control (hollow)", "external": "from elsewhere"}.get(name, name)
