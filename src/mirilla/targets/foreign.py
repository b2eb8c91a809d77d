"""A model card for a frozen SSD graph without model.json: what the graph contains, and what must be assumed.

Exports of the Object Detection API contain their box coder, NMS thresholds and score converter as constants of
nodes with known names. Their anchors are a constant or computed by nodes; failing that, the sample
configuration's anchors are assumed if their number fits.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.errors import ModelError
from mirilla.graph.constants import constant_value
from mirilla.graph.deploy import DeployGraph
from mirilla.labels import LabelMap, load_label_map
from mirilla.model.anchors import anchors_yxyx
from mirilla.model.card import ModelCard
from mirilla.model.layers import EXTRA_MAPS, architecture
from mirilla.model.spec import AnchorSpec, BoxCoderSpec, ModelSpec, PostProcessing
from mirilla.protos.graphdef import constant_array
from mirilla.protos.tensorflow_pb2 import GraphDef, NodeDef

ANCHORS = ("Concatenate/concat", "MultipleGridAnchorGenerator/Concatenate/concat", "anchors")
LABEL_MAP = "label_map.pbtxt"
RESIZED = "Preprocessor/map/TensorArrayStack/TensorArrayGatherV3"


def card_from_graph(graph_def: GraphDef, graph: DeployGraph, path: Path) -> tuple[ModelCard, tuple[str, ...]]:
    """Make a card for a graph that has none.

    Args:
        graph_def: the frozen graph.
        graph: its deploy graph.
        path: of its file; a label_map.pbtxt beside it is used.

    Returns:
        The card, and a line for everything that was found or assumed.

    Raises:
        ModelError: the outputs are not those of an SSD, or its anchors are unknown.
    """
    notes = [f"{path.name} has no model.json: its properties are read from the graph."]
    count, columns = output_sizes(graph, str(path))
    nodes = {node.name: node for node in graph_def.node}
    spec = ModelSpec(
        height_px=graph.input_shape[0],
        width_px=graph.input_shape[1],
        num_classes=columns - 1,
        keep_aspect_ratio=any("ResizeToRange" in name for name in nodes),
        box_coder=_box_coder(nodes, notes),
        post_processing=_post_processing(nodes, notes),
    )
    anchors, spec = _anchors(graph_def, spec, count, path, notes)
    labels = _labels(path, spec.num_classes, notes)
    if graph.preprocessing is None:
        notes.append("Normalisation assumed: 2/255 * pixel - 1.")
    return ModelCard(spec, labels, anchors, name=path.stem, file=path.name, made_by="unknown"), tuple(notes)


def input_size(graph_def: GraphDef) -> tuple[int, int] | None:
    """(height, width) to which the preprocessor's loop resizes every picture; None if the graph has no such loop."""
    for node in graph_def.node:
        if node.name == RESIZED and not node.attr["element_shape"].shape.unknown_rank:
            sizes = [dim.size for dim in node.attr["element_shape"].shape.dim]
            if len(sizes) == 3 and min(sizes) > 0:
                return sizes[0], sizes[1]
    return None


def output_sizes(graph: DeployGraph, where: str) -> tuple[int, int]:
    """(anchors, columns of the class logits) of an SSD's two outputs.

    Raises:
        ModelError: the graph does not have two outputs with the shapes of an SSD.
    """
    shapes = graph.output_shapes
    if len(shapes) == 2 and len(shapes[0]) >= 2 and len(shapes[1]) >= 2 and shapes[0][-1] == 4:
        anchors, columns = int(np.prod(shapes[0])) // 4, int(shapes[1][-1])
        if columns > 1 and int(np.prod(shapes[1])) == anchors * columns:
            return anchors, columns
    raise ModelError(
        f"{where}: the outputs {', '.join(graph.outputs)} have the shapes {', '.join(map(str, shapes))}, "
        "which are not those of an SSD: box codes (anchors, 1, 4) and logits (anchors, 1 + classes).",
        "Give a detector's frozen graph with the outputs 'concat' and 'concat_1'.",
    )


