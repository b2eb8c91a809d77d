"""Rules on what stands around the network: the name it is loaded under, labels, classes and anchors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mirilla.doctor.rules import finding
from mirilla.errors import MirillaError
from mirilla.findings import WARNING, Finding
from mirilla.model import card as cards
from mirilla.model.card import ModelCard

BUILT_IN = ("FaceDetection", "DishDetection")  # the firmware answers these names with models of its own
GOOGLE_CLASSES, GOOGLE_ANCHORS = 3, 1278


@dataclass(frozen=True)
class Outputs:
    """What a detector's or classifier's outputs hold: `anchors` is None for classifiers."""

    classes: int
    anchors: int | None
    name: str  # of the output with the classes

    @classmethod
    def of(cls, names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> Outputs | None:
        """From the outputs' names and shapes (without batch); None when they are neither's."""
        sizes = [_size(shape) for shape in shapes]
        if len(sizes) == 2:
            for boxes, logits in ((0, 1), (1, 0)):
                count, depth = sizes[boxes] // 4, shapes[logits][-1]
                if shapes[boxes][-1] == 4 and depth > 1 and sizes[logits] == count * depth:
                    return cls(depth - 1, count, names[logits])
        if len(sizes) == 1 and shapes[0][-1] == sizes[0]:
            return cls(sizes[0], None, names[0])
        return None


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def load_name(name: str | None, path: str | os.PathLike[str], card: ModelCard | None) -> Iterator[Finding]:
    """The name under which a program loads the model: as given, else as the card or the file suggest."""
    remedy = "Load it under another name (the first argument of ModelDescriptor)."
    if name is not None:
        if name in BUILT_IN:
            yield finding(
                "name-taken",
                name,
                f"The model is to be loaded as '{name}': the firmware would ignore its graph.",
                remedy,
            )
        return
    for one, where in ((card.name if card else "", "model.json"), (Path(path).stem, "the file's name")):
        if one in BUILT_IN:
            yield finding(
                "name-taken",
                one,
                f"The model is called '{one}' ({where}): loaded under that name, the firmware would ignore its graph.",
                remedy,
                severity=WARNING,
            )
            return


def decoder(outputs: Outputs | None, classes: int | None, card: ModelCard | None) -> Iterator[Finding]:
    """Whether the decoder (`classes`, or the card's labels and anchors) is made for these outputs."""
    if outputs is None:
        return
    kind = "columns less the background" if outputs.anchors is not None else "values"
    if classes is not None and classes != outputs.classes:
        yield finding(
            "classes",
            outputs.name,
            f"The decoder is for {classes} classes, '{outputs.name}' holds {outputs.classes} ({kind}).",
            f"Use a decoder for that number, or train with num_classes: {classes}.",
        )
    if card is not None and outputs.anchors is not None:
        if card.spec.num_classes != outputs.classes:
            yield finding(
                "classes",
                outputs.name,
                f"model.json is for {card.spec.num_classes} classes, '{outputs.name}' holds {outputs.classes}.",
                "Take the model.json that was exported with this model.",
            )
        elif card.labels.max_id != outputs.classes:
            yield finding(
                "classes",
                outputs.name,
                f"model.json names {card.labels.max_id} classes, "
                f"'{outputs.name}' holds {outputs.classes}: some have no name.",
                "Export with the label map that the model was trained with.",
                severity=WARNING,
            )
        if len(card.anchors_yxyx) != outputs.anchors:
            yield finding(
                "anchors",
                outputs.name,
                f"model.json has {len(card.anchors_yxyx)} anchors, the network {outputs.anchors}.",
                "Take the model.json that was exported with this model.",
            )
    if card is not None and card.spec.keep_aspect_ratio:
        yield finding(
            "letterbox",
            "model.json",
            "The network was trained on letterboxed pictures.",
            "Send the kit pictures that are padded to a square already, or train with fixed_shape_resizer.",
        )
    if outputs.anchors is not None and (outputs.classes, outputs.anchors) != (GOOGLE_CLASSES, GOOGLE_ANCHORS):
        yield finding(
            "google-decoder",
            outputs.name,
            f"The network has {outputs.classes} "
            f"class{'es' * (outputs.classes != 1)} and "
            f"{outputs.anchors} anchors, so that decoder misreads it or stops.",
            "Decode with the labels and anchors of model.json.",
        )


def card_of(path: str | os.PathLike[str]) -> tuple[ModelCard | None, list[Finding]]:
    """The model.json of a model's file, if there is one; a finding when it cannot be used."""
    found = cards.find(path)
    if found is None:
        return None, []
    try:
        return cards.load(found, path), []
    except MirillaError as error:
        return None, [finding("card", os.fspath(found), error.what, error.remedy or "Export the model again.")]
