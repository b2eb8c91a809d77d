"""The interface of the targets: files for other runtimes, built from a deploy graph.

A target is a `Target` with three functions: `check` lists what the runtime cannot do, `build` makes the files, and
`run` executes a built file in its real runtime, so that what was exported can be measured. `mirilla.targets.table`
lists all targets; each is a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.findings import Finding
from mirilla.graph.deploy import DeployGraph
from mirilla.model.card import ModelCard

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]  # (N, height, width, 3) RGB, resized to the network's input


@dataclass(frozen=True, eq=False)
class Codes:
    """The two outputs of an SSD: box codes (N, A, 4) and class logits (N, A, 1 + C), background first."""

    codes: Floats
    logits: Floats


@dataclass(frozen=True, eq=False)
class Candidates:
    """Decoded boxes (N, K, 4), yxyx normalised to the network's input, and scores (N, K, C) without background."""

    boxes_yxyx: Floats
    scores: Floats


Outputs = Codes | Candidates
Network = Callable[[Floats], Outputs]  # normalised pictures (N, height, width, 3), as at the deploy graph's input


@dataclass(frozen=True, eq=False)
class Source:
    """What a target is built from.

    graph: layers and weights; its outputs are box codes and class logits.
    card: labels, anchors, box coder, thresholds.
    """

    graph: DeployGraph
    card: ModelCard


@dataclass(frozen=True)
class Package:
    """An optional package: the module that it installs, its name, and the extra of Mirilla that has it."""

    module: str
    name: str
    extra: str


@dataclass(frozen=True)
class Target:
    """A kind of file that a trained model can be written as.

    name: what users type: 'onnx', 'tflite-int8'.
    file: name of the model's file; `build` returns it first.
    summary: one line for the help: what it is and where it runs.
    check: the source -> findings; an error means that it cannot be built.
    build: the source and calibration pictures (empty unless `calibrated`) -> {file name: content}.
    run: the built file and its card -> a network in the real runtime; MissingExtraError if that is not installed.
        None if the runtime cannot run here.
    snippet: a Python program of at most ten lines that runs the file, for the reader to copy.
    calibrated: whether `build` needs pictures to choose the ranges of integers.
    needs: optional packages without which `build` cannot work.
    """

    name: str
    file: str
    summary: str
    check: Callable[[Source], Sequence[Finding]]
    build: Callable[[Source, Pixels], Mapping[str, bytes]]
    run: Callable[[Path, ModelCard], Network] | None
    snippet: str
    calibrated: bool = False
    needs: tuple[Package, ...] = ()


def to_bytes(pictures: Floats) -> Pixels:
    """Pixels 0 to 255 from normalised pictures (2 / 255 * pixel - 1), rounded to the nearest level."""
    return np.clip(np.rint((pictures + 1) * np.float32(127.5)), 0, 255).astype(np.uint8)
