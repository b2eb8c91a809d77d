"""What a deploy graph is run with: onnxruntime where it is installed, numpy everywhere else.

Both give the same numbers to some 1e-6; `mirilla.graph.reference` is what the other is measured against. One
picture runs on one core: pictures side by side, in threads, use the others better than layers as small as these.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mirilla.errors import MissingExtraError, UsageError
from mirilla.graph.deploy import DeployGraph

Run = Callable[[NDArray[np.float32]], dict[str, NDArray[np.float32]]]
ONNXRUNTIME, NUMPY = "onnxruntime", "numpy"
ENGINES = (ONNXRUNTIME, NUMPY)


def choose() -> str:
    """The fastest engine that is installed."""
    return ONNXRUNTIME if importlib.util.find_spec("onnxruntime") else NUMPY


def prepare(graph: DeployGraph, engine: str | None = None) -> Run:
    """Make a deploy graph ready to run.

    Args:
        engine: one of ENGINES; None for the fastest one that is installed.

    Returns:
        A function of pictures (N, rows, columns, channels) float32, as at the graph's input, to {output's
        name: array with N in front}. Threads may call it side by side. onnxruntime reads pictures that lie in
        memory channel by channel (`resize.empty`) as they are, and copies others.

    Raises:
        UsageError: no such engine.
        MissingExtraError: the engine is not installed.
        ModelError: a layer that cannot be run.
    """
    name = choose() if engine is None else engine
    if name == ONNXRUNTIME:
        return _onnxruntime(graph)
    if name == NUMPY:
        from mirilla.graph.reference import Runner

        return Runner(graph)
    raise UsageError(f"'{name}' is no engine: they are {', '.join(ENGINES)}.")


def _onnxruntime(graph: DeployGraph) -> Run:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx", "Running a network with onnxruntime") from error
    from mirilla.graph import predictors
    from mirilla.targets import onnx_graph

    merged = predictors.merge(graph)
    made = graph if merged is None else merged.graph
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(
        onnx_graph.build(made, planar_input=True).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = list(made.outputs)
    shapes = dict(zip(graph.outputs, graph.output_shapes, strict=True))

    def run(pictures: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        planes = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
        # one at a time, so that a picture's result never depends on its neighbours in a batch
        rows = [session.run(names, {graph.input: planes[i : i + 1]}) for i in range(len(planes))]
        if len(rows) == 1:
            found = rows[0]
        elif rows:
            found = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
        else:
            found = [np.zeros((0, *shape), np.float32) for shape in made.output_shapes]
        if merged is None:
            return dict(zip(names, found, strict=True))
        return {
            name: found[0][..., columns].reshape(-1, *shapes[name]) for name, columns in merged.columns.items()
        }

    return run
