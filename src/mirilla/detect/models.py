"""Reading the models that a detector runs: a frozen graph, a compiled model, a training folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla import graph, shipped
from mirilla.detect import engine
from mirilla.errors import ModelError
from mirilla.graph.deploy import DeployGraph
from mirilla.labels import LabelMap
from mirilla.model import card as cards
from mirilla.model.card import ModelCard
from mirilla.model.spec import ModelSpec
from mirilla.protos.tensorflow_pb2 import GraphDef
from mirilla.targets import foreign, table
from mirilla.targets.names import TARGETS
from mirilla.targets.target import Codes, Network, Source

FROZEN_GRAPH = "frozen_inference_graph.pb"
SHIPPED = "shipped"  # the name of the model in the package, as a user gives it
_EXPORTED = {
    ".onnx": "ONNX",
    ".tflite": "TensorFlow Lite",
    ".param": "ncnn",
    ".html": "web page",
}  # files of `mirilla export --to` that a detector runs
MODEL_SUFFIXES = (".pb", ".binaryproto", *_EXPORTED)
MODEL_PATTERNS = ("*.pb", "*.binaryproto", "*.onnx", "*.tflite", "*.param", "model.html")  # a report is HTML too
_RUN_STATE, _RUN_EXPORT = "run.json", "export"  # in the folder of a run
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Model:
    """A model that has been read.

    card: its spec, labels and anchors.
    network: normalised pictures (N, height, width, 3) -> box codes and logits, or boxes and scores.
    source: the file it came from.
    notes: what was assumed because the file does not tell it.
    """

    card: ModelCard
    network: Network
    source: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """How to run a model; see `Detector.load`."""

    averages: bool | None = None
    engine: str | None = None


def read_model(path: Path, choice: Choice) -> Model:
    """Read the model in a file or folder.

    Raises:
        ModelError: there is no model, it cannot be read, or it does not match its model.json.
        MirillaError: a file cannot be opened, or the engine is not installed.
    """
    path = find_model(path)
    kind = "folder" if path.is_dir() else path.suffix
    read = _READERS.get(kind, _read_frozen_graph)
    return read(path, choice)


def find_model(path: Path) -> Path:
    """The model's file; a folder without one is returned as it is, for it may be a training folder.

    Raises:
        ModelError: the path does not exist, or a folder holds several models.
    """
    if path == Path(SHIPPED) and not path.exists():
        return shipped.default_weights()
    if not path.exists():
        raise ModelError(f"{path}: no such model.", "Check the path, or export a model with 'mirilla export'.")
    if (path / _RUN_STATE).is_file() and (path / _RUN_EXPORT).is_dir():
        path = path / _RUN_EXPORT
    if not path.is_dir():
        return path
    if (path / FROZEN_GRAPH).is_file():
        return path / FROZEN_GRAPH
    for pattern in MODEL_PATTERNS:
        found = sorted(file for file in path.glob(pattern) if file.name != "saved_model.pb")
        if len(found) == 1:
            return found[0]
        if found:
            if (card := path / cards.FILE_NAME).is_file() and (named := path / cards.load(card).file) in found:
                return named
            names = ", ".join(file.name for file in found[:5])
            raise ModelError(f"{path}: the folder holds several models: {names}.", "Name one of them.")
    return path


def graph_network(deploy_graph: DeployGraph, card: ModelCard, where: str, engine_name: str | None) -> Network:
    """A deploy graph as a network.

    Raises:
        ModelError: its outputs are not those of an SSD, or not those that the card describes.
        MirillaError: the engine is not installed.
    """
    sizes = foreign.output_sizes(deploy_graph, where)
    codes, logits = deploy_graph.outputs
    return _network(engine.prepare(deploy_graph, engine_name), codes, logits, sizes, card, where)


def read_source(path: Path, averages: bool | None = None) -> tuple[Source, tuple[str, ...]]:
    """The layers and the card of a detector, for exports, and notes about what was assumed.

    Args:
        path: a frozen graph, a folder with one, or a training folder.

    Raises:
        ModelError: there is no such model, or it is no SSD.
        MirillaError: a file cannot be read.
    """
    path = find_model(path)
    if path.suffix == ".binaryproto" or path.suffix in _EXPORTED:
        raise ModelError(
            f"{path}: this file was itself made from a model, and is not exported again.",
            "Give the frozen graph that it was made from.",
        )
    if path.is_dir():
        source, _, note = _training_source(path, averages)
        notes = (note,)
    else:
        source, notes = _frozen_graph_source(path)
    foreign.output_sizes(source.graph, str(path))
    return source, notes


def source_network(source: Source, engine_name: str | None = None) -> Network:
    """The network of a model that is about to be exported, in float32."""
    return graph_network(source.graph, source.card, source.card.name, engine_name)


def read_graph_for(graph_def: GraphDef, card: ModelCard) -> DeployGraph:
    """The deploy graph of a model whose card gives the input's size."""
    return graph.read(graph_def, input_size=_input_size(card))


def _read_frozen_graph(path: Path, choice: Choice) -> Model:
    source, notes = _frozen_graph_source(path)
    network = graph_network(source.graph, source.card, str(path), choice.engine)
    return Model(source.card, network, str(path), (*notes, *engine.note(choice.engine)))


def _frozen_graph_source(path: Path) -> tuple[Source, tuple[str, ...]]:
    card_path = cards.find(path)
    if card_path is not None:
        card = cards.load(card_path, path)  # before the graph: its hash explains a file that was cut short
        return Source(read_graph_for(graph.read_graph_def(path), card), card), ()
    graph_def = graph.read_graph_def(path)
    deploy_graph = graph.read(graph_def, input_size=foreign.input_size(graph_def))
    card, notes = foreign.card_from_graph(graph_def, deploy_graph, path)
    return Source(deploy_graph, card), notes


