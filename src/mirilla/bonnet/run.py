"""Run a compiled model on the desk: what the bonnet computes, driven by the file alone.

    model = CompiledModel.load("face.binaryproto")
    outputs = model.run(pictures)                      # (N, H, W, 3) normalised -> {name: (N, h, w, d)}
    outputs = model.run_image(rgb, mean=128, stddev=128)

Weights have the file's fp16 precision. Activations are float32, or rounded to fp16 after every op with
`fp16_activations`, as the device stores them. How the device adds up inside an op is not known, so results
are near the device's, not equal to them (docs/bonnet-format.md tells how near).
"""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirilla.bonnet import format, kernels
from mirilla.bonnet.kernels import Floats, Function, Shape
from mirilla.bonnet.pixels import normalise, resize
from mirilla.errors import ModelError

BORDER = 2  # pixels that PadMyriad and ReorderBrcdToBdrcMyriad put on each side of a map
PROGRAMS_KEPT = 4  # input sizes for which the prepared steps are kept


@dataclass(frozen=True)
class Limits:
    """What a model may ask of this machine; the defaults stop only nonsense.

    tensor_elements: of one activation.
    multiplications: of one picture.
    """

    tensor_elements: int = 1 << 27
    multiplications: int = 10**12


@dataclass(frozen=True)
class Step:
    """One op, prepared: reads activations by name, writes one, and says which are not needed any more."""

    reads: tuple[str, ...]
    writes: str
    function: Function
    drops: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """All the steps for one input size, and the shapes of the outputs."""

    steps: tuple[Step, ...]
    shapes: dict[str, Shape]
    multiplications: int


class CompiledModel:
    """A compiled model, ready to run. Safe to use from several threads.

    Attributes:
        model: the parsed file.
        input_name, output_names: tensors' names.
        input_channels: depth of the input tensor.
        input_size: (height, width) that the memory plan was made for, None when the file does not tell.
    """

    def __init__(self, model: format.Model, *, where: str = "the model", fp16_activations: bool = False,
                 input_size: tuple[int, int] | None = None, limits: Limits | None = None):
        self.model = model
        self.where = where
        self.fp16_activations = fp16_activations
        self.limits = limits or Limits()
        self.input_name: str = model.input or ""
        self.output_names = model.outputs
        self._constants = {one.name or "": one.values.astype(np.float32) for one in model.constants}
        self.input_channels = self._input_channels()
        self.input_size = input_size or self._planned_size()
        self._programs: OrderedDict[tuple[int, int], Program] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, fp16_activations: bool = False,
             input_size: tuple[int, int] | None = None) -> CompiledModel:
        """Read a `.binaryproto`.

        Args:
            fp16_activations: round every op's output to fp16 (not the picture itself).
            input_size: (height, width), needed only for inputs that are not square.

        Raises:
            ModelError: the file is none, or holds an op that is not known.
            MirillaError: it cannot be read.
        """
        return cls(format.read(path), where=os.fspath(path), fp16_activations=fp16_activations,
                   input_size=input_size)

    @classmethod
    def parse(cls, content: bytes, where: str = "the model", *, fp16_activations: bool = False,
              input_size: tuple[int, int] | None = None, limits: Limits | None = None) -> CompiledModel:
        """The same from a file's bytes."""
        return cls(format.parse(content, where), where=where, fp16_activations=fp16_activations,
                   input_size=input_size, limits=limits)

    def run(self, pictures: NDArray[np.floating]) -> dict[str, Floats]:
        """Outputs of normalised pictures.

        Args:
            pictures: (N, H, W, C), already (pixel - mean) / stddev.

        Returns:
            {output name: (N, rows, columns, depth) float32}.

        Raises:
            ModelError: the pictures' shape does not fit the model.
        """
        x = np.asarray(pictures, np.float32)
        if x.ndim != 4 or x.shape[3] != self.input_channels or not len(x):
            raise ModelError(f"{self.where}: the input has shape {x.shape}; the rule is (pictures, height, "
                             f"width, {self.input_channels}) with at least one picture.")
        program = self.program(x.shape[1], x.shape[2])
        results = [self._run_one(program, one) for one in x]
        return {name: np.stack([one[name] for one in results]) for name in self.output_names}

    def run_image(
        self, rgb: NDArray[np.uint8], mean: float = 127.5, stddev: float = 127.5
    ) -> dict[str, Floats]:
        """Outputs of one photo (H, W, 3) of any size, squashed to the input's size and normalised.

        Raises:
            ModelError: the file does not tell its input's size and none was given.
        """
        if self.input_size is None:
            raise ModelError(f"{self.where}: the file does not tell the height and width of its input.",
                             "Give input_size=(height, width).")
        return self.run(normalise(resize(rgb, *self.input_size), mean, stddev)[None])

    def program(self, height: int, width: int) -> Program:
        """The steps for one input size, prepared on first use.

        Raises:
            ModelError: the model cannot work on that size, or asks for more than `limits`.
        """
        with self._lock:
            program = self._programs.get((height, width))
            if program is None:
                program = self._prepare(height, width)
                self._programs[height, width] = program
                if len(self._programs) > PROGRAMS_KEPT:
                    self._programs.popitem(last=False)
            else:
                self._programs.move_to_end((height, width))
            return program

    def _run_one(self, program: Program, picture: Floats) -> dict[str, Floats]:
        held = {self.input_name: picture}
        for step in program.steps:
            held[step.writes] = self._rounded(step.function(*(held[name] for name in step.reads)))
            for name in step.drops:
                del held[name]
        return {name: held[name] for name in self.output_names}

    def _rounded(self, x: Floats) -> Floats:
        if not self.fp16_activations:
            return x
        with np.errstate(over="ignore"):
            return x.astype(np.float16).astype(np.float32)

    def _prepare(self, height: int, width: int) -> Program:
        ops = self.model.ops
        shapes: dict[str, Shape] = {self.input_name: (height, width, self.input_channels)}
        last_use = {name: i for i, op in enumerate(ops) for name in op.inputs}
        steps, work = [], 0
        for i, op in enumerate(ops):
            reads = tuple(name for name in op.inputs if name not in self._constants)
            constants = [self._constants[name] for name in op.inputs if name in self._constants]
            output = op.output or ""
            try:
                inputs = [shapes[name] for name in reads]
                shape, function, cost = _prepare_op(op, inputs, constants)
            except (ValueError, KeyError) as error:
                raise ModelError(
                    f"{self.where}: op {i} ({op.kind}, output '{output}') cannot run on an input of "
                    f"{height}x{width}: {error}.",
                    "Give the size that the model was compiled for, or compile it again.",
                ) from error
            work += cost
            if math.prod(shape) > self.limits.tensor_elements or work > self.limits.multiplications:
                raise ModelError(f"{self.where}: op {i} ({op.kind}) makes a {shape} tensor, after {work} "
                                 f"multiplications; at most {self.limits.tensor_elements} elements and "
                                 f"{self.limits.multiplications} multiplications are allowed.")
            shapes[output] = shape
            drops = {name for name in (*reads, output) if last_use.get(name, i) == i} - set(self.output_names)
            steps.append(Step(reads, output, function, tuple(sorted(drops))))
        missing = [name for name in self.output_names if name not in shapes]
        if missing:
            raise ModelError(f"{self.where}: the output '{missing[0]}' is written by no op.")
        return Program(tuple(steps), shapes, work)

    def _input_channels(self) -> int:
        for op in self.model.ops:
            if op.kind in ("Conv", "DepthwiseConv") and self.input_name in op.inputs[:1]:
                shapes = [self._constants[name].shape for name in op.inputs if name in self._constants]
                if shapes:
                    return shapes[0][3]
        return 3

    def _planned_size(self) -> tuple[int, int] | None:
        """The side of a square input: what op 0's plan counts beside its output and scratch is the input."""
        op = self.model.ops[0]
        if op.plan is None or op.plan.in_use is None or op.plan.output_bytes is None or op.plan.in_place:
            return None
        if [name for name in op.inputs if name not in self._constants] != [self.input_name]:
            return None
        bytes_ = op.plan.in_use - op.plan.output_bytes - (op.plan.scratch_bytes or 0)
        area, rest = divmod(bytes_, 2 * self.input_channels)
        side = math.isqrt(max(area, 0))
        return (side, side) if side and side * side == area and not rest else None


