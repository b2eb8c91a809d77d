"""The target `tflite-detect`: one file for Frigate, picamera2, MediaPipe and DOODS, with NMS inside.

Input (1, height, width, 3) uint8: the photo's bytes. The network runs on 8-bit integers. The last operator is
`TFLite_Detection_PostProcess`, with four float32 outputs: boxes (1, N, 4) yxyx, classes (1, N) from 0, scores (1, N),
best first, and the count (1). MediaPipe's metadata is in the file, and the labels in a zip archive at its end. Beside
the file lie the labels with numbers, as Frigate and picamera2 read them.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from flatbuffers import flexbuffers

from mirilla.findings import Finding
from mirilla.model.box_coder import centre_size
from mirilla.model.card import ModelCard
from mirilla.model.spec import INPUT_SCALE
from mirilla.targets.target import Candidates, Floats, Network, Pixels, Source, Target, to_bytes
from mirilla.targets.tflite.integers import add_network, quantization, rounded_network
from mirilla.targets.tflite.metadata import LABELS, NAME, metadata
from mirilla.targets.tflite.ranges import Scale
from mirilla.targets.tflite.run import Interpreters
from mirilla.targets.tflite.schema import Model, Op

FILE = "model_detect.tflite"
LABEL_MAP = "labelmap.txt"
POSTPROCESS = "TFLite_Detection_PostProcess"
MIN_SCORE = 1e-8  # Frigate tells classes from scores by their digits, so no score may be exactly 0
_BYTES = Scale(INPUT_SCALE, 128)
_DEQUANTIZE_VERSION = 2  # of int8
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip archive can hold, so that equal models give equal files

SNIPPET = """\
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

detect = Interpreter("model_detect.tflite").get_signature_runner()
_, height, width, _ = detect.get_input_details()["image"]["shape"]
found = detect(image=np.asarray(Image.open("photo.jpg").convert("RGB").resize((width, height)))[None])
for i in range(int(found["count"][0])):
    if found["scores"][0, i] >= 0.5:
        print(found["scores"][0, i], found["boxes"][0, i])  # boxes are yxyx, 0 to 1
"""


def check(source: Source) -> list[Finding]:
    """Every SSD can be written."""
    return []


def build(source: Source, pictures: Pixels) -> dict[str, bytes]:
    """The model's file and its labels; `pictures` as for `tflite-int8`.

    Raises:
        ModelError: a layer cannot be written as TensorFlow Lite.
    """
    rounded = rounded_network(source, pictures)
    graph = rounded.graph
    model = Model(description=source.card.name)
    shape = (1, *graph.input_shape)
    image = model.tensor("image", shape, "u1", quantization=quantization(_BYTES))
    shifted = model.tensor("image/int8", shape, "i1", quantization=quantization(rounded.scales[graph.input]))
    model.add(Op.QUANTIZE, [image], [shifted])
    codes, scores = add_network(model, source, rounded, shifted)
    anchors = np.stack(centre_size(source.card.anchors_yxyx), -1).astype(np.float32)  # (A, 4) y, x, height, width
    inputs = [_real(model, codes, "codes"), _real(model, scores, "scores"), model.constant("anchors", anchors)]
    count = source.card.spec.post_processing.max_total_detections
    names = (POSTPROCESS, f"{POSTPROCESS}:1", f"{POSTPROCESS}:2", f"{POSTPROCESS}:3")
    shapes = ((1, count, 4), (1, count), (1, count), (1,))
    outputs = [model.tensor(name, shape) for name, shape in zip(names, shapes, strict=True)]
    model.add_custom(POSTPROCESS, inputs, outputs, _options(source.card))
    model.inputs = {"image": image}
    model.outputs = dict(zip(("boxes", "classes", "scores", "count"), outputs, strict=True))
    model.metadata = {NAME: metadata(source.card)}
    numbered = "".join(f"{label.id - 1} {label.shown}\n" for label in source.card.labels)
    return {FILE: model.to_bytes() + _labels_archive(source.card), LABEL_MAP: numbered.encode()}


def _real(model: Model, source: int, name: str) -> int:
    """Add the floating-point numbers that a tensor of integers stands for."""
    made = model.tensor(f"{name}/real", model.tensors[source].shape)
    model.add(Op.DEQUANTIZE, [source], [made], version=_DEQUANTIZE_VERSION)
    return made


def _options(card: ModelCard) -> bytes:
    """The custom operator's options: a FlexBuffer map of ten keys, numbers in four bytes (OpenCV reads them so)."""
    coder, post = card.spec.box_coder, card.spec.post_processing
    options: dict[str, bool | int | float] = {
        "max_detections": post.max_total_detections,
        "max_classes_per_detection": 1,
        "nms_score_threshold": max(MIN_SCORE, post.score_threshold),
        "nms_iou_threshold": post.iou_threshold,
        "num_classes": card.spec.num_classes,
        "y_scale": float(coder.y_scale),
        "x_scale": float(coder.x_scale),
        "h_scale": float(coder.height_scale),
        "w_scale": float(coder.width_scale),
        "use_regular_nms": card.spec.num_classes > 1,
    }
    builder = flexbuffers.Builder()
    with builder.Map():
        for name, value in options.items():
            builder.Key(name)
            if isinstance(value, bool):
                builder.Bool(value)
            elif isinstance(value, int):
                builder.Int(value)
            else:
                builder.Float(float(np.float32(value)))
    return bytes(builder.Finish())


def _labels_archive(card: ModelCard) -> bytes:
    """A zip archive with the labels; readers find it by its directory at the end of the file."""
    text = "".join(f"{name}\n" for name in card.labels.by_column)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo(LABELS, _ZIP_TIME), text)
    return stream.getvalue()


def run(path: Path, card: ModelCard) -> Network:
    """The file in LiteRT.

    Raises:
        MissingExtraError: LiteRT is not installed.
        ModelError: LiteRT refuses the file.
    """
    interpreters = Interpreters(path)
    classes = card.spec.num_classes

    def network(pictures: Floats) -> Candidates:
        boxes, scores = [], []
        for picture in to_bytes(pictures):
            found = interpreters.runner(image=np.ascontiguousarray(picture[None]))
            table = np.zeros((found["scores"].shape[1], classes), np.float32)
            rows = np.arange(int(found["count"][0]))
            table[rows, found["classes"][0, rows].astype(np.int64)] = found["scores"][0, rows]
            boxes.append(found["boxes"][0])
            scores.append(table)
        return Candidates(np.stack(boxes), np.stack(scores))

    return network


TFLITE_DETECT = Target(
    "tflite-detect",
    FILE,
    "TensorFlow Lite with NMS inside: Frigate, picamera2, MediaPipe, DOODS",
    check,
    build,
    run,
    SNIPPET,
    calibrated=True,
)
