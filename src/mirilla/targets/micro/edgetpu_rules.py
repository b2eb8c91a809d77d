"""Which operators of a TensorFlow Lite model run on Google's Edge TPU.

Its compiler is closed. These are our own rules, after its documentation ("TensorFlow models on the Edge TPU": model
requirements, and the table of supported operations with their limitations). What depends on an operator that does not
map runs on the CPU as well, since the compiler makes one part for the Edge TPU, from the input on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mirilla.targets.tflite.schema import Fused, Model, Op, Operator, Tensor

_EIGHT_BITS = (np.dtype("i1"), np.dtype("u1"))
_PARAMETERS = (np.dtype("i1"), np.dtype("u1"), np.dtype("i4"))  # weights, biases, shapes
_INNER = 3  # dimensions that may be larger than 1
_SOFTMAX_MOST = 16_000
_WEIGHTED = (Op.CONV_2D, Op.DEPTHWISE_CONV_2D, Op.FULLY_CONNECTED)


@dataclass(frozen=True)
class Placement:
    """Where an operator runs.

    op: its type. tensor: name of its first output. reason: why it runs on the CPU; empty on the Edge TPU.
    """

    op: str
    tensor: str
    reason: str

    @property
    def mapped(self) -> bool:
        """Whether it runs on the Edge TPU."""
        return not self.reason


def placements(model: Model) -> list[Placement]:
    """Where each operator of a model runs, in the model's order."""
    on_cpu: set[int] = set()  # tensors
    found = []
    for operator in model.operators:
        at = _At(model, operator)
        follows = on_cpu.intersection(operator.inputs)
        reason = next((why for rule in _RULES if (why := rule(at))), "")
        if not reason and follows:
            reason = f"it follows an operator that runs on the CPU (tensor '{model.tensors[min(follows)].name}')"
        if reason:
            on_cpu.update(operator.outputs)
        name = operator.custom_name or operator.op.name
        found.append(Placement(name, model.tensors[operator.outputs[0]].name, reason))
    return found


class _At:
    """An operator and its tensors."""

    def __init__(self, model: Model, operator: Operator):
        self.model, self.operator, self.op = model, operator, operator.op
        self.inputs = [model.tensors[i] for i in operator.inputs if i >= 0]
        self.outputs = [model.tensors[i] for i in operator.outputs]

    def option(self, number: int) -> float:
        """A field of the operator's options; 0 if it is not set."""
        return next((value for field, _, value in self.operator.options if field == number), 0)

    @property
    def maps(self) -> list[Tensor]:
        """The tensors that are no constants."""
        return [tensor for tensor in (*self.inputs, *self.outputs) if tensor.value is None]


def _supported(at: _At) -> str:
    if at.op not in _LIMITS:
        return f"the Edge TPU has no {at.operator.custom_name or at.op.name}"
    return ""


def _integers(at: _At) -> str:
    for tensor in (*at.inputs, *at.outputs):
        allowed = _EIGHT_BITS if tensor.value is None else _PARAMETERS
        if tensor.dtype not in allowed:
            return f"the tensor '{tensor.name}' is {tensor.dtype.name}, not an 8-bit integer"
    return ""


def _static(at: _At) -> str:
    for tensor in at.maps:
        if any(side < 1 for side in tensor.shape):
            return f"the shape {tensor.shape} of the tensor '{tensor.name}' is not fixed"
    return ""


def _three_dimensions(at: _At) -> str:
    for tensor in at.maps:
        if any(side != 1 for side in tensor.shape[:-_INNER]):
            what = f"the tensor '{tensor.name}' has the shape {tensor.shape}"
            return f"{what}: the batch must be 1, and only the last {_INNER} dimensions may be larger than 1"
    return ""


def _constant_parameters(at: _At) -> str:
    if at.op in _WEIGHTED and any(tensor.value is None for tensor in at.inputs[1:]):
        return "its weights and bias must be constants"
    return ""


def _limits(at: _At) -> str:
    return _LIMITS[at.op](at)


_RULES: tuple[Callable[[_At], str], ...] = (
    _supported,
    _integers,
    _static,
    _three_dimensions,
    _constant_parameters,
    _limits,
)


def _none(at: _At) -> str:
    return ""


def _unfused(field: int) -> Callable[[_At], str]:
    def limit(at: _At) -> str:
        return "it must not have a fused activation" if at.option(field) != Fused.NONE else ""

    return limit


def _concatenation(at: _At) -> str:
    constants = [tensor.value for tensor in at.inputs if tensor.value is not None]
    if constants and (len(at.inputs) != 2 or any(np.any(value) for value in constants)):
        return "a constant input must be all zeros, beside one other input"
    return _unfused(1)(at)


def _dilations(width: int, height: int) -> Callable[[_At], str]:
    def limit(at: _At) -> str:
        same = (at.option(width) or 1) == (at.option(height) or 1)
        return "" if same else "it must have the same dilation in x and y"

    return limit


def _fully_connected(at: _At) -> str:
    if at.option(1):
        return "its weights must have the default format"
    if any(side != 1 for side in at.outputs[0].shape[:-1]):
        return "its output must be one-dimensional"
    return ""


def _softmax(at: _At) -> str:
    shape = at.inputs[0].shape
    if any(side != 1 for side in shape[:-1]) or shape[-1] > _SOFTMAX_MOST:
        return f"its input must be one-dimensional with at most {_SOFTMAX_MOST:,} numbers, not {shape}"
    return ""


def _strided_slice(at: _At) -> str:
    steps = at.inputs[3].value
    if steps is None or np.any(steps != 1) or at.option(2) or at.option(3):
        return "all steps must be 1, without ellipses or new axes"
    return ""


def _pad(at: _At) -> str:
    pads = at.inputs[1].value
    if pads is None or (len(at.inputs[0].shape) > _INNER and np.any(pads[0])):
        return "it must not pad the batch"
    return ""


def _split(at: _At) -> str:
    axis = at.inputs[0].value
    if axis is None or (len(at.inputs[1].shape) > _INNER and int(axis) % len(at.inputs[1].shape) == 0):
        return "it must not split the batch"
    return ""


def _quantize(at: _At) -> str:
    first = set(at.operator.inputs) <= set(at.model.inputs.values())
    last = set(at.operator.outputs) <= set(at.model.outputs.values())
    return "" if first or last else "it maps at the model's input and outputs only"


# supported operators -> their limitations; fields of options by the numbers of TensorFlow's schema
_LIMITS: Mapping[Op, Callable[[_At], str]] = {
    Op.ADD: _none,
    Op.AVERAGE_POOL_2D: _unfused(5),
    Op.CONCATENATION: _concatenation,
    Op.CONV_2D: _dilations(4, 5),
    Op.DEPTHWISE_CONV_2D: _dilations(5, 6),
    Op.FULLY_CONNECTED: _fully_connected,
    Op.LOGISTIC: _none,
    Op.MAX_POOL_2D: _unfused(5),
    Op.MUL: _none,
    Op.PAD: _pad,
    Op.QUANTIZE: _quantize,
    Op.RELU: _none,
    Op.RELU6: _none,
    Op.RESHAPE: _none,
    Op.SOFTMAX: _softmax,
    Op.SPLIT: _split,
    Op.STRIDED_SLICE: _strided_slice,
    Op.SUB: _none,
}
