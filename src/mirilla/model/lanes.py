"""Sixteen float32 side by side, for kernels compiled by Numba: loads, stores and arithmetic on LLVM's vectors.

LLVM turns them into whatever the processor has: one AVX-512 register, two of AVX2, four of NEON. Written out this way a
kernel keeps its sums in registers; left to itself the compiler checks at every short loop whether arrays overlap.

Indices count float32 from the beginning of an array, whatever its shape, and are not checked.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 16


def _compiled(function: Any) -> Any:
    """An intrinsic; the first argument of its function is not its caller's."""
    return intrinsic(function)


class Lanes(types.Type):
    def __init__(self):
        super().__init__("Lanes")


LANES_TYPE = Lanes()
_VECTOR = ir.VectorType(ir.FloatType(), LANES)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, frontend_type):
        super().__init__(manager, frontend_type, _VECTOR)


def _pointer(context, builder, array_type, array, index, to):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), to.as_pointer())


def _splat(builder, scalar):
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), mask)


@_compiled
def load(typing, array, index):
    """The sixteen values from `index` on."""

    def generate(context, builder, signature, args):
        value = builder.load(_pointer(context, builder, signature.args[0], args[0], args[1], _VECTOR))
        value.align = 4
        return value

    return LANES_TYPE(array, types.intp), generate


@_compiled
def store(typing, array, index, value):
    """Write sixteen values from `index` on."""

    def generate(context, builder, signature, args):
        at = _pointer(context, builder, signature.args[0], args[0], args[1], _VECTOR)
        builder.store(args[2], at).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, LANES_TYPE), generate


@_compiled
def spread(typing, array, index):
    """Sixteen times the value at `index`."""

    def generate(context, builder, signature, args):
        value = builder.load(_pointer(context, builder, signature.args[0], args[0], args[1], ir.FloatType()))
        value.align = 4
        return _splat(builder, value)

    return LANES_TYPE(array, types.intp), generate


@_compiled
def zeros(typing):
    """Sixteen noughts."""
    return LANES_TYPE(), lambda context, builder, signature, args: ir.Constant(_VECTOR, [0.0] * LANES)


@_compiled
def add(typing, a, b):
    return LANES_TYPE(a, b), lambda context, builder, signature, args: builder.fadd(*args)


@_compiled
def sub(typing, a, b):
    return LANES_TYPE(a, b), lambda context, builder, signature, args: builder.fsub(*args)


@_compiled
def mul(typing, a, b):
    return LANES_TYPE(a, b), lambda context, builder, signature, args: builder.fmul(*args)


@_compiled
def fma(typing, a, b, c):
    """a * b + c, rounded once where the processor can."""

    def generate(context, builder, signature, args):
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fmuladd.v{LANES}f32"
        )
        return builder.call(function, args)

    return LANES_TYPE(a, b, c), generate


@_compiled
def relu6(typing, a):
    """Clipped to 0..6; what is no number stays none."""

    def generate(context, builder, signature, args):
        low, high = ir.Constant(_VECTOR, [0.0] * LANES), ir.Constant(_VECTOR, [6.0] * LANES)
        value = builder.select(builder.fcmp_ordered("<", args[0], low), low, args[0])
        return builder.select(builder.fcmp_ordered(">", value, high), high, value)

    return LANES_TYPE(a), generate


@_compiled
def relu6_gate(typing, a, gradient):
    """`gradient` where 0 < a < 6, else 0."""

    def generate(context, builder, signature, args):
        low, high = ir.Constant(_VECTOR, [0.0] * LANES), ir.Constant(_VECTOR, [6.0] * LANES)
        inside = builder.and_(builder.fcmp_ordered(">", args[0], low), builder.fcmp_ordered("<", args[0], high))
        return builder.select(inside, args[1], low)

    return LANES_TYPE(a, gradient), generate
