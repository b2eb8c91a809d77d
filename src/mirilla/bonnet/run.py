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

from mirilla.bonnet import format, run_ops, shapes
from mirilla.bonnet.run_ops import Floats, Function, Shape
from mirilla.errors import ModelError
from mirilla.findings import RuleError
from mirilla.resize import bilinear

PROGRAMS_KEPT = 4  # input sizes for which the prepared steps are kept


@dataclass(frozen=True)
class Limits:
    """What a model may ask of this machine; the defaults stop only nonsense.

    tensor_elements: of one activation.
    live_elements: of all activations that are held at once.
    multiplications: of one picture; every op counts at least one for each number it makes.
    """

    tensor_elements: int = 1 << 27
    live_elements: int = 1 << 29
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

    def __init__(
        self,
        model: format.Model,
        *,
        where: str = "the model",
        fp16_activations: bool = False,
        input_size: tuple[int, int] | None = None,
        limits: Limits | None = None,
    ):
        self.model = model
        self.where = where
        self.fp16_activations = fp16_activations
        self.limits = limits or Limits()
        self.input_name: str = model.input or ""
        self.output_names = model.outputs
        self._constants = {one.name or "": one.values.astype(np.float32) for one in model.constants}
        self.input_channels = shapes.input_map(model, (1, 1)).depth
        self.input_size = input_size or _planned_size(model)
        self._programs: OrderedDict[tuple[int, int], Program] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, fp16_activations: bool = False, input_size: tuple[int, int] | None = None
    ) -> CompiledModel:
        """Read a `.binaryproto`.

        Args:
            fp16_activations: round every op's output to fp16 (not the picture itself).
            input_size: (height, width), needed only for inputs that are not square.

        Raises:
            ModelError: the file is none, or holds an op that is not known.
            MirillaError: it cannot be read.
        """
        return cls(format.read(path), where=os.fspath(path), fp16_activations=fp16_activations, input_size=input_size)

    @classmethod
    def parse(
        cls,
        content: bytes,
        where: str = "the model",
        *,
        fp16_activations: bool = False,
        input_size: tuple[int, int] | None = None,
        limits: Limits | None = None,
    ) -> CompiledModel:
        """The same from a file's bytes."""
        return cls(
            format.parse(content, where),
            where=where,
            fp16_activations=fp16_activations,
            input_size=input_size,
            limits=limits,
        )

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
            raise ModelError(
                f"{self.where}: the input has shape {x.shape}; the rule is (pictures, height, "
                f"width, {self.input_channels}) with at least one picture."
            )
        program = self.program(x.shape[1], x.shape[2])
        results = [self._run_one(program, one) for one in x]
        return {name: np.stack([one[name] for one in results]) for name in self.output_names}

    def run_image(self, rgb: NDArray[np.uint8], mean: float = 127.5, stddev: float = 127.5) -> dict[str, Floats]:
        """Outputs of one photo (H, W, 3) of any size, squashed to the input's size and normalised.

        Raises:
            ModelError: the file does not tell its input's size and none was given.
        """
        if self.input_size is None:
            raise ModelError(
                f"{self.where}: the file does not tell the height and width of its input.",
                "Give input_size=(height, width).",
            )
        return self.run(normalise(bilinear(rgb, *self.input_size), mean, stddev)[None])

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
        return fp16_precision(x) if self.fp16_activations else x

    def _prepare(self, height: int, width: int) -> Program:
        ops = self.model.ops
        made: dict[str, Shape] = {self.input_name: (height, width, self.input_channels)}
        last_use = {name: i for i, op in enumerate(ops) for name in op.inputs}
        steps, work, live = [], 0, 0
        for i, op in enumerate(ops):
            reads = tuple(name for name in op.inputs if name not in self._constants)
            constants = [self._constants[name] for name in op.inputs if name in self._constants]
            output = op.output or ""
            try:
                inputs = [made[name] for name in reads]
                shape, function, cost = run_ops.prepare(op, inputs, constants)
                if min(shape) < 1:
                    raise ValueError(f"its output {shape} is empty")
            except (ValueError, KeyError) as error:
                raise ModelError(
                    f"{self.where}: op {i} ({op.kind}, output '{output}') cannot run on an input of "
                    f"{height}x{width}: {error}.",
                    "Give the size that the model was compiled for, or compile it again.",
                ) from error
            size = math.prod(shape)
            work += max(cost, size)
            live += size
            limits = self.limits
            if size > limits.tensor_elements or live > limits.live_elements or work > limits.multiplications:
                raise ModelError(
                    f"{self.where}: op {i} ({op.kind}) makes a {shape} tensor; {live} elements are held "
                    f"then, after {work} multiplications. At most {limits.tensor_elements} elements in a "
                    f"tensor, {limits.live_elements} held and {limits.multiplications} multiplications are "
                    "allowed."
                )
            made[output] = shape
            drops = {name for name in (*reads, output) if last_use.get(name, i) == i} - set(self.output_names)
            live -= sum(math.prod(made[name]) for name in drops if name != self.input_name)
            steps.append(Step(reads, output, function, tuple(sorted(drops))))
        missing = [name for name in self.output_names if name not in made]
        if missing:
            raise ModelError(f"{self.where}: the output '{missing[0]}' is written by no op.")
        return Program(tuple(steps), made, work)


def _planned_size(model: format.Model) -> tuple[int, int] | None:
    try:
        found = shapes.input_map(model)
    except RuleError:
        return None
    return found.rows, found.cols


def fp16_precision(x: Floats) -> Floats:
    """The nearest fp16 numbers (of two equally near, the even one) as float32; overflow gives infinity.

    The same as x.astype(float16).astype(float32), which on many processors takes several times as long.
    """
    bits = np.ascontiguousarray(x).view(np.uint32)
    rounded = bits >> np.uint32(13)
    rounded &= np.uint32(1)
    rounded += bits
    rounded += np.uint32(0xFFF)
    rounded &= np.uint32(0xFFFFE000)
    out = rounded.view(np.float32)
    # Below 2**-14 fp16 has fewer digits, and at 65520 it ends; zeros are right already.
    size = np.abs(x)
    odd = ((size < 2.0**-14) & (size > 0)) | ~(size < 65504)
    if odd.any():
        with np.errstate(over="ignore"):
            out[odd] = x[odd].astype(np.float16)
    return out


def normalise(pixels: NDArray, mean: float, stddev: float) -> Floats:
    """(pixel - mean) / stddev, float32."""
    return (pixels.astype(np.float32, copy=False) - np.float32(mean)) / np.float32(stddev)
