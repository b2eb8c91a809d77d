"""The layout pass: insert pads and reorders around the convolutions that run on planar (bdrc) tensors.

The first convolution reads and writes planar tensors. A 3x3 convolution of stride 1 on a large map reads a planar
tensor with a border, depthwise ones in place (`mirilla.bonnet.planar`). All other ops read interleaved (brcd) tensors.
A reorder whose input and output do not fit the arena together writes outside it, and a Move brings the tensor back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mirilla.bonnet import format as bf
from mirilla.bonnet.lower import LoweredOp, Lowering
from mirilla.bonnet.planar import can_run_planar, runs_planar, threshold_of
from mirilla.bonnet.shapes import BORDER, COLUMN_STEP, FeatureMap
from mirilla.findings import INFERRED, breach
from mirilla.graph import deploy
from mirilla.graph.deploy import Layer

_CONVOLUTIONS = ("Conv", "DepthwiseConv")


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
        if not reads_input and op.kind in _CONVOLUTIONS and self._runs_planar(layer):
            self._add_planar_convolution(op, layer)
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
            inputs = [name if name in constants else self._read_interleaved(name) for name in op.inputs]
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
        assert isinstance(layer, deploy.Conv | deploy.Depthwise)
        threshold = threshold_of(layer)
        if not can_run_planar(layer):
            if isinstance(layer, deploy.Depthwise) and layer.strides == (1, 1):
                self.lowering.warn(
                    "depthwise-kernel",
                    layer,
                    "no known file has a depthwise convolution other than 3x3 SAME.",
                    "Use 3x3, SAME.",
                )
            return False
        side = min(layer.shape[:2])
        if threshold.interleaved_to < side < threshold.planar_from:
            self.lowering.warn(
                "planar-threshold",
                layer,
                f"the map's side {side} lies between the known sides {threshold.interleaved_to} (interleaved kernel) "
                f"and {threshold.planar_from} (planar kernel); the interleaved kernel is used.",
                "Choose an input size without such maps: 256, 224 or 160.",
            )
        return runs_planar(layer)

    def _add_planar_convolution(self, op: bf.Op, layer: Layer) -> None:
        """Pad, convolve and crop, with reorders at both ends; five ops if rows do not have a multiple of 4 columns."""
        source, name = op.inputs[0], op.output or ""
        cols = deploy.view(self.graph.shape_of(source))[1]
        padded = self._padded(op, layer, cols % COLUMN_STEP == 0)
        cropped = f"{name}{bf.PRE_CROP}"
        self.ops.append(replace(op, inputs=(padded, *op.inputs[1:]), output=cropped))
        self.interleaved[name] = name if name in self.graph.outputs else f"{name}_brcd"
        shape = deploy.view(layer.shape)
        bordered = FeatureMap(*shape, planar=True, border=BORDER)
        if cols % COLUMN_STEP == 0:
            self._reorder(cropped, bordered, self.interleaved[name], crops=True)
            return
        plain = f"{name}_bdrc" if name in self.graph.outputs else name
        self.ops.append(bf.Op("CropMyriad", (cropped,), plain, kernel=bf.Kernel(1)))
        self._reorder(plain, FeatureMap(*shape, planar=True), self.interleaved[name], crops=False)

    def _padded(self, op: bf.Op, layer: Layer, in_one_op: bool) -> str:
        """The name of the op's input as a planar tensor with a border; adds the ops that make it."""
        source, name = op.inputs[0], op.output or ""
        if source in self.planar and source not in self.interleaved and len(self.lowering.readers.get(source, ())) == 1:
            return self._pad(source)
        interleaved = self._read_interleaved(source)
        written = {other.output for other in self.ops}
        # for a second planar reader, since a depthwise convolution overwrites its padded input
        padded = f"{name}_pre_pad" if f"{source}_post_pad" in written else f"{source}_post_pad"
        if in_one_op:
            pad = bf.Plan(post=bf.POST_PAD)
            self.ops.append(bf.Op("ReorderBrcdToBdrcMyriad", (interleaved,), padded, plan=pad))
            return padded
        planar = f"{name}_pre_bdrc" if f"{source}_bdrc" in written else f"{source}_bdrc"
        self.ops.append(bf.Op("ReorderBrcdToBdrcMyriad", (interleaved,), planar))
        self.ops.append(bf.Op("PadMyriad", (planar,), padded))
        return padded

    def _read_interleaved(self, name: str) -> str:
        """The interleaved tensor for `name`; a planar one is reordered."""
        if name in self.planar and name not in self.interleaved:
            self.interleaved[name] = f"{name}_brcd"
            source = FeatureMap(*deploy.view(self.graph.shape_of(name)), planar=True)
            self._reorder(name, source, self.interleaved[name], crops=False)
        return self.interleaved.get(name, name)

    def _pad(self, name: str) -> str:
        if name not in self.padded:
            self.padded[name] = f"{name}_post_pad"
            self.ops.append(bf.Op("PadMyriad", (name,), self.padded[name]))
        return self.padded[name]

    def _reorder(self, name: str, source: FeatureMap, output: str, *, crops: bool) -> None:
        """Add the reorder of a planar tensor to an interleaved one; one that crops has a kernel message."""
        kernel = bf.Kernel(1) if crops else None
        if source.bytes + FeatureMap(*source.shape).bytes <= bf.ARENA_BYTES:
            self.ops.append(bf.Op("ReorderBdrcToBrcdMyriad", (name,), output, kernel=kernel))
            return
        outside = f"{output}{bf.IN_DDR}"
        self.ops.append(bf.Op("ReorderBdrcToBrcdMyriad", (name,), outside, kernel=kernel))
        self.ops.append(bf.Op("Move", (outside,), output))
