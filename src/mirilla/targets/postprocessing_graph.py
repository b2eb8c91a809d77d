"""The last part of the frozen graph: decode boxes, convert scores, NMS, and the named outputs.

Nodes that the API's graph also has carry its names. The body of the loop over pictures is our own, from ops that
TensorFlow 1.4 knows: NMS for each class, the best of all classes first, boxes clipped to the picture, boxes
without area dropped, and zeros as padding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mirilla.model.spec import BoxCoderSpec, ModelSpec
from mirilla.targets.graph_builder import FLOAT, INT32, INT64, DType, GraphBuilder

ANCHORS = "Concatenate/concat"  # (A, 4); computed in the API's graph, a constant in ours


def add_postprocessing(g: GraphBuilder, spec: ModelSpec, anchors_yxyx: NDArray[np.float32], true_shapes: str) -> None:
    """Add the nodes after `concat` (N, A, 1, 4) and `concat_1` (N, A, 1 + classes).

    Args:
        anchors_yxyx: (A, 4).
        true_shapes: tensor (N, 3) int32, height, width and channels of each resized picture before padding.
    """
    with g.scope("Postprocessor"):
        encodings = g.op("Identity", "Squeeze", name="raw_box_encodings", T=FLOAT)
        boxes = _decoded_boxes(g, encodings, spec.box_coder)  # (N, A, 4)
        boxes_4d = g.op("ExpandDims", boxes, g.const(2, "ExpandDims_1/dim"), name="ExpandDims_1", T=FLOAT, Tdim=INT32)
        scores = _converted_scores(g, spec)  # (N, A, 1 + C)
        g.op("Identity", scores, name="raw_box_scores", T=FLOAT)
        foreground = g.op(
            "Slice",
            "Postprocessor/raw_box_scores",
            g.const([0, 0, 1], "Slice/begin"),
            g.const([-1, -1, -1], "Slice/size"),
            T=FLOAT,
            Index=INT32,
        )
        window = _window(g, spec, true_shapes)  # (N, 4)
        detections = _all_pictures(g, spec, boxes, foreground, scores, window)
        count = g.op("Cast", detections[4], name="Cast_4", SrcT=INT32, DstT=FLOAT)
        raw_boxes = g.op("Squeeze", boxes_4d, T=FLOAT, squeeze_dims=[2])
    classes = g.op("Add", detections[2], g.const(1.0, "add/y"), name="add", T=FLOAT)
    for name, tensor in (
        ("detection_boxes", detections[0]),
        ("detection_scores", detections[1]),
        ("detection_multiclass_scores", detections[3]),
        ("detection_classes", classes),
        ("num_detections", count),
        ("raw_detection_boxes", raw_boxes),
        ("raw_detection_scores", scores),
    ):
        g.op("Identity", tensor, name=name, T=FLOAT)


def add_anchors(g: GraphBuilder, anchors_yxyx: NDArray[np.float32]) -> str:
    """Add the anchors (A, 4) as a constant."""
    return g.const(np.asarray(anchors_yxyx, np.float32), ANCHORS)


def _decoded_boxes(g: GraphBuilder, encodings: str, coder: BoxCoderSpec) -> str:
    """Decode all boxes at once; the anchors are repeated for each picture."""
    shape = g.op("Shape", encodings, T=FLOAT, out_type=INT32)
    batch, count = g.first_of_shape(shape), g.first_of_shape(shape, 1)
    anchors = g.op("ExpandDims", ANCHORS, g.const(0, "ExpandDims/dim"), T=FLOAT, Tdim=INT32)
    ones = [g.const(1, f"Tile/multiples/{i}") for i in (1, 2)]
    multiples = g.op("Pack", batch, *ones, name="Tile/multiples", N=3, T=INT32, axis=0)
    tiled = g.op("Tile", anchors, multiples, T=FLOAT, Tmultiples=INT32)
    flat_anchors = g.op("Reshape", tiled, g.const([-1, 4], "Reshape/shape"), T=FLOAT, Tshape=INT32)
    flat_codes = g.op("Reshape", encodings, g.const([-1, 4], "Reshape_1/shape"), T=FLOAT, Tshape=INT32)
    with g.scope("Decode"):
        decoded = _decode(g, flat_codes, flat_anchors, coder)
    shape = g.op("Pack", batch, count, g.const(4, "stack/2"), name="stack", N=3, T=INT32, axis=0)
    boxes = g.op("Reshape", decoded, shape, T=FLOAT, Tshape=INT32)
    return g.op("Identity", boxes, name="raw_box_locations", T=FLOAT)


def _decode(g: GraphBuilder, codes: str, anchors: str, coder: BoxCoderSpec) -> str:
    def divide(tensor: str, divisor: float) -> str:
        with g.scope("truediv") as path:
            y = g.const(float(divisor), "y")
        return g.op("RealDiv", tensor, y, at=path, T=FLOAT)

    def binary(op: str, a: str, b: str) -> str:
        return g.op(op, a, b, name=op.lower(), T=FLOAT)

    def columns(tensor: str) -> list[str]:
        turned = _transpose(g, tensor)
        first = g.op("Unpack", turned, name="unstack", T=FLOAT, axis=0, num=4)
        return [first, *(f"{first}:{i}" for i in (1, 2, 3))]

    with g.scope("get_center_coordinates_and_sizes"):
        y_min, x_min, y_max, x_max = columns(anchors)
        width, height = binary("Sub", x_max, x_min), binary("Sub", y_max, y_min)
        y_centre = binary("Add", y_min, divide(height, 2))
        x_centre = binary("Add", x_min, divide(width, 2))
    ty, tx, th, tw = columns(codes)
    scaled = [
        divide(code, scale)
        for code, scale in (
            (ty, coder.y_scale),
            (tx, coder.x_scale),
            (th, coder.height_scale),
            (tw, coder.width_scale),
        )
    ]
    w = binary("Mul", g.op("Exp", scaled[3], T=FLOAT), width)
    h = binary("Mul", g.op("Exp", scaled[2], T=FLOAT), height)
    y = binary("Add", binary("Mul", scaled[0], height), y_centre)
    x = binary("Add", binary("Mul", scaled[1], width), x_centre)
    edges = [
        binary("Sub", y, divide(h, 2)),
        binary("Sub", x, divide(w, 2)),
        binary("Add", y, divide(h, 2)),
        binary("Add", x, divide(w, 2)),
    ]
    return _transpose(g, g.op("Pack", *edges, name="stack", N=4, T=FLOAT, axis=0))


def _transpose(g: GraphBuilder, tensor: str) -> str:
    with g.scope("transpose") as path:
        order = g.const([1, 0], "perm")
    return g.op("Transpose", tensor, order, at=path, T=FLOAT, Tperm=INT32)


def _converted_scores(g: GraphBuilder, spec: ModelSpec) -> str:
    logits = g.op("RealDiv", "concat_1", g.const(1.0, "scale_logits/y"), name="scale_logits", T=FLOAT)
    converter = spec.post_processing.score_converter
    if converter == "SIGMOID":
        return g.op("Sigmoid", logits, name="convert_scores", T=FLOAT)
    if converter == "IDENTITY":
        return g.op("Identity", logits, name="convert_scores", T=FLOAT)
    with g.scope("convert_scores") as path:  # TensorFlow 1.4's Softmax accepts only matrices
        flat = g.op("Reshape", logits, g.const([-1, spec.num_classes + 1], "Reshape/shape"), T=FLOAT, Tshape=INT32)
        soft = g.op("Softmax", flat, T=FLOAT)
        shape = g.op("Shape", logits, T=FLOAT, out_type=INT32)
    return g.op("Reshape", soft, shape, at=path, T=FLOAT, Tshape=INT32)


def _window(g: GraphBuilder, spec: ModelSpec, true_shapes: str) -> str:
    """(N, 4): the part of the network's input that the picture covers, normalised."""
    shapes = g.op("Cast", true_shapes, name="Cast_1", SrcT=INT32, DstT=FLOAT)
    first = g.op("Unpack", shapes, name="unstack", T=FLOAT, axis=1, num=3)
    sides = first, f"{first}:1"
    totals = [
        g.op("Cast", g.const(side_px, f"{name}/x"), name=name, SrcT=INT32, DstT=FLOAT)
        for name, side_px in (("Cast_2", spec.height_px), ("Cast_3", spec.width_px))
    ]
    zeros = [g.op("ZerosLike", side, name="zeros_like", T=FLOAT) for side in sides]
    ends = [g.op("RealDiv", side, total, name="truediv", T=FLOAT) for side, total in zip(sides, totals, strict=True)]
    return g.op("Pack", *zeros, *ends, name="stack_1", N=4, T=FLOAT, axis=1)


