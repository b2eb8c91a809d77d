"""The layout pass: insert pads and reorders around the convolutions that run on planar (bdrc) tensors.

The first convolution reads and writes planar tensors. A 3x3 depthwise convolution of stride 1 on a large map runs on
a planar tensor with a border, in place. Everything else reads interleaved (brcd) tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mirilla.bonnet import format as bf
from mirilla.bonnet.lower import LoweredOp, Lowering
from mirilla.findings import INFERRED, breach
from mirilla.graph import deploy
from mirilla.graph.deploy import Layer
from mirilla.padding import SAME

# Sides of a map: known files use the planar kernel from 28 on and the interleaved kernel up to 20.
PLANAR_FROM, PLANAR_UNDECIDED_FROM = 28, 21


def insert_layout_ops(lowered: Sequence[LoweredOp], lowering: Lowering) -> list[bf.Op]:
    """The ops with pads and reorders; ops that follow a reorder read its output.

    Raises:
        RuleError: an output of the graph is planar.
    """
    layout = _Layout(lowering)
    for item in lowered:
        layout.add(item.op, item.layer)
    layout.check_outputs()
    return layout.ops


class _Layout:
    def __init__(self, lowering: Lowering):
        self.lowering = lowering
        self.graph = lowering.graph
        self.ops: list[bf.Op] = []
        self.planar: set[str] = set()  # planar tensors without border
        self.padded: dict[str, str] = {}  # planar tensor -> its copy with border
        self.interleaved: dict[str, str] = {}  # tensor -> its interleaved copy

    def add(self, op: bf.Op, layer: Layer) -> None:
        reads_input = op.inputs[0] == self.graph.input
        if op.kind == "DepthwiseConv" and self._runs_planar(layer):
            self._add_planar_depthwise(op, layer)
        elif op.kind == "Conv" and reads_input:
            self.planar.add(op.output or "")
            self.ops.append(op)
        else:
            if reads_input:
                self.lowering.warn(
                    "first-layer",
                    layer,
                    "it reads the graph's input, which only a convolution does in known files.",
                    "Begin the network with a 3x3 convolution of stride 2.",
                )
            constants = self.lowering.constants
            inputs = [name if name in constants else self._read_interleaved(name, layer) for name in op.inputs]
            self.ops.append(replace(op, inputs=tuple(inputs)))

    def check_outputs(self) -> None:
        for output in self.graph.outputs:
            if output in self.planar:
                raise breach(
                    "planar-output",
                    output,
                    f"The output '{output}' is the planar output of the first convolution; no known file returns such "
                    "a tensor.",
                    "Choose a later output.",
                    certainty=INFERRED,
                    op=self.graph.layer(output).op,
                )

    def _runs_planar(self, layer: Layer) -> bool:
        if not isinstance(layer, deploy.Depthwise) or layer.strides != (1, 1):
            return False
        side = min(layer.shape[:2])
        if layer.weights.shape[:2] != (3, 3) or layer.padding != SAME:
            self.lowering.warn(
                "depthwise-kernel",
                layer,
                "no known file has a depthwise convolution other than 3x3 SAME.",
                "Use 3x3, SAME.",
            )
            return False
        if PLANAR_UNDECIDED_FROM <= side < PLANAR_FROM:
            self.lowering.warn(
                "planar-threshold",
                layer,
                f"the map's side {side} lies between the known sides 20 (interleaved kernel) and 28 (planar kernel); "
                "the interleaved kernel is used.",
                "Choose an input size without maps of side 21 to 27: 256, 224 or 160.",
            )
        return side >= PLANAR_FROM

    def _add_planar_depthwise(self, op: bf.Op, layer: Layer) -> None:
        source, name = op.inputs[0], op.output or ""
        if source in self.planar and source not in self.interleaved and len(self.lowering.readers.get(source, ())) == 1:
            padded = self._pad(source)
        else:
            interleaved = self._read_interleaved(source, layer)
            padded = f"{source}_post_pad"
            if any(other.output == padded for other in self.ops):
                padded = f"{name}_pre_pad"  # for a second planar reader: the first one overwrote its padded input
            self.ops.append(bf.Op("ReorderBrcdToBdrcMyriad", (interleaved,), padded))
        self.ops.append(replace(op, inputs=(padded, *op.inputs[1:]), output=f"{name}_pre_crop"))
        self.interleaved[name] = name if name in self.graph.outputs else f"{name}_brcd"
        self._add_crop(f"{name}_pre_crop", self.interleaved[name])

    def _read_interleaved(self, name: str, layer: Layer) -> str:
        """The interleaved tensor for `name`. A planar one is padded and cropped: no known op only reorders."""
        if name in self.planar and name not in self.interleaved:
            self.lowering.warn(
                "planar-reader",
                layer,
                f"it reads '{name}', the planar output of the first convolution; in known files only a depthwise "
                "convolution of stride 1 does.",
                "Put a 3x3 depthwise convolution of stride 1 after the first convolution.",
            )
            self.interleaved[name] = f"{name}_brcd"
            self._add_crop(self._pad(name), self.interleaved[name])
        return self.interleaved.get(name, name)

    def _pad(self, name: str) -> str:
        if name not in self.padded:
            self.padded[name] = f"{name}_post_pad"
            self.ops.append(bf.Op("PadMyriad", (name,), self.padded[name]))
        return self.padded[name]

    def _add_crop(self, name: str, output: str) -> None:
        self.ops.append(bf.Op("ReorderBdrcToBrcdMyriad", (name,), output, kernel=bf.Kernel(1)))
