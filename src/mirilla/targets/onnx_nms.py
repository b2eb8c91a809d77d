"""Non-maximum suppression inside an ONNX file of one picture.

A row is picture 0, class from 0, score, then xmin, ymin, xmax, ymax normalised to the input. There are as many rows as
the model's largest number of detections; those that are left over have the picture -1 and the score 0.
"""

from __future__ import annotations

import numpy as np

from mirilla.model.card import ModelCard
from mirilla.targets.onnx_graph import OnnxBuilder

COLUMNS = 7
_CLASS, _SCORE, _YXYX = [1], [2], [4, 3, 6, 5]  # of a row


def boxes_and_scores(builder: OnnxBuilder, card: ModelCard, boxes: str, scores: str) -> tuple[str, str]:
    """Add NMS; returns the tensors of kept boxes (1, N, 4) and their scores (1, N, C), 0 but for a box's own class."""
    rows = kept_rows(builder, card, boxes, scores)

    def columns(numbers: list[int], name: str) -> str:
        return builder.node("Gather", [rows, builder.constant(f"nms/{name}", np.array(numbers))], f"nms/{name}", axis=1)

    every = builder.constant("nms/every_class", np.arange(card.spec.num_classes, dtype=np.float32)[None])
    is_own = builder.node("Equal", [columns(_CLASS, "class"), every], "nms/is_own")
    own = builder.node("Cast", [is_own], "nms/own", to=1)
    found = builder.node("Mul", [columns(_SCORE, "score"), own], "nms/scores")
    first = builder.constant("nms/first", np.array([0]))
    kept = builder.node("Unsqueeze", [columns(_YXYX, "boxes"), first], "nms/kept_boxes")
    return kept, builder.node("Unsqueeze", [found, first], "nms/kept_scores")


def kept_rows(builder: OnnxBuilder, card: ModelCard, boxes: str, scores: str) -> str:
    """Add NMS a class, and the best of what it keeps; returns the tensor of rows (N, 7), best first.

    Args:
        boxes: the tensor of decoded boxes (1, A, 4), yxyx. scores: that of scores (1, A, C).
    """
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
    return node("Gather", [filled, best], "chosen", axis=0)
