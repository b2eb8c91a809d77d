"""Rows and texts for tables: files, sizes, durations, figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePosixPath

# Part of a file's name -> its content; the first match is used.
_CONTENTS = (
    ("report.html", "the report: open it in a browser"),
    ("contact_sheet.jpg", "detections on held-out pictures"),
    ("metrics.json", "the figures, each with its protocol"),
    ("findings.txt", "all findings of the data checks"),
    ("label_map.pbtxt", "the classes' names and ids"),
    ("pipeline.config", "network and training; 'mirilla train' reads it"),
    ("frozen_inference_graph.pb", "the detector as a frozen graph"),
    ("model.json", "labels, anchors and thresholds of the detector"),
    ("saved_model", "the detector for TensorFlow"),
    ("log.jsonl", "the training log, a line every few steps"),
    ("tfevents", "the training log for TensorBoard"),
    ("bbx_gt.txt", "boxes in WIDER FACE's format"),
)
_CONTENTS_BY_SUFFIX = {
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
    """(name, size, content) rows; the shards of a set, and the pictures of a folder tree, are one row."""
    groups: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for name, size in files:
        path = PurePosixPath(name)
        what = _content(path)
        key = name
        if path.suffix == ".tfrecord":
            key = f"{path.parent}/{path.name.partition('-')[0]}-*.tfrecord"
        elif path.suffix == ".jpg" and len(path.parts) > 2:
            key = f"{'/'.join(path.parts[:2])}/**/*.jpg"
        groups.setdefault((key, what), []).append((name, size))
    rows = []
    for (key, what), members in groups.items():
        total = size_text(sum(size for _, size in members))
        rows.append(
            (members[0][0], total, what) if len(members) == 1 else (key, total, f"{len(members)} files: {what}")
        )
    return rows


def value_text(value: float | None) -> str:
    """A figure in [0, 1] with four decimals; 'n/a' if it is undefined."""
    return "n/a" if value is None or math.isnan(value) else f"{value:.4f}"


def _content(path: PurePosixPath) -> str:
    for name, content in _CONTENTS:
        if name in str(path):
            return content
    return _CONTENTS_BY_SUFFIX.get(path.suffix, "")
