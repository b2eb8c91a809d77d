# ruff: noqa: RUF009 (wire.optional declares a field, as dataclasses.field does)
"""The compiled model of the Vision Bonnet (`.binaryproto`): its messages, and how to read and write them.

docs/bonnet-format.md describes the layout. Every field of a file is declared here, so a file that is read and
written again keeps the same bytes.

Terms: brcd = batch, row, column, depth (interleaved, depth fastest); bdrc = batch, depth, row, column (planar,
columns fastest). All tensors on the Bonnet are fp16, so a tensor has 2 bytes per element.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirilla.bonnet import wire
from mirilla.errors import ModelError
from mirilla.files import explaining, mistaken, write_bytes

ARENA_BYTES = 1441792
FP16 = 2  # the file's number for half precision
PADDING_VALID, PADDING_SAME = 1, 2
POST_RELU6, POST_PAD = 1, 3
PRE_CROP = "_pre_crop"  # end of the name of a convolution's output that still has its border
IN_DDR = "_output_in_ddr"  # end of the name of a tensor that lies outside the arena
MAX_FILE_BYTES = 256 << 20
MAX_OPS = 4096
SUFFIX = ".binaryproto"
_RECOMPILE = "Compile the model again with 'mirilla compile'."


@dataclass(frozen=True)
class Kernel:
    """Stride and window of a convolution or pool; layout ops have only a stride."""

    stride: int | None = wire.optional(2, int)
    padding: int | None = wire.optional(3, int)  # PADDING_VALID or PADDING_SAME
    height: int | None = wire.optional(5, int)
    width: int | None = wire.optional(6, int)
    unknown: wire.UnknownFields = wire.unknown_fields()


@dataclass(frozen=True)
class Depthwise:
    """Attribute of DepthwiseConv: outputs per input channel, always 1."""

    multiplier: int | None = wire.optional(1, int)
    unknown: wire.UnknownFields = wire.unknown_fields()


@dataclass(frozen=True)
class Softmax:
    """Attribute of SoftmaxActivation: the factor before the exponential, always 1.0."""

    beta: float | None = wire.optional(1, float)
    unknown: wire.UnknownFields = wire.unknown_fields()


@dataclass(frozen=True)
class Reshape:
    """Attributes of Reshape: the output's shape; the batch is 1."""

    rows: int | None = wire.optional(1, int)
    cols: int | None = wire.optional(2, int)
    depth: int | None = wire.optional(3, int)
    unknown: wire.UnknownFields = wire.unknown_fields()


@dataclass(frozen=True)
class Concat:
    """Attribute of Concat: the axis of the 4-D view, 1 rows, 2 columns, 3 depth."""

    axis: int | None = wire.optional(1, int)
    unknown: wire.UnknownFields = wire.unknown_fields()


@dataclass(frozen=True)
class Plan:
    """The memory plan of an op; addresses in the arena and sizes in bytes. None means the field is missing."""

    address: int | None = wire.optional(2, int)  # of the output
    scratch_address: int | None = wire.optional(3, int)
    scratch_bytes: int | None = wire.optional(4, int)
    output_bytes: int | None = wire.optional(5, int)  # not rounded; the padded size for bdrc tensors
    planar: int | None = wire.optional(6, int)  # 1: the bdrc kernel, 0: the brcd kernel
    input_planar: int | None = wire.optional(7, int)  # 1: the input is bdrc
    in_place: int | None = wire.optional(8, int)  # 1: the output takes over the first input's memory
    post: int | None = wire.optional(9, int)  # POST_RELU6 or POST_PAD, fused after the op
    field13: int | None = wire.optional(13, int)  # 0 on the first planar convolution; meaning unknown
    in_use: int | None = wire.optional(14, int)  # bytes of all live tensors and the scratch while the op runs
    unknown: wire.UnknownFields = wire.unknown_fields()


@dataclass(frozen=True)
class Op:
    """An operation; its inputs are activations, then weights, then the bias."""

    kind: str | None = wire.optional(1, str)
    inputs: tuple[str, ...] = wire.repeated(2, str)
    output: str | None = wire.optional(3, str)
    depthwise: Depthwise | None = wire.optional(37961023, Depthwise)
    kernel: Kernel | None = wire.optional(66070909, Kernel)
    softmax: Softmax | None = wire.optional(74101090, Softmax)
    reshape: Reshape | None = wire.optional(76096650, Reshape)
    plan: Plan | None = wire.optional(102787945, Plan)
    concat: Concat | None = wire.optional(173413095, Concat)
    unknown: wire.UnknownFields = wire.unknown_fields()


@dataclass(frozen=True)
class Constant:
    """Weights or a bias: four dims and fp16 values, the last dim fastest."""

    d1: int | None = wire.optional(1, int)
    d2: int | None = wire.optional(2, int)
    d3: int | None = wire.optional(3, int)
    d4: int | None = wire.optional(4, int)
    data_type: int | None = wire.optional(6, int)
    scale: float | None = wire.optional(7, float)
    data: bytes | None = wire.optional(8, bytes)
    name: str | None = wire.optional(9, str)
    unknown: wire.UnknownFields = wire.unknown_fields()

    @classmethod
    def of(cls, name: str, bits: NDArray[np.uint16] | NDArray[np.float16]) -> Constant:
        """A constant from a 4-D uint16 array of fp16 bits (or a float16 array)."""
        d1, d2, d3, d4 = bits.shape
        data = np.ascontiguousarray(bits).astype(bits.dtype.newbyteorder("<"), copy=False).tobytes()
        return cls(d1, d2, d3, d4, FP16, 1.0, data, name)

    @property
    def dims(self) -> tuple[int, int, int, int]:
        return (self.d1 or 0, self.d2 or 0, self.d3 or 0, self.d4 or 0)

    @property
    def values(self) -> NDArray[np.float16]:
        """The values as float16, shaped `dims`."""
        return np.frombuffer(self.data or b"", "<f2").reshape(self.dims)


