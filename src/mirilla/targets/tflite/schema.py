"""A TensorFlow Lite model as a FlatBuffer, by the numbers of TensorFlow's schema.fbs (version 3, identifier TFL3).

`Model` collects tensors and operators; `Model.to_bytes` writes them. A test compares the numbers here with the schema
in LiteRT's package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from mirilla.targets.tflite.flat import Scalar, Tables

VERSION = 3
IDENTIFIER = b"TFL3"
_BUFFER_ALIGNMENT = 16

# numbers of TensorType
_TYPES = {np.dtype(name): number for name, number in (("f4", 0), ("f2", 1), ("i4", 2), ("u1", 3), ("i8", 4), ("i1", 9))}


class Op(IntEnum):
    """Numbers of BuiltinOperator."""

    ADD = 0
    AVERAGE_POOL_2D = 1
    CONCATENATION = 2
    CONV_2D = 3
    DEPTHWISE_CONV_2D = 4
    DEQUANTIZE = 6
    FULLY_CONNECTED = 9
    LOGISTIC = 14
    MAX_POOL_2D = 17
    MUL = 18
    RELU = 19
    RELU6 = 21
    RESHAPE = 22
    SOFTMAX = 25
    CUSTOM = 32
    PAD = 34
    SUB = 41
    STRIDED_SLICE = 45
    EXP = 47
    SPLIT = 49
    CAST = 53
    QUANTIZE = 114


class Fused(IntEnum):
    """Numbers of ActivationFunctionType."""

    NONE = 0
    RELU = 1
    RELU6 = 3


class Padding(IntEnum):
    """Numbers of Padding."""

    SAME = 0
    VALID = 1


# op -> (number of BuiltinOptions, version of the op that LiteRT's converter writes)
_OPTIONS: dict[Op, tuple[int, int]] = {
    Op.ADD: (11, 1),
    Op.AVERAGE_POOL_2D: (5, 1),
    Op.CONCATENATION: (10, 1),
    Op.CONV_2D: (1, 1),
    Op.DEPTHWISE_CONV_2D: (2, 1),
    Op.DEQUANTIZE: (38, 2),
    Op.FULLY_CONNECTED: (8, 1),
    Op.LOGISTIC: (0, 1),
    Op.MAX_POOL_2D: (5, 1),
    Op.MUL: (21, 1),
    Op.RELU: (0, 1),
    Op.RELU6: (0, 1),
    Op.RESHAPE: (17, 1),
    Op.SOFTMAX: (9, 1),
    Op.PAD: (22, 1),
    Op.SUB: (28, 1),
    Op.STRIDED_SLICE: (32, 1),
    Op.EXP: (33, 1),
    Op.SPLIT: (35, 1),
    Op.CAST: (37, 1),
    Op.QUANTIZE: (89, 1),
}
# op -> version of its form with 8-bit integers
INTEGER_VERSIONS = {
    Op.ADD: 2,
    Op.AVERAGE_POOL_2D: 2,
    Op.CONCATENATION: 2,
    Op.CONV_2D: 3,
    Op.DEPTHWISE_CONV_2D: 3,
    Op.FULLY_CONNECTED: 4,
    Op.LOGISTIC: 2,
    Op.MAX_POOL_2D: 2,
    Op.PAD: 2,
    Op.RELU: 2,
    Op.RELU6: 2,
    Op.SOFTMAX: 2,
}

Option = Scalar  # of an operator's options table


@dataclass(frozen=True, eq=False)
class Quantization:
    """real = scale * (quantized - zero point), for the whole tensor or along `axis`."""

    scales: np.ndarray  # (1,) or (channels,) float32
    zero_points: np.ndarray  # the same shape, int64
    axis: int = 0


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor; `value` is its content if it is a constant."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    value: np.ndarray | None = None
    quantization: Quantization | None = None


@dataclass(frozen=True)
class Operator:
    """An operator; inputs and outputs are numbers of tensors, -1 for a missing one."""

    op: Op
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: tuple[Option, ...] = ()
    custom_name: str = ""
    custom_options: bytes = b""


@dataclass(eq=False)
class Model:
    """A model with one subgraph."""

    description: str = ""
    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    inputs: dict[str, int] = field(default_factory=dict)  # name in the signature -> tensor
    outputs: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, bytes] = field(default_factory=dict)

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str | np.dtype = "f4",
        value: np.ndarray | None = None,
        quantization: Quantization | None = None,
    ) -> int:
        """Add a tensor; returns its number."""
        self.tensors.append(Tensor(name, tuple(shape), np.dtype(dtype), value, quantization))
        return len(self.tensors) - 1

    def constant(self, name: str, value: np.ndarray, quantization: Quantization | None = None) -> int:
        """Add a constant tensor; returns its number."""
        return self.tensor(name, value.shape, value.dtype, value, quantization)

    def add(
        self,
        op: Op,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: Sequence[Option] = (),
        *,
        version: int | None = None,
    ) -> None:
        """Add a built-in operator; its version is that for floating-point numbers unless given."""
        number = _OPTIONS[op][1] if version is None else version
        self.operators.append(Operator(op, number, tuple(inputs), tuple(outputs), tuple(options)))

    def add_custom(self, name: str, inputs: Sequence[int], outputs: Sequence[int], options: bytes) -> None:
        """Add a custom operator."""
        self.operators.append(
            Operator(Op.CUSTOM, 1, tuple(inputs), tuple(outputs), custom_name=name, custom_options=options)
        )

    def to_bytes(self) -> bytes:
        """The file's content."""
        return _Writer(self).content


