"""Small charts as SVG text. A page has dozens and a study thousands of pages: matplotlib takes 100 times as long."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from radprobe.metrics.curves import thinned

LEFT, RIGHT, TOP, BOTTOM = 50, 10, 8, 34  # units around the plot, about pixels
SMALL, WIDE = (212, 190), (420, 230)  # whole size
POINTS = 100  # of a line, at most


@dataclass(frozen=True)
class Axis:
    """An axis with its title, with its unit if it has one, its ends, and its ticks by value."""

    title: str
    low: float
    high: float
    ticks: dict[float, str]


def share(title: str) -> Axis:
    """Return an axis from 0 to 1."""
    return Axis(title, 0, 1, {0: "0", 0.5: "0.5", 1: "1"})


def fitted(title: str, values: np.ndarray, is_count: bool = False) -> Axis:
    """Return an axis that holds the finite ones of `values`, with round ticks."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    elif not is_count:
        low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)
    ticks = MaxNLocator(nbins=5, integer=is_count).tick_values(low, high)
    return Axis(title, float(low), float(high), {float(each): f"{each:.4g}" for each in ticks if low <= each <= high})


Places = TypeVar("Places", float, np.ndarray)


class Chart:
    """A chart that lines and dots are put into; points are [n, 2], those that are not finite are left out."""

    def __init__(self, x: Axis, y: Axis, size: tuple[int, int] = SMALL):
        self.x, self.y, (self.width, self.height) = x, y, size
        self._marks: list[str] = []

    def line(self, points: np.ndarray, kind: str = "line") -> None:
        """Draw straight lines between points; kind: line, ref (a reference), faint."""
        placed = thinned(self._placed(points), POINTS)
        if len(placed):
            text = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed.tolist())
            self._marks.append(f'<polyline class="{kind}" points="{text}"/>')

    def dots(self, points: np.ndarray, radii: float | Sequence[float] = 2.5, kind: str = "dot") -> None:
        """Draw points; kind: dot, faint."""
        points = np.asarray(points, float).reshape(-1, 2)
        sizes = np.broadcast_to(np.asarray(radii, float), len(points))[np.isfinite(points).all(axis=1)]
        placed = zip(self._placed(points).tolist(), sizes.tolist(), strict=True)
        circles = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>' for (x, y), radius in placed)
        self._marks.append(f'<g class="{kind}">{circles}</g>')

    def _placed(self, points: np.ndarray) -> np.ndarray:
        points = np.asarray(points, float).reshape(-1, 2)
        points = points[np.isfinite(points).all(axis=1)]
        return np.column_stack([self._across(points[:, 0]), self._down(points[:, 1])])

    def _across(self, value: Places) -> Places:
        return LEFT + (value - self.x.low) / (self.x.high - self.x.low) * (self.width - LEFT - RIGHT)

    def _down(self, value: Places) -> Places:
        return self.height - BOTTOM - (value - self.y.low) / (self.y.high - self.y.low) * (self.height - TOP - BOTTOM)

    def svg(self, label: str) -> Markup:
        """Return the chart; `label` says what it shows to those who do not see it."""
        floor, right = self.height - BOTTOM, self.width - RIGHT
        x = [
            f'<text x="{self._across(value):.0f}" y="{floor + 13}">{text}</text>'
            for value, text in self.x.ticks.items()
        ]
        y = [
            f'<text x="{LEFT - 4}" y="{self._down(value) + 4:.0f}">{text}</text>'
            for value, text in self.y.ticks.items()
        ]
        titles = Markup('<text x="{}" y="{}">{}</text><text transform="translate(10 {})rotate(-90)">{}</text>').format(
            (LEFT + right) / 2, self.height - 6, self.x.title, (TOP + floor) / 2, self.y.title
        )
        body = Markup(f'<path class="axis" d="M{LEFT},{TOP}V{floor}H{right}"/>{"".join(self._marks + x)}')
        left = Markup(f'<g class="left">{"".join(y)}</g></svg>')
        opening = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">')
        return opening.format(self.width, self.height, label) + body + titles + left
