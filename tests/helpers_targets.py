"""The shipped model as the source of targets, and its photo."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from helpers_checkpoint import mobilenet
from mirilla import config, graph, shipped
from mirilla.config import zoo
from mirilla.config.to_spec import model_spec
from mirilla.data.images import decode_rgb
from mirilla.detect.models import read_graph_for
from mirilla.graph import deploy
from mirilla.labels import LabelMap
from mirilla.model import card as cards
from mirilla.model.layers import architecture
from mirilla.targets import frozen_graph
from mirilla.targets.target import Source

PHOTO = decode_rgb(shipped.PHOTO)
NO_PICTURES = np.zeros((0, 256, 256, 3), np.uint8)


@cache
def shipped_source() -> Source:
    """The graph and the card of the shipped model."""
    path = shipped.default_weights()
    card = cards.load(path.parent / cards.FILE_NAME, path)
    return Source(read_graph_for(graph.read_graph_def(path), card), card)


@cache
def calibration_pictures() -> np.ndarray:
    """The shipped photo, moved, flipped and darkened: (8, 256, 256, 3)."""
    crops = [PHOTO[y : y + 512 : 2, x : x + 512 : 2] for y in (0, 1) for x in (0, 1)]
    return np.stack([*crops, *(crop[:, ::-1] // 2 for crop in crops)])


@cache
def zoo_source(name: str, classes: int = 1, converter: str = "SIGMOID") -> Source:
    """A model of the zoo with random weights."""
    pipeline = config.sample(classes, "train", "eval", "labels")
    zoo.apply(name, pipeline)
    spec = model_spec(pipeline)
    post_processing = replace(spec.post_processing, score_converter=converter)
    spec = replace(spec, post_processing=post_processing)
    values = mobilenet({name: shape for name, shape, _ in architecture(spec).variables()})
    card = cards.ModelCard(spec, LabelMap.from_names([f"class {i}" for i in range(classes)]))
    return Source(read_graph_for(frozen_graph.build(spec, values), card), card)


def with_halves(source: Source) -> Source:
    """The model with its weights rounded to 16 bits, as some targets store them."""
    layers = tuple(
        replace(layer, weights=layer.weights.astype(np.float16).astype(np.float32))
        if isinstance(layer, deploy.Linear)
        else layer
        for layer in source.graph
    )
    return replace(source, graph=replace(source.graph, layers=layers))
