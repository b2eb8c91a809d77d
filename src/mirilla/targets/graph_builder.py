"""Writing TensorFlow GraphDefs node by node, with the names that TensorFlow 1's Python API gives.

A tensor is named by a string: 'node' is a node's first output and 'node:1' its second. Attributes that later
versions of TensorFlow added with a default are not written, so that old readers accept the graph.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mirilla.protos import tensorflow_pb2
from mirilla.protos.tensorflow_pb2 import AttrValue, GraphDef, TensorProto, TensorShapeProto

PRODUCER = 24  # TensorFlow 1.4's version number: it and all later versions accept the graph

_DTYPES = {
    "float32": tensorflow_pb2.DT_FLOAT,
    "uint8": tensorflow_pb2.DT_UINT8,
    "int32": tensorflow_pb2.DT_INT32,
    "int64": tensorflow_pb2.DT_INT64,
    "bool": tensorflow_pb2.DT_BOOL,
    "string": tensorflow_pb2.DT_STRING,
    "resource": tensorflow_pb2.DT_RESOURCE,
}


@dataclass(frozen=True)
class DType:
    """A data type as an attribute: DType('float32')."""

    name: str


@dataclass(frozen=True)
class Shape:
    """A shape as an attribute; None is an unknown dimension."""

    dims: tuple[int | None, ...]


FLOAT, INT32, INT64, RESOURCE = DType("float32"), DType("int32"), DType("int64"), DType("resource")
UINT8, STRING = DType("uint8"), DType("string")
Attribute = (
    DType | Shape | NDArray | TensorProto | bool | int | float | bytes | list[int] | Sequence[DType] | Sequence[Shape]
)
Body = Callable[[list[str]], Sequence[str]]
Input = tuple[str, DType]  # a tensor and its type
Element = tuple[DType, tuple[int | None, ...]]  # type and shape of an element of an output


@dataclass(frozen=True)
class _Source:
    """An input of a loop: its TensorArray, the flow that orders reads after the writing, and its type."""

    array: str
    flow: str
    dtype: DType


class GraphBuilder:
    """Adds nodes to `graph_def`; repeated names and scopes are numbered as in TensorFlow 1 ('x', 'x_1', ...)."""

    def __init__(self):
        self.graph_def = GraphDef()
        self.graph_def.versions.producer = PRODUCER
        self._names: set[str] = set()
        self._scope = ""
        self._pivot: str | None = None  # control input of the constants in a loop's body

    @contextlib.contextmanager
    def scope(self, name: str, *, again: bool = False) -> Iterator[str]:
        """Prefix the names of the nodes added inside; a name that is taken gets a number unless `again`."""
        outer = self._scope
        path = outer + name
        self._scope = (path if again else self._unique(path)) + "/"
        try:
            yield self._scope
        finally:
            self._scope = outer

    def op(self, op: str, *inputs: str, name: str | None = None, at: str | None = None, **attributes: Attribute) -> str:
        """Add a node and return its name.

        Args:
            op, inputs: the operation, and names of tensors.
            name: within the scope; the op's own name by default.
            at: instead of `name`: the path of a scope, for the node that the other nodes of the scope belong to
                ('add/y' belongs to 'add').
            attributes: of the node.
        """
        path = at.rstrip("/") if at else self._unique(self._scope + (name or op))
        node = self.graph_def.node.add(op=op, name=path)
        node.input.extend(inputs)
        if not inputs and self._pivot:
            node.input.append(f"^{self._pivot}")
        for key in sorted(attributes):
            _set_attribute(node.attr[key], attributes[key])
        return node.name

    def const(self, value: ArrayLike, name: str = "Const", dtype: str | None = None, *, at: str | None = None) -> str:
        """Add a constant; Python integers become int32 and floats float32. `at` as for `op`."""
        array = np.asarray(value)
        if dtype is None and array.dtype.kind in "if" and not isinstance(value, np.ndarray):
            dtype = "int32" if array.dtype.kind == "i" else "float32"
        array = array.astype(dtype or array.dtype)
        return self.op("Const", name=name, at=at, dtype=DType(array.dtype.name), value=array)

    def strings(self, value: bytes | Sequence[bytes], name: str) -> str:
        """Add a constant string, or a list of them."""
        values = [value] if isinstance(value, bytes) else value
        tensor = TensorProto(dtype=tensorflow_pb2.DT_STRING, string_val=values)
        _set_shape(tensor.tensor_shape, () if isinstance(value, bytes) else (len(values),))
        return self.op("Const", name=name, dtype=STRING, value=tensor)

    def placeholder(self, name: str, shape: tuple[int | None, ...], dtype: DType = FLOAT) -> str:
        """Add an input."""
        return self.op("Placeholder", name=name, dtype=dtype, shape=Shape(shape))

    def first_of_shape(self, shape: str, index: int = 0) -> str:
        """`shape[index]` of a Shape's output."""
        with self.scope("strided_slice") as path:
            slices = [self.const([i], name) for i, name in ((index, "stack"), (index + 1, "stack_1"), (1, "stack_2"))]
        return self.op(
            "StridedSlice",
            shape,
            *slices,
            at=path,
            Index=INT32,
            T=INT32,
            begin_mask=0,
            ellipsis_mask=0,
            end_mask=0,
            new_axis_mask=0,
            shrink_axis_mask=1,
        )

    def map_over(
        self,
        inputs: Sequence[Input],
        body: Body,
        outputs: Sequence[Element],
    ) -> list[str]:
        """tf.map_fn of TensorFlow 1: a while loop over the first dimension, through TensorArrays.

        Args:
            inputs: tensors with the same first dimension, and their types.
            body: given an element of each input, adds nodes and returns an element of each output. It must not
                use tensors from outside the loop.
            outputs: type and shape of the elements of each output.

        Returns:
            The outputs, stacked.
        """
        with self.scope("map"):
            return self._map(inputs, body, outputs)

    def _map(self, inputs: Sequence[Input], body: Body, outputs: Sequence[Element]) -> list[str]:
        count = self.first_of_shape(self.op("Shape", inputs[0][0], T=inputs[0][1], out_type=INT32))
        arrays = [self._tensor_array(count, dtype) for _, dtype in inputs]
        sources = [
            _Source(array, self._unstack(array, tensor, dtype), dtype)
            for array, (tensor, dtype) in zip(arrays, inputs, strict=True)
        ]
        start = self.const(0)
        results = [self._tensor_array(count, dtype) for dtype, _ in outputs]
        with self.scope("while") as path:
            types = [dtype for dtype, _ in outputs]
            exits = self._loop(path, start, count, sources, body, list(zip(results, types, strict=True)))
        return [
            self._stack(array, flow, dtype, shape)
            for array, flow, (dtype, shape) in zip(results, exits, outputs, strict=True)
        ]

    def _tensor_array(self, size: str, dtype: DType) -> str:
        return self.op(
            "TensorArrayV3",
            size,
            name="TensorArray",
            dtype=dtype,
            clear_after_read=True,
            dynamic_size=False,
            tensor_array_name=b"",
        )

    def _unstack(self, array: str, tensor: str, dtype: DType) -> str:
        with self.scope("TensorArrayUnstack"):
            size = self.first_of_shape(self.op("Shape", tensor, T=dtype, out_type=INT32))
            index = self._range(size)
            with self.scope("TensorArrayScatter"):
                return self.op("TensorArrayScatterV3", array, index, tensor, f"{array}:1", T=dtype)

    def _stack(self, array: str, flow: str, dtype: DType, shape: tuple[int | None, ...]) -> str:
        with self.scope("TensorArrayStack"):
            index = self._range(self.op("TensorArraySizeV3", array, flow))
            return self.op("TensorArrayGatherV3", array, index, flow, dtype=dtype, element_shape=Shape(shape))

    def _range(self, size: str) -> str:
        with self.scope("range") as path:
            start, delta = self.const(0, "start"), self.const(1, "delta")
        return self.op("Range", start, size, delta, at=path, Tidx=INT32)

    def _loop(
        self,
        path: str,
        start: str,
        count: str,
        sources: Sequence[_Source],
        body: Body,
        results: Sequence[tuple[str, DType]],  # TensorArrays
    ) -> list[str]:
        def enter(tensor: str, dtype: DType, name: str = "Enter", constant: bool = True) -> str:
            return self.op(
                "Enter",
                tensor,
                name=name,
                T=dtype,
                is_constant=constant,
                frame_name=f"{path}while_context".encode(),
                parallel_iterations=32,
            )

        variables = [
            (self.const(0, "iteration_counter"), INT32),
            (start, INT32),
            *((f"{array}:1", FLOAT) for array, _ in results),
        ]
        entered = [enter(tensor, dtype, constant=False) for tensor, dtype in variables]
        following = [_numbered(path + "NextIteration", i) for i in range(len(variables))]
        merged = [
            self.op("Merge", tensor, later, N=2, T=dtype)
            for tensor, later, (_, dtype) in zip(entered, following, variables, strict=True)
        ]
        limit = enter(count, INT32, "Less/Enter")
        less = [self.op("Less", tensor, limit, T=INT32) for tensor in merged[:2]]
        again = self.op("LoopCond", self.op("LogicalAnd", *less))
        switched = [
            self.op("Switch", tensor, again, T=dtype) for tensor, (_, dtype) in zip(merged, variables, strict=True)
        ]
        states = [
            self.op("Identity", f"{tensor}:1", T=dtype) for tensor, (_, dtype) in zip(switched, variables, strict=True)
        ]
        self._pivot = states[0]
        turns = self._plus_one(states[0])
        elements = []
        for i, source in enumerate(sources):
            name = _numbered("TensorArrayReadV3", i)
            array = enter(source.array, RESOURCE, f"{name}/Enter")
            flow = enter(source.flow, FLOAT, f"{name}/Enter_1")
            elements.append(self.op("TensorArrayReadV3", array, states[1], flow, name=name, dtype=source.dtype))
        written = []
        for (array, dtype), value, flow in zip(results, body(elements), states[2:], strict=True):
            with self.scope("TensorArrayWrite"):
                handle = enter(array, RESOURCE, "TensorArrayWriteV3/Enter")
                written.append(self.op("TensorArrayWriteV3", handle, states[1], value, flow, T=dtype))
        index = self._plus_one(states[1])
        self._pivot = None
        for value, (_, dtype) in zip((turns, index, *written), variables, strict=True):
            self.op("NextIteration", value, T=dtype)
        return [
            self.op("Exit", tensor, name=_numbered("Exit", i), T=FLOAT)
            for i, tensor in enumerate(switched[2:], start=2)
        ]

    def _plus_one(self, tensor: str) -> str:
        with self.scope("add") as path:
            one = self.const(1, "y")
        return self.op("Add", tensor, one, at=path, T=INT32)

    def _unique(self, path: str) -> str:
        candidate, i = path, 0
        while candidate in self._names:
            i += 1
            candidate = _numbered(path, i)
        self._names.add(candidate)
        return candidate


