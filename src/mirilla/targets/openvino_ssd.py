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
from mirilla.targets import onnx_file
from mirilla.targets.onnx_file import IR_VERSION, OPSET
from mirilla.targets.onnx_graph import OnnxBuilder
from mirilla.targets.target import Candidates, Floats, Network, Pixels, Source, Target, to_bytes

FILE = "model_ssd.onnx"
DETECTIONS = "detections"
COLUMNS = 7

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
    builder = OnnxBuilder(source.graph, opset=OPSET, ir_version=IR_VERSION)
    onnx_file.add_picture(builder)
    builder.add_layers()
    boxes, scores = onnx_file.decoded(builder, source.card)
    _add_detections(builder, source.card, boxes, scores)
    builder.fix_batch()
    return {FILE: onnx_file.finished(builder, source.card)}


def _add_detections(builder: OnnxBuilder, card: ModelCard, boxes: str, scores: str) -> None:
    """Add NMS a class, and the best of what it keeps as rows of seven numbers."""
    post = card.spec.post_processing
    rows = post.max_total_detections

    def constant(name: str, value: float | list[float] | list[int]) -> str:
        return builder.constant(f"ssd/{name}", np.array(value))

    def node(op: str, inputs: list[str], name: str, **attributes: int) -> str:
        return builder.node(op, inputs, f"ssd/{name}", output=None, **attributes)

    by_class = builder.node("Transpose", [scores], "ssd/by_class", perm=(0, 2, 1))
    limits = [
        constant("per_class", [post.max_detections_per_class]),
        constant("iou", [float(post.iou_threshold)]),
        constant("score", [float(post.score_threshold)]),
    ]
    kept = node("NonMaxSuppression", [boxes, by_class, *limits], "kept")  # (M, 3): picture, class, box
    kept_scores = node("GatherND", [by_class, kept], "kept_scores")
    first, second, third = (constant(f"column/{i}", [i]) for i in range(3))
    classes = node("Cast", [node("Gather", [kept, second], "classes", axis=1)], "class_numbers", to=1)
    places = node("Squeeze", [node("Gather", [kept, third], "places", axis=1), second], "box_numbers")
    flat = node("Squeeze", [boxes, first], "boxes")
    order = constant("order", [1, 0, 3, 2])
    xyxy = node("Gather", [node("Gather", [flat, places], "kept_boxes", axis=0), order], "xyxy", axis=1)
    column = node("Unsqueeze", [kept_scores, second], "score_column")
    pictures = node("Mul", [classes, constant("zero", 0.0)], "pictures")
    found = node("Concat", [pictures, classes, column, xyxy], "found", axis=1)
    empty = np.tile(np.array([-1, 0, 0, 0, 0, 0, 0], np.float32), (rows, 1))
    filled = node("Concat", [found, builder.constant("ssd/empty", empty)], "filled", axis=0)
    ranked = node(
        "Squeeze", [node("Gather", [filled, constant("score_column_number", [2])], "ranked", axis=1), second], "scores"
    )
    best = "ssd/best"
    builder.onnx.node.add(op_type="TopK", name=best, input=[ranked, constant("rows", [rows])], output=["ssd/top", best])
    chosen = node("Gather", [filled, best], "chosen", axis=0)
    builder.output(
        DETECTIONS, node("Reshape", [chosen, constant("shape", [1, 1, rows, COLUMNS])], "rows"), (1, rows, COLUMNS)
    )


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
