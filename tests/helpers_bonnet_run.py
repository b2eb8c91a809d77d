"""Small compiled models built by hand, for the tests of the interpreter and of the emulator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mirilla.bonnet.format import (
    PADDING_SAME,
    PADDING_VALID,
    Concat,
    Constant,
    Depthwise,
    Kernel,
    Model,
    Op,
    Plan,
    Reshape,
    Softmax,
)


def constant(name: str, values: object) -> Constant:
    array = np.array(values, np.float16)
    return Constant.of(name, array.reshape((1,) * (4 - array.ndim) + array.shape))


def model(
    ops: list[Op],
    constants: Sequence[Constant] = (),
    outputs: tuple[str, ...] = (),
    input_name: str = "x",
) -> Model:
    return Model(
        input=input_name,
        constant_names=tuple(c.name or "" for c in constants),
        constants=tuple(constants),
        data_type=2,
        outputs=outputs or (ops[-1].output or "",),
        ops=tuple(ops),
        field9=1,
    )


def kernel(side: int, stride: int = 1, same: bool = True) -> Kernel:
    return Kernel(stride, PADDING_SAME if same else PADDING_VALID, side, side)


def conv(name: str, source: str, window: Kernel, relu6: bool = False) -> Op:
    """Reads the constants `<name>_w` and `<name>_b`."""
    return Op("Conv", (source, f"{name}_w", f"{name}_b"), name, kernel=window, plan=Plan(post=1) if relu6 else Plan())


def depthwise(name: str, source: str, window: Kernel, output: str | None = None, planar: bool = False) -> Op:
    op = Op(
        "DepthwiseConv",
        (source, f"{name}_w", f"{name}_b"),
        output or name,
        depthwise=Depthwise(1),
        kernel=window,
        plan=Plan(),
    )
    return replace(op, plan=Plan(planar=1, in_place=1)) if planar else op


def reshape(name: str, source: str, rows: int, cols: int, depth: int) -> Op:
    return Op("Reshape", (source,), name, reshape=Reshape(rows, cols, depth))


def concat(name: str, sources: tuple[str, ...], axis: int) -> Op:
    return Op("Concat", sources, name, concat=Concat(axis))


def softmax(name: str, source: str) -> Op:
    return Op("SoftmaxActivation", (source,), name, softmax=Softmax(1.0))


def pixels_model() -> Model:
    """An 8x8 picture -> 'grid' (4, 4, 3), the mean of each 2x2, and 'scores' (1, 16, 3), the same numbers."""
    pool = Op("AveragePool", ("x",), "grid", kernel=kernel(2, 2, same=False), plan=Plan())
    return model([pool, reshape("scores", "grid", 1, 16, 3)], outputs=("grid", "scores"))