def _all_pictures(g: GraphBuilder, spec: ModelSpec, boxes: str, foreground: str, scores: str, window: str) -> list[str]:
    """Boxes (N, D, 4), scores, classes from 0 (N, D), all columns (N, D, 1 + C), counts (N,) int32."""
    count = spec.post_processing.max_total_detections
    inputs = [(boxes, FLOAT), (foreground, FLOAT), (scores, FLOAT), (window, FLOAT)]
    outputs = [
        (FLOAT, (count, 4)),
        (FLOAT, (count,)),
        (FLOAT, (count,)),
        (FLOAT, (count, spec.num_classes + 1)),
        (INT32, ()),
    ]
    with g.scope("BatchMultiClassNonMaxSuppression"):
        return g.map_over(inputs, lambda elements: _one_picture(g, spec, *elements), outputs)


def _one_picture(g: GraphBuilder, spec: ModelSpec, boxes: str, foreground: str, scores: str, window: str) -> list[str]:
    """Boxes (A, 4), scores (A, C) and (A, 1 + C), window (4,) -> the outputs' elements."""
    with g.scope("MultiClassNonMaxSuppression"):
        column = g.op("Unpack", foreground, name="unstack", T=FLOAT, axis=1, num=spec.num_classes)
        chosen = [_one_class(g, spec, i, boxes, f"{column}:{i}" if i else column) for i in range(spec.num_classes)]
        anchor, score, kind = (
            _concatenated(g, [c[i] for c in chosen], dtype, name)
            for i, (dtype, name) in enumerate(((INT64, "anchors"), (FLOAT, "scores"), (FLOAT, "classes")))
        )
        with g.scope("SortByField"):
            best = g.op("TopKV2", score, g.op("Size", score, T=FLOAT, out_type=INT32), T=FLOAT, sorted=True)
        order = f"{best}:1"
        anchor, kind = _gather(g, anchor, order, INT64, INT32), _gather(g, kind, order, FLOAT, INT32)
        found = _gather(g, boxes, anchor, FLOAT, INT64)
        low, high = (
            _gather(g, window, g.const(ends, name), FLOAT, INT32)
            for ends, name in (([0, 1, 0, 1], "low"), ([2, 3, 2, 3], "high"))
        )
        with g.scope("ClipToWindow"):
            clipped = g.op("Maximum", g.op("Minimum", found, high, T=FLOAT), low, T=FLOAT)
        kept = _with_area(g, clipped)
        with g.scope("ChangeCoordinateFrame"):
            moved = g.op("Sub", _gather(g, clipped, kept, FLOAT, INT64), low, T=FLOAT)
            inside = g.op("RealDiv", moved, g.op("Sub", high, low, T=FLOAT), T=FLOAT)
        results = [
            inside,
            _gather(g, best, kept, FLOAT, INT64),
            _gather(g, kind, kept, FLOAT, INT64),
            _gather(g, scores, _gather(g, anchor, kept, INT64, INT64), FLOAT, INT64),
        ]
        most = g.const(spec.post_processing.max_total_detections, "max_total_size")
        count = g.op("Minimum", g.op("Size", kept, T=INT64, out_type=INT32), most, T=INT32)
    with g.scope("PadOrClipBoxList"):
        missing = g.op("Sub", most, count, T=INT32)
        padded = [
            _padded(g, tensor, count, missing, columns)
            for tensor, columns in zip(results, (4, None, None, spec.num_classes + 1), strict=True)
        ]
    return [*padded, count]


