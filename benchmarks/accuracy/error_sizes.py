"""Errors by face size: tables, a chart, and contact sheets of the worst misses and false positives.

Everything is counted at the score threshold that gives one false positive in ten photos, so that models with
differently calibrated scores can be compared. The sheets show photos and must be written outside the project.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import decimal
from numpy.typing import NDArray
from PIL import Image

from mirilla.detections import Detections
from mirilla.evaluation.faces import Matched
from mirilla.evaluation.interface import GroundTruth
from mirilla.report.pictures import Shown, contact_sheet

EDGES_PX = (0, 8, 12, 16, 24, 32, 48, 96, np.inf)
ALARMS_PER_PHOTO = 0.1
NAMES = tuple(
    f"{low}+" if np.isinf(high) else f"{low}-{high}" if low else f"< {high}"
    for low, high in itertools.pairwise(EDGES_PX)
)


def threshold(matches: Sequence[Matched], per_photo: float = ALARMS_PER_PHOTO) -> float:
    """The lowest score threshold with at most so many false positives per photo."""
    alarms = np.sort(np.concatenate([m.scores[m.counts & ~m.right] for m in matches]))[::-1]
    most = int(per_photo * len(matches))
    scores = np.concatenate([m.scores for m in matches])
    if len(alarms) <= most:
        return float(scores.min(initial=1.0))
    above = scores[scores > alarms[most]]
    return float(above.min()) if len(above) else float(np.nextafter(alarms[most], np.inf))


def by_size(matches: Sequence[Matched], drawn: NDArray) -> dict[str, Any]:
    """Faces, recall (with its interval over photos) and false positives per size bin.

    Args:
        matches: one entry per photo, at bound 0.
        drawn: (R, photos), the bootstrap's weights.
    """
    least = threshold(matches)
    shape = (len(matches), len(NAMES))
    faces, found, reached, alarms = (np.zeros(shape) for _ in range(4))
    for i, match in enumerate(matches):
        surely = _found_from(match, least)
        bins = _bin(match.truth_sizes_px)
        np.add.at(faces[i], bins[match.expected], 1)
        np.add.at(found[i], bins[surely], 1)
        np.add.at(reached[i], bins[match.found], 1)
        np.add.at(alarms[i], _bin(match.sizes_px)[match.counts & ~match.right & (match.scores >= least)], 1)
    rows = []
    for b, name in enumerate(NAMES):
        count = faces[:, b].sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            resampled = (drawn @ found[:, b]) / (drawn @ faces[:, b])
        low, high = np.nanquantile(resampled, [0.025, 0.975]) if count else (np.nan, np.nan)
        rows.append(
            {
                "size_px": name,
                "faces": int(count),
                "false_alarms": int(alarms[:, b].sum()),
                "recall": _share(found[:, b].sum(), count),
                "low": _number(low),
                "high": _number(high),
                "recall_at_any_score": _share(reached[:, b].sum(), count),
            }
        )
    return {"threshold": least, "false_alarms_per_photo": ALARMS_PER_PHOTO, "bins": rows}


def rows_of(sizes: Mapping[str, Any]) -> list[tuple[object, ...]]:
    """Table rows: size, faces, recall with interval, false positives."""
    return [
        (
            b["size_px"],
            b["faces"],
            f"{decimal(b['recall'], 2)} ({decimal(b['low'], 2)}-{decimal(b['high'], 2)})" if b["faces"] else "-",
            decimal(b["recall_at_any_score"], 2),
            b["false_alarms"],
        )
        for b in sizes["bins"]
    ]


def chart(models: Mapping[str, Mapping[str, Any]], path: Path, title: str = "") -> None:
    """Plot recall and false positives against size, one line per model, as .svg or .png."""
    plt = pyplot()
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(7.2, 5.2), sharex=True, height_ratios=(2, 1), layout="constrained"
    )
    places = np.arange(len(NAMES))
    for number, (name, sizes) in enumerate(models.items()):
        bins, colour = sizes["bins"], COLOURS[number % len(COLOURS)]
        recall, low, high = (
            np.array([np.nan if b[key] is None else b[key] for b in bins]) for key in ("recall", "low", "high")
        )
        above.plot(places, recall, "o-", color=colour, label=name, markersize=4)
        above.fill_between(places, low, high, color=colour, alpha=0.12, linewidth=0)
        width = 0.8 / len(models)
        at = places + (number - (len(models) - 1) / 2) * width
        below.bar(at, [b["false_alarms"] for b in bins], width, color=colour)
    faces = [b["faces"] for b in next(iter(models.values()))["bins"]]
    below.set_xticks(places, [f"{n}\n{f}" for n, f in zip(NAMES, faces, strict=True)])
    above.set_ylim(0, 1)
    above.set_ylabel("recall")
    below.set_ylabel("false alarms")
    below.set_xlabel("size of the face in px with the photo's long side at 256; below: how many faces there are")
    above.legend(loc="lower right", fontsize=8, frameon=False)
    above.set_title(title or f"at {ALARMS_PER_PHOTO:g} false alarms a photo", fontsize=10, loc="left")
    for axes in (above, below):
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    save(figure, path)


COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666")  # Okabe and Ito


def pyplot():
    """matplotlib without a display, with plain axes, and with text as text in SVG files."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update(
        {
            "axes.spines.top": False,
            "axes.spines.right": False,
            "font.size": 9,
            "svg.fonttype": "none",
            "svg.hashsalt": "mirilla",
            "figure.facecolor": "white",
        }
    )
    from matplotlib import pyplot as plt

    return plt


