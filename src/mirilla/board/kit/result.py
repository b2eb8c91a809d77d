"""An inference result of Google's client, with sparse or whole outputs, to detections."""

from collections.abc import Sequence

from .decode import Detection, dense_candidates, detections, float32, softmax, sparse_candidates
from .errors import Fault
from .model import Classifier, Model
from .output import WHOLE_PICTURE

MAX_CLASSES = 3  # of a picture that are shown


def check_outputs(model: "Model | Classifier", result) -> None:
    """Raise Fault if the result lacks one of the model's outputs."""
    for name in model.output_names:
        if name not in result.tensors:
            outputs = ", ".join(sorted(result.tensors)) or "(none)"
            raise Fault("the bonnet's answer has the outputs %s, but not '%s'" % (outputs, name))


def read_classes(model: Classifier, result, threshold: float) -> "list[Detection]":
    """The best classes of a classifier's result, each as a detection of the whole picture.

    Raises:
        Fault: the output does not fit the model.
    """
    values = list(result.tensors[model.scores_name].data)
    if len(values) != len(model.labels):
        raise Fault("the bonnet sent %d scores, but model.json has %d labels" % (len(values), len(model.labels)))
    scores = softmax(values) if model.converter == "SOFTMAX" else values
    best = sorted(range(len(scores)), key=lambda class_id: -scores[class_id])[:MAX_CLASSES]
    return [
        Detection(class_id, float32(scores[class_id]), WHOLE_PICTURE)
        for class_id in best
        if scores[class_id] >= threshold
    ]


def is_sparse(model: Model, result, requested: bool) -> bool:
    """Whether the outputs hold only the logits above the threshold and their box codes.

    Args:
        requested: whether sparse outputs were requested. An empty answer is sparse then: nothing was detected.
    """
    logits = result.tensors[model.logits_name]
    return bool(logits.indices) or (requested and not logits.data)


def read_result(
    model: Model, result, sparse: bool, threshold: float, scale_yx: "tuple[float, float]" = (1.0, 1.0)
) -> "list[Detection]":
    """The detections of a result, best first, normalised to the whole picture.

    Args:
        scale_yx: the part of the network's input that the picture covers, from the top left.

    Raises:
        Fault: the outputs do not fit the model.
    """
    codes, logits = result.tensors[model.codes_name], result.tensors[model.logits_name]
    flat, values = list(codes.data), list(logits.data)
    if sparse:
        indices = [tuple(index.values) for index in logits.indices]
        offsets = _code_offsets([tuple(index.values) for index in codes.indices], flat)
        if any(len(index) != 2 for index in indices):
            raise Fault("the bonnet's sparse indices have the wrong number of dimensions")
        candidates = sparse_candidates(model, indices, values, threshold)
        if any(anchor not in offsets for pairs in candidates.values() for _, anchor in pairs):
            raise Fault("the bonnet sent logits of an anchor without its box codes")
    else:
        if len(flat) != 4 * len(model.anchors):
            raise Fault("the bonnet sent %d box codes, but model.json has %d anchors" % (len(flat), len(model.anchors)))
        offsets = range(0, len(flat), 4)
        candidates = dense_candidates(model, values, threshold)

    def codes_of(anchor):
        return flat[offsets[anchor] : offsets[anchor] + 4]

    found = detections(model, candidates, codes_of, scale_yx)
    return _to_whole_picture(found, result)


def _code_offsets(indices: "Sequence[tuple[int, ...]]", flat: "Sequence[float]") -> "dict[int, int]":
    """Anchor -> where its four box codes start."""
    if any(len(index) != 1 for index in indices):
        raise Fault("the bonnet's sparse indices have the wrong number of dimensions")
    if len(flat) != 4 * len(indices):
        raise Fault("the bonnet sent %d box codes for %d anchors" % (len(flat), len(indices)))
    return {index[0]: 4 * row for row, index in enumerate(indices)}


def _to_whole_picture(found: "list[Detection]", result) -> "list[Detection]":
    """Boxes of the window that the network saw, normalised to the whole picture."""
    window = result.window
    sizes = (result.width, result.height, window.width, window.height)
    if 0 in sizes or sizes[:2] == sizes[2:]:
        return found
    y, x = window.y / result.height, window.x / result.width
    h, w = window.height / result.height, window.width / result.width
    moved = []
    for detection in found:
        ymin, xmin, ymax, xmax = detection.box_yxyx
        moved.append(detection._replace(box_yxyx=(ymin * h + y, xmin * w + x, ymax * h + y, xmax * w + x)))
    return moved