@dataclass(frozen=True)
class Arena:
    """Size of the Bonnet's working memory in bytes, and a second number of unknown meaning (twice the size)."""

    bytes: int | None = wire.optional(1, int)
    twice: int | None = wire.optional(2, int)
    unknown: wire.UnknownFields = wire.unknown_fields()


@dataclass(frozen=True)
class Model:
    """A whole compiled model."""

    input: str | None = wire.optional(1, str)
    constant_names: tuple[str, ...] = wire.repeated(2, str)
    constants: tuple[Constant, ...] = wire.repeated(4, Constant)
    data_type: int | None = wire.optional(5, int)
    outputs: tuple[str, ...] = wire.repeated(6, str)
    ops: tuple[Op, ...] = wire.repeated(7, Op)
    field9: int | None = wire.optional(9, int)
    arena: Arena | None = wire.optional(183701617, Arena)
    unknown: wire.UnknownFields = wire.unknown_fields()

    def constant(self, name: str) -> Constant:
        """The constant with this name; KeyError if it does not exist."""
        for constant in self.constants:
            if constant.name == name:
                return constant
        raise KeyError(name)


def parse(content: bytes, where: str = "the model") -> Model:
    """Read a compiled model and check that it is consistent.

    Args:
        content: the whole file.
        where: the file's name for error messages.

    Raises:
        ModelError: the bytes are not a compiled model, or it is inconsistent (the data of a constant does not match
            its dims, an op reads a tensor that no earlier op writes).
    """
    if len(content) > MAX_FILE_BYTES:
        raise ModelError(f"{where}: {len(content)} bytes. A compiled model has at most {MAX_FILE_BYTES}.")
    if other := mistaken(content):
        raise ModelError(f"{where}: {other[0]}, not a compiled model.", other[1])
    model = wire.parse(Model, content, where)
    _check_parts(model, where)
    _check_constants(model, where)
    _check_ops(model, where)
    return model


def serialise(model: Model) -> bytes:
    """The bytes of a model; `serialise(parse(x)) == x` for every file that follows the format."""
    return wire.serialise(model)


def read(path: str | os.PathLike[str]) -> Model:
    """Read a compiled model from a file; raises ModelError as `parse` does."""
    with explaining(path), open(path, "rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    return parse(content, os.fspath(path))


def write(path: str | os.PathLike[str], model: Model) -> None:
    """Write a compiled model; a failed write leaves no partial file."""
    write_bytes(path, serialise(model))


def _check_parts(model: Model, where: str) -> None:
    parts = {"ops": model.ops, "input name": model.input, "outputs": model.outputs}
    for name, part in parts.items():
        if not part:
            raise ModelError(
                f"{where}: not a compiled bonnet model: the file has no {name}.",
                "Give a .binaryproto made for the Vision Bonnet. Compile a frozen graph with 'mirilla compile' first.",
            )
    if len(model.ops) > MAX_OPS:
        raise ModelError(f"{where}: {len(model.ops)} ops; a model has at most {MAX_OPS}.", "The file is damaged.")


def _check_constants(model: Model, where: str) -> None:
    for constant in model.constants:
        if not constant.name or constant.data is None or constant.data_type != FP16:
            raise ModelError(f"{where}: constant '{constant.name}' lacks a name or data, or is not fp16.", _RECOMPILE)
        if math.prod(constant.dims) * 2 != len(constant.data):
            raise ModelError(
                f"{where}: constant '{constant.name}' has dims {constant.dims} and {len(constant.data)} bytes; "
                "the rule is 2 bytes per element.",
                _RECOMPILE,
            )
    names = tuple(constant.name for constant in model.constants)
    if len(set(names)) != len(names):
        raise ModelError(f"{where}: two constants have the same name.", _RECOMPILE)
    if model.constant_names != names:
        raise ModelError(f"{where}: the list of constant names and the constants differ.", _RECOMPILE)


def _check_ops(model: Model, where: str) -> None:
    """Every op must read tensors that exist before it, and every output must exist."""
    known = {model.input, *model.constant_names}
    for index, op in enumerate(model.ops):
        if not op.kind or not op.output or not op.inputs:
            raise ModelError(f"{where}: op {index} lacks its type, its inputs or its output.", _RECOMPILE)
        for name in op.inputs:
            if name not in known:
                raise ModelError(
                    f"{where}: op {index} ({op.kind}) reads '{name}', which no earlier op writes.", _RECOMPILE
                )
        if op.output in known:
            raise ModelError(f"{where}: op {index} ({op.kind}) writes '{op.output}' a second time.", _RECOMPILE)
        known.add(op.output)
    for name in model.outputs:
        if name not in known:
            raise ModelError(f"{where}: no op writes the output '{name}'.", _RECOMPILE)
