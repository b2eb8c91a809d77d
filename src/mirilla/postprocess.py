"""Convert a network's two outputs to detections, in numpy, as the last part of a frozen graph does.

Decode boxes, convert scores, run NMS for each class and sort by score; then clip to the picture and drop boxes
without area. Clipping comes after NMS, as in the Object Detection API. Among equal scores the lower anchor comes
first; TensorFlow does not define the order of ties.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mirilla import boxes as geometry
from mirilla.boxes import Letterbox
from mirilla.detections import Detections
from mirilla.model.box_coder import decode
from mirilla.model.spec import ModelSpec, PostProcessing

Floats = NDArray[np.float32]


def scores(logits: Floats, converter: str) -> Floats:
    """(..., 1 + C) logits -> scores of the same shape.

    Args:
        converter: SIGMOID, SOFTMAX or IDENTITY.
    """
    if converter == "SIGMOID":
        with np.errstate(over="ignore"):  # exp(-x) may overflow to infinity; the score is then 0, which is correct
            return (1 / (1 + np.exp(-logits))).astype(logits.dtype)
    if converter == "SOFTMAX":
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)
    if converter == "IDENTITY":
        return logits
    raise ValueError(f"score converter {converter!r}")


def detections(
    codes: Floats,
    logits: Floats,
    anchors_yxyx: Floats,
    spec: ModelSpec,
    letterbox: Letterbox | None = None,
    threshold: float | None = None,
) -> Detections:
    """Detections of one picture.

    Args:
        codes: (A, 4) box codes.
        logits: (A, 1 + C); column 0 is the background.
        anchors_yxyx: (A, 4).
        spec: the box coder's scales and the post-processing parameters.
        letterbox: the picture's place in the network's input; all of it by default.
        threshold: drop scores that are not greater; the spec's own threshold by default.

    Returns:
        Boxes normalised to the picture, best first; classes from 1.
    """
    post = spec.post_processing
    least = post.score_threshold if threshold is None else max(threshold, post.score_threshold)
    if post.score_converter == "SOFTMAX":
        foreground = scores(logits, post.score_converter)[:, 1:]  # (A, C)
    else:
        foreground = scores(np.ascontiguousarray(logits[:, 1:]), post.score_converter)
    # decode only candidates: NMS ignores lower scores, so the result is the same
    above = foreground > least
    candidates = np.flatnonzero(above if above.shape[1] == 1 else above.any(1))
    with np.errstate(over="ignore"):
        boxes = decode(codes[candidates], anchors_yxyx[candidates], spec.box_coder)
    return multiclass_nms(boxes, foreground[candidates], post, least, letterbox)


def multiclass_nms(
    boxes_yxyx: Floats,
    foreground: Floats,
    post: PostProcessing,
    threshold: float | None = None,
    letterbox: Letterbox | None = None,
) -> Detections:
    """Run NMS and the following steps on decoded boxes (A, 4) and scores (A, C) without the background."""
    least = post.score_threshold if threshold is None else max(threshold, post.score_threshold)
    chosen: list[NDArray[np.int64]] = []
    for column in range(foreground.shape[1]):
        above = np.flatnonzero(foreground[:, column] > least)
        kept = geometry.nms(
            boxes_yxyx[above], foreground[above, column], post.iou_threshold, post.max_detections_per_class
        )
        chosen.append(above[kept])
    anchors = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
    classes = np.repeat(np.arange(len(chosen)), [len(kept) for kept in chosen])
    values = foreground[anchors, classes]
    if len(chosen) > 1:  # a single class is already sorted
        order = np.argsort(-values, kind="stable")
        anchors, values, classes = anchors[order], values[order], classes[order]
    window = letterbox or Letterbox.squash()
    high = np.array([window.scale_y, window.scale_x] * 2, np.float32)
    boxes = np.minimum(np.maximum(boxes_yxyx[anchors], np.float32(0)), high)
    keep = np.flatnonzero(geometry.area(boxes) > 0)[: post.max_total_detections]
    return Detections(
        window.to_picture(boxes[keep]).astype(np.float32),
        values[keep].astype(np.float32),
        classes[keep].astype(np.int64) + 1,
    )
