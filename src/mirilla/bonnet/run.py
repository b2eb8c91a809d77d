"""Run a compiled model on any computer: an interpreter for the Bonnet's ops.

    model = CompiledModel.load("face.binaryproto")
    outputs = model.run(pictures)                      # (N, H, W, 3) normalised -> {name: (N, h, w, d)}
    outputs = model.run_image(rgb, mean=128, stddev=128)

Weights have the file's fp16 precision. Activations are float32, or rounded to fp16 after every op with
`fp16_activations`, as the Bonnet stores them. How the Bonnet accumulates inside an op is unknown, so the results
approximate the Bonnet's and are not equal to them (docs/emulator.md has figures).
"""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirilla.bonnet import format, fp16, shapes
from mirilla.bonnet.run_ops import Floats, OpFunction, PreparedOp, Shape, prepare
from mirilla.errors import ModelError
from mirilla.findings import RuleError
from mirilla.resize import bilinear

MAX_PROGRAMS = 4  # number of input sizes whose programs are cached


@dataclass(frozen=True)
class Limits:
    """Limits on the resources that a model may use. The defaults refuse only damaged or malicious files.

    Attributes:
        tensor_elements: of one activation.
        live_elements: of all activations held at the same time.
        multiplications: for one picture; every op counts at least one per element of its output.
    """

    tensor_elements: int = 1 << 27
    live_elements: int = 1 << 29
    multiplications: int = 10**12


@dataclass(frozen=True)
class Step:
    """A prepared op: the activations it reads, the one it writes, and those that no later step needs."""

    reads: tuple[str, ...]
    writes: str
    function: OpFunction
    frees: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """The steps for one input size, and the shapes of all activations."""

    steps: tuple[Step, ...]
    shapes: dict[str, Shape]
    multiplications: int


