"""Detector: any model file in, detections out.

    detector = Detector.load("export/frozen_inference_graph.pb")
    found = detector(photo)                  # (H, W, 3) uint8 RGB
    found.boxes_yxyx, found.scores, found.classes

It needs numpy alone. A frozen graph runs in onnxruntime where that is installed (`mirilla.detect.engine`), and in the
numpy reference elsewhere; a compiled model runs as on the bonnet.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirilla import postprocess, resize, shipped
from mirilla.detections import Detections
from mirilla.errors import ModelError
from mirilla.model import card as cards
from mirilla.model.card import ModelCard
from mirilla.parallel import in_order

FROZEN_GRAPH = "frozen_inference_graph.pb"
Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]  # codes (N, A, 4), logits (N, A, 1 + C)
Network = Callable[[NDArray[np.float32]], Outputs]

_INPUTS = threading.local()


@dataclass(frozen=True, eq=False)
class Detector:
    """A model ready to look at photos.

    card: what it is: spec, labels, anchors.
    network: normalised pictures (N, height, width, 3) -> box codes and logits.
    threshold: scores below are not reported; None for the model's own, very low one, which evaluation needs.
    source: the file it came from.
    notes: what was assumed of a model that does not say everything itself.
    """

    card: ModelCard
    network: Network
    threshold: float | None = None
    source: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        threshold: float | None = None,
        averages: bool | None = None,
        engine: str | None = None,
    ) -> Detector:
        """Open a model.

        Args:
            path: a frozen graph (.pb; Mirilla's own with model.json beside it, or any SSD of the Object
                Detection API), a compiled model (.binaryproto), a folder that holds one of them, or a
                training folder (its newest checkpoint); None for the face detector that ships with Mirilla.
            threshold: report scores from here on.
            averages: of a training folder, run the moving averages (True) or the raw weights (False); None:
                as the eval_config.use_moving_averages of its pipeline.config says.
            engine: "onnxruntime" or "numpy", for a frozen graph and a training folder; None: the fastest one
                that is installed.

        Raises:
            ModelError: no model there, one that cannot be read, or one that is not its model.json's.
            MirillaError: a file cannot be opened, or the engine is not installed.
        """
        if threshold is not None and not 0 <= threshold <= 1:
            raise ModelError(f"The threshold {threshold} is not between 0 and 1.", "Give a score, 0.5 say.")
        path = _model_file(shipped.default_model() if path is None else Path(path))
        if path.is_dir():
            detector = _load_training(path, averages, engine)
        elif path.suffix == ".binaryproto":
            detector = _load_compiled(path)
        else:
            detector = _load_frozen_graph(path, engine)
        return replace(detector, threshold=threshold)

    @classmethod
    def from_graph(
        cls,
        graph_def: Any,
        card: ModelCard,
        *,
        threshold: float | None = None,
        source: str = "the graph",
        engine: str | None = None,
    ) -> Detector:
        """A detector of a frozen graph in memory."""
        from mirilla import graph

        return cls(
            card,
            _graph_network(graph.read(graph_def, input_size=_size(card)), card, source, engine),
            threshold,
            source,
        )

    def __call__(self, image: NDArray[np.uint8], threshold: float | None = None) -> Detections:
        """Objects in one photo (H, W, 3) uint8 RGB of any size; threads may ask side by side."""
        spec, least = self.card.spec, self.threshold if threshold is None else threshold
        size = spec.height_px, spec.width_px
        pixels = _INPUTS.__dict__.get("pixels")  # the thread's own, used again: fresh memory is slow
        if pixels is None or pixels.shape[:2] != size:
            pixels = _INPUTS.pixels = resize.empty(*size)
        _, box = resize.to_input(_checked(image), *size, keep_aspect_ratio=spec.keep_aspect_ratio, out=pixels)
        codes, logits = self.network(pixels[None])
        # the API's own rule is 'greater than'; a threshold that a person gives includes its value
        least = None if least is None else float(np.nextafter(np.float32(least), np.float32(-1)))
        return postprocess.detections(codes[0], logits[0], self.card.anchors_yxyx, spec, box, least)

    def batch(self, images: Sequence[NDArray[np.uint8]], threshold: float | None = None) -> list[Detections]:
        """Objects in several photos, which may differ in size."""
        return list(self.stream(images, threshold))

    def stream(self, images: Iterable[NDArray[np.uint8]], threshold: float | None = None) -> Iterator[Detections]:
        """As `batch`, one after the other, in the photos' order; each core looks at one photo."""
        return in_order(lambda image: self(image, threshold), images)

    @property
    def labels(self) -> Mapping[int, str]:
        """Class id -> name to show."""
        return {label.id: label.shown for label in self.card.labels}

    @property
    def protocol(self) -> str:
        """How figures measured with this detector were come by."""
        spec, post = self.card.spec, self.card.spec.post_processing
        least = f"scores > {post.score_threshold:g}" if self.threshold is None else f"scores >= {self.threshold:g}"
        return (
            f"input {spec.width_px}x{spec.height_px}, {spec.resize}, one view, "
            f"NMS IoU {post.iou_threshold:g}, "
            f"{least}, at most {post.max_total_detections} boxes"
        )


def _checked(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"a photo must be (H, W, 3) uint8 RGB; this is {image.shape} {image.dtype}")
    return image


