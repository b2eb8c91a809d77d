"""The target `onnx`: a file for onnxruntime, OpenCV and OpenVINO that takes photos' bytes and returns boxes.

Input `image` (N, height, width, 3) uint8 RGB, resized to the model's input. Outputs `boxes` (N, A, 4) float32, yxyx
normalised to the input, and `scores` (N, A, C) float32 without background. NMS is left to the program: `mirilla.boxes`,
`cv2.dnn.NMSBoxes` or torchvision have it, and OpenCV's importer runs ONNX's own NMS wrongly. `build_with_nms` (`--nms`)
adds it for other runtimes.

Opset 17, IR 8; N is free. The metadata has the keys of Ultralytics' files, and model.json under the key `mirilla`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mirilla.errors import MissingExtraError, ModelError
from mirilla.findings import Finding
from mirilla.model import card as cards
from mirilla.model.box_coder import centre_size
from mirilla.model.card import ModelCard
from mirilla.model.spec import INPUT_OFFSET, INPUT_SCALE
from mirilla.protos.onnx_pb2 import TensorProto
from mirilla.targets import onnx_nms
from mirilla.targets.onnx_graph import TO_PLANAR, OnnxBuilder
from mirilla.targets.target import Candidates, Floats, Network, Pixels, Source, Target, to_bytes
from mirilla.version import __version__

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

OPSET, IR_VERSION = 17, 8
INPUT, BOXES, SCORES = "image", "boxes", "scores"
FILE = "model.onnx"
_END = np.iinfo(np.int64).max

SNIPPET = """\
import numpy as np, onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("model.onnx")
_, height, width, _ = session.get_inputs()[0].shape
image = np.asarray(Image.open("photo.jpg").convert("RGB").resize((width, height)))[None]  # uint8
boxes, scores = session.run(["boxes", "scores"], {"image": image})  # boxes are yxyx, 0 to 1
best = scores[0].max(axis=1).argmax()
print(scores[0, best], boxes[0, best])
"""


def check(source: Source) -> list[Finding]:
    """Every deploy graph can be written."""
    return []


def build(source: Source, pictures: Pixels) -> dict[str, bytes]:
    """The model's file.

    Raises:
        ModelError: a layer cannot be written as ONNX.
    """
    builder, boxes, scores = decoded_network(source)
    _add_outputs(builder, source.card, boxes, scores, len(source.card.anchors_yxyx))
    return {FILE: finished(builder, source.card)}


def build_with_nms(source: Source, pictures: Pixels) -> dict[str, bytes]:
    """The model's file for one picture, with NMS inside: its outputs have the boxes that NMS keeps, best first.

    Raises:
        ModelError: a layer cannot be written as ONNX.
    """
    builder, boxes, scores = decoded_network(source)
    kept, kept_scores = onnx_nms.boxes_and_scores(builder, source.card, boxes, scores)
    _add_outputs(builder, source.card, kept, kept_scores, source.card.spec.post_processing.max_total_detections)
    builder.fix_batch()
    return {FILE: finished(builder, source.card)}


def decoded_network(source: Source) -> tuple[OnnxBuilder, str, str]:
    """The network from a picture's bytes on; and the tensors of its decoded boxes and scores."""
    builder = OnnxBuilder(source.graph, opset=OPSET, ir_version=IR_VERSION)
    add_picture(builder)
    builder.add_layers()
    return builder, *decoded(builder, source.card)


def _add_outputs(builder: OnnxBuilder, card: ModelCard, boxes: str, scores: str, count: int) -> None:
    builder.output(BOXES, boxes, (count, 4))
    builder.output(SCORES, scores, (count, card.spec.num_classes))


def add_picture(builder: OnnxBuilder) -> None:
    """Add the input: a picture's bytes, normalised for the first layer."""
    graph = builder.graph
    image = builder.input(INPUT, graph.input_shape, TensorProto.UINT8)
    planes = builder.node(
        "Transpose", [builder.node("Cast", [image], "float", to=TensorProto.FLOAT)], "planes", perm=TO_PLANAR
    )
    scaled = builder.node("Mul", [planes, builder.constant("scale", np.array(INPUT_SCALE, np.float32))], "scaled")
    offset = builder.constant("offset", np.array(-INPUT_OFFSET, np.float32))
    builder.planar[graph.input] = builder.node("Sub", [scaled, offset], "normalised")


