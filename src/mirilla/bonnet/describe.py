"""What a compiled model or a deploy graph holds, as rows for tables and as plain data for JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mirilla.bonnet import shapes
from mirilla.bonnet.format import PADDING_SAME, PADDING_VALID, POST_PAD, POST_RELU6, Model, Op, serialise
from mirilla.bonnet.memory_plan import replan
from mirilla.findings import RuleError
from mirilla.graph import deploy
from mirilla.graph.deploy import DeployGraph

_PADDINGS = {PADDING_VALID: "VALID", PADDING_SAME: "SAME"}
_POSTS = {POST_RELU6: "relu6", POST_PAD: "pad"}


@dataclass(frozen=True)
class OpRow:
    """One op of a compiled model; shapes are (rows, columns, depth), addresses and sizes bytes."""

    index: int
    kind: str
    output: str
    inputs: tuple[str, ...]
    shape: tuple[int, int, int]
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


def op_rows(model: Model, size: tuple[int, int] | None = None) -> list[OpRow]:
    """One row an op.

    Raises:
        RuleError: ops that are unknown or do not fit together, or an input size that cannot be told.
    """
    maps = shapes.infer(model.ops, shapes.constant_dims(model), model.input or "", shapes.input_map(model, size))
    return [_op_row(index, op, maps[op.output or ""]) for index, op in enumerate(model.ops)]


def _op_row(index: int, op: Op, made: shapes.Map) -> OpRow:
    kernel, plan = op.kernel, op.plan
    sized = kernel is not None and kernel.height and kernel.width
    return OpRow(
        index=index,
        kind=op.kind or "",
        output=op.output or "",
        inputs=op.inputs,
        shape=(made.rows, made.cols, made.depth),
        kernel=(kernel.height or 0, kernel.width or 0) if kernel is not None and sized else None,
        stride=kernel.stride if kernel is not None and sized else None,
        padding=_PADDINGS.get(kernel.padding or 0) if kernel is not None else None,
        layout=("bdrc" if made.planar else "brcd") + (f"+{made.border}" if made.border else ""),
        post=_POSTS.get(plan.post or 0, str(plan.post)) if plan is not None and plan.post else None,
        address=plan.address if plan else None,
        output_bytes=plan.output_bytes if plan else None,
        scratch_address=plan.scratch_address if plan else None,
        scratch_bytes=plan.scratch_bytes if plan else None,
        in_use=plan.in_use if plan else None,
    )


def plan_differences(model: Model, size: tuple[int, int] | None = None) -> list[str]:
    """How the file's memory plan differs from one computed afresh, a sentence each; [] when it does not."""
    try:
        fresh = replan(model, size)
    except RuleError as error:
        return [finding.what for finding in error.findings]
    differences = []
    for index, (old, new) in enumerate(zip(model.ops, fresh.ops, strict=True)):
        was, now = asdict(old.plan) if old.plan else {}, asdict(new.plan) if new.plan else {}
        for key in now:
            if was.get(key) != now[key]:
                differences.append(f"op {index} '{old.output}': {key} is {was.get(key)}, computed {now[key]}")
    return differences


def model_facts(model: Model, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Everything about a compiled model, ready for JSON; weights as dims and ranges only."""
    source = shapes.input_map(model, size)
    rows = op_rows(model, size)
    content = serialise(model)
    peak = max(rows, key=lambda row: row.in_use or 0)
    return {
        "kind": "bonnet",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "input": {"name": model.input, "shape": [source.rows, source.cols, source.depth]},
        "outputs": [
            {"name": name, "shape": list(next((row.shape for row in rows if row.output == name), ()))}
            for name in model.outputs
        ],
        "arena_bytes": model.arena.bytes if model.arena else None,
        "peak": {"bytes": peak.in_use, "op": peak.index, "output": peak.output},
        "plan_differences": plan_differences(model, size),
        "ops": [asdict(row) for row in rows],
        "constants": [_constant_facts(one.name or "", one.values) for one in model.constants],
    }


def _constant_facts(name: str, values: np.ndarray) -> dict[str, Any]:
    finite = values.astype(np.float32)
    return {
        "name": name,
        "dims": list(values.shape),
        "bytes": values.nbytes,
        "smallest": float(finite.min()) if finite.size else None,
        "largest": float(finite.max()) if finite.size else None,
        "zeros": int((finite == 0).sum()),
    }


@dataclass(frozen=True)
class LayerRow:
    """One layer of a deploy graph; the shape is that of one image."""

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


def layer_rows(graph: DeployGraph) -> list[LayerRow]:
    """One row a layer."""
    rows = []
    for index, layer in enumerate(graph.layers):
        kernel = stride = padding = activation = None
        weights = 0
        if isinstance(layer, deploy.Conv | deploy.Depthwise):
            kernel, stride, padding = layer.weights.shape[:2], layer.strides, layer.padding
        if isinstance(layer, deploy.Pool):
            kernel, stride, padding = layer.window, layer.strides, layer.padding
        if isinstance(layer, deploy.Linear):
            activation = layer.activation
            weights = layer.weights.size + (0 if layer.bias is None else layer.bias.size)
        rows.append(
            LayerRow(
                index, layer.op, layer.name, layer.inputs, layer.shape, kernel, stride, padding, activation, weights
            )
        )
    return rows


def graph_facts(graph: DeployGraph) -> dict[str, Any]:
    """Everything about a deploy graph, ready for JSON; weights as counts only."""
    return {
        "kind": "graph",
        "input": {"name": graph.input, "shape": list(graph.input_shape)},
        "outputs": [
            {"name": name, "shape": list(shape)} for name, shape in zip(graph.outputs, graph.output_shapes, strict=True)
        ],
        "preprocessing": None if graph.preprocessing is None else asdict(graph.preprocessing),
        "notes": list(graph.notes),
        "layers": [asdict(row) for row in layer_rows(graph)],
    }


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names without the scopes that nearly all share, for tables and pictures; still unique."""
    short: dict[str, str] = {}
    for name in names:
        parts = name.split("/")
        kept = [
            part
            for index, part in enumerate(parts)
            if part not in ("FeatureExtractor", "MobilenetV1") or index == len(parts) - 1
        ]
        short[name] = "/".join(kept)
    counts: dict[str, int] = {}
    for one in short.values():
        counts[one] = counts.get(one, 0) + 1
    return {name: one if counts[one] == 1 else name for name, one in short.items()}
