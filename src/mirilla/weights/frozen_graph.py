"""The variables that a frozen graph contains as constants, under the names that they had in training."""

from __future__ import annotations

import os
import re

import numpy as np
from numpy.typing import NDArray

from mirilla.errors import ModelError
from mirilla.protos.graphdef import constant_array, read_graph_def

_VARIABLE = re.compile(r".+/(weights|depthwise_weights|biases|gamma|beta|moving_mean|moving_variance)")


def load_variables(path: str | os.PathLike[str]) -> dict[str, NDArray[np.float32]]:
    """Name -> array of every variable that was frozen into a graph.

    Moving averages and raw weights look the same: freezing gave both the plain names.

    Raises:
        ModelError: the file is not a frozen graph, or has no variables (because batch norm was folded into
            renamed weights, for example).
        MirillaError: the file cannot be read.
    """
    variables = {}
    for node in read_graph_def(path).node:
        if node.op == "Const" and _VARIABLE.fullmatch(node.name):
            value = constant_array(node)
            if value.dtype.kind == "f":
                variables[node.name] = np.array(value, np.float32)
    if not variables:
        raise ModelError(
            f"{os.fspath(path)}: this graph has no constant with the name of a variable (.../weights, .../gamma).",
            "Give the frozen graph as the Object Detection API or Mirilla exported it, or a checkpoint.",
        )
    return variables