def _read_exported(path: Path, choice: Choice) -> Model:
    """A file of `mirilla export --to`, in its own runtime."""
    card_path = cards.find(path)
    if card_path is None:
        raise ModelError(
            f"{path}: this {_EXPORTED[path.suffix]} file has no model.json beside it, so its anchors and labels are "
            "not known.",
            "Copy the model.json that 'mirilla export --to' wrote with it, or give the frozen graph.",
        )
    card = cards.load(card_path, path)
    run = table.target(card.target).run if card.target in TARGETS else None
    if run is None:
        raise ModelError(f"{path}: files of the target '{card.target}' cannot be run here.", "Give the frozen graph.")
    return Model(card, run(path, card), str(path))


def _read_compiled(path: Path, choice: Choice) -> Model:
    from mirilla.bonnet.run import CompiledModel

    card_path = cards.find(path)
    card = None if card_path is None else cards.load(card_path, path)
    compiled = CompiledModel.load(path, input_size=None if card is None else _input_size(card))
    size = compiled.input_size if card is None else _input_size(card)
    if size is None:
        raise ModelError(
            f"{path}: neither the file nor a model.json beside it gives the input's size.",
            "Put the model.json of this model beside it.",
        )
    codes, logits, *sizes = _compiled_outputs(compiled.program(*size).shapes, path)
    notes: tuple[str, ...] = ()
    if card is None:
        card, notes = _assumed_card(path, size, sizes[1] - 1)
    return Model(card, _network(compiled.run, codes, logits, (sizes[0], sizes[1]), card, str(path)), str(path), notes)


def _read_training_folder(path: Path, choice: Choice) -> Model:
    source, weights, note = _training_source(path, choice.averages)
    network = graph_network(source.graph, source.card, weights, choice.engine)
    return Model(source.card, network, weights, (note, *engine.note(choice.engine)))


def _training_source(path: Path, averages: bool | None) -> tuple[Source, str, str]:
    """The newest checkpoint of a training folder, its file, and a note that names it."""
    from mirilla.targets import frozen_graph
    from mirilla.weights.training_folder import load_training_folder

    spec, labels, weights = load_training_folder(path, averages)
    card = ModelCard(spec, labels, name=path.resolve().name, training={"steps": weights.step})
    deploy_graph = read_graph_for(frozen_graph.build(spec, weights.variables), card)
    kind = "moving averages" if weights.averaged else "weights without averaging"
    note = f"{path}: its newest checkpoint, of step {weights.step} ({kind})."
    return Source(deploy_graph, card), str(weights.path), note


# kind of file -> its reader; every other file is read as a frozen graph
_READERS: dict[str, Callable[[Path, Choice], Model]] = {
    "folder": _read_training_folder,
    ".binaryproto": _read_compiled,
    **dict.fromkeys(_EXPORTED, _read_exported),
}


def _input_size(card: ModelCard) -> tuple[int, int]:
    return card.spec.height_px, card.spec.width_px


def _network(
    run: Callable[[Floats], Mapping[str, Floats]],
    codes: str,
    logits: str,
    sizes: tuple[int, int],
    card: ModelCard,
    where: str,
) -> Network:
    """A function that returns two named outputs of `run`; `sizes` are (anchors, columns of the logits).

    Raises:
        ModelError: the card describes another network.
    """
    anchors, columns = sizes
    if anchors != len(card.anchors_yxyx) or columns != card.spec.num_classes + 1:
        raise ModelError(
            f"{where}: the network has {anchors} anchors and {columns - 1} classes, but its model.json says "
            f"{len(card.anchors_yxyx)} and {card.spec.num_classes}.",
            "Export the model again.",
        )

    def network(pictures: Floats) -> Codes:
        outputs, count = run(pictures), len(pictures)
        return Codes(outputs[codes].reshape(count, anchors, 4), outputs[logits].reshape(count, anchors, columns))

    return network


def _compiled_outputs(shapes: Mapping[str, tuple[int, ...]], path: Path) -> tuple[str, str, int, int]:
    """Names of box codes and class logits, the number of anchors, and the logits' columns.

    Raises:
        ModelError: the outputs are not those of an SSD.
    """
    usual = (cards.OUTPUTS["box_codes"], cards.OUTPUTS["class_logits"])
    names = usual if all(name in shapes for name in usual) else tuple(shapes)
    if len(names) == 2:
        codes, logits = (int(np.prod(shapes[name])) for name in names)
        columns = shapes[names[1]][-1]
        if shapes[names[0]][-1] == 4 and columns > 1 and codes * columns == logits * 4:
            return names[0], names[1], codes // 4, columns
    sizes = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
    raise ModelError(
        f"{path}: the outputs {sizes} are not those of an SSD: box codes and class logits.",
        "Give a compiled detector.",
    )


def _assumed_card(path: Path, size: tuple[int, int], classes: int) -> tuple[ModelCard, tuple[str, ...]]:
    """The sample configuration's card, for a compiled model without model.json, and a note about it."""
    names = ["object"] if classes == 1 else [f"class {i}" for i in range(1, classes + 1)]
    card = ModelCard(
        ModelSpec(height_px=size[0], width_px=size[1], num_classes=classes),
        LabelMap.from_names(names),
        name=path.stem,
        file=path.name,
        target="bonnet",
        made_by="unknown",
    )
    note = (
        f"{path.name} has no model.json: assumed the sample configuration's {len(card.anchors_yxyx)} "
        f"anchors, box coder and thresholds, and the names {', '.join(names)}."
    )
    return card, (note,)
