"""Convert logits and box codes to detections, in plain Python: scores, box decoding, NMS."""

import collections
import math
import struct
from collections.abc import Callable, Iterable, Sequence

from .errors import Fault
from .model import Model

Detection = collections.namedtuple("Detection", "class_id score box_yxyx")  # the box is normalised


def float32(value: float) -> float:
    """The nearest 32-bit float: scores that are equal in the network's precision must be equal here."""
    return struct.unpack("f", struct.pack("f", value))[0]


def sigmoid(logit: float) -> float:
    if logit < -700:  # exp would overflow
        return 0.0
    return 1 / (1 + math.exp(-logit))


def softmax(logits: "Sequence[float]") -> "list[float]":
    """Scores that sum to 1."""
    top = max(logits)
    powers = [math.exp(max(logit - top, -700)) for logit in logits]
    total = sum(powers)
    return [power / total for power in powers]


def min_logit(model: Model, threshold: float) -> "float | None":
    """A logit below which no score reaches the threshold; None for SOFTMAX, where it takes all logits of an anchor.

    It is slightly too low on purpose: the scores of the logits that pass are compared again.
    """
    if model.converter == "IDENTITY":
        return threshold - 1e-4
    if model.converter == "SOFTMAX":
        return None
    if threshold <= 1e-12:
        return -30.0
    if threshold >= 1:
        return 15.0
    return math.log(threshold / (1 - threshold)) - 1e-2


def _passes(model: Model, score: float, threshold: float) -> bool:
    return score >= threshold and score > model.score_threshold


def dense_candidates(model: Model, logits: "Sequence[float]", threshold: float) -> "dict[int, list[tuple[float, int]]]":
    """The candidates of a whole logits output.

    Args:
        logits: flat, anchors x (1 + classes); column 0 is the background.

    Returns:
        {class id: [(score, anchor), ...]}, each list in the order of the anchors.
    """
    columns, count = model.classes + 1, len(model.anchors)
    if len(logits) != columns * count:
        raise Fault(
            "the bonnet sent %d logits, but model.json has %d anchors and %d classes"
            % (len(logits), count, model.classes)
        )
    lowest = min_logit(model, threshold)
    if lowest is None:
        return _softmax_candidates(model, logits, threshold)
    found = {}
    for class_id in range(1, columns):
        values = logits[class_id::columns]
        if max(values) >= lowest:
            pairs = [(value, anchor) for anchor, value in enumerate(values) if value >= lowest]
            _add(model, found, class_id, pairs, threshold)
    return found


def _softmax_candidates(
    model: Model, logits: "Sequence[float]", threshold: float
) -> "dict[int, list[tuple[float, int]]]":
    columns = model.classes + 1
    found = {}
    for anchor in range(len(model.anchors)):
        row = logits[anchor * columns : (anchor + 1) * columns]
        shares = softmax(row)
        for class_id in range(1, columns):
            score = float32(shares[class_id])
            if _passes(model, score, threshold):
                found.setdefault(class_id, []).append((score, anchor))
    return found


def sparse_candidates(
    model: Model, indices: "Sequence[tuple[int, ...]]", logits: "Sequence[float]", threshold: float
) -> "dict[int, list[tuple[float, int]]]":
    """The candidates of a thresholded logits output: as many indices (anchor, column) as logits."""
    if len(indices) != len(logits):
        raise Fault("the bonnet sent %d indices for %d logits" % (len(indices), len(logits)))
    pairs = {}
    for (anchor, class_id), value in zip(indices, logits):
        if not 0 <= anchor < len(model.anchors) or not 0 <= class_id <= model.classes:
            raise Fault("the bonnet sent an index (%d, %d) outside the model's output" % (anchor, class_id))
        if class_id:
            pairs.setdefault(class_id, []).append((value, anchor))
    found = {}
    for class_id in sorted(pairs):
        _add(model, found, class_id, sorted(pairs[class_id], key=lambda pair: pair[1]), threshold)
    return found


