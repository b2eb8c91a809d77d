"""The layer table of the SSD networks on MobileNet v1: the only source of their sizes and names.

The torch network, the frozen graph and the checkpoints are all built from this table.
Sources: MobileNets (arXiv:1704.04861), table 1; SSD (arXiv:1512.02325); the Object Detection API's names.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mirilla.errors import ConfigError
from mirilla.model.anchors import anchors_per_location
from mirilla.model.spec import ModelSpec

# (output channels at multiplier 1, stride of the depthwise convolution) of the 13 separable blocks
BASE_STEM_DEPTH = 32
BASE_BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)

# feature extractor -> (depth, kernel) of the extra maps after Conv2d_13_pointwise
EXTRA_MAPS = {
    "embedded_ssd_mobilenet_v1": ((512, 3), (256, 3), (256, 2)),
    "ssd_mobilenet_v1": ((512, 3), (256, 3), (256, 3), (128, 3)),
}
FIRST_MAPS = ("Conv2d_11_pointwise", "Conv2d_13_pointwise")
MAP_LAYERS = (
    "Conv2d_0",
    *(f"Conv2d_{i}_pointwise" for i in range(1, len(BASE_BLOCKS) + 1)),
)  # candidates for feature maps

VARIABLE_SCOPE = "FeatureExtractor/MobilenetV1"
BASE_OP_SCOPE = "FeatureExtractor/MobilenetV1/MobilenetV1"  # the API repeats the scope for base layers


@dataclass(frozen=True)
class Layer:
    """A convolution with batch norm and ReLU6, SAME padding.

    kind: 'conv' or 'depthwise'. kernel, stride: same in both directions.
    scope: scope of its variables. op_scope: scope of its graph nodes (differs for base layers only).
    input: name of the previous layer, '' for the network's input. height, width: size of its output.
    """

    name: str
    kind: str
    kernel: int
    stride: int
    in_channels: int
    out_channels: int
    input: str
    height: int
    width: int
    is_base: bool

    @property
    def scope(self) -> str:
        return f"{VARIABLE_SCOPE}/{self.name}"

    @property
    def op_scope(self) -> str:
        return f"{BASE_OP_SCOPE}/{self.name}" if self.is_base else self.scope

    @property
    def weights(self) -> str:
        """Name of the kernel's variable."""
        return f"{self.scope}/{'depthwise_weights' if self.kind == 'depthwise' else 'weights'}"

    @property
    def weights_shape(self) -> tuple[int, int, int, int]:
        """The kernel's shape in TensorFlow's layout: HWIO, or HWC1 if depthwise."""
        if self.kind == "depthwise":
            return (self.kernel, self.kernel, self.in_channels, 1)
        return (self.kernel, self.kernel, self.in_channels, self.out_channels)

    def batch_norm(self, name: str) -> str:
        """Name of the variable 'gamma', 'beta', 'moving_mean' or 'moving_variance', each (out_channels,)."""
        return f"{self.scope}/BatchNorm/{name}"


@dataclass(frozen=True)
class Predictor:
    """The two 1x1 convolutions (bias, no batch norm, no activation) on a feature map."""

    index: int
    input: str  # the layer whose output is the feature map
    in_channels: int
    anchors: int  # per location
    height: int
    width: int
    num_classes: int

    @property
    def box_scope(self) -> str:
        return f"BoxPredictor_{self.index}/BoxEncodingPredictor"

    @property
    def class_scope(self) -> str:
        return f"BoxPredictor_{self.index}/ClassPredictor"

    @property
    def box_channels(self) -> int:
        return self.anchors * 4

    @property
    def class_channels(self) -> int:
        return self.anchors * (self.num_classes + 1)


@dataclass(frozen=True)
class Architecture:
    """All layers in the order in which they run, and the predictors in the order of their anchors."""

    layers: tuple[Layer, ...]
    predictors: tuple[Predictor, ...]

    @property
    def feature_map_shapes(self) -> tuple[tuple[int, int], ...]:
        return tuple((p.height, p.width) for p in self.predictors)

    @property
    def parameters(self) -> int:
        """The number of trainable parameters."""
        return sum(math.prod(shape) for _, shape, trainable in self.variables() if trainable)

    @property
    def multiplications(self) -> int:
        """Multiply-accumulate operations of the convolutions per image."""
        layers = (math.prod(e.weights_shape) * e.height * e.width for e in self.layers)
        heads = (p.in_channels * (p.box_channels + p.class_channels) * p.height * p.width for p in self.predictors)
        return sum(layers) + sum(heads)

    def variables(self) -> Iterator[tuple[str, tuple[int, ...], bool]]:
        """(name, shape in TensorFlow's layout, trainable) of every variable."""
        for layer in self.layers:
            yield layer.weights, layer.weights_shape, True
            for name in ("gamma", "beta"):
                yield layer.batch_norm(name), (layer.out_channels,), True
            for name in ("moving_mean", "moving_variance"):
                yield layer.batch_norm(name), (layer.out_channels,), False
        for predictor in self.predictors:
            for scope, channels in (
                (predictor.box_scope, predictor.box_channels),
                (predictor.class_scope, predictor.class_channels),
            ):
                yield f"{scope}/weights", (1, 1, predictor.in_channels, channels), True
                yield f"{scope}/biases", (channels,), True


