"""Models that clients have loaded, and inference on a picture."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from mirilla.bonnet import format
from mirilla.bonnet.run import CompiledModel, Limits, normalise
from mirilla.bonnet.run_ops import Floats
from mirilla.emulator import sparse
from mirilla.emulator.camera import Picture
from mirilla.protos.kit_pb2 import FloatTensor, InferenceResult, LoadModel, Rectangle, SparseConfig, TensorShape, Tuple
from mirilla.resize import bilinear

BUILT_IN = ("FaceDetection", "DishDetection")  # names of the firmware's built-in models
MAX_NAME = 256
MAX_MODEL_BYTES = 24 << 20  # the largest of the kit's own models has about 11 MB
MAX_SIDE_PX = 2048
# A tensor must fit into the Bonnet's memory. As the meaning of the second size in every file (twice the arena) is
# unknown, a tensor may have twice the elements that fit into the arena.
LIMITS = Limits(tensor_elements=format.ARENA_BYTES, live_elements=4 * format.ARENA_BYTES, multiplications=4 * 10**9)


class RequestError(Exception):
    """The request fails; the text becomes the message of the response's error status."""


@dataclass(frozen=True)
class LoadedModel:
    """A model with the input size and normalisation that the client gave."""

    model: CompiledModel
    height: int
    width: int
    mean: float
    stddev: float

    def output_shapes(self) -> dict[str, tuple[int, int, int]]:
        """{output: (rows, columns, depth)}."""
        shapes = self.model.program(self.height, self.width).shapes
        return {name: shapes[name] for name in self.model.output_names}

    def run(self, picture: Picture) -> dict[str, Floats]:
        """{output: (rows, columns, depth)} of a picture of any size."""
        pixels = normalise(bilinear(picture, self.height, self.width), self.mean, self.stddev)
        return {name: output[0] for name, output in self.model.run(pixels[None]).items()}


def load_model(request: LoadModel, fp16_activations: bool) -> LoadedModel:
    """Check a request and prepare its model.

    Raises:
        RequestError: the name, the input or the normalisation is invalid, or the model is too large.
        ModelError: the graph is not a compiled model, does not fit the input size, or exceeds `LIMITS`.
    """
    shape, normaliser = request.input_shape, request.input_normalizer
    check_name(request.model_name)
    if shape.batch != 1 or shape.depth != 3:
        raise RequestError(f"An input of batch {shape.batch} and depth {shape.depth}; the rule is 1 and 3.")
    if not (0 < shape.height <= MAX_SIDE_PX and 0 < shape.width <= MAX_SIDE_PX):
        raise RequestError(f"An input of {shape.height}x{shape.width}; sides are 1 to {MAX_SIDE_PX} pixels.")
    if not (math.isfinite(normaliser.mean) and math.isfinite(normaliser.stddev)) or normaliser.stddev == 0:
        raise RequestError(f"Cannot normalise the input with mean {normaliser.mean} and stddev {normaliser.stddev}.")
    if len(request.compute_graph) > MAX_MODEL_BYTES:
        raise RequestError(f"A model of {len(request.compute_graph)} bytes; at most {MAX_MODEL_BYTES} are allowed.")
    model = CompiledModel.parse(
        request.compute_graph,
        f"Model '{request.model_name}'",
        fp16_activations=fp16_activations,
        input_size=(shape.height, shape.width),
        limits=LIMITS,
    )
    model.program(shape.height, shape.width)  # raises if an op does not fit
    return LoadedModel(model, shape.height, shape.width, normaliser.mean, normaliser.stddev)


def check_name(name: str) -> None:
    """Raise RequestError if a model cannot be loaded under this name."""
    if not name:
        raise RequestError("The model has no name.")
    if len(name) > MAX_NAME:
        raise RequestError(f"The model's name has {len(name)} characters; the rule is at most {MAX_NAME}.")
    check_not_built_in(name)


def check_not_built_in(name: str) -> None:
    """Raise RequestError for the names of the firmware's built-in models."""
    if name in BUILT_IN:
        raise RequestError(
            f"The firmware has a built-in model named '{name}' and ignores the graph that is sent under this name. "
            "The emulator does not have the built-in model. Give your model another name."
        )


def infer(
    name: str,
    loaded: LoadedModel,
    picture: Picture,
    window: tuple[int, int, int, int] | None,
    sparse_configs: Mapping[str, SparseConfig],
) -> InferenceResult:
    """Run a model on a picture, or on a window of it.

    Args:
        window: x, y, width and height in pixels; None for the whole picture.

    Raises:
        RequestError: the window does not lie inside the picture.
        ValueError: a sparse config does not fit its output.
    """
    height, width = picture.shape[:2]
    x, y, window_width, window_height = window or (0, 0, width, height)
    right, bottom = x + window_width, y + window_height
    if not (0 <= x < right <= width and 0 <= y < bottom <= height):
        raise RequestError(f"Window {window} is not inside a {width}x{height} picture.")
    start_s = time.monotonic()
    outputs = loaded.run(picture[y:bottom, x:right])
    duration_s = time.monotonic() - start_s
    selected = sparse.to_sparse(outputs, sparse_configs)
    return InferenceResult(
        model_name=name,
        width=width,
        height=height,
        window=Rectangle(x=x, y=y, width=window_width, height=window_height),
        duration_ms=max(1, round(duration_s * 1000)),
        tensors={output: _tensor(values, selected.get(output)) for output, values in outputs.items()},
    )


def _tensor(values: Floats, selected: sparse.Sparse | None) -> FloatTensor:
    """The message of an output; `selected` replaces the values, but the shape stays that of the dense tensor."""
    height, width, depth = values.shape
    shape = TensorShape(batch=1, height=height, width=width, depth=depth)
    if selected is None:
        return FloatTensor(shape=shape, data=values.reshape(-1).tolist())
    kept, indices = selected
    return FloatTensor(shape=shape, data=kept.tolist(), indices=[Tuple(values=index) for index in indices.tolist()])
