"""The target `tflite-int8`: 8-bit integers throughout, photos' bytes straight in, codes and scores apart.

Input `image` (1, height, width, 3) int8: the photo's bytes minus 128. Outputs `codes` (1, A, 4) int8, the Faster R-CNN
box codes, and `scores` (1, A, C) int8 without background, each with a scale of its own. Weights have a scale per output
channel. Every operator runs on integers, as the Edge TPU, Vela and tflite-micro need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mirilla.findings import Finding
from mirilla.graph import deploy
from mirilla.graph.deploy import Shape
from mirilla.model.spec import INPUT_OFFSET, INPUT_SCALE
from mirilla.targets.ssd_head import without_background
from mirilla.targets.target import Pixels, Source, Target
from mirilla.targets.tflite.head import Head
from mirilla.targets.tflite.layers import add_layers
from mirilla.targets.tflite.ranges import SCORE, Scale
from mirilla.targets.tflite.run import run
from mirilla.targets.tflite.schema import INTEGER_VERSIONS, Model, Op, Quantization
from mirilla.targets.tflite.simulate import Rounded, round_network

FILE = "model_int8.tflite"
_SLICE_VERSION = 2  # of STRIDED_SLICE on int8
_last: list[tuple[Source, Pixels, Rounded]] = []

SNIPPET = """\
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

detect = Interpreter("model_int8.tflite").get_signature_runner()
_, height, width, _ = detect.get_input_details()["image"]["shape"]
pixels = np.asarray(Image.open("photo.jpg").convert("RGB").resize((width, height)))
found = detect(image=(pixels[None].astype(np.int16) - 128).astype(np.int8))
print("best score:", (int(found["scores"].max()) + 128) / 256)  # codes: decode them with the anchors in model.json
"""


@dataclass(frozen=True, eq=False)
class Integers:
    """Tensors and weights as int8, biases as int32."""

    rounded: Rounded

    def tensor(self, model: Model, name: str, shape: Shape) -> int:
        layer = name if name in self.rounded.scales else name.rpartition("/")[0]  # on the way to the layer's output
        return model.tensor(name, shape, "i1", quantization=quantization(self.rounded.scales[layer]))

    def weights(self, model: Model, layer: deploy.Linear, value: np.ndarray, axis: int) -> int:
        weights = self.rounded.weights[layer.name]
        if isinstance(layer, deploy.Conv):
            values = weights.values.transpose(3, 0, 1, 2)
        elif isinstance(layer, deploy.Depthwise):
            values = weights.values.reshape(value.shape)
        else:
            values = weights.values.T
        zeros = np.zeros(len(weights.scales), np.int64)
        return model.constant(f"{layer.name}/weights", values, Quantization(weights.scales, zeros, axis))

    def bias(self, model: Model, layer: deploy.Linear, channels: int) -> int:
        weights = self.rounded.weights[layer.name]
        scales = np.float32(self.rounded.scales[layer.inputs[0]].scale) * weights.scales
        limit = 2.0**31 - 1
        values = np.clip(np.rint(weights.bias.astype(np.float64) / scales), -limit, limit).astype(np.int32)
        return model.constant(f"{layer.name}/bias", values, Quantization(scales, np.zeros(len(scales), np.int64)))

    def version(self, op: Op) -> int | None:
        return INTEGER_VERSIONS.get(op)


def check(source: Source) -> list[Finding]:
    """Every SSD can be written."""
    return []


def build(source: Source, pictures: Pixels) -> dict[str, bytes]:
    """The model's file; see `network_model`."""
    return {FILE: network_model(source, pictures).to_bytes()}


def network_model(source: Source, pictures: Pixels) -> Model:
    """The file's tensors and operators.

    Args:
        pictures: (N, height, width, 3) uint8, like those of the application.

    Raises:
        ModelError: a layer cannot be written as TensorFlow Lite.
    """
    rounded = rounded_network(source, pictures)
    model = Model(description=source.card.name)
    image = model.tensor(
        "image", (1, *rounded.graph.input_shape), "i1", quantization=quantization(rounded.scales[rounded.graph.input])
    )
    model.inputs = {"image": image}
    codes, scores = add_network(model, source, rounded, image)
    model.outputs = {"codes": codes, "scores": scores}
    return model


def rounded_network(source: Source, pictures: Pixels) -> Rounded:
    """The source's network with 8-bit weights and maps, calibrated on pictures (N, height, width, 3) uint8.

    The last one is kept: several targets are made from it, some again with another threshold.
    """
    if not (_last and _last[0][1] is pictures and _same_network(_last[0][0], source)):
        normalised = pictures.astype(np.float32) * np.float32(INPUT_SCALE) + np.float32(INPUT_OFFSET)
        _last[:] = [(source, pictures, round_network(without_background(source), normalised, Head(source.card)))]
    return _last[0][2]


def _same_network(a: Source, b: Source) -> bool:
    return a.graph is b.graph and a.card.spec is b.card.spec and a.card.anchors_yxyx is b.card.anchors_yxyx


def add_network(model: Model, source: Source, rounded: Rounded, image: int) -> tuple[int, int]:
    """Add the network after its int8 input; returns the tensors of codes (1, A, 4) and scores (1, A, C), int8."""
    graph = rounded.graph
    tensors = {graph.input: image}
    add_layers(model, graph, Integers(rounded), tensors)
    codes, logits = (tensors[name] for name in graph.outputs)
    return codes, _scores(model, source, logits)


def quantization(scale: Scale) -> Quantization:
    """A tensor's single scale, as the file has it."""
    return Quantization(np.array([scale.scale], np.float32), np.array([scale.zero_point], np.int64))


def _scores(model: Model, source: Source, logits: int) -> int:
    converter, classes = source.card.spec.post_processing.score_converter, source.card.spec.num_classes
    shape = (1, len(source.card.anchors_yxyx), classes)
    if converter == "IDENTITY":
        return logits
    scores = model.tensor("scores", shape, "i1", quantization=quantization(SCORE))
    if converter == "SIGMOID":
        model.add(Op.LOGISTIC, [logits], [scores], version=INTEGER_VERSIONS[Op.LOGISTIC])
        return scores
    every = model.tensor("every_score", (*shape[:2], classes + 1), "i1", quantization=quantization(SCORE))
    model.add(Op.SOFTMAX, [logits], [every], [(0, "float32", 1.0)], version=INTEGER_VERSIONS[Op.SOFTMAX])
    limits: Sequence[int] = [
        model.constant(f"scores/{name}", np.array(value, np.int32))
        for name, value in (("begin", [0, 0, 1]), ("end", [*shape[:2], classes + 1]), ("steps", [1, 1, 1]))
    ]
    model.add(Op.STRIDED_SLICE, [every, *limits], [scores], version=_SLICE_VERSION)
    return scores


TFLITE_INT8 = Target(
    "tflite-int8", FILE, "TensorFlow Lite, 8-bit integers only", check, build, run, SNIPPET, calibrated=True
)
