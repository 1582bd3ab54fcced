"""The patch features of the same images through several backbones, side by side."""

import textwrap

import matplotlib
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from radprobe.report import canvas, pictures, style
from radprobe.report.collect import Findings
from radprobe.report.look import PatchFeatures

SAID = "The first three principal components of patch features as red, green and blue, one PCA a backbone over these "
SAID += "images: alike colours are alike features within a column, and mean nothing across columns"
FAMILY = 3  # width of the line above a backbone, in points
MARGIN, WIDEST, CHARACTER = 0.4, 1.4, 0.08  # inches: of a row's name, of a picture at most, of a letter of a name


def draw(findings: Findings, dataset: str, found: PatchFeatures) -> Figure:
    """Return the figure of a dataset: an image a row, a backbone a column, under a line in its family's colour."""
    title = findings.datasets[dataset].title
    if not found.maps:
        return canvas.empty(f"{title}: {' '.join(found.why) or 'no backbone keeps feature maps.'}")
    with matplotlib.rc_context({"axes.spines.left": False, "axes.spines.bottom": False}):
        width = min((canvas.WIDTH - MARGIN) / (len(found.maps) + 1), WIDEST)
        figure = Figure(figsize=(canvas.WIDTH, 4), layout="constrained")
        grid = figure.subplots(len(found.samples), len(found.maps) + 1, squeeze=False)
        free = 1 - (MARGIN + width * grid.shape[1]) / canvas.WIDTH
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0, rect=(0, 0, 1 - free, 1))
    for row, (sample, size) in enumerate(zip(found.samples, found.sizes, strict=True)):
        shown = [pictures.grey(found.images[row], size), *(maps[row] for maps in found.maps.values())]
        for axes, picture in zip(grid[row], shown, strict=True):
            axes.imshow(picture, extent=(0, size[0], size[1], 0), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        grid[row, 0].set_ylabel(textwrap.fill(sample, 22), fontsize=8)
    grid[0, 0].set_title("image", fontsize=9)
    for axes, name in zip(grid[0, 1:], found.maps, strict=True):
        axes.set_title(textwrap.fill(findings.title(name), round(width / CHARACTER)), fontsize=9)
        colour = style.FAMILIES[findings.family(name)]
        axes.plot([0, 1], [1, 1], color=colour, linewidth=FAMILY, transform=axes.transAxes, clip_on=False)
    body = sum(width * height / across for across, height in found.sizes)
    canvas.finish(figure, body, title, SAID)
    return figure
