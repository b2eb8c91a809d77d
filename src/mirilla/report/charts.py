"""Line charts as SVG text, in colours of the page's style sheet: for light and dark screens."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

WIDTH, HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 14, 12, 40
_MAX_POINTS = 400


@dataclass(frozen=True)
class Series:
    """One line of a chart: x and y (N,), NaN where there is a gap."""

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    faint: bool = False  # drawn thin, behind the others, and not in the legend


def smoothed(name: str, x: ArrayLike, y: ArrayLike, share: float = 0.04) -> list[Series]:
    """A noisy line (faint) and its running mean over `share` of the points; only the line if there are few points."""
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    window = max(1, round(len(ys) * share))
    if window < 3:
        return [Series(name, xs, ys)]
    padded = np.concatenate([np.repeat(ys[:1], window // 2), ys, np.repeat(ys[-1:], window - 1 - window // 2)])
    mean = np.convolve(padded, np.ones(window) / window, "valid")
    return [Series(name, xs, ys, faint=True), Series(name, xs, mean)]


@dataclass(frozen=True)
class _Axes:
    """The plotting area: maps values to positions in the SVG."""

    x0: float
    x1: float
    y0: float
    y1: float

    def across(self, x: NDArray[np.float64] | float) -> NDArray[np.float64]:
        return _LEFT + (np.asarray(x, float) - self.x0) / (self.x1 - self.x0) * (WIDTH - _LEFT - _RIGHT)

    def up(self, y: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Values outside the axis are drawn at its ends; NaN stays NaN."""
        values = np.asarray(y, float)
        inside = np.clip(np.where(np.isfinite(values), values, np.nan), self.y0, self.y1)
        return HEIGHT - _BOTTOM - (inside - self.y0) / (self.y1 - self.y0) * (HEIGHT - _TOP - _BOTTOM)

    def grid(self) -> str:
        """Horizontal grid lines, and numbers on both axes."""
        lines = []
        for value in ticks(self.y0, self.y1, 5):
            y = self.up(value)
            lines.append(
                f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>'
            )
        for value in ticks(self.x0, self.x1, 6):
            x = self.across(value)
            lines.append(f'<text x="{x:.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{_number(value)}</text>')
        return "".join(lines)

    def line(self, series: Series, kind: str) -> str:
        keep = _thin(len(series.x))
        points = zip(self.across(series.x[keep]), self.up(series.y[keep]), strict=True)
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points if math.isfinite(x + y))
        return f'<polyline class="{kind}" points="{text}"/>'


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
) -> str:
    """A chart as an HTML <figure>: caption, legend (for several lines) and SVG; "" without a finite value.

    Without `y_range` the axis goes from 0 to a little above the largest value that is not an outlier.
    """
    lines = [line for line in series if np.isfinite(line.y).any()]
    if not lines:
        return ""
    axes = _axes(lines, x_range, y_range)
    names = list(dict.fromkeys(line.name for line in lines))
    drawn = "".join(
        axes.line(line, f"s{names.index(line.name) % 5}" + (" faint" if line.faint else ""))
        for line in sorted(lines, key=lambda line: not line.faint)
    )
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">'
        f"{axes.grid()}{_axis_labels(x_label, y_label)}{drawn}</svg>"
    )
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{_legend(names)}{svg}</figure>"


def _axes(lines: Sequence[Series], x_range: tuple[float, float] | None, y_range: tuple[float, float] | None) -> _Axes:
    x0, x1 = x_range or (
        min(float(np.nanmin(line.x)) for line in lines),
        max(float(np.nanmax(line.x)) for line in lines),
    )
    y0, y1 = y_range or (0.0, _top(lines))
    return _Axes(x0, x1 if x1 > x0 else x0 + 1, y0, y1 if y1 > y0 else y0 + 1)


def _axis_labels(x_label: str, y_label: str) -> str:
    return (
        f'<text class="axis" x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">'
        f"{html.escape(x_label)}</text>"
        f'<text class="axis" transform="translate(13 {(HEIGHT - _BOTTOM + _TOP) / 2}) rotate(-90)" '
        f'text-anchor="middle">{html.escape(y_label)}</text>'
    )


def _legend(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    keys = "".join(f'<span><i class="s{i % 5}"></i>{html.escape(name)}</span>' for i, name in enumerate(names))
    return f'<div class="legend">{keys}</div>'


def ticks(low: float, high: float, about: int) -> list[float]:
    """About `about` round numbers from low to high."""
    raw = (high - low) / max(1, about)
    base = 10.0 ** math.floor(math.log10(raw))
    step = next(f * base for f in (1, 2, 2.5, 5, 10) if f * base >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def _top(lines: Sequence[Series]) -> float:
    values = np.concatenate([s.y[np.isfinite(s.y)] for s in lines])
    main = [s.y[np.isfinite(s.y)].max() for s in lines if not s.faint and np.isfinite(s.y).any()]
    return max([*main, float(np.percentile(values, 98))]) * 1.06


def _thin(count: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, _MAX_POINTS)).astype(np.int64))


def _number(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.6g}" if abs(value) >= 0.001 else f"{value:.0e}".replace("e-0", "e-")