def _one_class(g: GraphBuilder, spec: ModelSpec, index: int, boxes: str, score: str) -> tuple[str, str, str]:
    """Anchors (int64), scores and classes (float, from 0) that NMS keeps of a class, each (S,)."""
    post = spec.post_processing
    with g.scope("FilterGreaterThan"):
        above = g.op("Greater", score, g.const(float(post.score_threshold), "score_threshold"), T=FLOAT)
        anchor = _indices(g, above)
    candidates = _gather(g, boxes, anchor, FLOAT, INT64)
    candidate_scores = _gather(g, score, anchor, FLOAT, INT64)
    with g.scope("non_max_suppression"):
        kept = g.op(
            "NonMaxSuppressionV2",
            candidates,
            candidate_scores,
            g.const(post.max_detections_per_class, "max_output_size"),
            g.const(float(post.iou_threshold), "iou_threshold"),
        )
    scores = _gather(g, candidate_scores, kept, FLOAT, INT32)
    zeros = g.op("ZerosLike", scores, name="zeros_like", T=FLOAT)
    kind = g.op("Add", zeros, g.const(float(index), "class"), name="add", T=FLOAT)
    return _gather(g, anchor, kept, INT64, INT32), scores, kind


def _with_area(g: GraphBuilder, boxes: str) -> str:
    """Indices (int64) of the boxes (D, 4) whose area is greater than 0."""
    with g.scope("PruneZeroArea"):
        edge = g.op("Unpack", boxes, name="unstack", T=FLOAT, axis=1, num=4)
        height = g.op("Sub", f"{edge}:2", edge, T=FLOAT)
        width = g.op("Sub", f"{edge}:3", f"{edge}:1", T=FLOAT)
        area = g.op("Mul", height, width, T=FLOAT)
        return _indices(g, g.op("Greater", area, g.const(0.0, "Greater/y"), T=FLOAT))


