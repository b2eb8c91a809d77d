"""SIMD for kernels compiled by Numba: vectors of 16 float32, with loads, stores and arithmetic.

LLVM maps a vector to the processor's registers: one AVX-512 register, two AVX2 registers or four NEON registers. With
explicit vectors, kernels keep their sums in registers; without them, the compiler would check before every short loop
whether arrays overlap.

Indices count float32 values from the start of an array, whatever its shape, and are not checked.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from mirilla.kernels.compiler import inlined

LANES = 16


def _intrinsic(function: Callable[..., object]) -> Callable[..., object]:
    """`numba.extending.intrinsic`; callers do not pass the function's first argument, the typing context."""
    return intrinsic(function)


class Float32Vector(types.Type):
    """16 float32."""

    def __init__(self):
        super().__init__("Float32Vector")


class PixelVector(types.Type):
    """16 pixels of up to four bytes each."""

    def __init__(self):
        super().__init__("PixelVector")


FLOATS, PIXELS = Float32Vector(), PixelVector()
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_WORD = ir.IntType(32)
_WORDS = ir.VectorType(_WORD, LANES)


@register_model(Float32Vector)
class _Float32VectorModel(models.PrimitiveModel):
    def __init__(self, manager, frontend_type):
        super().__init__(manager, frontend_type, _VECTOR)


@register_model(PixelVector)
class _PixelVectorModel(models.PrimitiveModel):
    def __init__(self, manager, frontend_type):
        super().__init__(manager, frontend_type, _WORDS)


def _pointer(context, builder, array_type, array, index, to):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), to.as_pointer())


def _broadcast(builder, scalar):
    undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_WORD, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_WORDS, [0] * LANES))


@_intrinsic
def load(typing, array, index):
    """Load 16 values, starting at `index`."""

    def generate(context, builder, signature, args):
        value = builder.load(_pointer(context, builder, signature.args[0], args[0], args[1], _VECTOR))
        value.align = 4
        return value

    return FLOATS(array, types.intp), generate


@_intrinsic
def store(typing, array, index, value):
    """Store 16 values, starting at `index`."""

    def generate(context, builder, signature, args):
        at = _pointer(context, builder, signature.args[0], args[0], args[1], _VECTOR)
        builder.store(args[2], at).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, FLOATS), generate


@_intrinsic
def broadcast(typing, array, index):
    """The value at `index`, 16 times."""

    def generate(context, builder, signature, args):
        value = builder.load(_pointer(context, builder, signature.args[0], args[0], args[1], ir.FloatType()))
        value.align = 4
        return _broadcast(builder, value)

    return FLOATS(array, types.intp), generate


@_intrinsic
def zeros(typing):
    """16 zeros."""
    return FLOATS(), lambda context, builder, signature, args: ir.Constant(_VECTOR, [0.0] * LANES)


@_intrinsic
def add(typing, a, b):
    return FLOATS(a, b), lambda context, builder, signature, args: builder.fadd(*args)


@_intrinsic
def sub(typing, a, b):
    return FLOATS(a, b), lambda context, builder, signature, args: builder.fsub(*args)


@_intrinsic
def mul(typing, a, b):
    return FLOATS(a, b), lambda context, builder, signature, args: builder.fmul(*args)


@_intrinsic
def fma(typing, a, b, c):
    """a * b + c, rounded once where the processor has a fused multiply-add."""

    def generate(context, builder, signature, args):
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fmuladd.v{LANES}f32"
        )
        return builder.call(function, args)

    return FLOATS(a, b, c), generate


@_intrinsic
def relu6(typing, a):
    """Clip to 0..6; NaN stays NaN."""

    def generate(context, builder, signature, args):
        low, high = ir.Constant(_VECTOR, [0.0] * LANES), ir.Constant(_VECTOR, [6.0] * LANES)
        value = builder.select(builder.fcmp_ordered("<", args[0], low), low, args[0])
        return builder.select(builder.fcmp_ordered(">", value, high), high, value)

    return FLOATS(a), generate