def _add(
    model: Model,
    found: "dict[int, list[tuple[float, int]]]",
    class_id: int,
    pairs: "Iterable[tuple[float, int]]",
    threshold: float,
) -> None:
    """Add the pairs (logit, anchor) whose score passes."""
    convert = sigmoid if model.converter == "SIGMOID" else float
    for logit, anchor in pairs:
        score = float32(convert(logit))
        if _passes(model, score, threshold):
            found.setdefault(class_id, []).append((score, anchor))


def decode_box(model: Model, anchor: int, codes: "Sequence[float]") -> "tuple[float, float, float, float]":
    """The box (ymin, xmin, ymax, xmax) of four box codes (Faster R-CNN's box coder, arXiv:1506.01497)."""
    centre_y, centre_x, anchor_h, anchor_w = model.anchors[anchor]
    y_scale, x_scale, h_scale, w_scale = model.scales
    y = codes[0] / y_scale * anchor_h + centre_y
    x = codes[1] / x_scale * anchor_w + centre_x
    h = _exp(codes[2] / h_scale) * anchor_h / 2
    w = _exp(codes[3] / w_scale) * anchor_w / 2
    return (y - h, x - w, y + h, x + w)


def _exp(value: float) -> float:
    """exp with the range of 32-bit floats: infinity above it; NaN stays NaN."""
    if value < 88.7:
        return math.exp(value)
    return value if math.isnan(value) else float("inf")


def overlaps(a: "Sequence[float]", b: "Sequence[float]", iou_threshold: float) -> bool:
    """Whether the IoU of two boxes is greater than the threshold."""
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    if not (height > 0 and width > 0):
        return False
    shared = height * width
    union = max(a[2] - a[0], 0) * max(a[3] - a[1], 0) + max(b[2] - b[0], 0) * max(b[3] - b[1], 0) - shared
    return union > 0 and shared > iou_threshold * union


def detections(
    model: Model,
    candidates: "dict[int, list[tuple[float, int]]]",
    codes_of: "Callable[[int], Sequence[float]]",
    scale_yx: "tuple[float, float]" = (1.0, 1.0),
) -> "list[Detection]":
    """NMS class by class, then the best of all classes, clipped to the picture; boxes without area are dropped.

    Args:
        candidates: {class id: [(score, anchor), ...]}, each list in the order of the anchors.
        codes_of: anchor -> its four box codes.
        scale_yx: the part of the network's input that the picture covers, from the top left.

    Returns:
        Detections, best first.
    """
    boxes, kept = {}, []
    for class_id in sorted(candidates):
        kept += _suppress(model, class_id, candidates[class_id], codes_of, boxes)
    kept.sort(key=lambda detection: -detection.score)
    result = []
    for detection in kept:
        ymin, xmin, ymax, xmax = _clip(detection.box_yxyx, scale_yx)
        if ymax > ymin and xmax > xmin:
            result.append(detection._replace(box_yxyx=(ymin, xmin, ymax, xmax)))
            if len(result) == model.max_total:
                break
    return result


def _suppress(
    model: Model,
    class_id: int,
    candidates: "Iterable[tuple[float, int]]",
    codes_of: "Callable[[int], Sequence[float]]",
    boxes: "dict[int, tuple[float, float, float, float]]",
) -> "list[Detection]":
    """NMS of one class. `boxes` holds the boxes that are decoded already, by anchor."""
    kept = []
    for score, anchor in sorted(candidates, key=lambda pair: -pair[0]):
        if len(kept) >= model.max_per_class:
            break
        if anchor not in boxes:
            boxes[anchor] = decode_box(model, anchor, codes_of(anchor))
        box = boxes[anchor]
        if not any(overlaps(box, other.box_yxyx, model.iou_threshold) for other in kept):
            kept.append(Detection(class_id, score, box))
    return kept


def _clip(box: "Sequence[float]", scale_yx: "tuple[float, float]") -> "list[float]":
    """The box clipped to the picture and normalised to it."""
    limits = scale_yx + scale_yx
    clipped = [0.0 if edge < 0 else limit if edge > limit else edge for edge, limit in zip(box, limits)]
    return [edge / limit for edge, limit in zip(clipped, limits)]