def _indices(g: GraphBuilder, mask: str) -> str:
    """Where a mask (N,) is true, int64."""
    return g.op("Reshape", g.op("Where", mask), g.const([-1], "Reshape/shape"), T=INT64, Tshape=INT32)


def _gather(g: GraphBuilder, tensor: str, indices: str, dtype: DType, index_dtype: DType) -> str:
    return g.op("Gather", tensor, indices, Tparams=dtype, Tindices=index_dtype, validate_indices=True)


def _concatenated(g: GraphBuilder, tensors: list[str], dtype: DType, name: str) -> str:
    if len(tensors) == 1:
        return tensors[0]
    with g.scope("Concatenate", again=True), g.scope(name):
        return g.op("ConcatV2", *tensors, g.const(0, "axis"), name="concat", N=len(tensors), T=dtype, Tidx=INT32)


def _padded(g: GraphBuilder, tensor: str, count: str, missing: str, columns: int | None) -> str:
    """The first `count` rows, followed by `missing` rows of zeros."""
    zero = g.const(0, "zero")
    if columns is None:
        begin, size = g.const([0], "begin"), g.op("Pack", count, name="size", N=1, T=INT32, axis=0)
        after = g.op("Pack", missing, name="after", N=1, T=INT32, axis=0)
        before = g.op("Pack", zero, name="before", N=1, T=INT32, axis=0)
    else:
        begin = g.const([0, 0], "begin")
        size = g.op("Pack", count, g.const(columns, "columns"), name="size", N=2, T=INT32, axis=0)
        after = g.op("Pack", missing, zero, name="after", N=2, T=INT32, axis=0)
        before = g.op("Pack", zero, zero, name="before", N=2, T=INT32, axis=0)
    rows = g.op("Slice", tensor, begin, size, T=FLOAT, Index=INT32)
    paddings = g.op("Pack", before, after, name="paddings", N=2, T=INT32, axis=1)
    return g.op("Pad", rows, paddings, T=FLOAT, Tpaddings=INT32)
