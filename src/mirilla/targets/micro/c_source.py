"""The int8 file as C source, for TensorFlow Lite for Microcontrollers.

`mirilla_model.cc` has the model, `mirilla_model.h` its numbers (sizes, scales, operators, and the memory that
tflite-micro measured), `mirilla_decode.c` turns its outputs into boxes in plain C, `mirilla_detect.cc` joins them with
the interpreter, and `main.cc` is an example. `model_int8.tflite` is the same model as a file.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

import numpy as np

from mirilla.errors import MissingExtraError
from mirilla.findings import Finding
from mirilla.model.box_coder import centre_size
from mirilla.model.card import ModelCard
from mirilla.targets.micro import interpreter
from mirilla.targets.target import Network, Pixels, Source, Target
from mirilla.targets.tflite import integers
from mirilla.targets.tflite import run as litert
from mirilla.targets.tflite.schema import Model, Op

FILE = integers.FILE
HEADER, MODEL, ANCHORS = "mirilla_model.h", "mirilla_model.cc", "mirilla_anchors.c"
STATIC = ("mirilla_decode.h", "mirilla_decode.c", "mirilla_detect.h", "mirilla_detect.cc", "main.cc")
SNIPPET = """\
import ctypes, subprocess, numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

subprocess.run("cc -std=c99 -O2 -shared -fPIC mirilla_decode.c mirilla_anchors.c -o decode.so -lm".split(), check=True)
decoder, detect = ctypes.CDLL("./decode.so"), Interpreter("model_int8.tflite").get_signature_runner()
pixels = Image.open("photo.jpg").convert("RGB").resize(detect.get_input_details()["image"]["shape"][2:0:-1])
found = detect(image=(np.asarray(pixels, np.int16)[None] - 128).astype(np.int8))
boxes = (ctypes.c_float * 600)()  # 100 boxes of mirilla_decode.h
count = decoder.mirilla_decode(found["codes"].tobytes(), found["scores"].tobytes(), ctypes.c_float(0.5), boxes, 100)
print(np.reshape(boxes, (-1, 6))[:count, :5])  # ymin, xmin, ymax, xmax, score
"""
# names of the functions of tflite::MicroMutableOpResolver
_ADD = {
    Op.ADD: "AddAdd",
    Op.AVERAGE_POOL_2D: "AddAveragePool2D",
    Op.CONCATENATION: "AddConcatenation",
    Op.CONV_2D: "AddConv2D",
    Op.DEPTHWISE_CONV_2D: "AddDepthwiseConv2D",
    Op.FULLY_CONNECTED: "AddFullyConnected",
    Op.LOGISTIC: "AddLogistic",
    Op.MAX_POOL_2D: "AddMaxPool2D",
    Op.PAD: "AddPad",
    Op.RELU: "AddRelu",
    Op.RELU6: "AddRelu6",
    Op.RESHAPE: "AddReshape",
    Op.SOFTMAX: "AddSoftmax",
    Op.STRIDED_SLICE: "AddStridedSlice",
}
_PER_LINE = 20


def check(source: Source) -> list[Finding]:
    """What the int8 file takes, this takes."""
    return integers.check(source)


def build(source: Source, pictures: Pixels) -> dict[str, bytes]:
    """The source files and the model's file.

    Raises:
        ModelError: a layer cannot be written, or tflite-micro is installed and cannot run the model.
    """
    model = integers.network_model(source, pictures)
    content = model.to_bytes()
    made = {
        FILE: content,
        HEADER: header_text(model, source.card, len(content), interpreter.arena_bytes(content)).encode(),
        MODEL: _model(content).encode(),
        ANCHORS: anchors_text(source.card).encode(),
    }
    folder = files("mirilla.targets.micro").joinpath("c")
    return made | {name: folder.joinpath(name).read_bytes() for name in STATIC}


def header_text(model: Model, card: ModelCard, size: int, arena: int | None) -> str:
    """The header: numbers of the model and its file, and the measured arena in bytes."""
    coder, post = card.spec.box_coder, card.spec.post_processing
    ops = list(dict.fromkeys(operator.op for operator in model.operators))
    numbers: dict[str, object] = {
        "HEIGHT": card.spec.height_px,
        "WIDTH": card.spec.width_px,
        "ANCHORS": len(card.anchors_yxyx),
        "CLASSES": card.spec.num_classes,
        "MODEL_BYTES": size,
        "THRESHOLD": _float(card.threshold),
        "IOU": _float(post.iou_threshold),
        "MIN_SCORE": _float(post.score_threshold),
        "BOXES_PER_LABEL": post.max_detections_per_class,
        "Y_SCALE": _float(coder.y_scale),
        "X_SCALE": _float(coder.x_scale),
        "HEIGHT_SCALE": _float(coder.height_scale),
        "WIDTH_SCALE": _float(coder.width_scale),
    }
    for name, output in (("CODE", "codes"), ("SCORE", "scores")):
        quantization = model.tensors[model.outputs[output]].quantization
        assert quantization is not None
        numbers[f"{name}_SCALE"] = _float(float(quantization.scales[0]))
        numbers[f"{name}_ZERO"] = f"({int(quantization.zero_points[0])})"
    numbers["OPS"] = len(ops)
    lines = [f"#define MIRILLA_{name} {value}" for name, value in numbers.items()]
    if arena is not None:
        lines += [
            "/* as tflite-micro measured it, with 64-bit pointers and the reference kernels;",
            "   a board's own kernels (CMSIS-NN, ESP-NN) need scratch memory as well */",
            "#ifndef MIRILLA_ARENA_BYTES",
            f"#define MIRILLA_ARENA_BYTES {arena}",
            "#endif",
        ]
    adds = " ".join(f"resolver.{_ADD[op]}();" for op in ops)
    return f"""\
