"""An ONNX file with the maps of each head as its outputs: nothing in it but convolutions.

Input `image` (1, 3, height, width) float32, normalised: (pixel - 127.5) / 127.5. Outputs `codes_0`, `codes_1`, ... and
`logits_0`, `logits_1`, ..., (1, channels, rows, columns): one pair a map, so that a compiler gives each its own scale.
Beside it lie pictures for its calibration, a decoder in numpy and the vendors' commands.
"""

from __future__ import annotations

import io
from importlib.resources import files
from pathlib import Path

import numpy as np

from mirilla.errors import ModelError
from mirilla.findings import ERROR, Finding
from mirilla.graph import deploy
from mirilla.graph.deploy import DeployGraph
from mirilla.model.card import ModelCard
from mirilla.targets.onnx_file import finished, session_of
from mirilla.targets.onnx_graph import OnnxBuilder
from mirilla.targets.target import Codes, Floats, Network, Pixels, Source, Target

FILE, CALIBRATION, DECODER, VENDORS = "model_heads.onnx", "calib.npy", "decode.py", "vendors.md"
INPUT = "image"
OPSET, IR_VERSION = 13, 7  # what every vendor's compiler reads
SNIPPET = """\
import numpy as np, onnxruntime
from PIL import Image
from decode import Decoder

session = onnxruntime.InferenceSession("model_heads.onnx")
_, _, height, width = session.get_inputs()[0].shape
pixels = np.asarray(Image.open("photo.jpg").convert("RGB").resize((width, height)), np.float32)
outputs = session.run(None, {"image": (pixels.transpose(2, 0, 1)[None] - 127.5) / 127.5})
for label, score, box in Decoder("model.json")(outputs, threshold=0.3):
    print(label, score, box)  # boxes are yxyx, 0 to 1
"""


def check(source: Source) -> list[Finding]:
    """Whether the outputs are those of heads: convolutions, reshaped and joined."""
    try:
        heads(source.graph)
    except ModelError as error:
        return [Finding(ERROR, "onnx-heads", source.card.name, error.what, error.remedy or "")]
    return []


def build(source: Source, pictures: Pixels) -> dict[str, bytes]:
    """The model's file, pictures for calibration, the decoder and the vendors' commands.

    Raises:
        ModelError: the model has no heads.
    """
    rows, columns, channels = source.graph.input_shape
    builder = OnnxBuilder(source.graph, opset=OPSET, ir_version=IR_VERSION)
    builder.planar[source.graph.input] = builder.input(INPUT, (channels, rows, columns))
    builder.add_layers(until=heads(source.graph))
    names = output_names(source.graph)
    for name, layer in names.items():
        height, width, depth = source.graph.shape_of(layer)
        builder.output(name, builder.as_planar(layer), (depth, height, width))
    builder.fix_batch()
    calibration = io.BytesIO()
    np.save(calibration, pictures)
    text = files("mirilla.targets.heads").joinpath(VENDORS).read_text("utf-8")
    return {
        FILE: finished(builder, source.card),
        CALIBRATION: calibration.getvalue(),
        DECODER: files("mirilla.targets.heads").joinpath(DECODER).read_bytes(),
        VENDORS: text.replace("{outputs}", " ".join(names)).replace("{size}", f"[1, 3, {rows}, {columns}]").encode(),
    }


def heads(graph: DeployGraph) -> list[str]:
    """The layers whose maps become the outputs: those of the box codes, then those of the logits.

    Raises:
        ModelError: an output is not made of maps.
    """
    return [name for output in graph.outputs for name in _maps(graph, output)]


def output_names(graph: DeployGraph) -> dict[str, str]:
    """{name of an output: the layer that makes its map}, in the file's order."""
    names = {}
    for kind, output in zip(("codes", "logits"), graph.outputs, strict=True):
        names |= {f"{kind}_{i}": layer for i, layer in enumerate(_maps(graph, output))}
    return names


def _maps(graph: DeployGraph, name: str) -> list[str]:
    layer = None if name == graph.input else graph.layer(name)
    if isinstance(layer, deploy.Concat) and layer.axis == 1:
        return [one for part in layer.inputs for one in _maps(graph, part)]
    if isinstance(layer, deploy.Reshape):
        return _maps(graph, layer.inputs[0])
    if layer is None or len(layer.shape) != 3 or not isinstance(layer, (deploy.Conv, deploy.Depthwise)):
        raise ModelError(
            f"The output '{name}' is not a convolution's map.",
            "Export a detector whose boxes and scores come from convolutions, as an SSD's do.",
        )
    return [name]


def run(path: Path, card: ModelCard) -> Network:
    """The file in onnxruntime; see `onnx_file.session_of`."""
    session = session_of(path)
    half = len(session.get_outputs()) // 2

    def network(pictures: Floats) -> Codes:
        found = []
        for picture in pictures:
            maps = [
                np.asarray(one).transpose(0, 2, 3, 1)
                for one in session.run(None, {INPUT: np.ascontiguousarray(picture.transpose(2, 0, 1)[None])})
            ]
            codes = np.concatenate([one.reshape(1, -1, 4) for one in maps[:half]], 1)
            logits = np.concatenate([one.reshape(1, -1, 1 + card.spec.num_classes) for one in maps[half:]], 1)
            found.append((codes, logits))
        codes, logits = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        return Codes(codes, logits)

    return network


ONNX_HEADS = Target(
    "onnx-heads",
    FILE,
    "ONNX with each head's maps, for the compilers of Hailo, IMX500, RKNN and ESP-DL",
    check,
    build,
    run,
    SNIPPET,
    calibrated=True,
)