@_intrinsic
def relu6_gate(typing, a, gradient):
    """`gradient` where 0 < a < 6, else 0."""

    def generate(context, builder, signature, args):
        low, high = ir.Constant(_VECTOR, [0.0] * LANES), ir.Constant(_VECTOR, [6.0] * LANES)
        inside = builder.and_(builder.fcmp_ordered(">", args[0], low), builder.fcmp_ordered("<", args[0], high))
        return builder.select(inside, args[1], low)

    return FLOATS(a, gradient), generate


@_intrinsic
def gather_pixels(typing, source, offsets, index):
    """16 pixels: four bytes of `source` (uint8) at each of offsets[index:index + 16] (int32)."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        positions = builder.load(_pointer(context, builder, signature.args[1], args[1], args[2], _WORDS))
        positions.align = 4
        pixels = ir.Constant(_WORDS, ir.Undefined)
        for i in range(LANES):
            lane = ir.Constant(_WORD, i)
            address = builder.gep(data, [builder.extract_element(positions, lane)])
            word = builder.load(builder.bitcast(address, _WORD.as_pointer()))
            word.align = 1
            pixels = builder.insert_element(pixels, word, lane)
        return pixels

    return PIXELS(source, offsets, types.intp), generate


@_intrinsic
def pixel_channel(typing, pixels, number):
    """One channel (0 to 3) of 16 pixels as float32. Assumes a little-endian processor."""

    def generate(context, builder, signature, args):
        shift = _broadcast(builder, builder.mul(builder.trunc(args[1], _WORD), ir.Constant(_WORD, 8)))
        byte = builder.and_(builder.lshr(args[0], shift), ir.Constant(_WORDS, [255] * LANES))
        return builder.sitofp(byte, _VECTOR)

    return FLOATS(pixels, types.intp), generate


@_intrinsic
def prefetch(typing, source, index):
    """Start loading the cache line of source[index] (uint8); the index may be out of bounds."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        flags = [ir.Constant(_WORD, value) for value in (0, 3, 1)]  # read, high locality, data cache
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [data.type, _WORD, _WORD, _WORD]), "llvm.prefetch.p0"
        )
        builder.call(function, [builder.gep(data, [args[1]]), *flags])
        return context.get_dummy_value()

    return types.void(source, types.intp), generate


@inlined
def inner_products(values, at, step, next_sum, weights, weights_at, weights_step, count):
    """Eight inner products of scalars with vectors of weights, for example 16 output channels of eight pixels.

    Sum i adds up values[at + k * step + i * next_sum] * weights[weights_at + k * weights_step] over k < count, in
    this order.
    """
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = zeros()
    for k in range(count):
        w = load(weights, weights_at + k * weights_step)
        i = at + k * step
        s0 = fma(broadcast(values, i), w, s0)
        s1 = fma(broadcast(values, i + next_sum), w, s1)
        s2 = fma(broadcast(values, i + 2 * next_sum), w, s2)
        s3 = fma(broadcast(values, i + 3 * next_sum), w, s3)
        s4 = fma(broadcast(values, i + 4 * next_sum), w, s4)
        s5 = fma(broadcast(values, i + 5 * next_sum), w, s5)
        s6 = fma(broadcast(values, i + 6 * next_sum), w, s6)
        s7 = fma(broadcast(values, i + 7 * next_sum), w, s7)
    return s0, s1, s2, s3, s4, s5, s6, s7


@inlined
def load_3x3(weights, c, channels):
    """Vectors of a 3x3 depthwise kernel, weights (9, channels): channels c to c + 16."""
    return (
        load(weights, c),
        load(weights, channels + c),
        load(weights, 2 * channels + c),
        load(weights, 3 * channels + c),
        load(weights, 4 * channels + c),
        load(weights, 5 * channels + c),
        load(weights, 6 * channels + c),
        load(weights, 7 * channels + c),
        load(weights, 8 * channels + c),
    )
