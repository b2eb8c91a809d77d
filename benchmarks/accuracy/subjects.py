"""The models to measure, in every form in which they run, and the peers, with size and time.

    form                arithmetic    how it is run
    frozen graph        float32       the numpy reference
    compiled model      fp16          the emulator, weights and activations rounded to fp16
    peer                float32       onnxruntime

Our models are run letterboxed and squashed, however they were trained. Milliseconds are CPU time of one core per photo:
`network` is the network alone, in onnxruntime for all models; `total` is from the decoded photo to boxes with scores
from 0.5. Parameters are the trained ones (including batch norm's gamma and beta) if the model has a model.json,
otherwise all numbers of the folded graph. MACs are those of convolutions and matrix products.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import PEER_FILES, PEER_PROTOCOLS, SHARED, cpu_ms, peer, peers

from mirilla import graph as graphs
from mirilla.bonnet import compile as compiler
from mirilla.bonnet import format as bonnet_format
from mirilla.bonnet.run import CompiledModel
from mirilla.bonnet.to_graph import to_graph_def
from mirilla.detect.detector import Detector
from mirilla.detections import Detections
from mirilla.errors import MirillaError
from mirilla.findings import RuleError
from mirilla.graph import deploy
from mirilla.model import card as cards
from mirilla.model.layers import architecture
from mirilla.targets.target import Codes

Photo = np.ndarray
TIMED = 40  # number of timed photos
SHOWN_FROM = 0.5  # score threshold while timing: the very low one of evaluation costs time in NMS


@dataclass(frozen=True)
class Way:
    """One way to run a subject.

    resize: 'letterbox', 'squash', or 'own' for a peer. arithmetic: 'float32' or 'fp16'.
    """

    resize: str
    arithmetic: str
    detect: Callable[[Photo], Detections] = field(repr=False)
    protocol: str


@dataclass(frozen=True)
class Subject:
    """A model with the ways to run it, and its cost.

    facts: parameters, macs, arena_peak_bytes, file_bytes and the like; None if unknown.
    time_ms: photos -> {"network", "total", "runtime"}.
    """

    name: str
    key: str
    ways: tuple[Way, ...]
    facts: dict[str, Any]
    time_ms: Callable[[list[Photo]], dict[str, Any]] = field(repr=False)
    is_peer: bool = False


def model(name: str, path: Path) -> Subject:
    """A frozen graph (in float, and compiled in memory) or a compiled model."""
    path = _file(path)
    if path.suffix == ".binaryproto":
        detector, compiled = Detector.load(path), bonnet_format.read(path)
        read = graphs.read(to_graph_def(compiled), input_size=_size(detector.card))
        peak = max((op.plan.in_use or 0) for op in compiled.ops if op.plan)
        notes, floats = [], None
    else:
        detector = Detector.load(path)
        read = graphs.read(graphs.read_graph_def(path), input_size=_size(detector.card))
        compiled, peak, notes = _compiled(read)
        floats = detector.network
    card = detector.card
    forms: list[tuple[str, Detector]] = [("float32", replace(detector, network=floats))] if floats else []
    if compiled is not None:
        forms.append(("fp16", replace(detector, network=_emulated(compiled, card, path))))
    ways = tuple(
        _way(replace(detector, card=replace(card, spec=replace(card.spec, keep_aspect_ratio=letterbox))), arithmetic)
        for arithmetic, detector in forms
        for letterbox in (True, False)
    )
    facts = {
        "parameters": _parameters(card, read, bool(floats)),
        "macs": macs(read),
        "arena_peak_bytes": peak,
        "file_bytes": None if compiled is None else len(bonnet_format.serialise(compiled)),
        "input_px": list(_size(card)),
        "trained": card.spec.resize,
        "training": dict(card.training),
        "notes": [*detector.notes, *notes],
    }
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Subject(name, digest, ways, facts, lambda photos: _time_ours(detector, read, photos))


def peer_subject(name: str) -> Subject:
    """One of the peers."""
    file, (width, height) = PEER_FILES[name]
    path = SHARED / "peers" / file
    facts = {**_onnx_facts(path, height, width), "input_px": [height, width], "notes": []}
    way = Way("own", "float32", peer(name), PEER_PROTOCOLS[name])
    digest = hashlib.sha256(path.read_bytes()).hexdigest() + name
    return Subject(name, digest, (way,), facts, lambda photos: _time_peer(name, photos), is_peer=True)


def macs(read: deploy.DeployGraph) -> int:
    """Multiplications in convolutions and matrix products for one picture."""
    total = 0
    for layer in read:
        if isinstance(layer, deploy.Conv):
            total += deploy.elements(layer.shape) * int(np.prod(layer.weights.shape[:3]))
        elif isinstance(layer, deploy.Depthwise):
            total += deploy.elements(layer.shape) * int(np.prod(layer.weights.shape[:2]))
        elif isinstance(layer, deploy.Gemm):
            total += layer.weights.size
    return total


def _file(path: Path) -> Path:
    if path.is_dir():
        found = sorted([*path.glob("*.pb"), *path.glob("*.binaryproto")])
        if not found and (path / "export").is_dir():
            return _file(path / "export")
        if found:
            return found[0]
    return path


def _size(card: cards.ModelCard) -> tuple[int, int]:
    return card.spec.height_px, card.spec.width_px


def _compiled(read: deploy.DeployGraph) -> tuple[bonnet_format.Model | None, int | None, list[str]]:
    try:
        compiled, report = compiler.build(read)
    except RuleError as error:
        return None, None, [f"the bonnet does not take it: {error.what}"]
    return compiled, report.peak_bytes, []


def _emulated(compiled: bonnet_format.Model, card: cards.ModelCard, path: Path):
    runner = CompiledModel(compiled, where=str(path), fp16_activations=True, input_size=_size(card))
    names = tuple(cards.OUTPUTS[k] for k in ("box_codes", "class_logits"))
    codes, logits = names if set(names) <= set(runner.output_names) else runner.output_names

    def network(pictures: np.ndarray):
        found, count = runner.run(pictures), len(pictures)
        return Codes(found[codes].reshape(count, -1, 4), found[logits].reshape(count, -1, card.spec.num_classes + 1))

    return network


def _way(detector: Detector, arithmetic: str) -> Way:
    where = "emulator, weights and activations in fp16" if arithmetic == "fp16" else "frozen graph, float32"
    return Way(detector.card.spec.resize, arithmetic, detector, f"{where}; {detector.protocol}")


def _parameters(card: cards.ModelCard, read: deploy.DeployGraph, graph: bool) -> int:
    folded = sum(
        layer.weights.size + (0 if layer.bias is None else layer.bias.size)
        for layer in read
        if isinstance(layer, deploy.Linear)
    )
    try:
        trained = sum(int(np.prod(shape)) for _, shape, train in architecture(card.spec).variables() if train)
    except MirillaError:
        return folded
    # batch norm has two numbers per channel, the folded graph one; a larger difference means another network
    return trained if folded <= trained <= 1.1 * folded else folded


def _time_ours(detector: Detector, read: deploy.DeployGraph, photos: list[Photo]) -> dict[str, Any]:
    network, runtime = _fast_network(read, detector)
    timed = replace(detector, network=network)
    pictures = np.random.default_rng(0).uniform(-1, 1, (TIMED, 1, *read.input_shape)).astype(np.float32)
    return {
        "network": cpu_ms(network, pictures),
        "total": cpu_ms(lambda photo: timed(photo, SHOWN_FROM), photos[:TIMED]),
        "runtime": runtime,
    }


def _fast_network(read: deploy.DeployGraph, detector: Detector):
    """The network in onnxruntime, like the peers, or in the numpy reference if onnxruntime is not installed."""
    try:
        import onnxruntime

        from mirilla.targets import onnx_graph
    except ImportError:
        return detector.network, "numpy"
    session = onnxruntime.InferenceSession(
        onnx_graph.build(read).SerializeToString(),
        _session_options(onnxruntime),
        providers=["CPUExecutionProvider"],
    )
    feed = session.get_inputs()[0].name
    columns = detector.card.spec.num_classes + 1

    def network(pictures: np.ndarray):
        codes, logits = session.run(list(read.outputs), {feed: pictures})
        shapes = (len(pictures), -1, 4), (len(pictures), -1, columns)
        return Codes(np.asarray(codes).reshape(shapes[0]), np.asarray(logits).reshape(shapes[1]))

    return network, f"onnxruntime {onnxruntime.__version__}"


def _session_options(onnxruntime: Any):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return options


def _onnx_facts(path: Path, height: int, width: int) -> dict[str, Any]:
    import onnx
    from onnx import numpy_helper, shape_inference

    content = onnx.load(str(path))
    for number, size in zip((0, 2, 3), (1, height, width), strict=True):
        content.graph.input[0].type.tensor_type.shape.dim[number].dim_value = size
    del content.graph.value_info[:]
    for tensor in content.graph.output:  # the stored sizes are for another input
        tensor.type.tensor_type.ClearField("shape")
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in content.graph.initializer}
    inferred = shape_inference.infer_shapes(content).graph
    values = {v.name: v.type.tensor_type.shape.dim for v in (*inferred.value_info, *inferred.output)}
    sides = {name: [d.dim_value for d in dims] for name, dims in values.items()}
    total = parameters = 0
    for node in content.graph.node:
        if node.op_type == "Conv":
            kernel = held[node.input[1]]
            total += int(np.prod(sides[node.output[0]])) * int(np.prod(kernel.shape[1:]))
            parameters += sum(held[name].size for name in node.input[1:])
    return {"parameters": parameters, "macs": total, "arena_peak_bytes": None, "file_bytes": path.stat().st_size}


def _time_peer(name: str, photos: list[Photo]) -> dict[str, Any]:
    import onnxruntime

    path, (width, height) = SHARED / "peers" / PEER_FILES[name][0], PEER_FILES[name][1]
    session = onnxruntime.InferenceSession(str(path), _session_options(onnxruntime), providers=["CPUExecutionProvider"])
    feed, detect = session.get_inputs()[0].name, peers().detect
    pictures = np.random.default_rng(0).uniform(-1, 1, (TIMED, 1, 3, height, width)).astype(np.float32)
    return {
        "network": cpu_ms(lambda x: session.run(None, {feed: x}), pictures),
        "total": cpu_ms(lambda x: detect(name, np.ascontiguousarray(x[:, :, ::-1]), SHOWN_FROM), photos[:TIMED]),
        "runtime": f"onnxruntime {onnxruntime.__version__}",
    }
