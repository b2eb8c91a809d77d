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


class Pixels(types.Type):
    """Sixteen pixels of up to four bytes."""

    def __init__(self):
        super().__init__("Pixels")


LANES_TYPE, PIXELS_TYPE = Lanes(), Pixels()
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_WORD = ir.IntType(32)
_WORDS = ir.VectorType(_WORD, LANES)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, frontend_type):
        super().__init__(manager, frontend_type, _VECTOR)


@register_model(Pixels)
class _PixelsModel(models.PrimitiveModel):
    def __init__(self, manager, frontend_type):
        super().__init__(manager, frontend_type, _WORDS)


def _pointer(context, builder, array_type, array, index, to):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), to.as_pointer())


def _splat(builder, scalar):
    undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(_WORD, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(_WORDS, [0] * LANES))


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


@_compiled
def pixels(typing, source, places, index):
    """Four bytes each of `source` (uint8) from `places` (int32) on; `index` counts places."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        where = builder.load(_pointer(context, builder, signature.args[1], args[1], args[2], _WORDS))
        where.align = 4
        found = ir.Constant(_WORDS, ir.Undefined)
        for i in range(LANES):
            lane = ir.Constant(_WORD, i)
            place = builder.gep(data, [builder.extract_element(where, lane)])
            word = builder.load(builder.bitcast(place, _WORD.as_pointer()))
            word.align = 1
            found = builder.insert_element(found, word, lane)
        return found

    return PIXELS_TYPE(source, places, types.intp), generate


@_compiled
def channel(typing, pixels, number):
    """The bytes of one channel, 0 to 3, as float32; the processor's lowest byte is the first."""

    def generate(context, builder, signature, args):
        shift = _splat(builder, builder.mul(builder.trunc(args[1], _WORD), ir.Constant(_WORD, 8)))
        byte = builder.and_(builder.lshr(args[0], shift), ir.Constant(_WORDS, [255] * LANES))
        return builder.sitofp(byte, _VECTOR)

    return LANES_TYPE(pixels, types.intp), generate


@_compiled
def prefetch(typing, source, index):
    """Begin to fetch the bytes around source[index] (uint8) into the cache; the index may lie outside."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        flags = [ir.Constant(_WORD, value) for value in (0, 3, 1)]  # to read, soon and often, data
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [data.type, _WORD, _WORD, _WORD]), "llvm.prefetch.p0"
        )
        builder.call(function, [builder.gep(data, [args[1]]), *flags])
        return context.get_dummy_value()

    return types.void(source, types.intp), generate
