"""Line charts as SVG text, drawn in the page's own colours so that they fit a light and a dark screen."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 40
_MOST_POINTS = 400


@dataclass(frozen=True)
class Series:
    """One line of a chart: x and y (N,), NaN where there is a gap."""

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    faint: bool = False  # drawn thin, behind the others, and not in the legend


def smoothed(name: str, x: Sequence[float], y: Sequence[float], share: float = 0.04) -> list[Series]:
    """A noisy line, faint, and its running mean over `share` of the points."""
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    window = max(1, round(len(ys) * share))
    if window < 3:
        return [Series(name, xs, ys)]
    padded = np.concatenate([np.repeat(ys[:1], window // 2), ys, np.repeat(ys[-1:], window - 1 - window // 2)])
    mean = np.convolve(padded, np.ones(window) / window, "valid")
    return [Series(name, xs, ys, faint=True), Series(name, xs, mean)]


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
) -> str:
    """A chart as an HTML <figure> with a caption, a legend where there are several lines, and an SVG.

    Without `y_range` the axis begins at 0 and ends a little above the largest value that is no outlier.
    """
    lines = [s for s in series if np.isfinite(s.y).any()]
    if not lines:
        return ""
    x0, x1 = x_range or (min(float(np.nanmin(s.x)) for s in lines), max(float(np.nanmax(s.x)) for s in lines))
    y0, y1 = y_range or (0.0, _top(lines))
    x1, y1 = (x1 if x1 > x0 else x0 + 1), (y1 if y1 > y0 else y0 + 1)

    def place(x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
        across = _LEFT + (x - x0) / (x1 - x0) * (WIDTH - _LEFT - _RIGHT)
        up = (
            HEIGHT
            - _BOTTOM
            - (np.clip(np.where(np.isfinite(y), y, np.nan), y0, y1) - y0) / (y1 - y0) * (HEIGHT - _TOP - _BOTTOM)
        )
        return across, up

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">']
    for value in ticks(y0, y1, 5):
        _, (y,) = place(np.array([x0]), np.array([value]))
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>'
        )
    for value in ticks(x0, x1, 6):
        (x,), _ = place(np.array([value]), np.array([y0]))
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{_number(value)}</text>')
    parts.append(
        f'<text class="axis" x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">'
        f"{html.escape(x_label)}</text>"
    )
    parts.append(
        f'<text class="axis" transform="translate(13 {(HEIGHT - _BOTTOM + _TOP) / 2}) rotate(-90)" '
        f'text-anchor="middle">{html.escape(y_label)}</text>'
    )
    names = list(dict.fromkeys(s.name for s in lines))
    for one in sorted(lines, key=lambda s: not s.faint):
        keep = _thin(len(one.x))
        across, up = place(np.asarray(one.x, float)[keep], np.asarray(one.y, float)[keep])
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, up, strict=True) if math.isfinite(a + b))
        kind = f"s{names.index(one.name) % 5}" + (" faint" if one.faint else "")
        parts.append(f'<polyline class="{kind}" points="{points}"/>')
    parts.append("</svg>")
    legend = ""
    if len(names) > 1:
        keys = "".join(f'<span><i class="s{i % 5}"></i>{html.escape(n)}</span>' for i, n in enumerate(names))
        legend = f'<div class="legend">{keys}</div>'
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{legend}{''.join(parts)}</figure>"


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from low to high, about so many."""
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
    return np.unique(np.linspace(0, count - 1, min(count, _MOST_POINTS)).astype(np.int64))


def _number(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.6g}" if abs(value) >= 0.001 else f"{value:.0e}".replace("e-0", "e-")
