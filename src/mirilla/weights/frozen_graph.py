"""The variables that a frozen graph holds as constants, under the names that they had in training."""

from __future__ import annotations

import os
import re

import numpy as np
from numpy.typing import NDArray

from mirilla.errors import ModelError

_VARIABLE = re.compile(r".+/(weights|depthwise_weights|biases|gamma|beta|moving_mean|moving_variance)")


def read_variables(path: str | os.PathLike[str]) -> dict[str, NDArray[np.float32]]:
    """Name -> array of every variable that was frozen into a graph.

    Averages are not told from raw weights: freezing gave both the plain names.

    Raises:
        ModelError: no frozen graph, or one without variables (its batch norm folded and renamed, say).
        MirillaError: the file cannot be read.
    """
    from mirilla.graph import read_graph_def
    from mirilla.protos.graphdef import constant_array

    graph_def = read_graph_def(path)
    found = {}
    for node in graph_def.node:
        if node.op == "Const" and _VARIABLE.fullmatch(node.name):
            value = constant_array(node)
            if value.dtype.kind == "f":
                found[node.name] = np.array(value, np.float32)
    if not found:
        raise ModelError(
            f"{os.fspath(path)}: a graph without a constant named as a variable (.../weights, .../gamma).",
            "Give the frozen graph as the Object Detection API or Mirilla exported it, or a checkpoint.",
        )
    return found
