"""The target `opencv-yunet`: a file for OpenCV's face detector, `cv2.FaceDetectorYN`, in place of YuNet's own.

Input `input` (1, 3, height, width) float32 BGR, 0 to 255. Outputs for the strides 8, 16 and 32, with n cells each:
scores `cls_`, `obj_` (1, n, 1), boxes `bbox_` (1, n, 4), landmarks `kps_` (1, n, 10). OpenCV decodes a box from its
cell: the centre's x is (column + bbox[0]) * stride, its y (row + bbox[1]) * stride, the width exp(bbox[2]) * stride and
the height exp(bbox[3]) * stride. The score is sqrt(cls * obj).

A model's anchors have nothing to do with these cells. Each takes the next free one, and a linear map of its box code,
which is a part of the file, makes OpenCV decode the same box. Cells without an anchor have the score 0. The model has
no landmarks: all five are the box's centre.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from mirilla.errors import MissingExtraError, ModelError
from mirilla.findings import Finding
from mirilla.model.box_coder import centre_size
from mirilla.model.card import ModelCard
from mirilla.model.spec import INPUT_OFFSET, INPUT_SCALE
from mirilla.targets.onnx_file import IR_VERSION, OPSET, finished
from mirilla.targets.onnx_graph import OnnxBuilder
from mirilla.targets.target import Candidates, Floats, Network, Pixels, Source, Target, to_bytes

FILE = "face_yunet.onnx"
STRIDES = (8, 16, 32)
_LANDMARKS = 5
_LEAST_SCORE, _NO_SUPPRESSION, _MOST_BOXES = 1e-6, 1.0, 10_000

SNIPPET = """\
import cv2, json

network = json.load(open("model.json"))["network"]
size = network["width_px"], network["height_px"]
detector = cv2.FaceDetectorYN.create("face_yunet.onnx", "", size, score_threshold=0.5)
_, faces = detector.detect(cv2.resize(cv2.imread("photo.jpg"), size))
for face in [] if faces is None else faces:
    print(face[:4], face[14])  # x, y, width, height in pixels of the resized photo; the score; landmarks are no use