def _model_file(path: Path) -> Path:
    """The model's file, or the training folder."""
    if not path.exists():
        raise ModelError(f"{path}: there is no such model.", "Check the path, or export one with 'mirilla export'.")
    if not path.is_dir():
        return path
    if (path / FROZEN_GRAPH).is_file():
        return path / FROZEN_GRAPH
    for pattern in ("*.pb", "*.binaryproto"):
        found = sorted(one for one in path.glob(pattern) if one.name != "saved_model.pb")
        if len(found) == 1:
            return found[0]
        if found:
            raise ModelError(
                f"{path}: it holds several models: {', '.join(one.name for one in found[:5])}.",
                "Name one of them.",
            )
    return path


def _size(card: ModelCard) -> tuple[int, int]:
    return card.spec.height_px, card.spec.width_px


def _load_frozen_graph(path: Path, engine: str | None) -> Detector:
    from mirilla import graph
    from mirilla.targets import foreign

    found = cards.find(path)
    if found is not None:
        card = cards.load(found, path)  # before the graph: a file that was cut short is its hash's business
        return Detector.from_graph(graph.read_graph_def(path), card, source=str(path), engine=engine)
    graph_def = graph.read_graph_def(path)
    read = graph.read(graph_def, input_size=foreign.input_size(graph_def))
    card, notes = foreign.card_from_graph(graph_def, read, path)
    return Detector(card, _graph_network(read, card, str(path), engine), source=str(path), notes=notes)


def _graph_network(read: Any, card: ModelCard, where: str, name: str | None) -> Network:
    from mirilla.detect import engine
    from mirilla.targets import foreign

    anchors, columns = foreign.output_sizes(read, where)
    _fits(card, anchors, columns, where)
    runner = engine.prepare(read, name)
    codes, logits = read.outputs

    def network(pictures: NDArray[np.float32]) -> Outputs:
        outputs = runner(pictures)
        return (
            outputs[codes].reshape(len(pictures), anchors, 4),
            outputs[logits].reshape(len(pictures), anchors, columns),
        )

    return network


def _fits(card: ModelCard, anchors: int, columns: int, where: str) -> None:
    if anchors != len(card.anchors_yxyx) or columns != card.spec.num_classes + 1:
        raise ModelError(
            f"{where}: the network has {anchors} anchors and {columns - 1} classes, but its model.json says "
            f"{len(card.anchors_yxyx)} and {card.spec.num_classes}.",
            "Export the model again.",
        )


def _load_compiled(path: Path) -> Detector:
    from mirilla.bonnet.run import CompiledModel

    found = cards.find(path)
    notes: tuple[str, ...] = ()
    if found is not None:
        card = cards.load(found, path)
        compiled = CompiledModel.load(path, input_size=_size(card))
        codes, logits, anchors, columns = _compiled_outputs(compiled.program(*_size(card)).shapes, path)
    else:
        compiled = CompiledModel.load(path)
        if compiled.input_size is None:
            raise ModelError(
                f"{path}: neither the file nor a model.json beside it tells the input's size.",
                "Put the model.json of this model beside it.",
            )
        codes, logits, anchors, columns = _compiled_outputs(compiled.program(*compiled.input_size).shapes, path)
        card, notes = _sample_card(path, compiled.input_size, columns - 1)
    _fits(card, anchors, columns, str(path))

    def network(pictures: NDArray[np.float32]) -> Outputs:
        outputs = compiled.run(pictures)
        return (
            outputs[codes].reshape(len(pictures), anchors, 4),
            outputs[logits].reshape(len(pictures), anchors, columns),
        )

    return Detector(card, network, source=str(path), notes=notes)


def _compiled_outputs(shapes: Mapping[str, tuple[int, ...]], path: Path) -> tuple[str, str, int, int]:
    """Names of box codes and class logits, the number of anchors, and the logits' columns."""
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


def _sample_card(path: Path, size: tuple[int, int], classes: int) -> tuple[ModelCard, tuple[str, ...]]:
    """What is assumed of a compiled model that has no model.json."""
    from mirilla.labels import LabelMap
    from mirilla.model.spec import ModelSpec

    names = ["object"] if classes == 1 else [f"class {i}" for i in range(1, classes + 1)]
    card = ModelCard(
        ModelSpec(height_px=size[0], width_px=size[1], num_classes=classes),
        LabelMap.from_names(names),
        name=path.stem,
        file=path.name,
        target="bonnet",
        made_by="unknown",
    )
    return card, (
        f"{path.name} has no model.json: assumed the sample configuration's {len(card.anchors_yxyx)} "
        f"anchors, box coder and thresholds, and the names {', '.join(names)}.",
    )


def _load_training(path: Path, averages: bool | None, engine: str | None) -> Detector:
    from mirilla.targets import frozen_graph
    from mirilla.weights import read as weights

    spec, labels, found = weights.of_training_folder(path, averages)
    card = ModelCard(spec, labels, name=path.resolve().name, training={"steps": found.step})
    graph_def = frozen_graph.build(spec, found.variables)
    detector = Detector.from_graph(graph_def, card, source=str(found.path), engine=engine)
    kind = "moving averages" if found.averaged else "weights without averaging"
    return replace(detector, notes=(f"{path}: its newest checkpoint, of step {found.step} ({kind}).",))