class _Writer(Tables):
    """Writes the tables of a model."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model
        codes: dict[tuple[Op, str], int] = {}
        for operator in model.operators:
            key = operator.op, operator.custom_name
            codes[key] = max(codes.get(key, 1), operator.version)
        code_numbers = {key: number for number, key in enumerate(codes)}
        buffers: list[bytes] = [b""]  # buffer 0 is that of tensors without a value
        tensors = self.vector([self._tensor(tensor, buffers) for tensor in model.tensors])
        operators = self.vector([self._operator(one, code_numbers[one.op, one.custom_name]) for one in model.operators])
        subgraph = self.table(
            [
                (0, tensors),
                (1, self.numbers(list(model.inputs.values()))),
                (2, self.numbers(list(model.outputs.values()))),
                (3, operators),
                (4, self.text("main")),
            ]
        )
        metadata = []
        for name, content in model.metadata.items():
            buffers.append(content)
            metadata.append(self._metadata(name, len(buffers) - 1))
        fields: list[tuple[int, int]] = [
            (1, self.vector([self._operator_code(op, name, version) for (op, name), version in codes.items()])),
            (2, self.vector([subgraph])),
            (3, self.text(model.description)),
            (4, self.vector([self._buffer(content) for content in buffers])),
            (7, self.vector([self._signature()])),
        ]
        if metadata:
            fields.append((6, self.vector(metadata)))
        self.content = self.finish(self.table(fields, [(0, "int32", VERSION)]), IDENTIFIER)

    def _tensor(self, tensor: Tensor, buffers: list[bytes]) -> int:
        number = 0
        if tensor.value is not None:
            buffers.append(np.ascontiguousarray(tensor.value, tensor.dtype.newbyteorder("<")).tobytes())
            number = len(buffers) - 1
        offsets = [(0, self.numbers(tensor.shape)), (3, self.text(tensor.name))]
        if tensor.quantization is not None:
            offsets.append((4, self._quantization(tensor.quantization)))
        return self.table(
            offsets, [(1, "int8", _TYPES[tensor.dtype]), (2, "int32", number), (8, "bool", bool(tensor.shape))]
        )

    def _quantization(self, quantization: Quantization) -> int:
        fields = [
            (2, self.numbers(quantization.scales, "<f4")),
            (3, self.numbers(quantization.zero_points, "<i8")),
        ]
        return self.table(fields, [(6, "int32", quantization.axis)])

    def _operator(self, operator: Operator, code: int) -> int:
        offsets = [(1, self.numbers(operator.inputs)), (2, self.numbers(operator.outputs))]
        scalars: list[Option] = [(0, "int32", code)]
        options = 0 if operator.op is Op.CUSTOM else _OPTIONS[operator.op][0]
        if options:
            offsets.append((4, self.table([], operator.options)))
            scalars.append((3, "int8", options))
        if operator.custom_options:
            offsets.append((5, self.builder.CreateByteVector(operator.custom_options)))
        return self.table(offsets, scalars)

    def _operator_code(self, op: Op, name: str, version: int) -> int:
        offsets = [(1, self.text(name))] if name else []
        # field 0 is the op's number in old readers' single byte
        return self.table(offsets, [(0, "int8", min(op, 127)), (2, "int32", version), (3, "int32", op)])

    def _buffer(self, content: bytes) -> int:
        if not content:
            return self.table([])
        self.builder.StartVector(1, len(content), _BUFFER_ALIGNMENT)
        self.builder.head -= len(content)
        self.builder.Bytes[self.builder.head : self.builder.head + len(content)] = content
        return self.table([(0, self.builder.EndVector())])

    def _metadata(self, name: str, buffer: int) -> int:
        return self.table([(0, self.text(name))], [(1, "int32", buffer)])

    def _signature(self) -> int:
        inputs, outputs = (self._names(named) for named in (self.model.inputs, self.model.outputs))
        return self.table([(0, inputs), (1, outputs), (2, self.text("serving_default"))])

    def _names(self, tensors: Mapping[str, int]) -> int:
        entries = [self.table([(0, self.text(name))], [(1, "int32", number)]) for name, number in tensors.items()]
        return self.vector(entries)
