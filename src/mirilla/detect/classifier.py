"""Classifier: a network that names a picture's class, such as MobileNet or one of "TensorFlow for poets".

classifier = Classifier.load("rock_paper_scissors.binaryproto", labels="labels.txt")
for found in classifier(photo):            # (H, W, 3) uint8 RGB
    print(found.label, found.score)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla import graph
from mirilla.bonnet import format as binary
from mirilla.bonnet.run import CompiledModel, normalise
from mirilla.detect import engine
from mirilla.errors import ModelError
from mirilla.graph.reference import softmax
from mirilla.model import card as cards
from mirilla.model import classifier_card
from mirilla.model.classifier_card import ClassifierCard
from mirilla.resize import bilinear

TOP = 3
Photo = NDArray[np.uint8]  # (H, W, 3) RGB
Network = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # (H, W, 3) normalised -> (classes,)


@dataclass(frozen=True)
class Classified:
    """A class of a picture."""

    class_id: int
    label: str
    score: float


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network with its labels.

    card: labels, input and normalisation.
    network: a normalised picture -> the values of its output.
    notes: what was assumed.
    """

    card: ClassifierCard
    network: Network
    source: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def load(
        cls, path: str | Path, *, labels: str | None = None, input_size: int | tuple[int, int] | None = None
    ) -> Classifier:
        """Load a classifier.

        Args:
            path: a compiled model (.binaryproto) or a frozen graph (.pb); its model.json is used if there is one.
            labels: a text file with the labels, one a line.
            input_size: side, or (rows, columns), if the file does not have it.

        Raises:
            ModelError: it is no classifier, or the labels do not fit.
            MirillaError: a file cannot be read.
        """
        found = try_load(Path(path), labels, input_size)
        if found is None:
            raise ModelError(f"{path}: not a classifier.", "Give a network with one output: a score for each class.")
        return found

    def __call__(self, image: Photo, top: int = TOP) -> list[Classified]:
        """The best classes of a photo (H, W, 3) uint8 RGB of any size, best first."""
        card = self.card
        pixels = normalise(bilinear(image, card.height_px, card.width_px), card.mean, card.stddev)
        scores = self.network(pixels).reshape(-1)
        if card.converter == "SOFTMAX":
            scores = softmax(scores)
        best = np.argsort(-scores, kind="stable")[:top]
        return [Classified(int(i), card.labels[i], float(scores[i])) for i in best]


def try_load(
    path: Path, labels: str | None = None, input_size: int | tuple[int, int] | None = None
) -> Classifier | None:
    """The classifier in a file; None if the file has the model.json of a detector, or is no classifier."""
    if path.suffix not in (binary.SUFFIX, ".pb") or not path.is_file():
        return None
    card = classifier_card.load_beside(path)
    if card is None and cards.find(path) is not None:
        return None
    if card is not None:
        input_size = card.height_px, card.width_px
    read = _compiled if path.suffix == binary.SUFFIX else _frozen
    return read(path, card, labels, (input_size, input_size) if isinstance(input_size, int) else input_size)


def _compiled(
    path: Path, card: ClassifierCard | None, labels: str | None, size: tuple[int, int] | None
) -> Classifier | None:
    model = CompiledModel.load(path, input_size=size)
    if model.input_size is None:
        return None
    shapes = model.program(*model.input_size).shapes
    classes = classifier_card.output_classes([shapes[name] for name in model.output_names])
    if classes is None:
        return None
    (output,) = model.output_names
    # the last op tells whether the output is already a distribution
    converter = "IDENTITY" if model.model.ops[-1].kind == "SoftmaxActivation" else "SOFTMAX"
    card, notes = _card(path, card, labels, classes, model.input_size, model.input_name, output, converter)
    return Classifier(card, lambda pixels: model.run(pixels[None])[output][0], str(path), notes)


def _frozen(
    path: Path, card: ClassifierCard | None, labels: str | None, size: tuple[int, int] | None
) -> Classifier | None:
    graph_def = graph.read_graph_def(path)
    try:
        network = graph.read(graph_def, input_size=size)
    except ModelError:
        return None  # reported by whoever reads it as a detector
    classes = classifier_card.output_classes(network.output_shapes)
    if classes is None:
        return None
    (output,) = network.outputs
    run = engine.prepare(network)
    last = network.layer(output)
    converter = "IDENTITY" if last.op == "softmax" else "SOFTMAX"
    card, notes = _card(path, card, labels, classes, network.input_shape[:2], network.input, output, converter)
    return Classifier(card, lambda pixels: run(pixels[None])[output][0], str(path), (*network.notes, *notes))


def _card(
    path: Path,
    card: ClassifierCard | None,
    labels: str | None,
    classes: int,
    size: tuple[int, int],
    tensor: str,
    output: str,
    converter: str,
) -> tuple[ClassifierCard, tuple[str, ...]]:
    """The card, or one made of what the file tells, and notes; `labels` replaces the card's."""
    if card is not None and labels is None:
        if len(card.labels) != classes:
            raise ModelError(
                f"{path}: the network has {classes} classes, but its model.json {len(card.labels)} labels.",
                "Compile the model again.",
            )
        return card, ()
    names, note = classifier_card.labels_for(path, labels, classes)
    target = "bonnet" if path.suffix == binary.SUFFIX else "frozen_graph"
    made = ClassifierCard(
        names, size[0], size[1], tensor, output, converter, name=path.stem, file=path.name, target=target
    )
    return made, (note,)