def architecture(spec: ModelSpec) -> Architecture:
    """The layer table of a spec.

    Raises:
        ConfigError: the feature extractor is unknown, the input is too small, feature maps are unknown or out of
            order, or the anchors are for another number of feature maps.
    """
    if spec.feature_extractor not in EXTRA_MAPS:
        raise ConfigError(
            f"Unknown feature_extractor.type '{spec.feature_extractor}'.",
            f"Choose from: {', '.join(EXTRA_MAPS)}.",
        )
    if min(spec.height_px, spec.width_px) < 32:
        raise ConfigError(
            f"The input of {spec.height_px}x{spec.width_px} pixels is smaller than 32x32, the minimum for a network "
            "that halves it five times.",
            "Set a larger image_resizer.",
        )
    layers = [*_base_layers(spec)]
    layers += _extra_layers(spec, layers[-1])
    by_name = {layer.name: layer for layer in layers}
    extra_maps = [layer.name for layer in layers if not layer.is_base and "_2_Conv2d_" in layer.name]
    maps = [by_name[name] for name in (*first_maps(spec.feature_maps), *extra_maps)]
    if spec.anchors.num_layers != len(maps):
        raise ConfigError(
            f"The anchor generator has {spec.anchors.num_layers} feature maps (num_layers), but "
            f"{spec.feature_extractor} has {len(maps)}.",
            f"Set num_layers: {len(maps)}.",
        )
    per_location = anchors_per_location(spec.anchors)
    predictors = tuple(
        Predictor(i, layer.name, layer.out_channels, per_location[i], layer.height, layer.width, spec.num_classes)
        for i, layer in enumerate(maps)
    )
    return Architecture(tuple(layers), predictors)


def first_maps(names: Sequence[str]) -> tuple[str, ...]:
    """The base layers that get predictors: `names`, or FIRST_MAPS if empty.

    Raises:
        ConfigError: a name is unknown, or the order is wrong.
    """
    for name in names:
        if name not in MAP_LAYERS:
            raise ConfigError(
                f"Unknown feature map '{name}'.",
                f"Choose from: {', '.join(MAP_LAYERS)}.",
            )
    indices = [MAP_LAYERS.index(name) for name in names]
    if any(a >= b for a, b in itertools.pairwise(indices)):
        raise ConfigError(
            f"The feature maps {', '.join(names)} are not in the network's order, finest first.",
            f"Write {', '.join(MAP_LAYERS[i] for i in sorted(set(indices)))}.",
        )
    return tuple(names) or FIRST_MAPS


def map_stride(name: str) -> int:
    """Output stride of a layer of MAP_LAYERS, in pixels of the network's input."""
    return math.prod(stride for _, stride in BASE_BLOCKS[: MAP_LAYERS.index(name)]) * 2


def depth(channels: float, spec: ModelSpec) -> int:
    """Channels of a layer that has `channels` at depth multiplier 1."""
    return max(int(channels * spec.depth_multiplier), spec.min_depth)


def _base_layers(spec: ModelSpec) -> Iterator[Layer]:
    height, width = _half(spec.height_px), _half(spec.width_px)
    last = Layer("Conv2d_0", "conv", 3, 2, 3, depth(BASE_STEM_DEPTH, spec), "", height, width, True)
    yield last
    for i, (channels, stride) in enumerate(BASE_BLOCKS, start=1):
        if stride == 2:
            height, width = _half(height), _half(width)
        inner = last.out_channels
        last = Layer(f"Conv2d_{i}_depthwise", "depthwise", 3, stride, inner, inner, last.name, height, width, True)
        yield last
        last = Layer(
            f"Conv2d_{i}_pointwise", "conv", 1, 1, inner, depth(channels, spec), last.name, height, width, True
        )
        yield last


def _extra_layers(spec: ModelSpec, last: Layer) -> Iterator[Layer]:
    base = last.name
    for i, (channels, kernel) in enumerate(EXTRA_MAPS[spec.feature_extractor], start=2):
        inner, outer = depth(channels / 2, spec), depth(channels, spec)
        last = Layer(
            f"{base}_1_Conv2d_{i}_1x1_{inner}",
            "conv",
            1,
            1,
            last.out_channels,
            inner,
            last.name,
            last.height,
            last.width,
            False,
        )
        yield last
        if spec.feature_extractor == "embedded_ssd_mobilenet_v1":
            # the bonnet cannot run a kernel larger than its map; ssd_mobilenet_v1 ends with 3x3 on 2x2 regardless
            kernel = min(kernel, last.height, last.width)
        last = Layer(
            f"{base}_2_Conv2d_{i}_{kernel}x{kernel}_s2_{outer}",
            "conv",
            kernel,
            2,
            inner,
            outer,
            last.name,
            _half(last.height),
            _half(last.width),
            False,
        )
        yield last


def _half(size: int) -> int:
    """Output size of a stride-2 convolution with SAME padding."""
    return -(-size // 2)
