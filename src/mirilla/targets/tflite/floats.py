"""The targets `tflite` and `tflite-fp16`: floating-point numbers, decoded boxes, names and a signature.

Input `image` (1, height, width, 3) float32, normalised to [-1, 1]: (pixel - 127.5) / 127.5. Outputs `boxes` (1, A, 4),
yxyx normalised to the input, and `scores` (1, A, C) without background. NMS is left to the program.

`tflite-fp16` stores weights as float16, which halves the file; the runtime converts them to float32 when it loads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mirilla.findings import Finding
from mirilla.graph import deploy
from mirilla.graph.deploy import Shape
from mirilla.model.box_coder import centre_size
from mirilla.targets.ssd_head import without_background
from mirilla.targets.target import Pixels, Source, Target
from mirilla.targets.tflite.layers import add_layers
from mirilla.targets.tflite.run import run
from mirilla.targets.tflite.schema import Model, Op

FILE = "model.tflite"
_FP16_DEQUANTIZE = 3  # version of DEQUANTIZE that reads float16

SNIPPET = """\
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

detect = Interpreter("model.tflite").get_signature_runner()
_, height, width, _ = detect.get_input_details()["image"]["shape"]
pixels = np.asarray(Image.open("photo.jpg").convert("RGB").resize((width, height)), np.float32)
found = detect(image=(pixels[None] - 127.5) / 127.5)  # boxes are yxyx, 0 to 1
best = found["scores"][0].max(axis=1).argmax()
print(found["scores"][0, best], found["boxes"][0, best])
"""


@dataclass(frozen=True)
class Floats:
    """Tensors in float32, weights in float32 or float16."""

    half: bool = False

    def tensor(self, model: Model, name: str, shape: Shape) -> int:
        return model.tensor(name, shape)

    def weights(self, model: Model, layer: deploy.Linear, value: np.ndarray, axis: int) -> int:
        return self._constant(model, f"{layer.name}/weights", value)

    def bias(self, model: Model, layer: deploy.Linear, channels: int) -> int:
        bias = np.zeros(channels, np.float32) if layer.bias is None else layer.bias
        return self._constant(model, f"{layer.name}/bias", bias)

    def version(self, op: Op) -> int | None:
        return None

    def _constant(self, model: Model, name: str, value: np.ndarray) -> int:
        if not self.half:
            return model.constant(name, value.astype(np.float32))
        stored = model.constant(f"{name}/half", value.astype(np.float16))
        number = model.tensor(name, value.shape)
        model.add(Op.DEQUANTIZE, [stored], [number], version=_FP16_DEQUANTIZE)
        return number


def check(source: Source) -> list[Finding]:
    """Every SSD can be written."""
    return []


def build(source: Source, pictures: Pixels, *, half: bool = False) -> dict[str, bytes]:
    """The model's file.

    Raises:
        ModelError: a layer cannot be written as TensorFlow Lite.
    """
    graph = without_background(source)
    model = Model(description=source.card.name)
    image = model.tensor("image", (1, *graph.input_shape))
    tensors = {graph.input: image}
    add_layers(model, graph, Floats(half), tensors)
    codes, logits = (tensors[name] for name in graph.outputs)
    model.inputs = {"image": image}
    model.outputs = {"boxes": _decoded(model, source, codes), "scores": _scores(model, source, logits)}
    return {FILE: model.to_bytes()}


def build_half(source: Source, pictures: Pixels) -> dict[str, bytes]:
    """The model's file with weights in float16; see `build`."""
    return build(source, pictures, half=True)


def _decoded(model: Model, source: Source, codes: int) -> int:
    """Add the box decoder; returns the tensor of boxes (1, A, 4)."""
    coder, anchors = source.card.spec.box_coder, source.card.anchors_yxyx
    y, x, height, width = (side.astype(np.float32) for side in centre_size(anchors))
    sizes, centres = np.stack([height, width], -1)[None], np.stack([y, x], -1)[None]  # (1, A, 2)
    scales = np.array([coder.y_scale, coder.x_scale], np.float32)
    inverse_scales = 1 / np.array([coder.height_scale, coder.width_scale], np.float32)
    half_shape = (1, len(anchors), 2)
    offsets, logarithms = (model.tensor(f"decode/{name}", half_shape) for name in ("offsets", "logarithms"))
    axis = model.constant("decode/axis", np.array(2, np.int32))
    model.add(Op.SPLIT, [axis, codes], [offsets, logarithms], [(0, "int32", 2)])

    def apply(op: Op, name: str, *inputs: int) -> int:
        made = model.tensor(f"decode/{name}", half_shape)
        model.add(op, inputs, [made])
        return made

    moved = apply(Op.MUL, "moved", offsets, model.constant("decode/sizes", sizes / scales))
    centre = apply(Op.ADD, "centre", moved, model.constant("decode/centres", centres))
    scaled = apply(Op.MUL, "scaled", logarithms, model.constant("decode/scales", inverse_scales[None, None]))
    half = apply(Op.MUL, "half", apply(Op.EXP, "ratio", scaled), model.constant("decode/halves", sizes / 2))
    low, high = apply(Op.SUB, "low", centre, half), apply(Op.ADD, "high", centre, half)
    boxes = model.tensor("boxes", (1, len(anchors), 4))
    model.add(Op.CONCATENATION, [low, high], [boxes], [(0, "int32", 2)])
    return boxes


def _scores(model: Model, source: Source, logits: int) -> int:
    """Add the score converter; returns the tensor of scores (1, A, C)."""
    converter, classes = source.card.spec.post_processing.score_converter, source.card.spec.num_classes
    shape = (1, len(source.card.anchors_yxyx), classes)
    if converter == "IDENTITY":
        return logits
    scores = model.tensor("scores", shape)
    if converter == "SIGMOID":
        model.add(Op.LOGISTIC, [logits], [scores])
        return scores
    every = model.tensor("every_score", (*shape[:2], classes + 1))
    model.add(Op.SOFTMAX, [logits], [every], [(0, "float32", 1.0)])
    limits = [
        model.constant(f"scores/{name}", np.array(value, np.int32))
        for name, value in (("begin", [0, 0, 1]), ("end", [*shape[:2], classes + 1]), ("steps", [1, 1, 1]))
    ]
    model.add(Op.STRIDED_SLICE, [every, *limits], [scores])
    return scores


TFLITE = Target("tflite", FILE, "TensorFlow Lite, float32, decoded boxes", check, build, run, SNIPPET)
TFLITE_FP16 = Target("tflite-fp16", FILE, "TensorFlow Lite with float16 weights", check, build_half, run, SNIPPET)
