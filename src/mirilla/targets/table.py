"""The targets of `mirilla export --to`, by name. A target's module is imported when it is used."""

from __future__ import annotations

from importlib import import_module

from mirilla.errors import UsageError
from mirilla.targets.target import Target

# name -> (module of mirilla.targets, name of the Target in it)
TARGETS: dict[str, tuple[str, str]] = {
    "onnx": ("onnx_file", "ONNX"),
    "tflite": ("tflite.floats", "TFLITE"),
    "tflite-fp16": ("tflite.floats", "TFLITE_FP16"),
    "tflite-int8": ("tflite.integers", "TFLITE_INT8"),
}


def target(name: str) -> Target:
    """The target of this name.

    Raises:
        UsageError: there is none.
    """
    if name not in TARGETS:
        raise UsageError(f"Unknown target '{name}'. Choose from: {', '.join(TARGETS)}, all.")
    module, attribute = TARGETS[name]
    found = getattr(import_module(f"mirilla.targets.{module}"), attribute)
    assert isinstance(found, Target)
    return found
