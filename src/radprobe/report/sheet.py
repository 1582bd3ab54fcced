"""A contact sheet: images as a backbone gets them, with their labels below and their masks as contours."""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from radprobe.report import style

COLUMNS, SIDE, DPI = 4, 2.4, 110  # pictures beside each other; inches of one
CAPTION, MARGIN = 0.62, 0.8  # inches below a picture, and of heading and legend together
COLOURS = list(style.FAMILIES.values())[:-1]  # of contours: all but the grey one
CHARACTERS, LINES = 38, 2  # of a line of a caption; lines that the labels may take


@dataclass(frozen=True)
class Shown:
    """One picture: grey values [H, W] from 0 to 1, whose they are, their size, labels, and label map [h, w] or None."""

    image: np.ndarray
    name: str
    size: str
    label: str
    mask: np.ndarray | None = None

    @property
    def caption(self) -> str:
        """What stands below it: the end of a long name, the beginning of many labels."""
        name = self.name if len(self.name) <= CHARACTERS else f"...{self.name[3 - CHARACTERS :]}"
        labels = textwrap.wrap(self.label, CHARACTERS, max_lines=LINES, placeholder=" ...")
        return "\n".join([name, self.size, *labels])


def png(heading: str, pictures: Sequence[Shown], classes: Sequence[str]) -> bytes:
    """Return the sheet as a PNG. `classes` name the labels 1, 2 ... of the masks."""
    rows = -(-len(pictures) // COLUMNS)
    buffer = io.BytesIO()
    with matplotlib.rc_context(style.RC):
        figure = Figure(figsize=(COLUMNS * SIDE, rows * (SIDE + CAPTION) + MARGIN), dpi=DPI)
        height = figure.get_figheight()
        figure.suptitle(heading, x=0.01, y=1 - 0.1 / height, ha="left", va="top")
        edges = {"left": 0.01, "right": 0.99, "top": 1 - 0.4 / height, "bottom": (MARGIN - 0.4 + CAPTION) / height}
        apart = {"wspace": 0.06, "hspace": CAPTION / SIDE}
        places = figure.subplots(rows, COLUMNS, squeeze=False, gridspec_kw={**edges, **apart}).ravel()
        for axes in places:
            axes.set_axis_off()
        for axes, shown in zip(places, pictures, strict=False):
            axes.imshow(shown.image, cmap="gray", vmin=0, vmax=1, extent=(0, 1, 1, 0), interpolation="antialiased")
            axes.text(0, 1.02, shown.caption, va="top", fontsize=7.5)
            _contours(axes, shown.mask)
        if any(shown.mask is not None for shown in pictures):
            lines = [Line2D([], [], color=_colour(label), label=name) for label, name in enumerate(classes, 1)]
            figure.legend(handles=lines, loc="lower left", ncols=COLUMNS)
        FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _colour(label: int) -> str:
    return COLOURS[(label - 1) % len(COLOURS)]


def _contours(axes: Axes, mask: np.ndarray | None) -> None:
    if mask is not None:
        height, width = mask.shape
        x, y = (np.arange(width + 2) - 0.5) / width, (np.arange(height + 2) - 0.5) / height
        for label in np.unique(mask[mask > 0]):
            drawn = np.pad(mask == label, 1)  # closed at the edge
            axes.contour(x, y, drawn, levels=[0.5], colors=[_colour(int(label))], linewidths=1)
    axes.set_xlim(0, 1)
    axes.set_ylim(1, 0)
