"""The engines that run a deploy graph: onnxruntime where it is installed, numpy everywhere else.

Both give the same numbers to some 1e-6; `mirilla.graph.reference` is what onnxruntime is compared with. A picture
runs on one core: layers as small as these use several cores better with several pictures at once, in threads.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mirilla.errors import MissingExtraError, UsageError
from mirilla.graph.deploy import DeployGraph
from mirilla.graph.reference import Runner

Run = Callable[[NDArray[np.float32]], dict[str, NDArray[np.float32]]]
ONNXRUNTIME, NUMPY = "onnxruntime", "numpy"


def choose() -> str:
    """The fastest engine that is installed."""
    return ONNXRUNTIME if importlib.util.find_spec("onnxruntime") else NUMPY


def note(engine: str | None) -> tuple[str, ...]:
    """What a user should know about the engine that `prepare` takes for `engine`."""
    if engine is None and choose() == NUMPY:
        return (
            "onnxruntime is not installed: running in numpy, some 30 times slower. Install it with "
            "pip install onnxruntime.",
        )
    return ()


def prepare(graph: DeployGraph, engine: str | None = None) -> Run:
    """Make a deploy graph ready to run.

    Args:
        engine: a key of ENGINES; None for the fastest one that is installed.

    Returns:
        A function from pictures (N, rows, columns, channels) float32, as at the graph's input, to {output's
        name: array (N, ...)}. Threads may call it at the same time. Pictures stored channel by channel
        (`resize.empty`) are passed to onnxruntime without a copy.

    Raises:
        UsageError: unknown engine.
        MissingExtraError: the engine is not installed.
        ModelError: a layer that cannot be run.
    """
    name = choose() if engine is None else engine
    if name not in ENGINES:
        raise UsageError(f"Unknown engine '{name}'. Choose from: {', '.join(ENGINES)}.")
    return ENGINES[name](graph)


def _onnxruntime(graph: DeployGraph) -> Run:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx", "Running a network with onnxruntime") from error
    from mirilla.targets import onnx_graph

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    model = onnx_graph.build(graph, planar_input=True).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = list(graph.outputs)
    empty = [np.zeros((0, *shape), np.float32) for shape in graph.output_shapes]

    def run(pictures: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        planes = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))  # (N, C, H, W)
        # one at a time, so that a picture's result never depends on the other pictures of a batch
        results = [session.run(names, {graph.input: planes[i : i + 1]}) for i in range(len(planes))]
        return {name: np.concatenate(arrays) for name, *arrays in zip(names, *(results or [empty]), strict=True)}

    return run


ENGINES: dict[str, Callable[[DeployGraph], Run]] = {ONNXRUNTIME: _onnxruntime, NUMPY: Runner}
