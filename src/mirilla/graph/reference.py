"""Run a deploy graph in numpy, float32: the reference that every target is compared with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mirilla.errors import ModelError
from mirilla.graph import deploy, numpy_ops
from mirilla.graph.deploy import DeployGraph, Layer, Shape

Step = Callable[..., np.ndarray]


class Runner:
    """A deploy graph that is ready to run; its weights are prepared once.

    >>> runner = Runner(graph)                                # doctest: +SKIP
    >>> runner(pictures)["concat"].shape                      # doctest: +SKIP
    (8, 1278, 1, 4)
    """

    def __init__(self, graph: DeployGraph):
        self.graph = graph
        shapes: dict[str, Shape] = {graph.input: graph.input_shape}
        last_reader = {name: index for index, layer in enumerate(graph.layers) for name in layer.inputs}
        self._steps: list[tuple[Layer, Step, list[str]]] = []
        for index, layer in enumerate(graph.layers):
            unused = [
                name for name in dict.fromkeys(layer.inputs) if last_reader[name] == index and name not in graph.outputs
            ]
            self._steps.append((layer, _step(layer, [shapes[name] for name in layer.inputs]), unused))
            shapes[layer.name] = layer.shape

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run images through the network.

        Args:
            images: (N, rows, columns, channels), or a single image without N; values as at the input tensor.

        Returns:
            {output: float32 (N, *shape)} in the order of the graph's outputs.

        Raises:
            ModelError: the images do not have the shape of the graph's input.
        """
        images = np.asarray(images)
        if images.ndim == 3:
            images = images[None]
        if images.ndim != 4 or images.shape[1:] != self.graph.input_shape:
            raise ModelError(
                f"The network takes pictures of shape {self.graph.input_shape} (rows, columns, channels), "
                f"but these have the shape {images.shape}.",
                "Resize them to the network's input.",
            )
        found = {
            name: np.empty((len(images), *shape), np.float32)
            for name, shape in zip(self.graph.outputs, self.graph.output_shapes, strict=True)
        }
        for number, image in enumerate(images):
            tensors = self.activations(image, keep=False)
            for name, array in found.items():
                array[number] = tensors[name].reshape(array.shape[1:])
        return found

    def activations(
        self,
        image: np.ndarray,
        keep: bool = True,
        store: Callable[[str, np.ndarray], np.ndarray] = lambda name, value: value,
    ) -> dict[str, np.ndarray]:
        """Outputs of every layer for an image (rows, columns, channels); only the graph's outputs unless `keep`.

        Args:
            store: what is kept of a layer's output, and read by the next layers: the output rounded to integers, say.
        """
        tensors = {self.graph.input: np.ascontiguousarray(image, np.float32)}
        for layer, step, unused in self._steps:
            tensors[layer.name] = store(layer.name, step(*[tensors[name] for name in layer.inputs]))
            if not keep:
                for name in unused:
                    del tensors[name]
        return tensors


def run(graph: DeployGraph, images: np.ndarray) -> dict[str, np.ndarray]:
    """Run images through a deploy graph once; for repeated runs use a `Runner`."""
    return Runner(graph)(images)


def activate(x: np.ndarray, kind: str | None) -> np.ndarray:
    """Apply an activation, in place if possible."""
    if kind == deploy.RELU6:
        return np.clip(x, 0, 6, out=x)
    if kind == deploy.RELU:
        return np.maximum(x, 0, out=x)
    if kind == deploy.SIGMOID:
        with np.errstate(over="ignore"):
            return (1 / (1 + np.exp(-x))).astype(np.float32)
    return x


def softmax(x: np.ndarray) -> np.ndarray:
    """Softmax over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _step(layer: Layer, shapes: list[Shape]) -> Step:
    """The function that computes a layer."""
    if isinstance(layer, deploy.Linear):
        linear = _linear(layer, shapes[0])
        return lambda x: activate(linear(x), layer.activation)
    if isinstance(layer, deploy.Activation):
        return lambda x: activate(x.copy(), layer.kind)
    if isinstance(layer, deploy.Pool):
        pool = numpy_ops.pool(deploy.view(shapes[0]), layer.window, layer.strides, layer.padding, layer.kind)
        return lambda x: pool(x).reshape(layer.shape)
    if isinstance(layer, deploy.Pad):
        return lambda x: numpy_ops.padded(x, *layer.pads)
    if isinstance(layer, deploy.Reshape):
        return lambda x: x.reshape(layer.shape)
    if isinstance(layer, deploy.Concat):
        return lambda *parts: np.concatenate(parts, layer.axis - 1)
    if isinstance(layer, deploy.Add):
        return lambda x, y: activate(x + y, layer.activation)
    if isinstance(layer, deploy.Softmax):
        return softmax
    raise ModelError(f"The layer '{layer.name}' ({layer.op}) cannot be run here.", "Simplify the graph first.")


def _linear(layer: deploy.Linear, shape: Shape) -> Step:
    if isinstance(layer, deploy.Conv):
        return numpy_ops.conv(deploy.view(shape), layer.weights, layer.bias, layer.strides, layer.padding)
    if isinstance(layer, deploy.Depthwise):
        return numpy_ops.depthwise(deploy.view(shape), layer.weights, layer.bias, layer.strides, layer.padding)
    matrix = np.ascontiguousarray(layer.weights)
    bias = np.float32(0) if layer.bias is None else layer.bias
    return lambda x: x.reshape(-1) @ matrix + bias
