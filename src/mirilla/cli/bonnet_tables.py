"""Tables of compiled models and deploy graphs, for `mirilla inspect` and `mirilla compile --debug`."""

from __future__ import annotations

from mirilla.bonnet.describe import layer_rows, op_rows, short_names
from mirilla.bonnet.format import Model
from mirilla.console import print_table
from mirilla.graph.deploy import DeployGraph


def print_ops(model: Model, input_size: tuple[int, int] | None) -> None:
    """A compiled model's ops, with their places in the arena."""
    rows = op_rows(model, input_size)
    short = short_names([row.output for row in rows])
    columns = (
        "#",
        "op",
        "output",
        "shape",
        "kernel",
        "then",
        "layout",
        "address",
        "bytes",
        "scratch at",
        "scratch",
        "in use",
    )
    cells = [
        (
            row.index,
            row.kind,
            short[row.output],
            shape_text(row.shape),
            _kernel_text(row.kernel, row.stride, row.padding),
            row.post,
            row.layout,
            row.address,
            row.output_bytes,
            row.scratch_address,
            row.scratch_bytes,
            row.in_use,
        )
        for row in rows
    ]
    print_table("", columns, cells)


def print_layers(graph: DeployGraph) -> None:
    """A deploy graph's layers."""
    rows = layer_rows(graph)
    short = short_names([row.output for row in rows])
    cells = [
        (
            row.index,
            row.kind,
            short[row.output],
            shape_text(row.shape),
            _kernel_text(row.kernel, row.stride[0] if row.stride else None, row.padding),
            row.activation,
            row.weights,
        )
        for row in rows
    ]
    print_table("", ("#", "layer", "output", "shape", "kernel", "then", "weights"), cells)


def shape_text(shape: tuple[int, ...] | None) -> str:
    """(8, 8, 64) -> '8x8x64'; '?' for an unknown shape."""
    return "x".join(map(str, shape)) if shape else "?"


def _kernel_text(kernel: tuple[int, int] | None, stride: int | None, padding: str | None) -> str:
    return "" if kernel is None or stride is None else f"{kernel[0]}x{kernel[1]} s{stride} {padding}"
