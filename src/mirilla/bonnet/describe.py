"""Describe a compiled model or a deploy graph: rows for tables, and dataclasses that become JSON."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from mirilla.bonnet import shapes
from mirilla.bonnet.format import PADDING_SAME, PADDING_VALID, POST_PAD, POST_RELU6, Kernel, Model, Op, Plan, serialise
from mirilla.bonnet.memory_plan import replan
from mirilla.findings import RuleError
from mirilla.graph import deploy
from mirilla.graph.deploy import DeployGraph, Layer, Preprocessing

_PADDINGS = {PADDING_VALID: "VALID", PADDING_SAME: "SAME"}
_POSTS = {POST_RELU6: "relu6", POST_PAD: "pad"}
_COMMON_SCOPES = ("FeatureExtractor", "MobilenetV1")


@dataclass(frozen=True)
class TensorFacts:
    """An input or output; its shape without the batch."""

    name: str | None
    shape: tuple[int, ...]


@dataclass(frozen=True)
class OpRow:
    """An op of a compiled model; addresses and sizes in bytes.

    shape: (rows, columns, depth); None, with an empty layout, if an op of an unknown type comes before.
    """

    index: int
    kind: str
    output: str
    inputs: tuple[str, ...]
    shape: tuple[int, int, int] | None
    kernel: tuple[int, int] | None
    stride: int | None
    padding: str | None
    layout: str
    post: str | None
    address: int | None
    output_bytes: int | None
    scratch_address: int | None
    scratch_bytes: int | None
    in_use: int | None


@dataclass(frozen=True)
class Peak:
    """The op with the most bytes in use."""

    bytes: int | None
    op: int
    output: str


@dataclass(frozen=True)
class ConstantFacts:
    """A constant without its values."""

    name: str
    dims: tuple[int, ...]
    bytes: int
    smallest: float | None
    largest: float | None
    zeros: int


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Everything about a compiled model except the values of its constants."""

    kind: str = "bonnet"
    sha256: str
    bytes: int
    input: TensorFacts
    outputs: tuple[TensorFacts, ...]
    arena_bytes: int | None
    peak: Peak
    plan_differences: tuple[str, ...]
    ops: tuple[OpRow, ...]
    constants: tuple[ConstantFacts, ...]


def model_facts(model: Model, size: tuple[int, int] | None = None) -> ModelFacts:
    """Describe a compiled model.

    Raises:
        RuleError: see `op_rows`.
    """
    rows = op_rows(model, size)
    output_shapes = {row.output: row.shape for row in rows}
    content = serialise(model)
    peak = max(rows, key=lambda row: row.in_use or 0)
    return ModelFacts(
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        input=TensorFacts(model.input, shapes.input_map(model, size).shape),
        outputs=tuple(TensorFacts(name, output_shapes.get(name) or ()) for name in model.outputs),
        arena_bytes=model.arena.bytes if model.arena else None,
        peak=Peak(peak.in_use, peak.index, peak.output),
        plan_differences=tuple(plan_differences(model, size)),
        ops=tuple(rows),
        constants=tuple(_constant_facts(constant.name or "", constant.values) for constant in model.constants),
    )


def _constant_facts(name: str, values: NDArray[np.float16]) -> ConstantFacts:
    values_32 = values.astype(np.float32)
    return ConstantFacts(
        name=name,
        dims=values.shape,
        bytes=values.nbytes,
        smallest=float(values_32.min()) if values_32.size else None,
        largest=float(values_32.max()) if values_32.size else None,
        zeros=int((values_32 == 0).sum()),
    )


def op_rows(model: Model, size: tuple[int, int] | None = None) -> list[OpRow]:
    """A row for each op.

    Raises:
        RuleError: ops do not fit together, or the input size cannot be inferred.
    """
    source = shapes.input_map(model, size)
    maps = shapes.infer_known(model.ops, shapes.constant_dims(model), model.input or "", source)
    return [_op_row(index, op, maps.get(op.output or "")) for index, op in enumerate(model.ops)]