class CompiledModel:
    """A compiled model, ready to run. Safe to use from several threads.

    Attributes:
        model: the parsed file.
        input_name, output_names: names of the tensors.
        input_channels: depth of the input tensor.
        input_size: (height, width) that the memory plan was made for; None if it cannot be inferred from the file.

    Args:
        constants: values that replace those of the file, in its layouts: the weights before they were rounded.
    """

    def __init__(
        self,
        model: format.Model,
        *,
        where: str = "the model",
        fp16_activations: bool = False,
        input_size: tuple[int, int] | None = None,
        limits: Limits | None = None,
        constants: Mapping[str, NDArray[np.float32]] | None = None,
    ):
        self.model = model
        self.where = where
        self.fp16_activations = fp16_activations
        self.limits = limits or Limits()
        self.input_name: str = model.input or ""
        self.output_names = model.outputs
        self._constants = {constant.name or "": constant.values.astype(np.float32) for constant in model.constants}
        self._constants |= constants or {}
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
            fp16_activations: round every op's output (but not the picture itself) to fp16.
            input_size: (height, width), needed only for inputs that are not square.

        Raises:
            ModelError: the file is not a compiled model, or has an unknown op.
            MirillaError: the file cannot be read.
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
        """Compute the outputs of normalised pictures.

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
                f"{self.where}: the input has shape {x.shape}; the rule is (pictures, height, width, "
                f"{self.input_channels}) with at least one picture."
            )
        program = self.program(x.shape[1], x.shape[2])
        results = [self._run_picture(program, picture) for picture in x]
        return {name: np.stack([result[name] for result in results]) for name in self.output_names}

    def run_image(self, rgb: NDArray[np.uint8], mean: float = 127.5, stddev: float = 127.5) -> dict[str, Floats]:
        """Compute the outputs of a photo (H, W, 3) of any size, resized to the input's size and normalised.

        Raises:
            ModelError: the input size is neither given nor can be inferred from the file.
        """
        if self.input_size is None:
            raise ModelError(
                f"{self.where}: the file does not contain the height and width of its input.",
                "Give input_size=(height, width).",
            )
        return self.run(normalise(bilinear(rgb, *self.input_size), mean, stddev)[None])

    def program(self, height: int, width: int) -> Program:
        """The steps for one input size, prepared on first use.

        Raises:
            ModelError: the model cannot run on that size, or exceeds `limits`.
        """
        with self._lock:
            program = self._programs.get((height, width))
            if program is None:
                program = self._prepare(height, width)
                self._programs[height, width] = program
                if len(self._programs) > MAX_PROGRAMS:
                    self._programs.popitem(last=False)
            else:
                self._programs.move_to_end((height, width))
            return program

    def _run_picture(self, program: Program, picture: Floats) -> dict[str, Floats]:
        live = {self.input_name: picture}
        for step in program.steps:
            output = step.function(*(live[name] for name in step.reads))
            live[step.writes] = fp16.rounded(output) if self.fp16_activations else output
            for name in step.frees:
                del live[name]
        return {name: live[name] for name in self.output_names}

    def _prepare(self, height: int, width: int) -> Program:
        made: dict[str, Shape] = {self.input_name: (height, width, self.input_channels)}
        last_use = {name: index for index, op in enumerate(self.model.ops) for name in op.inputs}
        steps, multiplications, live_elements = [], 0, 0
        for index, op in enumerate(self.model.ops):
            reads, output = tuple(name for name in op.inputs if name not in self._constants), op.output or ""
            prepared = self._prepare_op(index, op, made, (height, width))
            elements = math.prod(prepared.shape)
            multiplications += max(prepared.multiplications, elements)
            live_elements += elements
            self._check_limits(f"op {index} ({op.kind})", prepared.shape, live_elements, multiplications)
            made[output] = prepared.shape
            frees = {name for name in (*reads, output) if last_use.get(name, index) == index}
            frees -= set(self.output_names)
            live_elements -= sum(math.prod(made[name]) for name in frees if name != self.input_name)
            steps.append(Step(reads, output, prepared.run, tuple(sorted(frees))))
        for name in self.output_names:
            if name not in made:
                raise ModelError(f"{self.where}: no op writes the output '{name}'.")
        return Program(tuple(steps), made, multiplications)

    def _prepare_op(self, index: int, op: format.Op, made: dict[str, Shape], size: tuple[int, int]) -> PreparedOp:
        try:
            inputs = [made[name] for name in op.inputs if name not in self._constants]
            prepared = prepare(op, inputs, [self._constants[name] for name in op.inputs if name in self._constants])
            if min(prepared.shape) < 1:
                raise ValueError(f"its output {prepared.shape} is empty")
        except (ValueError, KeyError) as error:
            raise ModelError(
                f"{self.where}: op {index} ({op.kind}, output '{op.output}') cannot run on an input of "
                f"{size[0]}x{size[1]}: {error}.",
                "Give the size that the model was compiled for, or compile it again.",
            ) from error
        return prepared

    def _check_limits(self, what: str, shape: Shape, live_elements: int, multiplications: int) -> None:
        limits = self.limits
        if (
            math.prod(shape) > limits.tensor_elements
            or live_elements > limits.live_elements
            or multiplications > limits.multiplications
        ):
            raise ModelError(
                f"{self.where}: {what} makes a tensor of shape {shape}, with {live_elements} live elements and "
                f"{multiplications} multiplications so far. At most {limits.tensor_elements} elements per tensor, "
                f"{limits.live_elements} live elements and {limits.multiplications} multiplications are allowed."
            )


def _planned_size(model: format.Model) -> tuple[int, int] | None:
    try:
        source = shapes.input_map(model)
    except RuleError:
        return None
    return source.rows, source.cols


def normalise(pixels: NDArray[np.uint8] | Floats, mean: float, stddev: float) -> Floats:
    """(pixel - mean) / stddev, float32."""
    return (pixels.astype(np.float32, copy=False) - np.float32(mean)) / np.float32(stddev)