/* Written by mirilla export --to c, for TensorFlow Lite for Microcontrollers. */
#ifndef MIRILLA_MODEL_H
#define MIRILLA_MODEL_H

{chr(10).join(lines)}
#define MIRILLA_ADD_OPS(resolver) {adds}

#ifdef __cplusplus
extern "C" {{
#endif
extern const unsigned char mirilla_model[MIRILLA_MODEL_BYTES];
extern const float mirilla_anchors[MIRILLA_ANCHORS][4]; /* centre y, centre x, height, width */
extern const char *const mirilla_labels[MIRILLA_CLASSES];
#ifdef __cplusplus
}}
#endif

#endif
"""


def _model(content: bytes) -> str:
    return f"""\
#include "{HEADER}"

alignas(16) const unsigned char mirilla_model[MIRILLA_MODEL_BYTES] = {{
{_rows(str(byte) for byte in content)}
}};
"""


def anchors_text(card: ModelCard) -> str:
    """The source file of anchors and labels."""
    sides = np.stack(centre_size(card.anchors_yxyx), -1).astype(np.float32)
    anchors = ("{" + ", ".join(_float(float(side)) for side in row) + "}" for row in sides)
    return f"""\
#include "{HEADER}"

const float mirilla_anchors[MIRILLA_ANCHORS][4] = {{
{_rows(anchors, 2)}
}};

const char *const mirilla_labels[MIRILLA_CLASSES] = {{{", ".join(_text(name) for name in card.labels.by_column)}}};
"""


def _text(text: str) -> str:
    """A string of C: what is not plain ASCII as octal bytes, so that a name can neither end it nor start a trigraph."""
    plain = "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\{byte:03o}" for byte in text.encode())
    return f'"{plain}"'


def _float(value: float) -> str:
    return f"{np.format_float_scientific(np.float32(value), trim='0')}f"


def _rows(values: Iterable[str], per_line: int = _PER_LINE) -> str:
    texts = list(values)
    return "\n".join("  " + ", ".join(texts[i : i + per_line]) + "," for i in range(0, len(texts), per_line))


def run(path: Path, card: ModelCard) -> Network:
    """The file in tflite-micro; where that is not installed, in LiteRT.

    Raises:
        MissingExtraError: neither is installed.
        ModelError: the file is refused.
    """
    try:
        return interpreter.run(path, card)
    except MissingExtraError:
        return litert.run(path, card)


C = Target(
    "c",
    FILE,
    "C source for TensorFlow Lite for Microcontrollers: ESP32, RP2350, STM32",
    check,
    build,
    run,
    SNIPPET,
    calibrated=True,
)
