"""Run an int8 file in TensorFlow Lite for Microcontrollers, on this computer.

Its kernels are the reference that boards without kernels of their own run. An interpreter also tells how much memory
the model needs.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mirilla.errors import MissingExtraError, ModelError
from mirilla.model.box_coder import decode
from mirilla.model.card import ModelCard
from mirilla.targets.target import Candidates, Floats, Network, to_bytes

_MODULE = "tflite_micro.python.tflite_micro.runtime"
_MAX_ARENA = 64_000_000  # bytes; more than any board has
_PROGRAM = f"""
import sys
from {_MODULE} import Interpreter
interpreter = Interpreter.from_file(sys.argv[1], arena_size={_MAX_ARENA})
interpreter.print_allocations()
"""
_ALLOCATED = re.compile(r"Arena allocation total (\d+) bytes")


def run(path: Path, card: ModelCard) -> Network:
    """An int8 file of the targets here as a network.

    Raises:
        MissingExtraError: tflite-micro is not installed.
        ModelError: it refuses the file.
    """
    interpreters = Interpreters(path)

    def network(pictures: Floats) -> Candidates:
        codes, scores = [], []
        for pixels in to_bytes(pictures):
            found = interpreters.outputs((pixels ^ np.uint8(128)).view(np.int8)[None])
            codes.append(_real(found[0], interpreters.details[0]))
            scores.append(_real(found[1], interpreters.details[1]))
        boxes = [decode(one, card.anchors_yxyx, card.spec.box_coder) for one in np.concatenate(codes)]
        return Candidates(np.stack(boxes), np.concatenate(scores))

    return network


class Interpreters(threading.local):
    """An interpreter per thread: it holds the tensors of one picture. `threading.local` calls __init__ in each."""

    def __init__(self, path: Path):
        runtime = _runtime()
        try:
            self._interpreter = runtime.Interpreter.from_file(str(path), arena_size=_MAX_ARENA)
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{path}: tflite-micro refuses the file ({error}).", "Export the model again.") from None
        self.details = [self._interpreter.get_output_details(i) for i in range(2)]

    def outputs(self, image: np.ndarray) -> list[np.ndarray]:
        """The outputs, as integers, for a picture (1, height, width, 3) int8."""
        self._interpreter.set_input(image, 0)
        self._interpreter.invoke()
        return [self._interpreter.get_output(i) for i in range(2)]


def arena_bytes(content: bytes) -> int | None:
    """Memory that a model needs beside its file, as tflite-micro reports it on this computer.

    A board with pointers of 32 bits needs a little less. None if tflite-micro is not installed.
    """
    try:
        _runtime()
    except MissingExtraError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(content)
        # in a process of its own: the report goes to its standard output past Python
        done = subprocess.run([sys.executable, "-c", _PROGRAM, str(path)], capture_output=True, text=True, timeout=120)
    found = _ALLOCATED.search(done.stdout + done.stderr)
    if found is None:
        reason = (done.stderr.strip().splitlines() or ["no report"])[-1]
        raise ModelError(f"tflite-micro cannot run the model: {reason}", "Use a smaller input or a narrower network.")
    return int(found[1])


def _runtime() -> Any:
    try:
        return import_module(_MODULE)  # without types
    except ImportError as error:
        raise MissingExtraError("tflite-micro", "micro", "Running a file for microcontrollers") from error


def _real(values: np.ndarray, details: dict[str, Any]) -> Floats:
    quantization = details["quantization_parameters"]
    scale, zero_point = quantization["scales"][0], quantization["zero_points"][0]
    return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