def _prepare_op(op: format.Op, inputs: list[Shape], constants: list[Floats]) -> tuple[Shape, Function, int]:
    """(output shape, function, multiplications) of an op; ValueError says what does not fit."""
    kind = op.kind or ""
    if kind == "Concat":
        return _prepare_concat(op, inputs)
    if len(inputs) != 1:
        raise ValueError(f"it reads {len(inputs)} activations, and the rule is 1")
    wanted = 2 if kind in ("Conv", "DepthwiseConv", "Gemm") else 0
    if len(constants) != wanted:
        raise ValueError(f"it reads {len(constants)} constants, and the rule is {wanted}")
    (shape,) = inputs
    if kind in ("Conv", "DepthwiseConv"):
        return _prepare_convolution(op, shape, *constants)
    if kind == "Gemm":
        return _prepare_gemm(shape, *constants)
    if kind in ("PadMyriad", "ReorderBrcdToBdrcMyriad"):
        # Layout is the device's business; only the border shows in the numbers.
        bordered = (shape[0] + 2 * BORDER, shape[1] + 2 * BORDER, shape[2])
        if kind == "ReorderBrcdToBdrcMyriad" and not (op.plan and op.plan.post == format.POST_PAD):
            return shape, _same, 0
        return bordered, lambda x: kernels.pad(x, ((BORDER, BORDER), (BORDER, BORDER))), 0
    if kind == "ReorderBdrcToBrcdMyriad":
        if min(shape[:2]) <= 2 * BORDER:
            raise ValueError(f"a {shape[0]}x{shape[1]} map has no border of {BORDER} to crop")
        cropped = (shape[0] - 2 * BORDER, shape[1] - 2 * BORDER, shape[2])
        return cropped, lambda x: np.ascontiguousarray(x[BORDER:-BORDER, BORDER:-BORDER]), 0
    if kind == "Relu6":
        return shape, lambda x: np.clip(x, 0, 6), 0
    if kind == "AveragePool":
        stride, same, window = _kernel(op)
        out, function = kernels.prepare_average_pool(shape, window, stride, same)
        return out, function, math.prod(out) * math.prod(window)
    if kind == "Reshape":
        return _prepare_reshape(op, shape)
    if kind == "SoftmaxActivation":
        beta = op.softmax.beta if op.softmax and op.softmax.beta is not None else 1.0
        return shape, lambda x: kernels.softmax(x, beta), math.prod(shape)
    raise ValueError("this kind of op is not known")


