"""Examine a pipeline.config: build its network with random weights and examine the graph."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mirilla import config
from mirilla.config import Pipeline
from mirilla.config.to_spec import model_spec
from mirilla.doctor import fix as doctor_fix
from mirilla.doctor import graph as doctor_graph
from mirilla.doctor.decoder import Outputs
from mirilla.doctor.rules import finding, in_order
from mirilla.errors import MirillaError
from mirilla.findings import ERROR, NOTE, WARNING, Finding
from mirilla.labels import load_label_map
from mirilla.model.layers import architecture
from mirilla.model.spec import ModelSpec
from mirilla.targets import frozen_graph

# Sizes to suggest if the memory is too small.
SMALLER_SIDES = (256, 224, 192, 160, 128)
MIN_DEPTH_MULTIPLIER = 0.125


@dataclass(frozen=True)
class ConfigExamination:
    """The result for a pipeline.config.

    Attributes:
        findings: most severe first.
        spec, outputs: the network's; None if it cannot be built.
    """

    findings: tuple[Finding, ...]
    spec: ModelSpec | None = None
    outputs: Outputs | None = None


def examine(path: str | os.PathLike[str]) -> ConfigExamination:
    """Examine the network that a pipeline.config describes, before training.

    Raises:
        ConfigError: the file cannot be read or is malformed.
    """
    pipeline = config.load(path)
    findings = [_of_config(broken) for broken in config.check(pipeline, ("model",)) if broken.severity != NOTE]
    findings += _labels(pipeline, Path(path))
    if pipeline.model.ssd.image_resizer.HasField("keep_aspect_ratio_resizer"):
        findings.append(
            finding(
                "letterbox",
                "model.ssd.image_resizer",
                "The network is trained on letterboxed images (keep_aspect_ratio_resizer).",
                "Train with fixed_shape_resizer, or send the kit images that are already padded to a square.",
            )
        )
    try:
        spec = model_spec(pipeline)
        graph_def = frozen_graph.build(spec, random_weights(spec))
    except (MirillaError, ValueError, ZeroDivisionError) as error:
        if not any(broken.severity == ERROR for broken in findings):
            findings.append(_cannot_build(error))
        return ConfigExamination(in_order(findings))
    size = (spec.height_px, spec.width_px)
    graph = doctor_graph.examine(
        graph_def, frozen_graph.NORMALISED, (frozen_graph.BOX_CODES, frozen_graph.CLASS_LOGITS), size
    )
    for broken in doctor_fix.mark_fixable(graph.findings, doctor_fix.fix(graph_def, graph)):
        if broken.code == "arena-overflow":
            findings.append(_with_smaller_networks(broken, spec))
        elif broken.code != "preprocessing-before":
            findings.append(_fixable_later(broken) if broken.fixable else broken)
    network = graph.network
    outputs = None if network is None else Outputs.of(network.outputs, network.output_shapes)
    return ConfigExamination(in_order(findings), spec, outputs)


def random_weights(spec: ModelSpec, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights of an untrained network: small random kernels, and identity batch norm."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape, _ in architecture(spec).variables():
        kind = name.rpartition("/")[2]
        if kind in ("weights", "depthwise_weights"):
            value = random.normal(0, 0.05, shape)
        else:
            value = np.full(shape, float(kind in ("gamma", "moving_variance")))
        weights[name] = value.astype(np.float32)
    return weights


def _cannot_build(error: Exception) -> Finding:
    what, remedy = f"The network cannot be built: {error}.", None
    if isinstance(error, MirillaError):
        what, remedy = error.what, error.remedy
    return finding("config", "model", what, remedy or "'mirilla init' writes a complete file.")


def _of_config(found: Finding) -> Finding:
    return finding(
        "quantised" if found.where.startswith("graph_rewriter") else "config",
        found.where,
        f"{found.where}: {found.what}",
        found.remedy or "See docs/config.md.",
        severity=NOTE if found.severity == WARNING else ERROR,  # a warning is about training only
    )


def _labels(pipeline: Pipeline, path: Path) -> Iterator[Finding]:
    """The rule about the number of classes in the first label map that can be read."""
    classes = pipeline.model.ssd.num_classes
    for reader in (pipeline.train_input_reader, pipeline.eval_input_reader):
        for candidate in (Path(reader.label_map_path), path.parent / reader.label_map_path):
            if not reader.label_map_path or not candidate.is_file():
                continue
            try:
                highest = load_label_map(candidate).max_id
            except MirillaError:
                continue  # 'mirilla train' reports the error
            if highest != classes:
                yield finding(
                    "classes",
                    "model.ssd.num_classes",
                    f"num_classes is {classes}, but the highest id in {candidate} is {highest}.",
                    f"Set num_classes: {highest}, or fix the label map.",
                    severity=ERROR if highest > classes else WARNING,
                )
            return


def _fixable_later(found: Finding) -> Finding:
    later = "Or train it as it is and fix the exported graph: 'mirilla doctor GRAPH.pb --fix OUT.pb'."
    return replace(found, fixable=False, remedy=f"{found.remedy} {later}")


def _with_smaller_networks(found: Finding, spec: ModelSpec) -> Finding:
    """Add to the finding's remedy an input size and a depth multiplier that fit."""
    fitting = []
    side = min(spec.height_px, spec.width_px)
    for smaller in SMALLER_SIDES:
        if smaller < side and _fits(replace(spec, height_px=smaller, width_px=smaller)):
            fitting.append(f"an input of {smaller}x{smaller} with this depth_multiplier")
            break
    multiplier = spec.depth_multiplier
    while multiplier > MIN_DEPTH_MULTIPLIER:
        multiplier /= 2
        if _fits(replace(spec, depth_multiplier=multiplier)):
            fitting.append(f"depth_multiplier {multiplier:g} with this input")
            break
    return replace(found, remedy=f"{found.remedy} What fits: {'; '.join(fitting)}.") if fitting else found


def _fits(spec: ModelSpec) -> bool:
    try:
        graph_def = frozen_graph.build(spec, random_weights(spec))
    except MirillaError:
        return False
    found = doctor_graph.examine(graph_def, input_size=(spec.height_px, spec.width_px)).findings
    return not any(broken.code == "arena-overflow" for broken in found)
