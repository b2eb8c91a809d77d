"""The int8 file as C source, for TensorFlow Lite for Microcontrollers.

`mirilla_model.cc` has the model, `mirilla_model.h` its numbers (sizes, scales, operators, and the memory that
tflite-micro measured), `mirilla_decode.c` turns its outputs into boxes in plain C, `mirilla_detect.cc` joins them with
the interpreter. `model_int8.tflite` is the same model as a file.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files

import numpy as np

from mirilla.findings import Finding
from mirilla.labels import LabelMap
from mirilla.model.box_coder import centre_size
from mirilla.model.card import ModelCard
from mirilla.targets.micro.interpreter import arena_bytes, run
from mirilla.targets.target import Pixels, Source, Target
from mirilla.targets.tflite import integers
from mirilla.targets.tflite.schema import Model, Op

FILE = integers.FILE
HEADER, MODEL, ANCHORS = "mirilla_model.h", "mirilla_model.cc", "mirilla_anchors.c"
STATIC = ("mirilla_decode.h", "mirilla_decode.c", "mirilla_detect.h", "mirilla_detect.cc")
SNIPPET = """\
import re

header = open("mirilla_model.h").read()  # what the program has to reserve, and what its input is
for name, value in re.findall(r"#define (MIRILLA_(?:WIDTH|HEIGHT|CLASSES|MODEL_BYTES|ARENA_BYTES)) (\\S+)", header):
    print(name, value)
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
        HEADER: _header(model, source.card, len(content), arena_bytes(content)).encode(),
        MODEL: _model(content).encode(),
        ANCHORS: anchors_text(source.card).encode(),
    }
    folder = files("mirilla.targets.micro").joinpath("c")
    return made | {name: folder.joinpath(name).read_bytes() for name in STATIC}


def _header(model: Model, card: ModelCard, size: int, arena: int | None) -> str:
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
            "/* as tflite-micro measured it on a computer with 64-bit pointers */",
            f"#define MIRILLA_ARENA_BYTES {arena}",
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

const char *const mirilla_labels[MIRILLA_CLASSES] = {{{", ".join(_text(name) for name in _labels(card.labels))}}};
"""


def _labels(labels: LabelMap) -> list[str]:
    """The shown names by column of the scores."""
    names = {label.id: label.shown for label in labels}
    return [names.get(i, "unused") for i in range(1, labels.max_id + 1)]


def _text(text: str) -> str:
    """A string of C: what is not plain ASCII as octal bytes, so that a name can neither end it nor start a trigraph."""
    plain = "".join(chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\{byte:03o}" for byte in text.encode())
    return f'"{plain}"'


def _float(value: float) -> str:
    return f"{np.format_float_scientific(np.float32(value), trim='0')}f"


def _rows(values: Iterable[str], per_line: int = _PER_LINE) -> str:
    texts = list(values)
    return "\n".join("  " + ", ".join(texts[i : i + per_line]) + "," for i in range(0, len(texts), per_line))


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
