"""ncnn: a text file of layers and a binary file of weights, for phones and single-board computers.

Formats: ncnn's wiki, "param and model file structure" and "operation param weight table". Maps are planar (channels,
rows, columns) as in ncnn. What a Reshape, a product or an output reads is interleaved first and becomes a matrix with
the last axis in its rows, so that outputs have the deploy graph's order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

import numpy as np

from mirilla.errors import MissingExtraError, ModelError
from mirilla.findings import ERROR, Finding
from mirilla.graph import deploy
from mirilla.graph.deploy import DeployGraph
from mirilla.model.box_coder import centre_size
from mirilla.model.card import ModelCard
from mirilla.padding import SAME, same_padding
from mirilla.targets.target import Candidates, Floats, Network, Pixels, Source, Target

FILE, WEIGHTS_FILE = "model.param", "model.bin"
IMAGE, BOXES, SCORES = "image", "boxes", "scores"
SNIPPET = """\
import json, ncnn, numpy as np, PIL.Image as Image
size = json.load(open("model.json"))["input"]
net = ncnn.Net()
net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = net.opt.use_bf16_storage = False  # they move the boxes
net.load_param("model.param"), net.load_model("model.bin")
photo = Image.open("photo.jpg").convert("RGB").resize((size["width"], size["height"]))
image = np.ascontiguousarray(np.asarray(photo, np.float32).transpose(2, 0, 1)) / 127.5 - 1
(extractor := net.create_extractor()).input("image", ncnn.Mat(image))
boxes, scores = (np.array(extractor.extract(name)[1]) for name in ("boxes", "scores"))  # boxes are yxyx, 0 to 1
print(scores.max(), boxes[scores.max(1).argmax()])
"""
_MAGIC = "7767517"
_FLOAT32 = bytes(4)  # the tag before weights that are stored as they are
_SAME_UPPER = -233
_ARRAY = -23300  # minus the number of a parameter with several values
_ACTIVATIONS: dict[str | None, dict[int, object]] = {
    deploy.RELU: {9: 1},
    deploy.RELU6: {9: 3, 10: (0.0, 6.0)},
    deploy.SIGMOID: {9: 4},
    None: {},
}
_LAYERS: dict[str, tuple[str, dict[int, object]]] = {
    deploy.RELU: ("ReLU", {}),
    deploy.RELU6: ("Clip", {0: 0.0, 1: 6.0}),
    deploy.SIGMOID: ("Sigmoid", {}),
}
_INTERLEAVE = 3  # of Permute: (columns, rows, channels), innermost first, becomes (channels, columns, rows)
_PLANAR_AXIS = {1: 1, 2: 2, 3: 0}  # the deploy graph's axis of a map -> that of ncnn, outermost first
_ADD, _SUBTRACT, _MULTIPLY, _EXP = 0, 1, 2, 7  # of BinaryOp and UnaryOp
_ROWS, _COLUMNS = 0, 1  # axes of a matrix


def check(source: Source) -> list[Finding]:
    """What cannot be written for ncnn."""
    found = []
    for layer in source.graph.layers:
        is_known = hasattr(NcnnWriter, f"_{layer.op}")
        joins_batch = (
            isinstance(layer, deploy.Concat) and len(layer.shape) < 3 and layer.axis not in (1, len(layer.shape))
        )
        if not is_known or joins_batch:
            what = f"The layer '{layer.name}' ({layer.op}) cannot be written for ncnn."
            found.append(Finding(ERROR, "ncnn", layer.name, what, "Simplify the graph first."))
    return found


def build(source: Source, pictures: Pixels) -> dict[str, bytes]:
    """The file of layers and the file of weights.

    Raises:
        ModelError: a layer cannot be written for ncnn.
    """
    if findings := check(source):
        raise ModelError(findings[0].what, findings[0].remedy)
    writer = NcnnWriter(source.graph)
    writer.decode(source.card)
    return {FILE: writer.text().encode(), WEIGHTS_FILE: bytes(writer.weights)}


class NcnnWriter:
    """Writes the layers of a deploy graph; more can be added.

    weights: the second file.
    planar, matrices: name of a tensor of the deploy graph -> ncnn's blob with the map, or with the matrix.
    """

    def __init__(self, graph: DeployGraph):
        self.graph = graph
        self.weights = bytearray()
        self._lines: list[tuple[str, list[str], list[str], Mapping[int, object]]] = []
        rows, columns, channels = graph.input_shape
        self.planar = {graph.input: IMAGE}
        self.matrices: dict[str, str] = {}
        self.add("Input", IMAGE, [], {0: columns, 1: rows, 2: channels})
        for layer in graph.layers:
            getattr(self, f"_{layer.op}")(layer)

    def text(self) -> str:
        """The file of layers; a blob that several layers read goes through a Split."""
        readers = Counter(blob for _, inputs, _, _ in self._lines for blob in inputs)
        left = {blob: [f"{blob}:{i}" for i in range(count)] for blob, count in readers.items() if count > 1}
        lines = []
        for kind, inputs, outputs, values in self._lines:
            inputs = [left[blob].pop(0) if blob in left else blob for blob in inputs]
            lines.append(_line(kind, outputs[0], inputs, outputs, values))
            for blob in outputs:
                if blob in left:
                    lines.append(_line("Split", f"{blob}/split", [blob], left[blob], {}))
        blobs = sum(int(line.split()[3]) for line in lines)
        return "\n".join([_MAGIC, f"{len(lines)} {blobs}", *lines, ""])

    def add(self, kind: str, name: str, inputs: Sequence[str], values: Mapping[int, object], *more: str) -> str:
        """Add a layer with outputs `name` and `more`; returns `name`."""
        self._lines.append((kind, list(inputs), [name, *more], values))
        return name

    def matrix(self, name: str) -> str:
        """The blob with a tensor of the deploy graph as a matrix."""
        if name not in self.matrices:
            shape = self.graph.shape_of(name)
            interleaved = self.add("Permute", f"{name}/interleaved", [self.planar[name]], {0: _INTERLEAVE})
            self.matrices[name] = self._reshaped(f"{name}/matrix", interleaved, shape)
        return self.matrices[name]

    def map(self, name: str) -> str:
        """The blob with a tensor of the deploy graph as a planar map."""
        if name not in self.planar:
            rows, columns, depth = deploy.view(self.graph.shape_of(name))
            values = {0: depth, 1: columns, 2: rows}
            shaped = self.add("Reshape", f"{name}/map", [self.matrices[name]], values)
            self.planar[name] = self.add("Permute", f"{name}/planar", [shaped], {0: 4})
        return self.planar[name]

    def constant(self, name: str, value: np.ndarray) -> str:
        """The blob with a matrix (rows, columns)."""
        self.weights += value.astype("<f4").tobytes()
        return self.add("MemoryData", name, [], {0: value.shape[1], 1: value.shape[0]})

    def decode(self, card: ModelCard) -> None:
        """Add the box decoder and the score converter."""
        coder, classes = card.spec.box_coder, card.spec.num_classes
        y, x, height, width = (side.astype(np.float32) for side in centre_size(card.anchors_yxyx))
        sizes, centres = np.stack([height, width], -1), np.stack([y, x], -1)
        scales = np.array([coder.y_scale, coder.x_scale], np.float32)
        inverse_scales = 1 / np.array([[coder.height_scale, coder.width_scale]], np.float32)
        codes, logits = (self.matrix(name) for name in self.graph.outputs)
        self.add("Slice", "decode/offsets", [codes], {0: (2, 2), 1: _COLUMNS}, "decode/logarithms")

        def apply(op: int, name: str, *inputs: str) -> str:
            return self.add("BinaryOp", f"decode/{name}", inputs, {0: op})

        moved = apply(_MULTIPLY, "moved", "decode/offsets", self.constant("decode/sizes", sizes / scales))
        centre = apply(_ADD, "centre", moved, self.constant("decode/centres", centres))
        every = np.repeat(inverse_scales, len(sizes), 0)
        scaled = apply(_MULTIPLY, "scaled", "decode/logarithms", self.constant("decode/scales", every))
        ratio = self.add("UnaryOp", "decode/ratio", [scaled], {0: _EXP})
        half = apply(_MULTIPLY, "half", ratio, self.constant("decode/halves", sizes / 2))
        low, high = apply(_SUBTRACT, "low", centre, half), apply(_ADD, "high", centre, half)
        self.add("Concat", BOXES, [low, high], {0: _COLUMNS})

        converter = card.spec.post_processing.score_converter
        if converter == "SOFTMAX":
            logits = self.add("Softmax", "decode/softmax", [logits], {0: _COLUMNS, 1: 1})
        last = "decode/foreground" if converter == "SIGMOID" else SCORES
        self.add("Slice", "decode/background", [logits], {0: (1, classes), 1: _COLUMNS}, last)
        if converter == "SIGMOID":
            self.add("Sigmoid", SCORES, [last], {})

    def _conv(self, layer: deploy.Conv) -> None:
        self._convolution("Convolution", layer, layer.weights.transpose(3, 2, 0, 1), {})

    def _depthwise(self, layer: deploy.Depthwise) -> None:
        channels = layer.weights.shape[2]
        self._convolution("ConvolutionDepthWise", layer, layer.weights.transpose(2, 3, 0, 1), {7: channels})

    def _convolution(
        self, kind: str, layer: deploy.Conv | deploy.Depthwise, weights: np.ndarray, values: dict[int, object]
    ) -> None:
        height, width = layer.weights.shape[:2]
        padding = _SAME_UPPER if layer.padding == SAME else 0
        values = {
            0: layer.shape[-1],
            1: width,
            11: height,
            3: layer.strides[1],
            13: layer.strides[0],
            4: padding,
            **values,
        }
        values |= self._linear(layer, weights) | _ACTIVATIONS[layer.activation]
        self.planar[layer.name] = self.add(kind, layer.name, [self.map(layer.inputs[0])], values)

    def _gemm(self, layer: deploy.Gemm) -> None:
        flat = self.add("Flatten", f"{layer.name}/flat", [self.matrix(layer.inputs[0])], {})
        values = {0: layer.weights.shape[1], **self._linear(layer, layer.weights.T), **_ACTIVATIONS[layer.activation]}
        made = self.add("InnerProduct", f"{layer.name}/product", [flat], values)
        self.matrices[layer.name] = self._reshaped(layer.name, made, layer.shape)

    def _linear(self, layer: deploy.Linear, weights: np.ndarray) -> dict[int, object]:
        """Write weights and bias; returns the parameters about them."""
        is_product = isinstance(layer, deploy.Gemm)
        self.weights += _FLOAT32 + weights.astype("<f4").tobytes()
        if layer.bias is not None:
            self.weights += layer.bias.astype("<f4").tobytes()
        bias, size = (1, 2) if is_product else (5, 6)
        return {bias: int(layer.bias is not None), size: weights.size}

    def _pool(self, layer: deploy.Pool) -> None:
        values = {0: int(layer.kind == "average"), 1: layer.window[1], 11: layer.window[0]}
        values |= {2: layer.strides[1], 12: layer.strides[0], 5: 1}
        if layer.padding == SAME:  # ncnn's own SAME would count the zeros
            rows, columns, _ = deploy.view(self.graph.shape_of(layer.inputs[0]))
            values[13], values[15] = same_padding(rows, layer.window[0], layer.strides[0])
            values[3], values[14] = same_padding(columns, layer.window[1], layer.strides[1])
        self.planar[layer.name] = self.add("Pooling", layer.name, [self.map(layer.inputs[0])], values)

    def _pad(self, layer: deploy.Pad) -> None:
        (top, bottom), (left, right) = layer.pads
        values = {0: top, 1: bottom, 2: left, 3: right}
        self.planar[layer.name] = self.add("Padding", layer.name, [self.map(layer.inputs[0])], values)

    def _reshape(self, layer: deploy.Reshape) -> None:
        self.matrices[layer.name] = self._reshaped(layer.name, self.matrix(layer.inputs[0]), layer.shape)

    def _reshaped(self, name: str, blob: str, shape: deploy.Shape) -> str:
        columns = shape[-1] if shape else 1
        return self.add("Reshape", name, [blob], {0: columns, 1: deploy.elements(shape) // columns})

    def _concat(self, layer: deploy.Concat) -> None:
        if all(name in self.planar for name in layer.inputs):
            blobs, axis = [self.planar[name] for name in layer.inputs], _PLANAR_AXIS[layer.axis]
            self.planar[layer.name] = self.add("Concat", layer.name, blobs, {0: axis})
        else:
            axis = _COLUMNS if layer.axis == len(layer.shape) else _ROWS
            blobs = [self.matrix(name) for name in layer.inputs]
            self.matrices[layer.name] = self.add("Concat", layer.name, blobs, {0: axis})

    def _add(self, layer: deploy.Add) -> None:
        is_planar = all(name in self.planar for name in layer.inputs)
        blobs = [self.planar[name] if is_planar else self.matrix(name) for name in layer.inputs]
        kept = self.planar if is_planar else self.matrices
        if layer.activation is None:
            kept[layer.name] = self.add("BinaryOp", layer.name, blobs, {0: _ADD})
        else:
            made = self.add("BinaryOp", f"{layer.name}/sum", blobs, {0: _ADD})
            kept[layer.name] = self.add(_LAYERS[layer.activation][0], layer.name, [made], _LAYERS[layer.activation][1])

    def _activation(self, layer: deploy.Activation) -> None:
        kept = self.planar if layer.inputs[0] in self.planar else self.matrices
        kind, values = _LAYERS[layer.kind]
        kept[layer.name] = self.add(kind, layer.name, [kept[layer.inputs[0]]], values)

    def _softmax(self, layer: deploy.Softmax) -> None:
        made = self.add("Softmax", layer.name, [self.matrix(layer.inputs[0])], {0: _COLUMNS, 1: 1})
        self.matrices[layer.name] = made


def _line(kind: str, name: str, inputs: Sequence[str], outputs: Sequence[str], values: Mapping[int, object]) -> str:
    words = [kind, name, str(len(inputs)), str(len(outputs)), *inputs, *outputs]
    for key, value in sorted(values.items()):
        if isinstance(value, tuple):
            words.append(f"{_ARRAY - key}={len(value)}," + ",".join(str(one) for one in value))
        else:
            words.append(f"{key}={value}")
    return " ".join(words)


def run(path: Path, card: ModelCard) -> Network:
    """The files in ncnn, on one thread.

    Raises:
        MissingExtraError: ncnn is not installed.
        ModelError: ncnn refuses the files.
    """
    try:
        ncnn = import_module("ncnn")  # without types
    except ImportError as error:
        raise MissingExtraError("ncnn", "ncnn", "Running a file for ncnn") from error
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.use_fp16_storage = net.opt.use_fp16_packed = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    if net.load_param(str(path)) or net.load_model(str(path.with_name(WEIGHTS_FILE))):
        raise ModelError(f"{path}: ncnn refuses the file, or {WEIGHTS_FILE} beside it.", "Export the model again.")

    def network(pictures: Floats) -> Candidates:
        found: dict[str, list[np.ndarray]] = {BOXES: [], SCORES: []}
        for picture in pictures:
            extractor = net.create_extractor()
            planar = np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32)  # the Mat does not keep it alive
            extractor.input(IMAGE, ncnn.Mat(planar))
            for name, results in found.items():
                results.append(np.array(extractor.extract(name)[1]))
        return Candidates(np.stack(found[BOXES]), np.stack(found[SCORES]))

    return network


NCNN = Target("ncnn", FILE, "ncnn, float32, decoded boxes: phones, single-board computers", check, build, run, SNIPPET)
