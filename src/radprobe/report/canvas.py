"""The sheet of every figure: heading, legend, size, labels at the ends of lines; and what it becomes."""

import io
import textwrap
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from radprobe.report import style
from radprobe.report.figures import FORMATS

WIDTH, CHARACTERS = 7.2, 84  # of a figure in inches, of a line of its heading
LABEL, POINT = 9, 1 / 72  # font size of the labels at the lines' ends, in points; inches of a point
LINE = 1.3 * LABEL * POINT  # inches that a line of a label takes
ROW_LINE = 0.2  # inches that a line of a row's name takes
# Nothing of when and by what, so that the same scores give the same bytes.
NO_METADATA = {"svg": dict.fromkeys(["Date", "Creator", "Format", "Type"])}
NO_METADATA["pdf"] = dict.fromkeys(["CreationDate", "Creator", "Producer"])


def sheet() -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes."""
    figure = Figure(figsize=(WIDTH, 4), layout="constrained")
    return figure, figure.subplots()


def finish(
    figure: Figure, body: float, heading: str, said: str = "", legend: Sequence[Artist] = (), ncols: int = 3
) -> None:
    """Add the heading, what the figure says, and the legend, and make the figure so high that its axes are `body`."""
    lines = [textwrap.fill(each, CHARACTERS) for each in (heading, said) if each]
    figure.suptitle("\n".join(lines), x=0.01, ha="left")
    if legend:
        figure.legend(handles=legend, loc="outside lower left", ncols=ncols)
    figure.draw_without_rendering()  # heading, legend and ticks have their heights from here on
    boxes = [axes.get_window_extent() for axes in figure.axes]
    height = (max(box.y1 for box in boxes) - min(box.y0 for box in boxes)) / figure.dpi
    figure.set_figheight(figure.get_figheight() + body - height)


def rows(axes: Axes, labels: list[str], width: int = 28) -> float:
    """Name the rows 0, 1, ... of the y axis, the first on top; return the inches that a row needs for its name."""
    wrapped = [textwrap.fill(label, width) for label in labels]
    axes.set_yticks(range(len(labels)), wrapped)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    return ROW_LINE * max(label.count("\n") + 1 for label in wrapped)


def empty(text: str) -> Figure:
    """Return a line of text in the place of a figure."""
    figure = Figure(figsize=(WIDTH, 1.2))
    figure.text(0.02, 0.5, textwrap.fill(text, CHARACTERS + 10), va="center")
    return figure


# --- labels at the ends of lines --------------------------------------------------------------------------------------


def height_of(labels: dict[str, str]) -> float:
    """Return the inches that labels take above each other."""
    return LINE * sum(label.count("\n") + 1.15 for label in labels.values())


def label(axes: Axes, ends: dict[str, tuple[float, float]], labels: dict[str, str], colours: dict[str, str]) -> None:
    """Write a label right of the axes for each of `ends` (x, y), moved up or down until none lies on another.

    A line leads from each end to its label. Finish the figure first: the height of the axes has to be known.
    """
    figure = axes.get_figure(root=True)
    if figure is None:
        raise ValueError("the axes are of no figure")
    figure.draw_without_rendering()
    height = axes.get_window_extent().height / figure.dpi
    (low, high), order = axes.get_ylim(), sorted(ends, key=lambda name: ends[name][1])
    wanted = np.array([(ends[name][1] - low) / (high - low) for name in order])
    heights = np.array([height_of({name: labels[name]}) / height for name in order])
    for name, at in zip(order, apart(wanted, heights), strict=True):
        stroke = {"arrowstyle": "-", "color": colours[name], "linewidth": 0.8, "relpos": (0, 0.5), "shrinkB": 3}
        axes.annotate(
            labels[name], ends[name], xytext=(1.06, at), textcoords="axes fraction", va="center", fontsize=LABEL,
            arrowprops=stroke, annotation_clip=False,
        )  # fmt: skip


def apart(wanted: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Return centres of labels, none on another: of all such ascending ones, those nearest to the ascending `wanted`.

    They lie between 0 and 1 where their heights allow it.
    """
    offsets = np.cumsum(heights) - heights / 2  # where the centres were if the labels stood close, from 0 up
    room = max(1 - heights.sum(), 0)
    centres: np.ndarray = np.clip(isotonic_regression(wanted - offsets).x, 0, room) + offsets
    return centres


# --- what a figure becomes --------------------------------------------------------------------------------------------


def render(draw: Callable[[], Figure]) -> dict[str, bytes]:
    """Return a figure, drawn in the one style, in every format; the same figure gives the same bytes."""
    with matplotlib.rc_context(style.RC):
        figure = draw()
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # it is laid out: once, and alike in every format
        return {ending: FORMS[ending](figure) for ending in FORMATS}


def svg(figure: Figure) -> bytes:
    """Return a figure as SVG."""
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata=NO_METADATA["svg"])
    return buffer.getvalue().encode()


def pdf(figure: Figure) -> bytes:
    """Return a figure as PDF with its fonts."""
    buffer = io.BytesIO()
    FigureCanvasPdf(figure).print_pdf(buffer, metadata=NO_METADATA["pdf"])
    return buffer.getvalue()


FORMS = {"svg": svg, "pdf": pdf}


def inline(svg: bytes) -> str:
    """Return a figure to stand inside a page: the page's ink and paper, and no XML heading."""
    text = svg.decode()
    return text[text.index("<svg") :].replace(style.INK, "currentColor").replace(f"fill: {style.PAPER}", "fill: none")
