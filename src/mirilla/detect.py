"""Detector: any model file in, detections out.

    detector = Detector.load("export/frozen_inference_graph.pb")
    found = detector(photo)                  # (H, W, 3) uint8 RGB
    found.boxes_yxyx, found.scores, found.classes

It needs numpy alone: the network runs in the numpy reference (a frozen graph), or as the bonnet would (a
compiled model).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirilla import postprocess, resize
from mirilla.detections import Detections
from mirilla.errors import ModelError
from mirilla.model import card as cards
from mirilla.model.card import ModelCard

FROZEN_GRAPH = "frozen_inference_graph.pb"
BATCH = 8  # pictures held as network inputs at once

Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]  # codes (N, A, 4), logits (N, A, 1 + C)
Network = Callable[[NDArray[np.float32]], Outputs]


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
    def load(cls, path: str | os.PathLike[str], *, threshold: float | None = None) -> Detector:
        """Open a model.

        Args:
            path: a frozen graph (.pb; Mirilla's own with model.json beside it, or any SSD of the Object
                Detection API), a compiled model (.binaryproto), a folder that holds one of them, or a
                training folder (its newest checkpoint).
            threshold: report scores from here on.

        Raises:
            ModelError: no model there, one that cannot be read, or one that is not its model.json's.
            MirillaError: a file cannot be opened.
        """
        if threshold is not None and not 0 <= threshold <= 1:
            raise ModelError(f"The threshold {threshold} is not between 0 and 1.", "Give a score, 0.5 say.")
        path = _model_file(Path(path))
        if path.is_dir():
            detector = _load_training(path)
        elif path.suffix == ".binaryproto":
            detector = _load_compiled(path)
        else:
            detector = _load_frozen_graph(path)
        return replace(detector, threshold=threshold)

    @classmethod
    def from_graph(
        cls, graph_def: Any, card: ModelCard, *, threshold: float | None = None, source: str = "the graph"
    ) -> Detector:
        """A detector of a frozen graph in memory."""
        from mirilla import graph

        return cls(
            card,
            _graph_network(graph.read(graph_def, input_size=_size(card)), card, source),
            threshold,
            source,
        )

    def __call__(self, image: NDArray[np.uint8], threshold: float | None = None) -> Detections:
        """Objects in one photo (H, W, 3) uint8 RGB of any size."""
        return self.batch([image], threshold)[0]

    def batch(self, images: Sequence[NDArray[np.uint8]], threshold: float | None = None) -> list[Detections]:
        """Objects in several photos, which may differ in size."""
        return list(self.stream(images, threshold))

    def stream(
        self, images: Sequence[NDArray[np.uint8]], threshold: float | None = None
    ) -> Iterator[Detections]:
        """As `batch`, one after the other."""
        spec = self.card.spec
        least = self.threshold if threshold is None else threshold
        for start in range(0, len(images), BATCH):
            prepared = [
                resize.to_input(
                    _checked(image), spec.height_px, spec.width_px, keep_aspect_ratio=spec.keep_aspect_ratio
                )
                for image in images[start : start + BATCH]
            ]
            codes, logits = self.network(np.stack([pixels for pixels, _ in prepared]))
            for i, (_, box) in enumerate(prepared):
                # the API's own rule is 'greater than'; a threshold that a person gives includes its value
                found = postprocess.detections(
                    codes[i],
                    logits[i],
                    self.card.anchors_yxyx,
                    spec,
                    box,
                    None if least is None else np.nextafter(np.float32(least), -1),
                )
                yield found

    @property
    def labels(self) -> Mapping[int, str]:
        """Class id -> name to show."""
        return {label.id: label.shown for label in self.card.labels}

    @property
    def protocol(self) -> str:
        """How figures measured with this detector were come by."""
        spec, post = self.card.spec, self.card.spec.post_processing
        least = (
            f"scores > {post.score_threshold:g}"
            if self.threshold is None
            else f"scores >= {self.threshold:g}"
        )
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
        raise ModelError(
            f"{path}: there is no such model.", "Check the path, or export one with 'mirilla export'."
        )
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


def _load_frozen_graph(path: Path) -> Detector:
    from mirilla import graph
    from mirilla.targets import foreign

    found = cards.find(path)
    graph_def = graph.read_graph_def(path)
    if found is not None:
        card = cards.load(found, path)
        return Detector.from_graph(graph_def, card, source=str(path))
    read = graph.read(graph_def)
    card, notes = foreign.card_from_graph(graph_def, read, path)
    return Detector(card, _graph_network(read, card, str(path)), source=str(path), notes=notes)


def _graph_network(read: Any, card: ModelCard, where: str) -> Network:
    from mirilla.graph.reference import Runner
    from mirilla.targets import foreign

    anchors, columns = foreign.output_sizes(read, where)
    _fits(card, anchors, columns, where)
    runner = Runner(read)
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
    from mirilla.labels import LabelMap
    from mirilla.model.spec import ModelSpec

    found = cards.find(path)
    notes: tuple[str, ...] = ()
    if found is not None:
        card = cards.load(found, path)
        compiled = CompiledModel.load(path, input_size=_size(card))
    else:
        compiled = CompiledModel.load(path)
        height, width = compiled.input_size or (256, 256)
        card = ModelCard(
            ModelSpec(height_px=height, width_px=width),
            LabelMap.from_names(["face"]),
            name=path.stem,
            file=path.name,
            target="bonnet",
            made_by="unknown",
        )
        notes = (
            f"{path.name} has no model.json: assumed one class 'face', an input of {width}x{height}, and the "
            f"{len(card.anchors_yxyx)} anchors of the sample configuration.",
        )
    anchors, columns = len(card.anchors_yxyx), card.spec.num_classes + 1

    def network(pictures: NDArray[np.float32]) -> Outputs:
        outputs = compiled.run(pictures)
        by_size: dict[int, NDArray] = {int(np.prod(one.shape[1:])): one for one in outputs.values()}
        try:
            codes, logits = by_size[anchors * 4], by_size[anchors * columns]
        except KeyError:
            sizes = ", ".join(f"{name} {one.shape[1:]}" for name, one in outputs.items())
            raise ModelError(
                f"{path}: the outputs are {sizes}; {anchors} anchors with 4 box codes and {columns} logits "
                "each are needed.",
                "Put the model.json of this very model beside it.",
            ) from None
        return codes.reshape(len(pictures), anchors, 4), logits.reshape(len(pictures), anchors, columns)

    return Detector(card, network, source=str(path), notes=notes)


def _load_training(path: Path) -> Detector:
    from mirilla import weights
    from mirilla.targets import frozen_graph

    spec, labels, found = weights.of_training_folder(path)
    card = ModelCard(spec, labels, name=path.resolve().name, training={"steps": found.step})
    detector = Detector.from_graph(frozen_graph.build(spec, found.variables), card, source=str(found.path))
    return replace(detector, notes=(f"{path}: its newest checkpoint, of step {found.step}.",))
