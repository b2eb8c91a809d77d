"""The target `saved_model.pb`: the frozen graph with a signature, as TensorFlow Serving and its relatives load it.

    tag 'serve', signature 'serving_default' (tensorflow/serving/predict), and others with the same content if asked for
      inputs   {'inputs': the graph's placeholder}
      outputs  {'detection_boxes': ..., ...}, all outputs of the graph

The weights are constants of the graph, so the folder `variables` beside it is empty.
"""

from __future__ import annotations

from collections.abc import Sequence

from mirilla.errors import ModelError
from mirilla.model.layers import architecture
from mirilla.model.spec import ModelSpec
from mirilla.protos import tensorflow_pb2
from mirilla.protos.tensorflow_pb2 import GraphDef, NodeDef, SavedModel, SignatureDef, TensorInfo, TensorShapeProto

SCHEMA_VERSION = 1
TAG = "serve"
SIGNATURE = "serving_default"
METHOD = "tensorflow/serving/predict"
INPUT = "inputs"

Shape = tuple[int, ...]


def check(graph: GraphDef, spec: ModelSpec) -> NodeDef:
    """Check that a saved model can be built.

    Args:
        graph: made by `frozen_graph.build`.

    Returns:
        The graph's placeholder.

    Raises:
        ModelError: the graph has several placeholders or none, or lacks an output.
    """
    placeholders = [node for node in graph.node if node.op == "Placeholder"]
    if len(placeholders) != 1:
        raise ModelError(f"The graph has {len(placeholders)} placeholders; a saved model needs one.")
    missing = output_shapes(spec).keys() - {node.name for node in graph.node}
    if missing:
        raise ModelError(f"The graph has no output '{min(missing)}'.", "Give a graph that 'mirilla export' wrote.")
    return placeholders[0]


def build(
    graph: GraphDef, spec: ModelSpec, input_name: str = INPUT, signatures: Sequence[str] = (SIGNATURE,)
) -> SavedModel:
    """Build the saved model of a frozen graph.

    Args:
        input_name: of the placeholder, in the signatures.
        signatures: names, all of the same signature.

    Raises:
        ModelError: see `check`.
    """
    placeholder = check(graph, spec)
    model = SavedModel(saved_model_schema_version=SCHEMA_VERSION)
    meta = model.meta_graphs.add()
    meta.meta_info_def.tags.append(TAG)
    meta.graph_def.CopyFrom(graph)
    signature = SignatureDef(method_name=METHOD)
    attributes = placeholder.attr
    signature.inputs[input_name].CopyFrom(
        TensorInfo(name=f"{placeholder.name}:0", dtype=attributes["dtype"].type, tensor_shape=attributes["shape"].shape)
    )
    for name, shape in output_shapes(spec).items():
        sides = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in (-1, *shape)])
        info = TensorInfo(name=f"{name}:0", dtype=tensorflow_pb2.DT_FLOAT, tensor_shape=sides)
        signature.outputs[name].CopyFrom(info)
    for name in signatures:
        meta.signature_def[name].CopyFrom(signature)
    return model


def output_shapes(spec: ModelSpec) -> dict[str, Shape]:
    """Output of the frozen graph -> its shape without the batch."""
    anchors = sum(p.height * p.width * p.anchors for p in architecture(spec).predictors)
    count, columns = spec.post_processing.max_total_detections, spec.num_classes + 1
    return {
        "detection_boxes": (count, 4),
        "detection_scores": (count,),
        "detection_classes": (count,),
        "detection_multiclass_scores": (count, columns),
        "num_detections": (),
        "raw_detection_boxes": (anchors, 4),
        "raw_detection_scores": (anchors, columns),
    }