def finished(builder: OnnxBuilder, card: ModelCard) -> bytes:
    """The file, with the model's metadata."""
    for key, value in metadata(card).items():
        builder.model.metadata_props.add(key=key, value=value)
    builder.model.producer_version = __version__
    return builder.model.SerializeToString(deterministic=True)


def decoded(builder: OnnxBuilder, card: ModelCard) -> tuple[str, str]:
    """Add decoded codes (N, A, 4) yxyx and converted logits (N, A, C); their tensors' names."""
    codes, logits = (builder.as_interleaved(name) for name in builder.graph.outputs)
    anchors = card.anchors_yxyx
    count, classes = len(anchors), card.spec.num_classes
    coder, converter = card.spec.box_coder, card.spec.post_processing.score_converter

    def constant(name: str, value: np.ndarray) -> str:
        return builder.constant(f"decode/{name}", value)

    def part(source: str, start: int, end: int, name: str) -> str:
        limits = [constant(f"{name}/{i}", np.array([i])) for i in (start, end, -1)]
        return builder.node("Slice", [source, *limits], f"decode/{name}")

    y, x, height, width = (side.astype(np.float32) for side in centre_size(anchors))
    sizes, centres = np.stack([height, width], -1), np.stack([y, x], -1)
    scales = np.array([coder.y_scale, coder.x_scale], np.float32)
    size_scales = np.array([coder.height_scale, coder.width_scale], np.float32)
    codes = builder.reshaped(codes, (count, 4), "decode/codes")
    moved = builder.node("Mul", [part(codes, 0, 2, "offsets"), constant("sizes", sizes / scales)], "decode/moved")
    centre = builder.node("Add", [moved, constant("centres", centres)], "decode/centre")
    logarithms = builder.node("Div", [part(codes, 2, 4, "logarithms"), constant("scales", size_scales)], "decode/ratio")
    ratio = builder.node("Exp", [logarithms], "decode/exp")
    half = builder.node("Mul", [ratio, constant("halves", sizes / 2)], "decode/half")
    corners = [builder.node(op, [centre, half], f"decode/{op.lower()}") for op in ("Sub", "Add")]
    boxes = builder.node("Concat", corners, "decode/boxes", axis=-1)

    logits = builder.reshaped(logits, (count, 1 + classes), "decode/logits")
    if converter == "SOFTMAX":
        logits = builder.node("Softmax", [logits], "decode/softmax", axis=-1)
    scores = part(logits, 1, _END, "foreground")
    if converter == "SIGMOID":
        scores = builder.node("Sigmoid", [scores], "decode/sigmoid")
    return boxes, scores


def metadata(card: ModelCard) -> dict[str, str]:
    """Key -> value, for programs that show or read a model's metadata."""
    spec = card.spec
    return {
        "description": card.name,
        "author": f"mirilla {__version__}",
        "version": __version__,
        "license": card.licence or "",
        "task": "detect",
        "stride": "32",
        "batch": "1",
        "channels": "3",
        "imgsz": str([spec.height_px, spec.width_px]),
        "names": str({label.id - 1: label.shown for label in card.labels}),
        "mirilla": json.dumps(json.loads(cards.dumps(card)), separators=(",", ":")),
    }


def session_of(path: Path) -> InferenceSession:
    """The file in onnxruntime, on one thread.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ModelError: onnxruntime refuses the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx", "Running an ONNX file") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common class of their own
        raise ModelError(f"{path}: onnxruntime refuses the file ({error}).", "Export the model again.") from None


def run(path: Path, card: ModelCard) -> Network:
    """The file in onnxruntime; see `session_of`."""
    session = session_of(path)

    def network(pictures: Floats) -> Candidates:
        results = [session.run([BOXES, SCORES], {INPUT: picture[None]}) for picture in to_bytes(pictures)]
        boxes, scores = (np.concatenate(arrays) for arrays in zip(*results, strict=True))
        return Candidates(boxes, scores)

    return network


ONNX = Target("onnx", FILE, "ONNX with decoded boxes: onnxruntime, OpenCV, OpenVINO", check, build, run, SNIPPET)