"""


def check(source: Source) -> list[Finding]:
    """One class, sides that are multiples of 32, and a cell for every anchor."""
    spec, anchors = source.card.spec, len(source.card.anchors_yxyx)
    found = []

    def refuse(what: str, remedy: str) -> None:
        found.append(Finding("error", "opencv-yunet", source.card.name, what, remedy))

    if spec.num_classes != 1:
        refuse(f"{spec.num_classes} classes; FaceDetectorYN has one.", "Export to onnx.")
    if spec.height_px % STRIDES[-1] or spec.width_px % STRIDES[-1]:
        what = f"an input of {spec.height_px}x{spec.width_px}; FaceDetectorYN needs multiples of {STRIDES[-1]}."
        refuse(what, "Train with another image_resizer.")
    elif anchors > (cells := len(_cells(spec.height_px, spec.width_px))):
        what = f"{anchors} anchors; FaceDetectorYN has {cells} cells at {spec.height_px}x{spec.width_px}."
        refuse(what, "Export to onnx.")
    return found


def build(source: Source, pictures: Pixels) -> dict[str, bytes]:
    """The model's file.

    Raises:
        ModelError: a layer cannot be written as ONNX.
    """
    builder, spec = OnnxBuilder(source.graph, opset=OPSET, ir_version=IR_VERSION), source.card.spec
    image = builder.input("input", (3, spec.height_px, spec.width_px))
    to_rgb = np.fliplr(np.eye(3, dtype=np.float32)).reshape(3, 3, 1, 1) * np.float32(INPUT_SCALE)
    offset = np.full(3, INPUT_OFFSET, np.float32)
    inputs = [image, builder.constant("to_rgb", to_rgb), builder.constant("offset", offset)]
    builder.planar[source.graph.input] = builder.node("Conv", inputs, "normalised", kernel_shape=(1, 1))
    builder.add_layers()
    _add_outputs(builder, source.card)
    builder.fix_batch()
    return {FILE: finished(builder, source.card)}


def _cells(height_px: int, width_px: int) -> np.ndarray:
    """(cells, 3): column, row and stride, in the order of the outputs."""
    cells = [
        (column, row, stride)
        for stride in STRIDES
        for row in range(height_px // stride)
        for column in range(width_px // stride)
    ]
    return np.array(cells, np.float64)


def _add_outputs(builder: OnnxBuilder, card: ModelCard) -> None:
    cells = _cells(card.spec.height_px, card.spec.width_px)
    anchors, empty = len(card.anchors_yxyx), len(cells) - len(card.anchors_yxyx)
    factors, offsets = _linear_map(card, cells)

    def constant(name: str, value: np.ndarray) -> str:
        return builder.constant(f"yunet/{name}", value)

    def part(source: str, start: int, end: int, axis: int, name: str) -> str:
        limits = [
            constant(f"{name}/{key}", np.array([i]))
            for key, i in zip(("start", "end", "axis"), (start, end, axis), strict=True)
        ]
        return builder.node("Slice", [source, *limits], f"yunet/{name}")

    def filled(source: str, columns: int, name: str) -> str:
        """The tensor (1, anchors, columns) with zeros for the cells without an anchor."""
        if not empty:
            return source
        zeros = constant(f"{name}/zeros", np.zeros((1, empty, columns), np.float32))
        return builder.node("Concat", [source, zeros], f"yunet/{name}/filled", axis=1)

    codes, logits = (builder.as_interleaved(name) for name in builder.graph.outputs)
    codes = filled(builder.reshaped(codes, (anchors, 4), "yunet/codes"), 4, "codes")
    xywh = builder.node("Gather", [codes, constant("order", np.array([1, 0, 3, 2]))], "yunet/xywh", axis=2)
    scaled = builder.node("Mul", [xywh, constant("factors", factors[None].astype(np.float32))], "yunet/scaled")
    boxes = builder.node("Add", [scaled, constant("offsets", offsets[None].astype(np.float32))], "yunet/boxes")
    centres = part(boxes, 0, 2, 2, "centres")
    landmarks = builder.node("Concat", [centres] * _LANDMARKS, "yunet/landmarks", axis=2)
    logits = builder.reshaped(logits, (anchors, 2), "yunet/logits")
    if card.spec.post_processing.score_converter == "SOFTMAX":
        logits = builder.node("Softmax", [logits], "yunet/softmax", axis=-1)
    scores = part(logits, 1, 2, 2, "foreground")
    if card.spec.post_processing.score_converter == "SIGMOID":
        scores = builder.node("Sigmoid", [scores], "yunet/sigmoid")
    scores = filled(scores, 1, "scores")
    for name, source, columns in (("cls", scores, 1), ("obj", scores, 1), ("bbox", boxes, 4), ("kps", landmarks, 10)):
        for stride in STRIDES:
            (rows,) = np.nonzero(cells[:, 2] == stride)
            start, end = int(rows[0]), int(rows[-1]) + 1
            key = f"{name}_{stride}"
            builder.output(key, part(source, start, end, 1, f"{key}/part"), (end - start, columns))


def _linear_map(card: ModelCard, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(cells, 4) each: what box codes x, y, width, height are multiplied by, and what is added to them."""
    coder, count = card.spec.box_coder, len(card.anchors_yxyx)
    y, x, height, width = (side.astype(np.float64) for side in centre_size(card.anchors_yxyx))
    columns, rows, strides = cells[:count].T
    to_x, to_y = card.spec.width_px / strides, card.spec.height_px / strides
    ones = np.ones(count)
    factors, offsets = np.zeros((len(cells), 4)), np.zeros((len(cells), 4))
    factors[:count] = np.stack(
        [
            width * to_x / coder.x_scale,
            height * to_y / coder.y_scale,
            ones / coder.width_scale,
            ones / coder.height_scale,
        ],
        -1,
    )
    offsets[:count] = np.stack([x * to_x - columns, y * to_y - rows, np.log(width * to_x), np.log(height * to_y)], -1)
    return factors, offsets


def run(path: Path, card: ModelCard) -> Network:
    """The file in OpenCV's FaceDetectorYN, without its NMS.

    Raises:
        MissingExtraError: OpenCV is not installed.
        ModelError: OpenCV refuses the file.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError("opencv-python-headless", "video", "Running a file for OpenCV") from error
    height, width = card.spec.height_px, card.spec.width_px
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # OpenCV 5 warns that there is one kind of engine
    try:
        detector = cv2.FaceDetectorYN.create(str(path), "", (width, height), _LEAST_SCORE, _NO_SUPPRESSION, _MOST_BOXES)
    except cv2.error as error:
        raise ModelError(f"{path}: OpenCV refuses the file ({error}).", "Export the model again.") from None
    finally:
        cv2.utils.logging.setLogLevel(level)
    most, lock = len(card.anchors_yxyx), threading.Lock()

    def network(pictures: Floats) -> Candidates:
        boxes, scores = np.zeros((len(pictures), most, 4), np.float32), np.zeros((len(pictures), most, 1), np.float32)
        for i, picture in enumerate(to_bytes(pictures)):
            with lock:  # the detector keeps its tensors between two calls
                _, faces = detector.detect(np.ascontiguousarray(picture[..., ::-1]))
            if faces is None:
                continue
            x, y, w, h = faces[:, :4].T
            boxes[i, : len(faces)] = np.stack([y / height, x / width, (y + h) / height, (x + w) / width], -1)
            scores[i, : len(faces), 0] = faces[:, -1]
        return Candidates(boxes, scores)

    return network


OPENCV_YUNET = Target(
    "opencv-yunet", FILE, "OpenCV's face detector, cv2.FaceDetectorYN (one class)", check, build, run, SNIPPET
)