def evaluate_anchors(graph_def: GraphDef) -> NDArray[np.float32] | None:
    """The (A, 4) anchors that a frozen graph computes, normalised; None if its constants do not determine them.

    The API's generators of anchors depend on constants alone once the input's size is fixed.
    """
    nodes = {node.name: node for node in graph_def.node}
    for name in ANCHORS:
        if name in nodes:
            try:
                value = constant_value(nodes, name)
            except (ModelError, LookupError, ValueError):
                continue
            if value.ndim == 2 and value.shape[1] == 4 and value.dtype == np.float32 and np.isfinite(value).all():
                return value
    return None


def _constant(nodes: dict[str, NodeDef], name: str) -> float | None:
    node = nodes.get(name)
    if node is None or node.op != "Const":
        return None
    value = constant_array(node)
    return float(str(value.reshape(-1)[0])) if value.size == 1 else None  # 0.6, not 0.60000002


def _box_coder(nodes: dict[str, NodeDef], notes: list[str]) -> BoxCoderSpec:
    found = [_constant(nodes, f"Postprocessor/Decode/truediv{suffix}/y") for suffix in ("", "_1", "_2", "_3")]
    if None in found or not all(found):
        notes.append("Box-coder scales assumed: 10, 10, 5, 5.")
        return BoxCoderSpec()
    return BoxCoderSpec(*(scale for scale in found if scale is not None))


def _post_processing(nodes: dict[str, NodeDef], notes: list[str]) -> PostProcessing:
    default = PostProcessing()
    converters = [
        node.op.upper()
        for name, node in nodes.items()
        if re.fullmatch(r"Postprocessor/convert_scores(/\w+)?", name) and node.op in ("Sigmoid", "Softmax")
    ]
    if not converters:
        notes.append(f"Score converter assumed: {default.score_converter}.")
    in_nms = [name for name in nodes if "NonMaxSuppression" in name and "PruneZeroArea" not in name]

    def find(pattern: str, otherwise: float) -> float:
        """The value that all constants of NMS with such a name have."""
        found = {_constant(nodes, name) for name in in_nms if re.search(rf"({pattern})$", name)} - {None}
        value = found.pop() if len(found) == 1 else None
        return otherwise if value is None else value

    return PostProcessing(
        score_threshold=find(r"/score_threshold|Greater/y", default.score_threshold),
        iou_threshold=find(r"/iou_threshold", default.iou_threshold),
        max_detections_per_class=int(find(r"/max_output_size", default.max_detections_per_class)),
        max_total_detections=int(find(r"/max_total_size", default.max_total_detections)),
        score_converter=converters[-1] if converters else default.score_converter,
    )


def _anchors(
    graph_def: GraphDef, spec: ModelSpec, count: int, path: Path, notes: list[str]
) -> tuple[NDArray[np.float32], ModelSpec]:
    computed = evaluate_anchors(graph_def)
    if computed is not None and computed.shape == (count, 4):
        notes.append(f"Anchors: {count}, as the graph computes them.")
        return computed, spec
    for extractor in EXTRA_MAPS:
        layers = 5 if extractor.startswith("embedded") else 6
        guess = replace(spec, feature_extractor=extractor, anchors=AnchorSpec(num_layers=layers))
        anchors = anchors_yxyx(guess.anchors, architecture(guess).feature_map_shapes, spec.height_px, spec.width_px)
        if len(anchors) == count:
            notes.append(f"Anchors assumed: the {count} of the sample configuration of {extractor}.")
            return anchors, guess
    raise ModelError(
        f"{path}: the graph's {count} anchors are unknown: its nodes do not determine them, and the sample "
        "configurations have another number.",
        "Export the model again with 'mirilla export', which writes them into model.json.",
    )


def _labels(path: Path, classes: int, notes: list[str]) -> LabelMap:
    beside = path.with_name(LABEL_MAP)
    if beside.is_file():
        notes.append(f"Labels: {beside}.")
        return load_label_map(beside)
    notes.append(
        f"Labels assumed: {'object' if classes == 1 else f'class 1 .. class {classes}'} "
        f"(no {LABEL_MAP} beside the graph)."
    )
    return LabelMap.from_names(["object"] if classes == 1 else [f"class {i}" for i in range(1, classes + 1)])
