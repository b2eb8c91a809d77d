"""What a deploy graph is run with: onnxruntime where it is installed, numpy everywhere else.

Both give the same numbers to some 1e-6; `mirilla.graph.reference` is what the other is measured against. One
picture runs on one core: pictures side by side, in threads, use the others better than layers as small as these.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mirilla.errors import MissingExtraError, UsageError
from mirilla.graph.deploy import DeployGraph
from mirilla.kernels.lazy import Compiled

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
    from mirilla.graph import predictors

    merged = predictors.merge(graph)
    made = graph if merged is None else merged.graph
    network = _Network(made)
    shapes = dict(zip(graph.outputs, graph.output_shapes, strict=True))

    def run(pictures: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        planes = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
        # one at a time, so that a picture's result never depends on its neighbours in a batch
        rows = [network(planes[i : i + 1]) for i in range(len(planes))]
        if len(rows) == 1:
            found = rows[0]
        elif rows:
            found = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
        else:
            found = [np.zeros((0, *shape), np.float32) for shape in made.output_shapes]
        if merged is None:
            return dict(zip(made.outputs, found, strict=True))
        return {name: found[0][..., columns].reshape(-1, *shapes[name]) for name, columns in merged.columns.items()}

    return run


Outputs = list[NDArray[np.float32]]
_START = Compiled("mirilla.kernels.first_layers", "run")
_LOCAL = threading.local()


class _Network:
    """A deploy graph in onnxruntime: planes (1, C, H, W) -> its outputs.

    Once Numba is in use, its first layers may run on a kernel of our own, which keeps what they make in the cache. That
    is tried with one picture, and kept only where it gives the same bits in less time: what is found in a picture must
    not depend on how many came before.
    """

    def __init__(self, graph: DeployGraph):
        from mirilla.graph import first_layers as start

        self._run = _session(graph, planar_input=True)
        self._start = start.split(graph)
        self._lock = threading.Lock()

    def __call__(self, planes: NDArray[np.float32]) -> Outputs:
        if self._start is not None and self._lock.acquire(blocking=False):
            try:
                self._try_kernel(planes)
            finally:
                self._lock.release()
        return self._run(planes)

    def _try_kernel(self, planes: NDArray[np.float32]) -> None:
        kernel, start = _START.get(), self._start
        if kernel is None or start is None:
            return
        self._start = None  # tried once
        rest = _session(start.rest, planar_input=False)

        def run(planes: NDArray[np.float32]) -> Outputs:
            made = _LOCAL.__dict__.get("made")  # the thread's own, used again: fresh memory is slow
            if made is None or made.shape != start.shape:
                made = _LOCAL.made = np.empty(start.shape, np.float32)
            kernel(planes[0], *start.arguments, made)
            return rest(made[None])

        same = all(map(np.array_equal, run(planes), self._run(planes)))
        if same and _seconds(run, planes) < _seconds(self._run, planes):
            self._run = run


def _seconds(run: Callable[[NDArray[np.float32]], Outputs], planes: NDArray[np.float32]) -> float:
    """The least of a few runs."""
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        run(planes)
        taken.append(time.perf_counter() - start)
    return min(taken)


def _session(graph: DeployGraph, *, planar_input: bool) -> Callable[[NDArray[np.float32]], Outputs]:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx", "Running a network with onnxruntime") from error
    from mirilla.targets import onnx_graph

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    model = onnx_graph.build(graph, planar_input=planar_input).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = list(graph.outputs)
    return lambda pictures: session.run(names, {graph.input: pictures})