def _op_row(index: int, op: Op, output: shapes.FeatureMap | None) -> OpRow:
    kernel, plan = op.kernel or Kernel(), op.plan or Plan()
    has_window = bool(kernel.height and kernel.width)
    return OpRow(
        index=index,
        kind=op.kind or "",
        output=op.output or "",
        inputs=op.inputs,
        shape=output.shape if output else None,
        kernel=(kernel.height or 0, kernel.width or 0) if has_window else None,
        stride=kernel.stride if has_window else None,
        padding=_PADDINGS.get(kernel.padding or 0),
        layout=_layout(output) if output else "",
        post=_POSTS.get(plan.post, str(plan.post)) if plan.post else None,
        address=plan.address,
        output_bytes=plan.output_bytes,
        scratch_address=plan.scratch_address,
        scratch_bytes=plan.scratch_bytes,
        in_use=plan.in_use,
    )


def _layout(output: shapes.FeatureMap) -> str:
    return ("bdrc" if output.planar else "brcd") + (f"+{output.border}" if output.border else "")


def plan_differences(model: Model, size: tuple[int, int] | None = None) -> list[str]:
    """How the file's memory plan differs from a newly computed one, a line for each number; empty if it does not."""
    try:
        computed = replan(model, size)
    except RuleError as error:
        return [finding.what for finding in error.findings]
    differences = []
    for index, (old, new) in enumerate(zip(model.ops, computed.ops, strict=True)):
        in_file, expected = (asdict(op.plan) if op.plan else {} for op in (old, new))
        for key, value in expected.items():
            if in_file.get(key) != value:
                differences.append(f"op {index} '{old.output}': {key} is {in_file.get(key)}, computed {value}")
    return differences


@dataclass(frozen=True)
class LayerRow:
    """A layer of a deploy graph; the shape is that of one image."""

    index: int
    kind: str
    output: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    kernel: tuple[int, int] | None
    stride: tuple[int, int] | None
    padding: str | None
    activation: str | None
    weights: int


@dataclass(frozen=True, kw_only=True)
class GraphFacts:
    """Everything about a deploy graph except the values of its weights."""

    kind: str = "graph"
    input: TensorFacts
    outputs: tuple[TensorFacts, ...]
    preprocessing: Preprocessing | None
    notes: tuple[str, ...]
    layers: tuple[LayerRow, ...]


def graph_facts(graph: DeployGraph) -> GraphFacts:
    """Describe a deploy graph."""
    outputs = zip(graph.outputs, graph.output_shapes, strict=True)
    return GraphFacts(
        input=TensorFacts(graph.input, graph.input_shape),
        outputs=tuple(TensorFacts(name, shape) for name, shape in outputs),
        preprocessing=graph.preprocessing,
        notes=graph.notes,
        layers=tuple(layer_rows(graph)),
    )


def layer_rows(graph: DeployGraph) -> list[LayerRow]:
    """A row for each layer."""
    return [_layer_row(index, layer) for index, layer in enumerate(graph.layers)]


def _layer_row(index: int, layer: Layer) -> LayerRow:
    kernel = stride = padding = activation = None
    weights = 0
    if isinstance(layer, deploy.Conv | deploy.Depthwise):
        kernel, stride, padding = layer.weights.shape[:2], layer.strides, layer.padding
    if isinstance(layer, deploy.Pool):
        kernel, stride, padding = layer.window, layer.strides, layer.padding
    if isinstance(layer, deploy.Linear):
        activation = layer.activation
        weights = layer.weights.size + (0 if layer.bias is None else layer.bias.size)
    return LayerRow(
        index, layer.op, layer.name, layer.inputs, layer.shape, kernel, stride, padding, activation, weights
    )


def short_names(names: Sequence[str]) -> dict[str, str]:
    """{name: the name without scopes that nearly all names share}, for tables and plots; short names are unique."""
    short = {}
    for name in names:
        *scopes, last = name.split("/")
        short[name] = "/".join([scope for scope in scopes if scope not in _COMMON_SCOPES] + [last])
    counts = Counter(short.values())
    return {name: brief if counts[brief] == 1 else name for name, brief in short.items()}
