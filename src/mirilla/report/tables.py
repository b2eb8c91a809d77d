"""Rows for tables: files with their sizes, figures with their protocol, durations in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePosixPath

# What the job's files are, by name; the first that matches speaks.
_WORDS = (
    ("report.html", "the report: open it in a browser"),
    ("contact_sheet.jpg", "detections on held-out pictures"),
    ("metrics.json", "the figures, each with its protocol"),
    ("findings.txt", "everything found in the data sets"),
    ("label_map.pbtxt", "the classes' names and numbers"),
    ("pipeline.config", "network and training; 'mirilla train' reads it"),
    ("frozen_inference_graph.pb", "the detector as a frozen graph"),
    ("model.json", "labels, anchors and thresholds of the detector"),
    ("saved_model", "the detector for TensorFlow"),
    ("log.jsonl", "the training's course, a line every so many steps"),
    ("tfevents", "the training's course for TensorBoard"),
    ("bbx_gt.txt", "boxes, as WIDER FACE lists them"),
)
_ENDINGS = {
    ".tfrecord": "pictures and boxes for training or evaluation",
    ".safetensors": "weights",
    ".png": "curves",
    ".jpg": "pictures",
    ".pt": "a checkpoint",
}


def size_text(size_bytes: int) -> str:
    """1234 -> '1.2 kB'."""
    value, unit = float(size_bytes), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"


def duration_text(seconds: float) -> str:
    """75 -> '1 min 15 s'."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def file_rows(files: Sequence[tuple[str, int]]) -> list[tuple[str, str, str]]:
    """(name, size, what it is); shards of one set, and pictures of one tree, become one row."""
    groups: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for name, size in files:
        path = PurePosixPath(name)
        what = _what(path)
        key = name
        if path.suffix == ".tfrecord":
            key = f"{path.parent}/{path.name.partition('-')[0]}-*.tfrecord"
        elif path.suffix == ".jpg" and len(path.parts) > 2:
            key = f"{'/'.join(path.parts[:2])}/**/*.jpg"
        groups.setdefault((key, what), []).append((name, size))
    rows = []
    for (key, what), members in groups.items():
        one = len(members) == 1
        total = size_text(sum(size for _, size in members))
        rows.append((members[0][0] if one else key, total, what if one else f"{len(members)} files: {what}"))
    return rows


def value_text(value: float | None) -> str:
    """A figure in [0, 1] with four places; 'n/a' where it is not defined."""
    return "n/a" if value is None or math.isnan(value) else f"{value:.4f}"


def _what(path: PurePosixPath) -> str:
    for ending, words in _WORDS:
        if ending in str(path):
            return words
    return _ENDINGS.get(path.suffix, "")
