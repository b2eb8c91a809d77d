"""The published compiled models, and graphs for the compiler."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from helpers_graph import Graph, small_network
from mirilla.graph import write_graph_def

PAIR = "data/bonnet/PCK_frozen_inference_graph.pb"
PAIR_SHA256 = "5ace9ab3404c12121048a1017ec27c7c9e00fd5ddf26d24e59ac96711b57ad0d"
# published compiled model -> its order of constants
FILES = {
    "card_detector": "O2",
    "darthvader": "O2",
    "google_mobilenet_v1_160_imagenet": "O8",
    "google_person_cat_dog": "O6",
    "google_squeezenet_160": "O7",
    "pikachu2_detector": "O1",
    "pikachu_detector": "O1",
    "rover_224": "O4",
    "rps_160": "O4",
    "voc20_object_detection": "O1",
}


def unsupported(rule: str) -> Graph:
    """A graph that breaks the rule."""
    graph = Graph()
    if rule == "input-channels":
        graph.block("a", graph.placeholder(shape=(-1, 32, 32, 1)), (3, 3, 1, 16), 2)
        return graph
    x = graph.block("a", graph.placeholder(), (3, 3, 3, 16), 2)
    if rule == "relu":
        graph.node("Relu", "relu", graph.bias("b", graph.conv("b", x, (1, 1, 16, 8)), 8))
    elif rule == "sigmoid":
        graph.node("Sigmoid", "sigmoid", graph.bias("b", graph.conv("b", x, (1, 1, 16, 8)), 8))
    elif rule == "no-sample":
        graph.node("Add", "sum", x, graph.block("b", x, (1, 1, 16, 16)))
    elif rule == "max-pool":
        graph.node(
            "MaxPool",
            "pool",
            x,
            ksize=[1, 2, 2, 1],
            strides=[1, 2, 2, 1],
            padding="VALID",
            data_format="NHWC",
        )
    elif rule == "pool-padding":
        graph.node("AvgPool", "pool", x, ksize=[1, 3, 3, 1], strides=[1, 2, 2, 1], padding="SAME", data_format="NHWC")
    elif rule == "depth-multiplier":
        graph.depthwise("d", x, (3, 3, 16, 2))
    elif rule == "strides":
        graph.conv("b", x, (1, 1, 16, 8))
        strides = graph["b/Conv2D"].attr["strides"].list.i
        strides[1] = 2
    elif rule == "fp16-overflow":
        graph.bias("b", graph.conv("b", x, (1, 1, 16, 8)), 8)
        graph["b/biases"].attr["value"].tensor.tensor_content = np.full(8, 1e6, "<f4").tobytes()
    elif rule == "arena-overflow":
        graph.conv("b", x, (1, 1, 16, 4000))
    elif rule == "kernel-too-large":
        graph.conv("b", x, (17, 17, 16, 8))
    elif rule == "softmax":
        graph.node("Softmax", "s", graph.bias("b", graph.conv("b", x, (1, 1, 16, 8)), 8))
    return graph


def graph_with_card(folder: Path, side: int) -> Path:
    """Write a small graph of this input size and a model.json for an input of 256 px; return the graph's path."""
    from mirilla.labels import LabelMap
    from mirilla.model import card as cards
    from mirilla.model.spec import ModelSpec

    graph = folder / "frozen.pb"
    write_graph_def(graph, small_network(side=side).graph_def)
    cards.save(cards.ModelCard(ModelSpec(num_classes=1), LabelMap.from_names(["face"])), graph)
    return graph
