"""Plot AP against parameters, MACs and measured time, from one or several accuracy.json.

    python -m benchmarks.accuracy.pareto ACCURACY.json ... [--out docs/images/pareto.svg] [--size ">= 16 px"]

Models are measured in the bonnet's fp16 arithmetic with the better of the two resizes, peers in float in their own way.
Bars are 95 % intervals over photos. Lines join the Pareto front.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.accuracy import error_sizes, page
from benchmarks.common import SIZES

OUT = Path(__file__).resolve().parents[2] / "docs/images/pareto.svg"
STRIDE_8 = "-s8"  # zoo models with one more head: the color of their width, another marker
AXES = (
    ("parameters", "parameters", 1e-3, "thousand parameters"),
    ("macs", "MACs", 1e-6, "million multiplications a picture"),
    ("ms", "time", 1.0, "ms a picture: the network in onnxruntime, one core"),
)


@dataclass(frozen=True)
class Point:
    """A model in one panel: its cost and its AP with the interval."""

    name: str
    cost: float
    ap: float
    low: float
    high: float
    is_peer: bool


def points(models: Sequence[Mapping[str, Any]], axis: str, size: str) -> list[Point]:
    """The models with a known cost on that axis."""
    found = []
    for model in models:
        way = page.main_way(model, size=size)
        cost = (model["ms"] or {}).get("network") if axis == "ms" else model["facts"].get(axis)
        if way is None or not cost:
            continue
        figure = way["figures"][size]
        found.append(Point(model["name"], cost, figure["value"], figure["low"], figure["high"], model["is_peer"]))
    return found


def front(all_points: Sequence[Point]) -> list[Point]:
    """The Pareto front, cheapest first."""
    best, kept = float("-inf"), []
    for point in sorted(all_points, key=lambda p: (p.cost, -p.ap)):
        if point.ap > best:
            best = point.ap
            kept.append(point)
    return kept


def draw(models: Sequence[Mapping[str, Any]], path: Path, size: str, photos: str) -> None:
    """Write three panels side by side to an .svg or .png file."""
    plt = error_sizes.pyplot()
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.9), sharey=True, layout="constrained")
    families = list(dict.fromkeys(model["name"].removesuffix(STRIDE_8) for model in models))
    colours = dict(zip(families, error_sizes.COLOURS * len(families), strict=False))
    for axes, (key, title, factor, unit) in zip(panels, AXES, strict=True):
        shown = points(models, key, size)
        line = front(shown)
        axes.plot([p.cost * factor for p in line], [p.ap for p in line], color="#bbbbbb", linewidth=1, zorder=1)
        for p in shown:
            colour = colours[p.name.removesuffix(STRIDE_8)]
            axes.errorbar(
                p.cost * factor,
                p.ap,
                [[p.ap - p.low], [p.high - p.ap]],
                fmt="s" if p.is_peer else "D" if p.name.endswith(STRIDE_8) else "o",
                markersize=7,
                color=colour,
                markerfacecolor="white" if p.is_peer else colour,
                elinewidth=1,
                capsize=2,
                label=p.name + (" (peer)" if p.is_peer else ""),
                zorder=3,
            )
        axes.set_xscale("log")
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel(unit)
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        _plain_ticks(axes, [p.cost * factor for p in shown])
    panels[0].set_ylabel(f"AP at IoU 0.5, faces {size}" if size != SIZES[0] else "AP at IoU 0.5, all faces")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False, fontsize=8)
    figure.suptitle(
        f"{photos}; ours as the bonnet computes (fp16); bars: 95 % over photos", fontsize=9, x=0.01, ha="left"
    )
    error_sizes.save(figure, path)


def _plain_ticks(axes: Any, values: Sequence[float]) -> None:
    """Label a logarithmic axis with a few round numbers."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = min(values) / 1.5, max(values) * 1.5
    steps = [m * 10.0**e for e in range(-3, 7) for m in (1, 2, 5)]
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator([s for s in steps if low <= s <= high]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw AP against parameters, MACs and time.")
    parser.add_argument("accuracy", nargs="+", type=Path, metavar="ACCURACY.json")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE.svg")
    parser.add_argument("--size", choices=SIZES, default=">= 16 px")
    args = parser.parse_args()
    content = page.load(args.accuracy)
    count = content["photos"][page.MAIN_SET]
    draw(content["models"], args.out, args.size, f"{count} held-out photos of {page.MAIN_SET}")
    print(f"made {args.out}")


if __name__ == "__main__":
    main()