def _numbered(name: str, index: int) -> str:
    return f"{name}_{index}" if index else name


def _set_attribute(attribute: AttrValue, value: Attribute) -> None:
    if isinstance(value, DType):
        attribute.type = _DTYPES[value.name]
    elif isinstance(value, Shape):
        _set_shape(attribute.shape, value.dims)
    elif isinstance(value, np.ndarray):
        _set_tensor(attribute.tensor, value)
    elif isinstance(value, TensorProto):
        attribute.tensor.CopyFrom(value)
    elif isinstance(value, bool):
        attribute.b = value
    elif isinstance(value, int):
        attribute.i = value
    elif isinstance(value, float):
        attribute.f = value
    elif isinstance(value, bytes):
        attribute.s = value
    else:
        _set_list(attribute.list, value)


def _set_list(values: AttrValue.ListValue, items: Sequence[int] | Sequence[DType] | Sequence[Shape]) -> None:
    values.SetInParent()
    for item in items:
        if isinstance(item, DType):
            values.type.append(_DTYPES[item.name])
        elif isinstance(item, Shape):
            _set_shape(values.shape.add(), item.dims)
        else:
            values.i.append(item)


def _set_shape(shape: TensorShapeProto, dims: Sequence[int | None]) -> None:
    shape.SetInParent()
    for size in dims:
        shape.dim.add(size=-1 if size is None else size)


def _set_tensor(tensor: TensorProto, value: NDArray) -> None:
    tensor.dtype = _DTYPES[value.dtype.name]
    _set_shape(tensor.tensor_shape, value.shape)
    if value.size != 1:
        tensor.tensor_content = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()
    elif value.dtype == np.float32:  # TensorFlow writes single values so, and old readers expect it
        tensor.float_val.append(value.item())
    else:
        tensor.int_val.append(value.item())