def _same(x: Floats) -> Floats:
    return x


def _kernel(op: format.Op) -> tuple[int, bool, tuple[int, int]]:
    """(stride, SAME?, (rows, columns)) of an op's kernel message."""
    kernel = op.kernel
    if kernel is None or not kernel.stride or not kernel.height or not kernel.width:
        raise ValueError("its kernel lacks a stride, height or width")
    if kernel.padding not in (format.PADDING_SAME, format.PADDING_VALID):
        raise ValueError(f"padding {kernel.padding} is neither VALID (1) nor SAME (2)")
    return kernel.stride, kernel.padding == format.PADDING_SAME, (kernel.height, kernel.width)


def _prepare_convolution(
    op: format.Op, shape: Shape, weights: Floats, bias: Floats
) -> tuple[Shape, Function, int]:
    stride, same, window = _kernel(op)
    relu6 = _relu6(op)
    depthwise = op.kind == "DepthwiseConv"
    depth = weights.shape[3] if depthwise else weights.shape[0]
    if weights.shape[1:3] != window or weights.shape[3] != shape[2] or (depthwise and weights.shape[0] != 1):
        raise ValueError(f"weights {weights.shape} do not fit a {shape} input and a {window} kernel")
    if bias.size != depth:
        raise ValueError(f"a bias of {bias.size} numbers does not fit {depth} channels")
    if op.multiplier is not None and op.multiplier.depth != 1:
        raise ValueError(f"a depth multiplier of {op.multiplier.depth} is not supported")
    bias = bias.reshape(-1)
    planar = bool(op.plan and op.plan.planar)
    if not depthwise:
        out, function = kernels.prepare_conv(shape, weights, bias, stride, same, relu6)
        return out, function, math.prod(out) * weights[0].size
    if planar:
        if stride != 1 or not same or max(window) > 2 * BORDER + 1:
            raise ValueError("a planar depthwise convolution has stride 1, SAME padding and a kernel of at "
                             f"most {2 * BORDER + 1}")
        out, function = kernels.prepare_planar_depthwise(shape, weights, bias, relu6)
    else:
        out, function = kernels.prepare_depthwise(shape, weights, bias, stride, same, relu6)
    return out, function, math.prod(out) * math.prod(window)


def _relu6(op: format.Op) -> bool:
    post = op.plan.post if op.plan else None
    if post not in (None, 0, format.POST_RELU6):
        raise ValueError(f"the fused operation {post} is not known here")
    return post == format.POST_RELU6


def _prepare_gemm(shape: Shape, weights: Floats, bias: Floats) -> tuple[Shape, Function, int]:
    out, inner = weights.shape[:2]
    if weights.size != out * inner or math.prod(shape) != inner or bias.size != out:
        raise ValueError(f"weights {weights.shape} and a bias of {bias.size} do not fit a {shape} input")
    matrix, row = weights.reshape(out, inner), bias.reshape(-1)
    return (1, 1, out), lambda x: (matrix @ x.reshape(-1) + row).reshape(1, 1, out), weights.size


def _prepare_reshape(op: format.Op, shape: Shape) -> tuple[Shape, Function, int]:
    target = op.target
    if target is None:
        raise ValueError("it does not say which shape to make")
    wanted = (target.rows or 0, target.cols or 0, target.depth or 0)
    if math.prod(wanted) != math.prod(shape):
        raise ValueError(f"a {shape} tensor cannot become {wanted}")
    return wanted, lambda x: x.reshape(wanted), 0


def _prepare_concat(op: format.Op, inputs: list[Shape]) -> tuple[Shape, Function, int]:
    axis = op.join.axis if op.join else None
    if axis not in (1, 2, 3):
        raise ValueError(f"axis {axis} is not one of rows (1), columns (2) and depth (3)")
    if not inputs or len(inputs) != len(op.inputs):
        raise ValueError("it joins activations only, and at least one")
    others = {tuple(size for k, size in enumerate(shape, 1) if k != axis) for shape in inputs}
    if len(others) > 1:
        raise ValueError(f"shapes {inputs} differ off the axis {axis}")
    joined = list(inputs[0])
    joined[axis - 1] = sum(shape[axis - 1] for shape in inputs)
    out: Shape = (joined[0], joined[1], joined[2])
    return out, lambda *parts: np.concatenate(parts, axis - 1), 0
