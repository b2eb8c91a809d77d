"""Plots of precision-recall curves."""

from __future__ import annotations

import io
import math
import os
import textwrap

from mirilla.errors import MissingExtraError
from mirilla.evaluation.interface import Result
from mirilla.files import write_bytes


def save_curves(path: str | os.PathLike[str], result: Result) -> None:
    """Write a PNG of a result's curves, with its protocol above them.

    Raises:
        MissingExtraError: matplotlib is not installed.
        MirillaError: the file cannot be written.
    """
    write_bytes(path, draw_curves(result))


def draw_curves(result: Result) -> bytes:
    """A PNG with a line per curve: precision over recall.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "eval", "Drawing precision-recall curves") from None
    figure = Figure(figsize=(8, 6.6), layout="constrained")
    axes = figure.add_subplot()
    for number, curve in enumerate(result.curves):
        if math.isnan(curve.ap):
            continue
        # extended to recall 0, and to precision 0 at the highest recall
        recall = [0.0, *curve.recall.tolist()]
        precision = [float(curve.precision[0]) if len(curve.precision) else 0.0, *curve.precision.tolist()]
        axes.plot(
            recall,
            precision,
            linewidth=1.6,
            label=f"{curve.name}: AP {curve.ap:.3f}",
            linestyle=("-", "--", "-.", ":")[number // 10 % 4],
        )
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    if axes.has_data():
        axes.legend(loc="lower left", fontsize=9)
    axes.set_title(textwrap.fill(result.protocol_text, 140), fontsize=7.5, loc="left")
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_png(out, metadata={"Software": "mirilla"})
    return out.getvalue()
