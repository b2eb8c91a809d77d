# ruff: noqa: RUF009 (wire.wire declares a field, as dataclasses.field does)
"""The compiled model of the Vision Bonnet (`.binaryproto`): its messages, reading and writing.

The layout is described in docs/bonnet-format.md. Every number that a file holds has its place here, so a
file that is read and written again has the same bytes.

Words: brcd = batch, row, column, depth (depth fastest); bdrc = planar, columns fastest. All tensors on the
device are fp16; bytes are 2 x the number of elements.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np

from mirilla.bonnet import wire
from mirilla.errors import ModelError
from mirilla.files import explaining, write_bytes

ARENA_BYTES = 1441792
FP16 = 2  # the file's number for half precision
PADDING_VALID, PADDING_SAME = 1, 2
POST_RELU6, POST_PAD = 1, 3
MAX_FILE_BYTES = 256 << 20
MAX_OPS = 4096
SUFFIX = ".binaryproto"


@dataclass(frozen=True)
class Kernel:
    """Stride and window of a convolution or pool; the layout-changing ops carry a stride alone."""

    stride: int | None = wire.wire(2, "int")
    padding: int | None = wire.wire(3, "int")  # PADDING_VALID or PADDING_SAME
    height: int | None = wire.wire(5, "int")
    width: int | None = wire.wire(6, "int")
    unknown: tuple[tuple[int, bytes], ...] = wire.unknown_fields()


@dataclass(frozen=True)
class Multiplier:
    """Depthwise convolution: outputs per input channel, always 1."""

    depth: int | None = wire.wire(1, "int")
    unknown: tuple[tuple[int, bytes], ...] = wire.unknown_fields()


@dataclass(frozen=True)
class Softmax:
    """Softmax: the factor before the exponential, always 1.0."""

    beta: float | None = wire.wire(1, "float")
    unknown: tuple[tuple[int, bytes], ...] = wire.unknown_fields()


@dataclass(frozen=True)
class Target:
    """What a Reshape makes of its input; the batch is 1."""

    rows: int | None = wire.wire(1, "int")
    cols: int | None = wire.wire(2, "int")
    depth: int | None = wire.wire(3, "int")
    unknown: tuple[tuple[int, bytes], ...] = wire.unknown_fields()


@dataclass(frozen=True)
class Join:
    """Concat: the axis of the 4-D view, 1 rows, 2 columns, 3 depth."""

    axis: int | None = wire.wire(1, "int")
    unknown: tuple[tuple[int, bytes], ...] = wire.unknown_fields()


@dataclass(frozen=True)
class Plan:
    """Where an op works in the arena; addresses and sizes in bytes. None where the file says nothing."""

    address: int | None = wire.wire(2, "int")  # of the output
    scratch_address: int | None = wire.wire(3, "int")
    scratch_bytes: int | None = wire.wire(4, "int")
    output_bytes: int | None = wire.wire(5, "int")  # unrounded; the padded size for bdrc tensors
    planar: int | None = wire.wire(6, "int")  # 1: the bdrc kernel, 0: the brcd kernel
    input_planar: int | None = wire.wire(7, "int")  # 1: the input is bdrc
    in_place: int | None = wire.wire(8, "int")  # 1: the output takes the first input's place
    post: int | None = wire.wire(9, "int")  # POST_RELU6 or POST_PAD, fused after the op
    field13: int | None = wire.wire(13, "int")  # 0 on the first planar convolution; meaning unknown
    in_use: int | None = wire.wire(14, "int")  # bytes of everything alive while the op runs
    unknown: tuple[tuple[int, bytes], ...] = wire.unknown_fields()


@dataclass(frozen=True)
class Op:
    """One operation: inputs are activations, then weights, then bias."""

    kind: str | None = wire.wire(1, "string")
    inputs: tuple[str, ...] = wire.wire(2, "string", repeated=True)
    output: str | None = wire.wire(3, "string")
    multiplier: Multiplier | None = wire.wire(37961023, Multiplier)
    kernel: Kernel | None = wire.wire(66070909, Kernel)
    softmax: Softmax | None = wire.wire(74101090, Softmax)
    target: Target | None = wire.wire(76096650, Target)
    plan: Plan | None = wire.wire(102787945, Plan)
    join: Join | None = wire.wire(173413095, Join)
    unknown: tuple[tuple[int, bytes], ...] = wire.unknown_fields()


@dataclass(frozen=True)
class Constant:
    """Weights or a bias: four dims and fp16 values, the last dim fastest."""

    d1: int | None = wire.wire(1, "int")
    d2: int | None = wire.wire(2, "int")
    d3: int | None = wire.wire(3, "int")
    d4: int | None = wire.wire(4, "int")
    data_type: int | None = wire.wire(6, "int")
    scale: float | None = wire.wire(7, "float")
    data: bytes | None = wire.wire(8, "bytes")
    name: str | None = wire.wire(9, "string")
    unknown: tuple[tuple[int, bytes], ...] = wire.unknown_fields()

    @classmethod
    def of(cls, name: str, bits: np.ndarray) -> Constant:
        """A constant from a 4-D uint16 array of fp16 bits (or a float16 array)."""
        d1, d2, d3, d4 = bits.shape
        data = np.ascontiguousarray(bits).astype(bits.dtype.newbyteorder("<"), copy=False).tobytes()
        return cls(d1, d2, d3, d4, FP16, 1.0, data, name)

    @property
    def dims(self) -> tuple[int, int, int, int]:
        return (self.d1 or 0, self.d2 or 0, self.d3 or 0, self.d4 or 0)

    @property
    def values(self) -> np.ndarray:
        """The numbers, float16, shaped `dims`."""
        return np.frombuffer(self.data or b"", "<f2").reshape(self.dims)


@dataclass(frozen=True)
class Arena:
    """The device's working memory in bytes; the second number's role is unknown (twice the first)."""

    bytes: int | None = wire.wire(1, "int")
    twice: int | None = wire.wire(2, "int")
    unknown: tuple[tuple[int, bytes], ...] = wire.unknown_fields()


@dataclass(frozen=True)
class Model:
    """A whole compiled model."""

    input: str | None = wire.wire(1, "string")
    constant_names: tuple[str, ...] = wire.wire(2, "string", repeated=True)
    constants: tuple[Constant, ...] = wire.wire(4, Constant, repeated=True)
    data_type: int | None = wire.wire(5, "int")
    outputs: tuple[str, ...] = wire.wire(6, "string", repeated=True)
    ops: tuple[Op, ...] = wire.wire(7, Op, repeated=True)
    field9: int | None = wire.wire(9, "int")
    arena: Arena | None = wire.wire(183701617, Arena)
    unknown: tuple[tuple[int, bytes], ...] = wire.unknown_fields()

    def constant(self, name: str) -> Constant:
        """The constant of that name; KeyError when there is none."""
        for one in self.constants:
            if one.name == name:
                return one
        raise KeyError(name)


def parse(content: bytes, where: str = "the model") -> Model:
    """Read a compiled model and check that it hangs together.

    Args:
        content: the whole file.
        where: its name for messages.

    Raises:
        ModelError: not such a file, or one that contradicts itself (a constant whose data does not fill
            its dims, an op that reads what nothing wrote).
    """
    if len(content) > MAX_FILE_BYTES:
        raise ModelError(f"{where}: {len(content)} bytes; a compiled model has at most {MAX_FILE_BYTES}.")
    model = wire.parse(Model, content, where)
    _check(model, where)
    return model


def serialise(model: Model) -> bytes:
    """The bytes of a model; `serialise(parse(x)) == x` for every file that follows the format."""
    return wire.serialise(model)


def read(path: str | os.PathLike[str]) -> Model:
    """Read a compiled model from a file; ModelError when it is none."""
    with explaining(path), open(path, "rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    return parse(content, os.fspath(path))


def write(path: str | os.PathLike[str], model: Model) -> None:
    """Write a compiled model; nothing half-written is left behind."""
    write_bytes(path, serialise(model))


def _check(model: Model, where: str) -> None:
    def refuse(what: str, remedy: str | None = None) -> ModelError:
        return ModelError(f"{where}: {what}", remedy or "Compile the model again with 'mirilla compile'.")

    if not model.ops or not model.input or not model.outputs:
        missing = "ops" if not model.ops else "input name" if not model.input else "outputs"
        raise refuse(
            f"the file holds no {missing}, so it is no compiled bonnet model.",
            "Give a .binaryproto made for the Vision Bonnet; a frozen graph is compiled first.",
        )
    for constant in model.constants:
        if not constant.name or constant.data is None or constant.data_type != FP16:
            raise refuse(f"constant '{constant.name}' lacks a name or data, or is not fp16.")
        if math.prod(constant.dims) * 2 != len(constant.data):
            raise refuse(
                f"constant '{constant.name}' has dims {constant.dims} and {len(constant.data)} "
                "bytes; the rule is 2 bytes an element."
            )
    names = tuple(constant.name for constant in model.constants)
    if len(set(names)) != len(names):
        raise refuse("two constants share a name.")
    if model.constant_names != names:
        raise refuse("the list of constants' names and the constants differ.")
    if len(model.ops) > MAX_OPS:
        raise refuse(f"{len(model.ops)} ops; at most {MAX_OPS} are read.", "The file is damaged.")
    known = {model.input, *names}
    for index, op in enumerate(model.ops):
        if not op.kind or not op.output or not op.inputs:
            raise refuse(f"op {index} lacks its type, an input or its output.")
        for name in op.inputs:
            if name not in known:
                raise refuse(f"op {index} ({op.kind}) reads '{name}', which nothing before it wrote.")
        if op.output in known:
            raise refuse(f"op {index} ({op.kind}) writes '{op.output}' a second time.")
        known.add(op.output)
    for name in model.outputs:
        if name not in known:
            raise refuse(f"the output '{name}' is written by no op.")
