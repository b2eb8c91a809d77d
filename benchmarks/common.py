"""Code that several benchmarks share: photos, peers, training records, tables.

Photos, peers and ImageNet weights are read from ../shared beside the project and are not part of it.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mirilla.data import combine, read_dataset
from mirilla.data.sample import Sample
from mirilla.data.tfrecord import write_tfrecords
from mirilla.detections import Detections
from mirilla.labels import LabelMap, save_label_map

SHARED = Path(__file__).resolve().parents[2] / "shared"
FACES = SHARED / "data" / "faces"
LABELS = LabelMap.from_names(["face"])
SETS = ("ilc2021", "roboflow_gray", "caltech1999")
SIZES = ("all", ">= 16 px", ">= 24 px")  # columns of the face metrics, as in mirilla.evaluation.Faces

PEER_PROTOCOLS = {
    "yunet_n_320": "long side scaled to 320, NMS IoU 0.4, scores >= 0.02",
    "ultra_rfb320": "squashed to 320x240, NMS IoU 0.4, scores >= 0.02",
    "yunet_n_640": "long side scaled to 640, NMS IoU 0.4, scores >= 0.02",
}
PEER_FILES = {
    "yunet_n_320": ("yunet_n.onnx", (320, 256)),  # the network's input (width, height) for a 4:3 photo
    "ultra_rfb320": ("ultra_rfb320.onnx", (320, 240)),
    "yunet_n_640": ("yunet_n.onnx", (640, 480)),
}


def require_shared() -> None:
    """Exit with a message if the photos are missing."""
    if not SHARED.is_dir():
        sys.exit("the folder ../shared with the photos and the peers is missing")


def held_out(name: str, limit: int | None = None) -> list[Sample]:
    """The eval part of one of the face sets; unlabelled faces are marked ignore."""
    require_shared()
    return list(read_dataset(FACES / name / "bbx_gt_ignore.txt", split="eval").samples[:limit])


def records(folder: Path, sets: Sequence[str], limit: int | None = None) -> Path:
    """The training parts of the sets in one record file, made once, with a label map beside it."""
    path = folder / "train.tfrecord"
    if not path.is_file():
        require_shared()
        found = combine([read_dataset(FACES / s / "bbx_gt_ignore.txt", split="train") for s in sets])
        write_tfrecords(found.samples[:limit], ["face"], path)
        save_label_map(folder / "label_map.pbtxt", LABELS)
    return path


def peers() -> Any:
    """The module that runs the peers."""
    require_shared()
    if (folder := str(SHARED / "peers")) not in sys.path:
        sys.path.insert(0, folder)
    import peers as module  # type: ignore[import-not-found]

    return module


def peer(name: str) -> Callable[[np.ndarray], Detections]:
    """A peer as a function photo (H, W, 3) uint8 RGB -> Detections."""
    detect = peers().detect

    def run(image: np.ndarray) -> Detections:
        rows = detect(name, np.ascontiguousarray(image[:, :, ::-1]))
        size = np.array([*image.shape[:2]] * 2)
        return Detections(
            (rows[:, [1, 0, 3, 2]] / size).astype(np.float32),
            rows[:, 4].astype(np.float32),
            np.ones(len(rows), np.int64),
        )

    return run


def cpu_ms(function: Callable[[Any], object], items: Iterable[Any], warm_up: int = 3) -> float:
    """Median CPU time of a call in milliseconds, after some warm-up calls."""
    times = []
    for number, item in enumerate(items):
        if number == 0:
            for _ in range(warm_up):
                function(item)
        start = time.process_time()
        function(item)
        times.append(time.process_time() - start)
    return statistics.median(times) * 1000


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; every column after the first is right-aligned."""
    lines = [list(columns), ["---", *["---:"] * (len(columns) - 1)]]
    lines += [["" if cell is None else str(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def decimal(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """Format a number as in the tables, .817; a missing value is a dash."""
    if value is None or np.isnan(value):
        return "-"
    value = round(float(value), digits) + 0.0  # avoid -0
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 and "0." in text[:3] else text
