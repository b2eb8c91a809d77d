"""Rules about the use of a network: the name under which it is loaded, labels, classes and anchors."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mirilla.doctor.rules import finding
from mirilla.errors import MirillaError
from mirilla.findings import WARNING, Finding
from mirilla.model import card as cards
from mirilla.model.card import ModelCard

BUILT_IN = ("FaceDetection", "DishDetection")  # under these names the firmware runs its own models
GOOGLE_CLASSES, GOOGLE_ANCHORS = 3, 1278


@dataclass(frozen=True)
class Outputs:
    """The numbers of classes and anchors that a network's outputs have.

    Attributes:
        classes: number of classes without the background.
        anchors: number of anchors; None for classifiers.
        name: name of the output with the classes.
    """

    classes: int
    anchors: int | None
    name: str

    @classmethod
    def of(cls, names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> Outputs | None:
        """Recognise outputs by names and shapes (without batch); None if they are not a detector's or classifier's."""
        sizes = [math.prod(shape) for shape in shapes]
        if len(sizes) == 2:
            for boxes, logits in ((0, 1), (1, 0)):
                count, depth = sizes[boxes] // 4, shapes[logits][-1]
                if shapes[boxes][-1] == 4 and depth > 1 and sizes[logits] == count * depth:
                    return cls(depth - 1, count, names[logits])
        if len(sizes) == 1 and shapes[0][-1] == sizes[0]:
            return cls(sizes[0], None, names[0])
        return None


def load_name(name: str | None, path: str | os.PathLike[str], card: ModelCard | None) -> Iterator[Finding]:
    """The rule about the name under which a program loads the model.

    Args:
        name: the name; None: the name in the card and the file's name are checked instead.
        path: the model's file.
        card: its model.json.
    """
    remedy = "Load it under another name (the first argument of ModelDescriptor)."
    if name is not None:
        if name in BUILT_IN:
            yield finding(
                "name-taken",
                name,
                f"The model is loaded as '{name}': the firmware would ignore its graph.",
                remedy,
            )
        return
    for suggested, source in ((card.name if card else "", "model.json"), (Path(path).stem, "file name")):
        if suggested in BUILT_IN:
            yield finding(
                "name-taken",
                suggested,
                f"The model's name is '{suggested}' ({source}): loaded under it, the firmware would ignore its graph.",
                remedy,
                severity=WARNING,
            )
            return


def decoder(outputs: Outputs | None, classes: int | None, card: ModelCard | None) -> Iterator[Finding]:
    """Rules about the decoder of a network's outputs.

    Args:
        outputs: None if they are unknown; then nothing is reported.
        classes: the number of classes that the decoder expects, if known.
        card: the model.json, with labels and anchors.
    """
    if outputs is None:
        return
    if classes is not None and classes != outputs.classes:
        columns = "columns without the background" if outputs.anchors is not None else "values"
        yield finding(
            "classes",
            outputs.name,
            f"The decoder expects {classes} classes, but '{outputs.name}' has {outputs.classes} ({columns}).",
            f"Use a decoder for that number of classes, or train with num_classes: {classes}.",
        )
    if card is not None:
        yield from _card(outputs, card)
    if outputs.anchors is not None and (outputs.classes, outputs.anchors) != (GOOGLE_CLASSES, GOOGLE_ANCHORS):
        plural = "es" if outputs.classes != 1 else ""
        yield finding(
            "google-decoder",
            outputs.name,
            f"The network has {outputs.classes} class{plural} and {outputs.anchors} anchors, so Google's decoder fails "
            "or returns wrong boxes.",
            "Decode with the labels and anchors in model.json.",
        )


def _card(outputs: Outputs, card: ModelCard) -> Iterator[Finding]:
    if outputs.anchors is not None:
        if card.spec.num_classes != outputs.classes:
            yield finding(
                "classes",
                outputs.name,
                f"model.json is for {card.spec.num_classes} classes, but '{outputs.name}' has {outputs.classes}.",
                "Use the model.json that was exported with this model.",
            )
        elif card.labels.max_id != outputs.classes:
            yield finding(
                "classes",
                outputs.name,
                f"model.json names {card.labels.max_id} classes, but '{outputs.name}' has {outputs.classes}: some have "
                "no name.",
                "Export with the label map that the model was trained with.",
                severity=WARNING,
            )
        if len(card.anchors_yxyx) != outputs.anchors:
            yield finding(
                "anchors",
                outputs.name,
                f"model.json has {len(card.anchors_yxyx)} anchors, but the network has {outputs.anchors}.",
                "Use the model.json that was exported with this model.",
            )
    if card.spec.keep_aspect_ratio:
        yield finding(
            "letterbox",
            "model.json",
            "The network was trained on letterboxed images.",
            "Send the kit images that are already padded to a square, or train with fixed_shape_resizer.",
        )


def card_of(path: str | os.PathLike[str]) -> tuple[ModelCard | None, list[Finding]]:
    """The model.json of a model's file, if there is one, and a finding if it cannot be used."""
    found = cards.find(path)
    if found is None:
        return None, []
    try:
        return cards.load(found, path), []
    except MirillaError as error:
        return None, [finding("card", os.fspath(found), error.what, error.remedy or "Export the model again.")]
