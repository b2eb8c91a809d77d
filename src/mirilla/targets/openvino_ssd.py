"""The target `openvino-ssd`: one output with finished detections, as Frigate's OpenVINO detector reads it.

Input `image` (1, height, width, 3) uint8 RGB. Output `detections` (1, 1, N, 7) float32, best first: picture 0, class
from 0, score, then xmin, ymin, xmax, ymax normalised to the input. NMS is in the file; rows that are left over have the
picture -1 and the score 0. The file is ONNX, which OpenVINO reads as it is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mirilla.findings import Finding
from mirilla.model.card import ModelCard
from mirilla.targets import onnx_file, onnx_nms
from mirilla.targets.target import Candidates, Floats, Network, Pixels, Source, Target, to_bytes

FILE = "model_ssd.onnx"
DETECTIONS = "detections"

SNIPPET = """\
import numpy as np, onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("model_ssd.onnx")  # or openvino.Core().compile_model(...)
_, height, width, _ = session.get_inputs()[0].shape
image = np.asarray(Image.open("photo.jpg").convert("RGB").resize((width, height)))[None]  # uint8
for _, label, score, xmin, ymin, xmax, ymax in session.run(None, {"image": image})[0][0, 0]:
    if score >= 0.5:
        print(int(label), score, xmin, ymin, xmax, ymax)
"""


def check(source: Source) -> list[Finding]:
    """Every SSD can be written."""
    return []


def build(source: Source, pictures: Pixels) -> dict[str, bytes]:
    """The model's file.

    Raises:
        ModelError: a layer cannot be written as ONNX.
    """
    builder, boxes, scores = onnx_file.decoded_network(source)
    rows = source.card.spec.post_processing.max_total_detections
    shape = builder.constant("ssd/shape", np.array([1, 1, rows, onnx_nms.COLUMNS]))
    kept = onnx_nms.kept_rows(builder, source.card, boxes, scores)
    builder.output(DETECTIONS, builder.node("Reshape", [kept, shape], "ssd/rows"), (1, rows, onnx_nms.COLUMNS))
    builder.fix_batch()
    return {FILE: onnx_file.finished(builder, source.card)}


def run(path: Path, card: ModelCard) -> Network:
    """The file in onnxruntime, on one thread; see `onnx_file.session_of`."""
    session = onnx_file.session_of(path)
    classes = card.spec.num_classes

    def network(pictures: Floats) -> Candidates:
        boxes, scores = [], []
        for picture in to_bytes(pictures):
            (found,) = session.run([DETECTIONS], {onnx_file.INPUT: picture[None]})
            rows = np.asarray(found)[0, 0]
            table = np.zeros((len(rows), classes), np.float32)
            table[np.arange(len(rows)), rows[:, 1].astype(np.int64)] = rows[:, 2]
            boxes.append(rows[:, [4, 3, 6, 5]])
            scores.append(table)
        return Candidates(np.stack(boxes), np.stack(scores))

    return network


OPENVINO_SSD = Target(
    "openvino-ssd", FILE, "ONNX with NMS inside, for Frigate's OpenVINO detector", check, build, run, SNIPPET
)
