"""Run a TensorFlow Lite file in LiteRT, the runtime's current name."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mirilla.errors import MissingExtraError, ModelError
from mirilla.model.box_coder import decode
from mirilla.model.card import ModelCard
from mirilla.targets.target import Candidates, Floats, Network, to_bytes


def run(path: Path, card: ModelCard) -> Network:
    """A file of the targets here as a network, in LiteRT on one thread.

    Raises:
        MissingExtraError: LiteRT is not installed.
        ModelError: LiteRT refuses the file.
    """
    interpreters = Interpreters(path)
    image, details = interpreters.runner.get_input_details()["image"], interpreters.runner.get_output_details()
    coder = card.spec.box_coder

    def network(pictures: Floats) -> Candidates:
        runner = interpreters.runner
        found = [runner(image=np.ascontiguousarray(picture[None])) for picture in _input(pictures, image["dtype"])]
        results = {name: np.concatenate([_real(one[name], details[name]) for one in found]) for name in details}
        boxes = results.get("boxes")
        if boxes is None:
            boxes = np.stack([decode(codes, card.anchors_yxyx, coder) for codes in results["codes"]])
        return Candidates(boxes, results["scores"])

    return network


class Interpreters(threading.local):
    """An interpreter per thread: it holds the tensors of one picture. `threading.local` calls __init__ in each."""

    def __init__(self, path: Path):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise MissingExtraError("ai-edge-litert", "tflite", "Running a TensorFlow Lite file") from error
        try:
            interpreter = Interpreter(str(path), num_threads=1)
            interpreter.allocate_tensors()
            self.runner = interpreter.get_signature_runner()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"{path}: LiteRT refuses the file ({error}).", "Export the model again.") from None


def _input(pictures: Floats, dtype: np.dtype) -> np.ndarray:
    """Normalised pictures as the file takes them: as they are, as bytes, or as bytes minus 128."""
    if dtype == np.float32:
        return pictures
    pixels = to_bytes(pictures)
    return pixels if dtype == np.uint8 else (pixels ^ np.uint8(128)).view(np.int8)


def _real(values: np.ndarray, detail: Mapping[str, Any]) -> Floats:
    """The numbers that quantized values stand for."""
    if values.dtype == np.float32:
        return values
    scale, zero_point = detail["quantization"]
    return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
