"""The int8 file for Coral's Edge TPU, checked by our own rules for what maps to it.

`edgetpu_compiler` is closed and needs x86-64 Linux; it was not run. The rules are those of Coral's page "TensorFlow
models on the Edge TPU": what breaks one runs on the host's CPU, and so does everything after it, slowly but correctly.
"""

from __future__ import annotations

import math

import numpy as np

from mirilla.findings import INFERRED, NOTE, WARNING, Finding, Severity
from mirilla.targets.target import Pixels, Source, Target
from mirilla.targets.tflite import integers
from mirilla.targets.tflite.run import run
from mirilla.targets.tflite.schema import Model, Op, Operator

FILE, COMMANDS = integers.FILE, "compile.txt"
SRAM_BYTES = 8_000_000  # of the Edge TPU; weights beyond are sent for every picture
SNIPPET = """\
import numpy as np
from ai_edge_litert.interpreter import Interpreter, load_delegate
from PIL import Image

try:  # on the Edge TPU, the file that edgetpu_compiler made
    detect = Interpreter("model_int8_edgetpu.tflite", experimental_delegates=[load_delegate("libedgetpu.so.1")])
except (OSError, ValueError):
    detect = Interpreter("model_int8.tflite")
pixels = np.asarray(Image.open("photo.jpg").convert("RGB").resize(detect.get_input_details()[0]["shape"][2:0:-1]))
print(detect.get_signature_runner()(image=(pixels[None].astype(np.int16) - 128).astype(np.int8))["scores"].max())
"""
_COMPILE = """\
On x86-64 Debian or Ubuntu, with Coral's package edgetpu-compiler:

    edgetpu_compiler -s model_int8.tflite

It writes model_int8_edgetpu.tflite, and a log that names the operators that run on the CPU. Mirilla's own rules say:

"""
_MAPPED = frozenset(
    {
        Op.ADD,
        Op.AVERAGE_POOL_2D,
        Op.CONCATENATION,
        Op.CONV_2D,
        Op.DEPTHWISE_CONV_2D,
        Op.FULLY_CONNECTED,
        Op.LOGISTIC,
        Op.MAX_POOL_2D,
        Op.PAD,
        Op.RELU,
        Op.RELU6,
        Op.RESHAPE,
        Op.SOFTMAX,
        Op.STRIDED_SLICE,
        Op.QUANTIZE,
    }
)
_SOFTMAX_MAX = 16_000
_EVIDENCE = "coral.ai/docs/edgetpu/models-intro, 'Supported operations' and 'Model requirements'"


def check(source: Source) -> list[Finding]:
    """What will run on the CPU."""
    noise = np.random.default_rng(0).integers(0, 256, (1, *source.graph.input_shape), np.uint8)
    return findings(integers.integer_model(source, noise))


def build(source: Source, pictures: Pixels) -> dict[str, bytes]:
    """The int8 file, and the command that compiles it with what the rules say.

    Raises:
        ModelError: a layer cannot be written as TensorFlow Lite.
    """
    model = integers.integer_model(source, pictures)
    lines = "".join(f"    {finding.what}\n" for finding in findings(model))
    return {FILE: model.to_bytes(), COMMANDS: (_COMPILE + lines).encode()}


def findings(model: Model) -> list[Finding]:
    """What will run on the CPU, or that nothing will; and whether the weights fit."""
    found = []
    for i, operator in enumerate(model.operators):
        reason = _reason(model, operator)
        if reason:
            name = model.tensors[operator.outputs[0]].name
            after = len(model.operators) - i - 1
            what = f"'{name}' ({operator.op.name}) runs on the CPU, and the {after} operators after it: {reason}."
            found.append(_finding(WARNING, "cpu-operator", name, what, "Use the layers of the zoo's networks."))
            break
    size = sum(tensor.value.nbytes for tensor in model.tensors if tensor.value is not None)
    if size > SRAM_BYTES:
        what = f"{size:,} bytes of weights are more than the Edge TPU's memory of {SRAM_BYTES:,} bytes."
        found.append(_finding(WARNING, "weights", "weights", what, "Use a narrower network (--depth-multiplier)."))
    if not found:
        what = f"All {len(model.operators)} operators map to the Edge TPU; {size:,} bytes of weights."
        found.append(_finding(NOTE, "mapped", "model", what, ""))
    return found


def _finding(severity: Severity, code: str, where: str, what: str, remedy: str) -> Finding:
    return Finding(severity, f"edgetpu-{code}", where, what, remedy, certainty=INFERRED, evidence=_EVIDENCE)


def _reason(model: Model, operator: Operator) -> str:
    """Why an operator does not map; empty if it does."""
    output = model.tensors[operator.outputs[0]]
    tensors = [model.tensors[i] for i in (*operator.inputs, *operator.outputs) if i >= 0]
    if operator.op not in _MAPPED:
        return "the Edge TPU does not have it"
    if any(tensor.value is None and tensor.dtype.kind == "f" for tensor in tensors):
        return "it works on floating-point numbers"
    if any(side > 1 for tensor in tensors if tensor.value is None for side in tensor.shape[:-3]):
        return "a tensor has more than three dimensions that are greater than 1"
    if operator.op is Op.SOFTMAX and (math.prod(output.shape) != output.shape[-1] or output.shape[-1] > _SOFTMAX_MAX):
        return f"a softmax maps on one dimension of at most {_SOFTMAX_MAX} values"
    if operator.op is Op.FULLY_CONNECTED and math.prod(output.shape) != output.shape[-1]:
        return "the result of a product must have one dimension"
    if operator.op is Op.CONCATENATION and any(number == 1 and value for number, _, value in operator.options):
        return "an activation is fused into a concatenation"
    return ""


EDGETPU = Target(
    "edgetpu",
    FILE,
    "int8 for Coral's edgetpu_compiler, with a check of what maps",
    check,
    build,
    run,
    SNIPPET,
    calibrated=True,
)
