"""Rules on pipeline.config: its network, with random weights, is put through the graphs' rules."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mirilla import config
from mirilla.config import Pipeline
from mirilla.config.to_spec import model_spec
from mirilla.doctor import fix as doctor_mend
from mirilla.doctor import graph as doctor_graph
from mirilla.doctor.decoder import Outputs
from mirilla.doctor.rules import finding, in_order
from mirilla.errors import MirillaError
from mirilla.findings import ERROR, NOTE, WARNING, Finding
from mirilla.labels import load_label_map
from mirilla.model.layers import architecture
from mirilla.model.spec import ModelSpec
from mirilla.targets import frozen_graph

SMALLER_SIDES = (256, 224, 192, 160, 128)


@dataclass(frozen=True)
class ConfigExamination:
    """What was found in a pipeline.config; `spec` and `outputs` are None when no network can be built."""

    findings: tuple[Finding, ...]
    spec: ModelSpec | None = None
    outputs: Outputs | None = None


def examine(path: str | os.PathLike[str]) -> ConfigExamination:
    """Try every rule on the network that a pipeline.config describes, before it is trained.

    Raises:
        ConfigError: the file cannot be read or is not well-formed.
    """
    pipeline = config.load(path)
    found = [_of_config(one) for one in config.check(pipeline, ("model",)) if one.severity != NOTE]
    found += _labels(pipeline, Path(path))
    if pipeline.model.ssd.image_resizer.HasField("keep_aspect_ratio_resizer"):
        found.append(
            finding(
                "letterbox",
                "model.ssd.image_resizer",
                "The network is trained on letterboxed pictures (keep_aspect_ratio_resizer).",
                "Train with fixed_shape_resizer, or send the kit pictures that are padded to a square already.",
            )
        )
    try:
        spec = model_spec(pipeline)
        graph_def = frozen_graph.build(spec, random_weights(spec))
    except (MirillaError, ValueError, ZeroDivisionError) as error:
        if not any(one.severity == ERROR for one in found):
            remedy = error.remedy if isinstance(error, MirillaError) else None
            what = error.what if isinstance(error, MirillaError) else f"No network can be built: {error}."
            found.append(finding("config", "model", what, remedy or "'mirilla init' writes a complete file."))
        return ConfigExamination(in_order(found))
    size = (spec.height_px, spec.width_px)
    graph = doctor_graph.examine(
        graph_def, frozen_graph.NORMALISED, (frozen_graph.BOX_CODES, frozen_graph.CLASS_LOGITS), size
    )
    for one in doctor_mend.marked(graph.findings, doctor_mend.mend(graph_def, graph)):
        if one.code == "arena-overflow":
            found.append(_with_smaller(one, spec))
        elif one.code != "preprocessing-before":
            found.append(_mendable_later(one) if one.fixable else one)
    network = graph.network
    outputs = None if network is None else Outputs.of(network.outputs, network.output_shapes)
    return ConfigExamination(in_order(found), spec, outputs)


def random_weights(spec: ModelSpec, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights of a fresh network: small random kernels, batch norm that changes nothing."""
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


def _of_config(found: Finding) -> Finding:
    return finding(
        "quantised" if found.where.startswith("graph_rewriter") else "config",
        found.where,
        f"{found.where}: {found.what}",
        found.remedy or "See docs/config.md.",
        severity=NOTE if found.severity == WARNING else ERROR,  # the kit does not mind how training goes
    )


def _labels(pipeline: Pipeline, path: Path) -> Iterator[Finding]:
    classes = pipeline.model.ssd.num_classes
    for reader in (pipeline.train_input_reader, pipeline.eval_input_reader):
        for candidate in (Path(reader.label_map_path), path.parent / reader.label_map_path):
            if not reader.label_map_path or not candidate.is_file():
                continue
            try:
                named = load_label_map(candidate).max_id
            except MirillaError:
                continue  # 'mirilla train' will say what is wrong with it
            if named != classes:
                yield finding(
                    "classes",
                    "model.ssd.num_classes",
                    f"num_classes is {classes}, but {candidate} goes up to id {named}.",
                    f"Set num_classes: {named}, or mend the label map.",
                    severity=ERROR if named > classes else WARNING,
                )
            return


def _mendable_later(one: Finding) -> Finding:
    later = "Or train it as it is and mend the exported graph: 'mirilla doctor GRAPH.pb --fix OUT.pb'."
    return replace(one, fixable=False, remedy=f"{one.remedy} {later}")


def _with_smaller(one: Finding, spec: ModelSpec) -> Finding:
    """The finding, with a size or width that fits in its remedy."""
    fitting = []
    side = min(spec.height_px, spec.width_px)
    smaller = next(
        (one for one in SMALLER_SIDES if one < side and _fits(replace(spec, height_px=one, width_px=one))), None
    )
    if smaller is not None:
        fitting.append(f"an input of {smaller}x{smaller} with this depth_multiplier")
    multiplier = spec.depth_multiplier
    while multiplier > 0.125:
        multiplier /= 2
        if _fits(replace(spec, depth_multiplier=multiplier)):
            fitting.append(f"depth_multiplier {multiplier:g} with this input")
            break
    if not fitting:
        return one
    return replace(one, remedy=f"{one.remedy} What fits: {'; '.join(fitting)}.")


def _fits(spec: ModelSpec) -> bool:
    try:
        graph_def = frozen_graph.build(spec, random_weights(spec))
    except MirillaError:
        return False
    found = doctor_graph.examine(graph_def, input_size=(spec.height_px, spec.width_px)).findings
    return not any(one.code == "arena-overflow" for one in found)