def save(figure: Any, path: Path) -> None:
    """Write a figure without a date, so that the same data give the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot().close(figure)


def worst_misses(
    photos: Sequence[NDArray],
    truths: Sequence[GroundTruth],
    found: Sequence[Detections],
    matches: Sequence[Matched],
    count: int = 24,
    heading: str = "",
) -> Image.Image:
    """The largest missed faces, each with its surroundings."""
    least = threshold(matches)
    missed = [
        (float(match.truth_sizes_px[t]), i, truths[i].boxes_yxyx[t])
        for i, match in enumerate(matches)
        for t in np.flatnonzero(match.expected & ~_found_from(match, least))
    ]
    missed.sort(key=lambda m: -m[0])
    cells = [
        _around(photos[i], truths[i], found[i], box, least, f"{size:.0f} px, {truths[i].filename[-24:]}")
        for size, i, box in missed[:count]
    ]
    return _sheet(cells, f"{heading}: the largest of {len(missed)} missed faces, scores >= {least:.3f}")


def worst_false_alarms(
    photos: Sequence[NDArray],
    truths: Sequence[GroundTruth],
    found: Sequence[Detections],
    matches: Sequence[Matched],
    count: int = 24,
    heading: str = "",
) -> Image.Image:
    """The false positives with the highest scores, each with its surroundings."""
    least = threshold(matches)
    alarms = [
        (float(match.scores[d]), i, found[i].boxes_yxyx[match.order[d]], float(match.sizes_px[d]))
        for i, match in enumerate(matches)
        for d in np.flatnonzero(match.counts & ~match.right)
    ]
    alarms.sort(key=lambda a: -a[0])
    cells = [
        _around(
            photos[i],
            truths[i],
            found[i],
            box,
            min(score, least),
            f"{score:.2f}, {size:.0f} px, {truths[i].filename[-20:]}",
        )
        for score, i, box, size in alarms[:count]
    ]
    return _sheet(cells, f"{heading}: the false alarms with the highest scores")


def _found_from(match: Matched, least: float) -> NDArray[np.bool_]:
    """The faces matched by a detection of at least that score; matching starts with the best score."""
    kept = match.scores >= least
    taken = np.zeros(len(match.expected), bool)
    taken[match.face[match.right & kept]] = True
    return taken


def _around(photo: NDArray, truth: GroundTruth, found: Detections, box: NDArray, least: float, title: str) -> Shown:
    """A square crop of three times the box's longer side, with the boxes shifted into it."""
    height, width = photo.shape[:2]
    size = np.array([height, width] * 2)
    top, left, bottom, right = np.asarray(box, float) * size
    side = float(np.clip(3 * max(bottom - top, right - left), 48, min(height, width)))
    y = int(np.clip((top + bottom - side) / 2, 0, height - side))
    x = int(np.clip((left + right - side) / 2, 0, width - side))
    side = int(side)

    def moved(boxes: NDArray) -> NDArray:
        return (np.asarray(boxes, float).reshape(-1, 4) * size - [y, x, y, x]) / side

    def inside(boxes: NDArray) -> NDArray[np.bool_]:
        return np.logical_and((boxes[:, :2] < 1).all(1), (boxes[:, 2:] > 0).all(1))

    faces, detected = moved(truth.boxes_yxyx), moved(found.boxes_yxyx)
    near = inside(detected) & (found.scores >= least)
    ignored = truth.ignore | truth.difficult | truth.is_crowd | truth.group_of
    # a face cut by the edge keeps its box beyond the crop, so that it is matched as in the whole photo
    return Shown(
        photo[y : y + side, x : x + side],
        Detections(detected[near].astype(np.float32), found.scores[near], found.classes[near]),
        faces[inside(faces)],
        ignored[inside(faces)],
        title=title,
    )


def _sheet(cells: Sequence[Shown], heading: str) -> Image.Image:
    return contact_sheet(cells, columns=6, cell_px=200, heading=heading)


def _bin(sizes: NDArray) -> NDArray[np.int64]:
    return np.digitize(sizes, EDGES_PX[1:-1])


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
